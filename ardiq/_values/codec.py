"""How arguments and results travel: what arrives equals what was sent, or the sender is told.

Text JSON by default, because people read it in redis-cli. What JSON would change silently
travels as msgpack, or as JSON that the worker converts back by the parameters' annotations
(`json+types`), or is refused by name. Only the common case is fast: plain values in plain
containers, recognised by their exact types.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any, NamedTuple

import msgspec

from . import conversion as _conversion
from .sameness import same
from .signature import MISSING, PLAIN, Readers, Signature, invalid

CUSTOM = "custom"
TYPED = "json+types"
NOT_SENT = "not-sent"
"""Of a result that could not be sent, where none is kept: the bytes are the reason."""

_SCALARS = frozenset({str, int, bool, NoneType})
_BINARY = frozenset({bytes, bytearray, memoryview})
_STRING_KEYS = frozenset({str})
_MSGPACK_KEYS = frozenset({str, int, bool, NoneType, float, bytes})

# What `survey` finds beside plain JSON.
_TUPLE, _MSGPACK, _OTHER = 1, 2, 4


def survey(values: Iterable[Any]) -> int:
    """What JSON would not carry as it is: a sum of `_TUPLE`, `_MSGPACK` and `_OTHER`, 0 for nothing."""
    found = 0
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is float:
            if not isfinite(value):
                found |= _MSGPACK
        elif kind is list or kind is tuple:
            if kind is tuple:
                found |= _TUPLE
            if not _SCALARS.issuperset(map(type, value)):
                found |= survey(value)
        elif kind is dict:
            keys = set(map(type, value))
            if not keys <= _STRING_KEYS:
                found |= _MSGPACK if keys <= _MSGPACK_KEYS else _OTHER
            if not _SCALARS.issuperset(map(type, value.values())):
                found |= survey(value.values())
        elif kind in _BINARY:
            found |= _MSGPACK
        else:
            found |= _OTHER | (_TUPLE if isinstance(value, tuple) else 0)
    return found


def _base_value(value: Any) -> Any:
    """A subclass of a plain type as that type: it arrives equal, though not of its class."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return timedelta(value.days, value.seconds, value.microseconds)
    if isinstance(value, Decimal):
        return Decimal.__str__(value)
    plain = _conversion.to_plain(value)
    if plain is not value:
        return plain
    raise TypeError(f"a {type(value).__name__} cannot be serialized")


_msgspec_json = msgspec.json.Encoder(enc_hook=_base_value).encode
_deterministic_msgpack = msgspec.msgpack.Encoder(enc_hook=_base_value, order="deterministic").encode
_decode_json_strict = msgspec.json.Decoder().decode
to_msgpack = msgspec.msgpack.Encoder(enc_hook=_base_value).encode
from_msgpack = msgspec.msgpack.Decoder().decode


def to_json(value: Any) -> bytes:
    """Text JSON. A lone surrogate (a file name that is not UTF-8) goes as an escape."""
    try:
        return _msgspec_json(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def from_json(data: bytes) -> Any:
    """What `to_json` wrote, or anybody else."""
    try:
        return _decode_json_strict(data)
    except msgspec.DecodeError:
        return json.loads(data)  # msgspec refuses lone surrogates
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


class NotSent(NamedTuple):
    """Stands for a result that could not be sent, where none is kept."""

    reason: str


class _Mode:
    """One way to travel; `typed` ones are converted by annotation on arrival."""

    __slots__ = ("codec", "decode", "encode", "str_keys", "typed")

    def __init__(self, codec: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], typed: bool) -> None:
        self.codec = codec
        self.encode = encode
        self.decode = decode
        self.typed = typed
        self.str_keys = encode is to_json

    def carries(self, value: Any, hint: Any) -> bool:
        """Whether the value arrives as it was sent; found out by sending it."""
        try:
            back = self.decode(self.encode(value))
            if self.typed and hint is not MISSING:
                back = _conversion.convert(back, hint, self.str_keys)
            return same(value, back)
        except Exception:
            return False

    def converts(self, value: Any, hint: Any) -> bool:
        """Whether plain data arrives as its annotation wants it."""
        try:
            _conversion.convert(self.decode(self.encode(value)), hint, self.str_keys)
        except Exception:
            return False
        return True

    def takes(self, value: Any) -> bool:
        """Whether it can be written at all."""
        try:
            self.encode(value)
        except (OverflowError, UnicodeEncodeError):
            return False
        return True

    def restore(self, value: Any, hint: Any, label: str) -> Any:
        if hint is MISSING:
            return value
        try:
            return _conversion.convert(value, hint, self.str_keys)
        except msgspec.ValidationError as error:
            raise TypeError(f"{label} does not fit its annotation: {_conversion.why_not(error)}") from None


