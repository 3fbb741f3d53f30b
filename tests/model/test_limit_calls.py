"""Limits under random interleavings: what they promise holds after every call, seen from outside.

No more attempts of a bucket run than may, and no more start in any time; nothing waits while an idle worker could have
it; lines are first in, first out; what is counted is what the leases name; and without tasks no key is left.
A failure is shrunk, and told as a fixture to keep. `make soak` goes on for longer.
"""

from __future__ import annotations

import json
from typing import Any

import soak
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from limit_checks import Asked, not_back
from limit_machine import INTERVAL_MS, KEYS, LEASE_MS, SERVED, LimitMachine, line_buckets

from ardiq._core import Core
from ardiq.cli.fsck import Check

SETTINGS = settings(
    max_examples=10, stateful_step_count=60, deadline=None, database=None, print_blob=False, report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
)  # fmt: skip

NUMBER, FEW = st.integers(0, 7), st.integers(0, 5)
KEY, NAME, TASK_NAME = (
    st.sampled_from(KEYS),
    st.sampled_from(["one", "few", "customer", "rated", "both", "adapts", "partner"]),
    st.sampled_from(["bill", "send"]),
)
USE: Any = st.one_of(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["one", "few", "both", "adapts", "partner"])},
        optional={"weight": st.sampled_from([0.5, 3])},
    ),
    st.fixed_dictionaries({"name": st.just("customer"), "key": st.sampled_from(KEYS[1:])}),
    st.fixed_dictionaries({"name": st.just("rated"), "cost": st.sampled_from([1, 1, 2])}),
)
SOME_USES = st.lists(USE, min_size=1, max_size=2, unique_by=lambda use: use["name"])
USES = st.one_of(st.just([]), SOME_USES, SOME_USES, SOME_USES)
# Two of three tasks run alone.
GATHERS = st.sampled_from([None, None, None, None, {}, {"key": "1"}])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "delay_ms": st.just(INTERVAL_MS),
        "expire_ms": st.just(2 * LEASE_MS),
        "result_ttl_ms": st.sampled_from([0, -1]),
    },
)


def in_batches(name: str, uses: list[dict[str, Any]], gathers: dict[str, str] | None) -> list[dict[str, Any]]:
    """The limits of a task, which gathers with its like or not."""
    return uses if gathers is None else [*uses, {"name": f"#{name}", **gathers}]


