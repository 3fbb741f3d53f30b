"""The buckets of a call: the limits of its task, each with the key, cost and weight that the call's arguments give."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..limits import Limit, check_cost, check_key, check_weight
from .chosen import Chosen
from .encodings import from_json, to_json
from .signature import Signature

# What `enqueue` in the library takes.
_MOST = 8


class Buckets:
    """The limits of one task.

    Args:
        task: its name.
        limits: its limits; one without a name gets that of the task.
        signature: of its function; None for a reference, whose arguments are known by their keywords alone.

    Raises:
        TypeError: one is no limit.
        ValueError: there are too many, one is there twice, or it names a parameter that the task does not have.
    """

    __slots__ = ("_readers", "_task", "limits")

    def __init__(self, task: str, limits: Any, signature: Signature | None) -> None:
        self._task = task
        given = [limits] if isinstance(limits, Limit) else limits
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(f"limits must be a Limit or a list of them, not {type(limits).__name__}")
        for each in given:
            if not isinstance(each, Limit):
                raise TypeError(f"each of limits must be a Limit, such as app.limit(…), not {type(each).__name__}")
        if len(given) > _MOST:
            raise ValueError(f"task {task!r} has {len(given)} limits: it may have {_MOST}")
        self.limits = tuple(limit.for_task(task) for limit in given)
        for at, limit in enumerate(self.limits):
            if any((limit.name, limit.key) == (other.name, other.key) for other in self.limits[:at]):
                raise ValueError(f"task {task!r} has the limit {limit.name!r} twice")
        self._readers = [_Bucket(task, limit, signature) for limit in self.limits]

    @classmethod
    def read(cls, task: str, limits: Any, signature: Signature | None) -> "Buckets | None":
        """The limits of a task as users give them; None if there are none."""
        found = cls(task, limits, signature)
        return found if found.limits else None

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What `enqueue` takes as `limits`, for a call that fits the task.

        Raises:
            TypeError, ValueError: a key, a cost or a weight cannot be computed, or is invalid.
        """
        found = [reader.of(args, kwargs) for reader in self._readers]
        return [each for at, each in enumerate(found) if not any(_is_same(each, other) for other in found[:at])]


class _Bucket:
    """One limit of a task."""

    __slots__ = ("_cost", "_key", "_limit", "_weight", "_what")

    def __init__(self, task: str, limit: Limit, signature: Signature | None) -> None:
        self._what = what = f"limit {limit.name!r} of task {task!r}"
        self._limit = limit
        self._key = None if limit.key is None else Chosen(f"the key of {what}", limit.key, signature)
        self._cost, self._weight = (
            Chosen(f"the {name} of {what}", value, signature) if callable(value) else None
            for name, value in (("cost", limit.cost), ("weight", limit.weight))
        )

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The bucket of a call."""
        limit, what = self._limit, self._what
        found: dict[str, Any] = {"name": limit.name}
        if self._key is not None:
            found["key"] = check_key(what, _as_key(what, self._key.value(args, kwargs)))
        cost = limit.cost if self._cost is None else check_cost(what, self._cost.value(args, kwargs), limit.rate)
        if cost != 1:
            found["cost"] = cost
        weight = limit.weight if self._weight is None else check_weight(what, self._weight.value(args, kwargs))
        if weight != 1:
            found["weight"] = weight
        return found


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are one bucket: a transfer from an account to itself."""
    return (one["name"], one.get("key")) == (other["name"], other.get("key"))


def _as_key(what: str, value: Any) -> str:
    """A key as text; several values with slashes in between, so that no two keys are the same text."""
    if isinstance(value, tuple):
        return "/".join(_part(what, each).replace("%", "%25").replace("/", "%2F") for each in value)
    return _part(what, value)


def _part(what: str, value: Any) -> str:
    if type(value) is str:
        return value
    try:
        plain = from_json(to_json(value))
    except (TypeError, ValueError, OverflowError):
        plain = None
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, str | int):
        return str(plain)
    raise TypeError(
        f"the key of {what} must be a text, a whole number, or what travels as one, not {type(value).__name__}"
    )
