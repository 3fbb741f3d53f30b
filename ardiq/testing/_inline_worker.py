"""The worker of one queue within `inline`: what a call made ready it takes at once, on the loop of the call."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from .. import context
from .._client.registry import Registered
from .._execution.attempts import Attempts, within
from .._execution.batches import batch_of, items_of
from .._execution.carrier import call_of
from .._execution.chunks import chunked
from .._execution.endings import (
    ABORTED,
    COMPLETE,
    FAILED,
    LIMITED,
    RELEASED,
    RETRY,
    SNOOZE,
    SUSPEND,
    UNKNOWN,
    Claim,
    Outcome,
)
from .._execution.instrumented import Carried
from .._execution.reports import bounded
from .._execution.scheduler import Scheduler
from .._server import calls
from .._server.replies import Call
from .._values.chunks import CHUNK
from .._values.encodings import to_json
from .._values.kept import Memo
from ..errors import ArdiqError

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from ._inline import Block

R = TypeVar("R")

log = logging.getLogger("ardiq")

_IDENTITY = "inline"
_WANT = 1000
# What an attempt may become; anything else that is answered is why its outcome was refused.
_BECOMES = frozenset({ABORTED, COMPLETE, FAILED, LIMITED, RELEASED, RETRY, SNOOZE, SUSPEND, UNKNOWN})
_FOREVER_MS = 100 * 365 * 86_400_000


class InlineWorker:
    """Claims through the library and runs attempts as a worker does, as many at once as there are."""

    def __init__(self, queue: "QueueContext", block: "Block") -> None:
        self.context = queue
        self.block = block
        self.base = f"{queue.settings.prefix}:{{{queue.name}}}:"
        self.queue = queue.name
        self.worker_id = queue.settings.worker_id
        self.turn_due = True  # outcomes are taken when an attempt ends, without a turn
        self.started: list[str] = []
        self.scheduler = Scheduler(queue)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # other loops, of test clients, may be on other threads
        self._seq = 0
        self._is_outbound = False  # other queues are to be told something
        self._pending: dict[int, Claim] = {}  # claimed, not begun
        self._held: dict[str, int] = {}  # by lane: how many are claimed
        self._runs: set[asyncio.Task[Any]] = set()
        self._run_of: dict[int, asyncio.Task[Any]] = {}
        self._noted: dict[int, dict[str, bytes]] = {}
        self._emitted: dict[int, int] = {}
        self.codec = queue.codec
        self._attempts = Attempts(queue, self)  # type: ignore[arg-type]
        self._attempts.in_thread = lambda fn, args, kwargs: asyncio.to_thread(fn, *args, **kwargs)
        self._attempts.in_process = self._in_process
        self._context = contextvars.copy_context()
        self._context.run(context.reports.set, self)
        self._context.run(context.waits.set, self._attempts.waits)
        settings = queue.settings
        lanes, weights, self._limits = settings.priorities[::-1], settings.weights or {}, settings.limits or {}
        self._lanes = [{"lane": lane, **({"weight": weights[lane]} if lane in weights else {})} for lane in lanes]
        self._packed_lanes = to_json(self._lanes if weights else list(lanes))
        joining = calls.join(worker=_IDENTITY, lease_ms=_FOREVER_MS, info="{}", lanes=self._packed_lanes, generation=1)
        [mailbox, *_] = self.ask(joining)
        block.hearers[mailbox.encode()] = self._hear

    def ask(self, call: Call[R]) -> R:
        """The library's answer."""
        return call.decode(self.block.ask(self.base, call.function, call.args))

    def take(self) -> list[Claim]:
        """Claim all that is ready; without a clock, what is scheduled is."""
        return self._step()

    def start(self, claim: Claim) -> "asyncio.Task[None]":
        """Run a task that was claimed, and again as long as it need not wait; of a batch all of its tasks."""
        run = self._run_of[claim[1]] = self.spawn(self._run(claim))
        run.add_done_callback(lambda _: self._run_of.pop(claim[1], None))
        return run

    def spawn(self, work: Any) -> "asyncio.Task[None]":
        """Have it done on the loop that runs here; cancelled with the block."""
        run = asyncio.get_running_loop().create_task(work, context=self.new_context())
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return run

    async def run_all(self, claims: Iterable[Claim]) -> None:
        """Run tasks that were claimed, one after the other, and what other queues were handed."""
        elsewhere = self.carry()
        for claim in claims:
            await self.start(claim)
        if elsewhere:
            await asyncio.wait(elsewhere)

    @property
    def is_outbound(self) -> bool:
        """Whether other queues are to be told something."""
        return self._is_outbound

    def carry(self) -> "list[asyncio.Task[None]]":
        """Tell other queues what this one has for them, and start what that made ready."""
        runs: list[asyncio.Task[None]] = []
        while self._is_outbound:
            self._is_outbound = False
            rows = self.ask(calls.outbox(limit=_WANT))
            self.ask(
                calls.outbox_done(entries=[calls.OutboxEntry(row.entry, row.life, self._say(row)) for row in rows])
            )
            for name in dict.fromkeys(row.queue for row in rows if row.queue):
                other = self._elsewhere(name)
                runs += [other.start(claim) for claim in other.take()]
                runs += other.carry()
        return runs

    def _elsewhere(self, queue: str) -> "InlineWorker":
        server: Any = self.context.app.queue(queue).context.server
        worker: InlineWorker = server.worker
        return worker

    def _say(self, row: calls.OutboxRow) -> str:
        if not row.queue:
            return ""
        answer = self._elsewhere(row.queue).ask(call_of(row))
        return str(answer[0] if isinstance(answer, list) else answer)

    def next_due_ms(self) -> int | None:
        """When the next task or schedule falls due, or a limit lets the next task start."""
        schedules = self.ask(calls.schedules_due(offset=0, limit=1))
        times = self._due_times() + [row.due_at for row in schedules.rows]
        return min([*times, *([schedules.next_due_at] if schedules.next_due_at >= 0 else [])], default=None)

    async def run_due(self) -> None:
        """Run the tasks that are due, one after the other, and fire the schedules."""
        await self.run_all(self.take())
        await self.scheduler.fire_due()

    def new_context(self) -> contextvars.Context:
        """What a task sees at first."""
        return self._context.copy()

    def close(self) -> None:
        """Cancel what still runs."""
        self._attempts.over = True
        for run in list(self._runs):
            if run.get_loop() is self._loop:
                run.cancel()
            else:
                with suppress(RuntimeError):  # that loop is closed
                    run.get_loop().call_soon_threadsafe(run.cancel)

    # What attempts and their endings ask of a worker.

    def turn_soon(self) -> None:
        """Nothing waits for a turn here."""

    def occupy(self, takes: bool) -> None:
        """There is no end of slots here."""

    def has_told(self, token: int) -> bool:
        """What a task tells has arrived at once."""
        return False

    async def reports_arrive(self, token: int) -> None:
        """Likewise."""

    def is_cancelled(self) -> bool:
        """It never hands tasks back."""
        return False

    # What their steps and waits ask of a worker.

    sleeps_in_place = False

    def holder(self, token: int) -> tuple[str, int]:
        """Under which identity and lease token the library knows an attempt."""
        return _IDENTITY, token

    def holds(self, token: int) -> bool:
        """Whether the attempt is still to be settled."""
        return self._attempts.holds(token)

    # What tasks that tell of themselves ask of the reports.

    def is_current(self, claim: tuple[Any, ...]) -> bool:
        """Whether the attempt is still wanted."""
        return self._attempts.is_current(claim[1])

    def noted(self, claim: tuple[Any, ...], to_add: bool = False) -> dict[str, bytes]:
        """What the attempt has noted so far."""
        return self._noted.setdefault(claim[1], {})

    def is_full(self, claim: tuple[Any, ...]) -> bool:
        """What a task emits has arrived at once."""
        return False

    def add(
        self,
        claim: tuple[Any, ...],
        *,
        progress: bytes = b"",
        notes: dict[str, bytes] | None = None,
        line: str = "",
        chunk: tuple[str, bytes] | None = None,
    ) -> None:
        """Tell the library at once."""
        told = [calls.Told(name, text) for name, text in (notes or {}).items()]
        if line:
            told.append(calls.Told("", bounded(line).encode(errors="replace")))
        task_id, token = claim[0], str(claim[1])
        to = {"worker": _IDENTITY, "id": task_id, "token": token}
        try:
            if chunk is None:
                self.ask(calls.progress(**to, progress=progress, result_ttl_ms=_FOREVER_MS, told=told))
                return
            number = self._emitted.get(claim[1], 0)
            self._emitted[claim[1]] = number + 1
            chunks = [calls.NewChunk(*chunk)]
            self.ask(calls.emit(**to, number=number, result_ttl_ms=_FOREVER_MS, chunks=chunks))
        except ArdiqError as error:
            log.warning("%s", error)

    async def _in_process(self, entry: Registered, claim: Claim, _: Carried) -> Any:
        args, kwargs = self._attempts.received(claim, entry.signature)
        fn = chunked(entry, claim[2], self._attempts.codec) if claim[5] == CHUNK else entry.fn
        return await within(entry.timeout, asyncio.to_thread(fn, *args, **kwargs))

    async def _run(self, claim: Claim | None) -> None:
        following: list[asyncio.Task[None]] = []
        while claim is not None:
            wanted = [each for each in items_of(claim) if each[1] in self._pending]
            if not wanted:
                return  # aborted meanwhile
            task_id, token = wanted[0][:2]
            del self._pending[token]
            self.started.append(task_id)
            claim = await self._end(wanted[0], await self._attempt(batch_of(wanted)), following)
            if others := [self._run_of[each[1]] for each in wanted[1:] if each[1] in self._run_of]:
                await asyncio.wait(others)
        if following:
            await asyncio.wait(following)

    async def _end(
        self, claim: Claim, outcome: Outcome, following: "list[asyncio.Task[None]] | None" = None
    ) -> Claim | None:
        """Settle an attempt and start what is ready then; the next attempt of the same task, if that is at once.
        `following` gets the others of its workflow, its children and its parent.
        """
        self._held[claim[7]] -= 1
        again, became = None, outcome[2]

        def hear(token: int, what: str) -> None:
            nonlocal became
            if token == claim[1]:
                became = what

        for claimed in self._step(outcome, hear):
            if claimed[0] == claim[0]:
                again = claimed
            else:
                run = self.start(claimed)
                if following is not None and _are_related(claim[0], claimed[0]):
                    following.append(run)
        elsewhere = self.carry()
        if following is not None:
            following += elsewhere
        endings = self._attempts.endings
        if became in _BECOMES:
            await endings.tell(claim[1], became)
        else:
            endings.answered(claim[0], claim[1], became, True)
        await asyncio.sleep(0)
        return again

    async def _attempt(self, claim: Claim) -> Outcome:
        attempts, token = self._attempts, claim[1]
        attempts.taken_at = self.block.now_us() / 1_000_000
        attempt = asyncio.get_running_loop().create_task(attempts.runner(claim[2])(claim), context=self.new_context())
        attempts.running[token] = attempt
        try:
            await attempt
        except asyncio.CancelledError:
            if attempts.running.pop(token, None) is None or not attempt.cancelled():
                raise
            return _aborted(claim)  # before its first step
        finally:
            self._noted.pop(token, None)
            self._emitted.pop(token, None)
        ended = next(outcome for outcome in attempts.outcomes if outcome[1] == token)
        attempts.outcomes.remove(ended)
        return ended

    def _step(self, outcome: Outcome | None = None, hear: Callable[[int, str], None] | None = None) -> list[Claim]:
        """Settle, and claim all that is ready."""
        settled = [calls.Settled(outcome[0], str(outcome[1]), *outcome[2:])] if outcome else []
        with self._lock:
            return list(self._steps(settled, hear))

    def _steps(self, settled: list[calls.Settled], hear: Callable[[int, str], None] | None) -> Iterator[Claim]:
        while True:
            self._seq += 1
            call = calls.step(
                worker=_IDENTITY, seq=self._seq, lease_ms=_FOREVER_MS,
                result_ttl_ms=self.context.settings.result_ttl_ms,
                lanes=self._open_lanes(), want=_WANT, hand_off=0, outcomes=settled,
            )  # fmt: skip
            more, wait_ms, refusals, claims = self.ask(call)
            settled = []
            for _, token, reason in refusals:
                if token and hear is not None:
                    hear(int(token), reason)
                else:
                    log.warning("the queue is damaged: %s", reason)
            batches: list[list[Claim]] = []
            for c in claims:
                claim: Claim = (
                    c.id, int(c.token), c.name, c.args, c.kwargs, c.codec, c.headers, c.lane, c.tries, c.enqueued_at
                )  # fmt: skip
                self._pending[claim[1]] = claim
                self._held[claim[7]] = self._held.get(claim[7], 0) + 1
                if c.token.startswith("+"):  # it belongs to the batch of the one before it
                    batches[-1].append(claim)
                else:
                    batches.append([claim])
            yield from map(batch_of, batches)
            if claims and more:
                continue
            if claims or not (more or wait_ms >= 0):
                return
            if not self.block.passes_waits or not (due := self._due_times(may_wait=False)):
                return
            self.block.pass_until(min(due))

    def _due_times(self, may_wait: bool = True) -> list[int]:
        """When the next task falls due, unless it `may_wait` for others, and when limits let the next ones start."""
        times, cursor = [], "0"
        for offset in count():
            scheduled = self.ask(calls.list_(place="scheduled", which="", offset=offset, limit=1))
            if may_wait or not scheduled or not self._waits_for_others(scheduled[0].id):
                times += [entry.number for entry in scheduled]
                break
        while True:
            page = self.ask(calls.buckets(name="", cursor=cursor, limit=_WANT))
            times += [row.opens_at for row in page.rows if row.waiting and row.opens_at]
            cursor = page.cursor
            if cursor == "0":
                return times

    def _waits_for_others(self, task_id: str) -> bool:
        """For signals, or for its children."""
        wait = self.ask(calls.task(id=task_id)).get("waits_for", b"")
        rows = self.ask(calls.steps(id=task_id, name=wait)) if wait else []
        memos = [Memo.read(row.memo) for row in rows]
        return any(memo.signals or not memo.data for memo in memos)

    def _open_lanes(self) -> bytes:
        """The lanes to claim from, and how many more of each may run."""
        if not self._limits:
            return self._packed_lanes
        left = {name: max(0, limit - self._held.get(name, 0)) for name, limit in self._limits.items()}
        return to_json([lane | ({"limit": left[lane["lane"]]} if lane["lane"] in left else {}) for lane in self._lanes])

    def _hear(self, message: list[bytes]) -> None:
        """A message of the worker's mailbox: a task is asked to stop, or other queues are to be told something."""
        if message == [b"outbox"]:
            self._is_outbound = True
        if message[:1] != [b"abort"]:
            return
        token = int(message[2])
        attempt = self._attempts.running.get(token)
        loop = self._loop if attempt is None else attempt.get_loop()
        loop.call_soon_threadsafe(self._abort, token)

    def _abort(self, token: int) -> None:
        if not self._attempts.abort(token) and (claim := self._pending.pop(token, None)) is not None:
            self.spawn(self._end(claim, _aborted(claim)))


def _are_related(task_id: str, other_id: str) -> bool:
    """Whether both are of one workflow, or one is among the children of the other, as their ids tell."""
    root, is_member, _ = task_id.partition("~")
    return bool(is_member and other_id.startswith(f"{root}~")) or any(
        "~" in one and one.startswith(f"{other.replace('~', '.')}.")
        for one, other in ((task_id, other_id), (other_id, task_id))
    )


def _aborted(claim: Claim) -> Outcome:
    return claim[0], claim[1], ABORTED, 0, b"", b""
