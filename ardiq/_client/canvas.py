"""Chains, groups and chords: the common shapes of workflows, in one expression."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, overload

from .._values.options import Duration
from ..task import BoundTask, PreparedTask, Task
from ..workflows import Flow
from .following import WorkflowJob
from .nodes import Node
from .producer import held_back
from .starting import start, start_sync

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..task import _Enqueueable

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Link(NamedTuple):
    """One step behind others, whose results are its first argument."""

    task: "Task[..., Any] | BoundTask[..., Any]"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Line(Generic[R]):
    """Calls that begin at once, and steps behind them, one after the other. It is never changed: each step makes a new
    one.
    """

    def __init__(
        self, name: str, first: tuple[PreparedTask[Any], ...], is_list: bool, links: tuple[_Link, ...]
    ) -> None:
        self._name = name
        self._first = first
        self._is_list = is_list
        self._links = links

    @overload
    def then(
        self, task: "_Enqueueable[Concatenate[R, P], Coroutine[Any, Any, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> "Chain[T]": ...
    @overload
    def then(self, task: "_Enqueueable[Concatenate[R, P], T]", *args: P.args, **kwargs: P.kwargs) -> "Chain[T]": ...
    def then(self, task: Any, *args: Any, **kwargs: Any) -> "Chain[Any]":
        """Go on with a task whose first argument is the result so far, of a group the list of all results.

        Args:
            task: the task, or one with options.
            args: its further arguments.
            kwargs: its keyword arguments.
        """
        if not isinstance(task, Task | BoundTask):
            raise TypeError(f"then takes a task and its further arguments, not {type(task).__name__}")
        return Chain(self._name, self._first, self._is_list, (*self._links, _Link(task, args, kwargs)))

    def _flow(self, id: str | None, result_ttl: Duration | None) -> tuple[Flow, Node[Any] | None]:
        """The flow, and its last node."""
        flow = Flow(self._name, id=id, result_ttl=result_ttl)
        nodes: list[Node[Any]] = [flow.add(call) for call in self._first]
        last = None if self._is_list else nodes[0]
        value: Any = [node.result for node in nodes] if self._is_list else nodes[0].result
        for link in self._links:
            last = flow.add(link.task.prepare(value, *link.args, **link.kwargs))
            value = last.result
        return flow, last


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
        return await start(self._first[0].task.context, *self._flow(id, result_ttl))

    def start_sync(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[R]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self._first[0].task.context, *self._flow(id, result_ttl))


class Group(_Line[list[R]]):
    """Calls side by side."""

    async def start(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[None]:
        """Start it. The workflow itself has no result; those of its calls are in `job.nodes()` and `job.node(name)`.

        Args, Raises: as `Chain.start`.
        """
        return await start(self._first[0].task.context, *self._flow(id, result_ttl))

    def start_sync(self, *, id: str | None = None, result_ttl: Duration | None = None) -> WorkflowJob[None]:
        """`start` for code without an event loop; blocks this thread until the server has answered."""
        return start_sync(self._first[0].task.context, *self._flow(id, result_ttl))


def chain(call: PreparedTask[R]) -> Chain[R]:
    """The beginning of a chain.

    Example:
        ```python
        job = await chain(fetch.prepare(url)).then(parse, strict=False).then(store).start()
        print(await job.value(timeout=60))
        ```
    """
    return Chain("chain", (held_back(call, "chain"),), False, ())


def group(*calls: PreparedTask[R]) -> Group[R]:
    """Calls side by side; `group(…).then(task)` passes the list of their results on.

    Raises:
        ValueError: there are none.
    """
    if not calls:
        raise ValueError("a group needs at least one call")
    return Group("group", tuple(held_back(call, "group") for call in calls), True, ())


@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R]]",
    body: "_Enqueueable[Concatenate[list[R], P], Coroutine[Any, Any, T]]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> Chain[T]: ...
@overload
def chord(
    calls: "Group[R] | Sequence[PreparedTask[R]]",
    body: "_Enqueueable[Concatenate[list[R], P], T]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> Chain[T]: ...
def chord(calls: Any, body: Any, *args: Any, **kwargs: Any) -> Chain[Any]:
    """Calls side by side, then a task with the list of their results as its first argument: `group(…).then(body)`."""
    headers = calls if isinstance(calls, Group) else group(*calls)
    return headers.then(body, *args, **kwargs)
