"""Nodes of a flow: calls, maps of one call over many items, and whole flows within it."""

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

from .._values.references import PAGES, RESULT, RESULTS, Reference, Source
from .._values.results import Results
from .._values.typing import R_co
from ..task import PreparedTask

if TYPE_CHECKING:
    from typing import Self

    from ..workflows import Flow
    from .queue import QueueContext

D = TypeVar("D")

OnFailure: TypeAlias = Literal["fail", "cancel", "ignore", "continue", "only"]
"""What becomes of a node if one that it is after did not complete."""

_POLICIES = ("fail", "cancel", "ignore", "continue", "only")


class Part(abc.ABC):
    """What a flow consists of.

    Attributes:
        flow: what it is in.
        name: its name there.
    """

    flow: "Flow"
    name: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self.flow!r}>"

    @abc.abstractmethod
    def firsts(self) -> "list[Member]":
        """Those of its members that begin when it does."""

    @abc.abstractmethod
    def end(self) -> "Member":
        """The member that ends when it does."""

    def after(self, *nodes: "Part", on_failure: OnFailure = "fail") -> "Self":
        """Begin when these have ended. A node whose result is an argument is among them without this.

        Args:
            nodes: nodes, maps and workflows within the same flow.
            on_failure: what if one of them does not complete. "fail": this one is skipped, and what follows it;
                "cancel": the whole workflow is aborted, too; "ignore": it begins as if it had completed; "continue": it
                begins at once, without waiting for the others; "only": it runs only in this case, and is skipped if
                the other completes.

        Returns:
            Itself.

        Raises:
            TypeError: one of them is something else.
            ValueError: one is of another flow, or there is no such `on_failure`.
        """
        if on_failure not in _POLICIES:
            raise ValueError(f"on_failure must be one of {', '.join(_POLICIES)}, not {on_failure!r}")
        for node in nodes:
            if not isinstance(node, Part):
                raise TypeError(f"after takes nodes of the flow, not {type(node).__name__}")
            self.flow.check(self.name, node)
            end = node.end()
            for first in self.firsts():
                first.edges[end] = on_failure
        return self


class Member(Part):
    """A node of a flow, or a map in it.

    Attributes:
        call: the task, its options and, of a node, its arguments.
        edges: what it is after, each with what happens if that does not complete; None: as if nothing was said; "undo",
            alone: it is the compensation of that.
        compensation: what undoes it, if anything does.
        sources: of a node, what its arguments stand for, by position and keyword.
    """

    def __init__(self, flow: "Flow", name: str, call: PreparedTask) -> None:
        self.flow = flow
        self.name = name
        self.call = call
        self.edges: dict[Member, OnFailure | Literal["undo"] | None] = {}
        self.sources: dict[int | str, Source] = {}
        self.compensation: Node[Any] | None = None

    def firsts(self) -> "list[Member]":
        """Itself."""
        return [self]

    def end(self) -> "Member":
        """Itself."""
        return self

    def compensate(self, call: PreparedTask[Any], *, name: str | None = None) -> "Self":
        """Undo it with this call, should it complete and the workflow come to nothing: fail, be over its time limit, or
        be aborted with `compensate=True`. Compensations run once nothing else of the workflow does, one after the
        other, what completed last first.

        Args:
            call: from `task.prepare(…)`; its result, and those of the nodes it is after, may be among the arguments.
            name: what the compensation is called in the flow, as of `flow.add`.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError: as `flow.add`; or it has a compensation already.
        """
        if self.compensation is not None:
            raise ValueError(f"node {self.name!r} has a compensation already: {self.compensation.name!r}")
        self.compensation = self.flow.add_compensation(self, call, name)
        return self


class Node(Member, Generic[R_co]):
    """One call in a flow, as `flow.add(…)` returns it; `R` is what its task returns."""

    @property
    def result(self) -> R_co:
        """Stands for what the task will return: an argument of the `prepare` of another node, by itself or in a list of
        results. Nothing else can be done with it.
        """
        return cast(R_co, Reference(self, RESULT))

    def result_or(self, default: D) -> R_co | D:
        """As `result`, and this default if the task does not complete, in which case what takes it runs nevertheless.

        It is the same as `result` after `.after(node, on_failure="ignore")`, which leaves None in its place.
        """
        return cast("R_co | D", Reference(self, RESULT, default))


