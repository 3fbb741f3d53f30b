"""The protocol restated: which task is where after each call, in plain Python. No Redis here, and no look at the Lua.

A `Queue` is given the calls that a server is given and answers what a server should. It says more than the protocol
does only where users rely on it: the order of a lane, and the front of it for what was handed back. Its clock stands
still but for a millisecond a call and what `pass_time` adds.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FINISHED = ("complete", "failed", "aborted", "expired", "discarded")
WAITING = ("queued", "scheduled", "held")
# For how long a call whose reply was lost finds the task that took its arguments, after that has ended.
REPEAT_MS = 60_000


class Refused(Exception):
    """An error reply: its code."""


@dataclass
class Task:
    id: str
    name: str
    lane: str
    args: list[Any]
    kwargs: dict[str, Any]
    enqueued_at: int
    idempotency_key: str = ""
    state: str = "queued"
    expires_at: float = math.inf
    tries: int = 0
    lost: int = 0
    worker: str = ""
    pause: str = ""
    abort_requested: bool = False
    unknown_since: int | None = None
    result_ttl_ms: int | None = None
    due_at: int | None = None
    unique: str = ""
    replaced_by: str = ""
    progress: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    watched_until: float = 0
    streamed: bool = False
    gone_at: float = math.inf


@dataclass
class Window:
    """The task that has a key for a time."""

    id: str
    gone_at: int


@dataclass
class Waiters:
    """The mailboxes of those who wait for one task; `schedule:<name>` is a schedule."""

    gone_at: float = 0
    names: set[str] = field(default_factory=set)


@dataclass
class Log:
    gone_at: float
    lines: list[str] = field(default_factory=list)


@dataclass
class Stream:
    gone_at: float
    # Token, number, tries, bytes up to it, chunk.
    chunks: list[tuple[int, int, int, int, str]] = field(default_factory=list)


@dataclass
class Worker:
    lease_until: int
    running: dict[str, int] = field(default_factory=dict)
    seq: int = 0
    first_token: int | None = None
    answers: list[tuple[str, int, str]] = field(default_factory=list)
    quarantined: str = ""
    passes: dict[str, int] = field(default_factory=dict)
    offer: Offer | None = None
    handed: int | None = None
    """The first token of what was handed over since the last step."""


@dataclass
class Offer:
    """What a worker would take that has nothing to do."""

    lanes: list[Any]
    want: int
    lease_ms: int
    result_ttl_ms: int


@dataclass
class Pause:
    task: str
    argument: str
    value: Any
    positions: dict[str, int]
    resuming: bool = False


@dataclass
class Schedule:
    definition: dict[str, Any]
    due_at: int
    paused: bool = False
    last_id: str = ""
    last_due_at: int = -1
    caught_up: int = 0
    last_outcome: str = ""


class Queue:
    """Every place of a queue, and the moves between them that calls are made of."""

    def __init__(self) -> None:
        self.now = 0
        self.tasks: dict[str, Task] = {}
        self.lanes: list[str] = []
        self.ready: dict[str, list[str]] = {}
        self.marked: dict[str, set[str]] = {}
        self.scheduled: dict[str, int] = {}
        self.quarantined: dict[str, int] = {}
        self.dead: dict[str, int] = {}
        self.held: dict[str, list[str]] = {}
        self.pauses: dict[str, Pause] = {}
        self.workers: dict[str, Worker] = {}
        self.idle: dict[str, dict[str, int]] = {}
        self.schedules: dict[str, Schedule] = {}
        self.logs: dict[str, Log] = {}
        self.streams: dict[str, Stream] = {}
        self.waiters: dict[str, Waiters] = {}
        self.keys: dict[str, str] = {}
        self.windows: dict[str, Window] = {}
        self.mail: list[tuple[str, ...]] = []
        self.counters: Counter[str] = Counter()
        self.token = 0
        self.last_beat: int | None = None
        self.reap_after = 0
        self.removed = 0
        self._back: list[str] = []
        self._front: list[str] = []

    def call(self, function: str, **arguments: Any) -> Any:
        """What the server should answer; `Refused` where it should refuse."""
        self.now += 1
        self.forget_what_is_over()
        try:
            return getattr(self, function)(**arguments)
        finally:
            self.flush()

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.forget_what_is_over()

    def forget_what_is_over(self) -> None:
        for task in [task for task in self.tasks.values() if task.gone_at <= self.now]:
            self.remove(task)
        self.logs = {id: log for id, log in self.logs.items() if log.gone_at > self.now}
        self.streams = {id: stream for id, stream in self.streams.items() if stream.gone_at > self.now}
        self.windows = {key: each for key, each in self.windows.items() if each.gone_at > self.now}
        self.waiters = {id: each for id, each in self.waiters.items() if each.names and each.gone_at > self.now}

    # Becoming ready, in the order in which it happened in a call; what is handed back goes to the front.

    def make_ready(self, task: Task, front: bool = False) -> None:
        task.state, task.pause, task.worker = "queued", "", ""
        (self._front if front else self._back).append(task.id)
        self.tell_watchers(task)

    def flush(self) -> None:
        back, front = self._back, self._front
        self._back, self._front = [], []
        for ids, at_front in ((back, False), (front, True)):
            for lane in {self.tasks[id].lane for id in ids}:
                self._push(lane, [id for id in ids if self.tasks[id].lane == lane], at_front)

    def _push(self, lane: str, ids: list[str], at_front: bool) -> None:
        # One that lies there still, marked, takes that place instead of a second one.
        new = [id for id in ids if id not in self.marked.get(lane, ())]
        self.marked.get(lane, set()).difference_update(ids)
        entries = self.ready.setdefault(lane, [])
        entries[:] = new + entries if at_front else entries + new

    def pop(self, lane: str, count: int) -> tuple[list[str], int]:
        """Up to `count` entries off the front of a lane: those that count, and how many there were."""
        entries, marked = self.ready.get(lane, []), self.marked.get(lane, set())
        taken, entries[:] = entries[:count], entries[count:]
        skipped = marked & set(taken)
        marked -= skipped
        return [id for id in taken if id not in skipped], len(taken)

    # Ends.

    def end(self, task: Task, state: str, ttl_ms: int) -> None:
        task.state, task.pause = state, ""
        self._free(task)
        if task.result_ttl_ms is not None:
            ttl_ms = task.result_ttl_ms
        self.counters["completed" if state == "complete" else state] += 1
        if state == "failed":
            self.dead[task.id] = self.now
            ttl_ms = -1
        self._tell_waiters(task)
        if ttl_ms == 0:
            self.remove(task)
        elif ttl_ms > 0:
            task.gone_at = self.now + ttl_ms

    def _free(self, task: Task) -> None:
        if self.keys.get(task.unique) == task.id:
            del self.keys[task.unique]
        if task.replaced_by:
            self.windows.setdefault(task.unique, Window(task.id, self.now + REPEAT_MS))

    def remove(self, task: Task) -> None:
        del self.tasks[task.id]
        self.removed += 1

    def take_out(self, task: Task) -> None:
        """Out of the place of a task that waits."""
        if task.state == "scheduled":
            del self.scheduled[task.id]
        elif task.state == "held":
            self.held[task.pause].remove(task.id)
        elif task.id in self.quarantined:
            del self.quarantined[task.id]
        else:
            self.marked.setdefault(task.lane, set()).add(task.id)

    def expire_if_late(self, task: Task, ttl_ms: int) -> bool:
        if task.expires_at > self.now:
            return False
        self.end(task, "expired", ttl_ms)
        return True

    # Who waits is told of the end, and while somebody watches of each change before it.

    def wait_for(self, id: str, name: str, ttl_ms: int) -> None:
        waiters = self.waiters.setdefault(id, Waiters())
        waiters.names.add(name)
        waiters.gone_at = max(waiters.gone_at, self.now + ttl_ms)

    def tell_watchers(self, task: Task, told: tuple[str, ...] = ()) -> None:
        if task.watched_until > self.now and task.id in self.waiters:
            for name in self.waiters[task.id].names:
                if not name.startswith("schedule:"):
                    self.tell_change(task, name, told)

    def tell_change(self, task: Task, name: str, told: tuple[str, ...] = ()) -> None:
        self.mail.append((name, "changed", task.id, task.state, str(task.tries), task.progress, *told))

    def _tell_waiters(self, task: Task) -> None:
        for name in self.waiters.pop(task.id, Waiters()).names:
            if name.startswith("schedule:"):
                schedule = self.schedules.get(name.removeprefix("schedule:"))
                if schedule is not None:
                    schedule.last_outcome = task.state
            else:
                self.mail.append((name, "finished", task.id, task.state, str(task.tries)))

    # What several kinds of calls do.

    def promote(self) -> bool:
        due = sorted((at, id) for id, at in self.scheduled.items() if at <= self.now)[:100]
        for _, id in due:
            del self.scheduled[id]
            self.make_ready(self.tasks[id])
        return len(due) == 100

    def create(self, id: str, name: str, lane: str, args: list[Any], kwargs: dict[str, Any], **more: Any) -> str:
        """A new task under an id whose finished record, if any, makes room."""
        if id in self.tasks:
            self.dead.pop(id, None)
            for told in (self.streams, self.logs):
                told.pop(id, None)
            self.remove(self.tasks[id])
        due_at = more.pop("due_at", 0)
        task = self.tasks[id] = Task(id, name, lane, args, kwargs, self.now, **more)
        self.counters["enqueued"] += 1
        if lane not in self.lanes:
            self.lanes.append(lane)
        if due_at > self.now:
            task.state, self.scheduled[id], task.due_at = "scheduled", due_at, due_at
        else:
            self.make_ready(task)
        return task.state

    def give_back(self, pause_id: str, limit: int) -> int:
        """What is held goes back to the front of its lane, the last of it first. How many went."""
        entries = self.held.get(pause_id, [])
        moved = entries[-limit:]
        entries[:] = entries[: len(entries) - len(moved)]
        for id in moved:
            self.make_ready(self.tasks[id], front=True)
        return len(moved)

    def is_waiting(self, id: str) -> bool:
        return self.is_unfinished(id) and self.tasks[id].state != "running"

    def is_unfinished(self, id: str) -> bool:
        return id in self.tasks and self.tasks[id].state not in FINISHED
