"""What comes back to one event loop: answers to its calls, and other events of its queues."""

import asyncio
import copy
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .. import _core, errors
from .._values.known import ADDED, set_unsure, take_answer
from .replies import Call, R, refusal

log = logging.getLogger("ardiq")

_CLOSE_S = 1.0
# How many tasks an error names.
_NAMED = 3


class Enqueued(asyncio.Future[Any], Coroutine[Any, Any, Any]):
    """What `enqueue` gives: a future of the job that `asyncio.create_task` takes for a coroutine.

    A future, because `asyncio.gather` would otherwise make a task of each (4 us). Being a coroutine, too, it is refused
    by `asyncio.wait`, even from `ensure_future`.
    """

    __slots__ = ("_steps", "job")

    _steps: Any
    job: Any

    def send(self, value: Any) -> Any:
        return self._stepper().send(value)

    def throw(self, *error: Any) -> Any:
        return self._stepper().throw(*error)

    def close(self) -> None:
        self._stepper().close()

    def _stepper(self) -> Any:
        try:
            return self._steps
        except AttributeError:
            self._steps = self.__await__()
            return self._steps


class Heard(Enqueued):
    """One whose answer, as the server gave it, is wanted instead of the job."""

    __slots__ = ()


class Answer(asyncio.Future[R]):
    """What a call gives: a future of its reply as the caller sees it."""

    __slots__ = ("call",)

    def __init__(self, call: Call[R], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.call = call

    def take(self, reply: Any) -> None:
        """Take the reply."""
        try:
            value = self.call.decode(reply)
        except errors.ArdiqError as error:
            self.set_exception(error)
        else:
            self.set_result(value)


class Inbox:
    """The answers and other events of one event loop, for all queues that are used on it. To be used on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.core: _core.Inbox = _core.Inbox()
        self.tickets = itertools.count(1)
        self.open: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._hearers: dict[int, Callable[[tuple[Any, ...]], None]] = {}
        self._closed = False
        self._watcher: _Watcher | None = None
        self._watched: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        try:
            self._watch(self.core.fileno(), "read")
        except NotImplementedError:
            self._watcher = _Watcher(self.core, loop, self.turn)
        else:
            self.core.drive()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "Inbox":
        """That of the running loop."""
        inbox = _inboxes.get(id(loop))
        if inbox is None:
            inbox = _inboxes[id(loop)] = cls(loop)
        return inbox

    def join(self, hear: Callable[[tuple[Any, ...]], None]) -> int:
        """A number; `hear` gets the events for it that are not answers to a call."""
        number = next(self._numbers)
        self._hearers[number] = hear
        return number

    def leave(self, number: int) -> None:
        """Give up the number, from any thread. Giving up the last one closes the inbox."""
        try:
            self.loop.call_soon_threadsafe(self._leave, number)
        except RuntimeError:  # the loop is closed, and nothing happens on it any more
            self._leave(number)

    def _leave(self, number: int) -> None:
        hear = self._hearers.pop(number, None)
        if hear is not None and not self.loop.is_closed():
            hear(("closed", _closed()))
        if not self.loop.is_closed():
            self.turn()  # ends what was under way for it; events that arrived in time
        if self._hearers or self._closed:
            return
        self._closed = True
        if _inboxes.get(id(self.loop)) is self:
            del _inboxes[id(self.loop)]
        # The loop must stop watching the descriptor before that is closed, without waiting for the garbage collector.
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        elif not self.loop.is_closed():
            for descriptor in [*self._watched]:
                self._watch(descriptor, "close")
        if self._timer is not None:
            self._timer.cancel()
        del self.core
        if not self.loop.is_closed():
            for answer in self.open.values():
                if not answer.done():
                    error = _closed()
                    if isinstance(answer, Enqueued):
                        name_unsure(error, [answer.job])
                    answer.set_exception(error)

    def stir(self) -> None:
        """Have a turn at the end of this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self.loop.call_soon(self.turn)

    def turn(self, readable: int | None = None, writable: int | None = None) -> None:
        """Do the I/O that is ready, and hand on what came; `readable`, `writable`: what the loop found to be so."""
        if self._closed:
            return
        self._is_due = False
        events, due_s = self.core.turn(readable, writable)
        if events:
            self.receive(events)
        if due_s is not None:
            if due_s > 0:
                self._turn_at(self.loop.time() + due_s)
            else:  # after what follows from this one
                self.stir()

    def turn_after(self, due_s: float | None) -> None:
        """Have a turn after so many seconds, at the latest; 0: now."""
        if due_s == 0:
            self.turn()
        elif due_s is not None:
            self._turn_at(self.loop.time() + due_s)

    def _turn_at(self, due: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._turn_in_time)

    def _turn_in_time(self) -> None:
        self._timer = None
        self.turn()

    def _watch(self, descriptor: int, what: str) -> None:
        """Do as the core wishes about a socket."""
        loop = self.loop
        if what == "read":
            loop.add_reader(descriptor, self.turn, descriptor)
            self._watched.add(descriptor)
        elif what == "write":
            loop.add_writer(descriptor, self._write, descriptor)
            self._watched.add(descriptor)
        else:
            loop.remove_reader(descriptor)
            if what == "close":
                loop.remove_writer(descriptor)
                self._watched.discard(descriptor)
                self.core.release(descriptor)

    def _write(self, descriptor: int) -> None:
        self.loop.remove_writer(descriptor)
        self.turn(None, descriptor)

    def receive(self, events: Sequence[tuple[Any, ...]]) -> None:
        """Hand on what has arrived."""
        if self._closed:
            return
        waiting = self.open
        for event in events:
            try:
                kind = event[0]
                if kind == "reply":
                    answer = waiting.pop(event[1], None)
                    if answer is None or answer.done():
                        continue
                    value = event[2]
                    if type(answer) is Enqueued:
                        if (error := refusal(value)) is None:
                            if value not in ADDED:
                                take_answer(answer.job, value)
                            answer.set_result(answer.job)
                        else:
                            answer.set_exception(error)
                    elif type(answer) is Answer:
                        answer.take(value)
                    else:
                        answer.set_result(value)
                elif kind == "error":
                    answer = waiting.pop(event[1], None)
                    if answer is None:
                        if not isinstance(event[2], errors.BrokerError):  # of `tell`, which has no future
                            log.warning("%s", event[2])
                    elif not answer.done():
                        # Calls that failed together share the error; whoever catches one may add to it.
                        failure = copy.copy(event[2])
                        if isinstance(answer, Enqueued):
                            name_unsure(failure, [answer.job])
                        answer.set_exception(failure)
                elif kind == "watch":
                    self._watch(event[1], event[2])
                elif (hear := self._hearers.get(event[1])) is not None:
                    hear(event[2])
            except Exception:  # an error in one event must not lose the others
                log.exception("an event from the server cannot be handled: %r", event[:2])


# By the id of the loop, which its inbox keeps alive: a reference to the loop itself would keep both forever.
_inboxes: "weakref.WeakValueDictionary[int, Inbox]" = weakref.WeakValueDictionary()


def forget_inboxes() -> Any:
    """In the child of a fork: returns those of the parent, to be kept alive and not touched."""
    global _inboxes
    of_parent, _inboxes = _inboxes, weakref.WeakValueDictionary()
    return of_parent


def resolve(answer: "asyncio.Future[Any]", value: Any) -> None:
    """Set the result of a future, unless it is done."""
    if not answer.done():
        answer.set_result(value)


def _closed() -> errors.BrokerError:
    """The error of a call under way when its queue is closed."""
    return errors.BrokerError("the connection was closed by close()", maybe_enqueued=True)


def name_unsure(error: errors.ArdiqError, jobs: Sequence[Any]) -> None:
    """Let the error of an enqueue name the tasks that may or may not be on the queue."""
    if not (isinstance(error, errors.BrokerError) and error.maybe_enqueued and jobs):
        return
    ids, more = ", ".join(job.id for job in jobs[:_NAMED]), len(jobs) - _NAMED
    named = f"task {ids}" if len(jobs) == 1 else f"tasks {ids}" + (f" and {more:,} more" if more > 0 else "")
    error.unsure = list(jobs)
    for job in jobs:
        set_unsure(job, True)
    error.args = (f"{named} of queue {jobs[0].app.queue_name!r}: {error}",)


class _Watcher:
    """Watches an inbox from a thread, for loops that cannot watch a descriptor."""

    def __init__(self, inbox: _core.Inbox, loop: asyncio.AbstractEventLoop, receive: Callable[[], None]) -> None:
        self._inbox = inbox
        self._loop = loop
        self.receive = receive
        self.received = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._watch, name="ardiq-watcher", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._ended = True
        self.received.set()
        self._inbox.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _watch(self) -> None:
        while not self._ended:
            if not self._inbox.wait(1000):
                continue
            self.received.clear()
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                return
            self.received.wait()

    def _take(self) -> None:
        try:
            self.receive()
        finally:
            self.received.set()
