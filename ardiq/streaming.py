"""Reading what a task emits, while it runs and afterwards."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from ._client.facade import Facade
from ._server import calls
from ._server.calls import Outcome
from ._server.mailbox import read_look, too_late
from ._server.replies import Call, ask
from ._values import options as _options
from ._values.conversion import convertible
from ._values.objects import as_object
from ._values.options import Duration
from ._values.signature import MISSING
from ._values.typing import R_co

if TYPE_CHECKING:
    from ._client.queue import QueueContext

T = TypeVar("T")

_PAGE = calls.STREAM_LIMIT_MOST
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05


@as_object
class Chunk(NamedTuple, Generic[R_co]):
    """What a task emitted.

    Attributes:
        value: what it called `emit` with.
        tries: of the attempt that emitted it, from 1; one that runs because a worker died has those of the one before.
        number: its number among those of the attempt, from 0: at 0 the task has begun from its beginning, once more if
            there were chunks before.
        id: its place in the stream, for `after`.
    """

    value: R_co
    tries: int
    number: int
    id: str


class Streaming(Facade):
    """Reading the streams of an app's tasks; a part of `Ardiq`."""

    @overload
    def stream(
        self, task_id: str, type: type[T], *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[T], None]: ...

    @overload
    def stream(
        self, task_id: str, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[Any], None]: ...

    def stream(
        self, task_id: str, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[Any], None]:
        """Like `job.stream()`, for any task of this queue by its id."""
        return Reader(self.context, task_id, type, after, timeout).chunks()

    @overload
    def stream_sync(
        self, task_id: str, type: type[T], *, after: str = "", timeout: Duration | None = None
    ) -> Iterator[Chunk[T]]: ...

    @overload
    def stream_sync(
        self, task_id: str, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> Iterator[Chunk[Any]]: ...

    def stream_sync(
        self, task_id: str, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> Iterator[Chunk[Any]]:
        """Like `job.stream_sync()`, for any task of this queue by its id."""
        return Reader(self.context, task_id, type, after, timeout).chunks_sync()


class Reader:
    """One reader of one stream; see `Job.stream`. Wrong arguments are refused here and now.

    Raises:
        TypeError: chunks cannot be converted to that type.
        ValueError: `after` is no chunk's id.
    """

    def __init__(self, queue: "QueueContext", task_id: str, type: Any, after: str, timeout: Duration | None) -> None:
        self._queue = queue
        self._task_id = task_id
        self._timeout = _options.patience("timeout", timeout)
        self._hint = MISSING if type in (Any, object) else convertible(type)
        if self._hint is None:
            raise TypeError(f"chunks cannot be converted to {type!r}: take a type that a task's argument may have")
        self._after = _place(after)

    async def chunks(self) -> AsyncGenerator[Chunk[Any], None]:
        """Each chunk, as soon as the server has it."""
        channel = self._queue.channel()
        async with aclosing(channel.watch(self._task_id, self._timeout, repeats=True)) as changes:
            async for seen in changes:
                more = True
                while more:
                    page = await channel.ask(self._page())
                    for chunk in self._read(page):
                        yield chunk
                    more = page.more
                if seen is None or isinstance(seen, Outcome):
                    return

    def chunks_sync(self) -> Iterator[Chunk[Any]]:
        """Likewise; blocks this thread, and polls."""
        core, pause_s = self._queue.server.core, _FIRST_PAUSE_S
        deadline = inf if self._timeout is None else monotonic() + self._timeout
        while True:
            # First, so that the pages have all of a task that has ended.
            found = read_look(ask(core, self._look(), repeat=True))
            more = True
            while more:
                page = ask(core, self._page(), repeat=True)
                for chunk in self._read(page):
                    pause_s = _FIRST_PAUSE_S
                    yield chunk
                more = page.more
            if found is None or isinstance(found, Outcome):
                return
            self._queue.server.may_wait()
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise too_late(self._task_id, self._timeout)
            sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _look(self) -> Call[calls.AwaitReply]:
        ttl_ms = self._queue.settings.result_ttl_ms
        return calls.await_(id=self._task_id, mailbox="", waiter_ttl_ms=0, result_ttl_ms=ttl_ms)

    def _page(self) -> Call[calls.StreamReply]:
        token, number = self._after
        return calls.stream(id=self._task_id, after_token=token, after_number=number, limit=_PAGE)

    def _read(self, page: calls.StreamReply) -> Iterator[Chunk[Any]]:
        decode: Callable[..., Any] = self._queue.codec.decode_chunk
        for row in page.rows:
            self._after = int(row.token), row.number
            value = decode(row.chunk, row.codec, self._hint, f"a chunk of task {self._task_id!r}")
            yield Chunk(value, row.tries, row.number, f"{row.token}-{row.number}")


def _place(after: str) -> tuple[int, int]:
    """The token and the number that a chunk's id names."""
    token, dash, number = after.partition("-")
    if not after:
        return 0, 0
    if not (dash and token.isdecimal() and number.isdecimal()):
        raise ValueError(f"after must be the id of a chunk, not {after!r}")
    return int(token), int(number)
