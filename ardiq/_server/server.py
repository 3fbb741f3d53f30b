"""An app's way to its server: the compiled core, and for each event loop one line to it."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import _core, errors
from .._execution import processes as _processes
from ..job import Job
from .changes import Change, Watch
from .inbox import Answer, Enqueued, Inbox, forget_inboxes, resolve
from .mailbox import Mailbox, Outcome
from .replies import Call, R

if TYPE_CHECKING:
    from ..app import Ardiq

log = logging.getLogger("ardiq")

# Submitted calls leave when the loop's turn ends, or sooner when there are enough for a call of their own.
_FLUSH_AT = 250
_SHORTEST_RESPONSE_MS, _LONGEST_RESPONSE_MS = 2_000, 10_000
_CLOSE_MS = 1000
# Where the options of a task are among the fields of its record, and what they say where no result is kept.
_OPTIONS_AT, _NOT_KEPT = 5, b'"result_ttl_ms":0'

_brokers: "weakref.WeakSet[Broker]" = weakref.WeakSet()
_of_parent: list[Any] = []


def may_repeat(fields: Sequence[str | bytes], repeat: bool) -> bool:
    """Whether an enqueue whose answer is lost may be sent again, where others of the app may: not with a task of which
    no record is kept."""
    return repeat and not any(_NOT_KEPT in options for options in set(fields[_OPTIONS_AT :: _OPTIONS_AT + 1]))


class Broker:
    """The core of one app and its lines, one for each live event loop."""

    def __init__(self, app: "Ardiq", timeout_ms: int) -> None:
        # Not kept: the app closes this when it goes.
        self._url = app.redis_url
        self._base = f"{app.prefix}:{{{app.queue_name}}}:"
        self._registry = f"{app.prefix}:queues"
        self._queue = app.queue_name
        self._result_ttl_ms = app.result_ttl_ms
        # With the record gone at once, a repeated enqueue could not be told from a new one.
        self.repeat = app.result_ttl_ms != 0
        self._timeout_ms = timeout_ms
        self._is_replicated = app.durability == "replicated"
        self._lease_ms = app.idle_timeout_ms
        self._lock = threading.Lock()
        self._core: _core.Core | None = None
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}
        self._known = False
        self.is_listed = True  # in the list of queues
        self.is_lent = False  # a test's own server, for a while
        # A wrong URL is refused now, a server is not asked yet.
        if not _is_embedded(self._url):
            self._core = self._open(self._url)
        else:
            from ..embedded import data_path

            data_path(self._url)
        _brokers.add(self)

    def sibling(self, app: "Ardiq") -> "Broker":
        """One for another queue of the same server, or for another server: what this app says."""
        other = Broker(app, self._timeout_ms)
        other.is_listed, other.is_lent = self.is_listed, self.is_lent
        return other

    @property
    def core(self) -> _core.Core:
        """The core; an embedded server is started for it.

        Raises:
            RuntimeError: a child process imports the program, which would do again what it does when it is started.
        """
        if _processes.is_imported:
            raise RuntimeError(
                "this program enqueues or starts a worker when a child process imports it: do that under "
                "if __name__ == '__main__'"
            )
        with self._lock:
            if self._core is None:
                url = self._url
                if _is_embedded(url):
                    from ..embedded import url_for

                    url = url_for(url)
                self._core = self._open(url)
            return self._core

    def line(self, loop: asyncio.AbstractEventLoop) -> "Line":
        """The line of this loop, which is the running one."""
        try:
            return self._lines[loop]
        except KeyError:
            pass
        core = self.core
        with self._lock:
            for other in [other for other in self._lines if other.is_closed()]:
                self._lines.pop(other).close()
            line = self._lines[loop] = Line(self, loop, core)
        self.register(core)
        return line

    @property
    def shown_url(self) -> str:
        """The server's URL, without its password."""
        return self._url if self._core is None else self._core.url

    def register(self, core: _core.Core) -> None:
        """Make the queue known at the server, once a process, without waiting for it."""
        if self.is_listed and not self._known:
            self._known = True
            core.register()

    def register_again(self) -> None:
        """As `register`, for a server that may have lost what it held."""
        self._known = False
        self.register(self.core)

    def may_wait(self) -> None:
        """A thread may block until a task has ended: the worker that runs it is elsewhere."""

    async def refuse_eviction(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse a server that may throw away tasks; one that cannot be reached is not asked.

        Raises:
            LibraryError: its eviction policy takes keys without a time to live.
            Forbidden: it does not know the user.
        """
        core, answer = self.core, loop.create_future()

        def ask() -> None:
            error: Exception | None = None
            try:
                core.check_eviction()
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(resolve, answer, error)

        # The core blocks, the loop must not. Not a daemon: see `line`.
        threading.Thread(target=ask, name="ardiq-check").start()
        error = await answer
        if error is not None:
            if not errors.is_away(error):
                raise error
            log.warning("%s; trying again", error)

    def trouble(self, patience_s: float) -> Exception | None:
        """What keeps the server from answering within that time, if anything; blocks for no longer."""
        if _is_embedded(self._url):
            return None
        core = self._open(self._url, int(patience_s * 1000))
        try:
            core.command(["PING"])
        except Exception as error:
            return error
        finally:
            core.close(_CLOSE_MS)
        return None

    def close(self) -> None:
        """Close all lines and the core; calls under way are lost."""
        with self._lock:
            lines, self._lines = list(self._lines.values()), {}
            core, self._core = self._core, None
        for line in lines:
            line.close()
        if core is not None:
            core.close(_CLOSE_MS)

    def after_fork(self) -> None:
        """In the child: the loops and connections are the parent's; begin anew without touching them."""
        _of_parent.append(self._lines)
        self._lines = {}
        self._lock = threading.Lock()
        self._known = False
        if self._core is not None:
            self._core.after_fork()

    def _open(self, url: str, timeout_ms: int | None = None) -> _core.Core:
        # An answer that takes longer than the lease comes too late; the connection may be half-open.
        response_ms = min(_LONGEST_RESPONSE_MS, max(_SHORTEST_RESPONSE_MS, self._lease_ms))
        return _core.Core(
            url,
            self._base,
            broker_timeout_ms=self._timeout_ms if timeout_ms is None else timeout_ms,
            response_timeout_ms=response_ms,
            replicated=self._is_replicated,
        )


def _after_fork_in_child() -> None:
    _of_parent.append(forget_inboxes())
    for broker in list(_brokers):
        broker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Line:
    """One queue on one event loop: its calls, its mail, its worker's events."""

    def __init__(self, broker: Broker, loop: asyncio.AbstractEventLoop, core: _core.Core) -> None:
        self.loop = loop
        self.timeout_s = broker._timeout_ms / 1000
        self.mailbox = Mailbox(self)
        self.on_worker_event: Callable[[tuple[Any, ...]], None] = _ignore
        self.result_ttl_ms = broker._result_ttl_ms
        self._repeat = broker.repeat
        self._inbox = Inbox.of(loop)
        self._number = self._inbox.join(self._hear)
        self.channel = core.channel(self._inbox.core, self._number)
        self._submitted = 0
        self.closed = False

    def call(self, function: str, *args: str | bytes | int) -> asyncio.Future[Any]:
        """Call one function of the library; the future has its reply."""
        ticket = next(self._inbox.tickets)
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.channel.call(ticket, function, args)
        self._inbox.open[ticket] = answer
        return answer

    def ask(self, call: Call[R]) -> Answer[R]:
        """Call one function of the library; the future has its reply."""
        ticket, answer = next(self._inbox.tickets), Answer(call, self.loop)
        self.channel.call(ticket, call.function, call.args)
        self._inbox.open[ticket] = answer
        return answer

    def tell(self, function: str, *args: str | bytes | int) -> None:
        """Call one function and do not care for the reply."""
        if self.closed:
            return
        self.channel.call(next(self._inbox.tickets), function, args)

    def watch(self, task_id: str, timeout: float | None) -> AsyncGenerator[Change | Outcome | None, None]:
        """Each change of a task from now on; see `Watch.changes`."""
        return Watch().changes(self.mailbox, task_id, timeout)

    def enqueue(self, job: Job, record: tuple[str | bytes, ...], sent: Enqueued) -> None:
        """Send one task with all others of this turn; `sent` becomes its job."""
        ticket = next(self._inbox.tickets)
        self.channel.submit(ticket, "enqueue", record, self._repeat and _NOT_KEPT not in record[_OPTIONS_AT])
        sent.job = job
        self._inbox.open[ticket] = sent
        self._submitted += 1
        if self._submitted == 1:
            self.loop.call_soon(self._flush)
        elif self._submitted % _FLUSH_AT == 0:
            self.channel.flush()

    def enqueue_many(self, records: Sequence[str | bytes]) -> asyncio.Future[list[Any]]:
        """Send many tasks at once; the future has one answer each."""
        ticket = next(self._inbox.tickets)
        answer: asyncio.Future[list[Any]] = self.loop.create_future()
        self.channel.submit_many(ticket, "enqueue", records, may_repeat(records, self._repeat))
        self._inbox.open[ticket] = answer
        return answer

    def close(self) -> None:
        """Close the channel and let go of it; from any thread."""
        self.closed = True
        channel = self.channel
        del self.channel
        channel.close()
        self._inbox.leave(self._number)

    def _flush(self) -> None:
        if self.closed:
            return
        self._submitted = 0
        self.channel.flush()

    def _hear(self, event: tuple[Any, ...]) -> None:
        """What is no answer to a call."""
        kind = event[0]
        if kind == "message":
            self.mailbox.receive(event[1])
        elif kind == "listening":
            self.mailbox.opened(event[1])
        elif kind == "closed":
            self.mailbox.close(event[1])
        else:
            self.on_worker_event(event)


def _is_embedded(url: str) -> bool:
    return url.startswith("embedded:")


def _ignore(event: tuple[Any, ...]) -> None:
    """Events of a worker that is gone."""
