"""Nodes of a flow: calls, and maps of one call over many items."""

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast

from .._values.references import PAGES, RESULT, RESULTS, Reference, Source
from .._values.results import Results
from .._values.typing import R_co
from ..task import PreparedTask

if TYPE_CHECKING:
    from typing import Self

    from ..workflows import Flow

D = TypeVar("D")

OnFailure: TypeAlias = Literal["fail", "cancel", "ignore", "continue", "only"]
"""What becomes of a node if one that it is after did not complete."""

_POLICIES = ("fail", "cancel", "ignore", "continue", "only")


class Member:
    """A node of a flow, or a map in it.

    Attributes:
        flow: what it is in.
        name: its name there.
        call: the task, its options and, of a node, its arguments.
        queue: of a node, the queue that it runs in; None: that of its task.
        edges: what it is after, each with what happens if that does not complete; None: as if nothing was said.
        sources: of a node, what its arguments stand for, by position and keyword.
        items: of a map, the arguments of its calls.
    """

    def __init__(self, flow: "Flow", name: str, call: PreparedTask) -> None:
        self.flow = flow
        self.name = name
        self.call = call
        self.queue: str | None = None
        self.edges: dict[Member, OnFailure | None] = {}
        self.sources: dict[int | str, Source] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self.flow!r}>"

    def after(self, *nodes: "Member", on_failure: OnFailure = "fail") -> "Self":
        """Begin when these have ended. A node whose result is an argument is among them without this.

        Args:
            nodes: nodes and maps of the same flow.
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
            if not isinstance(node, Member):
                raise TypeError(f"after takes nodes of the flow, not {type(node).__name__}")
            self.flow.check(self.name, node)
            self.edges[node] = on_failure
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
    ) -> None:
        super().__init__(flow, name, call)
        self.items = items
        self.max_concurrent = max_concurrent
        self.tolerate = tolerate
        self.keep_results = keep_results

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
