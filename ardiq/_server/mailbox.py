"""Waiting for tasks to end: a mailbox on the server, and the waiters in this process."""

import asyncio
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .._values.ids import new_id
from ..errors import BrokerError
from . import calls
from .calls import OUTCOME, Outcome
from .replies import Call

if TYPE_CHECKING:
    from .channel import Channel

FOREVER_MS = 30 * 24 * 3600 * 1000
_MARGIN_MS = 10_000
_SHORT, _WHOLE = 2, 9  # how many fields a message without and with an outcome has; a later version may add some
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5


def read_look(reply: calls.AwaitReply) -> Outcome | str | None:
    """The outcome of a task, else its state, or None if it is unknown."""
    if reply.row is None:
        return None
    return reply.row if reply.answer == "finished" else reply.row.state


def waiter_ttl_ms(timeout: float | None) -> int:
    """For how long the server is to remember who waits that many seconds."""
    return _MARGIN_MS + (FOREVER_MS if timeout is None else max(0, int(timeout * 1000)))


def too_late(task_id: str, timeout: float | None) -> TimeoutError:
    """The error of a wait whose time is up."""
    return TimeoutError(f"no result for {task_id!r} within {timeout}s")


def not_kept(task_id: str) -> TimeoutError:
    """The error of a wait that began, or heard of the end, after the result was gone."""
    return TimeoutError(f"no result for {task_id!r}: it has ended, but its result is not kept (any more)")


class _Gone(Exception):
    """There is no record of a task that was enqueued."""


class Watcher(Protocol):
    """Hears of a task's changes before it ends."""

    def hear(self, fields: Sequence[bytes], /) -> None:
        """The task has changed: state, tries, progress, and the notes and lines that it reported."""

    def ask_again(self) -> None:
        """The mailbox has a new name, which the server must be told."""


class _Wish(NamedTuple):
    """All waiters of this process for one task. An outcome of None: it has ended, ask how."""

    waiters: list[asyncio.Future[Outcome | None]]
    watchers: list[Watcher]
    until: float


