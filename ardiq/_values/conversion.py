"""Converting JSON to annotations: which of them values can be converted to, and the classes of other libraries."""

import collections.abc
import sys
import types
import typing
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

_CONTAINERS = frozenset(
    (list, tuple, set, frozenset, dict, collections.abc.Sequence, collections.abc.MutableSequence,
     collections.abc.Collection, collections.abc.Set, collections.abc.MutableSet, collections.abc.Mapping,
     collections.abc.MutableMapping)
)  # fmt: skip
_UNIONS = (typing.Union, types.UnionType)

ABSENT = object()
"""In a row: an argument that has no value."""


class _StandsIn(type):
    def __instancecheck__(cls, _: object) -> bool:
        return True  # msgspec looks up the class by what it was given


class _Adapted(metaclass=_StandsIn):
    """Base of the classes that stand for a hint that only Pydantic understands."""

    adapter: Any


def convertible(hint: Any) -> Any:
    """The hint in the form that values are converted to; None if values cannot be converted to it."""
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return None
    hint = _widened(hint)
    try:
        decoder(hint)
        info = msgspec.inspect.type_info(hint)
    except Exception:
        return _adapted(hint)
    if isinstance(info, msgspec.inspect.AnyType) or _is_foreign(info):
        return None
    return hint


def convert(value: Any, hint: Any, from_json: bool) -> Any:
    """A plain value, converted to its annotation.

    Raises:
        msgspec.ValidationError: it does not fit; the text says what was wrong and where.
    """
    return msgspec.convert(value, hint, str_keys=from_json, dec_hook=from_plain)


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function that reads JSON as that type."""
    return msgspec.json.Decoder(kind, dec_hook=from_plain).decode


def why_not(error: msgspec.ValidationError) -> str:
    """What was wrong, with the annotation as the user wrote it."""
    return str(error).replace("bool | int | float", "float").replace("bool | int", "int")


def row_type(hints: Sequence[Any], defaults: Sequence[Any] = ()) -> Any:
    """A type of rows with these columns, the last of which have defaults. To be made once: msgspec inspects each new
    type.
    """
    names = [f"a{number}" for number in range(len(hints))]
    make: Any = namedtuple
    row = make("Row", names, defaults=defaults)
    row.__annotations__ = dict(zip(names, hints, strict=True))
    return row


def object_type(names: Iterable[str], hints: Iterable[Any]) -> Any:
    """A type of JSON objects with exactly these keys."""
    make: Any = typing.TypedDict
    return make("Object", dict(zip(names, hints, strict=True)))


def from_plain(kind: Any, value: Any) -> Any:
    """For msgspec: makes an instance of a class that it does not know."""
    adapted = isinstance(kind, type) and issubclass(kind, _Adapted)
    if not adapted and isinstance(value, kind):
        return value
    pydantic = sys.modules.get("pydantic")
    validate: Callable[[bytes], Any]
    if adapted:
        validate = kind.adapter.validate_json
    elif pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        validate = getattr(kind, "model_validate_json")  # noqa: B009
    else:
        raise TypeError(f"Expected `{getattr(kind, '__name__', kind)}`, got `{type(value).__name__}`")
    try:
        # As JSON, so that strict models take the dates in it.
        return validate(msgspec.json.encode(value))
    except sys.modules["pydantic"].ValidationError as error:
        raise ValueError("; ".join(map(_in_short, error.errors()))) from None


def to_plain(value: Any) -> Any:
    """Plain data for an instance of a class that msgspec does not know; the instance itself if Pydantic does not know
    it, either.
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    return value


def _in_short(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def _widened(hint: Any) -> Any:
    """The hint, widened to what type checkers accept: a bool is an int, and both are floats."""
    if hint is int:
        return int | bool
    if hint is float:
        return float | int | bool
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return typing.Union[tuple(map(_widened, args))]  # noqa: UP007
    if origin in _CONTAINERS and args:
        # Keys are text in JSON, and are read as the one type that the hint names.
        if len(args) == 2 and issubclass(origin, collections.abc.Mapping):
            return origin[args[0], _widened(args[1])]
        return origin[tuple(arg if arg is ... else _widened(arg) for arg in args)]
    return hint


def _is_foreign(info: Any) -> bool:
    """Whether it names, outside the fields of a class, a class that neither msgspec nor Pydantic can make."""
    if isinstance(info, msgspec.inspect.CustomType):
        pydantic = sys.modules.get("pydantic")
        kind: Any = info.cls
        return pydantic is None or not isinstance(kind, type) or not issubclass(kind, pydantic.BaseModel)
    parts = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type", "type")]
    parts += [*getattr(info, "types", ()), *(getattr(info, "item_types", None) or ())]
    return any(isinstance(part, msgspec.inspect.Type) and _is_foreign(part) for part in parts)


def _adapted(hint: Any) -> Any:
    """A class that stands for a hint with Pydantic models in it, such as a union of two; None for others."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not _names_model(hint, pydantic.BaseModel):
        return None
    try:
        adapter = pydantic.TypeAdapter(hint)
    except Exception:
        return None
    return _StandsIn("Adapted", (_Adapted,), {"adapter": adapter})


def _names_model(hint: Any, model: type) -> bool:
    if isinstance(hint, type) and issubclass(hint, model):
        return True
    return any(_names_model(arg, model) for arg in typing.get_args(hint))
