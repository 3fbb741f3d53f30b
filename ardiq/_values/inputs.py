"""The results that a claimed task is called with: they come beside its arguments, and take their places.

A claim's arguments are netstrings then: the arguments, and for each input its parameter, its shape, and how many values
follow, each with its source, its state, its codec and its bytes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from . import conversion as _conversion
from .codec import CUSTOM, NOT_SENT, Codec
from .encodings import TYPED, choose, encoding_of, netstring, netstrings, survey, to_json
from .results import Results
from .signature import MISSING, Signature, invalid

WITH = "with+"
"""What the codec of a claim with inputs begins with; then comes that of its arguments."""

ONE, LIST, MAP = "one", "list", "map"
COMPLETE, REFERENCE = "complete", "reference"


class Value(NamedTuple):
    """One result.

    Attributes:
        source: the name of the node, or of the map's call.
        state: "complete"; "reference": it is too large, and `data` is its task's id; "map": `data` is the map's id;
            anything else: how the source ended without a result, and `data` is its error.
        codec: of a result; of a "reference" or a "map" the queue that has it, if that is not the task's own.
    """

    source: str
    state: str
    codec: str
    data: bytes


class Input(NamedTuple):
    """What one parameter gets; `parameter` is its position, or a keyword, and, of a place in a list, `[index]` for each
    list around it.
    """

    parameter: str
    shape: str
    values: list[Value]

    @property
    def label(self) -> str:
        """The argument, for messages."""
        place, _ = place_of(self.parameter)
        return f"argument {place!r}" if isinstance(place, str) else f"argument {place + 1}"


def unpack(packed: bytes) -> tuple[bytes, list[Input]]:
    """The arguments of a claim with inputs, and the inputs.

    Raises:
        InvalidArguments: they are not laid out so.
    """
    try:
        parts = netstrings(packed)
        args, inputs = next(parts), []
        for parameter in parts:
            shape, count = next(parts).decode(), int(next(parts))
            values = [Value(_text(parts), _text(parts), _text(parts), next(parts)) for _ in range(count)]
            inputs.append(Input(parameter.decode(), shape, values))
    except (StopIteration, RuntimeError, ValueError) as error:
        raise invalid("the stored arguments and results cannot be read: written by a newer version?") from error
    return args, inputs


def _text(parts: Iterator[bytes]) -> str:
    return next(parts).decode(errors="replace")


def pack(args: bytes, inputs: Iterable[Input]) -> bytes:
    """The arguments of a claim with inputs."""
    parts: list[bytes] = [args]
    for each in inputs:
        parts += [each.parameter.encode(), each.shape.encode(), b"%d" % len(each.values)]
        for value in each.values:
            parts += [value.source.encode(), value.state.encode(), value.codec.encode(), value.data]
    return b"".join(map(netstring, parts))


def wiring(asked: Any) -> bytes:
    """Which results are which arguments, by the `inputs` of a node, as they are signed."""
    rows = []
    for parameter, source in asked:
        if isinstance(source, str):
            shape, names = (MAP, [source[1:]]) if source.startswith("*") else (ONE, [source])
        else:
            shape, names = LIST, list(source)
        rows.append([parameter, shape, *names])
    return to_json(rows)


def wired(inputs: Iterable[Input]) -> bytes:
    """The same by the inputs of a claim, none of them read yet."""
    return to_json([[each.parameter, each.shape, *[value.source for value in each.values]] for each in inputs])


def takes_pages(signature: Signature | None, parameter: str) -> bool:
    """Whether a parameter is annotated as `Results`."""
    place, path = place_of(parameter)
    return signature is not None and not path and Results.item_of(signature.annotation(place)) is not None


def receive(
    codec: Codec, packed: bytes, kwargs: bytes, how: str, signature: Signature | None
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a claim with inputs, as `Codec.receive_call` returns those of any other.

    Raises:
        InvalidArguments: they cannot be read, or one does not fit; the text names the parameter, and the source of a
            result.
    """
    args, inputs = unpack(packed)
    base = how.removeprefix(WITH)
    if base != CUSTOM:
        encoding_of(base)  # one that is unknown here may be known elsewhere
    try:
        a, k = codec.decode_call(args, kwargs, base, None)
    except ValueError as error:
        if base == CUSTOM:
            raise
        raise invalid(f"the stored arguments cannot be read: {error}") from None
    places: dict[int | str, _Carried] = {at: _Carried(value, base) for at, value in enumerate(a)}
    places |= {name: _Carried(value, base) for name, value in k.items()}
    for each in inputs:
        place, path = place_of(each.parameter)
        if isinstance(place, int) and place not in places:
            raise invalid(f"the call has no argument {place + 1}, which {_sources(each)} is for")
        taken = _taken(codec, each, None if path else places.get(place))
        if path:
            try:
                taken = places[place].with_part(path, taken)
            except (KeyError, TypeError, IndexError):
                raise invalid(f"{each.label} has no place {each.parameter}, which {_sources(each)} is for") from None
        places[place] = taken
    a = [places[at].value for at in range(len(a))]
    k = {name: carried.value for name, carried in places.items() if isinstance(name, str)}
    if signature is None:
        return a, k
    try:
        signature.check(a, k)
    except TypeError as error:
        raise invalid(str(error)) from None
    known = signature.annotated(a, k)
    if known is None:
        return a, k
    hints: dict[int | str, tuple[str, Any]] = dict(enumerate(known.positional(len(a))))
    hints |= {name: (name, known.hint(name)) for name in k}

    def fitted(place: int | str) -> Any:
        carried, (label, hint) = places[place], hints[place]
        if type(carried.value) is Results:
            return carried.value.typed(known.annotation(place), f"argument {label!r} of task {known.name!r}")
        refuses = signature.inner is None or carried.is_typed
        if hint is MISSING or carried.from_json is None or not (refuses or signature.converts):
            return carried.value
        try:
            return _conversion.convert(carried.value, hint, carried.from_json)
        except msgspec.ValidationError as error:
            if not refuses:
                return carried.value
            where = "" if carried.origin is None else f" ({_sources(carried.origin)})"
            why = _conversion.why_not(error)
            raise invalid(f"argument {label!r} does not fit its annotation: {why}{where}") from None

    return [fitted(at) for at in range(len(a))], {name: fitted(name) for name in k}


