"""Selecting dead letters, and limiting the rate at which they are requeued."""

import asyncio
from asyncio import get_running_loop
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from .._values import options as _options

Moment: TypeAlias = datetime | timedelta | float

_PORTION = 100
_PORTIONS_A_SECOND = 10


class Filter(NamedTuple):
    """The filters as the library takes them: empty and 0 match any."""

    task: str
    error: str
    since_at: int
    before_at: int

    @classmethod
    def of(cls, task: str | None, error: str | None, since: Moment | None, until: Moment | None) -> "Filter":
        return cls(
            "" if task is None else _options.text("task", task),
            "" if error is None else _options.text("error", error),
            _bound("since", since),
            _bound("until", until),
        )


class Pace:
    """Allows at most `rate` a second, in ten portions a second."""

    def __init__(self, rate: float | None) -> None:
        if rate is not None and type(rate) not in (int, float):
            raise TypeError(f"rate must be a number per second or None, not {type(rate).__name__}")
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be positive, not {rate}")
        self._rate = rate
        self._free_at = 0.0
        self.portion = _PORTION if rate is None else int(max(1, min(_PORTION, rate / _PORTIONS_A_SECOND)))

    async def wait(self, count: int) -> None:
        """Wait until this many may be sent."""
        if self._rate is None:
            return
        now = get_running_loop().time()
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
        self._free_at = max(self._free_at, now) + count / self._rate


def ids_of(ids: str | Iterable[str]) -> list[str]:
    """Each id once."""
    chosen = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    for task_id in chosen:
        _options.text("id", task_id)
    return chosen


def _bound(name: str, moment: Moment | None) -> int:
    if moment is None:
        return 0
    if isinstance(moment, datetime):
        return max(1, _options.epoch_milliseconds(name, moment))
    what = "a datetime, or a timedelta or seconds before now"
    ago = moment if isinstance(moment, timedelta) else _options.finite(name, moment, what)
    return -_options.milliseconds(name, ago, least=1)
