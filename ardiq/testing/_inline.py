"""The server of an app within `inline`: the library itself, in this process, and a worker that runs what is ready."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._execution.batches import items_of
from .._server.inbox import Inbox
from .._server.replies import refusal
from .._server.server import Server
from .._values.encodings import from_json, to_json
from .._values.ids import new_id
from ..errors import ArdiqError, BrokerError
from ._emulation import Emulation, Refused, Status
from ._inline_worker import InlineWorker

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from ._clock import Clock

_NO_BLOCKING = (
    "within inline(app) nothing may block: await enqueue, result and signal instead of enqueue_sync, result_sync and "
    "signal_sync"
)
# What may make tasks ready: who calls it is answered when they have run.
_MAKES_READY = frozenset(
    {
        *("enqueue", "limit_put", "limit_remove", "limits_declare", "requeue", "requeue_with", "resume"),
        *("schedule_fire", "signal", "workflow_add", "workflow_create", "workflow_resume"),
        *("workflow_seal", "workflow_start"),
    }
)
# What may let other tasks of a workflow begin.
_MAY_RELEASE = frozenset({"abort", "discard", "purge", "workflow_abort"})
_FOREVER_MS = 100 * 365 * 86_400_000
_TASK_FIELDS = 6
_PORTION = 500
_TIMES = re.compile(rb'"(expire_ms|waiter_ttl_ms)"')


class Block:
    """All queues of an app while `inline` lasts: their server, its clock, and who hears of what.

    Args:
        clock: the time to go by; the machine's when None, which then leaps over whatever a task would wait for.
    """

    def __init__(self, clock: "Clock | None") -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        self.passes_waits = clock is None
        # Results are kept as long as the block lasts, wherever time has leapt meanwhile.
        self.emulation = Emulation(self.now_us, stands_still=True)
        self.hearers: dict[bytes, Callable[[list[bytes]], None]] = {}
        self.workers: dict[str, InlineWorker] = {}  # by queue
        self._passed_us = 0

    def now_us(self) -> int:
        """The server's time."""
        return time.time_ns() // 1000 + self._passed_us if self.clock is None else self.clock.now_ms * 1000

    def pass_until(self, at_ms: int) -> None:
        """Let the time until then have passed."""
        self._passed_us += max(0, at_ms * 1000 - self.now_us())

    def ask(self, base: str, function: str, args: Sequence[str | bytes | int]) -> Any:
        """The library's answer; messages that it posts are on their way when this returns. From any thread.

        Raises:
            ArdiqError: it refuses the call.
        """
        words = [_word(arg) for arg in args]
        try:
            reply = self.emulation.call(function, [base.encode()], words)
        except Refused as error:
            raise _error(error) from None
        for mailbox, hear in list(self.hearers.items()):
            if self.emulation.holds(mailbox):
                for message in self.emulation.command(b"LPOP", mailbox, b"10000") or ():
                    hear(_fields(message))
        return [_error(item) if isinstance(item, Refused) else item for item in reply] if type(reply) is list else reply


class InlineServer(Server):
    """Takes the place of a queue's server while `inline` lasts."""

    def __init__(self, queue: "QueueContext", block: Block) -> None:
        self.block = block
        self.worker = block.workers[queue.name] = InlineWorker(queue, block)
        if block.clock is not None:
            block.clock.workers.append(self.worker)
        super().__init__(queue.settings, queue.name)
        self.url = "inline:"
        self.is_listed, self.is_lent = False, True

    def sibling(self, queue: Any) -> "InlineServer":
        """One for another queue of the app."""
        return InlineServer(queue, self.block)

    def may_wait(self) -> None:
        """Nobody may wait for a task that needs their thread."""
        try:
            is_on_loop = asyncio.get_running_loop() is self.block.loop
        except RuntimeError:  # a sync task's thread
            return
        if is_on_loop:
            raise RuntimeError(_NO_BLOCKING)

    def close(self) -> None:
        """Cancel what still runs."""
        super().close()
        self.worker.close()
        if self.block.clock is not None and self.worker in self.block.clock.workers:
            self.block.clock.workers.remove(self.worker)

    def _open(self, url: str, timeout_ms: int | None = None) -> Any:
        return InlineCore(self.worker)


class InlineCore:
    """Answers what the compiled core of a queue is asked."""

    url = "inline:"

    def __init__(self, worker: InlineWorker) -> None:
        self._worker = worker

    def call(
        self, function: str, args: Sequence[str | bytes | int], repeat: bool = False, within_ms: int | None = None
    ) -> Any:
        """Answer a blocking call.

        Raises:
            RuntimeError: it is to add a task, which runs before it is answered.
        """
        if function in _MAKES_READY:
            raise RuntimeError(_NO_BLOCKING)
        return self._worker.block.ask(self._worker.base, function, args)

    def call_many(self, function: str, records: Sequence[str | bytes], repeat: bool = True) -> Any:
        """As `call`, of many tasks."""
        raise RuntimeError(_NO_BLOCKING)

    def command(self, args: Sequence[str | bytes | int]) -> Any:
        """Answer a command."""
        name, *words = map(_word, args)
        reply = self._worker.block.emulation.command(name, *words)
        return reply.text if isinstance(reply, Status) else reply

    def channel(self, inbox: Any, number: int) -> "InlineChannel":
        """Of the loop that runs here."""
        return InlineChannel(self._worker, number)

    def register(self) -> None:
        """There is no list of queues."""

    def close(self, timeout_ms: int = 0) -> None:
        """Nothing is open."""

    def after_fork(self) -> None:
        """A child has this all for itself."""


