"""Children of a running task: calls that it starts as a workflow of their own, to wait for their results."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._client.following import children_id
from .._client.graphs import MOST_NODES, Graph, number_of
from .._client.pages import codec_of
from .._client.producer import held_back
from .._server import calls
from .._server.replies import Ask
from .._values import options as _options
from ..errors import ChildrenFailed, InvalidResult, NoLimit
from ..task import PreparedTask
from ..workflows import Flow

if TYPE_CHECKING:
    from .._client.queue import QueueContext

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LONGEST_ID = 400
_SHOWN = 3
_LONGEST_ERROR = 300


class Children:
    """Calls that a task waits for under a name.

    Args:
        queue: that of the task.
        task_id: the id of the task.
        label: what they are, for messages.
        name: as `children_name` accepts it.
        prepared: the calls.
        tolerate: how many may fail, or which part of them.

    Raises:
        TypeError, ValueError: something of that cannot be; the text says which call.
    """

    def __init__(
        self, queue: "QueueContext", task_id: str, label: str, name: str, prepared: Iterable[Any], tolerate: float
    ) -> None:
        self._queue = queue
        self._label = label
        self._name = name
        self._tolerate = _options.tolerated(tolerate)
        self.calls = self._checked(prepared)
        self.id = children_id(task_id, name)
        if len(self.id.encode()) > _LONGEST_ID:
            raise ValueError(
                f"{label} cannot start: their id, {self.id[:50]!r}…, would have more than {_LONGEST_ID} bytes. It is "
                "made of the task's: give that a shorter one, or nest fewer children in each other"
            )

    async def begin(self, ask: Ask, parent: Mapping[str, str], is_blocking: bool) -> str:
        """Start them, unless an earlier attempt has; the answer of the server."""
        graph = self._graph()
        producer, parts = self._queue.producer, graph.contexts()
        telling = producer.telling
        headers = telling.headers_of_parts_sync(parts) if is_blocking else await telling.headers_of_parts(parts)
        more = {"parent": {**parent, "name": self._name}, "tolerate": number_of(self._tolerate, len(self.calls))}
        # Sent twice it does no harm.
        call = graph.call(headers, more)._replace(repeat=True)
        try:
            return await ask(call)
        except NoLimit:
            await ask(producer.declaration())
            return await ask(call)

    async def read(self, ask: Ask) -> list[Any] | None:
        """Their results, in order; None for each that did not complete, if that is tolerated. None: they go on, or are
        no longer kept.

        Raises:
            ChildrenFailed: more did not complete.
            InvalidResult: one cannot be read.
            BadSignature: the app has a `signing_key`, and one was not signed with that.
        """
        page = await ask(calls.workflow(id=self.id, offset=0, limit=MOST_NODES))
        if page.kind != "workflow" or page.state == "blocked":
            return None
        if page.state != "complete":
            raise self._failed(page)
        results: list[Any] = [None] * len(page.rows)
        offset = 0
        while offset < len(results):
            reply = await ask(calls.results(map=self.id, offset=offset, limit=MOST_NODES))
            if reply.size < 0:
                return None
            for row in reply.rows:
                results[row.number] = self._value(row, page.rows[row.number])
            offset = reply.next_offset
        return results

    def _checked(self, prepared: Iterable[Any]) -> list[PreparedTask[Any]]:
        if isinstance(prepared, str | bytes | PreparedTask) or not isinstance(prepared, Iterable):
            raise TypeError(f"{self._label} must be a list of calls, of task.prepare(…), not {prepared!r}")
        taker = f"a list of {self._label}"
        found = [held_back(call, taker, self._queue) for call in prepared]
        if len(found) > MOST_NODES:
            raise ValueError(
                f"{self._label} are {len(found):,} calls, and may be {MOST_NODES:,}: start them in parts, each under a "
                "name of its own, or let one call do several"
            )
        for at, call in enumerate(found):
            theirs = call.task.context
            if theirs is not self._queue and not theirs.is_own:
                raise ValueError(
                    f"{self._label}: call {at}, of task {call.name!r}, is for queue {theirs.name!r}, and children run "
                    f"in that of their task, {self._queue.name!r}: enqueue it there, and let it send a signal when it "
                    "is done"
                )
        return found

    def _graph(self) -> Graph:
        flow = Flow(self._name)
        try:
            for call in self.calls:
                flow.add(call)
            return Graph(self._queue, flow, None, self.id)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self._label}: {error}") from None

    def _failed(self, page: calls.WorkflowReply) -> ChildrenFailed:
        errors = {f"{self.id}~{row.name}": row.error or row.state for row in page.rows if row.state != "complete"}
        told = "; ".join(f"{id}: {error[:_LONGEST_ERROR]}" for id, error in list(errors.items())[:_SHOWN])
        more = f"; and {len(errors) - _SHOWN:,} more" if len(errors) > _SHOWN else ""
        text = f"{self._label}: {len(errors):,} of {len(page.rows):,} did not complete: {told}{more}"
        return ChildrenFailed(text, self.id, errors)

    def _value(self, row: calls.MapResult, node: calls.NodeRow) -> Any:
        """A result, as its task says what it returns."""
        known = self._queue.registry.signature_of(node.task)
        call = self.calls[row.number] if row.number < len(self.calls) else None
        if call is not None and call.name == node.task:
            known = call.task.signature or known
        what = f"{self._label}: the result of {node.name!r}"
        how = codec_of(self._queue, f"{self.id}~{node.name}", row.codec, row.value, what)
        try:
            return self._queue.codec.decode_result(row.value, how, self._queue.registry.signature_of, known)
        except (TypeError, ValueError) as error:
            raise InvalidResult(f"{what} cannot be read: {error}") from None


def children_name(name: Any) -> str:
    """The name of children, checked.

    Raises:
        TypeError: it is no str.
        ValueError: it is invalid.
    """
    _options.text("the name of children", name)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the name of children must be 1 to 100 of A-Z, a-z, 0-9, '_', '.' and '-', as it is a part of their ids: "
            f"{name!r}"
        )
    return str(name)