class Mailbox:
    """The mailbox of one loop, read from the first wait on. Its name changes with each new connection; open waits are
    then registered again under the new name.
    """

    def __init__(self, channel: "Channel") -> None:
        self.channel = channel
        self._name: str | None = None
        self._opening: asyncio.Future[str] | None = None
        self._wishes: dict[str, _Wish] = {}
        self._leaving: dict[str, asyncio.Future[Any]] = {}

    @property
    def is_read(self) -> bool:
        """Whether `name` has it at once."""
        return self._name is not None

    async def name(self, task_id: str = "") -> str:
        """The mailbox's name on the server, once it is being read.

        An earlier wait for that task has ended there by then, lest its end come later and end the next one, too.

        Raises:
            BrokerError: it cannot be, within the time that a call may take.
        """
        if (leaving := self._leaving.get(task_id)) is not None:
            await asyncio.wait([leaving])
        if self._name is not None:
            return self._name
        until = self.channel.loop.time() + self.channel.timeout_s
        if self._opening is None:
            self._opening = self.channel.loop.create_future()
            self.channel.listen(new_id())
        # Opening the mailbox never gives up; a call says why the server cannot be reached.
        await self.look("")
        opened, _ = await asyncio.wait([self._opening], timeout=max(0, until - self.channel.loop.time()))
        if not opened:
            raise BrokerError("the server answers, but refuses the second connection on which to wait for results")
        return self._opening.result()

    async def wait(self, task_id: str, timeout: float | None, is_known: bool = False) -> Outcome:
        """Wait for the outcome of a task.

        Args:
            is_known: it was enqueued, so if it has no record, it has ended.

        Raises:
            TimeoutError: it did not end within `timeout` seconds, or its result is gone.
        """
        if timeout is not None and timeout <= 0:
            found = await self.look(task_id)
            if isinstance(found, Outcome):
                return found
            raise too_late(task_id, timeout)
        try:
            async with asyncio.timeout(timeout):
                pause = _FIRST_LOOK_S
                while True:
                    mailbox = await self.name(task_id)
                    with self.wish(task_id, timeout) as wished:
                        reply = await self.channel.ask(self._awaiting(task_id, mailbox, wished.ttl_ms))
                        wished.is_noted = reply.answer == "unfinished"
                        found = read_look(reply)
                        if isinstance(found, Outcome):
                            return found
                        if found is not None:
                            is_known = True
                            outcome = await wished.future
                            if outcome is not None:
                                return outcome
                            continue
                    if is_known:
                        raise _Gone
                    # It may still be enqueued.
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_LOOK_S)
        except _Gone:
            raise not_kept(task_id) from None
        except TimeoutError:
            raise too_late(task_id, timeout) from None

    async def look(self, task_id: str) -> Outcome | str | None:
        """The outcome of a task now, else its state, or None when it is unknown."""
        return read_look(await self.channel.ask(self._awaiting(task_id, "", 0)))

    def wish(self, task_id: str, timeout: float | None, watcher: Watcher | None = None) -> "_Wished":
        """A `with` block in which messages about this task are heard."""
        return _Wished(self, task_id, timeout, watcher)

    def receive(self, fields: Sequence[bytes]) -> None:
        """A message: `finished`, the task's id and usually its outcome; or `changed`, its id and its state."""
        if len(fields) >= 5 and fields[0] == b"changed":
            watched = self._wishes.get(fields[1].decode(errors="replace"))
            for watcher in watched.watchers if watched is not None else ():
                watcher.hear(fields[2:])
            return
        if not (len(fields) == _SHORT or len(fields) >= _WHOLE) or fields[0] != b"finished":
            return
        outcome = OUTCOME.read(fields[_SHORT:_WHOLE]) if len(fields) > _SHORT else None
        wish = self._wishes.pop(fields[1].decode(errors="replace"), None)
        if wish is None:
            return
        for waiter in wish.waiters:
            if not waiter.done():
                waiter.set_result(outcome)

    def opened(self, name: str) -> None:
        """The mailbox is being read, under this name."""
        earlier, self._name = self._name, name
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(name)
        if earlier is None:
            return
        for task_id, wish in self._wishes.items():
            for watcher in wish.watchers:
                watcher.ask_again()
            if wish.watchers:  # else every change would be sent to a mailbox that nobody reads
                self.channel.tell(calls.stop_waiting(id=task_id, mailbox=earlier))
            ttl_ms = max(0, int((wish.until - self.channel.loop.time()) * 1000)) + _MARGIN_MS
            asked = self.channel.ask(self._awaiting(task_id, name, ttl_ms))
            asked.add_done_callback(lambda answer, task_id=task_id: self._asked_again(task_id, answer))  # type: ignore[misc]

    def close(self, error: BrokerError) -> None:
        """Nothing more will arrive: let all waits fail."""
        waiting: list[asyncio.Future[Any]] = [each for wish in self._wishes.values() for each in wish.waiters]
        if self._opening is not None:
            waiting.append(self._opening)
        for each in waiting:
            if not each.done():
                each.set_exception(copy.copy(error))
                each.exception()  # perhaps it is not awaited yet, or no longer

    def _awaiting(self, task_id: str, mailbox: str, ttl_ms: int) -> Call[calls.AwaitReply]:
        ttls = {"waiter_ttl_ms": ttl_ms, "result_ttl_ms": self.channel.result_ttl_ms}
        return calls.await_(id=task_id, mailbox=mailbox, **ttls)

    def _asked_again(self, task_id: str, answer: asyncio.Future[calls.AwaitReply]) -> None:
        if answer.cancelled() or task_id not in self._wishes:
            return
        error = answer.exception()
        if error is None and answer.result().answer == "unfinished":
            return
        for waiter in self._wishes.pop(task_id).waiters:
            if waiter.done():
                continue
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(answer.result().row)

    def _add(self, wished: "_Wished") -> None:
        wish = self._wishes.get(wished.task_id) or _Wish([], [], 0)
        wish.waiters.append(wished.future)
        if wished.watcher is not None:
            wish.watchers.append(wished.watcher)
        self._wishes[wished.task_id] = wish._replace(until=max(wished.until, wish.until))

    def _remove(self, wished: "_Wished") -> None:
        task_id = wished.task_id
        wish = self._wishes.get(task_id)
        if wish is None or wished.future not in wish.waiters:
            return
        wish.waiters.remove(wished.future)
        if wished.watcher is not None:
            wish.watchers.remove(wished.watcher)
        if not wish.waiters:
            del self._wishes[task_id]
            if self._name is not None and wished.is_noted and not self.channel.closed:
                leaving = self.channel.ask(calls.stop_waiting(id=task_id, mailbox=self._name))
                self._leaving[task_id] = leaving
                leaving.add_done_callback(lambda _: self._left(task_id, leaving))

    def _left(self, task_id: str, leaving: asyncio.Future[Any]) -> None:
        if self._leaving.get(task_id) is leaving:
            del self._leaving[task_id]
        if not leaving.cancelled():
            leaving.exception()  # nobody waits for it


class _Wished:
    """Registered while its `with` block lasts; if that ends without an outcome, the server is told."""

    def __init__(self, mailbox: Mailbox, task_id: str, timeout: float | None, watcher: Watcher | None) -> None:
        self._mailbox = mailbox
        self.task_id = task_id
        self.watcher = watcher
        self.is_noted = True  # at the server, as far as is known
        loop = mailbox.channel.loop
        self.ttl_ms = waiter_ttl_ms(timeout)
        self.until = loop.time() + (self.ttl_ms - _MARGIN_MS) / 1000
        self.future: asyncio.Future[Outcome | None] = loop.create_future()

    def __enter__(self) -> "_Wished":
        self._mailbox._add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._mailbox._remove(self)