class _Carried:
    """An argument, and how it travelled."""

    __slots__ = ("codecs", "from_json", "is_typed", "origin", "value")

    def __init__(self, value: Any, codec: str, origin: Input | None = None) -> None:
        self.value = value
        self.origin = origin
        self.codecs: set[str] = set()
        """Of its parts, if it is a list of lists."""
        # Whether JSON carried it; None: it is no plain data.
        self.from_json = None if codec == CUSTOM else encoding_of(codec).str_keys
        self.is_typed = codec != CUSTOM and encoding_of(codec).typed

    def with_part(self, path: tuple[int, ...], part: "_Carried") -> "_Carried":
        """It, with a part in its place."""
        inner = self.value
        for at in path[:-1]:
            inner = inner[at]
        inner[path[-1]] = part.value
        codecs = self.codecs | part.codecs
        known, new = self.origin, part.origin
        values = [*(known.values if known else ()), *(new.values if new else ())]
        origin = None if new is None else Input(new.parameter, LIST, values)
        whole = _Carried(self.value, _oddest(codecs), origin)
        whole.codecs = codecs
        return whole


def _taken(codec: Codec, given: Input, default: _Carried | None) -> _Carried:
    """What a parameter gets."""
    if given.shape == MAP and any(value.state == MAP for value in given.values):
        [value] = given.values
        return _Carried(Results(value.data.decode(), queue=value.codec), CUSTOM, given)
    if given.shape == ONE:
        [value] = given.values
        if value.state == COMPLETE:
            return _of_codecs(_decoded(codec, given, value), {_encoding(value)}, given)
        default = default or _Carried(None, "")
        default.origin = given
        return default
    results = [
        _decoded(codec, given, value) if value.state == COMPLETE else None
        for value in given.values
        if value.state == COMPLETE or given.shape == LIST
    ]
    return _of_codecs(results, {_encoding(value) for value in given.values if value.state == COMPLETE}, given)


