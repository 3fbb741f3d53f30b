"""A producer process: `python -m tests.chaos.produce FIRST RATE SEED` enqueues until SIGTERM, by every public way;
`python -m tests.chaos.produce backlog COUNT` enqueues so many, of a key each, and ends.

It notes what was acknowledged (`acked`, or `safe` with `durability="replicated"`), what was refused and so must never
run (`refused`), what may have been enqueued (`maybe`), which results it saw (`saw`), and errors that no fault explains
(`error`).
"""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ardiq import ArdiqError, BrokerError, Job, TaskError
from ardiq.task import PreparedTask, Task

from . import flows, jobs, limited

_WATCHED, _LIMITED = 0.15, 0.4
_WAIT_S, _LAST_WAIT_S = 20.0, 3.0
_SURGES_S = 4.0, 8.0
_BACKLOG_EACH = 1000
_ACKED = "safe" if jobs.app.durability == "replicated" else "acked"


class Producer:
    def __init__(self, first: int, rate: float, seed: int) -> None:
        self._next, self._rate, self._random = first, rate, random.Random(seed)
        self._stopped, self._watched = asyncio.Event(), _WATCHED
        self._notes, self._flows = jobs.ledger("sent"), jobs.ledger("flows")
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopped.set)
        ways: list[Callable[[], Awaitable[None]]] = [self._one, self._together, self._sync, self._request]
        # Batches at a pace of their own, so that single tasks come all the time.
        single, batches = self._paced(ways, [30, 2, 3, 10], 0.6), self._paced([self._many], [1], 0.4)
        await asyncio.gather(single, batches, self._surges(), self._workflows())
        if self._open:
            await asyncio.wait(self._open, timeout=_LAST_WAIT_S)

    async def _paced(self, ways: list[Callable[[], Awaitable[None]]], weights: list[int], share: float) -> None:
        started, sent = time.monotonic(), 0
        while not self._stopped.is_set():
            if sent < (time.monotonic() - started) * self._rate * share:
                before = self._next
                await self._random.choices(ways, weights)[0]()
                sent += max(1, self._next - before)
            else:
                await asyncio.sleep(0.01)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _task(self, number: int) -> tuple[Task[..., Any], tuple[Any, ...]]:
        if self._random.random() < _LIMITED:
            return limited.chosen(self._random, number)
        chance = self._random.random()
        if chance < 0.88:
            return jobs.quick, (number,)
        if chance < 0.93:
            return jobs.slow, (number, self._random.choice([0.1, 0.5, 1.5]))
        if chance < 0.96:
            return jobs.threaded, (number, self._random.choice([0.01, 0.05]))
        return (jobs.flaky, (number,)) if chance < 0.99 else (jobs.hopeless, (number,))

    def _options(self, task: Task[..., Any]) -> dict[str, Any]:
        is_delayed = self._random.random() < 0.1 and task not in (limited.ordered, limited.owned)
        return {"delay_ms": self._random.randrange(2000)} if is_delayed else {}

    async def _one(self) -> None:
        number = self._number()
        task, args = self._task(number)
        sent = time.monotonic()
        try:
            job = await task.options(**self._options(task)).enqueue(*args)
        except Exception as error:
            self._failed(number, error)
        else:
            self._accepted(number, job, sent)

    async def _together(self) -> None:
        await asyncio.gather(*(self._one() for _ in range(20)))

    async def _surges(self) -> None:
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._random.uniform(*_SURGES_S))
            await self._send(limited.SURGE, partial(limited.of_surge, self._random))

    async def _workflows(self) -> None:
        while not self._stopped.is_set():
            planned = flows.chosen(self._random, self._number)
            self._flows.write("plan", planned.id, planned.text())
            try:
                await jobs.app.start(planned.flow)
            except BrokerError as error:
                if not error.maybe_enqueued:
                    self._flows.write("refused", planned.id)
            except Exception as error:
                self._failed(int(planned.id[1:]), error)
            else:
                self._flows.write(_ACKED, planned.id)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._random.uniform(*flows.PACE_S))

    async def backlog(self, count: int) -> None:
        """So many tasks, the key of each its own. Nobody waits for their results."""
        self._watched = 0.0
        for first in range(0, count, _BACKLOG_EACH):
            await self._send(min(_BACKLOG_EACH, count - first), lambda number: (limited.owned, (number, number - 1)))

    async def _many(self) -> None:
        await self._send(self._random.choice([50, 100, 300]), self._task)

    async def _send(self, count: int, choose: Callable[[int], tuple[Task[..., Any], tuple[Any, ...]]]) -> None:
        """Ids of our own, so that we know which of them were accepted when it failed."""
        numbers = [self._number() for _ in range(count)]
        batch: list[PreparedTask[Any]] = []
        for number in numbers:
            task, args = choose(number)
            batch.append(task.options(task_id=f"n{number}", **self._options(task)).prepare(*args))
        sent = time.monotonic()
        try:
            accepted: Any = await jobs.app.enqueue_many(batch)
        except Exception as error:
            accepted = getattr(error, "jobs", ())
            for number in sorted({*numbers} - {int(job.id[1:]) for job in accepted}):
                self._failed(number, error)
        for job in accepted:
            self._accepted(int(job.id[1:]), job, sent)

    async def _sync(self) -> None:
        """From a thread, as code without an event loop does."""
        number = self._number()
        task, args = self._task(number)
        sent = time.monotonic()
        try:
            job = await asyncio.to_thread(task.enqueue_sync, *args)
        except Exception as error:
            self._failed(number, error)
        else:
            self._accepted(number, job, sent)

    async def _request(self) -> None:
        self._keep(self._requested(self._number()))

    async def _requested(self, number: int) -> None:
        try:
            value = await jobs.quick.request(number, timeout=_WAIT_S)
        except TimeoutError:
            self._notes.write("maybe", number)
        except Exception as error:
            self._failed(number, error)
        else:
            self._notes.write("saw", number, value)

    def _accepted(self, number: int, job: Job[Any], sent: float) -> None:
        self._notes.write(_ACKED, number, job.id, f"{sent:.4f}")
        if self._random.random() < self._watched:
            self._keep(self._watch(number, job))

    async def _watch(self, number: int, job: Job[Any]) -> None:
        try:
            result = await job.result(timeout=_WAIT_S)
        except (BrokerError, TimeoutError):
            return
        except ArdiqError as error:
            self._notes.write("error", number, repr(error).replace(" ", "_"))
            return
        if result is not None and result.success:
            self._notes.write("saw", number, result.value)

    def _failed(self, number: int, error: Exception) -> None:
        if isinstance(error, TaskError) or (isinstance(error, BrokerError) and error.maybe_enqueued):
            self._notes.write("maybe", number)
        elif isinstance(error, BrokerError):
            self._notes.write("refused", number)
        else:
            self._notes.write("error", number, repr(error).replace(" ", "_").replace("\n", "_"))

    def _keep(self, waiting: Any) -> None:
        task = asyncio.ensure_future(waiting)
        self._open.add(task)
        task.add_done_callback(self._open.discard)


if __name__ == "__main__":
    if sys.argv[1] == "backlog":
        asyncio.run(Producer(0, 0.0, 0).backlog(int(sys.argv[2])))
    else:
        asyncio.run(Producer(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])).run())
