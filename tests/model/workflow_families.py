"""Tasks that begin others and wait for them: their end is the turn of the task, and its end is theirs."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import rule
from workflow_kept import YEAR_MS, Kept, Memo
from workflow_model import Flows
from workflow_server import record_of
from workflow_tasks import KEPT_MS, MEMO, Group, Node, Task, children_of
from workflow_waiting import AT, NUMBER, Waiting

NAME = st.sampled_from(["k", "k", "l"])
DEEPEST = 3


class FamilyFlows(Flows):
    def __init__(self) -> None:
        super().__init__()
        self._parents_ended: list[tuple[str, Kept, bool]] = []

    def spawn(self, task: Task, children: Group, nodes: list[Node]) -> str:
        """`task` runs; it asks for these."""
        assert children.parent
        known, memo = self.tasks.get(children.id), MEMO + children.parent[0]
        if known:
            if not isinstance(known, Group) or known.parent != children.parent:
                return "refused"
            if not known.has_ended:
                task.kept.memos[memo] = Memo("until")
                return "accepted"
            if task.kept.memos.get(memo, Memo("none")).kind == "ended":
                return "kept"
            if not all(member.has_ended for member in known.members.values()):
                return "refused"
            for each in (known, *known.members.values()):
                self.tasks.pop(each.id, None)
        task.kept.memos[memo] = Memo("until")
        answer = self.create(children.id, nodes, "", children.kept_ms, "")
        made = cast(Group, self.tasks[children.id])
        made.parent, made.node = children.parent, children.node
        return answer

    def end(self, task: Task, state: str) -> None:
        kept = task.kept
        super().end(task, state)
        self._parents_ended.append((task.id, kept, task.kept is not kept))
        if isinstance(task, Group) and task.parent:
            self._tell(task, *task.parent)

    def _tell(self, children: Group, name: str, id: str) -> None:
        parent, memo = self.tasks.get(id), MEMO + name
        if not parent or parent.kept.memos.get(memo) != Memo("until"):
            return
        if children.is_forsaken:
            del parent.kept.memos[memo]
        else:
            parent.kept.memos[memo] = Memo("ended", "", children.state)
        if parent.waits_for == memo:
            parent.waits_for, parent.due_at = "", 0

    def forget(self, task: Task) -> None:
        self._parents_ended.append((task.id, task.kept, True))
        super().forget(task)

    def close(self) -> None:
        super().close()
        while self._parents_ended:
            parents, self._parents_ended = self._parents_ended, []
            for id, kept, is_over in parents:
                for memo in kept.memos:
                    if memo.startswith(MEMO):
                        self._forsake(id, memo.removeprefix(MEMO), is_over)
            self.advance()

    def _forsake(self, id: str, name: str, is_over: bool) -> None:
        children = self.tasks.get(children_of(id, name))
        if not isinstance(children, Group) or children.parent != (name, id):
            return
        if not children.has_ended:
            children.is_forsaken = children.is_forsaken or not children.is_stopping
            self._stop(children, is_final=True)
        elif is_over and not self.dead(children):
            self.keep_all(children)
            self.pass_time(0)

    def keep_all(self, workflow: Group) -> None:
        name, id = workflow.parent or ("", "")
        parent = self.tasks.get(id)
        is_needed = parent and MEMO + name in parent.kept.memos and workflow.kept_ms >= 0
        for task in [workflow, *workflow.members.values()]:
            self._keep(task, YEAR_MS if is_needed else workflow.kept_ms)


class Families(Waiting):
    model: FamilyFlows

    def new_model(self) -> FamilyFlows:
        return FamilyFlows()

    @rule(
        worker=NUMBER, at=AT, name=NAME, size=st.integers(1, 3), kept_ms=st.sampled_from([KEPT_MS, KEPT_MS, 0, -1]),
        tolerate=st.sampled_from([0, 0, 1]), is_limited=st.booleans(), is_stale=st.sampled_from([False] * 5 + [True]),
        then=st.sampled_from(["", "waits", "waits", "waits", "abort", "failed", "complete"]),
    )  # fmt: skip
    def spawn(
        self, worker: int, at: int, name: str, size: int, kept_ms: int, tolerate: int, is_limited: bool, is_stale: bool,
        then: str,
    ) -> None:  # fmt: skip
        attempt = self._attempt(worker, at, is_stale)
        if not attempt or attempt["id"].count(".") >= DEEPEST:
            return
        id = children_of(attempt["id"], name)
        nodes = [Node(f"n{number}", is_limited=is_limited and not number) for number in range(size)]
        children = Group(id, node=Node("", tolerate=tolerate), kept_ms=kept_ms, parent=(name, attempt["id"]))
        is_held = self._kept_by(attempt) is not None
        expect = self.model.spawn(self.model.tasks[attempt["id"]], children, nodes) if is_held else "stale"
        options: dict[str, Any] = {"result_ttl_ms": kept_ms, "parent": {**attempt, "name": name}, "tolerate": tolerate}
        self.call("workflow_create", id=id, options=options, nodes=[record_of(node) for node in nodes], expect=expect)
        outcome = {"id": attempt["id"], "token": attempt["token"], "outcome": then, "value": "1"}
        if then == "abort":
            self.abort(attempt["id"])
        elif then == "waits":
            outcomes = [{**outcome, "outcome": "suspend", "value": "", "details": {"wait": MEMO + name}}]
            self.step(attempt["worker"], outcomes, at % 4)
            if at % 5 == 0:
                self.repeat_step(attempt["worker"], outcomes, at % 4)
        elif then:
            self.step(attempt["worker"], [outcome], at % 4)

    spawn_again = spawn

    @rule(at=AT)
    def abort_some_family(self, at: int) -> None:
        """A task that waits for children, or these."""
        waiting = [task for task in self.model.of("waiting") if task.waits_for.startswith(MEMO)]
        if waiting:
            task = waiting[at % len(waiting)]
            self.abort(task.id if at % 2 else children_of(task.id, task.waits_for.removeprefix(MEMO)))
