"""Retry policies: how long to wait before a failed task is retried."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from ._values import options as _options
from .errors import BadSignature, ChildrenFailed, InvalidArguments, InvalidResult, Retry, Snooze

log = logging.getLogger("ardiq")

DEFAULT_MAX_RETRIES = 3
_LONGEST_MS = 10 * 365 * 86_400_000

Delay: TypeAlias = _options.Duration
"""A timedelta or seconds."""


ExceptionTypes: TypeAlias = type[BaseException] | Collection[type[BaseException]]
"""One exception class, or several."""


class RetryPolicy(Protocol):
    """Anything that computes a pause from the number of the failed attempt, counted from 1, and its exception."""

    def __call__(self, tries: int, error: BaseException, /) -> Delay: ...


RetryOption: TypeAlias = RetryPolicy | Sequence[Delay] | Callable[[int, BaseException], Delay]


@dataclass(frozen=True, slots=True)
class Quadratic:
    """`unit` times the square of the attempt's number: 1, 4, 9, 16 seconds … This is the default."""

    unit: Delay = 1.0

    def __post_init__(self) -> None:
        _seconds("unit", self.unit)

    def __call__(self, tries: int, error: BaseException) -> float:
        return tries * tries * _seconds("unit", self.unit)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same pause each time."""

    delay: Delay

    def __post_init__(self) -> None:
        _seconds("delay", self.delay)

    def __call__(self, tries: int, error: BaseException) -> float:
        return _seconds("delay", self.delay)


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """`base`, then `factor` times as long each time, never longer than `cap`.

    Attributes:
        base: the first pause.
        factor: how much longer each next pause is.
        cap: the longest pause.
        jitter: choose a random pause between 0 and the computed one, so that tasks that failed together do not return
            together ("full jitter": Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Example:
        ```python
        @app.task(max_retries=8, retry=ExponentialBackoff(base=0.5, cap=timedelta(minutes=10)))
        async def call_partner(order_id: int) -> None: ...
        ```
    """

    base: Delay = 1.0
    factor: float = 2.0
    cap: Delay = 3600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        _seconds("base", self.base)
        _seconds("cap", self.cap)
        _options.finite("factor", self.factor, "a number")

    def __call__(self, tries: int, error: BaseException) -> float:
        cap = _seconds("cap", self.cap)
        try:
            longest = min(cap, _seconds("base", self.base) * self.factor ** (tries - 1))
        except OverflowError:
            longest = cap
        if not self.jitter:
            return longest
        from random import uniform  # not for a worker that draws nothing

        return uniform(0, longest)  # no secret depends on it


class Decision(NamedTuple):
    """What happens after an attempt that raised.

    Attributes:
        outcome: `retry`, `snooze` or `failed`.
        delay_ms: how long to wait before the next attempt.
        asked: the task raised nothing but `Retry` or `Snooze`.
    """

    outcome: str
    delay_ms: int
    asked: bool


# Another try would end in the same way.
_FINAL = (BadSignature, ChildrenFailed, InvalidArguments, InvalidResult)


class RetryRules:
    """Whether and when a task is tried again: its retry options, checked."""

    __slots__ = ("_give_up_on", "_pause", "_retry_on", "max_age_ms", "max_retries")

    def __init__(
        self,
        max_retries: int = DEFAULT_MAX_RETRIES,
        backoff_ms: int = 0,
        retry: Any = None,
        retry_on: Any = None,
        give_up_on: Any = None,
        max_age: Any = None,
    ) -> None:
        self.max_retries = _options.integer("max_retries", max_retries, least=0)
        self._pause = _policy(retry, _options.integer("backoff_ms", backoff_ms, least=0))
        self._retry_on = _exception_types("retry_on", retry_on)
        self._give_up_on = _exception_types("give_up_on", give_up_on)
        self.max_age_ms = 0 if max_age is None else _options.milliseconds("max_age", max_age, least=1)

    def decide(self, tries: int, error: BaseException) -> Decision:
        """What happens after attempt `tries`, which raised this.

        A group is retried only if each exception in it would be, and snoozed only if all of them are `Snooze`. If some
        of them set a delay, the longest one counts.
        """
        raised = leaves(error)
        if all(isinstance(each, Snooze) for each in raised):
            return Decision("snooze", self.delay_ms(tries, error), asked=True)
        asked = all(isinstance(each, Retry | Snooze) for each in raised)
        if not self.allow(tries, error):
            return Decision("failed", 0, asked)
        return Decision("retry", self.delay_ms(tries, error), asked)

    def allow(self, tries: int, error: BaseException) -> bool:
        """Whether this failure of attempt `tries` is followed by another attempt."""
        return tries <= self.max_retries and self._allows(error)

    def _allows(self, error: BaseException, named: bool = False) -> bool:
        """`named`: `retry_on` names the class of a group that this exception is in."""
        if isinstance(error, _FINAL):
            return False
        if isinstance(error, Retry | Snooze):
            return True
        if self._give_up_on and isinstance(error, self._give_up_on):
            return False
        named = named or self._retry_on is None or isinstance(error, self._retry_on)
        if isinstance(error, BaseExceptionGroup):
            return all(self._allows(each, named) for each in error.exceptions)
        return named

    def delay_ms(self, tries: int, error: BaseException) -> int:
        """The pause before the next attempt. If the policy raises, that is logged, and the default is used."""
        asked = [each.delay_ms for each in leaves(error) if isinstance(each, Retry | Snooze)]
        if delays := [int(delay_ms) for delay_ms in asked if delay_ms is not None]:
            return min(max(0, *delays), _LONGEST_MS)
        try:
            pause_s = _options.amount_s("what a retry policy returns", self._pause(tries, error))
            return round(min(max(0, pause_s * 1000), _LONGEST_MS))
        except Exception:
            log.exception("the retry policy failed; waiting the default time")
            return tries * tries * 1000


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups within it; else the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def _policy(value: Any, backoff_ms: int) -> Callable[[int, BaseException], Any]:
    if value is None:
        return Fixed(backoff_ms / 1000) if backoff_ms else Quadratic()
    if backoff_ms:
        raise ValueError("give retry or backoff_ms, not both")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        delays = [_seconds("each of retry", delay) for delay in value]
        if not delays:
            raise ValueError("retry must have at least one delay")
        return lambda tries, error: delays[min(tries, len(delays)) - 1]
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"retry must be a policy such as Fixed(5), a list of delays or a function, not {value!r}")
    return value  # type: ignore[no-any-return]


def _exception_types(name: str, value: Any) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    types = tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be exception classes, not {kind!r}")
    return types


def _seconds(name: str, delay: Any) -> float:
    return _options.milliseconds(name, delay) / 1000
