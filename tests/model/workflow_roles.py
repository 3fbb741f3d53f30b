"""What clients, operators and workers of a queue with workflows do, each of it of the server and of the model."""

from __future__ import annotations

from typing import Any

from workflow_checks import called_wrongly, shown_wrongly
from workflow_machine import INTERVAL_MS, LANES, LEASE_MS, MAILBOX, MOST_LOST, WITHOUT_END, WorkflowMachine
from workflow_server import record_of
from workflow_tasks import KEPT_MS, Group, Node, Task

from ardiq.cli.fsck import Check


class Roles(WorkflowMachine):
    # Clients and operators.

    def create(self, id: str, nodes: list[Node], output: str, kept_ms: int, call: str) -> None:
        options = {"result_ttl_ms": kept_ms, "output": output, "idempotency_key": call}
        expect = self.model.create(id, nodes, output, kept_ms, call)
        self.call(
            "workflow_create", id=id, options={name: value for name, value in options.items() if value != ""},
            nodes=[record_of(node) for node in nodes], expect=expect,
        )  # fmt: skip

    def enqueue(self, id: str) -> None:
        self.calls += 1
        options = {"idempotency_key": f"call {self.calls}"}
        tasks = [{"id": id, "name": "noop", "lane": "default", "args": [], "options": options}]
        expect = self.model.enqueue(id)
        [answer] = self.call("enqueue", tasks=tasks)
        if (expect == "refused") != answer.startswith("ARDIQ_BAD_ARGUMENT ") or expect not in (answer, "refused"):
            self.fail(f"enqueue of {id} answers {answer}, and is to answer {expect}")

    def abort(self, id: str) -> None:
        task, answer = self.model.tasks.get(id), self.model.abort(id)
        is_left = isinstance(task, Group) and not self.is_at_once
        self.call("abort", id=id, result_ttl_ms=KEPT_MS, expect=None if is_left else answer)

    def abort_and_undo(self, id: str) -> None:
        answer = self.model.abort_and_undo(id)
        self.call("workflow_abort", id=id, expect=answer if self.is_at_once else None)

    def hurry(self, id: str) -> None:
        """It waits for its time no more, if it is that what it waits for."""
        task, state = self.model.tasks.get(id), self.seen.tasks.get(id, {}).get("state", "not_found")
        if task and task.has_ended:
            state = "finished"
        elif task and state == "scheduled":
            state = "waits" if task.waits_for else "limited" if task.node.is_limited else "queued"
            task.due_at = task.due_at if task.waits_for else 0
        self.call("hurry", tasks=[{"id": id}], expect=[state])

    def requeue(self, ids: list[str], other: bool = False) -> None:
        if other and (task := self.model.tasks.get(ids[0])):
            task.args = '["other"]'
            if task.is_dead:
                self.model.forget(task)
            expect = self.model.requeue(ids[0])
            self.call("requeue_with", id=ids[0], args=["other"], expect=expect)
        else:
            answers = [self.model.requeue(id) for id in ids]
            self.call("requeue", tasks=[{"id": id} for id in ids], expect=answers)

    def discard(self, ids: list[str]) -> None:
        answers = [self.model.discard(id) for id in ids]
        self.call("discard", tasks=[{"id": id} for id in ids], result_ttl_ms=KEPT_MS, expect=answers)

    def pause(self, id: str) -> None:
        self.call("workflow_pause", id=id, expect=self.model.pause(id))

    def resume(self, id: str, limit: int = 1000) -> None:
        is_there = f"{id}~*" in self.seen.hash("pauses")
        self.model.paused.discard(id)
        # The rest is for heartbeats.
        answer, _, _ = self.call("workflow_resume", id=id, limit=limit, resuming=0)
        if answer != ("resumed" if is_there else "not_paused"):
            self.fail(f"the end of the pause of {id} is {answer}")

    def lose_dead(self, ids: list[str], is_deleted: bool) -> None:
        """Of a workflow that has ended somebody deletes dead letters, or a version discards them that knows of none."""
        task = self.model.tasks[ids[0]]
        for id in ids:
            self.server.break_(["ZREM", "$key:dead", id])
            if is_deleted:
                self.server.break_(["DEL", f"$key:task:{id}"])
            else:
                self.server.break_(["HSET", f"$key:task:{id}", "state", "discarded"])
                self.server.break_(["PEXPIRE", f"$key:task:{id}", str(KEPT_MS)])
            self.model.lose_dead(id, 0 if is_deleted else KEPT_MS)
        found = [row for row in Check(self.core).findings() if row.kind == "wrong_dead"]
        if [row.id for row in found] != [task.id.partition("~")[0]]:
            self.fail(f"fsck finds {found} without {ids}")
        self.call("repair", result_ttl_ms=KEPT_MS, findings=[row._asdict() for row in found], expect=["mended"])

    def wait_for(self, id: str) -> None:
        task = self.model.tasks.get(id)
        is_asked = task is not None and not task.has_ended
        reply = self.call("await_", id=id, mailbox=MAILBOX, waiter_ttl_ms=1000 * LEASE_MS, result_ttl_ms=KEPT_MS)
        # One that is found to have expired is told of by the answer.
        has_expired = is_asked and task is not None and task.has_ended
        if is_asked and not has_expired:
            self.model.awaited.add(id)
        expect = "finished" if has_expired else "unfinished" if is_asked else "finished" if task else "not_found"
        if (reply if isinstance(reply, str) else reply[0]) != expect:
            self.fail(f"await of {id} answers {reply}, and is to answer {expect}")

    def shown(self, workflow: Group, offset: int, limit: int) -> None:
        """What the queries say."""
        for wrong in shown_wrongly(self.server, self.seen, workflow, offset, limit):
            self.fail(wrong)

    # Workers.

    def worker(self, number: int) -> str:
        return list(self.workers)[number % len(self.workers)]

    def settled(self, name: str, outcomes: list[dict[str, Any]]) -> None:
        """In the model: what a worker says of what it holds."""
        worker = self.workers[name]
        for record in outcomes:
            if worker.held.get(record["id"]) != record["token"]:
                continue
            self.old.append((record["id"], worker.held.pop(record["id"])))
            self.settle(self.model.tasks[record["id"]], record)
        self.model.advance()

    def settle(self, task: Task, record: dict[str, Any]) -> None:
        outcome, details = record["outcome"], record.get("details") or {}
        if outcome == "complete":
            self.model.complete(task, details.get("codec", ""), record["value"])
        elif outcome == "failed":
            self.model.end(task, "failed")
        elif outcome == "aborted" or task.is_stopping:
            self.model.end(task, "aborted")
        elif outcome == "suspend":
            self.model.suspend(task, details["wait"])
        else:
            delay_ms = details.get("delay_ms", 0) if outcome != "release" else 0
            task.state, task.due_at = "waiting", self.model.now + delay_ms if delay_ms else 0
            if outcome != "release":
                task.lost = 0

    def step(self, name: str, outcomes: list[dict[str, Any]], want: int) -> int:
        """Replies how many it got."""
        worker = self.workers[name]
        if want:
            self.server.take_token(LANES)
        worker.is_idle = False
        worker.seq += 1
        self.settled(name, outcomes)
        self.call(
            "step", worker=name, seq=worker.seq, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, lanes=LANES, want=want,
            outcomes=outcomes,
        )  # fmt: skip
        worker.held |= {got.id: got.token for got in self.server.got}
        worker.is_idle = bool(want) and not self.server.got and not self.server.more
        return len(self.server.got)

    def add(self, id: str, key: str, calls: list[Node]) -> None:
        """Adds calls to the open map of a workflow, if it has one."""
        map_id = f"{id}~calls"
        expect = self.model.add(map_id, key, calls)
        there = len(group.members) if isinstance(group := self.model.tasks.get(map_id), Group) else 0
        records = []
        for at, node in enumerate(calls):
            record = record_of(node)
            del record["name"]
            number = there - len(calls) + at if isinstance(expect, list) and expect[0] == "added" else at
            records.append(record | {"args": f'["{map_id}~{number}"]'})
        self.call("workflow_add", id=id, map="calls", key=key, calls=records, expect=expect)

    def seal(self, id: str) -> None:
        self.call("workflow_seal", id=id, expect=self.model.seal(id))

    def open_ones(self) -> list[str]:
        """Workflows with a map that is not sealed."""
        return [
            task.group.id for task in self.model.tasks.values()
            if task.node.is_open and task.group and not task.group.has_ended
        ]  # fmt: skip

    def fill(self, name: str, id: str, token: str, offset: int, count: int) -> None:
        """What holds the task adds some calls to the map behind it, or says so without holding it."""
        task = self.model.tasks[id]
        filled = task.group and task.group.filled_by(task)
        map_id = filled.id if filled else f"{id.rpartition('~')[0]}~n0"
        codecs = ["", "x", "chunk"]
        items = [f'{codecs[number % 3]} [{number}, "{number * "é "}"]' for number in range(offset, offset + count)]
        is_held = self.workers[name].held.get(id) == token
        expect = self.model.fill(id, map_id, offset, items, is_held)
        rows = [dict(zip(("codec", "args"), item.split(" ", 1), strict=True)) for item in items]
        self.call(
            "workflow_fill", worker=name, id=id, token=token, map=map_id.rpartition("~")[2], offset=offset, items=rows,
            expect=expect,
        )  # fmt: skip

    def repeat_step(self, name: str, outcomes: list[dict[str, Any]], want: int) -> None:
        """The reply was lost: it is told again, and nothing happens. Inputs are as they are by now."""
        worker, got, told = self.workers[name], self.server.got, self.seen.keys
        self.server.call(
            "step", worker=name, seq=worker.seq, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, lanes=LANES, want=want,
            outcomes=outcomes,
        )  # fmt: skip
        again, worker.is_idle = self.server.got, False
        self.look()
        if sorted(each[:2] for each in again) != sorted(each[:2] for each in got):
            self.fail(f"a step got {got}, and the same step again {again}")
        for each in again:
            for wrong in called_wrongly(self.model, self.model.tasks[each.id], each):
                self.fail(f"a step got {got}, and the same step again {again}: {wrong}")
        if changed := [key for key in {*told} | {*self.seen.keys} if self.is_changed(key, told)]:
            self.fail(f"the same step again changed {changed}")

    def is_changed(self, key: str, told: dict[str, list[str]]) -> bool:
        of_groups = ("open", "nodes", "items", "results", "failed", "workflows")
        kinds = (*of_groups, "task", "dead", "ready", "scheduled", "steps", "signals")
        return key.partition(":")[0] in kinds and sorted(told.get(key, [])) != sorted(self.seen.keys.get(key, []))

    def claim(self, name: str, want: int) -> None:
        self.call("claim", worker=name, lanes=LANES, want=want, result_ttl_ms=KEPT_MS)
        self.workers[name].held |= {got.id: got.token for got in self.server.got}
        self.workers[name].is_idle = False

    def beat(self, name: str) -> None:
        self.call("heartbeat", worker=name, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, max_lost=MOST_LOST)

    def leave(self, name: str) -> None:
        if len(self.workers) == 1:
            self.enter()
        for id in self.workers.pop(name).held:
            self.settle(self.model.tasks[id], {"outcome": "release"})
        self.call("leave", worker=name, result_ttl_ms=KEPT_MS, expect=0)

    def kill(self, name: str) -> None:
        """Its lease ends while another one lives, and finds it."""
        self.dying[name] = self.workers.pop(name)
        if not self.workers:
            self.enter()
        self.pass_time(2 * LEASE_MS)
        for _ in range(5):
            self.beat(self.worker(0))
        if name in self.dying or name in self.seen.hash("workers"):
            self.fail(f"{name} is dead, and still a member")

    def pass_time(self, ms: int) -> None:
        """Nobody's lease ends meanwhile, but those of the dead; nor the hour in which an open map is to be sealed."""
        for id in self.open_ones():
            self.seal(id)
        while ms > 0:
            some = min(ms, 7 * INTERVAL_MS)
            self.server.pass_time(some)
            self.model.pass_time(some)
            ms -= some
            for name in list(self.workers):
                self.beat(name)

    # The end.

    def drain(self) -> None:
        """One worker completes all there is, and then nothing is left to do."""
        for id in self.open_ones():
            self.seal(id)
        for id in [*self.model.paused]:
            self.resume(id)
        for name in list(self.workers):
            self.leave(name)
        name = self.worker(0)
        for _ in range(WITHOUT_END):
            held = self.workers[name].held.items()
            outcomes = [{"id": id, "token": token, "outcome": "complete", "value": "1"} for id, token in held]
            if self.step(name, outcomes, 20) or self.server.more or self.workers[name].held:
                continue
            if dead := [id for workflow in self.model.workflows for id in workflow.dead_compensations()]:
                self.requeue(dead)
                continue
            if not self.model.of("waiting", "running"):
                break
            self.pass_time(INTERVAL_MS)
        self.beat(name)
        self.nothing_is_left()
        self.discard([task.id for task in self.model.tasks.values() if task.is_dead])
        self.pass_time(2 * KEPT_MS // INTERVAL_MS * INTERVAL_MS)
        kept = {task.id for task in self.model.workflows}
        kept |= {task.id for workflow in self.model.workflows for task in workflow.all_tasks()}
        if left := [id for id in self.seen.tasks if id not in kept]:
            self.fail(f"nobody needs {left} any more")

    def all_is_undone(self) -> None:
        """What completed of a workflow that was undone."""
        for workflow in self.model.workflows:
            for name, compensation in workflow.compensations.items():
                was_due = workflow.members[name].verdict == "complete" and workflow.is_undoing
                if was_due and not workflow.is_final and not compensation.has_ended:
                    self.fail(f"{name} of {workflow.id} is not undone: {compensation}")
                if workflow.state == "complete" and compensation.had_turn:
                    self.fail(f"{workflow.id} is complete, and {name} was undone")

    def nothing_is_left(self) -> None:
        """Of the model, and of what the server says whatever the model thinks."""
        self.all_is_undone()
        if unfinished := self.model.of("blocked", "waiting", "running"):
            self.fail(f"{[(task.id, task.state) for task in unfinished]} are left")
        states = {id: record.get("state") for id, record in self.seen.tasks.items()}
        if left := {id: state for id, state in states.items() if state in ("blocked", "running", "queued", "limited")}:
            self.fail(f"nothing runs, and these never will: {left}")
        skipped = {f"items:{task.id}" for task in self.model.of("skipped") if isinstance(task, Group)}
        kinds = ("open", "items", "undo", "chores", "workflows", "pauses", "held")
        if left := {key for key in self.seen.keys if key.split(":")[0] in kinds} - skipped:
            self.fail(f"all workflows ended, and there are {left}")
