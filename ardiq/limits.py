"""Limits: how many attempts run at once, and how many start in a time, over all workers, by name and by key."""

import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, TypeAlias

from ._values import options as _options

Key: TypeAlias = str | Sequence[str] | Callable[..., Any]
"""Where the key of a call comes from: a parameter, several, or a function of some of the task's parameters."""
Cost: TypeAlias = int | Callable[..., int]
"""A number, or a function of some of the task's parameters."""
Weight: TypeAlias = float | Callable[..., float]
"""Likewise."""
Adaptive: TypeAlias = bool | _options.Duration
"""Whether a limit adapts to what is used up elsewhere, or in how long it recovers, a timedelta or seconds."""

LONGEST_KEY = 256
"""The largest size of a key, in bytes of UTF-8."""
# Others have a meaning in the names of buckets and of keys.
_NAME = re.compile(r"(?:[A-Za-z0-9_.\-/@]|[^\x00-\x7f])+")
LONGEST_NAME = 100
"""The largest size of a name, in bytes of UTF-8."""
_MOST_WEIGHT = 1_000_000
_RECOVERY_MS = 300_000
# What the library counts with.
MOST = 2**53 - 1
_LONGEST_BURST_MS = 10**15


@dataclass(frozen=True, slots=True)
class Rate:
    """How many attempts may start in a time: `Rate(100, per=60)`.

    They are spread evenly: one each `per / starts`. After a quiet time, `burst` of them may start at once.

    Args:
        starts: how many attempts, a positive number.
        per: in how long, a timedelta or seconds, at least 1 ms.
        burst: how many may start at once, at least 1.

    Raises:
        TypeError: one of them has the wrong type.
        ValueError: one of them is too small, too large or not finite, or it is so slow that a full burst takes more
            than 30,000 years.
    """

    starts: float
    _: KW_ONLY
    per: _options.Duration
    burst: int = 1

    def __post_init__(self) -> None:
        if _options.finite("the starts of a Rate", self.starts, "a number") <= 0:
            raise ValueError(f"the starts of a Rate must be positive, not {self.starts!r}")
        _options.milliseconds("per of a Rate", self.per, least=1)
        _options.integer("burst of a Rate", self.burst, least=1, most=MOST)
        if self.starts > MOST:
            raise ValueError(f"the starts of a Rate must be at most {MOST}, not {self.starts!r}")
        if self.per_ms * self.burst > _LONGEST_BURST_MS * self.starts:
            raise ValueError(f"a Rate of {self} is too slow: its burst would take more than 30,000 years")

    @property
    def per_ms(self) -> int:
        """`per` in milliseconds."""
        return _options.milliseconds("per", self.per)

    def __str__(self) -> str:
        burst = "" if self.burst == 1 else f", {self.burst} at once"
        return f"{self.starts:g} per {self.per_ms / 1000:g} s{burst}"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit for `@app.task(limits=[...])`: all tasks that name it share it, over all workers of their queue.

    With a `key`, each key has a limit of its own: `Limit("customer", key="customer_id", concurrency=2)` runs two tasks
    of each customer at once. A task that may not start waits in a line, and others overtake it.

    Args:
        name: of the limit: letters, digits and any of `_ . - / @`; None: that of the task.
        concurrency: how many attempts run at once, at least 1; None: any number.
        rate: how many start in a time; None: any number.
        key: where the key of a call comes from: the name of a parameter of the task, a list of names, or a function
            whose parameters are named as the task's. It gives a text, a whole number, or what travels as one, such as a
            UUID or an enum; of up to 256 bytes.
        ordered: a task that is to run again (a retry, a `Snooze`) stays in front of its line, and those behind it wait
            for it, also through its backoff; for a concurrency of 1.
        max_waiting: how many tasks may wait in a line of it; a call beyond that raises `QueueFull`. None: any number.
        adaptive: True: a task that raises `RateLimited` halves what the limit, or its key, lets start, concurrency (not
            below 1) and rate, from when it opens again; that comes back evenly, in 5 minutes from nothing to all. A
            timedelta or seconds: in so long.
        cost: how many starts of the rate a call takes, at most its burst: a number, or a function as for `key`.
        weight: the share of a key among the keys that wait in a lane, a number above 0, or a function as for `key`.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option has an invalid value, or there is no concurrency, no rate and no max_waiting.

    Example:
        ```python
        @app.task(limits=[partner, Limit("customer", key="customer_id", concurrency=2)])
        async def sync(customer_id: int) -> None: ...
        ```
    """

    name: str | None = None
    _: KW_ONLY
    concurrency: int | None = None
    rate: Rate | None = None
    key: Key | None = None
    cost: Cost = 1
    weight: Weight = 1
    ordered: bool = False
    max_waiting: int | None = None
    adaptive: Adaptive = False

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        what = "a limit" if self.name is None else f"limit {self.name!r}"
        if self.concurrency is None and self.rate is None and self.max_waiting is None:
            raise ValueError(f"{what} needs a concurrency, a rate or max_waiting")
        if self.max_waiting is not None:
            _options.integer(f"max_waiting of {what}", self.max_waiting, least=1, most=MOST)
        if self.concurrency is not None:
            _options.integer(f"the concurrency of {what}", self.concurrency, least=1, most=MOST)
        if self.rate is not None and not isinstance(self.rate, Rate):
            raise TypeError(f"the rate of {what} must be a Rate, such as Rate(100, per=60), not {_kind(self.rate)}")
        if recovery_ms(what, self.adaptive) and self.concurrency is None and self.rate is None:
            raise ValueError(f"{what} is adaptive, but has no concurrency and no rate to adapt")
        if _options.boolean(f"ordered of {what}", self.ordered) and self.concurrency != 1:
            raise ValueError(f"{what} is ordered, so its concurrency must be 1")
        self._check_key(what)
        if not callable(self.cost):
            check_cost(what, self.cost, self.rate)
        if not callable(self.weight):
            check_weight(what, self.weight)
        if self.rate is None and self.cost != 1:
            raise ValueError(f"{what} has a cost but no rate to take it from")

    def _check_key(self, what: str) -> None:
        if self.key is None or callable(self.key):
            return
        names = tuple(self.key) if isinstance(self.key, list | tuple) else (self.key,)
        if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise TypeError(
                f"the key of {what} must be the name of a parameter, a list of names, or a function, not {self.key!r}"
            )
        if isinstance(self.key, list):
            object.__setattr__(self, "key", names)

    def for_task(self, task: str) -> "Limit":
        """This limit with a name: its own, or that of the task."""
        if self.name is not None:
            return self
        try:
            return replace(self, name=task)
        except ValueError as error:
            raise ValueError(
                f"task {task!r}: its limit is named after it, but {error}; give the limit a name"
            ) from None

    @property
    def definition(self) -> dict[str, Any]:
        """What the server is told of it."""
        recovers_ms = recovery_ms("a limit", self.adaptive) or None
        found = definition_of(self.concurrency, self.rate, self.max_waiting, recovers_ms)
        return {**found, "ordered": True} if self.ordered else found

    def __str__(self) -> str:
        return said(self.concurrency, self.rate)


def definition_of(
    concurrency: int | None, rate: Rate | None, max_waiting: int | None = None, recovers_ms: int | None = None
) -> dict[str, Any]:
    """A definition as the server takes it."""
    found: dict[str, Any] = {"concurrency": concurrency, "max_waiting": max_waiting, "recovery_ms": recovers_ms}
    if rate is not None:
        found |= {"rate": rate.starts, "per_ms": rate.per_ms, "burst": rate.burst}
    return {name: value for name, value in found.items() if value is not None}


def said(concurrency: int | None, rate: Rate | None) -> str:
    """A definition for people."""
    parts = [] if concurrency is None else [f"{concurrency} at once"]
    return ", ".join([*parts, *([] if rate is None else [str(rate)])])


def slowed(concurrency: int | None, rate: Rate | None, share: float) -> tuple[int | None, Rate | None]:
    """What is left of a definition: as the library has it."""
    left = None if concurrency is None else max(min(concurrency, 1), int(concurrency * share))
    return left, None if rate is None else replace(rate, starts=rate.starts * share)


def recovery_ms(what: str, adaptive: Any) -> int:
    """In how long an adaptive limit recovers; 0: it is none.

    Raises:
        TypeError: it is neither a bool nor a duration.
        ValueError: it is less than a millisecond, or not finite.
    """
    if isinstance(adaptive, bool):
        return _RECOVERY_MS if adaptive else 0
    return _options.milliseconds(f"adaptive of {what}", adaptive, least=1)


def check_name(name: Any, longest: int = LONGEST_NAME) -> str:
    """The name of a limit, of up to so many bytes.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty or too long, or has another character.
    """
    _options.text("the name of a limit", name)
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name of a limit may have letters, digits and any of _ . - / @, not {name!r}")
    if len(name.encode()) > longest:
        raise ValueError(f"the name of a limit must have at most {longest} bytes: {name!r}")
    return str(name)


def check_cost(what: str, cost: Any, rate: Rate | None) -> int:
    """A cost in starts.

    Raises:
        TypeError: it is not an int.
        ValueError: it is not positive, or above the burst, so that the task could never start.
    """
    _options.integer(f"the cost of {what}", cost, least=1)
    if rate is not None and cost > rate.burst:
        raise ValueError(f"the cost of {what} is {cost}, but its burst is {rate.burst}: the task could never start")
    return int(cost)


def check_weight(what: str, weight: Any) -> float:
    """A weight.

    Raises:
        TypeError: it is of another type.
        ValueError: it is not positive, or not finite.
    """
    if not 0 < _options.finite(f"the weight of {what}", weight, "a number") <= _MOST_WEIGHT:
        raise ValueError(f"the weight of {what} must be above 0, and at most {_MOST_WEIGHT:,}, not {weight!r}")
    return float(weight)


def check_key(what: str, key: str) -> str:
    """A key of a limit.

    Raises:
        ValueError: it is empty or too long, or no server could store it.
    """
    if len(key) <= LONGEST_KEY:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise ValueError(f"the key of {what} has a lone surrogate, which is no valid text: {key!r}") from None
        if 0 < size <= LONGEST_KEY:
            return key
        if not size:
            raise ValueError(f"the key of {what} is empty")
    raise ValueError(f"the key of {what} must have at most {LONGEST_KEY} bytes, not {key[:20] + '…'!r}")


def _kind(value: Any) -> str:
    return type(value).__name__
