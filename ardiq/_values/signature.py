"""What a task's function takes and returns: checks calls cheaply, knows the annotations.

A call is checked against what is called. Of a decorator that wraps a function (`functools.wraps`) that is the wrapper:
it may add, take or convert arguments. The annotations it shows are those of the function, which `wraps` copies; so they
restore what was sent as their types, and refuse nothing. Plain JSON is converted by them only where the wrapper passes
on whatever it is given (`*args, **kwargs`) and all of the call fits.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from . import conversion as _conversion


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""No annotation, or one to which nothing can be converted."""

Reader: TypeAlias = Callable[[bytes], Sequence[Any]]
KeywordReader: TypeAlias = Callable[[bytes], dict[str, Any]]

_NOTHING: Final[Mapping[str, Any]] = types.MappingProxyType({})
_SCALARS = frozenset({str, int, float, bool, types.NoneType})
_MOST_LAYERS = 100

# How many shapes of calls are remembered for a function, and how many arguments a remembered one has at most.
_MOST_SHAPES, _LONGEST_SHAPE = 1000, 100


class Readers(NamedTuple):
    """Read the arguments of calls of one shape in JSON, converted; None for those in which there is nothing to convert.

    Attributes:
        args: reads the array.
        kwargs: reads the object.
    """

    args: Reader | None
    kwargs: KeywordReader | None


PLAIN: Final = Readers(None, None)
"""For calls that fit and that JSON carries unchanged."""


