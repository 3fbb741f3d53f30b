"""Chains, groups and chords: the common shapes of workflows, in one expression."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from .._values.options import Duration
from ..task import BoundTask, PreparedTask, Task
from ..workflows import Flow
from .following import WorkflowJob
from .nodes import Node, Part, Piece, Subflow
from .producer import held_back
from .starting import PreparedWorkflow, Workflow, start, start_sync

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Self

    from ..task import _Enqueueable
    from .queue import QueueContext

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Link(NamedTuple):
    """One step behind others.

    Attributes:
        task: what takes their results as its first argument, or a function that makes it of them; or the whole call of
            an errand, which runs only if one of them does not complete.
    """

    task: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_errand: bool = False


class _Line(Piece[R], Generic[R]):
    """Calls that begin at once, and steps behind them, one after the other. It is never changed: each step makes a new
    one.
    """

    def __init__(self, name: str, first: tuple[Any, ...], is_list: bool, links: tuple[_Link, ...]) -> None:
        self._name = name
        self._first = first
        self._is_list = is_list
        self._links = links

    @property
    def context(self) -> "QueueContext":
        """The queue that it is for."""
        first: PreparedTask[Any] | Piece[Any] = self._first[0]
        return first.context if isinstance(first, Piece) else first.task.context

    @overload
    def then(
        self, task: "_Enqueueable[Concatenate[R, P], Coroutine[Any, Any, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> "Chain[T]": ...
    @overload
    def then(self, task: "_Enqueueable[Concatenate[R, P], T]", *args: P.args, **kwargs: P.kwargs) -> "Chain[T]": ...
    @overload
    def then(self, task: "Workflow[Concatenate[R, P], T]", *args: P.args, **kwargs: P.kwargs) -> "Chain[T]": ...
    @overload
    def then(self, task: "Callable[[R], Group[T]]") -> "Group[T]": ...
    @overload
    def then(self, task: "Callable[[R], PreparedTask[T] | Chain[T] | PreparedWorkflow[T]]") -> "Chain[T]": ...
    def then(self, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Go on with the result so far, of a group the list of all results.

        Args:
            task: a task or a workflow, whose first argument it is; or a function that is called at once with what
                stands for it, and returns a call, a chain, a group or a workflow that goes on.
            args: the further arguments of the task.
            kwargs: its keyword arguments.

        Example:
            ```python
            chain(fetch.prepare(url)).then(lambda page: group(parse.prepare(page), count.prepare(page)))
            ```
        """
        if isinstance(task, Task | BoundTask | Workflow) or (callable(task) and not args and not kwargs):
            return Chain[Any](self._name, self._first, self._is_list, (*self._links, _Link(task, args, kwargs)))
        raise TypeError(f"then takes a task and its further arguments, or a function, not {type(task).__name__}")

    def on_failure(self, call: "PreparedTask[Any] | Piece[Any]") -> "Self":
        """Run a call if what is there so far does not complete; what follows goes on without it.

        Args:
            call: from `task.prepare(…)`, or a chain, a group or a workflow.
        """
        link = _Link(_each(call, "on_failure"), (), {}, is_errand=True)
        return type(self)(self._name, self._first, self._is_list, (*self._links, link))

    def put(self, flow: Flow, name: str | None = None) -> Subflow[R]:
        """Add it to a flow."""
        whole = None if name is None else flow.prefix_of(name, "")
        inner = flow.within(self._name, whole)
        parts: list[Part] = [inner.add(call) for call in self._first]
        here = Subflow[Any](inner, whole or self._name, parts if self._is_list else parts[0])
        for link in self._links:
            part = self._linked(inner, here, link)
            if not link.is_errand:
                here = Subflow(inner, here.name, part)
        return here

    def _linked(self, inner: Flow, before: Subflow[Any], link: _Link) -> Part:
        """Add what comes next."""
        if link.is_errand:
            errand: Part = inner.add(link.task)
            return errand.after(before, on_failure="only")
        value: Any = before.result
        if isinstance(link.task, Task | BoundTask | Workflow):
            part: Part = inner.add(link.task.prepare(value, *link.args, **link.kwargs))
        else:
            made = link.task(value)
            if not isinstance(made, PreparedTask | Piece):
                raise TypeError(f"the function of then must return a call or a chain, not {type(made).__name__}")
            part = inner.add(made)
        # It is after what was before also where it does not take the result.
        for first in part.firsts():
            if not any(member in before.members for member in first.edges):
                first.after(before)
        return part

    def _flow(self, id: str | None, result_ttl: Duration | None) -> tuple[Flow, Node[Any] | None]:
        """The flow, and its last node."""
        flow = Flow(self._name, id=id, result_ttl=result_ttl)
        return flow, self.put(flow).output


