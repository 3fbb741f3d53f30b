"""The part of a worker that fires schedules. The library decides which worker fires an occurrence, and whether."""

import asyncio
import logging
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._values.timing import Timing
from ..errors import ArdiqError, BrokerError, Forbidden, OutOfMemory
from ..schedules import Schedules

if TYPE_CHECKING:
    from .._client.queue import QueueContext

log = logging.getLogger("ardiq")

# Occurrences of one schedule in a turn; which of those that were missed run is decided by the library.
_MOST_IN_TURN = 200
# How often a worker that has never seen a schedule looks for some.
_IDLE_S = 10.0
# How often a worker says that its code runs; the library forgets it after a minute.
_DECLARE_S = 10.0
_PAGE, _MOST_PAGES = 500, 20
_MOST_TIMINGS = 1000
_SHORTEST_S = 0.005


class Scheduler:
    """Fires the schedules of one queue, together with the schedulers of all other workers."""

    def __init__(self, queue: "QueueContext") -> None:
        self._crons = queue.crons
        self._poll_s = queue.settings.cron_poll_s
        self._schedules = Schedules(queue)
        self._timings: dict[str, Timing] = {}
        self._broken: dict[str, str] = {}
        self._declared: str | None = None
        self._declare_at = 0.0 if queue.is_own else inf

    async def run(self) -> None:
        """Declare what the code says, and fire what is due, until cancelled."""
        while True:
            try:
                if monotonic() >= self._declare_at:
                    await self._declare_or_warn()
                pause_s = await self.fire_due()
            except BrokerError as error:
                # The worker itself logs that the server is away.
                level = logging.WARNING if isinstance(error, OutOfMemory | Forbidden) else logging.DEBUG
                log.log(level, "schedules: %s; trying again", error)
                pause_s = self._poll_s
            except ArdiqError as error:
                log.warning("schedules: %s; trying again", error)
                pause_s = _IDLE_S
            except Exception:
                log.exception("schedules: firing failed; trying again")
                pause_s = _IDLE_S
            await asyncio.sleep(pause_s)

    async def _declare_or_warn(self) -> None:
        """`declare`; what keeps it from that keeps no schedule from firing."""
        try:
            await self.declare()
        except BrokerError:
            raise
        except Exception as error:
            unexpected = not isinstance(error, ArdiqError)
            log.warning("schedules of this code cannot be declared: %s; trying again", error, exc_info=unexpected)
            self._declare_at = monotonic() + _DECLARE_S

    async def declare(self) -> None:
        """Store the schedules of this code, unless newer code runs; those of older code go.

        It is said again and again, so that the library knows which code runs.
        """
        answer, gone = await self._schedules.declare(self._crons, self._declared is None)
        for name in gone:
            log.info("schedule removed name=%r: no task declares it any more", name)
        if answer == "superseded" != self._declared:
            log.info("schedules: those of newer code apply, as long as it runs")
        self._declared = answer
        self._declare_at = inf if answer == "nothing" else monotonic() + _DECLARE_S

    async def fire_due(self) -> float:
        """Fire what is due; seconds until there is more to look at."""
        next_due: list[int] = []
        broken: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            now, upcoming, rows = await self._schedules.due(len(broken), _PAGE)
            asked_at = monotonic()
            for name, due_at, definition in rows:
                try:
                    next_due.append(await self._fire_one(now, name, due_at, definition))
                except BrokerError:
                    raise
                except (ArdiqError, ValueError, TypeError, OverflowError) as error:
                    # It harms no other, and is said once.
                    broken[name] = str(error)
                    if self._broken.get(name) != broken[name]:
                        log.error("schedule %r cannot be fired: %s", name, error, exc_info=error.__cause__)
            if len(rows) < _PAGE:
                break
        self._broken = broken
        if upcoming >= 0:
            next_due.append(upcoming)
        if not next_due:
            return self._poll_s if self._crons else max(self._poll_s, _IDLE_S)
        left_s = (min(next_due) - now) / 1000 - (monotonic() - asked_at)
        return max(_SHORTEST_S, min(self._poll_s, left_s))

    async def _fire_one(self, now: int, name: str, due_at: int, definition: dict[str, Any]) -> int:
        """Fire all occurrences of a schedule that are due; when the next one is."""
        timing = self._timing(definition)
        for _ in range(_MOST_IN_TURN):
            if due_at > now:
                break
            upcoming = timing.after(now)
            fired = await self._schedules.fire(name, due_at, timing.after(due_at), upcoming, definition)
            if fired.answer == "gone":
                return upcoming
            due_at = fired.next_due_at
            if fired.answer == "moved":  # by another worker, or to another timing
                break
            if fired.answer == "skipped":
                log.warning("schedule %r: missed its time, skipped until the next", name)
        return due_at

    def _timing(self, definition: dict[str, Any]) -> Timing:
        key = repr([definition.get(field) for field in ("spec", "every_ms", "tz")])
        timing = self._timings.get(key)
        if timing is None:
            if len(self._timings) >= _MOST_TIMINGS:
                self._timings.clear()  # a worker outlives many schedules
            timing = self._timings[key] = Timing.of(definition)
        return timing
