"""The part of a worker that runs Python functions.

The compiled core claims tasks, keeps the lease and hands in outcomes; here each claim becomes an attempt: an asyncio
task for `async def`, a call on a thread or in a child process for `def`. Every claim that was taken is settled exactly
once.
"""

import asyncio
import contextvars
import functools
import logging
import os
import socket
import sys
from collections import deque
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from .. import _core, context
from .._values.encodings import to_json
from .._values.settings import Settings
from ..errors import ArdiqError, is_away
from .attempts import Attempts
from .batches import items_of
from .carrier import Carrier
from .endings import ABORTED, RELEASED, Claim
from .processes import Processes
from .reports import Reports
from .stalls import StallWatch
from .tally import Tally
from .threads import SyncTasks

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .run_state import RunState

log = logging.getLogger("ardiq")

# A turn of the loop starts no more than this, so that timers, aborts and signals run in between.
_MOST_STARTS = 256
_LONGEST_TURN_S = 0.005
_HALT_S = 5.0
_MOST_NAMED = 10
_BURST_PATIENCE_S = 30.0
_DECLARE_AGAIN_S = 1.0

if sys.version_info >= (3, 12):
    _EAGER = True
    _new_task = functools.partial(asyncio.Task, eager_start=True)
else:
    _EAGER = False
    _new_task = asyncio.Task