class Signature:
    """One function's parameters and annotations, looked up when first needed."""

    __slots__ = (
        "_fits", "_hints", "_readers", "_readers_of", "_signature", "_wants_tuples", "converts", "fitting", "fn",
        "inner", "name", "passes_on",
    )  # fmt: skip

    def __init__(self, name: str, fn: Callable[..., Any], checks_types: bool = True) -> None:
        self.name = name
        self.fn = fn
        layers = _layers(fn)
        # Whether it is a wrapper (perhaps of wrappers) that passes on whatever it is given.
        self.passes_on = len(layers) > 1 and all(map(_is_opaque, layers[:-1]))
        # What has the annotations, where they refuse nothing; None where they are those of what is called, and do.
        self.inner = type(self)(name, layers[-1]) if len(layers) > 1 or not checks_types else None
        # Whether plain JSON is converted by the annotations.
        self.converts = checks_types and (self.inner is None or self.passes_on)
        # Of calls that fit the function, by the types of their arguments: what remains to be read to know that they fit
        # the annotations.
        self.fitting: dict[Any, Readers] = {}
        self._fits: set[Any] = set()
        self._signature: inspect.Signature | None = None
        self._hints: dict[str, Any] | None = None
        self._readers: tuple[Reader | None, Reader | None] | None = None
        self._readers_of: dict[tuple[Any, ...], Readers] = {}
        self._wants_tuples: bool | None = None

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call that the function would refuse.

        Raises:
            TypeError: too many or too few arguments, or an unknown keyword.
        """
        # Whether a call fits depends only on the number of arguments and on the keywords.
        shape = (len(args), *kwargs) if kwargs else len(args)
        if shape in self._fits:
            return
        try:
            self._inspected().bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"task {self.name!r}: {error}") from None
        if len(self._fits) < _MOST_SHAPES:
            self._fits.add(shape)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by the names of the parameters, with their defaults.

        Raises:
            TypeError: the function cannot be called so.
        """
        bound = self._inspected().bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """As `bind`, of the function behind wrappers that pass on what they are given, and with further keywords among
        the others.
        """
        if self.inner is not None and self.passes_on:
            return self.inner.named(args, kwargs)
        named = self.bind(args, kwargs)
        rest = next((p.name for p in self._inspected().parameters.values() if p.kind is p.VAR_KEYWORD), None)
        return named if rest is None else {**named.pop(rest), **named}

    def takes(self, args: Sequence[Any], kwargs: Mapping[str, Any] = _NOTHING) -> bool:
        """Whether the function can be called with these arguments alone."""
        try:
            self.check(args, kwargs)
        except TypeError:
            return False
        return True

    def annotated(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> "Signature | None":
        """What has the annotations of the arguments of a call that fits; None where nothing is known of them."""
        if self.inner is None:
            return self
        return self.inner if self.inner.takes(args, kwargs) else None

    def remember(self, kinds: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """That this call, whose arguments are of these types, fits, so that the next one costs less."""
        if len(args) + len(kwargs) > _LONGEST_SHAPE or len(self.fitting) >= _MOST_SHAPES:
            return
        found = {type(value) for value in (*args, *kwargs.values())}
        if found <= _SCALARS and (
            self.inner is not None
            or all(hint is MISSING or _is_scalar(hint) for _, hint in self._labelled(len(args), kwargs))
        ):
            # A float may be NaN or infinite, for which JSON has no word.
            self.fitting[kinds] = Readers(None, None) if float in found else PLAIN
        elif (readers := self.readers_of(args, kwargs)) is not None:
            self.fitting[kinds] = readers

    def convert(
        self, args: list[Any], kwargs: dict[str, Any], from_json: bool | None, is_typed: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call that has arrived, each as its annotation wants it.

        Args:
            args: plain data, as are the values of `kwargs`.
            from_json: whether JSON carried it, where keys are text; None: it is no plain data and stays as it is.
            is_typed: whether the sender counted on its being converted.

        Raises:
            InvalidArguments: it does not fit the function, or an argument its annotation.
        """
        try:
            self.check(args, kwargs)
        except TypeError as error:
            raise invalid(str(error)) from None
        if from_json is None:
            return args, kwargs
        if self.inner is not None:
            try:
                return self.inner.convert(args, kwargs, from_json) if is_typed or self.converts else (args, kwargs)
            except TypeError:
                if is_typed:
                    raise
                return args, kwargs
        values = []
        for (label, hint), value in zip(self._labelled(len(args), kwargs), [*args, *kwargs.values()], strict=True):
            try:
                values.append(value if hint is MISSING else _conversion.convert(value, hint, from_json))
            except msgspec.ValidationError as error:
                why = _conversion.why_not(error)
                raise invalid(f"argument {label!r} does not fit its annotation: {why}") from None
        return values[: len(args)], dict(zip(kwargs, values[len(args) :], strict=True))

    @property
    def reader(self) -> Reader | None:
        """Reads a JSON array of positional arguments, converted, as fast as it would be read alone; None for functions
        that need more. What it raises, `convert` explains.
        """
        if self._readers is None:
            self._readers = self._make_readers()
        return self._readers[0]

    @property
    def call_reader(self) -> Reader | None:
        """As `reader`, for who only calls the function: arguments that were left out may be there as their defaults."""
        if self._readers is None:
            self._readers = self._make_readers()
        return self._readers[1]

    def readers_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Readers | None:
        """What reads a call of this shape; None where it does not fit, or is too long to be worth it."""
        if self.inner is not None:
            return self.inner.readers_of(args, kwargs) if self.converts else None
        shape = (len(args), *kwargs)
        try:
            return self._readers_of[shape]
        except KeyError:
            pass
        if len(args) + len(kwargs) > _LONGEST_SHAPE or len(self._readers_of) >= _MOST_SHAPES:
            return None
        try:
            self.check(args, kwargs)
        except TypeError:
            return None
        row = [hint for _, hint in self.positional(len(args))]
        columns = {keyword: self.hint(keyword) for keyword in kwargs}
        readers = self._readers_of[shape] = Readers(
            None if _all_missing(row) else _conversion.decoder(_conversion.row_type(_or_any(row))),
            None
            if _all_missing(columns.values())
            else _conversion.decoder(_conversion.object_type(columns, _or_any(columns.values()))),
        )
        return readers

    @property
    def wants_tuples(self) -> bool:
        """Whether an annotation of a parameter names a tuple."""
        if self.inner is not None:
            return self.inner.wants_tuples
        if self._wants_tuples is None:
            hints = self._resolved()
            self._wants_tuples = any(_mentions_tuple(hint) for name, hint in hints.items() if name != "return")
        return self._wants_tuples

    @property
    def returns(self) -> Any:
        """The annotation of the result, or `MISSING`. One that promises nothing forbids nothing: a middleware may
        return something else.
        """
        if self.inner is not None:
            return self.inner.returns
        hint = self._resolved().get("return", MISSING)
        return MISSING if hint is types.NoneType else hint

    def positional(self, count: int) -> Iterator[tuple[str, Any]]:
        """Name and annotation of each of the first `count` positional arguments."""
        names: list[str] = []
        rest = ""
        for parameter in self._inspected().parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                rest = parameter.name
        for i in range(count):
            name = names[i] if i < len(names) else rest
            yield name or f"{i + 1}", self._resolved().get(name, MISSING)

    def position(self, name: str) -> int | None:
        """Where a parameter is passed by position, from 0; None where it cannot be."""
        for at, parameter in enumerate(self._inspected().parameters.values()):
            if parameter.name == name:
                by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                return at if by_position else None
        return self.inner.position(name) if self.inner is not None and self.passes_on else None

    def default(self, name: str) -> Any:
        """The default of a parameter, or `MISSING`."""
        if self.inner is not None and self.passes_on:
            return self.inner.default(name)
        parameter = self._inspected().parameters.get(name)
        return MISSING if parameter is None or parameter.default is parameter.empty else parameter.default

    def accepts(self, name: str) -> bool:
        """Whether a call can have an argument of that name."""
        if self.inner is not None and self.passes_on:
            return self.inner.accepts(name)
        parameters = self._inspected().parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def hint(self, keyword: str) -> Any:
        """The annotation of a keyword argument, or `MISSING`."""
        parameters = self._inspected().parameters
        parameter = parameters.get(keyword)
        if parameter is None or parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            keyword = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), "")
        return self._resolved().get(keyword, MISSING)

    def annotation(self, place: int | str) -> Any:
        """The annotation of an argument by its position or keyword, as it is written, or `MISSING`."""
        if self.inner is not None:
            return self.inner.annotation(place)
        if isinstance(place, int):
            *_, (name, _) = self.positional(place + 1)
            return self._written().get(name, MISSING)
        named = self._inspected().parameters
        rest = next((each.name for each in named.values() if each.kind is each.VAR_KEYWORD), "")
        return self._written().get(place if place in named else rest, MISSING)

    def _make_readers(self) -> tuple[Reader | None, Reader | None]:
        if self.inner is not None:
            reader = self.inner.reader if self.converts else None
            return reader, reader
        hints: list[Any] = []
        defaults: list[Any] = []
        kind: Any = None
        for parameter in self._inspected().parameters.values():
            hint: Any = self._resolved().get(parameter.name, Any)
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                hints.append(hint)
                if parameter.default is not parameter.empty:
                    defaults.append(parameter.default)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                if hints:
                    return None, None
                kind = types.GenericAlias(list, (hint,))
            elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                return None, None
        absent = _conversion.ABSENT
        decode = _conversion.decoder(kind or _conversion.row_type(hints, [absent] * len(defaults)))
        if not defaults:
            return decode, decode

        def read(data: bytes) -> Sequence[Any]:
            row: Sequence[Any] = decode(data)
            return row if row[-1] is not absent else [value for value in row if value is not absent]

        # A wrapper may distinguish an argument that was left out from one that equals the default.
        if type(self.fn) is not types.FunctionType or self.fn.__dict__.keys() & {"__wrapped__", "__signature__"}:
            return read, read
        return read, _conversion.decoder(_conversion.row_type(hints, defaults))

    def _labelled(self, count: int, keywords: Iterable[str]) -> list[tuple[str, Any]]:
        return [*self.positional(count), *((keyword, self.hint(keyword)) for keyword in keywords)]

    def _inspected(self) -> inspect.Signature:
        if self._signature is None:
            self._signature = _signature_of(self.fn)
        return self._signature

    def _resolved(self) -> dict[str, Any]:
        if self._hints is None:
            hints = {name: _conversion.convertible(hint) for name, hint in self._written().items()}
            self._hints = {name: hint for name, hint in hints.items() if hint is not None}
        return self._hints

    def _written(self) -> dict[str, Any]:
        hints = hints_of(self.fn)
        for parameter in self._inspected().parameters.values():
            if parameter.default is None and parameter.name in hints:
                hints[parameter.name] = typing.Optional[hints[parameter.name]]  # noqa: UP045
        return hints


def _layers(fn: Callable[..., Any]) -> list[Callable[..., Any]]:
    """What is called, what that wraps, and so on."""
    layers = [fn]
    while len(layers) < _MOST_LAYERS and (inner := _wrapped(layers[-1])) is not None:
        layers.append(inner)
    return layers


def _wrapped(fn: Any) -> Any:
    """What is called by a wrapper with what it was given; None where `fn` is none, or says itself how it is called."""
    if isinstance(fn, functools.partial):
        inner = _wrapped(fn.func)
        return inner and functools.partial(inner, *fn.args, **fn.keywords)
    if isinstance(fn, types.MethodType):
        inner = _wrapped(fn.__func__)
        return inner and types.MethodType(inner, fn.__self__)
    if getattr(fn, "__signature__", None) is not None:
        return None
    inner = getattr(fn, "__wrapped__", None)
    if inner is None and not inspect.isroutine(fn) and not isinstance(fn, type) and callable(fn):
        return _wrapped(fn.__call__) if isinstance(fn.__call__, types.MethodType) else None
    return inner if callable(inner) else None


def _is_opaque(fn: Callable[..., Any]) -> bool:
    """Whether it takes anything."""
    kinds = [parameter.kind for parameter in _signature_of(fn).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """How it is called, behind wrappers that pass on whatever they are given."""
    layers = _layers(fn)
    called = next((layer for layer in layers if not _is_opaque(layer)), layers[-1])
    return list(_signature_of(called).parameters.values())


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """How it is called, whatever it wraps."""
    try:
        return inspect.signature(fn, follow_wrapped=False)
    except ValueError:  # some builtins have no signature
        return inspect.signature(_anything)


def _is_scalar(hint: Any) -> bool:
    """Whether it consists of plain scalars only."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return all(map(_is_scalar, typing.get_args(hint)))
    return isinstance(hint, type) and hint in _SCALARS


def _all_missing(hints: Iterable[Any]) -> bool:
    return all(hint is MISSING for hint in hints)


def _or_any(hints: Iterable[Any]) -> list[Any]:
    return [Any if hint is MISSING else hint for hint in hints]


def invalid(why: str) -> Exception:
    """An `InvalidArguments`."""
    from ..errors import InvalidArguments

    return InvalidArguments(why)


def _anything(*args: Any, **kwargs: Any) -> None: ...


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, of a wrapper those of what it wraps; without those that cannot be resolved yet."""
    target: Any = inspect.unwrap(fn)
    while hasattr(target, "func"):  # functools.partial
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:
        # A name that exists for type checkers only: the others still count.
        hints = {}
        for name, hint in getattr(target, "__annotations__", {}).items():
            try:
                single = type("_", (), {"__annotations__": {name: hint}, "__module__": target.__module__})
                hints.update(typing.get_type_hints(single, include_extras=True))
            except Exception:
                continue
        return hints


def _mentions_tuple(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, tuple):
        return True
    origin = typing.get_origin(hint)
    return origin is tuple or any(_mentions_tuple(arg) for arg in typing.get_args(hint))
