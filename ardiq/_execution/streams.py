"""What running tasks emit: chunks of their streams, collected and sent in batches."""

import asyncio
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._server import calls
from ..errors import ArdiqError, is_away

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .worker import Worker

log = logging.getLogger("ardiq")

# What waits to be sent of one attempt before its task is kept waiting, and what one call takes.
_MOST_CHUNKS, _MOST_BYTES = calls.EMIT_MOST, 1_048_576
_PAUSE_S, _AWAY_S = 0.1, 1.0


class _Stream:
    """The chunks of one attempt: `number` is that of the first one that waits."""

    __slots__ = ("hurry", "is_due", "is_ending", "number", "sender", "size", "task_id", "waiting")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.number = self.size = 0
        self.waiting: list[calls.NewChunk] = []
        self.is_due = self.is_ending = False
        self.hurry = asyncio.Event()
        self.sender: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= _MOST_CHUNKS or self.size >= _MOST_BYTES

    def take(self) -> tuple[int, list[calls.NewChunk]]:
        """What the next call sends, and the number of the first."""
        count = size = 0
        for codec, chunk in self.waiting[:_MOST_CHUNKS]:
            size += len(codec) + len(chunk)
            if count and size > _MOST_BYTES:
                break
            count += 1
        number, taken = self.number, self.waiting[:count]
        self.number += count
        del self.waiting[:count]
        self.size = sum(len(chunk.chunk) for chunk in self.waiting)
        return number, taken


class Streams:
    """The streams of one worker's tasks. The first chunk leaves at once, more of them at most every 100 ms, or as soon
    as there are many; of one attempt one call at a time, so that they arrive in order.

    Args:
        unsent: has the tokens of attempts of which something may not have arrived yet.
    """

    def __init__(self, worker: "Worker", queue: "QueueContext", unsent: set[int]) -> None:
        self._worker = worker
        self._channel = queue.channel()
        self._result_ttl_ms = queue.settings.result_ttl_ms
        self._unsent = unsent
        self._lock = threading.Lock()
        self._open: dict[int, _Stream] = {}

    def add(self, claim: tuple[Any, ...], chunk: calls.NewChunk) -> None:
        """Take a chunk of the task of this claim, unless its outcome no longer counts; from any thread."""
        token = claim[1]
        if not self._worker.is_current(token):
            return
        with self._lock:
            stream = self._open.get(token)
            if stream is None:
                stream = self._open[token] = _Stream(claim[0])
            stream.waiting.append(chunk)
            stream.size += len(chunk.chunk)
            self._unsent.add(token)
            if stream.is_due and not stream.is_full:
                return
            stream.is_due = True
        with suppress(RuntimeError):  # the loop is closed, and with it the worker
            self._channel.loop.call_soon_threadsafe(self._begin, token, stream)

    def is_full(self, claim: tuple[Any, ...]) -> bool:
        """Whether the task of this claim should wait before it emits more; from any thread."""
        stream = self._open.get(claim[1])
        return stream is not None and stream.is_full and self._worker.is_current(claim[1])

    async def arrive(self, token: int) -> None:
        """Send what the attempt emitted, which is over, and wait until the server has it, or cannot be told."""
        stream = self._open.get(token)
        if stream is None:
            return
        stream.is_ending = True
        await asyncio.wait([self._begin(token, stream)])
        with self._lock:
            self._open.pop(token, None)
            self._unsent.discard(token)

    def close(self) -> None:
        """Send no more."""
        for stream in list(self._open.values()):
            if stream.sender is not None:
                stream.sender.cancel()

    def _begin(self, token: int, stream: _Stream) -> asyncio.Task[None]:
        if stream.is_full or stream.is_ending:
            stream.hurry.set()
        if stream.sender is None or stream.sender.done():
            stream.sender = self._channel.loop.create_task(self._send(token, stream))
        return stream.sender

    async def _send(self, token: int, stream: _Stream) -> None:
        while True:
            with self._lock:
                if not stream.waiting:
                    stream.is_due = False
                    self._unsent.discard(token)
                    self._forget()
                    return
                number, chunks = stream.take()
            await self._tell(token, stream, number, chunks)
            stream.hurry.clear()
            if not (stream.is_full or stream.is_ending):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S):
                        await stream.hurry.wait()

    async def _tell(self, token: int, stream: _Stream, number: int, chunks: list[calls.NewChunk]) -> None:
        while not self._channel.closed:
            identity, lease_token = self._worker.link.holder(token)
            try:
                await self._channel.ask(
                    calls.emit(
                        worker=identity,
                        id=stream.task_id,
                        token=str(lease_token),
                        number=number,
                        result_ttl_ms=self._result_ttl_ms,
                        chunks=chunks,
                    )
                )
                return
            except ArdiqError as error:
                if not is_away(error):
                    log.warning("%s", error)
                    return
            if stream.is_ending or not self._worker.holds(token):
                return
            await asyncio.sleep(_AWAY_S)

    def _forget(self) -> None:
        """Let go of attempts that are over."""
        for token, stream in list(self._open.items()):
            if not (stream.is_due or self._worker.holds(token)):
                del self._open[token]
