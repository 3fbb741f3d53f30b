"""Calls with the same key: what becomes of one that finds a task in its way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from model_queue import WAITING, Task, Window
from model_schedules import Schedules


@dataclass
class Call:
    """A call that is no repeat of one that became a task. `more`: what else the task would have."""

    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    rule: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return str(self.more["idempotency_key"]) or self.id


class Keys(Schedules):
    def admit(self, call: Call) -> str | None:
        """An answer, or None: it is a new task."""
        rule, key = call.rule, call.rule["key"]
        by_time = "ttl_ms" in rule or "per_ms" in rule
        replaces = "quiet_ms" in rule or rule.get("on_conflict") == "replace"
        window = self.windows.get(key) if by_time or (replaces and key not in self.keys) else None
        holder = window.id if window else "" if by_time else self.keys.get(key, "")
        if not holder:
            return None
        task = self.tasks.get(holder)
        if task and task.unique != key:
            task = None
        if task and task.replaced_by == call.identity:
            return f"replaced {holder}"
        if window and not by_time:
            return None
        waits = task is not None and self._waits(task)
        if "per_ms" in rule:
            return self._throttle(call, holder, task)
        runs = task is not None and task.state == "running"
        if not (by_time or waits or (runs and rule.get("until") == "finish")):
            return None
        if rule.get("on_conflict") == "reject":
            return f"ARDIQ_DUPLICATE not enqueued: the key {key} belongs to the task {holder}"
        if not replaces or not waits or task is None:
            return f"exists {holder}"
        due_at = call.more.get("due_at", self.now)
        if "most_ms" in rule:
            due_at = min(due_at, (self.now if task.tries else task.enqueued_at) + rule["most_ms"])
        return self._replace(call, task, max(due_at, self.now))

    def _throttle(self, call: Call, holder: str, task: Task | None) -> str | None:
        if call.rule.get("trailing") is False:
            return f"exists {holder}"
        left_ms = self.windows[call.rule["key"]].gone_at - self.now
        if task and task.due_at is not None and task.tries == 0:
            if self._waits(task):
                return self._replace(call, task, None)
            if not self.is_unfinished(task.id):
                left_ms = max(left_ms - call.rule["per_ms"], 1)
        call.more["due_at"] = self.now + left_ms
        return None

    def _waits(self, task: Task) -> bool:
        return task.state in WAITING and task.expires_at > self.now

    def _replace(self, call: Call, task: Task, due_at: int | None) -> str:
        task.args, task.kwargs, task.replaced_by = call.args, call.kwargs, call.identity
        task.expires_at = call.more.get("expires_at", math.inf)
        task.result_ttl_ms = call.more.get("result_ttl_ms")
        if task.tries:
            task.tries, task.enqueued_at = 0, self.now
        if task.state == "scheduled" and due_at is not None:
            task.due_at = self.scheduled[task.id] = due_at
        return f"replaced {task.id}"

    def added(self, call: Call) -> None:
        """It has become a task, which has the key."""
        rule, key = call.rule, call.rule["key"]
        length = rule.get("ttl_ms") or rule.get("per_ms")
        if length:
            begins = call.more.get("due_at", self.now) if "per_ms" in rule else self.now
            self.windows[key] = Window(call.id, begins + length)
        else:
            self.keys[key] = call.id
