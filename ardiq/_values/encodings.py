"""The encodings of values, and which of them carries a value unchanged.

JSON text by default, because people read it in redis-cli. What JSON would change silently travels as msgpack, or as
JSON that the receiver converts back by annotations (`json+types`), or is refused by name. Only the common case is fast:
plain values in plain containers, recognised by their exact types.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any

import msgspec

from . import conversion as _conversion
from .references import is_reference, why_not_sent
from .sameness import same
from .signature import MISSING

TYPED = "json+types"

SCALARS = frozenset({str, int, bool, NoneType})
_BINARY = frozenset({bytes, bytearray, memoryview})
_STRING_KEYS = frozenset({str})
_MSGPACK_KEYS = frozenset({str, int, bool, NoneType, float, bytes})

# What `survey` finds beside plain JSON.
TUPLE, MSGPACK, OTHER = 1, 2, 4


def survey(values: Iterable[Any]) -> int:
    """What JSON would change in some values: a sum of `TUPLE`, `MSGPACK` and `OTHER`, 0 for nothing."""
    found = 0
    for value in values:
        kind = type(value)
        if kind in SCALARS:
            continue
        if kind is float:
            if not isfinite(value):
                found |= MSGPACK
        elif kind is list or kind is tuple:
            if kind is tuple:
                found |= TUPLE
            if not SCALARS.issuperset(map(type, value)):
                found |= survey(value)
        elif kind is dict:
            keys = set(map(type, value))
            if not keys <= _STRING_KEYS:
                found |= MSGPACK if keys <= _MSGPACK_KEYS else OTHER
            if not SCALARS.issuperset(map(type, value.values())):
                found |= survey(value.values())
        elif kind in _BINARY:
            found |= MSGPACK
        else:
            found |= OTHER | (TUPLE if isinstance(value, tuple) else 0)
    return found


def _base_value(value: Any) -> Any:
    """A subclass of a plain type as that type: it arrives equal, but not as its class."""
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
_deterministic = msgspec.msgpack.Encoder(enc_hook=_base_value, order="deterministic").encode
strict_json = msgspec.json.Decoder().decode
to_msgpack = msgspec.msgpack.Encoder(enc_hook=_base_value).encode
from_msgpack = msgspec.msgpack.Decoder().decode


def stable(items: dict[str, Any]) -> bytes:
    """The same bytes in every process for the same few items, in their order; keys within the values are sorted."""
    try:
        parts = [_deterministic(part) for item in items.items() for part in item]
        return b"".join([bytes([0x80 | len(items)]), *parts])  # a map in msgpack, whose own order of keys stays
    except (OverflowError, UnicodeEncodeError):  # an integer beyond 64 bits, a lone surrogate
        return json.dumps(items, sort_keys=True, default=_base_value).encode()


def to_json(value: Any) -> bytes:
    """JSON text. A lone surrogate (in a file name that is not UTF-8) is escaped."""
    try:
        return _msgspec_json(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def from_json(data: bytes) -> Any:
    """The value of a JSON text, also of one that Ardiq did not write.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return strict_json(data)
    except msgspec.DecodeError:
        return json.loads(data)  # msgspec refuses lone surrogates
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


class Encoding:
    """One way to encode values; what arrives by a `typed` one is converted by annotations."""

    __slots__ = ("codec", "decode", "encode", "str_keys", "typed")

    def __init__(self, codec: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], typed: bool) -> None:
        self.codec = codec
        self.encode = encode
        self.decode = decode
        self.typed = typed
        self.str_keys = encode is to_json

    def carries(self, value: Any, hint: Any) -> bool:
        """Whether the value arrives unchanged: tries it."""
        try:
            back = self.decode(self.encode(value))
            if self.typed and hint is not MISSING:
                back = _conversion.convert(back, hint, self.str_keys)
            return same(value, back)
        except Exception:
            return False

    def converts(self, value: Any, hint: Any) -> bool:
        """Whether plain data can be converted to its annotation on arrival."""
        try:
            _conversion.convert(self.decode(self.encode(value)), hint, self.str_keys)
        except Exception:
            return False
        return True

    def takes(self, value: Any) -> bool:
        """Whether it can encode the value at all."""
        try:
            self.encode(value)
        except (OverflowError, UnicodeEncodeError):
            return False
        return True

    def restore(self, value: Any, hint: Any, label: str) -> Any:
        """A decoded value, converted to its annotation.

        Raises:
            TypeError: it does not fit.
        """
        if hint is MISSING:
            return value
        try:
            return _conversion.convert(value, hint, self.str_keys)
        except msgspec.ValidationError as error:
            raise TypeError(f"{label} does not fit its annotation: {_conversion.why_not(error)}") from None


