"""Workflows of which somebody deletes a key, at any moment: what fsck finds of that is mended, and all of it ends.

What happens between the loss and the repair is lost on the workflow, too. What cannot be brought back, calls that had
not begun and results, is found, and left to people; the workflow ends all the same.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from test_workflow_calls import AT, NUMBER, POLICIES, Between, walk, walk_in_small_portions
from workflow_server import record_of
from workflow_tasks import KEPT_MS, Node
from workflow_unsettled import fan, is_compensation, root_of

from ardiq._core import Core
from ardiq._server import calls
from ardiq.cli.fsck import Check

LOST = st.sampled_from(
    [*["open", "failed", "undo"] * 2, "nodes", "items", "results", "chores", "deadlines", "workflows"]
)
OF_ONE = st.sampled_from(["open", "open", "undo", "undo", "failed", "nodes"])
FOR_GOOD = {"items": "lost_items", "results": "lost_results"}
TIMEOUT_MS = 10**10
PASSES = 5
HOWS = st.lists(st.sampled_from(["complete", "complete", "failed"]), max_size=4)
ROUNDS = st.lists(st.lists(st.sampled_from([*["complete"] * 4, "failed"]), max_size=9), max_size=3)


class Damaged(Between):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.lost: set[str] = set()
        self.unheard: set[str] = set()
        self.unlisted: set[str] = set()
        self.unknown: set[str] = set()
        self.without = {"open": self.unheard, "failed": self.unlisted, "nodes": self.unknown}

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
        if kind in self.without:
            self.without[kind].add(root_of(key.partition(":")[2]))
        if kind in FOR_GOOD:
            self.lost.add(FOR_GOOD[kind])
            self.spoiled.add(root_of(key.partition(":")[2]))
        if later:
            self.work(worker, hows, 2)
        if beats:
            self.beat()
        self.mend()

    @precondition(lambda self: self.free())
    @rule(worker=NUMBER, width=st.integers(1, 4), chain=st.integers(0, 2), policies=POLICIES, undoes=st.booleans(),
          kind=OF_ONE, before=ROUNDS, after=ROUNDS)  # fmt: skip
    def lose_of_one(
        self, worker: int, width: int, chain: int, policies: list[str], undoes: bool, kind: str,
        before: list[list[str]], after: list[list[str]],
    ) -> None:  # fmt: skip
        """While its tasks run."""
        id, nodes = self.free()[0], fan(width, chain, policies)
        if undoes:
            nodes += [Node(f"u{node.name}", {node.name: "undo"}) for node in nodes]
        self.create(id, nodes, KEPT_MS)
        for hows in before:
            self.work(worker, hows, 30)
        if kind in self.without:
            self.without[kind].add(id)
        if f"{kind}:{id}" in self.seen.keys and self.seen.ttls[f"{kind}:{id}"] == -1:
            self.server.break_(["DEL", f"$key:{kind}:{id}"])
        for hows in after:
            self.work(worker, hows, 30)
        self.mend()

    lose_of_another = lose_of_one

    @rule()
    def look_for_damage(self) -> None:
        """Nothing that is there is taken for damage, however much is left to heartbeats. What ran again to no effect
        and was not listed as failed meanwhile shows itself when it fails again.
        """
        self.has_failed = True
        late = {("not_in_failed", id) for id in self.dead() if root_of(id) in self.unlisted}
        late |= {("wrong_dead", id) for id in self.unlisted}
        if wrong := [str(row) for row in self.findings() if (row.kind, row.id) not in late]:
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
        if wrong := self.findings():
            self.fail(f"what repair leaves is {wrong}")
        self.has_failed = False

    def findings(self) -> list[calls.Finding]:
        kinds = {"ghost_in_ready", *self.lost}
        return [row for row in Check(self.core).findings() if row.kind not in kinds]

    def call(self, function: str, *, expect: Any = None, **arguments: Any) -> Any:
        reply = super().call(function, expect=expect, **arguments)
        self.all_is_undone()
        return reply

    def all_is_undone(self) -> None:
        """What completed of a workflow that came to nothing."""
        for id, record in self.seen.tasks.items():
            if is_compensation(self.seen, id) and record["state"] in ("skipped", "blocked"):
                of, undone = root_of(id), record["after"].removesuffix("?undo")
                completed = self.seen.tasks[f"{of}~{undone}"]["state"] == "complete"
                in_vain = of in self.unlisted or undone in self.seen.keys.get(f"failed:{of}", [])
                workflow = self.seen.tasks[of]
                is_undone = workflow["state"] in ("failed", "aborted") and workflow.get("abort_requested") != "1"
                if completed and not in_vain and is_undone:
                    self.fail(f"{undone} of {of} is not undone: {record}")

    def is_borne(self, wrong: str) -> bool:
        """One that is being stopped ends all the same, and nobody counts again what it was not told of. What had failed
        and is not listed is missing there once it ran again to no effect, or has no record any more. The nodes of what
        has ended nobody lists again.
        """
        if wrong.endswith("nobody knows its nodes"):
            return wrong.partition(" ")[0] in self.unknown
        id, _, what = wrong.partition(" counts ")
        is_stopped = root_of(id) in self.unheard and "abort_requested" in self.seen.tasks.get(id, {})
        is_unlisted = root_of(id) in self.unlisted and ("without a result" in what or "dead letters" in what)
        return bool(what) and (is_stopped or is_unlisted)

    def drain(self) -> None:
        super().drain()
        self.mend()
        self.all_is_undone()
        for id, record in self.seen.tasks.items():
            is_over = record.get("kind") == "workflow" and record["result_ttl_ms"] != "-1"
            if is_over and self.seen.ttls[f"task:{id}"] == -1:
                self.fail(f"{id} has ended, and would stay: {record}")


def test_all_ends_whatever_is_deleted(server_url: str) -> None:
    Damaged.core = Core(server_url, Damaged.base)
    walk(Damaged, 6)
    Damaged.core.close()


def test_all_ends_whatever_is_deleted_where_calls_leave_most_to_heartbeats(server_url: str) -> None:
    walk_in_small_portions(Damaged, server_url, 3)
