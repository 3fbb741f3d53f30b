"""Workflows of which somebody deletes a key, at any moment: what fsck finds of that is mended, and all of it ends.

What happens between the loss and the repair is lost on the workflow, too. What cannot be brought back, calls that had
not begun and results, is found, and left to people; the workflow ends all the same.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from test_workflow_calls import AT, LEAST_S, NUMBER, Between, walk, walk_in_small_portions
from workflow_server import record_of
from workflow_tasks import KEPT_MS, Node
from workflow_unsettled import is_compensation, root_of

from ardiq._core import Core
from ardiq._server import calls
from ardiq.cli.fsck import Check

LOST = st.sampled_from(
    [*["open", "failed", "undo"] * 2, "nodes", "items", "results", "chores", "deadlines", "workflows"]
)
FOR_GOOD = {"items": "lost_items", "results": "lost_results"}
TIMEOUT_MS = 10**10
PASSES = 5
HOWS = st.lists(st.sampled_from(["complete", "complete", "failed"]), max_size=4)


class Damaged(Between):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.lost: set[str] = set()

    def create(self, id: str, nodes: list[Node], kept_ms: int) -> None:
        if any(node.undoes for node in nodes):
            self.spoiled.add(id)
        options = {"result_ttl_ms": kept_ms, "timeout_ms": TIMEOUT_MS}
        records = [record_of(node) for node in nodes]
        self.call("workflow_create", id=id, options=options, nodes=records, expect="created")

    @rule(kind=LOST, at=AT, worker=NUMBER, hows=HOWS, later=st.booleans(), beats=st.booleans())
    def lose(self, kind: str, at: int, worker: int, hows: list[str], later: bool, beats: bool) -> None:
        # What goes with an ended workflow, soon, nobody restores.
        found = sorted(
            key for key in self.seen.keys if key.partition(":")[0] == kind and self.seen.ttls.get(key, -1) == -1
        )
        if not found:
            return
        key = found[at % len(found)]
        self.server.break_(["DEL", f"$key:{key}"])
        if kind in FOR_GOOD:
            self.lost.add(FOR_GOOD[kind])
            self.spoiled.add(root_of(key.partition(":")[2]))
        if later:
            self.work(worker, hows, 2)
        if beats:
            self.beat()
        self.mend()

    @rule()
    def look_for_damage(self) -> None:
        """Nothing that is there is taken for damage, however much is left to heartbeats."""
        self.has_failed = True
        if wrong := self.found():
            self.fail(f"fsck finds {wrong}")
        self.has_failed = False

    def mend(self) -> None:
        self.has_failed = True
        for _ in range(PASSES):
            rows = [row._asdict() for row in Check(self.core).findings()]
            pages = [rows[first : first + calls.REPAIR_MOST] for first in range(0, len(rows), calls.REPAIR_MOST)]
            answers = [self.server.call("repair", result_ttl_ms=KEPT_MS, findings=page) for page in pages]
            if not any("mended" in each for each in answers):
                break
        self.seen = self.server.look()
        if wrong := self.found():
            self.fail(f"what repair leaves is {wrong}")
        self.has_failed = False

    def found(self) -> list[str]:
        kinds = {"ghost_in_ready", *self.lost}
        return [str(row) for row in Check(self.core).findings() if row.kind not in kinds]

    def drain(self) -> None:
        super().drain()
        for id, record in self.seen.tasks.items():
            if is_compensation(self.seen, id) and record["state"] in ("skipped", "blocked"):
                of, undone = root_of(id), record["after"].removesuffix("?undo")
                completed = self.seen.tasks[f"{of}~{undone}"]["state"] == "complete"
                in_vain = undone in self.seen.keys.get(f"failed:{of}", [])
                workflow = self.seen.tasks[of]
                is_undone = workflow["state"] != "complete" and workflow.get("abort_requested") != "1"
                if completed and not in_vain and is_undone:
                    self.fail(f"{undone} of {of} is not undone: {record}")
            is_over = record.get("kind") == "workflow" and record["result_ttl_ms"] != "-1"
            if is_over and self.seen.ttls[f"task:{id}"] == -1:
                self.fail(f"{id} has ended, and would stay: {record}")


def test_all_ends_whatever_is_deleted(server_url: str) -> None:
    Damaged.core = Core(server_url, Damaged.base)
    walk(Damaged, LEAST_S)
    Damaged.core.close()


def test_all_ends_whatever_is_deleted_where_calls_leave_most_to_heartbeats(server_url: str) -> None:
    walk_in_small_portions(Damaged, server_url, LEAST_S / 2)
