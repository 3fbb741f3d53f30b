"""Workflows under random interleavings: which member is where is what the model says, after every call, and all ends.

Graphs with maps and every kind of edge, several at once, are worked off, fail, are aborted, purged and replayed;
workers die. What a claim brings of earlier results is checked, too. After each run one worker completes what is left,
and no workflow, member, item or chore may stay. A failure is shrunk, and told as a fixture to keep. `make soak` goes on
for longer.

Where heartbeats do most, a third walk has calls between an end and what follows from it: what is counted is what is
there, and all ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
import soak
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from workflow_graphs import graph, some_result
from workflow_machine import INTERVAL_MS, WITHOUT_END, WorkflowMachine
from workflow_roles import Roles
from workflow_server import small_portions
from workflow_tasks import KEPT_MS, Group, Node
from workflow_unsettled import Unsettled, fan

from ardiq._core import Core

SETTINGS = settings(
    max_examples=10, stateful_step_count=40, deadline=None, database=None, print_blob=False, report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
)  # fmt: skip

NUMBER, AT = st.integers(0, 7), st.integers(0, 999)
WORKFLOWS = ["w0", "w1", "w2", "w3", "w4"]
WORKFLOW = st.sampled_from(WORKFLOWS)
SIZE = st.one_of(st.integers(3, 5), st.integers(1, 8), st.integers(1, 25))
OTHERS = ["w2~m0~0", "w0~m0~1", "w1~m2~0", "w3~rows~2", "w4~rows~0"]
HOW = st.sampled_from([*["complete"] * 6, *["failed"] * 4, "retry", "snooze", "release", "aborted"])
BEHIND, FILLS = st.sampled_from([0, 0, 1, 1, 2, 3, 3]), st.sampled_from(["", "complete", "complete", "failed"])
KEYS = st.lists(st.sampled_from(["a", "b", "c", "ab", "bc", "abc", *"defghijk"]), min_size=1, max_size=3)
PARTS = st.sampled_from([0.01, 0.3, 0.5, 0.99])
SEALS = st.sampled_from([False, False, True])
LATER = st.sampled_from([0, 0, INTERVAL_MS // 2])
TTL = st.sampled_from([KEPT_MS, KEPT_MS, KEPT_MS, 0, -1])
ROUNDS = st.lists(st.sampled_from([2, 3, 20]), min_size=2, max_size=4)
KEPT = st.sampled_from([KEPT_MS, -1])
POLICIES = st.lists(st.sampled_from(["", "", "", "ignore", "continue"]), min_size=1, max_size=5)
ENDS = st.sampled_from([*["complete"] * 3, *["failed"] * 4, "retry", "release"])
PLACE = st.sampled_from(["queued", "queued", "limited", "scheduled", "quarantined", "dead"])


class RandomWorkflows(Roles):
    policies: tuple[str, ...] = ("", "", "", "", "", "ignore", "ignore", "continue", "continue", "cancel", "only")

    # Clients.

    @rule(id=WORKFLOW, size=SIZE, number=st.integers(0, 2**32), kept_ms=TTL, call=st.sampled_from(["", "", "1", "2"]))
    def create_one(self, id: str, size: int, number: int, kept_ms: int, call: str) -> None:
        # Mostly one that is not there.
        if number % 5 and (free := [each for each in WORKFLOWS if each not in self.model.tasks]):
            id = free[0]
        # Of what is not kept nobody sees afterwards whether it was aborted in the end.
        policies = tuple(policy for policy in self.policies if kept_ms or policy != "cancel")
        # In small portions it is the order of these that says which is undone first.
        nodes = graph(size, number, policies, number % 4 * 0.2 * self.is_at_once)
        output = nodes[number % len(nodes)].name if number % 3 == 0 else ""
        output = "" if output.startswith("u") else output
        self.create(id, nodes, output, kept_ms, call)

    @rule(id=WORKFLOW, items=st.integers(0, 12), window=st.integers(0, 3), tolerate=st.integers(0, 2))
    def create_chord(self, id: str, items: int, window: int, tolerate: int) -> None:
        """A map, and one that takes all of its results."""
        rows = Node("rows", items=[f" [{number}]" for number in range(items)], window=window, tolerate=tolerate)
        self.create(id, [rows, Node("sum", {"rows": ""}, inputs=[("0", "*rows")])], "sum", KEPT_MS, "")

    @rule(id=WORKFLOW, policies=st.lists(st.sampled_from(["", "ignore", "only", "continue"]), max_size=4))
    def create_open(self, id: str, policies: list[str]) -> None:
        """A map to which calls are added, and what follows it."""
        calls = Node("calls", items=[], is_open=True, keeps_results=False)
        followers = [Node(f"n{at}", {"calls": policy}) for at, policy in enumerate(policies)]
        self.create(id, [calls, *followers], "", KEPT_MS, "")

    @rule(at=AT, keys=KEYS, size=st.integers(0, 4), number=AT, seals=SEALS)
    def add_some(self, at: int, keys: list[str], size: int, number: int, seals: bool) -> None:
        """Clients, or tasks that run, add calls, some of them twice, also after it is sealed or has ended."""
        ids = [task.group.id for task in self.model.tasks.values() if task.name == "calls" and task.group] or ["w0"]
        calls = [Node(str(index), codec=["", "x"][(number + index) % 2]) for index in range(size)]
        for index, call in enumerate(calls):
            call.is_limited = (number + index) % 5 == 0
            call.delay_ms = INTERVAL_MS // 2 if (number + index) % 7 == 0 else 0
        if number % 9 == 0:
            self.abort(ids[at % len(ids)])
        for key in keys:
            self.add(ids[at % len(ids)], key, [replace(call) for call in calls])
        if seals:
            self.seal(ids[at % len(ids)])

    @rule(at=AT, worker=NUMBER, size=st.integers(1, 3), running=st.integers(0, 3), by_undo=st.booleans())
    def add_while_it_stops(self, at: int, worker: int, size: int, running: int, by_undo: bool) -> None:
        """Some of its calls run when it is aborted, and somebody adds more, or seals it."""
        for id in [each for each in WORKFLOWS if each not in self.model.tasks][:1]:
            self.create_open(id, [""] * (at % 2))
            self.add(id, "a", [Node(str(index)) for index in range(size)])
            self.step(self.worker(worker), [], running)
            (self.abort_and_undo if by_undo else self.abort)(id)
            self.add(id, "b", [Node("0")])
            if at % 3 == 0:
                self.seal(id)

    @rule(id=WORKFLOW, worker=NUMBER, tolerate=PARTS, items=st.integers(1, 6), more=st.integers(0, 1))
    def tolerate_a_part(self, id: str, worker: int, tolerate: float, items: int, more: int) -> None:
        """About as many calls of a filled map fail as may."""
        if id in self.model.tasks:
            return
        self.create_filled(id, 0, 0, tolerate)
        name = self.worker(worker)
        for _ in range(WITHOUT_END):
            if f"{id}~f" in self.workers[name].held or not self.step(name, [], 10):
                break
        if not (token := self.workers[name].held.get(f"{id}~f")):
            return
        self.fill(name, f"{id}~f", token, 0, items)
        self.step(name, [self.outcome(f"{id}~f", token, "complete", 0, 0)], 20)
        calls = [(each, token) for each, token in self.workers[name].held.items() if each.startswith(f"{id}~rows~")]
        most = int(tolerate * items) + more
        how = ["failed" if at < most else "complete" for at in range(len(calls))]
        self.step(name, [self.outcome(*call, what, 0, 0) for call, what in zip(calls, how, strict=True)], 0)

    @rule(worker=NUMBER, which=st.integers(0, 3), is_limited=st.booleans())
    def pause_beside_others(self, worker: int, which: int, is_limited: bool) -> None:
        """Tasks that are no part of a paused workflow are named as if they were."""
        for id in [each for each in WORKFLOWS if each not in self.model.tasks][:1]:
            for other in (f"{id}~none", f"{id}x", f"x{id}", f"{id}~rows")[: 1 + which]:
                self.enqueue(other)
            self.create(id, [Node("a", is_limited=is_limited), Node("b", {"a": ""})], "", KEPT_MS, "")
            self.pause(id)
            self.step(self.worker(worker), [], 20)

    @rule(
        id=WORKFLOW, others=st.integers(0, 3), window=st.integers(0, 3), tolerate=st.sampled_from([0, 0.5, 0.5, 0.3, 1])
    )
    def create_filled(self, id: str, others: int, window: int, tolerate: float) -> None:
        """A map whose calls come from a node, behind others that may fail meanwhile, and one that takes its results."""
        nodes = [Node(f"n{number}") for number in range(others)] + [Node("f")]
        rows = Node("rows", dict.fromkeys([node.name for node in nodes], ""), items=[], filled_by="f")
        rows.window, rows.tolerate = window, tolerate
        last = Node("sum", {"rows": "ignore"}, inputs=[("0", "*rows")])
        self.create(id, [*nodes, rows, last], "sum", KEPT_MS, "")

    @rule(id=st.sampled_from(["p0", "p1", "x~5", "w0~5", "w1~none", "w0~m1~99", "w0", "w1~n0", *OTHERS]))
    def enqueue_one(self, id: str) -> None:
        """Some are named as members are, and are not."""
        self.enqueue(id)

    @rule(id=WORKFLOW, at=AT, items=st.integers(1, 5), window=st.integers(0, 3))
    def enqueue_in_the_way(self, id: str, at: int, items: int, window: int) -> None:
        """A task has the id of a call that a map is yet to make."""
        if id not in self.model.tasks:
            self.enqueue(f"{id}~rows~{at % items}")
            self.create_chord(id, items, window, 0)

    @rule(at=AT)
    def abort_one(self, at: int) -> None:
        if id := self.some_id(at):
            self.abort(id)

    @rule(at=AT)
    def hurry_one(self, at: int) -> None:
        ids = [id for id, record in self.seen.tasks.items() if record.get("state") == "scheduled"]
        if id := ids[at % len(ids)] if ids else self.some_id(at):
            self.hurry(id)

    @rule(at=AT, any=st.sampled_from([True, *[False] * 5]))
    def abort_and_undo_one(self, at: int, any: bool) -> None:
        undoable = [task.id for task in self.model.workflows if task.compensations and not task.has_ended]
        if any:
            self.abort_and_undo(self.some_id(at))
        elif undoable and at % 3 == 0:
            self.abort_and_undo(undoable[at % len(undoable)])

    @rule(at=AT, of_maps=st.sampled_from([True, True, False]))
    def abort_group(self, at: int, of_maps: bool) -> None:
        groups = [task.id for task in self.model.of("blocked") if isinstance(task, Group) and task.is_map == of_maps]
        if groups:
            self.abort(groups[at % len(groups)])

    @rule(at=AT)
    def await_one(self, at: int) -> None:
        self.wait_for(self.some_id(at) or "w0")

    @rule(at=AT)
    def await_workflow(self, at: int) -> None:
        if workflows := self.model.workflows:
            self.wait_for(workflows[at % len(workflows)].id)

    @precondition(lambda self: self.model.workflows)
    @rule(at=AT, is_meant=st.sampled_from([True, False, False]), any=st.sampled_from([True, *[False] * 5]))
    def pause_one(self, at: int, is_meant: bool, any: bool) -> None:
        unfinished = [task.id for task in self.model.workflows if not task.has_ended]
        if any:
            self.pause(self.some_id(at))
        elif is_meant and unfinished:
            self.pause(id := unfinished[at % len(unfinished)])
            # Named as if it were held.
            self.enqueue(f"{id}~none")

    @rule(id=WORKFLOW, limit=st.sampled_from([1, 1000]))
    def resume_one(self, id: str, limit: int) -> None:
        self.resume(id, limit)

    @precondition(lambda self: self.model.paused)
    @rule(worker=NUMBER, limit=st.sampled_from([1, 1, 1000]), then=st.sampled_from(["claim", "pause", ""]))
    def resume_paused(self, worker: int, limit: int, then: str) -> None:
        """In parts, it may be paused before the rest is back."""
        id = min(self.model.paused)
        self.step(self.worker(worker), [], 5)
        if id in self.model.paused:
            self.resume(id, limit)
        if then == "claim":
            self.step(self.worker(worker), [], 5)
        elif then:
            self.pause(id)

    def some_id(self, at: int) -> str:
        ids = list(self.model.tasks)
        return ids[at % len(ids)] if ids else ""

    # Operators.

    @precondition(lambda self: self.dead())
    @rule(at=AT, how_many=st.integers(1, 4), other=st.sampled_from([False, False, True]))
    def requeue_some(self, at: int, how_many: int, other: bool) -> None:
        dead = self.dead()
        first = at % len(dead)
        self.requeue(dead[first : first + how_many], other)

    @rule(worker=NUMBER, at=AT, how_many=st.integers(1, 4), failing=st.sampled_from([2, 3, 5]), rounds=ROUNDS)
    def replay(self, worker: int, at: int, how_many: int, failing: int, rounds: list[int]) -> None:
        """Much fails, and some of that runs again, while the rest is still open or when all has ended."""
        for round in rounds:
            self.work_off(worker, 5, failing + at % 2, round, slow=at % 4)
            if self.dead():
                self.requeue_some(at, how_many, False)
                at, failing = at // 2, failing * (at % 3)

    def dead(self) -> list[str]:
        return [task.id for task in self.model.tasks.values() if task.is_dead]

    @rule(at=AT, what=st.sampled_from(["requeue", "requeue", "discard"]))
    def requeue_any(self, at: int, what: str) -> None:
        """Mostly what is no dead letter."""
        ids = [task.id for task in self.model.of("failed")] if at % 2 else list(self.model.tasks)
        if ids and what == "requeue":
            self.requeue([ids[at % len(ids)]])
        elif ids:
            self.discard([ids[at % len(ids)]])

    @precondition(lambda self: self.dead())
    @rule(at=AT, how_many=st.integers(1, 2))
    def discard_some(self, at: int, how_many: int) -> None:
        dead = self.dead()
        first = at % len(dead)
        self.discard(dead[first : first + how_many])

    @precondition(lambda self: self.dead_of_ended())
    @rule(at=AT, how_many=st.integers(1, 3), is_deleted=st.booleans(), beside=st.booleans())
    def lose_some(self, at: int, how_many: int, is_deleted: bool, beside: bool) -> None:
        """Perhaps beside one that runs again, to no effect."""
        dead = self.dead_of_ended()
        some = dead[at % len(dead)]
        if beside and len(some) > 1:
            self.requeue([some.pop(at % len(some))])
            if some not in self.dead_of_ended():
                return
        self.lose_dead(some[at % len(some) :][:how_many], is_deleted)

    @rule(items=st.integers(2, 5), at=AT)
    def lose_dead_letters(self, items: int, at: int) -> None:
        """Of a workflow that ends with some, often aborted."""
        for id in [id for id in ("d0", "d1", "d2", "d3") if id not in self.model.tasks][:1]:
            self.create_chord(id, items, 0, items)
            self.work_off(at, 5, 2, 2, slow=at % 4)
            if at % 3:
                self.abort(id)
            self.work_off(at, 5, 0)
            if self.dead_of_ended():
                self.lose_some(at, 1, at % 2 == 0, True)

    def dead_of_ended(self) -> list[list[str]]:
        """By workflow."""
        ended = [workflow for workflow in self.model.workflows if workflow.has_ended]
        dead = [[task.id for task in workflow.all_tasks() if task.is_dead] for workflow in ended]
        return [ids for ids in dead if ids]

    @rule(left=st.integers(0, 3))
    def discard_oldest(self, left: int) -> None:
        self.call("discard_old", dead_ttl_ms=0, dead_limit=left, limit=2, result_ttl_ms=KEPT_MS)

    @rule(place=PLACE, limit=st.integers(1, 3))
    def purge(self, place: str, limit: int) -> None:
        which = "default" if place in ("queued", "limited") else ""
        self.call("purge", place=place, which=which, offset=0, limit=limit, result_ttl_ms=KEPT_MS)

    @rule(ms=st.sampled_from([INTERVAL_MS, 3 * INTERVAL_MS, 3 * INTERVAL_MS, 10 * INTERVAL_MS]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    # Workers.

    @rule(worker=NUMBER, how=st.lists(HOW, max_size=8), later=LATER, want=st.sampled_from([0, 3, 10, 10, 30]), n=AT)
    def work(self, worker: int, how: list[str], later: int, want: int, n: int) -> None:
        """A worker settles some of what it holds, and takes more."""
        name = self.worker(worker)
        self.step(name, self.outcomes(name, how, later, n), want)

    @precondition(lambda self: self.fillers())
    @rule(at=AT, counts=st.lists(st.integers(0, 4), min_size=1, max_size=4), behind=BEHIND, how=FILLS)
    def fill_some(self, at: int, counts: list[int], behind: int, how: str) -> None:
        """A task adds calls to its map; some pages again, some behind a gap, some by who lost the task."""
        name, id = self.fillers()[at % len(self.fillers())]
        task = self.model.tasks[id]
        for page, size in enumerate(counts, 1):
            filled = task.group and task.group.filled_by(task)
            there = len(filled.node.items or []) if filled else 0
            token, odd = self.workers[name].held[id], behind if page == len(counts) else 0
            self.fill(
                name,
                id,
                f"{token}0" if odd == 3 else token,
                max(0, there + [0, -2, 1, 0][odd]),
                4 if odd == 1 else size,
            )
        if how:
            self.step(name, [self.outcome(id, self.workers[name].held[id], how, 0, at)], 10)
            self.work_off([*self.workers].index(name), 10, [0, 2, 2, 3][at % 4], 4)

    def fillers(self) -> list[tuple[str, str]]:
        """Who holds what adds calls to maps."""
        held = [(name, id) for name, worker in self.workers.items() for id in worker.held]
        tasks = self.model.tasks
        return [(name, id) for name, id in held if (group := tasks[id].group) and group.filled_by(tasks[id])]

    @rule(worker=NUMBER, how=st.lists(HOW, max_size=6), later=LATER, want=st.sampled_from([0, 1, 10]), n=AT)
    def lose_reply(self, worker: int, how: list[str], later: int, want: int, n: int) -> None:
        name = self.worker(worker)
        outcomes = self.outcomes(name, how, later, n)
        self.step(name, outcomes, want)
        self.repeat_step(name, outcomes, want)

    @rule(worker=NUMBER, want=st.sampled_from([5, 20]), failing=st.sampled_from([0, 0, 3, 8]))
    def work_off(self, worker: int, want: int, failing: int, rounds: int = 20, slow: int = 0) -> None:
        """It ends all it holds and takes more, until there is nothing; some fail, and `slow` ones go on running."""
        name = self.worker(worker)
        for _ in range(rounds):
            held, outcomes = [*self.workers[name].held.items()], []
            for id, token in held:
                number = crc32(id.encode())
                how = "failed" if failing and number % failing == 0 else "complete"
                if not slow or number % 4 != slow:
                    outcomes.append(self.outcome(id, token, how, 0, number))
            if not self.step(name, outcomes, want) and not held:
                break

    def outcomes(self, name: str, how: list[str], later: int, number: int) -> list[dict[str, Any]]:
        held = zip(self.workers[name].held.items(), how, strict=False)
        return [self.outcome(id, token, what, later, number + at) for at, ((id, token), what) in enumerate(held)]

    def outcome(self, id: str, token: str, what: str, later: int, number: int) -> dict[str, Any]:
        codec, value = some_result(id, number)
        if what == "complete":
            return {"id": id, "token": token, "outcome": what, "value": value, "details": {"codec": codec}}
        details = {"details": {"delay_ms": later}} if what in ("retry", "snooze") else {}
        return {"id": id, "token": token, "outcome": what, "value": f"no {number}", **details}

    @rule(worker=NUMBER, at=AT, how=HOW, twice=st.booleans())
    def settle_again(self, worker: int, at: int, how: str, twice: bool) -> None:
        """What it does not hold, or no longer; or the same task twice in one call."""
        name = self.worker(worker)
        held = list(self.workers[name].held.items())
        if twice and held:
            id, token = held[at % len(held)]
            self.step(name, [self.outcome(id, token, what, 0, at) for what in (how, "complete", "failed")], 0)
        elif stale := [*self.old, *(pair for other in self.workers.values() for pair in other.held.items())]:
            id, token = stale[at % len(stale)]
            if self.workers[name].held.get(id) != token:
                self.step(name, [self.outcome(id, token, how, 0, at)], 0)

    @rule(worker=NUMBER, at=AT, how=st.sampled_from(["complete", "fail", "release", "retry", "snooze"]), later=LATER)
    def settle_one(self, worker: int, at: int, how: str, later: int) -> None:
        """By its own transition."""
        name = self.worker(worker)
        if held := list(self.workers[name].held.items()):
            id, token = held[at % len(held)]
            codec, value = some_result(id, at)
            details = {"delay_ms": later, "codec": codec}
            outcome = "failed" if how == "fail" else how
            self.settled(name, [{"id": id, "token": token, "outcome": outcome, "value": value, "details": details}])
            self.call(
                how, worker=name, id=id, token=token, result_ttl_ms=KEPT_MS, delay_ms=later, result=value, codec=codec
            )

    @rule(worker=NUMBER, want=st.integers(1, 5))
    def claim_some(self, worker: int, want: int) -> None:
        self.claim(self.worker(worker), want)

    @rule()
    def join(self) -> None:
        if len(self.workers) < 4:
            self.enter()

    @rule(worker=NUMBER)
    def heartbeat(self, worker: int) -> None:
        self.beat(self.worker(worker))

    @rule(worker=NUMBER)
    def leave_one(self, worker: int) -> None:
        self.leave(self.worker(worker))

    @rule(worker=NUMBER)
    def die(self, worker: int) -> None:
        self.kill(self.worker(worker))

    @rule(times=st.sampled_from([2, 2, 4]), want=st.sampled_from([1, 3]))
    def die_of_the_same(self, times: int, want: int) -> None:
        """What one worker held when it died is for the next one, which dies of it."""
        for _ in range(times):
            name = self.enter()
            self.step(name, [], want)
            self.kill(name)

    # What people are shown.

    @precondition(lambda self: self.model.workflows)
    @rule(at=AT, offset=st.integers(0, 10), limit=st.integers(1, 10))
    def ask(self, at: int, offset: int, limit: int) -> None:
        workflow = self.model.workflows[at % len(self.model.workflows)]
        self.shown(workflow, offset, limit)

    # What matters most comes up more often.
    work_again, work_once_more, create_again, requeue_again, replay_again = work, work, create_one, requeue_some, replay
    fill_again, fill_once_more, create_filled_again = fill_some, fill_some, create_filled
    add_again, add_once_more, create_open_again = add_some, add_some, create_open

    def teardown(self) -> None:
        if hasattr(self, "server") and not self.has_failed:
            self.drain()


class SmallPortions(RandomWorkflows):
    # What these edges do does not depend on which of two ends of one call comes first.
    policies, is_at_once = ("", "", "ignore"), False


class Between(Unsettled):
    """Hardly anything that follows is done when the next thing happens."""

    # With these all completes in the end, whatever comes first.
    policies = ("", "", "", "ignore", "continue")

    @initialize()
    def begin(self) -> None:
        super().begin()
        self.spoiled = set()

    @precondition(lambda self: self.free())
    @rule(size=SIZE, number=st.integers(0, 2**32), kept_ms=KEPT)
    def create_one(self, size: int, number: int, kept_ms: int) -> None:
        nodes = graph(size, number, self.policies, 0.3 * (number % 3 == 0))
        for node in nodes:
            node.delay_ms = node.expire_ms = 0
        self.create(self.free()[0], nodes, kept_ms)

    @precondition(lambda self: self.free())
    @rule(width=st.integers(1, 9), chain=st.integers(0, 2), policies=POLICIES, kept_ms=KEPT)
    def create_fan(self, width: int, chain: int, policies: list[str], kept_ms: int) -> None:
        self.create(self.free()[0], fan(width, chain, policies), kept_ms)

    def free(self) -> list[str]:
        return [id for id in WORKFLOWS if id not in self.seen.tasks]

    @rule(worker=NUMBER, hows=st.lists(ENDS, max_size=8), want=st.sampled_from([0, 3, 10]))
    def work(self, worker: int, hows: list[str], want: int) -> None:
        self.step([*self.workers][worker % len(self.workers)], hows, want)

    @precondition(lambda self: self.dead())
    @rule(at=AT, how_many=st.integers(1, 4))
    def requeue_some(self, at: int, how_many: int) -> None:
        first = at % len(self.dead())
        self.requeue(self.dead()[first : first + how_many])

    @precondition(lambda self: self.dead())
    @rule(at=AT, is_meant=st.sampled_from([True, False, False]))
    def discard_one(self, at: int, is_meant: bool) -> None:
        if is_meant:
            self.discard([self.dead()[at % len(self.dead())]])

    @precondition(lambda self: self.seen.tasks)
    @rule(at=AT, is_meant=st.sampled_from([True, False, False]), of_groups=st.booleans())
    def abort_one(self, at: int, is_meant: bool, of_groups: bool) -> None:
        ids = sorted(id for id, record in self.seen.tasks.items() if not of_groups or "kind" in record)
        if is_meant:
            self.abort(ids[at % len(ids)])

    @rule(id=WORKFLOW, is_meant=st.sampled_from([True, False, False]))
    def pause_one(self, id: str, is_meant: bool) -> None:
        if is_meant:
            self.pause(id)

    @rule(id=WORKFLOW)
    def resume_one(self, id: str) -> None:
        self.resume(id)

    @rule(worker=NUMBER, hows=st.lists(ENDS, min_size=1, max_size=8), at=AT, how_many=NUMBER, rounds=st.integers(1, 4))
    def replay(self, worker: int, hows: list[str], at: int, how_many: int, rounds: int) -> None:
        """What fails runs again at once."""
        for _ in range(rounds):
            self.work(worker, hows, 10)
            if self.dead():
                self.requeue_some(at, 1 + how_many)

    @rule(times=st.integers(1, 3))
    def heartbeat(self, times: int) -> None:
        for _ in range(times):
            self.beat()

    @rule(is_meant=st.booleans())
    def come_to_rest(self, is_meant: bool) -> None:
        if is_meant:
            self.rest()

    work_again, work_once_more, requeue_again = work, work, requeue_some

    def teardown(self) -> None:
        if hasattr(self, "server") and not self.has_failed:
            self.drain()


def walk(machine: type[WorkflowMachine], few: int) -> None:
    soak.walk(lambda number: run_state_machine_as_test(seed(number)(machine), settings=SETTINGS), few, 3)


def test_workflows_are_as_the_model_has_them(server_url: str) -> None:
    RandomWorkflows.core = Core(server_url, RandomWorkflows.base)
    walk(RandomWorkflows, 3)
    RandomWorkflows.core.close()


def walk_in_small_portions(machine: type[SmallPortions | Between], server_url: str, few: int) -> None:
    machine.core = Core(server_url, machine.base)
    with small_portions(machine.core) as is_possible:
        if not is_possible:
            pytest.skip("the server has no functions")
        walk(machine, few)
    machine.core.close()


def test_they_are_so_when_calls_leave_most_to_heartbeats(server_url: str) -> None:
    walk_in_small_portions(SmallPortions, server_url, 3)


def test_all_ends_when_much_happens_before_heartbeats_go_on(server_url: str) -> None:
    walk_in_small_portions(Between, server_url, 4)
