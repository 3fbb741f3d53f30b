"""Batches of calls that are added while they run, and what follows when all have ended."""

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .._server import calls
from .._server.replies import Ask, at_once
from .._values.ids import new_id
from .._values.options import Duration
from ..errors import ArdiqError, NoLimit
from ..workflows import Flow
from .following import WorkflowJob
from .graphs import Graph
from .nodes import OnFailure, OpenMap, Part, Piece
from .producer import held_back
from .starting import created

if TYPE_CHECKING:
    from ..task import PreparedTask
    from .queue import QueueContext

CALLS = "calls"
"""The name of the map that they are in."""

_PAGE = 100
# For how long a batch whose block raises waits for it to be aborted.
_GIVE_UP_S = 2.0


class CallBatch:
    """Calls that are added while they run, as `app.batch(…)` makes it; a workflow, with a map of these calls.

    Attributes:
        id: its id, as of any workflow.
        existed: whether one with this id was there already, and not sealed; calls are added to that.
    """

    def __init__(self, queue: "QueueContext", id: str, flow: Flow | None = None) -> None:
        self.id = id
        self.existed = False
        self._queue = queue
        self._flow = flow
        # Calls that are sent together with those that follow; None: each at once.
        self._waiting: list[PreparedTask[Any]] | None = None

    def __repr__(self) -> str:
        return f"<CallBatch {self.id!r}>"

    @property
    def job(self) -> WorkflowJob[None]:
        """Its job, which ends when all of its calls and what follows them have ended."""
        return WorkflowJob(self._queue.app, self.id)

    async def add(self, *added: "PreparedTask[Any]") -> None:
        """Add calls, which run as soon as any other. Within `async with`, up to a hundred are sent together.

        Args:
            added: from `task.prepare(…)`.

        Raises:
            TypeError, ValueError: as for a node of a flow; none is added.
            ArdiqError: it has ended.
            BrokerError: the server cannot be reached.
        """
        ready = self._ready(added)
        if ready:
            await self._send(ready, self._queue.channel().ask, await self._headers(ready))

    def add_sync(self, *added: "PreparedTask[Any]") -> None:
        """`add` for code without an event loop; blocks this thread until the server has answered."""
        ready = self._ready(added)
        if ready:
            self._send_sync(ready)

    async def __aenter__(self) -> Self:
        graph = self._graph()
        headers = await self._queue.producer.telling.headers_of_parts(graph.contexts())
        self._began(await created(self._queue, graph, headers, self._queue.channel().ask))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        waiting, self._waiting = self._waiting or [], None
        ask = self._queue.channel().ask
        if error is not None:
            # A task of its own, which goes on if this one is cancelled again.
            await asyncio.wait([asyncio.ensure_future(self._give_up(ask))], timeout=_GIVE_UP_S)
            return
        if waiting:
            await self._send(waiting, ask, await self._headers(waiting))
        await ask(calls.workflow_seal(id=self.id))

    def __enter__(self) -> Self:
        graph = self._graph()
        headers = self._queue.producer.telling.headers_of_parts_sync(graph.contexts())
        core = self._queue.server.core
        self._queue.server.register(core)
        self._began(at_once(core, lambda ask: created(self._queue, graph, headers, ask)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        waiting, self._waiting = self._waiting or [], None
        core = self._queue.server.core
        if error is not None:
            at_once(core, self._give_up)
            return
        if waiting:
            self._send_sync(waiting)
        at_once(core, lambda ask: _sealed(ask, self.id))

    def _graph(self) -> Graph:
        if self._flow is None or self._waiting is not None:
            raise RuntimeError(f"batch {self.id!r} is open already: only `app.batch(…)` itself is entered, and once")
        return Graph(self._queue, self._flow, None, self.id)

    def _began(self, answer: str) -> None:
        if answer == "kept":
            raise ArdiqError(f"batch {self.id!r} has ended, and is kept: nothing can be added to it")
        self.existed = answer == "exists"
        self._waiting = []

    def _ready(self, added: "tuple[PreparedTask[Any], ...]") -> "list[PreparedTask[Any]]":
        """What is to be sent now."""
        own = [held_back(call, "batch.add", self._queue) for call in added]
        self._added(own)  # what is wrong is refused here
        if self._waiting is None:
            return own
        self._waiting += own
        if len(self._waiting) < _PAGE:
            return []
        ready, self._waiting = self._waiting, []
        return ready

    def _added(self, added: "list[PreparedTask[Any]]") -> Graph | None:
        """They, as nodes."""
        if not added:
            return None
        flow = Flow("batch")
        for call in added:
            flow.add(call)
        return Graph(self._queue, flow, None, f"{self.id}~{CALLS}")

    async def _headers(self, ready: "list[PreparedTask[Any]]") -> list[str]:
        graph = self._added(ready)
        return await self._queue.producer.telling.headers_of_parts(graph.contexts()) if graph else []

    def _send_sync(self, ready: "list[PreparedTask[Any]]") -> None:
        graph = self._added(ready)
        headers = self._queue.producer.telling.headers_of_parts_sync(graph.contexts() if graph else ())
        at_once(self._queue.server.core, lambda ask: self._send(ready, ask, headers))

    async def _send(self, ready: "list[PreparedTask[Any]]", ask: Ask, headers: list[str]) -> None:
        for at in range(0, len(ready), calls.WORKFLOW_ADD_MOST):
            part = slice(at, at + calls.WORKFLOW_ADD_MOST)
            graph = self._added(ready[part])
            assert graph is not None
            call = calls.workflow_add(id=self.id, map=CALLS, key=new_id(), calls=graph.added(headers[part]))
            try:
                reply = await ask(call)
            except NoLimit:
                await ask(self._queue.producer.declaration())
                reply = await ask(call)
            if reply.answer not in ("added", "accepted"):
                why = "has ended" if reply.answer == "ended" else "was never entered, or is no longer kept"
                raise ArdiqError(f"batch {self.id!r} {why}: nothing can be added to it")

    async def _give_up(self, ask: Ask) -> None:
        with contextlib.suppress(Exception):
            await ask(calls.abort(id=self.id, result_ttl_ms=self._queue.settings.result_ttl_ms))


async def _sealed(ask: Ask, id: str) -> None:
    await ask(calls.workflow_seal(id=id))


def batch_flow(
    queue: "QueueContext",
    name: str,
    id: str | None,
    result_ttl: Duration | None,
    on_success: "PreparedTask[Any] | Piece[Any] | None",
    on_complete: "PreparedTask[Any] | Piece[Any] | None",
    on_death: "PreparedTask[Any] | Piece[Any] | None",
) -> Flow:
    """A map without calls, and what follows it."""
    flow = Flow(name, id=id, result_ttl=result_ttl)
    added = flow.open_map(OpenMap(flow, CALLS, queue.app.ref(name).prepare()))
    followers: list[tuple[Any, str, OnFailure]] = [
        (on_success, "success", "fail"),
        (on_complete, "complete", "ignore"),
        (on_death, "death", "only"),
    ]
    for call, label, policy in followers:
        if call is not None:
            follower = call if isinstance(call, Piece) else held_back(call, f"on_{label}")
            part: Part = flow.add(follower, name=label)
            part.after(added, on_failure=policy)
    return flow