def _of_codecs(value: Any, codecs: set[str], given: Input) -> _Carried:
    carried = _Carried(value, _oddest(codecs), given)
    carried.codecs = codecs
    return carried


def _oddest(codecs: set[str]) -> str:
    """Those of one task may differ: what is not plain JSON is msgpack."""
    return next((each for each in (CUSTOM, "msgpack+types", "msgpack", TYPED) if each in codecs), "")


def _encoding(value: Value) -> str:
    """The codec of a result, which may say of which task."""
    return value.codec.partition(":")[0]


def _decoded(codec: Codec, given: Input, value: Value) -> Any:
    try:
        if value.codec == NOT_SENT:
            raise ValueError(value.data.decode(errors="replace"))
        return codec.decode_packed(value.data or b"null", _encoding(value))
    except (ValueError, TypeError) as error:
        raise invalid(f"{given.label}: the result of {value.source!r} cannot be read: {error}") from None


def place_of(parameter: str) -> tuple[int | str, tuple[int, ...]]:
    """The position or keyword of an input's parameter, and where in its lists."""
    name, _, path = parameter.partition("[")
    return int(name) if name.isdecimal() else name, tuple(int(at) for at in path[:-1].split("][") if at)


def parameter_of(place: int | str, path: Iterable[int]) -> str:
    """The same as one text."""
    return f"{place}{''.join(f'[{at}]' for at in path)}"


def _sources(given: Input) -> str:
    """What an argument is, for messages."""
    if given.shape != ONE:
        of_map = given.shape == MAP and given.values
        names = [given.values[0].source.partition("~")[0]] if of_map else [value.source for value in given.values]
        return f"the results of {', '.join(map(repr, names)) or 'a map without items'}"
    [value] = given.values
    if value.state in (COMPLETE, REFERENCE):
        return f"the result of {value.source!r}"
    error = value.data.decode(errors="replace")
    return f"the place of the result of {value.source!r}, which is {value.state}{error and ': '}{error}"


def encode_open(
    codec: Codec,
    name: str,
    signature: Signature | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    holes: Collection[int | str],
) -> tuple[bytes, bytes, str]:
    """As `Codec.encode_fitting`, of a call in which the arguments at some places are not known yet: what stands there
    is neither checked nor converted.

    Raises:
        TypeError, ValueError: as there.
    """
    if signature is not None:
        signature.check(args, kwargs)
    if codec.is_custom:
        return codec.encode_call(name, signature, args, kwargs)
    known = None if signature is None else signature.annotated(args, kwargs)
    hints: dict[int | str, tuple[str, Any]] = {at: (f"{at + 1}", MISSING) for at in range(len(args))}
    if known is not None:
        hints = dict(enumerate(known.positional(len(args))))
    hints |= {key: (key, MISSING if known is None else known.hint(key)) for key in kwargs}
    named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    rows = [
        (f"argument {label!r} of task {name!r}", value, MISSING if place in holes else hint)
        for place, value in named
        for label, hint in (hints[place],)
    ]
    try:
        encoding = choose(rows, survey(value for _, value in named), signature is not None and signature.converts)
        a, k = encoding.encode(list(args)), encoding.encode(dict(kwargs)) if kwargs else b""
    except RecursionError:
        raise ValueError(f"an argument of task {name!r} is nested too deeply, or contains itself") from None
    if len(a) + len(k) > codec.limit:
        raise codec.too_large(f"the arguments of task {name!r} are", len(a) + len(k))
    if signature is not None and signature.inner is None:
        back = encoding.decode(a), encoding.decode(k) if k else {}
        for (label, _, hint), value in zip(rows, [*back[0], *back[1].values()], strict=True):
            encoding.restore(value, hint, label)
    return a, k, encoding.codec
