"""What instruments and `on_enqueue` hooks are told of calls, and the headers that they set."""

import inspect
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .. import instruments
from .._values import headers as _headers
from ..instruments import Enqueuing, Kind, Sending, Told
from ..models import EnqueueContext

if TYPE_CHECKING:
    from .queue import QueueContext

Answer = TypeVar("Answer")


class Asked(NamedTuple):
    """A call about which somebody is asked."""

    call: EnqueueContext
    lane: str = ""
    delay_ms: int = 0


class Telling:
    """Tells of the calls of one queue."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue

    def told(self, kind: Kind, asked: Iterable[Asked | None]) -> Told:
        """Tells the instruments of calls, whose headers they may set."""
        if not instruments.active:
            return Told()
        calls = [Enqueuing(each.call.task_id, each.call.name, *each[1:], each.call.headers) for each in asked if each]
        return Told(Sending(self._queue.name, self._queue.server.shown_url, calls, kind) if calls else None)

    async def headers(self, asked: Asked | None) -> dict[str, Any] | None:
        """The headers that instruments have set, and the `on_enqueue` hooks set now, as options."""
        headers = asked and await self.headers_by_hooks(asked.call)
        return {"headers": headers} if headers else None

    def headers_sync(self, asked: Asked | None) -> dict[str, Any] | None:
        """`headers` for code without an event loop."""
        return _without_loop(self.headers(asked))

    async def headers_of_parts(self, parts: Iterable[EnqueueContext]) -> list[str]:
        """Of each of some calls that are sent together the headers that instruments and the `on_enqueue` hooks set,
        encoded, or an empty text.
        """
        calls = list(parts)
        with self.told("part", map(Asked, calls)):
            return [await self.headers_by_hooks(call) for call in calls]

    def headers_of_parts_sync(self, parts: Iterable[EnqueueContext]) -> list[str]:
        """`headers_of_parts` for code without an event loop."""
        return _without_loop(self.headers_of_parts(parts))

    async def headers_by_hooks(self, call: EnqueueContext) -> str:
        """Run the `on_enqueue` hooks; returns all headers, encoded, or an empty text."""
        for hook in self._queue.registry.enqueue_hooks:
            answer = hook(call)
            if inspect.isawaitable(answer):
                await answer
        return _headers.pack(self._queue.codec, call.name, call.headers) if call.headers else ""


def _without_loop(running: Coroutine[Any, Any, Answer]) -> Answer:
    """What a coroutine of hooks returns that awaits nothing."""
    try:
        running.send(None)
    except StopIteration as ended:
        answer: Answer = ended.value
        return answer
    running.close()
    raise RuntimeError("an async @app.on_enqueue hook needs an event loop: await enqueue, or make the hook a `def`")
