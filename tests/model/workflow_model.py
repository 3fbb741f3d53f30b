"""Workflows restated: which member is where after each call, as sets in plain Python. No Redis, no look at the Lua.

What a follower waits for and whether anything broke is asked anew of all members, never noted. Ends of one call count
at once; what follows from them is the next wave of ends.
"""

from __future__ import annotations

from math import inf
from typing import Any

from workflow_kept import Kept
from workflow_tasks import KEPT_MS, Group, Node, Task

LENIENT = ("ignore", "continue", "only")
WINDOW = 2000


def added(call: Task) -> str:
    """The arguments of a call that was added to an open map."""
    return f'["{call.id}"]'


class Flows:
    def __init__(self) -> None:
        self.now = 0.0
        self.tasks: dict[str, Task] = {}
        self.awaited: set[str] = set()
        self.paused: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self._ended: list[Task] = []
        self._touched: list[Group] = []

    @property
    def workflows(self) -> list[Group]:
        return [task for task in self.tasks.values() if isinstance(task, Group) and not task.group]

    def of(self, *states: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.state in states]

    def dead(self, workflow: Group) -> int:
        return sum(task.is_dead or task.runs_in_vain for task in workflow.all_tasks())

    # Clients.

    def enqueue(self, id: str) -> str:
        known = self.tasks.get(id)
        if known and (known.group or isinstance(known, Group) or not known.has_ended):
            return "exists"
        if isinstance(self.tasks.get(id.rpartition("~")[0]), Group):
            return "refused"
        self.tasks[id] = Task(id)
        return "queued"

    def create(self, id: str, nodes: list[Node], output: str, kept_ms: int, call: str) -> str:
        if known := self.tasks.get(id):
            if not isinstance(known, Group):
                return "refused"
            return "accepted" if known.call == call != "" else "kept" if known.has_ended else "exists"
        if any(f"{id}~{node.name}" in self.tasks for node in nodes):
            return "refused"
        workflow = Group(id, state="blocked", has_begun=True, output=output, kept_ms=kept_ms, call=call)
        self.tasks[id] = workflow
        for node in nodes:
            kind = Task if node.items is None else Group
            member = kind(f"{id}~{node.name}", workflow, node, "blocked")
            if isinstance(member, Group):
                member.items = list(node.items or [])
            workflow.members[node.name] = self.tasks[member.id] = member
        for member in workflow.members.values():
            self._look(member)
        self.advance()
        return "created"

    def fill(self, id: str, map_id: str, offset: int, items: list[str], is_held: bool) -> list[Any] | str:
        """A page of calls for a map."""
        task, group = self.tasks.get(id), self.tasks.get(map_id)
        if not isinstance(group, Group):
            return ["not_found", 0]
        if not group.is_map or not task or group.node.filled_by != task.name:
            return "refused"
        there = group.node.items or []
        if not is_held:
            return ["stale", len(there)]
        if offset + len(items) <= len(there):
            return ["accepted", len(there)]
        if group.state not in ("blocked", "skipped") or group.has_begun:
            return ["ended", len(there)]
        if offset != len(there):
            return "refused"
        group.node.items = there + items
        group.items += items
        return ["added", len(group.node.items)]

    def add(self, map_id: str, key: str, calls: list[Node]) -> list[Any] | str:
        """Calls of an open map."""
        group = self.tasks.get(map_id)
        if not isinstance(group, Group):
            return ["not_found", 0]
        if key in group.keys:
            return ["accepted", len(group.members)]
        if group.state != "blocked" or group.is_stopping:
            return ["ended", len(group.members)]
        if any(f"{map_id}~{len(group.members) + at}" in self.tasks for at in range(len(calls))):
            return "refused"
        group.keys.add(key)
        for node in calls:
            node.name = str(len(group.members))
            call = Task(f"{map_id}~{node.name}", group, node)
            group.node.items = [*(group.node.items or []), f"{node.codec} {added(call)}"]
            group.members[node.name] = self.tasks[call.id] = call
            self._begin(call)
        return ["added", len(group.members)]

    def seal(self, id: str) -> str:
        workflow = self.tasks.get(id)
        if not isinstance(workflow, Group) or workflow.group:
            return "not_found"
        open_maps = [each for each in workflow.members.values() if isinstance(each, Group) and each.node.is_open]
        if workflow.state != "blocked" or not open_maps:
            return "accepted"
        for each in open_maps:
            each.node.is_open = False
            self._touched.append(each)
        self.advance()
        return "sealed"

    def abort(self, id: str) -> str:
        task = self.tasks.get(id)
        if not task:
            return "not_found"
        if task.has_ended:
            return "aborted" if task.state == "aborted" else "finished"
        if isinstance(task, Group) and task.has_begun:
            self._stop(task, is_final=True)
        elif task.state == "running":
            task.is_stopping = True
        else:
            self.end(task, "aborted")
        self.advance()
        return "aborted" if task.state == "aborted" else "requested"

    def abort_and_undo(self, id: str) -> str:
        workflow = self.tasks.get(id)
        if not isinstance(workflow, Group) or workflow.group:
            return "not_found"
        if workflow.has_ended:
            return "aborted" if workflow.state == "aborted" else "finished"
        self._stop(workflow)
        self.advance()
        return "aborted" if workflow.has_ended else "requested"

    def requeue(self, id: str) -> str:
        task = self.tasks.get(id)
        if not task or not task.is_dead:
            return "not_dead"
        task.state, task.due_at, task.expires_at, task.lost, task.is_stopping = "waiting", 0, inf, 0, False
        group = task.group
        if group and group.is_undoing and group.undo[:1] == [task.name]:
            task.verdict = ""
            return "queued"
        while group and group.state in ("blocked", "failed") and not (group.is_stopping or group.is_undoing):
            group = group.group
        if not group and task.group:
            self._reopen(task)
        self.advance()
        return "queued"

    def pause(self, id: str) -> str:
        workflow = self.tasks.get(id)
        if not isinstance(workflow, Group) or workflow.group:
            return "not_found"
        if workflow.has_ended:
            return "finished"
        self.paused.add(id)
        return "paused"

    def is_paused(self, task: Task) -> bool:
        return task.group is not None and task.id.partition("~")[0] in self.paused

    def discard(self, id: str) -> str:
        task = self.tasks.get(id)
        if not task or not task.is_dead:
            return "not_dead"
        self.end(task, "discarded")
        return "discarded"

    def lose_dead(self, id: str, kept_ms: int) -> None:
        """Nobody is told."""
        task = self.tasks[id]
        task.state, task.gone_at = "discarded", self.now + kept_ms
        self.pass_time(0)

    def close(self) -> None:
        """A call is over."""
        self.advance()

    def forget(self, task: Task) -> None:
        """What it kept."""
        task.kept = Kept()

    def keep_all(self, workflow: Group) -> None:
        for task in [workflow, *workflow.members.values()]:
            self._keep(task, workflow.kept_ms)

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.tasks = {id: task for id, task in self.tasks.items() if task.gone_at > self.now}

    # What follows.

    def end(self, task: Task, state: str) -> None:
        """It has ended; `advance` says what follows."""
        task.state, task.waits_for = state, ""
        if state not in ("failed", "skipped"):
            task.kept = Kept()
        if task.id in self.awaited:
            self.awaited.remove(task.id)
            self.told.append((task.id, state))
        if isinstance(task, Group):
            task.items = [] if state == "aborted" else task.items
            task.node.is_open = False
        if isinstance(task, Group) and not task.group:
            self.paused.discard(task.id)
        if task.group:
            self._ended.append(task)
        group = task.group
        if group is None and not isinstance(task, Group) and state != "failed":
            task.gone_at = self.now + KEPT_MS
        elif group and group.group and state != "failed":
            # Of a map's call that completed there is the result.
            is_gone = state == "complete" and not group.has_ended
            self._keep(task, 0 if is_gone else group.group.kept_ms)

    def _keep(self, task: Task, kept_ms: int) -> None:
        if kept_ms >= 0:
            task.gone_at = self.now + kept_ms

    def complete(self, task: Task, codec: str, value: str) -> None:
        task.result = (codec, value)
        # One that runs again although its map is through has a result of its own.
        is_call = task.group is not None and task.group.is_map and not task.group.has_ended
        if is_call and task.group and task.group.node.keeps_results:
            task.group.results[task.name] = f"{codec} {value}"
        self.end(task, "complete")

    def suspend(self, task: Task, name: str) -> None:
        """It waits for what one of its waits says, if it is to; it did start in time."""
        task.state, task.due_at, task.expires_at, task.lost = "waiting", task.kept.due_at(name, self.now), inf, 0
        task.waits_for = name if task.due_at else ""

    def lose(self, task: Task, most: int) -> None:
        """Its worker died."""
        task.lost += 1
        if task.is_stopping:
            self.end(task, "aborted")
        elif task.lost > most:
            self.end(task, "failed")
        else:
            task.state = "waiting"

    def advance(self) -> None:
        for group in self.of("blocked"):
            if isinstance(group, Group) and group.is_map and group.has_begun:
                self._make(group)
        while self._ended or self._touched:
            ended, touched, self._ended, self._touched = self._ended, self._touched, [], []
            # Maps go on first, whatever else the call brings; one that ends by that does so with it.
            for group in {task.group: None for task in ended if task.group and task.group.is_map}:
                if completed := [task for task in ended if task.group is group and task.state == "complete"]:
                    self._settle(group, completed)
                    self._end_if_through(group)
            ended, self._ended = [*ended, *self._ended], []
            for group in {task.group: None for task in ended if task.group}:
                self._settle(group, [task for task in ended if task.group is group])
                self._end_if_through(group)
            for group in touched:
                self._end_if_through(group)
        for workflow in self.workflows:
            if workflow.has_ended and workflow.gone_at == inf and not self.dead(workflow):
                self.keep_all(workflow)
        self.pass_time(0)

    def _settle(self, group: Group, ended: list[Task]) -> None:
        ended = [task for task in ended if task.name in group.open]
        for task in ended:
            task.verdict = task.state
            if task.verdict == "complete" and not group.is_undoing and task.name in group.compensations:
                compensation = group.compensations[task.name]
                group.undo.insert(0, compensation.name)
                if compensation.state == "skipped":
                    compensation.state = "blocked"
        if group.is_stopping or group.is_undoing:
            return
        if group.is_map:
            if ended:
                self._make(group)
            return
        is_cancelled = False
        for task in ended:
            for name, policy in group.followers(task).items():
                if policy in LENIENT:
                    group.members[name].fates.setdefault(task.name, self._fate_for_good(task, policy))
                elif policy == "cancel" and task.verdict != "complete" and not task.is_unneeded:
                    is_cancelled = True
        for member in group.members.values():
            self._look(member)
        if is_cancelled:
            group.is_cancelled = True
            self._stop(group)

    def _fate_for_good(self, task: Task, policy: str) -> str:
        if task.verdict == "complete" or task.is_unneeded:
            return "unneeded" if policy == "only" else "met"
        return "begins" if policy == "continue" else "met"

    def _fates(self, member: Task) -> list[str]:
        """What is with each of the edges that it comes after."""
        assert member.group
        fates = []
        for name, policy in member.node.after.items():
            task = member.group.members[name]
            if policy in LENIENT:
                fates.append(member.fates.get(name, "open"))
            elif task.verdict in ("", "complete"):
                fates.append("met" if task.verdict else "open")
            else:
                fates.append("unneeded" if task.is_unneeded else "broken")
        return fates

    def _look(self, member: Task) -> None:
        """Whether it begins now, or never."""
        if member.state != "blocked" or member.node.undoes or (isinstance(member, Group) and member.has_begun):
            return
        fates = self._fates(member)
        if "unneeded" in fates or "broken" in fates:
            member.is_unneeded = "unneeded" in fates
            self.end(member, "skipped")
        elif "begins" in fates or set(fates) <= {"met"}:
            self._begin(member)

    def _begin(self, member: Task) -> None:
        if isinstance(member, Group):
            member.has_begun = True
            self._make(member)
            self._touched.append(member)
            return
        member.state, member.due_at = "waiting", self.now + member.node.delay_ms if member.node.delay_ms else 0
        member.expires_at = self.now + member.node.expire_ms if member.node.expire_ms else inf

    def _make(self, group: Group) -> None:
        while group.items and len(group.open) < (group.node.window or WINDOW):
            name = str(len(group.members))
            call = Task(f"{group.id}~{name}", group, Node(name, is_limited=group.node.is_limited))
            # A task that is no part of it has the id.
            if (other := self.tasks.get(call.id)) and not other.has_ended:
                return
            group.members[name] = self.tasks[call.id] = call
            group.items.pop(0)

    def _stop(self, group: Group, is_final: bool = False) -> None:
        ends_all = is_final and group.compensations and not group.is_final
        if group.state != "blocked" or (not ends_all and (group.is_stopping or group.is_undoing)):
            return
        group.is_stopping, group.items, group.is_final = True, [], is_final
        for name in group.open:
            member = group.members[name]
            if isinstance(member, Group) and member.has_begun:
                self._stop(member)
            elif member.state == "running":
                member.is_stopping = True
            elif not member.has_ended:
                self.end(member, "aborted")
        self._touched.append(group)

    def _end_if_through(self, group: Group) -> None:
        if group.state != "blocked" or not group.has_begun or group.open or group.items:
            return
        if group.node.is_open and not group.is_stopping:
            return
        group.result = ("", "null")
        output = group.members.get(group.output)
        if group.is_stopping:
            state = "failed" if group.is_cancelled and not group.is_final else "aborted"
        elif group.is_map:
            tolerate = group.node.tolerate
            bears = int(tolerate * len(group.node.items or [])) if tolerate < 1 else tolerate
            state = "failed" if len(group.missing) > bears else "complete"
        elif sum(self._is_unborne(group, task) for task in group.members.values()) > group.node.tolerate or (
            output and output.verdict != "complete"
        ):
            state = "failed"
        else:
            state = "complete"
            if output and not isinstance(output, Group):
                group.result = output.result
        if state != "complete" and not group.is_final and self._undo(group):
            return
        self.end(group, state)
        group.undo = []
        for compensation in group.compensations.values():
            if compensation.state == "blocked":
                self.end(compensation, "skipped")

    def _undo(self, group: Group) -> bool:
        """Whether a compensation is left that runs, or has to."""
        while group.undo:
            compensation = group.members[group.undo[0]]
            if compensation.state == "failed" or not compensation.has_ended:
                group.is_undoing = True
                if compensation.state == "blocked":
                    compensation.had_turn = True
                    self._begin(compensation)
                return True
            group.undo.pop(0)
        return False

    def _is_unborne(self, group: Group, task: Task) -> bool:
        policies = group.followers(task).values()
        is_strict = not policies or any(policy not in LENIENT for policy in policies)
        return task.verdict not in ("complete", "skipped") and is_strict and not task.node.undoes

    def _reopen(self, task: Task) -> None:
        task.verdict, group = "", task.group
        assert group
        if group.state == "failed":
            group.state = "blocked"
            if group.group:
                self._reopen(group)
        for member in group.members.values():
            if member.verdict == "skipped" and not {"broken", "unneeded"} & set(self._fates(member)):
                member.state, member.verdict = "blocked", ""
        for member in group.members.values():
            self._look(member)
