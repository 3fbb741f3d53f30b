"""Reports to the server, every few seconds, how often a worker's tasks ran and for how long, for `ardiq top`."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from .._server import calls
from ..errors import ArdiqError

if TYPE_CHECKING:
    from .._client.queue import QueueContext

_EVERY_S = 5.0
_LAST_S = 1.0


class Tally:
    """Reports by how much the app's counters grew. If a report is lost, only figures are missing."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue
        self._channel = queue.channel()
        self._told = self._totals()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Report every five seconds."""
        self._timer = self._channel.loop.call_later(_EVERY_S, self._tick)

    def stop(self) -> None:
        """Stop reporting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Report for the last time, within a second."""
        self.stop()
        answers = [self._channel.ask(calls.report_stats(tasks=portion)) for portion in self._portions()]
        with suppress(ArdiqError, TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await asyncio.gather(*answers)

    def _tick(self) -> None:
        for portion in self._portions():
            self._channel.tell(calls.report_stats(tasks=portion))
        self.start()

    def _portions(self) -> Iterator[list[calls.TaskFigures]]:
        """What is new since this was asked last, a call each."""
        told, self._told = self._told, self._totals()
        rows: list[calls.TaskFigures] = []
        for name, totals in self._told.items():
            before = told.get(name)
            grown = totals if before is None else [now - then for now, then in zip(totals, before, strict=True)]
            if any(grown):
                rows.append(calls.TaskFigures._make([name, *grown]))
        for first in range(0, len(rows), calls.REPORT_STATS_MOST):
            yield rows[first : first + calls.REPORT_STATS_MOST]

    def _totals(self) -> dict[str, list[int]]:
        """By task, over its lanes. What nobody registered is left out: there is no end to such names."""
        totals: dict[str, list[int]] = {}
        with self._queue.metrics.lock:
            for (name, _), counters in self._queue.metrics.counters.items():
                if name in self._queue.registry.tasks:
                    before = totals.get(name)
                    figures = counters.totals()
                    totals[name] = [a + b for a, b in zip(before or [0] * len(figures), figures, strict=True)]
        return totals
