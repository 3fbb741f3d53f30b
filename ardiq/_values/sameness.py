"""Whether what has arrived is as good as what was sent, for the receiver. Equality does not prove it. NaN never equals
itself, and a time in an hour that comes twice or not at all does not equal the same moment with the offset that it
travels with; a bool equals an int. So the items of containers and the fields of classes that are unequal are compared
one by one.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

_ARRAYS, _SETS, _NUMBERS, _CLOCKS = (list, tuple), (set, frozenset), (int, float), (datetime, time)
# A subclass of one of these arrives as that type.
_PLAIN = (str, bytes, bytearray, datetime, time, date, timedelta, Decimal, UUID)
_key = msgspec.msgpack.Encoder(enc_hook=repr).encode


def same(sent: Any, back: Any) -> bool:
    """Whether they are the same; a list may stand for a tuple, and an offset for the zone that had it."""
    if isinstance(sent, _ARRAYS):
        return isinstance(back, _ARRAYS) and _all_same(sent, back)
    if isinstance(sent, dict):
        pairs = _paired(sent, back) if isinstance(back, dict) else None
        return pairs is not None and all(same(key, other) and same(sent[key], back[other]) for key, other in pairs)
    if isinstance(sent, bool) or isinstance(back, bool):
        return sent is back
    if isinstance(sent, _NUMBERS) and isinstance(back, _NUMBERS):
        return bool(sent == back) or (sent != sent and back != back)
    if type(back) is not type(sent) and not isinstance(sent, _PLAIN):
        return False
    if isinstance(sent, _CLOCKS):
        return isinstance(back, _CLOCKS) and _clock(sent) == _clock(back)
    if isinstance(sent, Decimal):
        return isinstance(back, Decimal) and sent.as_tuple() == back.as_tuple()
    if isinstance(sent, _SETS):
        pairs = _paired(sent, back)
        return pairs is not None and all(same(*pair) for pair in pairs)
    if _equal(sent, back):
        return True
    fields = _fields(sent)
    return fields is not None and _all_same(fields, _fields(back) or [])


def _all_same(sent: Any, back: Any) -> bool:
    return len(sent) == len(back) and all(map(same, sent, back))


def _clock(moment: datetime | time) -> tuple[Any, ...]:
    """What its clock shows, its offset from UTC, and whether it has a zone at all."""
    return moment.replace(tzinfo=None, fold=0), moment.utcoffset(), moment.tzinfo is None


def _equal(sent: Any, back: Any) -> bool:
    try:
        return bool(sent == back)
    except Exception:  # some cannot be compared, for example if they contain a signalling NaN
        return False


def _paired(sent: Iterable[Any], back: Any) -> Iterator[tuple[Any, Any]] | None:
    """Each member of `sent` with its counterpart in `back`, which need not be equal; None if one has no counterpart."""
    members = {member: member for member in back}
    pairs, others = [], []
    for member in sent:
        if member in members:
            pairs.append((member, members.pop(member)))
        else:
            others.append(member)
    if len(members) != len(others):
        return None
    by_bytes = {_key(member): member for member in members}
    try:
        return iter(pairs + [(member, by_bytes.pop(_key(member))) for member in others])
    except KeyError:
        return None


def _fields(value: Any) -> list[Any] | None:
    """The values of an instance's fields; None if its fields are not known."""
    kind = type(value)
    if hasattr(kind, "__pydantic_private__"):
        return [value.__dict__, value.__pydantic_extra__, value.__pydantic_private__]
    names: Iterable[str]
    if dataclasses.is_dataclass(kind):
        names = (field.name for field in dataclasses.fields(kind) if field.compare)
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif hasattr(kind, "__attrs_attrs__"):
        names = (field.name for field in kind.__attrs_attrs__)
    else:
        return None
    return [getattr(value, name, None) for name in names]