class InlineChannel:
    """Answers the calls of one loop, each when the tasks that it made ready have run."""

    def __init__(self, worker: InlineWorker, number: int) -> None:
        self._worker = worker
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox = Inbox.of(self._loop)
        mailbox = f"{new_id()}:1"
        worker.block.hearers[f"{worker.base}mailbox:{mailbox}".encode()] = self._hear
        self._tell("other", number, ("listening", mailbox))

    def call(self, ticket: int, function: str, args: Sequence[str | bytes | int], repeat: bool = False) -> None:
        """Answer a call."""
        if function in ("await", "watch"):
            args = [*args[:2], _FOREVER_MS, *args[3:]]  # who waits has real time, which is not the server's
        try:
            reply = self._worker.block.ask(self._worker.base, function, args)
        except ArdiqError as error:
            self._tell("error", ticket, error)
            return
        claims = self._worker.take() if function in _MAKES_READY or function in _MAY_RELEASE else []
        if not (claims or self._worker.is_outbound):
            self._tell("reply", ticket, reply)
            return
        run = self._worker.spawn(self._worker.run_all(claims))
        run.add_done_callback(lambda run: self._tell_ended(run, ticket, reply))

    def submit(self, ticket: int, function: str, record: Sequence[str | bytes], repeat: bool = True) -> None:
        """Add a task, and answer when it has ended, or waits."""
        try:
            [reply] = self._worker.block.ask(self._worker.base, function, self._timed(record))
        except ArdiqError as error:
            self._tell("error", ticket, error)
            return
        begun = [(claim, self._worker.start(claim)) for claim in self._worker.take()]
        runs = {each[0]: run for claim, run in begun for each in items_of(claim)}
        if (run := runs.get(str(record[0]))) is None:
            self._tell("reply", ticket, reply)
        else:
            run.add_done_callback(lambda run: self._tell_ended(run, ticket, reply))

    def submit_many(self, ticket: int, function: str, records: Sequence[str | bytes], repeat: bool = True) -> None:
        """Add many tasks, and answer when they have run, one after the other."""
        replies: list[Any] = []
        for first in range(0, len(records), _PORTION * _TASK_FIELDS):
            portion = records[first : first + _PORTION * _TASK_FIELDS]
            try:
                replies += self._worker.block.ask(self._worker.base, function, self._timed(portion))
            except ArdiqError as error:
                error.accepted = replies + [None] * (len(records) // _TASK_FIELDS - len(replies))  # type: ignore[attr-defined]
                self._tell("error", ticket, error)
                return
        run = self._worker.spawn(self._worker.run_all(self._worker.take()))
        run.add_done_callback(lambda run: self._tell_ended(run, ticket, replies))

    def flush(self) -> None:
        """Nothing is held back."""

    def register(self) -> None:
        """There is no list of queues."""

    def listen(self, mailbox: str) -> None:
        """It hears from its beginning, under a name of its own."""

    def close(self) -> None:
        """Hear no more."""
        hearers = self._worker.block.hearers
        for mailbox in [mailbox for mailbox, hear in hearers.items() if hear == self._hear]:
            del hearers[mailbox]

    def _timed(self, records: Sequence[str | bytes]) -> list[str | bytes]:
        """The records in virtual time: who waits has real time; where no clock is moved, nothing expires."""
        set_anew = {"waiter_ttl_ms": _FOREVER_MS}
        dropped = {"expire_ms"} if self._worker.block.passes_waits else set()
        return [
            to_json(
                {name: set_anew.get(name, value) for name, value in from_json(field).items() if name not in dropped}
            )
            if at % _TASK_FIELDS == _TASK_FIELDS - 1 and isinstance(field, bytes) and _TIMES.search(field)
            else field
            for at, field in enumerate(records)
        ]

    def _hear(self, message: list[bytes]) -> None:
        self._tell("other", self._number, ("message", message))

    def _tell_ended(self, run: "asyncio.Task[None]", ticket: int, reply: Any) -> None:
        ended = BrokerError("inline(app) ended before the task did", maybe_enqueued=True)
        error = ended if run.cancelled() else run.exception()
        self._tell("reply", ticket, reply) if error is None else self._tell("error", ticket, error)

    def _tell(self, *event: Any) -> None:
        is_here = threading.get_ident() == self._thread
        (self._loop.call_soon if is_here else self._loop.call_soon_threadsafe)(self._inbox.receive, [event])


def _word(arg: str | bytes | int) -> bytes:
    """As it travels."""
    return arg if isinstance(arg, bytes) else arg.encode() if isinstance(arg, str) else b"%d" % arg


def _error(refused: Refused) -> Exception:
    """What a client raises for the answer of a server."""
    return refusal(str(refused).encode()) or ArdiqError(str(refused))


def _fields(message: bytes) -> list[bytes]:
    """The fields of a message: netstrings, `<length>:<bytes>,` each."""
    fields = []
    while message:
        size, _, rest = message.partition(b":")
        fields.append(rest[: int(size)])
        message = rest[int(size) + 1 :]
    return fields
