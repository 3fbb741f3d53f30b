"""Calls of a queue with workflows, one after the other, and what must hold after each."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, initialize
from model_queue import Refused
from workflow_checks import called_wrongly, problems
from workflow_model import Flows
from workflow_server import WorkflowServer, netstrings
from workflow_tasks import KEPT_MS

from ardiq._core import Core

LEASE_MS, INTERVAL_MS = 1_500_000, 100_000
MOST_LOST = 3
"""Workers that may die with a task before it is a dead letter."""
LANES, MAILBOX = ["default"], "client:1"
WITHOUT_END = 1_000


class Worker:
    def __init__(self) -> None:
        self.seq, self.held = 0, dict[str, str]()
        # It waits for a token.
        self.is_idle = False


class WorkflowMachine(RuleBasedStateMachine):
    core: Core
    base = "ardiq:{flows}:"
    is_at_once = True
    """Whether a call does all that follows from it."""

    @initialize()
    def begin(self) -> None:
        self.core.command(["FLUSHALL"])
        self.has_failed, self.joined, self.calls = False, 0, 0
        self.server, self.model = WorkflowServer(self.core, self.base), self.new_model()
        self.workers: dict[str, Worker] = {}
        self.dying: dict[str, Worker] = {}
        self.old: list[tuple[str, str]] = []
        self.server.call("limits_declare", limits=[{"name": "two", "definition": {"concurrency": 2}}])
        self.seen = self.server.look()
        for _ in range(2):
            self.enter()

    def new_model(self) -> Flows:
        return Flows()

    def enter(self) -> str:
        self.joined += 1
        name = f"w:{self.joined}"
        self.workers[name] = Worker()
        self.call("join", worker=name, lease_ms=LEASE_MS, lanes=LANES)
        return name

    def fail(self, what: str) -> None:
        self.has_failed = True
        raise AssertionError(f"{what}\n\nTo keep it, in fixtures/:\n{self.server.fixture(what)}")

    # Calls.

    def call(self, function: str, *, expect: Any = None, **arguments: Any) -> Any:
        """The reply; what the server decides is taken from what it shows, the rest must be as in the model."""
        # Until it is through: after an error nothing is drained.
        self.has_failed = True
        held, paused = self.held(), {*self.model.paused}
        try:
            reply = self.server.call(function, **arguments)
        except Refused as refused:
            reply = "refused"
            if expect != reply:
                self.fail(f"{function} is refused: {refused}")
        letters = self.look()
        if function in ("step", "claim"):
            self.claimed()
        self.decided(function)
        self.model.close()
        if wrong := [*problems(self.model, self.seen)]:
            self.fail(f"{function}: {'; '.join(wrong)}")
        if sorted(letters) != sorted(self.model.told):
            self.fail(f"{function}: {MAILBOX} is told {letters}, and is to be told {self.model.told}")
        self.model.told.clear()
        if expect is not None and reply != expect:
            self.fail(f"{function} answers {reply}, and is to answer {expect}")
        self.check_awake(function)
        if wrongly := [id for id in self.held() - held if id.partition("~")[0] not in paused]:
            self.fail(f"{function}: {wrongly} are held, and paused is {paused}")
        self.has_failed = False
        return reply

    def held(self) -> set[str]:
        return {id for id, record in self.seen.tasks.items() if record.get("state") == "held"}

    def look(self) -> list[tuple[str, str]]:
        """What is there once the chores are done. Replies what the client was told."""
        for _ in range(WITHOUT_END):
            if not self.server.has_chores():
                break
            name = next(iter(self.workers))
            self.server.call("heartbeat", worker=name, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, max_lost=MOST_LOST)
        else:
            self.fail("chores are never done")
        self.seen, letters = self.server.look(), list[tuple[str, str]]()
        for letter in self.seen.keys.get(f"mailbox:{MAILBOX}", []):
            _, id, *outcome = netstrings(letter)
            # A large result is to be asked for.
            letters.append((id, outcome[0] if outcome else "complete"))
        return letters

    def claimed(self) -> None:
        wrong = []
        for got in self.server.got:
            task = self.model.tasks.get(got.id)
            if not task or task.state != "waiting" or task.due_at > self.model.now:
                self.fail(f"{got.id} was claimed, and is to be {task and task.state}")
                raise AssertionError
            if self.model.is_paused(task):
                wrong.append(f"{got.id} was claimed, and its workflow is paused")
            if task.expires_at <= self.model.now:
                wrong.append(f"{got.id} was claimed, and is to have expired")
        # Of one call: what one brings is as the others are then.
        for got in self.server.got:
            task = self.model.tasks[got.id]
            wrong += called_wrongly(self.model, task, got)
        for got in self.server.got:
            task = self.model.tasks[got.id]
            task.state, task.waits_for = "running", ""
        if wrong:
            self.fail("; ".join(wrong))

    def decided(self, function: str) -> None:
        """What has expired, was purged, or lost its worker: the model takes it from the server."""
        for task in [*self.model.tasks.values()]:
            record = self.seen.tasks.get(task.id, {})
            # A call of a map may have its place already.
            is_other = not task.group and "kind" not in record and "idempotency_key" not in record
            state = None if is_other else record.get("state")
            if task.state == "waiting" and task.expires_at <= self.model.now and state in ("expired", None):
                self.model.end(task, "expired")
            can_be = function in ("purge", "discard_old") and (task.state == "waiting" or task.is_dead)
            if can_be and state in ("discarded", None):
                self.model.end(task, "discarded")
        for name, worker in [*self.dying.items()]:
            for id in [id for id in worker.held if id not in self.seen.leases.get(name, {})]:
                del worker.held[id]
                self.model.lose(self.model.tasks[id], MOST_LOST)
            if not worker.held:
                del self.dying[name]

    def check_awake(self, function: str) -> None:
        """Something may start, and all workers wait to be told."""
        ready = [id for id in self.seen.keys.get("ready:default", []) if self.is_queued(id)]
        if ready and all(worker.is_idle for worker in self.workers.values()) and "wake:default" not in self.seen.keys:
            self.fail(f"{function}: {ready} are ready, and no worker is woken")

    def is_queued(self, id: str) -> bool:
        return self.seen.tasks.get(id, {}).get("state") == "queued"
