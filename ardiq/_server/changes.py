"""Watching a task: what a mailbox hears of it before it ends."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from . import calls
from .calls import Outcome
from .mailbox import too_late

if TYPE_CHECKING:
    from .mailbox import Mailbox

# The server ends a watch after the first of these times; it is renewed after the second.
_WATCH_S, _ASK_AGAIN_S = 120.0, 60.0
# By then mail that is on its way has arrived.
_MAIL_S = 1.0
_MOST_CHANGES = 100
_MOST_TOLD = 1000
_WAITING = calls.WatchReply("unfinished", None)


class Change(NamedTuple):
    """A task that has not ended, and what it has reported since the last change: notes by name, lines of its log."""

    state: str
    tries: int
    progress: bytes
    told: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def read(cls, fields: Sequence[bytes]) -> "Change":
        told = tuple(
            (name.decode(errors="replace"), text) for name, text in zip(fields[3::2], fields[4::2], strict=False)
        )
        tries = int(fields[1]) if fields[1].isdigit() else 0  # somebody edited the record by hand
        return cls(fields[0].decode(errors="replace"), tries, fields[2], told)


class Watch:
    """What one reader has not yet read of one task. If the reader is slower than the task, it gets all changes of
    state, the latest progress of each, and the last thousand reports.

    Args:
        repeats: whether a change that shows nothing new is told, too: there may be more in its stream.
    """

    def __init__(self, repeats: bool = False) -> None:
        self._repeats = repeats
        self._news = asyncio.Event()
        self._changes: deque[Change] = deque(maxlen=_MOST_CHANGES)
        self._last: Change | None = None
        self._ask_at = 0.0

    def hear(self, fields: Sequence[bytes]) -> None:
        """The task has changed."""
        change = Change.read(fields)
        if self._changes and self._changes[-1][:2] == change[:2]:
            earlier = self._changes.pop()
            change = change._replace(told=(earlier.told + change.told)[-_MOST_TOLD:])
        self._changes.append(change)
        self._news.set()

    def ask_again(self) -> None:
        """The mailbox has a new name: mail to the old one may be lost."""
        self._ask_at = 0.0
        self._news.set()

    async def changes(
        self, mailbox: "Mailbox", task_id: str, timeout: float | None
    ) -> AsyncGenerator[Change | Outcome | None, None]:
        """Each change of the task from now on; finally its outcome, or None if the task is unknown.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        channel, now = mailbox.channel, mailbox.channel.loop.time
        deadline = inf if timeout is None else now() + timeout
        # Ask once even if the time is 0.
        patience = deadline if timeout is not None and timeout > 0 else None
        while True:
            with mailbox.wish(task_id, _WATCH_S, self) as wished:
                wished.future.add_done_callback(lambda _: self._news.set())
                self._ask_at, reply, told = 0.0, _WAITING, ""
                while not wished.future.done():
                    self._news.clear()
                    if now() >= self._ask_at:
                        self._ask_at = now() + _ASK_AGAIN_S
                        try:
                            async with asyncio.timeout_at(patience):
                                name = await mailbox.name(task_id)
                                ttls = {"waiter_ttl_ms": wished.ttl_ms, "result_ttl_ms": channel.result_ttl_ms}
                                wished.is_noted = True
                                reply = await channel.ask(calls.watch(id=task_id, mailbox=name, **ttls))
                                wished.is_noted = reply.answer == "unfinished"
                        except TimeoutError:
                            raise too_late(task_id, timeout) from None
                        if reply.answer == "unfinished":
                            told = name
                        elif name == told:
                            # Its outcome is on its way, after its reports, and perhaps kept nowhere else.
                            reply, told = _WAITING, ""
                            self._ask_at = min(self._ask_at, now() + _MAIL_S)
                    while (change := self._next()) is not None:
                        yield change
                    if reply.answer != "unfinished":
                        yield reply.row
                        return
                    if wished.future.done():
                        break
                    if now() >= deadline:
                        raise too_late(task_id, timeout)
                    await self._wait(min(self._ask_at, deadline))
                outcome = wished.future.result()
            while (change := self._next()) is not None:
                yield change
            # None: it has ended, but the message does not say how.
            if outcome is not None:
                yield outcome
                return

    def _next(self) -> Change | None:
        """The oldest change that has something new, or is to be told in any case."""
        while self._changes:
            change = self._changes.popleft()
            if self._repeats or change != self._last:
                self._last = change._replace(told=())
                return change
        return None

    async def _wait(self, until: float) -> None:
        """Wait for a change, until that time of the loop."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()
