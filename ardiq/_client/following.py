"""Workflows that were started: their jobs, what is known of their nodes, and pictures of both."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Generic, Literal, NamedTuple

from .._server import calls
from .._server.replies import Call, ask, at_once
from .._values.objects import as_object
from .._values.results import Results
from .._values.typing import R_co
from ..job import Job
from .drawing import draw
from .pages import MapPages
from .resuming import resumed

_PAGE = 1000
_STOPPED = ("aborted", "requested")


@as_object
class WorkflowProgress(NamedTuple):
    """How far a workflow is. Each call of a map counts; compensations do not.

    Attributes:
        total: how many tasks it has.
        done: how many completed.
        failed: how many failed, expired or were discarded.
        skipped: how many will not run, because something that they needed did not complete.
        aborted: how many were aborted.
    """

    total: int
    done: int
    failed: int
    skipped: int
    aborted: int

    @property
    def fraction(self) -> float:
        """Which part of them has ended, from 0 to 1."""
        ended = self.done + self.failed + self.skipped + self.aborted
        return ended / self.total if self.total else 1.0

    @property
    def message(self) -> str:
        """The same for people."""
        more = [f"{count:,} {name}" for name, count in zip(self._fields[2:], self[2:], strict=True) if count]
        return ", ".join([f"{self.done:,} of {self.total:,} done", *more])


@as_object
class WorkflowNode(NamedTuple):
    """A node of a workflow that was started.

    Attributes:
        name: its name.
        task_id: its id, as of any task.
        task: the name of its task.
        is_map: whether it is a map.
        state: "blocked" until it begins (of a map: until one of its calls has ended), "queued", "limited", "scheduled",
            "held", "running", "away" (it is in another queue), "complete", "failed", "aborted", "expired", "discarded"
            or "skipped".
        after: the names of the nodes it is after, each with what happens if that does not complete; "undo": it is the
            compensation of that node.
        total: of a map, how many calls it has.
        done: of a map, how many of them completed.
        failed: of a map, how many failed.
        error: why it did not complete.
        queue: the queue that it runs in, if that is another one than its workflow's.
    """

    name: str
    task_id: str
    task: str
    is_map: bool
    state: str
    after: dict[str, str]
    total: int = 0
    done: int = 0
    failed: int = 0
    error: str = ""
    queue: str = ""

    @property
    def compensates(self) -> str | None:
        """The name of the node that it undoes, if it is a compensation."""
        return next((name for name, policy in self.after.items() if policy == "undo"), None)


class WorkflowJob(Job[R_co], Generic[R_co]):
    """The handle of a workflow: a job whose result is that of its output node.

    It fails if a node failed that nothing follows, or that nothing follows in spite of this.
    """

    __slots__ = ()

    async def progress(self) -> WorkflowProgress | None:  # type: ignore[override]
        """How far it is; None if it is unknown, or no longer kept."""
        return _progress(await self.app.context.channel().ask(self._page()))

    def progress_sync(self) -> WorkflowProgress | None:
        """`progress` for code without an event loop; blocks this thread until the server has answered."""
        return _progress(ask(self.app.context.server.core, self._page(), repeat=True))

    async def nodes(self) -> AsyncIterator[WorkflowNode]:
        """Its nodes and maps, each behind those that it is after."""
        offset = 0
        while True:
            page = await self.app.context.channel().ask(self._page(offset))
            for row in page.rows:
                yield node_of(self.id, row)
            offset += len(page.rows)
            if len(page.rows) < _PAGE:
                return

    def node(self, name: str) -> Job[Any]:
        """The job of one of its nodes."""
        return Job(self.app, f"{self.id}~{name}")

    def results(self, name: str) -> Results[Any]:
        """The results of one of its maps, which are read page by page: `async for`, or `for` without an event loop. It
        raises a LookupError if there is no such map, if it is no longer kept, or if it keeps no results.
        """
        return Results(f"{self.id}~{name}", MapPages(self.app.context, restores=True))

    async def graph(self, format: Literal["mermaid", "dot", "json"] = "mermaid") -> str:
        """A picture of it, with the states of its nodes: for Mermaid, for Graphviz, or as JSON."""
        return draw(self.id, [node async for node in self.nodes()], format)

    async def abort(self, *, compensate: bool = False) -> bool:
        """Abort all of it that has not ended; False if it has ended in another way, or is unknown.

        Args:
            compensate: whether what completed is undone, by the compensations that it has. Without this, those that
                have begun are aborted, too.
        """
        if not compensate:
            return await super().abort()
        return await self.app.context.channel().ask(calls.workflow_abort(id=self.id)) in _STOPPED

    def abort_sync(self, *, compensate: bool = False) -> bool:
        """`abort` for code without an event loop; blocks this thread until the server has answered."""
        if not compensate:
            return super().abort_sync()
        return ask(self.app.context.server.core, calls.workflow_abort(id=self.id), repeat=True) in _STOPPED

    async def pause(self) -> bool:
        """Let none of its tasks start, also calls of its maps, until `resume` or its end. What runs goes on, and so do
        delays and its time limit.

        Returns:
            False if it has ended, or is unknown.

        Raises:
            BadArgument: the queue already has 500 pauses.
        """
        return await self.app.context.channel().ask(calls.workflow_pause(id=self.id)) == "paused"

    def pause_sync(self) -> bool:
        """`pause` for code without an event loop; blocks this thread until the server has answered."""
        return ask(self.app.context.server.core, calls.workflow_pause(id=self.id), repeat=True) == "paused"

    async def resume(self) -> bool:
        """End its pause, and return the tasks that it held to the front of their lanes, in order.

        Returns:
            False if it is not paused.
        """
        return await resumed(self.app.context.channel().ask, self._resuming)

    def resume_sync(self) -> bool:
        """`resume` for code without an event loop; blocks this thread until all tasks are back."""
        return at_once(self.app.context.server.core, lambda ask: resumed(ask, self._resuming))

    async def retry(self) -> int:
        """Run its dead letters again, also those of its maps; what was skipped because of them then follows. No other
        task runs twice. Of a workflow that was aborted, or was over its time limit, they run alone: nothing follows. Of
        one whose compensations have begun, only a compensation that failed runs again.

        One that fails again meanwhile is left alone; once 1,000 have, others may be left, too: call it again.

        Returns:
            How many there were.
        """
        ask, seen, done = self.app.context.channel().ask, set[str](), 0
        while dead := set(await ask(self._dead())) - seen:
            seen |= dead
            done += (await ask(calls.requeue(tasks=dead))).count("queued")
        return done

    def retry_sync(self) -> int:
        """`retry` for code without an event loop; blocks this thread until the server has answered."""
        core, seen, done = self.app.context.server.core, set[str](), 0
        while dead := set(ask(core, self._dead())) - seen:
            seen |= dead
            done += ask(core, calls.requeue(tasks=dead)).count("queued")
        return done

    def _resuming(self, goes_on: bool) -> Call[Any]:
        return calls.workflow_resume(id=self.id, limit=calls.WORKFLOW_RESUME_LIMIT_MOST, resuming=goes_on)

    def _dead(self) -> Any:
        return calls.workflow_dead(id=self.id, limit=calls.WORKFLOW_DEAD_LIMIT_MOST)

    def _page(self, offset: int = 0) -> Any:
        return calls.workflow(id=self.id, offset=offset, limit=_PAGE)


def edges_of(after: str) -> dict[str, str]:
    """What a record says a node is after, each with what happens if that does not complete."""
    return {name: policy or "fail" for name, _, policy in (each.partition("?") for each in after.split())}


def node_of(workflow_id: str, row: Any) -> WorkflowNode:
    """A node as the query `workflow` replies it; there a map is "blocked" until all of its calls have ended."""
    is_under_way = row.state == "blocked" and row.complete + row.failed > 0
    return WorkflowNode(
        row.name,
        f"{workflow_id}~{row.name}",
        row.task,
        row.kind == "map",
        "running" if is_under_way else row.state,
        edges_of(row.after),
        row.size,
        row.complete,
        row.failed,
        row.error,
        row.queue,
    )


def _progress(page: Any) -> WorkflowProgress | None:
    return progress_of(page.rows) if page.kind == "workflow" else None


def progress_of(rows: Iterable[Any]) -> WorkflowProgress:
    """The sum over the nodes of a workflow."""
    counts = {"total": 0, "complete": 0, "failed": 0, "skipped": 0, "aborted": 0}
    for row in rows:
        if "undo" in edges_of(row.after).values():
            continue
        if row.kind == "map":
            ended = (row.complete, row.failed, row.skipped, row.aborted)
            counts["total"] += row.size
            for name, count in zip(list(counts)[1:], ended, strict=True):
                counts[name] += count
            if row.state in ("skipped", "aborted"):  # the calls that it never made
                counts[row.state] += row.size - sum(ended)
        else:
            counts["total"] += 1
            state = "failed" if row.state in ("expired", "discarded") else row.state
            if state in counts:
                counts[state] += 1
    return WorkflowProgress(*counts.values())