class Map(Member, Generic[R_co]):
    """A call for each of many items in a flow, as `flow.map(…)` returns it; `R` is what one call returns.

    Attributes:
        max_concurrent: how many of its calls are tasks at once; None: as many as the server makes.
        tolerate: how many may fail, or which part of them.
        keep_results: whether its results are kept.
        chunk: for how many items one task calls the function.
        filler: what adds its items while the workflow runs; None: they are there.
        items: the arguments of its calls.
    """

    def __init__(
        self,
        flow: "Flow",
        name: str,
        call: PreparedTask,
        items: list[tuple[Any, ...]],
        max_concurrent: int | None,
        tolerate: float,
        keep_results: bool,
        chunk: int = 1,
    ) -> None:
        super().__init__(flow, name, call)
        self.items = items
        self.max_concurrent = max_concurrent
        self.tolerate = tolerate
        self.keep_results = keep_results
        self.chunk = chunk
        self.filler: Filler | None = None

    def firsts(self) -> list[Member]:
        """What adds its items, where they are not there yet."""
        return [self.filler or self]

    @property
    def results(self) -> list[R_co]:
        """Stands for the list of what its calls return, in the order of the items, without those that did not complete:
        an argument of the `prepare` of a node, by itself.
        """
        return cast(list[R_co], self._stands_for(RESULTS))

    @property
    def result(self) -> Results[R_co]:
        """As `results`, of any number: the task's parameter is a `Results`, which reads them page by page."""
        return cast(Results[R_co], self._stands_for(PAGES))

    def _stands_for(self, what: str) -> Reference:
        if not self.keep_results:
            raise ValueError(f"map {self.name!r} has keep_results=False: nothing is there to pass on")
        return Reference(self, what)


class OpenMap(Map[Any]):
    """Calls of any tasks, which are added while the workflow runs. Their results are not kept."""

    def __init__(self, flow: "Flow", name: str, call: PreparedTask) -> None:
        super().__init__(flow, name, call, [], None, 0, False)


class Filler(Member):
    """Adds the items of a map when they are there: a task that each worker knows.

    Args:
        call: what it is called with, as a call of the map's task.
        source: what the items are a result of.
    """

    def __init__(self, flow: "Flow", name: str, call: PreparedTask, source: Source) -> None:
        super().__init__(flow, name, call)
        self.sources = {0: source}


class Join(Map[Any]):
    """Ends when several others have: a map without calls, which the server ends by itself.

    Attributes:
        call: that of one of them, for its lane.
    """

    def __init__(self, flow: "Flow", name: str, ends: "Sequence[Member]") -> None:
        super().__init__(flow, name, ends[0].call, [], None, 0, False)
        self.edges = dict.fromkeys(ends)


class Subflow(Part, Generic[R_co]):
    """A workflow, chain or group within a flow, as `flow.add(…)` returns it; `R` is its result.

    Args:
        inner: what it has filled.
        output: the part whose result is its own, several where it is the list of their results; None: it has none.

    Attributes:
        members: its nodes and maps, also of workflows within it.
    """

    def __init__(self, inner: "Flow", name: str, output: "Part | Sequence[Part] | None") -> None:
        if not inner.members:
            raise ValueError(f"workflow {name!r} within {inner.outer!r} has no nodes")
        assert inner.outer is not None
        self.flow = inner.outer
        self.name = name
        self.members = dict.fromkeys(inner.members.values())
        self._inner = inner
        self._output = output
        self._end: Member | None = None

    @property
    def result(self) -> R_co:
        """Stands for its result, as `Node.result`; of a group for the list of its results."""
        return cast(R_co, self._result())

    def result_or(self, default: D) -> R_co | D:
        """As `Node.result_or`; not of a group."""
        node = self.output
        if node is None:
            raise TypeError(f"{self.name!r} has no result of a single node: result_or(…) is for such alone")
        return cast("R_co | D", node.result_or(default))

    @property
    def output(self) -> Node[Any] | None:
        """The node whose result is its own; None: there is none, or it has a list of several."""
        found = self._output
        return found if isinstance(found, Node) else found.output if isinstance(found, Subflow) else None

    def firsts(self) -> list[Member]:
        """Those that are after no other of its members."""
        return [member for member in self.members if not any(other in self.members for other in member.edges)]

    def end(self) -> Member:
        """Its last member, or one that is added to end with its last ones. What runs only if something fails is not
        waited for.
        """
        if self._end is None:
            ends = list(_lasts(self.members))
            self._end = ends[0] if len(ends) == 1 else self._inner.join(ends)
        return self._end

    def _result(self) -> Any:
        found = self._output
        if isinstance(found, Node | Subflow):
            return found.result
        if not isinstance(found, Part) and found is not None:
            return [part.result for part in found if isinstance(part, Node | Subflow)]
        raise TypeError(f"workflow {self.name!r} returns no node: it has no result to pass on")


def _lasts(members: dict[Member, None]) -> Iterator[Member]:
    """Those that no other is after, but for such as run only if something fails, or to undo it."""
    errands: dict[Member, None] = {}
    size = -1
    while size != len(errands):
        size = len(errands)
        for member in members:
            edges = {other: policy for other, policy in member.edges.items() if other in members}
            if any(p in ("only", "undo") or (o in errands and p in (None, "fail", "cancel")) for o, p in edges.items()):
                errands[member] = None
    main = [member for member in members if member not in errands] or list(members)
    followed = {other for member in main for other in member.edges}
    return (member for member in main if member not in followed)


class Piece(abc.ABC, Generic[R_co]):
    """What can be a part of a flow, and of any number of them: a chain, a group, a workflow with its arguments."""

    @property
    @abc.abstractmethod
    def context(self) -> "QueueContext":
        """The queue that it is for."""

    @abc.abstractmethod
    def put(self, flow: "Flow", name: str | None = None) -> Subflow[R_co]:
        """Add it to a flow; `name`: what stands before the names of its nodes."""