_MODES = {
    mode.codec: mode
    for mode in (
        _Mode(TYPED, to_json, from_json, True),
        _Mode("", to_json, from_json, False),
        _Mode("msgpack+types", to_msgpack, from_msgpack, True),
        _Mode("msgpack", to_msgpack, from_msgpack, False),
    )
}
_UNTYPED = tuple(mode for mode in _MODES.values() if not mode.typed)
_ALL = tuple(_MODES.values())


def plain_json(label: str, value: Any) -> bytes:
    """The JSON of a value that equals it.

    Raises:
        TypeError: JSON would change it.
    """
    if not _MODES[""].carries(value, MISSING):
        raise TypeError(f"{label} must be plain JSON, not a {type(value).__name__} like this one")
    return to_json(value)


class Codec:
    """The wire format of one app: the default, or the user's own serializer."""

    __slots__ = ("_keeps_results", "deserializer", "is_custom", "kept", "limit", "serializer")

    def __init__(
        self,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
        limit: int,
        keeps_results: bool = True,
    ) -> None:
        self.serializer = serializer
        self.deserializer = deserializer
        self.limit = limit
        self._keeps_results = keeps_results
        # Of tasks that say so themselves: whether any time at all.
        self.kept: dict[str, bool] = {}
        self.is_custom = serializer is not None

    def encode_call(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes, str]:
        """Arguments to their bytes, keywords to theirs (empty for none), and the codec.

        Raises:
            TypeError: an argument cannot travel; it is named.
            ValueError: they are larger than the limit.
        """
        codec = ""
        if self.serializer is not None:
            codec = CUSTOM
            a = self.serialize(list(args), name)
            k = self.serialize(kwargs, name) if kwargs else b""
        else:
            try:
                if _SCALARS.issuperset(map(type, args)) and (
                    not kwargs or _SCALARS.issuperset(map(type, kwargs.values()))
                ):
                    found = 0
                else:
                    found = survey(args)
                    if kwargs:
                        found |= survey(kwargs.values())
                encode: Callable[[Any], bytes] = to_json
                if found and not (found == _TUPLE and (signature is None or not signature.wants_tuples)):
                    converts = signature is not None and signature.converts
                    mode = self.choose(_labelled(name, signature, args, kwargs), found, converts)
                    encode, codec = mode.encode, mode.codec
                a = encode(args) if args or codec else b"[]"
                k = encode(kwargs) if kwargs else b""
            except RecursionError:
                raise ValueError(f"an argument of task {name!r} is nested too deeply, or contains itself") from None
        if len(a) + len(k) > self.limit:
            raise self.too_large(f"the arguments of task {name!r} are", len(a) + len(k))
        return a, k, codec

    def choose(self, rows: list[tuple[str, Any, Any]], found: int, converts: bool = False) -> _Mode:
        """How values travel of which plain JSON would change some: each with what to call it and its annotation.
        `converts`: plain ones among them arrive as their annotations want them.

        Raises:
            TypeError: one cannot travel; it is named.
        """
        hinted = any(hint is not MISSING and survey((value,)) for _, value, hint in rows)
        if not found & _OTHER and not (found & _TUPLE and hinted):
            mode = _MODES["msgpack" if found & _MSGPACK else ""]
            if all(mode.takes(value) for _, value, _ in rows):
                return mode
        modes = list(_ALL if hinted else _UNTYPED)
        for label, value, hint in rows:
            if converts and hint is not MISSING and not survey((value,)):
                modes = [mode for mode in modes if mode.converts(value, hint)]
            else:
                modes = [mode for mode in modes if mode.carries(value, hint)]
            if not modes:
                raise TypeError(_why_not(label, value, hint))
        return modes[0]

    def decode_call(
        self, args: bytes, kwargs: bytes, codec: str, signature: Signature | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The other way round, to look at. Without a signature, typed values stay as JSON has them.

        Raises:
            TypeError: an argument does not fit its annotation.
            ValueError: the bytes are not what the codec says.
        """
        if not codec:
            a = from_json(args)
            k = from_json(kwargs) if kwargs else {}
        elif codec == CUSTOM:
            a = self._deserialize(args)
            k = self._deserialize(kwargs) if kwargs else {}
        else:
            mode = self._mode(codec)
            a = mode.decode(args)
            k = mode.decode(kwargs) if kwargs else {}
            if mode.typed and signature is not None:
                signature = signature.annotated(a, k)
            if mode.typed and signature is not None:
                named = zip(signature.positional(len(a)), a, strict=True)
                a = [mode.restore(v, hint, f"argument {label!r}") for (label, hint), v in named]
                k = {key: mode.restore(v, signature.hint(key), f"argument {key!r}") for key, v in k.items()}
        if not isinstance(a, list | tuple) or not isinstance(k, dict):
            raise ValueError("the stored arguments are not a list and a mapping")
        return list(a), k

    def encode_fitting(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes, str]:
        """As `encode_call`, of a call that the task's worker will take.

        Raises:
            TypeError: the arguments do not fit the function, or one does not fit its annotation or cannot travel.
            ValueError: as `encode_call`.
        """
        if signature is None:
            return self.encode_call(name, signature, args, kwargs)
        kinds: Any = (type(args[0]),) if len(args) == 1 else tuple(map(type, args))
        if kwargs:
            kinds = kinds, tuple(kwargs), tuple(map(type, kwargs.values()))
        known = signature.fitting.get(kinds)  # never of what an own serializer carries
        if known is not None and (known is PLAIN or _is_plain_json(args, kwargs)):
            a = to_json(args) if args else b"[]"
            k = to_json(kwargs) if kwargs else b""
            if len(a) + len(k) > self.limit:
                raise self.too_large(f"the arguments of task {name!r} are", len(a) + len(k))
            if known is PLAIN or signature.inner is not None or _fits(known, a, k):
                return a, k, ""
        if known is None:
            signature.check(args, kwargs)
        call = self.encode_call(name, signature, args, kwargs)
        if not self.is_custom and signature.inner is None:
            self._rehearse(call, name, signature, known or signature.readers_of(args, kwargs))
        if known is None and not self.is_custom:
            signature.remember(kinds, args, kwargs)
        return call

    def encode_readable(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes]:
        """As `encode_fitting`, of what is kept for later: text that an own serializer has no part in, and that arrives
        as it was without a word on how.

        Raises:
            TypeError: as `encode_fitting`, or JSON cannot carry an argument.
        """
        codec = Codec(None, None, self.limit) if self.is_custom else self
        a, k, how = codec.encode_fitting(name, None if self.is_custom else signature, args, kwargs)
        if how and not (how == TYPED and signature is not None and signature.converts):
            raise TypeError(f"the arguments of task {name!r} must be JSON, but one is not")
        return a, k

    def _rehearse(
        self, call: tuple[bytes, bytes, str], name: str, signature: Signature, readers: Readers | None
    ) -> None:
        """Receive a call as its worker will, to refuse what that would refuse."""
        a, k, codec = call
        if codec and self._mode(codec).typed:
            return  # it was tried to choose the codec
        if not codec and readers is not None and _fits(readers, a, k):
            return
        try:
            self.receive_call(a, k, codec, signature)
        except TypeError as error:
            raise TypeError(f"task {name!r}: {error}") from None

    def receive_call(
        self, args: bytes, kwargs: bytes, codec: str, signature: Signature | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The other way round, to call the function with: each argument as its annotation wants it, whoever sent it.
        What an own serializer carries is as that made it.

        Raises:
            InvalidArguments: they cannot be read, or do not fit.
            ValueError: an unknown codec.
        """
        if (not codec or codec == TYPED) and signature is not None:
            try:
                if not kwargs and (read := signature.reader) is not None:
                    return list(read(args)), {}
                a = _decode_json_strict(args)
                k = _decode_json_strict(kwargs) if kwargs else {}
                # Read once for the shape of the call, and again by the types of that shape.
                if type(a) is list and type(k) is dict and (readers := signature.readers_of(a, k)) is not None:
                    return (
                        a if readers.args is None else list(readers.args(args)),
                        k if readers.kwargs is None else readers.kwargs(kwargs),
                    )
            except msgspec.DecodeError:
                pass  # explained below
        mode = None if codec == CUSTOM else self._mode(codec)
        try:
            a, k = self.decode_call(args, kwargs, codec, None)
        except ValueError as error:
            if mode is None:
                raise
            raise invalid(f"the stored arguments cannot be read: {error}") from None
        if signature is None:
            return a, k
        return signature.convert(a, k, mode.str_keys if mode else None, mode is not None and mode.typed)

    def receiver(self, signature: Signature | None) -> Callable[[bytes], Sequence[Any]]:
        """`receive_call` for what most calls have: positional arguments in JSON. What was left out may be there as its
        default.
        """
        read = None if signature is None else signature.call_reader

        def receive(args: bytes) -> Sequence[Any]:
            if read is not None:
                try:
                    return read(args)
                except msgspec.DecodeError:
                    pass  # explained below
            return self.receive_call(args, b"", "", signature)[0]

        return receive

    def keeps(self, name: str) -> bool:
        """Whether results of that task are kept at all."""
        return self.kept.get(name, self._keeps_results)

    def encode_result(self, name: str, signature: Signature | None, value: Any) -> tuple[bytes, str]:
        """A task's result to its bytes and codec. Where none is kept, none fails the task: the reason takes its place.

        Raises:
            InvalidResult: it cannot travel, or is larger than the limit.
        """
        if value is None and not self.is_custom:
            return b"null", ""
        if type(value) is NotSent:
            return value.reason.encode(), NOT_SENT
        try:
            return self._encode_result(name, signature, value)
        except Exception as error:
            refusal = _invalid_result(name, error)
            if self.keeps(name):
                raise refusal from error
            return str(refusal).encode(errors="backslashreplace"), NOT_SENT

    def _encode_result(self, name: str, signature: Signature | None, value: Any) -> tuple[bytes, str]:
        if self.serializer is not None:
            data, codec = self.serialize(value, name), CUSTOM
        else:
            data, codec = self._encode_value(name, signature, value)
        if len(data) > self.limit:
            raise self.too_large(f"the result of task {name!r} is", len(data))
        return data, codec

    def _encode_value(self, name: str, signature: Signature | None, value: Any) -> tuple[bytes, str]:
        what = f"the result of task {name!r}"
        try:
            found = survey((value,))
            if not found:
                return to_json(value), ""
            hint = MISSING if signature is None else signature.returns
            mode = self.choose([(what, value, hint)], found)
            return mode.encode(value), f"{mode.codec}:{name}" if mode.typed else mode.codec
        except RecursionError:
            raise ValueError(f"{what} is nested too deeply, or contains itself") from None

    def decode_result(
        self,
        data: bytes,
        codec: str,
        signature_of: Callable[[str], Signature | None],
        signature: Signature | None = None,
    ) -> Any:
        """A result from its bytes; `signature_of` finds the task that returned it, where `signature` is not given.

        Where that task is unknown, a typed result is the plain data that JSON has of it.

        Raises:
            TypeError: it does not fit the annotation.
            InvalidResult: it was not sent.
        """
        if not codec and signature is None:
            return from_json(data) if data else None
        if codec == CUSTOM:
            return self._deserialize(data)
        if codec == NOT_SENT:
            raise _invalid_result("", data.decode(errors="replace"))
        codec, _, name = codec.partition(":")
        mode = self._mode(codec)
        value = mode.decode(data) if data else None
        if signature is None:
            if not mode.typed:
                return value
            signature = signature_of(name)
        if signature is None:
            return value
        name = name or signature.name
        try:
            return mode.restore(value, signature.returns, f"the result of task {name!r}")
        except TypeError:
            if mode.typed or signature.inner is None:
                raise
            return value

    def canonical(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The same bytes for the same call in every process, whatever the order of keywords; as in ArdiQ 1.2."""
        call = {"f": name, "a": list(args), "k": dict(sorted(kwargs.items()))}
        if self.serializer is not None:
            return self.serialize(call, name)
        try:
            # Keys in the order of 1.2: a map of three, whose values have theirs sorted.
            return b"\x83" + b"".join(map(_deterministic_msgpack, [part for item in call.items() for part in item]))
        except (OverflowError, UnicodeEncodeError):  # an integer beyond 64 bits, a lone surrogate
            return json.dumps(call, sort_keys=True, default=_base_value).encode()

    def serialize(self, value: Any, name: str) -> bytes:
        assert self.serializer is not None
        data = self.serializer(value)
        if not isinstance(data, bytes):
            raise TypeError(f"the serializer must return bytes, not {type(data).__name__} (task {name!r})")
        return data

    def _deserialize(self, data: bytes) -> Any:
        if self.deserializer is None:
            raise ValueError("written by a custom serializer, but this app has no deserializer")
        return self.deserializer(data)

    def decode_packed(self, data: bytes, codec: str) -> Any:
        """A value from its bytes, without a word on its type.

        Raises:
            ValueError: an unknown codec.
        """
        return self._deserialize(data) if codec == CUSTOM else self._mode(codec).decode(data)

    def _mode(self, codec: str) -> _Mode:
        try:
            return _MODES[codec]
        except KeyError:
            raise ValueError(f"unknown codec {codec[:40]!r}: written by a newer version?") from None

    def too_large(self, what: str, size: int) -> ValueError:
        """`what` is over the limit, with its verb."""
        return ValueError(
            f"{what} {size:,} bytes, over the limit of {self.limit:,} (payload_limit): "
            "store large data elsewhere and pass its address"
        )


def _is_plain_json(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether JSON changes nothing in a call, seen at first sight."""
    try:
        return not survey(args) and not (kwargs and survey(kwargs.values()))
    except RecursionError:
        return False


def _fits(readers: Readers, args: bytes, kwargs: bytes) -> bool:
    """Whether they read the JSON of a call."""
    try:
        if readers.args is not None:
            readers.args(args)
        if readers.kwargs is not None:
            readers.kwargs(kwargs)
    except msgspec.DecodeError:
        return False
    return True


def _labelled(
    name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Each argument with what to call it and its annotation."""
    signature = signature and signature.annotated(args, kwargs)
    if signature is None:
        rows = [(f"argument {i} of task {name!r}", value, MISSING) for i, value in enumerate(args, 1)]
    else:
        rows = [
            (f"argument {label!r} of task {name!r}", value, hint)
            for (label, hint), value in zip(signature.positional(len(args)), args, strict=True)
        ]
    for key, value in kwargs.items():
        rows.append((f"argument {key!r} of task {name!r}", value, signature.hint(key) if signature else MISSING))
    return rows


def _why_not(what: str, value: Any, hint: Any) -> str:
    kind = type(value).__name__
    if hint is not MISSING:
        is_plain = not survey((value,))
        try:
            _conversion.convert(value if is_plain else from_json(to_json(value)), hint, True)
        except msgspec.ValidationError as error:
            # Of what is not plain it is the JSON that is spoken of: that helps where it says which part is meant.
            if is_plain or "$" in str(error):
                return f"{what} does not fit its annotation: {_conversion.why_not(error)}"
        except Exception:
            pass
    if hint is MISSING:
        remedy = "annotate it with that type, or pass plain data"
    else:
        remedy = "its annotation does not restore it; pass plain data"
    return f"{what} is of type {kind}, and would not arrive as you sent it: {remedy}, or give the app a serializer"


def _invalid_result(name: str, why: object) -> TypeError:
    """An `InvalidResult`."""
    from ..errors import InvalidResult

    if isinstance(why, RecursionError):
        why = f"the result of task {name!r} is nested too deeply, or contains itself"
    elif isinstance(why, Exception) and f"task {name!r}" not in str(why):
        why = f"the result of task {name!r} cannot be sent: {why!r}"
    return InvalidResult(str(why))