TASK = st.builds(
    lambda id, name, lane, uses, gathers, more: {
        "id": f"t{id}",
        "name": name,
        "lane": lane,
        "args": [],
        "options": {**({"limits": limits} if (limits := in_batches(name, uses, gathers)) else {}), **more},
    },
    st.integers(0, 40), TASK_NAME, st.sampled_from([*SERVED * 3, "slow"]), USES, GATHERS, OPTIONS,
)  # fmt: skip
HOW = st.sampled_from([*["complete"] * 4, "failed", "retry", "snooze", "release", "limited"])
LATER = st.sampled_from([0, INTERVAL_MS])
CHANGE = st.sampled_from([
    {"concurrency": 0}, {"concurrency": 1}, {"concurrency": 2}, {"concurrency": 5}, {"rate": 5},
    {"rate": 3, "per_ms": INTERVAL_MS}, {"burst": 1}, {"recovery_ms": 0}, {"recovery_ms": 4 * INTERVAL_MS},
    {"concurrency": 4, "rate": 1, "per_ms": 2 * INTERVAL_MS, "burst": 2},
])  # fmt: skip
BATCH_CHANGE = st.sampled_from([
    None, {"batch_size": 1}, {"batch_size": 2}, {"batch_size": 5}, {"batch_wait_ms": 0}, {"batch_wait_ms": INTERVAL_MS},
    {"batch_size": 3, "batch_wait_ms": INTERVAL_MS // 2}, {"batch_size": 2, "batch_wait_ms": 2 * INTERVAL_MS},
])  # fmt: skip


class RandomLimits(LimitMachine):
    # Clients.

    @rule(tasks=st.lists(TASK, min_size=1, max_size=6))
    def enqueue_some(self, tasks: list[dict[str, Any]]) -> None:
        self.enqueue(tasks)

    @rule(uses=SOME_USES, lane=st.sampled_from(SERVED), first=st.integers(50, 99), how_many=st.integers(3, 12))
    def enqueue_many(self, uses: list[dict[str, Any]], lane: str, first: int, how_many: int) -> None:
        ids = [f"t{first + number}" for number in range(how_many)]
        self.enqueue([{"id": id, "name": "bill", "lane": lane, "args": [], "options": {"limits": uses}} for id in ids])

    @rule(
        uses=st.one_of(st.just([]), SOME_USES), name=TASK_NAME, key=st.sampled_from(["", "1"]),
        lane=st.sampled_from(SERVED), first=st.integers(50, 99), how_many=st.integers(1, 8), in_one_call=st.booleans(),
    )  # fmt: skip
    def enqueue_batch(
        self, uses: list[Any], name: str, key: str, lane: str, first: int, how_many: int, in_one_call: bool
    ) -> None:
        limits = in_batches(name, uses, {"key": key})
        tasks = [
            {"id": f"t{first + number}", "name": name, "lane": lane, "args": [], "options": {"limits": limits}}
            for number in range(how_many)
        ]
        self.enqueue(tasks, in_one_call)

    @rule(at=NUMBER)
    def abort(self, at: int) -> None:
        if ids := self.unfinished():
            id = ids[at % len(ids)]
            self.call("abort", id=id, result_ttl_ms=LEASE_MS)
            if self.seen.tasks.get(id, {}).get("state") == "aborted" and any(
                id in ids for ids in self.seen.lines.values()
            ):
                self.fail(f"{id} was aborted, and lies in its line still")

    @rule(at=NUMBER, what=st.sampled_from(["await_", "watch"]))
    def ask(self, at: int, what: str) -> None:
        if ids := self.unfinished():
            self.call(what, id=ids[at % len(ids)], mailbox="client:1", waiter_ttl_ms=LEASE_MS, result_ttl_ms=LEASE_MS)

    def unfinished(self) -> list[str]:
        waits = ("limited", "queued", "scheduled", "held", "running")
        return [id for id, record in self.seen.tasks.items() if record.get("state") in waits]

    # Workers.

    @rule(worker=NUMBER, how=st.lists(HOW, max_size=4), later=LATER, want=st.sampled_from([0, 1, 3, 10, 30]))
    def work(self, worker: int, how: list[str], later: int, want: int) -> None:
        """A worker settles some of what it holds, and takes more."""
        name = self.worker(worker)
        held = list(self.workers[name].held.items())
        self.step(
            name, [self.outcome(id, token, what, later) for (id, token), what in zip(held, how, strict=False)], want
        )
        for _ in range(5):
            if self.workers[name].is_idle or self.workers[name].is_full:
                break
            self.step(name, [], want)

    @rule(worker=NUMBER, how=st.lists(HOW, max_size=4), later=LATER, want=st.sampled_from([0, 1, 10]))
    def lose_reply(self, worker: int, how: list[str], later: int, want: int) -> None:
        name = self.worker(worker)
        held = list(self.workers[name].held.items())
        outcomes = [self.outcome(id, token, what, later) for (id, token), what in zip(held, how, strict=False)]
        self.step(name, outcomes, want)
        self.repeat_step(name, outcomes, want)

    @rule(worker=NUMBER, want=st.sampled_from([5, 20]))
    def work_off(self, worker: int, want: int) -> None:
        """It completes all it holds and takes more, until there is nothing."""
        name = self.worker(worker)
        for _ in range(30):
            held = list(self.workers[name].held.items())
            if not self.step(name, [self.outcome(id, token, "complete", 0) for id, token in held], want) and not held:
                break

    def outcome(self, id: str, token: str, what: str, later: int) -> dict[str, Any]:
        names = [bucket.partition("(")[0] for bucket in line_buckets(self.known.tasks[id].line) if bucket[0] != "#"]
        if what == "limited":
            return {
                "id": id,
                "token": token,
                "outcome": what,
                "details": {"delay_ms": later, "limit": (names or ["none"])[0]},
            }
        details = {"details": {"delay_ms": later}} if what in ("retry", "snooze") else {}
        return {"id": id, "token": token, "outcome": what, **details}

    @rule(worker=NUMBER, later=LATER)
    def told_429(self, worker: int, later: int) -> None:
        """All that it runs under limits finds them used up."""
        name = self.worker(worker)
        held = [(id, token) for id, token in self.workers[name].held.items() if self.known.tasks[id].line]
        self.step(name, [self.outcome(id, token, "limited", later) for id, token in held], 0)

    @rule(worker=NUMBER, want=st.integers(1, 5))
    def claim_some(self, worker: int, want: int) -> None:
        self.claim(self.worker(worker), want)

    @rule(
        worker=NUMBER, at=NUMBER, how=st.sampled_from(["complete", "fail", "release", "retry", "snooze"]), later=LATER
    )
    def settle(self, worker: int, at: int, how: str, later: int) -> None:
        name = self.worker(worker)
        if held := list(self.workers[name].held.items()):
            id, token = held[at % len(held)]
            del self.workers[name].held[id]
            self.call(how, worker=name, id=id, token=token, result_ttl_ms=LEASE_MS, delay_ms=later)

    @rule(lanes=st.sampled_from([SERVED, SERVED[::-1], SERVED[:1], SERVED[1:]]))
    def join(self, lanes: list[str]) -> None:
        if len(self.workers) < 4:
            self.enter(lanes)

    @rule(worker=NUMBER)
    def heartbeat(self, worker: int) -> None:
        self.beat(self.worker(worker))

    @rule(worker=NUMBER)
    def leave(self, worker: int) -> None:
        name = self.worker(worker)
        self.drop(name)
        self.call("leave", worker=name, result_ttl_ms=LEASE_MS)

    @rule(worker=NUMBER)
    def die(self, worker: int) -> None:
        self.kill(self.worker(worker))

    @rule(want=st.sampled_from([1, 3]))
    def die_of_the_same(self, want: int) -> None:
        """What one worker held when it died is for the next one, which dies of it."""
        for _ in range(2):
            name = self.enter(SERVED)
            self.step(name, [], want)
            self.kill(name)

    def kill(self, name: str) -> None:
        """Its lease ends while another one lives, and finds it."""
        self.drop(name)
        if not self.workers:
            self.enter(SERVED)
        before = self.seen
        self.pass_time(2 * LEASE_MS)
        for _ in range(5):
            self.beat(self.worker(0))
        if name in self.seen.hash("workers"):
            self.fail(f"{name} is dead, and still a member")
        if wrong := [*not_back(before, self.seen, self.known, name)]:
            self.fail(f"{name} is dead: {'; '.join(wrong)}")

    # Operators.

    @rule(name=NAME, key=KEY, change=CHANGE)
    def put_over(self, name: str, key: str, change: dict[str, Any]) -> None:
        self.put(name, key, change)

    @rule(name=st.sampled_from(["one", "few", "customer"]))
    def open_for_the_idle(self, name: str) -> None:
        """When no worker finds anything more to do, they are told of what a change lets start by that call itself."""
        self.beat(self.worker(0))
        for _ in range(5):
            for worker in [worker for worker in self.workers if not self.workers[worker].is_idle]:
                while self.step(worker, [], 20):
                    pass
        self.put(name, "", {"concurrency": 50})

    @rule(name=NAME, key=KEY)
    def take_back(self, name: str, key: str) -> None:
        self.remove(name, key)

    @rule(name=st.sampled_from(["#bill", "#send"]), key=st.sampled_from(["", "1"]), change=BATCH_CHANGE)
    def change_batch(self, name: str, key: str, change: dict[str, Any] | None) -> None:
        if change is None:
            self.remove(name, key)
        elif len(change) == 2 and not key:
            self.declare({name: change})
        else:
            self.put(name, key, change)

    @rule(name=NAME, change=CHANGE)
    def declare_again(self, name: str, change: dict[str, Any]) -> None:
        is_whole = ("rate" in change) == ("per_ms" in change) and change != {"burst": 1} and "recovery_ms" not in change
        if change.get("concurrency", 1) and is_whole:
            self.declare({name: change})

    @rule(task=st.sampled_from(["bill", "*"]))
    def pause(self, task: str) -> None:
        self.known.paused.add(task)
        self.call("pause", task=task, argument="", value="null", positions={})

    @precondition(lambda self: self.known.paused)
    @rule()
    def resume(self) -> None:
        task = self.known.paused.pop()
        self.call("resume", task=task, argument="", value="null", limit=1000, resuming=0)

    @rule(how_many=st.integers(1, 3), other=st.booleans())
    def requeue(self, how_many: int, other: bool) -> None:
        if dead := list(self.seen.hash("dead"))[:how_many]:
            if other:
                self.call("requeue_with", id=dead[0], args=[1])
            else:
                self.call("requeue", tasks=[{"id": id} for id in dead])

    @rule(lane=st.sampled_from(SERVED), limit=st.integers(1, 5))
    def purge(self, lane: str, limit: int) -> None:
        self.call("purge", place="limited", which=lane, offset=0, limit=limit, result_ttl_ms=LEASE_MS)

    @rule(uses=USES, lane=st.sampled_from(SERVED))
    def fire(self, uses: list[dict[str, Any]], lane: str) -> None:
        self.fired += 1
        definition = {
            "task": "bill",
            "lane": lane,
            "spec": "* * * * *",
            "missed": "once",
            **({"limits": uses} if uses else {}),
        }
        due = {"due_at": self.fired, "following_at": self.fired + 1, "next_due_at": self.fired + 1}
        if self.call("schedule_put", name=f"s{self.fired}", definition=definition, next_due_at=self.fired) is not None:
            self.call("schedule_fire", name=f"s{self.fired}", **due)
            self.call("schedule_remove", name=f"s{self.fired}")

    @rule(at=NUMBER, what=st.sampled_from(["busy", "turn", "entry"]))
    def repair(self, at: int, what: str) -> None:
        """Somebody takes away what is needed; fsck finds it, and repair mends it."""
        places = [
            (place, line)
            for (lane, line), where in self.seen.places().items()
            for place in where
            if (lane, line) in self.seen.lines
        ]
        entries = [(*at, self.seen.live(*at)[0]) for at in self.seen.lines if len(self.seen.live(*at)) > 1]
        busy = list(self.seen.hash("busy"))
        if what == "busy" and busy:
            self.server.break_(["HDEL", "$key:busy", busy[at % len(busy)]])
        elif what == "turn" and places and at % 2:
            place, line = places[at % len(places)]
            self.server.break_(["ZREM", f"$key:{place}", line])
            if place.startswith("blocked:") and not self.core.command(["EXISTS", f"{self.base}{place}"]):
                self.unblock(*place.split(":")[1:])
        elif what == "entry" and entries:
            lane, line, id = entries[at % len(entries)]
            self.server.break_(["LREM", f"$key:line:{lane}:{line}", "0", id])
            self.server.break_(["HINCRBY", "$key:limited", lane, str(-self.seen.lines[lane, line].count(id))])
        else:
            return
        findings = [row._asdict() for row in Check(self.core).findings()]
        if not findings:
            self.fail("fsck finds nothing")
        self.server.call("repair", result_ttl_ms=LEASE_MS, findings=findings)
        if left := list(Check(self.core).findings()):
            self.fail(f"repair leaves {left}")
        # It came back at the end of its line.
        self.seen = self.server.look()
        self.check("repair")

    def unblock(self, lane: str, bucket: str) -> None:
        lanes = [name for name in json.loads(self.seen.hash("blocked_lanes")[bucket]) if name != lane]
        if lanes:
            self.server.break_(["HSET", "$key:blocked_lanes", bucket, json.dumps(lanes)])
        else:
            self.server.break_(["HDEL", "$key:blocked_lanes", bucket])
            self.server.break_(["ZREM", "$key:opens", bucket])

    @rule(ms=st.sampled_from([INTERVAL_MS // 2, INTERVAL_MS, 3 * INTERVAL_MS]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    # The version before this one.

    @precondition(lambda self: self.has_released)
    @rule(
        what=st.sampled_from(["step", "step", "heartbeat", "abort", "requeue", "enqueue"]), at=NUMBER,
        want=st.sampled_from([1, 10]), takes_token=st.booleans(),
    )  # fmt: skip
    def version_1(self, what: str, at: int, want: int, takes_token: bool) -> None:
        if not self.old:
            self.old["old:1"], self.old_seq = [], 0
            self.server.released("join", worker="old:1", lease_ms=LEASE_MS, lanes=SERVED)
        if what == "step":
            if takes_token and self.server.take_token(SERVED):
                self.is_token_lost = True
            self.old_seq += 1
            outcomes = [{"id": id, "token": token, "outcome": "complete"} for id, token in self.old["old:1"]]
            flat = self.server.released(
                "step", worker="old:1", seq=self.old_seq, lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, lanes=SERVED,
                want=want, outcomes=outcomes,
            )  # fmt: skip
            self.old["old:1"] = self.server.claims_of(flat)
            if limited := [id for id, _ in self.old["old:1"] if self.known.tasks[id].line]:
                self.fail(f"version 1 claims {limited}")
            # What it promoted or took on it has no tokens for.
            self.is_token_lost = True
        elif what == "heartbeat":
            self.server.released("heartbeat", worker="old:1", lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=3)
        elif what == "abort" and (ids := self.unfinished()):
            self.server.released("abort", id=ids[at % len(ids)], result_ttl_ms=LEASE_MS)
        elif what == "requeue" and (dead := list(self.seen.hash("dead"))):
            self.server.released("requeue", tasks=[{"id": dead[at % len(dead)]}])
        elif what == "enqueue":
            self.enqueue_old(f"old{at}")
        self.check(f"version 1: {what}")

    def enqueue_old(self, id: str) -> None:
        if self.seen.tasks.get(id, {}).get("state", "complete") == "complete":
            self.known.tasks[id] = Asked("send", "low", "")
        self.server.released("enqueue", tasks=[{"id": id, "name": "send", "lane": "low", "args": []}])

    # What matters most comes up more often.
    work_again, work_once_more, enqueue_again, put_again = work, work_off, enqueue_some, put_over

    def teardown(self) -> None:
        if hasattr(self, "server") and not self.has_failed:
            self.drain()


def test_limits_hold_under_any_interleaving(server_url: str) -> None:
    RandomLimits.core = Core(server_url, RandomLimits.base)
    soak.walk(lambda number: run_state_machine_as_test(seed(number)(RandomLimits), settings=SETTINGS), 2)
    RandomLimits.core.close()