class Worker:
    """One run of the worker loop on one event loop."""

    sleeps_in_place = True

    def __init__(
        self,
        queue: "QueueContext",
        run_state: "RunState",
        processes: Processes,
        pool_share: tuple[_core.Pool, int] | None = None,
        watch: StallWatch | None = None,
    ) -> None:
        self._run_state = run_state
        self._channel = channel = queue.channel()
        self._loop = channel.loop
        # What the lifespan set is visible to every task, what one task sets to no other.
        self._context = contextvars.copy_context()
        self._main: asyncio.Task[Any] | None = None
        self._stopped: asyncio.Future[None] = channel.loop.create_future()
        self._stopping = False
        self._taken: deque[Claim] = deque()
        self._unbegun: list[Claim] = []
        # Sync tasks go from the core to threads without the loop, unless a middleware needs it.
        tasks = queue.registry.tasks.items()
        sync = [name for name, task in tasks if not (task.is_async or task.process or task.gathers)]
        threaded = [] if queue.registry.middleware else sync
        self.link = channel.core.worker(_config(queue, run_state, threaded, pool_share, watch))
        self._attempts = Attempts(queue, self)
        self._sync_tasks = SyncTasks(self._attempts, self.link, self._context, queue.settings.concurrency)
        self._attempts.in_thread = self._sync_tasks.call
        self._attempts.in_process = processes.call
        self._has_threaded = bool(threaded)
        self._queue = queue
        self._server = queue.server
        self._declaring: asyncio.Task[None] | None = None
        self._slots = _slots(queue.settings, pool_share)
        self._what = _described(queue, self._slots)
        self._tasks = queue.registry.tasks
        self.turn_due = False
        self._reports = Reports(self, queue, self._attempts.unsent)
        self._tally = Tally(queue)
        self._carrier = Carrier(queue)
        self._context.run(context.reports.set, self._reports)
        self._context.run(context.waits.set, self._attempts.waits)

    async def run(self) -> None:
        """Work until stopped; in burst mode until nothing is left.

        Cancelled, it cancels what runs and hands it back.
        """
        self._main = asyncio.current_task()
        self._channel.on_worker_event = self._on_event
        self.link.start()
        if self._has_threaded:
            self._sync_tasks.start()
        self._tally.start()
        if (instrumented := self._attempts.instrumented) is not None:
            instrumented.slots(self._slots)
        try:
            await asyncio.shield(self._stopped)
            await self._attempts.endings.all_told()
            await self._tally.close()
            await self._carrier.close()
        except asyncio.CancelledError:
            self.is_cancelled()
            await self._halt()
            raise
        finally:
            if instrumented is not None:
                instrumented.slots(-self._slots)
            self._attempts.over = True
            self._attempts.endings.close()
            self._tally.stop()
            self._carrier.stop()
            if self._declaring is not None:
                self._declaring.cancel()
            self._channel.on_worker_event = _ignore
            self.link.abandon()  # of no effect once it has left
            self._attempts.hand_back()
            self._sync_tasks.close()
            self._reports.close()

    def stop(self) -> None:
        """Take no more; `run` ends when all that was started is settled. From any thread."""
        self._stopping = True
        self.link.stop()
        self._loop.call_soon_threadsafe(self.turn_soon)

    def is_current(self, token: int) -> bool:
        """Whether the attempt of that token is still this worker's to settle."""
        return self._attempts.is_current(token)

    def holds(self, token: int) -> bool:
        """Whether the attempt of that token is still to be settled."""
        return self._attempts.holds(token)

    def holder(self, token: int) -> tuple[str, int]:
        """Under which identity and lease token the server knows the attempt of that token."""
        return self.link.holder(token)

    def has_told(self, token: int) -> bool:
        """Whether the attempt of that token told something that may not have arrived yet. From any thread."""
        return self._reports.has_told(token)

    async def reports_arrive(self, token: int) -> None:
        """Until the server has what the attempt of that token told."""
        await self._reports.arrive(token)

    def occupy(self, takes: bool) -> None:
        """Take a slot for an attempt that has ended while somebody is told of it, or give it back. From any thread."""
        if not self._attempts.over:
            self.link.occupy(takes)

    def is_cancelled(self) -> bool:
        """Whether the worker itself is being cancelled, and not one of its tasks.

        It does not return where that can only be the work of a task.
        """
        if self._main is None or self._main.cancelling() == 0:
            return False
        if (crash := self._run_state.on_cancelled) is not None:
            crash()
        return True

    def settle(self) -> None:
        """Hand in what has ended."""
        self.link.settle(self._attempts.outcomes)
        self._attempts.outcomes.clear()

    def turn_soon(self) -> None:
        """Settle what ended and start what is there in the next turn of the loop."""
        if not self.turn_due:
            self.turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._attempts.over:
            return
        # What ends from here on is settled by this turn: it need not ask for one.
        self.turn_due = True
        try:
            if self._start_some():
                self._loop.call_soon(self._turn)
                return
        except BaseException as error:
            self._fail(error)
        self.turn_due = False

    def _start_some(self) -> bool:
        """Settle, take and start until nothing is left or the turn is over; whether it was over first."""
        link, taken, attempts = self.link, self._taken, self._attempts
        outcomes, running, runners = attempts.outcomes, attempts.running, attempts.runners
        unbegun, self._unbegun = self._unbegun, []
        for claim in unbegun:
            if (begun := running.get(claim[1])) is not None and begun.done():
                attempts.never_began(claim)
        loop, copy_context = self._loop, self._context.copy
        left = _MOST_STARTS
        ends = monotonic() + _LONGEST_TURN_S
        while True:
            if self._stopping:
                self._release_taken()
            if outcomes:
                self.settle()
            if left == 0 or monotonic() > ends:
                return True
            if not taken:
                taken.extend(link.take(left))
                if not taken:
                    return False
                attempts.taken_at = time()
                attempts.is_debug = log.isEnabledFor(logging.DEBUG)
            # The clock is asked now and then: asking costs more than some tasks.
            while taken and left > 0 and (left & 7 or monotonic() <= ends):
                left -= 1
                claim = taken.popleft()
                attempt = (runners.get(claim[2]) or attempts.runner(claim[2]))(claim)
                task = _new_task(attempt, loop=loop, context=copy_context())
                if not task.done():
                    running[claim[1]] = task
                    if not _EAGER:
                        self._unbegun.append(claim)
            if not _EAGER:
                # They take their first step when the loop comes round, and then what ended is settled at once.
                return True

    def start(self, claim: Claim) -> None:
        """Begin an attempt of a claim that came with another one, which begins now."""
        attempts = self._attempts
        task = _new_task(attempts.runners[claim[2]](claim), loop=self._loop, context=self.new_context())
        if not task.done():
            attempts.running[claim[1]] = task
            if not _EAGER:
                self._unbegun.append(claim)

    def new_context(self) -> contextvars.Context:
        """What a task of this worker sees at first."""
        return self._context.copy()

    def _release_taken(self, up_to: float = inf) -> None:
        for claim in [claim for claim in self._taken if claim[1] <= up_to]:
            self._taken.remove(claim)
            for each in items_of(claim):
                self._attempts.outcomes.append((each[0], each[1], RELEASED, 0, b"", b""))

    def _on_event(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == "tasks":
            if not self.turn_due:
                self._turn()
        elif kind == "abort":
            self._abort(event[1])
        elif kind == "outbox":
            self._carrier.tell()
        elif kind == "log":
            log.log(event[1], "%s", event[2])
        elif kind == "settled":
            self._attempts.endings.answered(*event[1:])
        elif kind == "stuck":
            log.warning("the queue is damaged%s: %s", event[1] and f", task id={event[1]} stays where it is", event[2])
        elif kind == "joined":
            self._declare()
            log.info("ready: worker %s, %s", event[1], self._what)
            if not self._tasks:
                log.warning(
                    "this worker has no tasks, so it runs none: import the modules with your tasks before it starts, "
                    "or name them in Ardiq(imports=[…])"
                )
        elif kind == "lost":
            log.warning("%s", event[1], extra={"event_name": "lost"})
            self._attempts.endings.void(event[2])
            self._release_taken(event[2])
            self._attempts.hand_back(event[2])
            self._server.register_again()
            self.turn_soon()
        elif kind == "idle":
            self.stop()
        elif kind == "failed":
            self._fail(event[1])
        elif kind == "worker" and not self._stopped.done():
            self._stopped.set_result(None)

    def _declare(self) -> None:
        """Tell the server the limits of this code: of those that differ, those of the worker that joined last count."""
        if self._queue.registry.limits:
            if self._declaring is not None:
                self._declaring.cancel()
            self._declaring = self._loop.create_task(self._declare_limits())

    async def _declare_limits(self) -> None:
        while True:
            try:
                await self._channel.ask(self._queue.producer.declaration())
                return
            except ArdiqError as error:
                if not is_away(error):
                    log.warning("the limits of this code cannot be declared: %s", error)
                    return
            await asyncio.sleep(_DECLARE_AGAIN_S)

    def _abort(self, token: int) -> None:
        if not self._attempts.abort(token):
            for claim in [claim for claim in self._taken if any(each[1] == token for each in items_of(claim))]:
                self._taken.remove(claim)
                for each in items_of(claim):  # the others of its batch gather anew
                    self._attempts.settle_cancelled(each, 0.0, ABORTED if each[1] == token else RELEASED)

    def _fail(self, error: BaseException) -> None:
        if not self._stopped.done():
            self._stopped.set_exception(error)

    async def _halt(self) -> None:
        """Cancel what runs, hand it back and leave, soon or not at all."""
        self._attempts.hand_back()
        self.stop()
        await asyncio.wait([self._stopped], timeout=_HALT_S)


def _slots(settings: Settings, pool_share: tuple[_core.Pool, int] | None) -> int:
    """How many slots the queue is guaranteed: all, unless others share them."""
    return settings.concurrency if pool_share is None else pool_share[0].guaranteed[pool_share[1]]


def give_up_after(run_state: "RunState") -> float | None:
    """For how many seconds the server may be away: somebody waits for the end of a worker in burst mode."""
    asked = run_state.give_up_after_s
    return _BURST_PATIENCE_S if asked is None and run_state.burst else asked


def _described(queue: "QueueContext", slots: int) -> str:
    """What a worker of that queue does, for people."""
    tasks, concurrency = list(queue.registry.tasks), queue.settings.concurrency
    named = ", ".join(tasks[:_MOST_NAMED]) + (", …" if len(tasks) > _MOST_NAMED else "")
    share = "" if slots == concurrency else f"{slots} of "
    return (
        f"queue {queue.name!r}, {share}{concurrency} at once, {len(tasks)} task{'' if len(tasks) == 1 else 's'}"
        f"{': ' if tasks else ''}{named}"
    )


def _config(
    queue: "QueueContext",
    run_state: "RunState",
    threaded: list[str],
    pool_share: tuple[_core.Pool, int] | None,
    watch: StallWatch | None,
) -> dict[str, Any]:
    settings, health, tasks = queue.settings, run_state.health, list(queue.registry.tasks)
    weights, limits = settings.weights or {}, settings.limits or {}
    info = {
        "label": settings.worker_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "ardiq": _core.VERSION,
        "protocol": _core.PROTOCOL_VERSION,  # `ardiq migrate --prune` keeps the libraries that live workers name
        "concurrency": settings.concurrency,
        "share": _slots(settings, pool_share),
        "prefetch": settings.prefetch,
        "tasks": len(tasks),
    }
    return {
        "label": settings.worker_id,
        "info": to_json(info).decode(),
        "lanes": [(lane, weights.get(lane), limits.get(lane)) for lane in settings.priorities[::-1]],
        "concurrency": settings.concurrency,
        "prefetch": settings.prefetch,
        "lease_ms": settings.idle_timeout_ms,
        "poll_block_ms": settings.poll_block_ms,
        "result_ttl_ms": settings.result_ttl_ms,
        "max_lost": settings.max_lost,
        "burst": run_state.burst,
        "give_up_after_ms": None if (most := give_up_after(run_state)) is None else int(most * 1000),
        "thread_tasks": threaded,
        "batch_tasks": [name for name, task in queue.registry.tasks.items() if task.gathers],
        "pool_share": pool_share,
        "health": None if health is None else (health, queue.name, tasks),
        "stall_detector": None if watch is None else watch.core,
    }


def _ignore(event: tuple[Any, ...]) -> None:
    """Events that come after the end."""
