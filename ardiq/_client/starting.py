"""Starting workflows."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .._server import calls
from .._server.replies import Ask, at_once
from .._values import options as _options
from .._values.known import set_existed, set_signature
from .._values.options import Duration
from .._values.typing import R_co
from ..errors import ArdiqError, NoLimit
from ..workflows import Flow
from .facade import Facade
from .following import WorkflowJob
from .graphs import Graph
from .nodes import Node, Piece, Subflow

if TYPE_CHECKING:
    from .queue import QueueContext

P = ParamSpec("P")
R = TypeVar("R")

# For how long a start that breaks off waits for its workflow to be aborted.
_GIVE_UP_S = 2.0


class Workflow(Generic[P, R_co]):
    """A function that fills a flow, as `@app.workflow` returns it. Calling it with a flow fills that."""

    def __init__(
        self,
        queue: "QueueContext",
        fn: Callable[..., Any],
        name: str,
        id: str | None = None,
        result_ttl: Duration | None = None,
        timeout: Duration | None = None,
    ) -> None:
        self._queue = queue
        self._fn = fn
        self._id = id
        self._result_ttl = result_ttl
        self._timeout = timeout
        self.name = name
        self.__doc__ = fn.__doc__

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}>"

    def __call__(self, flow: Flow, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._fn(flow, *args, **kwargs)

    def options(
        self, *, id: str | None = None, result_ttl: Duration | None = None, timeout: Duration | None = None
    ) -> "Workflow[P, R_co]":
        """This workflow with options for its starts.

        Args:
            id: its id: while one with it runs or is kept, a start adds nothing.
            result_ttl: for how long it is kept after its end, with all its tasks, a timedelta or seconds.
            timeout: after how long all of it that has not ended is aborted, a timedelta or seconds.
        """
        Flow(self.name, id=id, result_ttl=result_ttl, timeout=timeout)  # what is wrong is refused here
        return Workflow(self._queue, self._fn, self.name, id, result_ttl, timeout)

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> "PreparedWorkflow[R_co]":
        """This workflow with its arguments as a part of another one, for `flow.add`, `chain` and `group`. Results of
        nodes may be among them, and the function can do with these what it can with `node.result`.

        Raises:
            ValueError: it has options, which only a whole workflow can have.
        """
        if (self._id, self._result_ttl, self._timeout) != (None, None, None):
            raise ValueError(f"workflow {self.name!r} cannot have an id, a result_ttl or a timeout within another one")
        return PreparedWorkflow(self._queue, self.name, lambda flow: self._fn(flow, *args, **kwargs))

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowJob[R_co]:
        """Call the function with a new flow and these arguments, and start the flow; what it returns is the output."""
        return await start(self._queue, *self._filled(args, kwargs))

    def start_sync(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowJob[R_co]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self._queue, *self._filled(args, kwargs))

    def _filled(self, args: Any, kwargs: Any) -> tuple[Flow, Any]:
        flow = Flow(self.name, id=self._id, result_ttl=self._result_ttl, timeout=self._timeout)
        return flow, self._fn(flow, *args, **kwargs)


class PreparedWorkflow(Piece[R_co]):
    """A workflow with its arguments."""

    def __init__(self, queue: "QueueContext", name: str, fill: Callable[[Flow], Any]) -> None:
        self._queue = queue
        self._name = name
        self._fill = fill

    def __repr__(self) -> str:
        return f"<Workflow {self._name!r} with its arguments>"

    @property
    def context(self) -> "QueueContext":
        """The queue that it is for."""
        return self._queue

    def put(self, flow: Flow, name: str | None = None) -> Subflow[R_co]:
        """Fill a part of that flow."""
        whole = flow.prefix_of(name, self._name)
        inner = flow.within(self._name, whole)
        output = self._fill(inner)
        if output is not None and not isinstance(output, Node | Subflow):
            raise TypeError(f"workflow {self._name!r} must return a node or nothing, not {type(output).__name__}")
        return Subflow(inner, whole, output)


class Starting(Facade):
    """Starting workflows; a part of `Ardiq`."""

    @overload
    async def start(self, flow: Flow, output: Node[R] | Subflow[R]) -> WorkflowJob[R]: ...
    @overload
    async def start(self, flow: Flow, output: None = None) -> WorkflowJob[None]: ...
    async def start(self, flow: Flow, output: Node[Any] | Subflow[Any] | None = None) -> WorkflowJob[Any]:
        """Start a workflow: all of it or, if something is wrong, nothing.

        One whose maps have more than 1,000 items, or 1 MiB of them, is sent in parts, and nothing of it runs before all
        are there. If this call breaks off meanwhile, it is aborted; if its process dies, within an hour.

        Args:
            flow: its nodes.
            output: the node whose result is that of the workflow; None: it has none.

        Returns:
            Its job; `existed` if one with its id runs or is kept, and nothing was added.

        Raises:
            ValueError: a circle, more than 1,000 nodes, or something that a node cannot have: an id or uniqueness of
                its own, or, as a map, another queue.
            TypeError: an argument does not fit its task, or cannot be sent.
            BrokerError: the server cannot be reached; with `maybe_enqueued` if the workflow may have been created.
            BadArgument: a task that is no part of a workflow has its id, or that of one of its nodes.
            ArdiqError: one with its id is still being sent in parts, or this one was aborted before all were there.

        Example:
            ```python
            flow = Flow("thumbnails")
            small = flow.map(resize, ["a.png", "b.png"])
            job = await app.start(flow, output=flow.add(montage.prepare(small.results)))
            ```
        """
        return await start(self.context, flow, output)

    @overload
    def start_sync(self, flow: Flow, output: Node[R] | Subflow[R]) -> WorkflowJob[R]: ...
    @overload
    def start_sync(self, flow: Flow, output: None = None) -> WorkflowJob[None]: ...
    def start_sync(self, flow: Flow, output: Node[Any] | Subflow[Any] | None = None) -> WorkflowJob[Any]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self.context, flow, output)

    @overload
    def workflow(self, fn: Callable[Concatenate[Flow, P], Node[R] | Subflow[R]], /) -> Workflow[P, R]: ...
    @overload
    def workflow(self, fn: Callable[Concatenate[Flow, P], None], /) -> Workflow[P, None]: ...
    @overload
    def workflow(self, fn: None = None, /, *, name: str | None = ...) -> "_Decorator": ...
    def workflow(self, fn: Any = None, /, *, name: str | None = None) -> Any:
        """Make a workflow of a function that fills a flow; what it returns, a node, is the output.

        Args:
            fn: the function, when used without parentheses.
            name: what people see; None: the function's name.

        Example:
            ```python
            @app.workflow
            def gallery(flow: Flow, paths: list[str]) -> Node[str]:
                small = flow.map(resize, paths, tolerate=0.01)
                return flow.add(montage.prepare(small.results))

            job = await gallery.options(id="gallery-7").start(["a.png", "b.png"])
            ```
        """

        def make(function: Callable[..., Any]) -> Workflow[..., Any]:
            if not callable(function):
                raise TypeError(f"@app.workflow decorates a function, not {type(function).__name__}")
            if inspect.iscoroutinefunction(function):
                raise TypeError(
                    "@app.workflow decorates a `def`, which only fills the flow: what awaits belongs in a task"
                )
            shown = name or str(getattr(function, "__name__", "workflow"))
            return Workflow(self.context, function, _options.text("name", shown))

        return make if fn is None else make(fn)


if TYPE_CHECKING:
    from typing import Protocol

    class _Decorator(Protocol):
        @overload
        def __call__(self, fn: Callable[Concatenate[Flow, P], Node[R] | Subflow[R]], /) -> Workflow[P, R]: ...
        @overload
        def __call__(self, fn: Callable[Concatenate[Flow, P], None], /) -> Workflow[P, None]: ...


async def start(queue: "QueueContext", flow: Flow, output: Any) -> WorkflowJob[Any]:
    """Start a workflow."""
    graph = Graph(queue, flow, output)
    headers = await queue.producer.telling.headers_of_parts(graph.contexts())
    ask = queue.channel().ask
    answer = await created(queue, graph, headers, ask)
    if graph.has_pages and answer in ("created", "accepted"):
        try:
            has_started = await _filled(graph, ask)
        except (Exception, asyncio.CancelledError):
            # A task of its own, which goes on if this one is cancelled again.
            await asyncio.wait([asyncio.ensure_future(_give_up(queue, graph, ask))], timeout=_GIVE_UP_S)
            raise
        _check(graph, has_started)
    return _job(queue, graph, answer)


def start_sync(queue: "QueueContext", flow: Flow, output: Any) -> WorkflowJob[Any]:
    """Start a workflow; blocks this thread."""
    graph = Graph(queue, flow, output)
    headers = queue.producer.telling.headers_of_parts_sync(graph.contexts())
    core = queue.server.core
    queue.server.register(core)
    answer = at_once(core, lambda ask: created(queue, graph, headers, ask))
    if graph.has_pages and answer in ("created", "accepted"):
        try:
            has_started = at_once(core, lambda ask: _filled(graph, ask))
        except BaseException:
            at_once(core, lambda ask: _give_up(queue, graph, ask))
            raise
        _check(graph, has_started)
    return _job(queue, graph, answer)


async def created(queue: "QueueContext", graph: Graph, headers: list[str], ask: Ask) -> str:
    """The answer of the server, which is told the limits of the tasks if it has to be.

    Raises:
        ArdiqError: one of this id is not there completely, and so will not run because of this call.
    """
    call = graph.call(headers)
    answer: str
    try:
        answer = await ask(call)
    except NoLimit:
        await ask(queue.producer.declaration())
        answer = await ask(call)
    if answer == "building":
        raise ArdiqError(
            f"workflow {graph.id!r} is being created by another call, or by one that broke off: nothing was added. "
            "One that broke off is aborted after an hour, or by `ardiq workflow abort`"
        )
    return answer


async def _filled(graph: Graph, ask: Ask) -> bool:
    """Send the calls of its maps, and let it begin; False if it was aborted or removed meanwhile."""
    for page in graph.pages():
        if (await ask(page)).answer not in ("added", "accepted"):
            return False
    answer = await ask(graph.start())
    # `accepted`: the reply of the first try was lost, or it is aborted.
    return answer == "started" or (answer == "accepted" and not await _is_building(graph, ask))


async def _give_up(queue: "QueueContext", graph: Graph, ask: Ask) -> None:
    """Abort what is not there completely, if the server can be reached; otherwise it is aborted after an hour."""
    with contextlib.suppress(Exception):
        # The start may have arrived, and only its reply is lost.
        if await _is_building(graph, ask):
            await ask(calls.abort(id=graph.id, result_ttl_ms=queue.settings.result_ttl_ms))


async def _is_building(graph: Graph, ask: Ask) -> bool:
    """Whether it was never there completely."""
    return "building" in await ask(calls.task(id=graph.id))


def _check(graph: Graph, has_started: bool) -> None:
    if not has_started:
        raise ArdiqError(f"workflow {graph.id!r} was aborted or removed while it was created: nothing of it runs")


def _job(queue: "QueueContext", graph: Graph, answer: str) -> WorkflowJob[Any]:
    job: WorkflowJob[Any] = WorkflowJob(queue.app, graph.id)
    if answer in ("exists", "kept"):
        set_existed(job, True)
    if graph.output is not None and (known := graph.output.call.task.signature) is not None:
        set_signature(job, known)
    return job
