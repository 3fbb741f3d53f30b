"""Tasks that keep results of steps, wait for signals or for a time, and are sent signals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import rule
from workflow_kept import YEAR_MS, Kept, Memo, Sent
from workflow_machine import INTERVAL_MS
from workflow_roles import Roles
from workflow_server import Looked
from workflow_tasks import Group, Task

TOLERANCE_MS = INTERVAL_MS / 3
NUMBER, AT = st.integers(0, 7), st.integers(0, 999)
NAME = st.sampled_from(["x", "y", "z"])
SIGNALS = st.sampled_from([["s"], ["t"], ["s", "t"], ["t", "s"], []])
WAIT = st.sampled_from([-1, -1, -1, 0, INTERVAL_MS // 2, 5 * INTERVAL_MS // 2])
NONCE = st.sampled_from(["", "1", "2", "3"])
CODEC = st.sampled_from(["", "typed:x"])


class Waiting(Roles):
    @rule(worker=NUMBER, at=AT, name=NAME, codec=CODEC, is_stale=st.sampled_from([False, False, False, True]))
    def checkpoint(self, worker: int, at: int, name: str, codec: str, is_stale: bool) -> None:
        if not (attempt := self._attempt(worker, at, is_stale)):
            return
        kept = self._kept_by(attempt)
        expect = kept.checkpoint(name, codec, f'"é {at}"') if kept else ["stale", "", ""]
        if kept and expect[0] == "stored":
            kept.noted_at = self.model.now
        self.call("checkpoint", **attempt, name=name, codec=codec, value=f'"é {at}"', expect=expect)

    @rule(worker=NUMBER, at=AT, name=NAME, signals=SIGNALS, ms=WAIT, is_stale=st.sampled_from([False, False, True]))
    def wait(self, worker: int, at: int, name: str, signals: list[str], ms: int, is_stale: bool) -> None:
        if attempt := self._attempt(worker, at, is_stale):
            self.wait_with(attempt, name, signals, ms)

    def wait_with(self, attempt: dict[str, str], name: str, signals: list[str], ms: int) -> None:
        # Time alone has an end.
        ms = ms if signals else max(ms, 0)
        kept = self._kept_by(attempt)
        is_new = kept is not None and kept.memos.get(name, Memo("until")).kind == "until"
        expect = kept.wait(name, signals, ms, self.model.now) if kept else ["stale", "", "", ""]
        if kept and is_new:
            kept.noted_at = self.model.now
        refused = "refused" if expect == "refused" else None
        reply = self.call("wait", **attempt, name=name, signals=signals, wait_ms=ms, expect=refused)
        if (reply if isinstance(reply, str) else [reply[0], *reply[2:]]) != expect:
            self.fail(f"wait answers {reply}, and is to answer {expect}")
        deadline = kept.memos[name].deadline if kept and expect[0] == "waits" else inf
        left = float(reply[1]) if not isinstance(reply, str) else -1
        if (left != -1) if deadline == inf else abs(deadline - self.model.now - left) > TOLERANCE_MS:
            self.fail(f"wait answers {reply}, and it is over in {deadline - self.model.now} ms")

    @rule(
        worker=NUMBER, at=AT, name=NAME, signals=SIGNALS, ms=WAIT, want=st.sampled_from([0, 0, 1, 10]),
        between=st.sampled_from(["", "", "", "", "signal", "abort", "time", "nothing", "twice"]),
        then=st.sampled_from(["", "", "signal", "signal", "other", "time"]),
    )  # fmt: skip
    def suspend(
        self, worker: int, at: int, name: str, signals: list[str], ms: int, want: int, between: str, then: str
    ) -> None:
        """An attempt waits, and says so; something else may come between."""
        if not (attempt := self._attempt(worker, at, False)):
            return
        # In a name of its own, or of whatever was there.
        if between != "nothing":
            self.wait_with(attempt, name, signals, ms)
        if between == "signal":
            self.send(attempt["id"], (signals or ["s"])[-1], "", "")
        elif between == "abort":
            self.abort(attempt["id"])
        elif between == "time":
            self.pass_time(INTERVAL_MS)
        outcome = {"id": attempt["id"], "token": attempt["token"], "outcome": "suspend", "value": ""}
        outcomes = [{**outcome, "details": {"wait": name}}] * (1 + (between == "twice"))
        self.step(attempt["worker"], outcomes, want)
        if at % 5 == 0:
            self.repeat_step(attempt["worker"], outcomes, want)
        if then in ("signal", "other"):
            self.send(attempt["id"], (signals or ["s"])[at % 2 - 1] if then == "signal" else "u", "", "")
        elif then == "time":
            self.pass_time(INTERVAL_MS)

    @rule(worker=NUMBER, at=AT, name=NAME)
    def suspend_stale(self, worker: int, at: int, name: str) -> None:
        if attempt := self._attempt(worker, at, True):
            outcome = {"id": attempt["id"], "token": attempt["token"], "outcome": "suspend", "value": ""}
            self.step(attempt["worker"], [{**outcome, "details": {"wait": name}}], 0)

    checkpoint_again, wait_again, suspend_again, suspend_once_more = checkpoint, wait, suspend, suspend

    @rule(
        at=AT,
        name=st.sampled_from(["s", "s", "t", "u"]),
        nonce=NONCE,
        codec=CODEC,
        is_waited_for=st.sampled_from([True, True, False]),
    )
    def signal(self, at: int, name: str, nonce: str, codec: str, is_waited_for: bool) -> None:
        waiting = [task.id for task in self.model.tasks.values() if task.waits_for]
        ids = waiting if waiting and is_waited_for else list(self.model.tasks)
        task = self.model.tasks[ids[at % len(ids)]] if ids else None
        if task and task.waits_for and at % 3:
            name = (task.kept.memos[task.waits_for].signals or [name])[-1]
        self.send(ids[at % len(ids)] if ids else "none", name, nonce, codec, f'"{at} é"')

    signal_again = signal

    @rule(
        worker=NUMBER,
        at=AT,
        memo=NAME,
        signals=SIGNALS,
        sent=st.lists(st.sampled_from(["s", "t"]), min_size=2, max_size=3),
    )
    def signals_before(self, worker: int, at: int, memo: str, signals: list[str], sent: list[str]) -> None:
        """Several come before it waits for one of them."""
        if attempt := self._attempt(worker, at, False):
            for number, name in enumerate(sent):
                self.send(attempt["id"], name, "", "", str(number))
            self.wait_with(attempt, memo, signals, -1)

    def send(self, id: str, name: str, nonce: str, codec: str, value: str = "1") -> None:
        task = self.model.tasks.get(id)
        # One whose time is over may have been promoted already, or not.
        is_asleep = self.seen.tasks.get(id, {}).get("state") == "scheduled"
        expect = self._send(task, Sent(name, codec, value, nonce), is_asleep)
        self.call("signal", id=id, name=name, codec=codec, value=value, nonce=nonce, expect=expect)

    def _send(self, task: Task | None, sent: Sent, is_asleep: bool) -> str:
        if task is None:
            return "not_found"
        if isinstance(task, Group):
            return "refused"
        if task.has_ended:
            return "finished"
        if not task.kept.send(sent):
            return "accepted"
        task.kept.noted_at = self.model.now
        memo = task.kept.memos.get(task.waits_for, Memo("none"))
        if not (is_asleep and sent.name in memo.signals):
            return "stored"
        task.kept.decide(task.waits_for, self.model.now)
        task.waits_for, task.due_at = "", 0
        return "woken"

    def _attempt(self, worker: int, at: int, is_stale: bool) -> dict[str, str] | None:
        """One that a worker holds, or one that it does not hold any more."""
        busy = [name for name, each in self.workers.items() if each.held]
        name = busy[worker % len(busy)] if busy else self.worker(worker)
        if not busy:
            self.step(name, [], 1 + at % 3)
        held = list(self.workers[name].held.items())
        pairs = [pair for pair in self.old if pair not in held] if is_stale else held
        if not pairs:
            return None
        id, token = pairs[at % len(pairs)]
        return {"worker": name, "id": id, "token": token}

    def _kept_by(self, attempt: dict[str, str]) -> Kept | None:
        if self.workers[attempt["worker"]].held.get(attempt["id"]) != attempt["token"]:
            return None
        return self.model.tasks[attempt["id"]].kept

    # What more must hold.

    def decided(self, function: str) -> None:
        super().decided(function)
        for task in self.model.tasks.values():
            is_promoted = self.seen.tasks.get(task.id, {}).get("state") != "scheduled"
            if task.waits_for and task.due_at <= self.model.now and is_promoted:
                task.waits_for = ""
        if wrong := [*kept_wrongly(self.seen, self.model.tasks, self.model.now)]:
            self.fail(f"{function}: {'; '.join(wrong)}")

    # The end.

    def drain(self) -> None:
        """Left is what waits for a signal without a deadline, and what is behind that; once it is sent, nothing."""
        for name in list(self.workers):
            self.leave(name)
        while waiting := self.work_all(self.worker(0)):
            behind = {id.partition("~")[0] for id in waiting}
            for task in self.model.of("blocked", "waiting", "running"):
                if task.id not in waiting and (task.state != "blocked" or task.id.partition("~")[0] not in behind):
                    self.fail(f"{task.id} waits for nobody's signal: {self.seen.tasks.get(task.id)}")
            for id in waiting:
                task = self.model.tasks[id]
                self.send(id, task.kept.memos[task.waits_for].signals[0], "", "")
        super().drain()
        # A call of a map may be kept for as long as nobody discards it.
        if left := [key for key in self.seen.keys if key.partition(":")[0] in ("steps", "signals")]:
            states = {key: self.seen.tasks.get(key.partition(":")[2], {}).get("state") for key in left}
            if left := [key for key, state in states.items() if state != "skipped"]:
                self.fail(f"nobody needs {left} any more")

    def work_all(self, name: str) -> list[str]:
        """One worker completes all that it gets. Replies what waits for a signal without a deadline."""
        for _ in range(1000):
            held = self.workers[name].held.items()
            outcomes = [{"id": id, "token": token, "outcome": "complete", "value": "1"} for id, token in held]
            if self.step(name, outcomes, 20) or self.server.more or self.workers[name].held:
                continue
            tasks = self.model.of("waiting", "running")
            endless = [task.id for task in tasks if self._is_endless(task)]
            if len(endless) == len(tasks):
                return endless
            self.pass_time(INTERVAL_MS)
        self.fail("there is always something left to do")
        raise AssertionError

    def _is_endless(self, task: Task) -> bool:
        return bool(task.waits_for) and task.kept.memos[task.waits_for].deadline == inf


def kept_wrongly(seen: Looked, tasks: dict[str, Task], now: float) -> Iterator[str]:
    for id, task in tasks.items():
        record = seen.tasks.get(id, {})
        if record.get("waits_for", "") != task.waits_for or ("waits_since" in record) != bool(task.waits_for):
            yield f"{id} is to wait for {task.waits_for!r}, and its record is {record}"
        memos = {name: _read(text) for name, text in seen.hash(f"steps:{id}").items()}
        if {name: memo[:3] for name, memo in memos.items()} != {n: _shown(m)[:3] for n, m in task.kept.memos.items()}:
            yield f"{id} keeps {memos}, and is to keep {task.kept.memos}"
        for name, memo in memos.items():
            deadline = task.kept.memos.get(name, memo).deadline
            left = memo.deadline - time.time() * 1000
            if deadline != memo.deadline and not abs(deadline - now - left) < TOLERANCE_MS:
                yield f"{name} of {id} is over in {left}, and is to be in {deadline - now} ms"
        least = YEAR_MS - (now - task.kept.noted_at) - TOLERANCE_MS
        if not task.has_ended and seen.ttls.get(f"waiters:{id}", 0) < least:
            yield f"what {id} keeps is looked for until {seen.ttls.get(f'waiters:{id}')}, and is to be for {least} ms"
        signals = seen.hash(f"signals:{id}")
        fields = sorted((field.split(" ") for field in signals), key=lambda parts: int(parts[0]))
        sent = []
        for at, nonce, name in fields:
            codec, _, value = signals[f"{at} {nonce} {name}"].partition(" ")
            sent += [Sent(name, codec, value, nonce)] if name else []
        if sent != task.kept.sent or {nonce for _, nonce, _ in fields} - {""} != task.kept.nonces:
            yield f"{id} was sent {signals}, and is to have {task.kept.sent}, {task.kept.nonces}"
    asleep = {id for id, record in seen.tasks.items() if record.get("state") == "scheduled"}
    if {*seen.hash("scheduled")} != asleep:
        yield f"scheduled has {seen.hash('scheduled')}, and {asleep} are"
    for key in seen.keys:
        kind, _, id = key.partition(":")
        if kind in ("steps", "signals"):
            if id not in tasks:
                yield f"{key} is of no task"
            elif (seen.ttls[key] == -1) != (seen.ttls.get(f"task:{id}", -1) == -1):
                yield f"{key} is kept for {seen.ttls[key]}, and its task for {seen.ttls.get(f'task:{id}')}"


def _read(text: str) -> Memo:
    kind, codec, value = text.split(" ", 2)
    return Memo(kind, codec, "", float(value or inf)) if kind == "until" else Memo(kind, codec, value)


def _shown(memo: Memo) -> Memo:
    return memo._replace(codec=memo.codec.replace(" ", ""))