class Chain(_Line[R]):
    """Tasks one after the other, each with the result of the one before as its first argument."""

    async def start(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[R]:
        """Start it; the result of its last task is that of the workflow.

        Args:
            id: the workflow's id; see `Flow`.
            result_ttl: for how long it is kept after its end; see `Flow`.

        Raises:
            TypeError, ValueError, BrokerError: as `app.start`.
        """
        return await start(self.context, *self._flow(id, result_ttl))

    def start_sync(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[R]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self.context, *self._flow(id, result_ttl))


class Group(_Line[list[R]], Generic[R]):
    """Calls, and chains and groups, side by side."""

    async def start(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[None]:
        """Start it. The workflow itself has no result; those of its calls are in `job.nodes()` and `job.node(name)`.

        Args, Raises: as `Chain.start`.
        """
        return await start(self.context, *self._flow(id, result_ttl))

    def start_sync(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[None]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self.context, *self._flow(id, result_ttl))


@overload
def chain(call: Group[R]) -> Group[R]: ...
@overload
def chain(call: PreparedTask[R] | Chain[R] | PreparedWorkflow[R]) -> Chain[R]: ...
def chain(call: Any) -> Any:
    """The beginning of a chain: a call, or a whole chain, group or workflow.

    Example:
        ```python
        job = await chain(fetch.prepare(url)).then(parse, strict=False).then(store).start()
        print(await job.value(timeout=60))
        ```
    """
    return Chain[Any]("chain", (_each(call, "chain"),), False, ())


def group(*calls: PreparedTask[R] | Piece[R]) -> Group[R]:
    """Calls side by side, or chains and groups, of which a group has a list of results; `group(…).then(task)` passes
    the list of all results on.

    Raises:
        ValueError: there are none.
    """
    if not calls:
        raise ValueError("a group needs at least one call")
    return Group("group", tuple(_each(call, "group") for call in calls), True, ())


@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R] | Piece[R]]",
    body: "_Enqueueable[Concatenate[list[R], P], Coroutine[Any, Any, T]]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> Chain[T]: ...
@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R] | Piece[R]]",
    body: "_Enqueueable[Concatenate[list[R], P], T]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> Chain[T]: ...
@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R] | Piece[R]]",
    body: "Workflow[Concatenate[list[R], P], T]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> Chain[T]: ...
@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R] | Piece[R]]",
    body: "Callable[[list[R]], Group[T]]",
) -> Group[T]: ...
@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R] | Piece[R]]",
    body: "Callable[[list[R]], PreparedTask[T] | Chain[T] | PreparedWorkflow[T]]",
) -> Chain[T]: ...
def chord(calls: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls side by side, then what takes the list of their results as its first argument: `group(…).then(body)`."""
    headers = calls if isinstance(calls, _Line) else group(*calls)
    return headers.then(body, *args, **kwargs)


def _each(call: Any, taker: str) -> Any:
    """A call, or a piece of several."""
    return call if isinstance(call, Piece) else held_back(call, taker)
