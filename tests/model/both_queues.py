"""One call after the other on the model and on a server, and what must hold after each."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize
from model_queue import FINISHED, Refused
from model_repair import Model
from server_queue import ServerQueue, view_of

from ardiq._core import Core
from ardiq.cli.fsck import Check

LANES = ["high", "low"]
# Durations end between two times at which anything may happen, so that a busy machine changes nothing.
SHORT, LONG = 1_500_000, 10_500_000
# For how long a task rests at first that a worker did not know, and what passes then: no time of anything lies near it.
BRIEF, A_WHILE = 10_000, 44_000


class BothQueues(RuleBasedStateMachine):
    """The two queues, and who is there to make calls. `core` is the server, given before it runs."""

    core: Core
    base = "ardiq:{model}:"

    @initialize()
    def begin(self) -> None:
        self.core.command(["FLUSHALL"])
        self.model, self.server = Model(), ServerQueue(self.core, self.base)
        self.names: list[str] = []
        self.tokens: list[tuple[str, int]] = []
        self.joined = self.named = 0
        self.found: dict[str, Any] = {}
        self.offered_at: float | None = None

    # Who makes calls, and about what.

    def enter(self, lease: int, again: bool = False) -> None:
        self.joined += 1
        name = f"w:{self.joined}"
        self.names.append(name)
        self.both("join", again, worker=name, lease_ms=lease, lanes=LANES)

    def worker(self, number: int) -> str:
        """One of the workers that ever were, the living ones first."""
        if not self.model.workers:
            self.enter(SHORT)
        gone = [name for name in self.names if name not in self.model.workers]
        names = [*self.model.workers, *gone[-2:]]
        return names[number % len(names)]

    def last_step(self, worker: str) -> int:
        """The number of the worker's last step; 0 where there was none."""
        member = self.model.workers.get(worker)
        return member.seq if member else 0

    def held(self, worker: str, number: int) -> tuple[str, int]:
        """A claim: what the worker holds first, then earlier ones, of the same tasks and of others."""
        member = self.model.workers.get(worker)
        running = member.running if member else {}
        claims = sorted(running.items(), key=lambda claim: claim[1])
        earlier = [claim for claim in self.tokens if claim not in claims]
        claims += [*[claim for claim in earlier if claim[0] in running][-1:], *earlier[-1:], ("a", 999)]
        return claims[number % len(claims)]

    # What must hold.

    def both(self, function: str, again: bool = False, **arguments: Any) -> None:
        """Make a call on both; with `again`, once more."""
        if function == "step":
            self.offered_at = self.offered_at or monotonic()
        for _ in range(1 + again):
            # On a busy machine workers might be silent for too long to be handed anything.
            if function == "enqueue" and self.offered_at and monotonic() - self.offered_at > 1:
                self.offered_at = None
                self.pass_time(A_WHILE)
            ready = {lane: list(ids) for lane, ids in self.model.ready.items()}
            told = [_answer(queue, function, arguments) for queue in (self.model, self.server)]
            self.tokens += [(claim[0], claim[1]) for claim in _claims(told[0])]
            if told[0] != told[1]:
                self.fail(f"{function}: the model answers {told[0]}, the server {told[1]}")
            self.check(function, ready)
            # A busy machine could let it end between any two calls.
            if self._ends_soon():
                self.pass_time(A_WHILE)

    def _ends_soon(self) -> bool:
        scheduled, windows = self.model.scheduled.values(), self.model.windows.values()
        # Of a window that is for lost replies alone, that is what is left of it after a while.
        return any(0 < at - self.model.now <= BRIEF for at in scheduled) or any(
            0 < each.gone_at - self.model.now <= 2 * BRIEF for each in windows
        )

    def pass_time(self, ms: int) -> None:
        self.model.pass_time(ms)
        self.server.pass_time(ms)
        self.check("time passed")

    def repair(self, what: str, id: str, ttl: int) -> None:
        """Break something that is whole on the server, and have repaired what fsck finds."""
        if what == "load":
            commands = [["ZADD", "$key:loads", "99", next(iter(self.model.workers), id)]]
        elif what == "ghost":
            commands = self.model.ghost(id)
        else:
            commands = self.model.call("lose", what=what, id=id, result_ttl_ms=ttl)
        for command in commands:
            self.server.break_(command)
        findings = [row._asdict() for row in Check(self.core).findings()]
        if not findings:
            self.fail(f"fsck finds nothing after {commands}")
        self.server.call("repair", result_ttl_ms=ttl, findings=findings)
        left = list(Check(self.core).findings())
        if left:
            self.fail(f"repair leaves {left} of {findings}")
        self.check("repair")

    def check(self, what: str, ready_before: dict[str, list[str]] | None = None) -> None:
        expected, found = view_of(self.model), self.server.view()
        self.model.mail.clear()
        for part, places in expected.items():
            if places != found[part]:
                self.fail(f"{what}: {part}: the model has {places}, the server {found[part]}")
        # What did not move was sound before.
        if found == self.found:
            return
        self.found = found
        created, tasks = found["counters"].get("enqueued", 0), found["tasks"]
        if len(tasks) != created - self.model.removed:
            self.fail(f"{what}: {len(tasks)} tasks, {created} enqueued, {self.model.removed} removed")
        finished = sum(task[1] in FINISHED and task[1] != "failed" for task in tasks.values())
        told = [value if isinstance(value, int) else value.decode() for value in self.core.call("counts", [])]
        counts = dict(zip(told[::2], told[1::2], strict=True))
        placed = sum(counts[place] for place in ("scheduled", "queued", "running", "held", "dead"))
        if placed + finished != len(tasks):
            self.fail(f"{what}: {len(tasks)} tasks, {finished} of them finished, and counts tells {counts}")
        for lane, ids in found["ready"].items():
            is_new = ready_before is not None and not set(ids) <= set(ready_before.get(lane, []))
            if is_new and found["workers"] and "*()" not in found["pauses"] and not found["wake"].get(lane):
                self.fail(f"{what}: lane {lane} got work, and no worker is woken")
        if findings := self.findings(found):
            self.fail(f"{what}: fsck finds {findings}")

    def findings(self, found: dict[str, Any]) -> list[list[str]]:
        sections = ["records"] + [
            place for place in ("scheduled", "quarantined", "dead", "workers", "loads") if found[place]
        ]
        sections += ["schedules", "schedule_due"] if found["schedules"] else []
        sections += [f"ready:{lane}" for lane in found["ready"]] + [f"tombstones:{lane}" for lane in found["marked"]]
        sections += [f"held:{id}" for id in found["held"]]
        sections += [f"running:{name}" for name, held in found["workers"].items() if held]
        rows: list[list[str]] = []
        for section in sections:
            flat = [str(value.decode()) for value in self.core.call("fsck_page", [section, "0", 1000])[2:]]
            rows += [flat[i : i + 3] for i in range(0, len(flat), 3)]
        places = {kind: sorted(row[1:] for row in rows if row[0] == kind) for kind in ("queued", "entry")}
        wrong = [row for row in rows if row[0] not in {*places, "group", "ended"}]
        return wrong if places["queued"] == places["entry"] else [*wrong, ["not_in_ready", json.dumps(places)]]

    def fail(self, what: str) -> None:
        raise AssertionError(f"{what}\n\nTo keep it, in fixtures/:\n{self.server.fixture(what)}")


def _answer(queue: Model | ServerQueue, function: str, arguments: dict[str, Any]) -> Any:
    try:
        return queue.call(function, **arguments)
    except Refused as refused:
        return f"refused: {refused}"


def _claims(told: Any) -> list[Any]:
    claims = told["claims"] if isinstance(told, dict) else told
    return claims if isinstance(claims, list) and claims and isinstance(claims[0], tuple) else []
