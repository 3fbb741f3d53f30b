"""The buckets of a call: the limits of its task, each with the key, cost and weight that the call's arguments give; and
the batch in which it gathers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..batches import MARK, Batch
from ..limits import LONGEST_NAME, Limit, check_cost, check_key, check_name, check_weight
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
        batch: in which its calls gather, if they do.

    Raises:
        TypeError: one is no limit.
        ValueError: there are too many, one is there twice, or it names a parameter that the task does not have; or one
            is ordered, and there is a batch.
    """

    __slots__ = ("_readers", "_task", "gathering", "limits")

    def __init__(self, task: str, limits: Any, signature: Signature | None, batch: Batch | None = None) -> None:
        self._task = task
        given = [limits] if isinstance(limits, Limit) else () if limits is None else limits
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(f"limits must be a Limit or a list of them, not {type(limits).__name__}")
        for each in given:
            if not isinstance(each, Limit):
                raise TypeError(f"each of limits must be a Limit, such as app.limit(…), not {type(each).__name__}")
        if len(given) + (batch is not None) > _MOST:
            beside = "" if batch is None else " and a batch"
            most = str(_MOST) if batch is None else f"{_MOST - 1} beside it"
            raise ValueError(f"task {task!r} has {len(given)} limits{beside}: it may have {most}")
        self.limits = tuple(limit.for_task(task) for limit in given)
        for at, limit in enumerate(self.limits):
            if any((limit.name, limit.key) == (other.name, other.key) for other in self.limits[:at]):
                raise ValueError(f"task {task!r} has the limit {limit.name!r} twice")
            if limit.ordered and batch is not None:
                raise ValueError(
                    f"task {task!r} has a batch, whose items start together, and the limit {limit.name!r}, which is "
                    "ordered: give it one of them"
                )
        self.gathering = None if batch is None else Gathering(task, batch, signature)
        self._readers: list[_Bucket | Gathering] = [_Bucket(task, limit, signature) for limit in self.limits]
        if self.gathering is not None:
            self._readers.append(self.gathering)

    @classmethod
    def read(cls, task: str, limits: Any, signature: Signature | None, batch: Batch | None = None) -> "Buckets | None":
        """The limits of a task as users give them, and its batch; None if there are none."""
        found = cls(task, limits, signature, batch)
        return found if found.limits or batch is not None else None

    @property
    def declared(self) -> list["Limit | Gathering"]:
        """What the server must know of before it takes a call."""
        return [*self.limits, *([] if self.gathering is None else [self.gathering])]

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


class Gathering:
    """The batch of one task, in which its calls gather: one more limit of theirs.

    Raises:
        TypeError: the key is no function of one parameter.
        ValueError: the task's name cannot be that of a limit.
    """

    __slots__ = ("_key", "_what", "batch", "name")

    def __init__(self, task: str, batch: Batch, signature: Signature | None) -> None:
        try:
            check_name(task, LONGEST_NAME - 1)
        except ValueError as error:
            raise ValueError(
                f"task {task!r}: its batch is named after it, but {error}; give the task a name="
            ) from None
        self.name = f"{MARK}{task}"
        self.batch = batch
        self._what = what = f"the batch of task {task!r}"
        self._key = None if batch.key is None else Chosen(f"the key of {what}", batch.key, signature)

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The bucket of a call."""
        found: dict[str, Any] = {"name": self.name}
        if self._key is not None:
            found["key"] = check_key(self._what, _as_key(self._what, self._key.value(args, kwargs)))
        return found

    @property
    def definition(self) -> dict[str, Any]:
        """What the server is told of it."""
        return {"batch_size": self.batch.size, "batch_wait_ms": self.batch.wait_ms}

    def __str__(self) -> str:
        return str(self.batch)


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
