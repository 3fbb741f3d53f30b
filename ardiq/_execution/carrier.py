"""The part of a worker that carries to other queues what its own has to tell them.

The library decides what that is, and what an answer means.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._server import calls
from .._server.replies import Call, answers, word
from .._values.encodings import netstrings
from ..errors import ArdiqError, is_away

if TYPE_CHECKING:
    from .._client.queue import QueueContext

log = logging.getLogger("ardiq")

_PAGE = 100
# Pages in a row of which nothing could be said: the rest is for the next time.
_IN_VAIN = 10
# For how long a worker that has left goes on with it.
_LAST_S = 2.0


def call_of(row: calls.OutboxRow) -> Call[Any]:
    """What tells the other queue; it answers with a word, or a list of one."""
    read = answers if row.function == "enqueue" else word
    return Call(row.function, tuple(netstrings(row.arguments)), read)


@dataclass
class _Untold:
    """What a queue could not be told in one go, and why: the first entry of it, and how many there are."""

    entry: str
    error: Exception | None
    count: int = 0

    def __str__(self) -> str:
        return repr(self.entry) + (f" and {self.count - 1:,} more" if self.count > 1 else "")


# By queue, and the kind of error.
_Reasons = dict[tuple[str, str], _Untold]


class Carrier:
    """Carries the outbox of one queue. What is left undone, heartbeats give to a worker again."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue
        self._channel = queue.channel()
        self._work: asyncio.Task[None] | None = None
        self._is_due = False
        self._said: set[tuple[str, str]] = set()

    def tell(self) -> None:
        """There is something to carry."""
        self._is_due = True
        if self._work is None or self._work.done():
            self._work = self._channel.loop.create_task(self._carry())

    async def close(self) -> None:
        """Finish what was begun, within two seconds."""
        if self._work is not None:
            await asyncio.wait([self._work], timeout=_LAST_S)

    def stop(self) -> None:
        """Carry no more."""
        if self._work is not None:
            self._work.cancel()

    async def _carry(self) -> None:
        while self._is_due:
            self._is_due = False
            untold, asked = _Reasons(), {""}
            try:
                await self._carry_all(untold, asked)
            except ArdiqError as error:
                untold["", type(error).__name__] = _Untold("", error, 1)
            self._warn(untold, asked)

    async def _carry_all(self, untold: _Reasons, asked: set[str]) -> None:
        """Carry page after page, until what could not be carried comes up again, or there seems to be nothing else."""
        seen, away, in_vain = set[str](), set[str](), 0
        while rows := await self._channel.ask(calls.outbox(limit=_PAGE)):
            if rows[0].entry in seen:
                return
            seen.update(row.entry for row in rows)
            asked.update(row.queue for row in rows)
            said = await asyncio.gather(*[self._say(row, away, untold) for row in rows])
            entries = [calls.OutboxEntry(row.entry, row.life, answer) for row, answer in zip(rows, said, strict=True)]
            done = await self._channel.ask(calls.outbox_done(entries=entries))
            in_vain = 0 if done else in_vain + 1
            if in_vain == _IN_VAIN:
                return

    async def _say(self, row: calls.OutboxRow, away: set[str], untold: _Reasons) -> str:
        """Tell the other queue, and what it answers. Of one whose server was `away` the rest waits."""
        if not row.queue:
            return ""
        if row.queue in away:
            return "away"
        try:
            other = self._queue.app.queue(row.queue).context
            answer = await other.channel().ask(call_of(row))
        except (ArdiqError, ValueError) as error:
            answer = error
            if isinstance(error, ArdiqError) and is_away(error):
                away.add(row.queue)
        [answer] = answer if isinstance(answer, list) else [answer]
        reason = answer if isinstance(answer, Exception) else None
        if reason is not None or answer == "exists":
            kind = type(reason).__name__ if reason is not None else "exists"
            untold.setdefault((row.queue, kind), _Untold(row.entry, reason)).count += 1
        return str(answer)

    def _warn(self, untold: _Reasons, asked: set[str]) -> None:
        """Say it of a queue once, until that is over; not that the server is away, which the worker says itself."""
        for queue, kind in untold.keys() - self._said:
            what = untold[queue, kind]
            error = what.error
            if error is None:
                text = f"queue {queue!r} has another task with the id of {what}, which waits for its end"
            elif queue:
                text = f"queue {queue!r} cannot be told of {what}: {error}; trying again"
            else:
                text = f"the outbox of queue {self._queue.name!r} is not carried: {error}; trying again"
            is_known = isinstance(error, ArdiqError) and is_away(error)
            log.log(logging.DEBUG if is_known else logging.WARNING, "%s", text)
        self._said = {key for key in self._said if key[0] not in asked} | untold.keys()
