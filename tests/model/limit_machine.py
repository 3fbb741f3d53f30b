"""Workers, clients and operators of a queue with limits, one call after the other, and what must hold after each."""

from __future__ import annotations

import json
import time
from math import inf
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize
from limit_batches import Call, batch_problems
from limit_checks import MOST_LOST, Asked, Known, not_in_front, out_of_turn, problems, startable
from limit_model import line_of
from limit_server import Claim, LimitServer
from model_queue import Refused

from ardiq._core import Core

LEASE_MS, INTERVAL_MS = 1_500_000, 100_000
SERVED = ["high", "low"]
"""Lanes that workers serve; the lane `slow` is served by nobody until the end."""
LANES = [*SERVED, "slow"]
CODE: dict[str, dict[str, Any]] = {
    "one": {"concurrency": 1},
    "few": {"concurrency": 3},
    "customer": {"concurrency": 2},
    "rated": {"rate": 1, "per_ms": INTERVAL_MS, "burst": 3},
    "both": {"concurrency": 2, "rate": 2, "per_ms": INTERVAL_MS, "burst": 2},
    "#bill": {"batch_size": 3, "batch_wait_ms": INTERVAL_MS // 2},
    "#send": {"batch_size": 4, "batch_wait_ms": 0},
    "adapts": {"concurrency": 4, "recovery_ms": 10 * INTERVAL_MS},
    "partner": {"concurrency": 6, "rate": 4, "per_ms": INTERVAL_MS, "burst": 3, "recovery_ms": 8 * INTERVAL_MS},
}
WITHOUT_END = 500
LEAST_SHUT_MS = 100


class Worker:
    def __init__(self, lanes: list[str]) -> None:
        self.lanes, self.seq, self.held = lanes, 0, dict[str, str]()
        # It waits for a token, or until the time it was told; else it was woken, or steps again by itself, or is full.
        self.is_idle, self.is_full = False, False
        self.until: float | None = None


class LimitMachine(RuleBasedStateMachine):
    core: Core
    base = "ardiq:{limits}:"

    @initialize()
    def begin(self) -> None:
        self.core.command(["FLUSHALL"])
        self.has_failed = False
        self.server, self.known = LimitServer(self.core, self.base), Known()
        self.has_released = self.server.has_released()
        self.workers: dict[str, Worker] = {}
        self.old: dict[str, list[tuple[str, str]]] = {}
        self.joined, self.fired = 0, 0
        # A worker of the version before took a wake-up token: a heartbeat gives another.
        self.is_token_lost = False
        # A worker died, perhaps the one that was to step again in time.
        self.is_timer_lost = False
        self.seen, self.seen_at = self.server.look(), self.now()
        self.begun: dict[str, tuple[float, float]] = {}
        self.declare(CODE)
        for _ in range(2):
            self.step(self.enter(SERVED), [], 5)

    def now(self) -> float:
        return time.time() * 1000 + self.server.passed_ms

    def fail(self, what: str) -> None:
        self.has_failed = True
        raise AssertionError(f"{what}\n\nTo keep it, in fixtures/:\n{self.server.fixture(what)}")

    # Calls.

    def call(self, function: str, **arguments: Any) -> Any:
        """The reply, or None where it was refused; what must hold afterwards is checked."""
        begin = self.now()
        try:
            reply = self.server.call(function, **arguments)
        except Refused as refused:
            self.check(f"{function}: {refused}")
            return None
        batches = self.server.batches if function in ("step", "claim") else []
        self.claimed(batches, begin, arguments.get("outcomes", []))
        settled = {record["id"]: record["outcome"] for record in arguments.get("outcomes", [])}
        if function in ("release", "leave"):
            held = self.seen.leases.get(arguments["worker"], {}) if function == "leave" else [arguments["id"]]
            settled = dict.fromkeys(held, "release")
        self.check(function, batches, settled)
        return reply

    def claimed(self, batches: list[list[Claim]], begin: float, outcomes: list[Any]) -> None:
        end = self.now() + 1
        for record in outcomes:
            if record["outcome"] == "limited":
                line, details = self.known.tasks[record["id"]].line, record["details"]
                delay_ms = max(details["delay_ms"], LEAST_SHUT_MS)
                for bucket in line_buckets(line, details["limit"]):
                    self.known.limits.shut(bucket, begin + delay_ms, end + delay_ms)
                    if not self.known.limits.slow(bucket, self.begun[record["id"]], (begin, end), delay_ms):
                        # Within one millisecond: the server knows.
                        slowed = self.known.limits.slowed[bucket]
                        slowed.share, slowed.since = self.server.look().share(bucket)
        for claim in [each for batch in batches for each in batch]:
            self.begun[claim.id] = (begin, end)
        for first, *others in batches:
            self.known.followers |= {(claim.id, claim.token) for claim in others}
            if wrong := self.known.limits.started(self.known.tasks[first.id].line, begin - 1, end):
                self.fail(f"claim of {first.id}: {wrong}")

    def check(self, what: str, batches: list[list[Claim]] | None = None, settled: dict[str, str] | None = None) -> None:
        before, begin = self.seen, self.seen_at
        self.seen, self.seen_at = self.server.look(), self.now()
        self.known.now = self.now()
        # A reply names what a task's record has no more: schedules name their tasks themselves.
        for id, record in self.seen.tasks.items():
            if id.startswith("cron:"):
                self.known.tasks.setdefault(id, Asked(record["name"], record["lane"], record.get("buckets", "")))
        claimed = [claim.id for batch in batches or [] for claim in batch]
        is_change = "limit" in what or "reopening" in before.hash("meta")
        by_hand = what in ("purge", "repair")
        call = Call(before, self.seen, self.known, batches or [], begin, self.seen_at, is_change, by_hand)
        wrong = [*problems(before, self.seen, self.known), *batch_problems(call)]
        wrong += out_of_turn(before, self.seen, self.known, claimed, set(settled or ()))
        back = {id for id, outcome in (settled or {}).items() if outcome == "release"}
        wrong += not_in_front(before, self.seen, self.known, back)
        wrong += self.unheard()
        if wrong:
            self.fail(f"{what}: {'; '.join(wrong)}")

    def unheard(self) -> list[str]:
        """Lanes in which something may start, served by workers that all wait to be told, and nobody was."""
        now = self.now()
        for worker in self.workers.values():
            if worker.is_idle and (self.server.take_token(worker.lanes) or now >= (worker.until or now + 1)):
                worker.is_idle = False
        unheard = []
        for lane in SERVED:
            workers = [worker for worker in self.workers.values() if lane in worker.lanes and not worker.is_full]
            if workers and all(worker.is_idle for worker in workers) and not self.is_token_lost:
                found = [id for id in startable(self.seen, self.known, lane, now) if not self.is_by_time(id)]
                # One that is slowed has room by time, too: a worker was told when.
                found += [id for id in startable(self.seen, self.known, lane, now - 1000) if not self.has_rate(id)]
                unheard += [f"{id} may start, and no worker of lane {lane} is woken" for id in dict.fromkeys(found)]
        return unheard + self.untimed()

    def untimed(self) -> list[str]:
        """Lines that gather, while all workers wait to be told, and none of them for that time."""
        if self.old or self.is_timer_lost or self.is_token_lost or not all(w.is_idle for w in self.workers.values()):
            return []
        next_look = min((worker.until or inf for worker in self.workers.values()), default=inf)
        return [
            f"line {line} of lane {lane} gathers, and nobody looks again in time"
            for (lane, line), until in self.known.gathers_until.items()
            if until + 1000 < next_look and any(lane in worker.lanes for worker in self.workers.values())
        ]

    def has_rate(self, id: str) -> bool:
        """Or gathers."""
        asked = self.known.tasks[id]
        rates = ["rate" in self.known.limits.effective(bucket) for bucket in line_buckets(asked.line)]
        return any(rates) or (asked.lane, asked.line) in self.known.gathers_until

    def is_by_time(self, id: str) -> bool:
        """Whether a rate of its line says when it starts: that a timer or a heartbeat sees to."""
        asked = self.known.tasks[id]
        names = {bucket.partition("(")[0] for bucket in line_buckets(asked.line)}
        return (
            (asked.lane, asked.line) in self.known.gathers_until
            or bool(names & {"rated", "both", "partner"})
            or any(self.known.limits.was_shut(bucket) for bucket in line_buckets(self.known.tasks[id].line))
        )

    # Clients and operators.

    def declare(self, code: dict[str, dict[str, Any]]) -> None:
        self.known.limits.code.update(code)
        self.known.limits.changed()
        self.call("limits_declare", limits=[{"name": name, "definition": code[name]} for name in code])

    def put(self, name: str, key: str, definition: dict[str, Any]) -> None:
        limits = self.known.limits
        bucket = line_of([{"name": name, "key": key}])
        together = {**limits.code.get(name, {}), **(limits.overrides.get(name, {}) if key else {}), **definition}
        is_half = ("rate" in together) != ("per_ms" in together) or ("burst" in together and "rate" not in together)
        is_half = is_half or (bool(together.get("recovery_ms")) and not {"concurrency", "rate"} & together.keys())
        if not is_half:
            limits.overrides[bucket] = definition
            limits.changed()
            limits.opened(bucket)
        reply = self.call("limit_put", name=name, key=key, definition=definition)
        if (reply is None) != is_half:
            self.fail(f"{definition} put for {bucket}: {reply}, and together it is {together}")

    def remove(self, name: str, key: str) -> None:
        limits, bucket = self.known.limits, line_of([{"name": name, "key": key}])
        if not limits.overrides.pop(bucket, None) and not key:
            limits.code.pop(name, None)
        limits.changed()
        limits.opened(bucket)
        self.call("limit_remove", name=name, key=key)

    def enqueue(self, tasks: list[dict[str, Any]], in_one_call: bool = False) -> None:
        for some in [tasks] if in_one_call else [[task] for task in tasks]:
            self.enqueue_call(some)

    def enqueue_call(self, tasks: list[dict[str, Any]]) -> None:
        asked: list[tuple[str, Asked | None, list[str]]] = []
        for task in tasks:
            id, uses = task["id"], task["options"].get("limits", [])
            record = self.seen.tasks.get(id, {})
            is_free = record.get("state", "complete") in ("complete", "failed", "aborted", "expired", "discarded")
            unknown = [use["name"] for use in uses if not self.known.limits.is_known(use["name"])]
            asked.append((id, self.known.tasks.get(id), unknown if is_free else []))
            if is_free and not unknown:
                expires = "expire_ms" in task["options"]
                self.known.tasks[id] = Asked(task["name"], task["lane"], line_of(uses), expires)
        answers = self.call("enqueue", tasks=tasks) or []
        for (id, was, unknown), answer in zip(asked, answers, strict=False):
            if was and answer not in ("queued", "scheduled", "limited"):
                self.known.tasks[id] = was  # a dead letter, and it may be requeued
            if unknown and "is not declared" not in answer:
                self.fail(f"limit {unknown} is unknown, and the answer is {answer}")

    # Workers.

    def enter(self, lanes: list[str]) -> str:
        self.joined += 1
        name = f"w:{self.joined}"
        self.workers[name] = Worker(lanes)
        self.call("join", worker=name, lease_ms=LEASE_MS, lanes=LANES)
        return name

    def worker(self, number: int) -> str:
        """One of those that live."""
        if not self.workers:
            self.enter(SERVED)
        return list(self.workers)[number % len(self.workers)]

    def step(self, name: str, outcomes: list[dict[str, Any]], want: int) -> int:
        """Replies how many it got."""
        worker = self.workers[name]
        if want:
            self.server.take_token(worker.lanes)
        for record in outcomes:
            worker.held.pop(record["id"], None)
        worker.seq += 1
        # While the call runs it is not idle.
        worker.is_idle, worker.until = False, None
        reply = self.call(
            "step", worker=name, seq=worker.seq, lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, lanes=worker.lanes,
            want=want, outcomes=outcomes,
        )  # fmt: skip
        if reply is None:
            self.fail(f"{name} is refused")
        worker.held |= {id: token for id, token, _ in reply["claims"]}
        if len(self.server.batches) > want:
            self.fail(f"{name} asked for {want}, and got {self.server.batches}")
        worker.is_full = len(self.server.batches) == want
        worker.is_idle = not worker.is_full and not reply["claims"] and not self.server.more
        self.is_timer_lost = False
        worker.until = self.now() + self.server.wait_ms if self.server.wait_ms >= 0 else None
        if worker.is_idle:
            self.idle_for_nothing(name)
        return len(reply["claims"])

    def repeat_step(self, name: str, outcomes: list[dict[str, Any]], want: int) -> None:
        """The reply was lost: it is told again, and nothing happens."""
        worker, told, was = self.workers[name], self.server.batches, self.seen
        self.server.call(
            "step", worker=name, seq=worker.seq, lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, lanes=worker.lanes,
            want=want, outcomes=outcomes,
        )  # fmt: skip
        if self.server.batches != told:
            self.fail(f"a step got {told}, and the same step again {self.server.batches}")
        worker.is_idle = False
        self.check("the same step again")
        if (was.lines, was.leases) != (self.seen.lines, self.seen.leases):
            self.fail("the same step again changed something")

    def idle_for_nothing(self, name: str) -> None:
        """It asked for more, and got nothing."""
        for lane in self.workers[name].lanes:
            found = startable(self.seen, self.known, lane, self.now() - 1000)
            if not all(self.known.tasks[id].expires for id in found):
                self.fail(
                    f"{name} found nothing to do in lane {lane}, where {found} may start: {self.state_of(found[0])}"
                )

    def state_of(self, id: str) -> str:
        """What the server has of its line."""
        asked = self.known.tasks[id]
        where = self.seen.places().get((asked.lane, asked.line))
        kept = {name: self.seen.hash(name) for name in ("busy", "rates", "opens", "meta", "overrides")}
        return f"{asked} has its turn in {where}; at {self.now() - self.seen.behind_ms:.0f}: {kept}"

    def claim(self, name: str, want: int) -> None:
        worker = self.workers[name]
        reply = self.call("claim", worker=name, lanes=worker.lanes, want=want, result_ttl_ms=LEASE_MS)
        worker.held |= {id: token for id, token, _ in reply or []}
        worker.is_idle = worker.is_full = False

    def beat(self, name: str) -> None:
        self.is_token_lost = False
        self.call("heartbeat", worker=name, lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=MOST_LOST)

    def drop(self, name: str) -> None:
        """It is gone, and with it what it held."""
        self.workers.pop(name)
        self.is_timer_lost = True

    def pass_time(self, ms: int) -> None:
        """Nobody's lease ends meanwhile, but those of the dead."""
        while ms > 0:
            some = min(ms, LEASE_MS // 2)
            self.server.pass_time(some)
            ms -= some
            for name in list(self.workers):
                self.beat(name)
            for name in self.old:
                self.server.released(
                    "heartbeat", worker=name, lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=MOST_LOST
                )
            self.check("time passed")

    # The end.

    def drain(self) -> None:
        """Nothing holds anything up any more: one worker of all lanes gets everything."""
        for name in [*self.workers, *self.old]:
            self.workers.pop(name, None)
            self.call("leave", worker=name, result_ttl_ms=LEASE_MS)
        self.old = {}
        for bucket in list(self.known.limits.overrides):
            name, _, key = bucket.partition("(")
            self.remove(name, KEYS_BY_BUCKET.get(key, ""))
        self.declare(CODE)
        for task in sorted(self.known.paused):
            self.call("resume", task=task, argument="", value="null", limit=1000, resuming=0)
        self.known.paused.clear()
        name = self.enter(LANES)
        self.beat(name)
        for _ in range(WITHOUT_END):
            outcomes = [
                {"id": id, "token": token, "outcome": "complete"} for id, token in self.workers[name].held.items()
            ]
            got = self.step(name, outcomes, 20)
            if got or self.server.more or self.workers[name].held:
                continue
            if not self.is_anything_left():
                break
            # Of the quarantined nobody is told when they have room by time: heartbeats wake somebody for them.
            is_told = self.server.wait_ms >= 0
            if not is_told and not self.is_anything_left().keys() <= {*self.seen.hash("quarantined")}:
                self.fail(f"{self.is_anything_left()} wait, and nobody is told when")
            self.pass_time(self.server.wait_ms + 2 if is_told else INTERVAL_MS)
        else:
            self.fail(f"{self.is_anything_left()} are left")
        self.pass_time(20 * INTERVAL_MS)
        self.step(name, [], 20)
        self.beat(name)
        kinds = ("line", "ring", "blocked", "blocked_lanes", "turns", "limited", "busy", "opens", "slowed")
        if left := [key for key in self.seen.keys if key.split(":")[0] in kinds]:
            self.fail(f"nothing waits or runs, and there are {left}")

    def is_anything_left(self) -> dict[str, str]:
        states = {id: record["state"] for id, record in self.seen.tasks.items()}
        return {
            id: state for id, state in states.items() if state in ("limited", "queued", "scheduled", "held", "running")
        }


KEYS = ["", "1", "2", "a:b*2 (c)"]
KEYS_BY_BUCKET = {line_of([{"name": "x", "key": key}])[2:]: key for key in KEYS if key}


def line_buckets(line: str, name: str = "") -> list[str]:
    """The buckets of a line, or those of one limit."""
    buckets = [part.partition("*")[0] for part in line.split(",") if part]
    return [bucket for bucket in buckets if not name or bucket.partition("(")[0] == name]


def outcome(id: str, token: str, what: str, **details: Any) -> dict[str, Any]:
    return {"id": id, "token": token, "outcome": what, "details": json.dumps(details) if details else ""}