_ENCODINGS = {
    encoding.codec: encoding
    for encoding in (
        Encoding(TYPED, to_json, from_json, True),
        Encoding("", to_json, from_json, False),
        Encoding("msgpack+types", to_msgpack, from_msgpack, True),
        Encoding("msgpack", to_msgpack, from_msgpack, False),
    )
}
_UNTYPED = tuple(encoding for encoding in _ENCODINGS.values() if not encoding.typed)
_ALL = tuple(_ENCODINGS.values())


def plain_json(label: str, value: Any) -> bytes:
    """The JSON of a value that equals it.

    Raises:
        TypeError: JSON would change it.
    """
    if not _ENCODINGS[""].carries(value, MISSING):
        raise TypeError(f"{label} must be plain JSON, not a {type(value).__name__} like this one")
    return to_json(value)


def choose(rows: list[tuple[str, Any, Any]], found: int, converts: bool = False) -> Encoding:
    """The encoding for values of which plain JSON would change some.

    Args:
        rows: for each value its name in messages, the value and its annotation.
        found: what `survey` found in them.
        converts: plain values are converted to their annotations on arrival, too.

    Raises:
        TypeError: no encoding carries one of them; the message names it.
    """
    hinted = any(hint is not MISSING and survey((value,)) for _, value, hint in rows)
    if not found & OTHER and not (found & TUPLE and hinted):
        encoding = _ENCODINGS["msgpack" if found & MSGPACK else ""]
        if all(encoding.takes(value) for _, value, _ in rows):
            return encoding
    encodings = list(_ALL if hinted else _UNTYPED)
    for label, value, hint in rows:
        if converts and hint is not MISSING and not survey((value,)):
            encodings = [encoding for encoding in encodings if encoding.converts(value, hint)]
        else:
            encodings = [encoding for encoding in encodings if encoding.carries(value, hint)]
        if not encodings:
            raise TypeError(_why_not(label, value, hint))
    return encodings[0]


def encoding_of(codec: str) -> Encoding:
    """The encoding of that name.

    Raises:
        ValueError: there is none.
    """
    try:
        return _ENCODINGS[codec]
    except KeyError:
        raise ValueError(f"unknown codec {codec[:40]!r}: written by a newer version?") from None


def netstring(part: bytes) -> bytes:
    """A part as `<length>:<bytes>,`."""
    return b"%d:%b," % (len(part), part)


def netstrings(data: bytes) -> Iterator[bytes]:
    """The parts.

    Raises:
        ValueError: it is not made of such.
    """
    at = 0
    while at < len(data):
        colon = data.index(b":", at)
        at = colon + 1 + int(data[at:colon])
        if data[at : at + 1] != b",":
            raise ValueError("a part does not end where it should")
        yield data[colon + 1 : at]
        at += 1


def _why_not(what: str, value: Any, hint: Any) -> str:
    if is_reference(value):
        return f"{what} {why_not_sent(value)}"
    kind = type(value).__name__
    if hint is not MISSING:
        is_plain = not survey((value,))
        try:
            _conversion.convert(value if is_plain else from_json(to_json(value)), hint, True)
        except msgspec.ValidationError as error:
            # For a value that is not plain, the error is about its JSON: useful only if it names the part.
            if is_plain or "$" in str(error):
                return f"{what} does not fit its annotation: {_conversion.why_not(error)}"
        except Exception:
            pass
    if hint is MISSING:
        remedy = "annotate it with that type, or pass plain data"
    else:
        remedy = "its annotation does not restore it; pass plain data"
    return f"{what} is of type {kind}, and would not arrive as you sent it: {remedy}, or give the app a serializer"
