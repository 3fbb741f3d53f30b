"""Tasks that keep results, wait and are sent signals, under random interleavings: what each keeps, and when it goes on.

Plain tasks and small workflows are worked off; attempts end in every way while they wait, or are about to. After each
run one worker completes what there is: left is only what waits for a signal without a deadline, and once that is sent
nothing is. A failure is shrunk, and told as a fixture to keep.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from test_workflow_calls import walk
from workflow_families import Families
from workflow_graphs import graph
from workflow_machine import INTERVAL_MS
from workflow_tasks import KEPT_MS, Node
from workflow_waiting import AT, NUMBER

from ardiq._core import Core

HOW = st.sampled_from([*["complete"] * 3, *["failed"] * 3, "retry", "snooze", "release"])
SIZE = st.integers(1, 4)


class RandomWaits(Families):
    @initialize()
    def begin(self) -> None:
        super().begin()
        for id in ("p0", "p1"):
            self.enqueue(id)
        self.step("w:1", [], 1)

    @rule(id=st.sampled_from(["p0", "p1", "p2"]))
    def enqueue_one(self, id: str) -> None:
        self.enqueue(id)

    @rule(id=st.sampled_from(["w0", "w1"]), size=SIZE, number=st.integers(0, 2**32))
    def create_one(self, id: str, size: int, number: int) -> None:
        self.create(id, graph(size, number, ("", "", "ignore")), "", KEPT_MS, "")

    @rule(expire_ms=st.sampled_from([0, 3 * INTERVAL_MS // 2]), is_limited=st.booleans())
    def create_chain(self, expire_ms: int, is_limited: bool) -> None:
        """Its tasks may expire, or wait in a line."""
        nodes = [Node("a", expire_ms=expire_ms, is_limited=is_limited), Node("b", {"a": ""}), Node("c", {"b": ""})]
        self.create("w2", nodes, "", KEPT_MS, "")

    @rule(worker=NUMBER, want=st.integers(1, 4))
    def take(self, worker: int, want: int) -> None:
        self.step(self.worker(worker), [], want)

    @rule(worker=NUMBER, at=AT, how=HOW, delay_ms=st.sampled_from([0, INTERVAL_MS // 2]))
    def settle_some(self, worker: int, at: int, how: str, delay_ms: int) -> None:
        name = self.worker(worker)
        if held := list(self.workers[name].held.items()):
            id, token = held[at % len(held)]
            details = {"delay_ms": delay_ms} if how in ("retry", "snooze") else {}
            outcome: dict[str, Any] = {"id": id, "token": token, "outcome": how, "value": "1", "details": details}
            self.step(name, [outcome], at % 3)

    @rule(at=AT)
    def abort_one(self, at: int) -> None:
        ids = [id for id, task in self.model.tasks.items() if not task.has_ended]
        if ids:
            self.abort(ids[at % len(ids)])

    @rule(at=AT)
    def hurry_one(self, at: int) -> None:
        ids = [id for id, record in self.seen.tasks.items() if record.get("state") == "scheduled"]
        if ids := ids or list(self.model.tasks):
            self.hurry(ids[at % len(ids)])

    @precondition(lambda self: self.dead())
    @rule(at=AT, other=st.sampled_from([False, False, True]))
    def requeue_one(self, at: int, other: bool) -> None:
        self.requeue([self.dead()[at % len(self.dead())]], other)

    @precondition(lambda self: self.dead())
    @rule(at=AT)
    def discard_one(self, at: int) -> None:
        self.discard([self.dead()[at % len(self.dead())]])

    def dead(self) -> list[str]:
        return [task.id for task in self.model.tasks.values() if task.is_dead]

    @rule(at=AT)
    def await_one(self, at: int) -> None:
        if ids := list(self.model.tasks):
            self.wait_for(ids[at % len(ids)])

    @rule(place=st.sampled_from(["scheduled", "queued"]))
    def purge(self, place: str) -> None:
        which = "default" if place == "queued" else ""
        self.call("purge", place=place, which=which, offset=0, limit=1, result_ttl_ms=KEPT_MS)

    @rule(ms=st.sampled_from([INTERVAL_MS, 3 * INTERVAL_MS, 10 * INTERVAL_MS]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    @rule(worker=NUMBER)
    def die(self, worker: int) -> None:
        self.kill(self.worker(worker))

    def teardown(self) -> None:
        if hasattr(self, "server") and not self.has_failed:
            self.drain()


def test_waits_are_as_the_model_has_them(server_url: str) -> None:
    RandomWaits.core = Core(server_url, RandomWaits.base)
    walk(RandomWaits, 6)
    RandomWaits.core.close()
