"""The part of a worker that fires schedules. Which worker does, and whether, is decided by the library."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ._cron import Timing
from .errors import ArdiqError, BrokerError, OutOfMemory

if TYPE_CHECKING:
    from .app import Ardiq

log = logging.getLogger("ardiq")

# Later than this an occurrence was missed.
_GRACE_MS = 60_000
_MOST_MISSED = 100
# How often a worker looks that has never seen a schedule.
_IDLE_S = 10.0
_SHORTEST_S = 0.005


class Scheduler:
    """Fires the schedules of one app's queue, together with the schedulers of all other workers."""

    def __init__(self, app: "Ardiq") -> None:
        self._app = app
        self._timings: dict[str, Timing] = {}
        self._broken: dict[str, str] = {}

    async def run(self) -> None:
        """Declare what the code says, then fire what is due, until cancelled."""
        declared = False
        while True:
            try:
                if not declared:
                    await self.declare()
                    declared = True
                pause_s = await self.fire_due()
            except BrokerError as error:
                # That the server is away the worker says itself.
                level = logging.WARNING if isinstance(error, OutOfMemory) else logging.DEBUG
                log.log(level, "schedules: %s; trying again", error)
                pause_s = self._app.cron_poll_s
            except ArdiqError as error:
                log.warning("schedules: %s; trying again", error)
                pause_s = _IDLE_S
            except Exception:
                log.exception("schedules: firing failed; trying again")
                pause_s = _IDLE_S
            await asyncio.sleep(pause_s)

    async def declare(self) -> None:
        """Store the schedules of this code; those that an earlier version of it declared go."""
        schedules, crons = self._app.schedules, self._app._crons
        _, rows = await schedules.rows()
        for name, _, definition in rows:
            if definition.get("source") == "code" and name not in crons:
                await schedules.remove(name)
                log.info("schedule removed name=%r: no task declares it any more", name)
        for name, definition in crons.items():
            await schedules.store(name, definition)

    async def fire_due(self) -> float:
        """Fire what is due; seconds until there is more to look at."""
        now, rows = await self._app.schedules.rows()
        next_due = None
        for name, due_at, definition in rows:
            try:
                timing = self._timing(definition)
                for _ in range(_MOST_MISSED):
                    if due_at > now:
                        break
                    due_at = await self._fire(name, due_at, now, timing, definition.get("missed", "skip"))
                if due_at <= now:
                    due_at = await self._fire(name, due_at, now, timing, "skip")
            except BrokerError:
                raise
            except (ArdiqError, ValueError, TypeError) as error:
                # It harms no other, and is said once.
                if self._broken.get(name) != str(error):
                    self._broken[name] = str(error)
                    log.error("schedule %r cannot be fired: %s", name, error)
                continue
            next_due = due_at if next_due is None else min(next_due, due_at)
        if next_due is None:
            return self._app.cron_poll_s if self._app._crons else max(self._app.cron_poll_s, _IDLE_S)
        return max(_SHORTEST_S, min(self._app.cron_poll_s, (next_due - now) / 1000))

    async def _fire(self, name: str, due_at: int, now: int, timing: Timing, missed: str) -> int:
        """Fire or pass over one occurrence; when the next one is due."""
        if missed == "all":
            next_due_at, run = timing.after(due_at), True
        else:
            next_due_at, run = timing.after(now), missed == "once" or now - due_at <= _GRACE_MS
        answer = await self._app.schedules.fire(name, due_at, next_due_at, run)
        if answer == "skipped":
            log.warning("schedule %r: missed its time, passed over until the next", name)
        return next_due_at

    def _timing(self, definition: dict[str, Any]) -> Timing:
        key = repr([definition.get(field) for field in ("spec", "every_ms", "tz")])
        timing = self._timings.get(key)
        if timing is None:
            timing = self._timings[key] = Timing.of(definition)
        return timing
