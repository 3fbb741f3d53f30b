"""Starting workflows."""

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
from .nodes import Node

if TYPE_CHECKING:
    from .queue import QueueContext

P = ParamSpec("P")
R = TypeVar("R")


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

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowJob[R_co]:
        """Call the function with a new flow and these arguments, and start the flow; what it returns is the output."""
        return await start(self._queue, *self._filled(args, kwargs))

    def start_sync(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowJob[R_co]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self._queue, *self._filled(args, kwargs))

    def _filled(self, args: Any, kwargs: Any) -> tuple[Flow, Any]:
        flow = Flow(self.name, id=self._id, result_ttl=self._result_ttl, timeout=self._timeout)
        return flow, self._fn(flow, *args, **kwargs)


class Starting(Facade):
    """Starting workflows; a part of `Ardiq`."""

    @overload
    async def start(self, flow: Flow, output: Node[R]) -> WorkflowJob[R]: ...
    @overload
    async def start(self, flow: Flow, output: None = None) -> WorkflowJob[None]: ...
    async def start(self, flow: Flow, output: Node[Any] | None = None) -> WorkflowJob[Any]:
        """Start a workflow: all of it or, if something is wrong, nothing.

        Args:
            flow: its nodes.
            output: the node whose result is that of the workflow; None: it has none.

        Returns:
            Its job; `existed` if one with its id runs or is kept, and nothing was added.

        Raises:
            ValueError: a circle, more than 1,000 nodes, or something that a node cannot have: an id or uniqueness of
                its own, another queue; or, where the app has a `signing_key`, a map or a result as an argument.
            TypeError: an argument does not fit its task, or cannot be sent.
            BrokerError: the server cannot be reached.

        Example:
            ```python
            flow = Flow("thumbnails")
            small = flow.map(resize, ["a.png", "b.png"])
            job = await app.start(flow, output=flow.add(montage.prepare(small.results)))
            ```
        """
        return await start(self.context, flow, output)

    @overload
    def start_sync(self, flow: Flow, output: Node[R]) -> WorkflowJob[R]: ...
    @overload
    def start_sync(self, flow: Flow, output: None = None) -> WorkflowJob[None]: ...
    def start_sync(self, flow: Flow, output: Node[Any] | None = None) -> WorkflowJob[Any]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self.context, flow, output)

    @overload
    def workflow(self, fn: Callable[Concatenate[Flow, P], Node[R]], /) -> Workflow[P, R]: ...
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
            shown = name or str(getattr(function, "__name__", "workflow"))
            return Workflow(self.context, function, _options.text("name", shown))

        return make if fn is None else make(fn)


if TYPE_CHECKING:
    from typing import Protocol

    class _Decorator(Protocol):
        @overload
        def __call__(self, fn: Callable[Concatenate[Flow, P], Node[R]], /) -> Workflow[P, R]: ...
        @overload
        def __call__(self, fn: Callable[Concatenate[Flow, P], None], /) -> Workflow[P, None]: ...


async def start(queue: "QueueContext", flow: Flow, output: Any) -> WorkflowJob[Any]:
    """Start a workflow."""
    graph = Graph(queue, flow, output)
    headers = [await queue.producer.ask_hooks(context) for context in graph.contexts()]
    return _job(queue, graph, await _sent(queue, graph, headers, queue.channel().ask))


def start_sync(queue: "QueueContext", flow: Flow, output: Any) -> WorkflowJob[Any]:
    """Start a workflow; blocks this thread."""
    graph = Graph(queue, flow, output)
    headers = [queue.producer.ask_hooks_sync(context) for context in graph.contexts()]
    core = queue.server.core
    queue.server.register(core)
    return _job(queue, graph, at_once(core, lambda ask: _sent(queue, graph, headers, ask)))


async def _sent(queue: "QueueContext", graph: Graph, headers: list[str], ask: Ask) -> str:
    """The answer of the server, which is told the limits of the tasks if it has to be."""
    call = graph.call(headers)
    try:
        answer = await ask(call)
    except NoLimit:
        await ask(queue.producer.declaration())
        answer = await ask(call)
    if graph.has_pages and answer in ("created", "accepted"):
        for page in graph.pages():
            if (await ask(page)).answer == "not_found":
                raise ArdiqError(f"workflow {graph.id!r} was removed while it was created")
        await ask(calls.workflow_start(id=graph.id))
    return answer


def _job(queue: "QueueContext", graph: Graph, answer: str) -> WorkflowJob[Any]:
    job: WorkflowJob[Any] = WorkflowJob(queue.app, graph.id)
    if answer in ("exists", "kept"):
        set_existed(job, True)
    if graph.output is not None and (known := graph.output.call.task.signature) is not None:
        set_signature(job, known)
    return job
