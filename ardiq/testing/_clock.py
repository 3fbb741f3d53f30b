"""Virtual time for `inline`: it stands still until a test moves it."""

from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING

from .._values import options as _options
from ..job import Job

if TYPE_CHECKING:
    from ._inline_worker import InlineWorker


class Clock:
    """Time that stands still until a test moves it, for `inline(app, clock=clock)`.

    It is the clock of delays, retries, expiry, `max_age` and schedules. Time within a task is real: `asyncio.sleep`
    sleeps, a `timeout` counts, and `datetime.now()` tells the machine's time.

    Args:
        start: when it begins, a datetime with a time zone; now when None.

    Raises:
        ValueError: `start` has no time zone.

    Example:
        ```python
        clock = Clock(datetime(2026, 3, 1, 9, tzinfo=UTC))
        async with inline(app, clock=clock):
            job = await remind.options(delay=timedelta(minutes=5)).enqueue("tea")
            assert await clock.advance(minutes=5) == [job]
        ```
    """

    def __init__(self, start: datetime | None = None) -> None:
        self.now_ms = int(time() * 1000) if start is None else _options.epoch_milliseconds("start", start)
        self.workers: list[InlineWorker] = []
        self._is_moving = False

    def __repr__(self) -> str:
        return f"<Clock {self.now.isoformat()}>"

    @property
    def now(self) -> datetime:
        """The time it shows, in UTC."""
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    async def advance(
        self, by: _options.Duration = 0, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> list[Job]:
        """Move on, and run what falls due meanwhile, each at its time, one after the other.

        Args:
            by: by how much, a timedelta or seconds; the other arguments are added to it.
            days: this many days.
            hours: this many hours.
            minutes: this many minutes.
            seconds: this many seconds.

        Returns:
            The jobs that were run, in order, including those that they enqueued.

        Raises:
            ValueError: one of them is negative.
            RuntimeError: outside `inline(app, clock=clock)`, or it is already moving.
        """
        named_s = {"days": (days, 86_400), "hours": (hours, 3600), "minutes": (minutes, 60), "seconds": (seconds, 1)}
        left_ms = _options.milliseconds("by", by)
        for name, (amount, unit_s) in named_s.items():
            left_ms += _options.milliseconds(name, _options.finite(name, amount, "a number") * unit_s)
        return await self._move(self.now_ms + left_ms)

    async def advance_to(self, moment: datetime) -> list[Job]:
        """`advance` to a moment, a datetime with a time zone."""
        return await self._move(_options.epoch_milliseconds("moment", moment))

    async def _move(self, until_ms: int) -> list[Job]:
        if not self.workers:
            raise RuntimeError("move the clock within `async with inline(app, clock=clock)`")
        if until_ms < self.now_ms:
            raise ValueError(f"the clock cannot go back: it is {self.now.isoformat()} already")
        if self._is_moving:
            raise RuntimeError("the clock is already moving: await one advance before the next")
        self._is_moving = True
        began = {id(worker): len(worker.started) for worker in self.workers}
        try:
            while (due := self._next_due()) is not None and due[0] <= until_ms:
                self.now_ms = max(self.now_ms, due[0])
                await due[1].run_due()
        finally:
            self._is_moving = False
        self.now_ms = until_ms
        # Queues that were first used meanwhile have begun with it.
        ran = [(each.context.app, each.started[began.get(id(each), 0) :]) for each in self.workers]
        return [Job(app, task_id) for app, ids in ran for task_id in dict.fromkeys(ids)]

    def _next_due(self) -> "tuple[int, InlineWorker] | None":
        due = [(at, worker) for worker in self.workers if (at := worker.next_due_ms()) is not None]
        return min(due, key=lambda each: each[0], default=None)
