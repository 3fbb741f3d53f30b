"""One queue of a server on one event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from .. import _core
from .calls import Outcome
from .changes import Change, Watch
from .inbox import Answer, Enqueued, Inbox
from .mailbox import Mailbox
from .replies import Call, R

# Submitted calls leave when the loop's turn ends, or sooner when there are enough for a call of their own.
_FLUSH_AT = 250
# The place of a task's options among the fields of its record, and what they contain if no result is kept.
_OPTIONS_AT, _NOT_KEPT = 5, b'"result_ttl_ms":0'


def may_repeat(fields: Sequence[str | bytes], result_ttl_ms: int) -> bool:
    """Whether an enqueue whose answer is lost may be sent again: not if no record of a task is kept, because a repeat
    could then not be told from a new task.
    """
    return result_ttl_ms != 0 and not any(
        _NOT_KEPT in options for options in set(fields[_OPTIONS_AT :: _OPTIONS_AT + 1])
    )


class Channel:
    """One queue on one event loop: its calls, its mail, its worker's events."""

    def __init__(self, loop: asyncio.AbstractEventLoop, core: _core.Core, timeout_s: float, result_ttl_ms: int) -> None:
        self.loop = loop
        self.timeout_s = timeout_s
        self.mailbox = Mailbox(self)
        self.on_worker_event: Callable[[tuple[Any, ...]], None] = _ignore
        self.result_ttl_ms = result_ttl_ms
        self._repeat = result_ttl_ms != 0
        self._inbox = Inbox.of(loop)
        self._number = self._inbox.join(self._hear)
        self.core = core.channel(self._inbox.core, self._number)
        self._submitted = 0
        self.closed = False

    def ask(self, call: Call[R]) -> Answer[R]:
        """Call one function of the library; the future has its reply."""
        ticket, answer = next(self._inbox.tickets), Answer(call, self.loop)
        if self.core.call(ticket, call.function, call.args, call.repeat):
            self._inbox.stir()
        self._inbox.open[ticket] = answer
        return answer

    def tell(self, call: Call[Any]) -> None:
        """Call one function and ignore the reply."""
        if self.closed:
            return
        if self.core.call(next(self._inbox.tickets), call.function, call.args, call.repeat):
            self._inbox.stir()

    def listen(self, mailbox: str) -> None:
        """Have the mailbox of that name read."""
        if self.core.listen(mailbox):
            self._inbox.stir()

    def register(self) -> None:
        """Make the queue known at the server, without waiting for it."""
        if self.core.register():
            self._inbox.stir()

    def watch(
        self, task_id: str, timeout: float | None, repeats: bool = False
    ) -> AsyncGenerator[Change | Outcome | None, None]:
        """Each change of a task from now on; see `Watch`."""
        return Watch(repeats).changes(self.mailbox, task_id, timeout)

    def enqueue(self, job: Any, record: tuple[str | bytes, ...], sent: Enqueued) -> None:
        """Send one task with all others of this turn; `sent` becomes its job."""
        ticket = next(self._inbox.tickets)
        self.core.submit(ticket, "enqueue", record, self._repeat and _NOT_KEPT not in record[_OPTIONS_AT])
        sent.job = job
        self._inbox.open[ticket] = sent
        self._submitted += 1
        if self._submitted == 1:
            self.loop.call_soon(self._flush)
        elif self._submitted % _FLUSH_AT == 0:
            self._inbox.turn_after(self.core.flush())

    def enqueue_many(self, records: Sequence[str | bytes]) -> asyncio.Future[list[Any]]:
        """Send many tasks at once; the future has one answer each."""
        ticket = next(self._inbox.tickets)
        answer: asyncio.Future[list[Any]] = self.loop.create_future()
        is_due = self.core.submit_many(ticket, "enqueue", records, may_repeat(records, self.result_ttl_ms))
        self._inbox.open[ticket] = answer
        if is_due:
            self._inbox.turn()
        return answer

    def close(self) -> None:
        """Close the channel and let go of it; from any thread."""
        self.closed = True
        core = self.core
        del self.core
        core.close()
        del core  # what it held ends in the turn that leaving takes
        self._inbox.leave(self._number)

    def _flush(self) -> None:
        if self.closed:
            return
        self._submitted = 0
        self._inbox.turn_after(self.core.flush())

    def _hear(self, event: tuple[Any, ...]) -> None:
        """Take an event that is not an answer to a call."""
        kind = event[0]
        if kind == "message":
            self.mailbox.receive(event[1])
        elif kind == "listening":
            self.mailbox.opened(event[1])
        elif kind == "closed":
            self.mailbox.close(event[1])
        else:
            self.on_worker_event(event)


def _ignore(event: tuple[Any, ...]) -> None:
    """Ignore the events of a worker that is gone."""
