"""What clients and operators may ask for: enqueue, abort, wait, dead letters, purge, pauses."""

from __future__ import annotations

import json
from typing import Any

from model_keys import Call, Keys
from model_queue import FINISHED, WAITING, Pause, Task

# A call of more tasks hands none over.
MOST_HANDED = 16
DEAD_PLACES = {"held": "held", "quarantined": "queued", "scheduled": "scheduled", "dead": "failed"}


RULES = ("unique", "debounce", "throttle")


class Clients(Keys):
    def enqueue(self, tasks: list[dict[str, Any]]) -> list[str]:
        before = {id: task.idempotency_key for id, task in self.tasks.items()}
        unfinished = {id for id in before if self.is_unfinished(id)}
        answers: list[str] = []
        seen: set[str] = set()
        added = self.counters["enqueued"]
        lanes = list(dict.fromkeys(each["lane"] for each in tasks))
        is_offered = not any(self.ready.get(lane) for lane in lanes)
        is_offered &= not any(_may_be_scheduled(each.get("options", {})) for each in tasks)
        asked = 0
        for each in tasks:
            id, options = each["id"], each.get("options", {})
            key = options.get("idempotency_key", "")
            if id in seen:
                answer = "exists"
            elif id in before and before[id] == key:
                answer = "accepted"
            elif id in unfinished:
                answer = "exists"
            else:
                more: dict[str, Any] = {"idempotency_key": key}
                if "delay_ms" in options:
                    more["due_at"] = self.now + options["delay_ms"]
                if "result_ttl_ms" in options:
                    more["result_ttl_ms"] = options["result_ttl_ms"]
                if "expire_ms" in options:
                    more["expires_at"] = self.now + options["expire_ms"]
                asked += 1
                rule = next((options[name] for name in RULES if name in options), None)
                call = Call(id, each["args"], each["kwargs"] or {}, rule or {}, more)
                if rule:
                    more["unique"] = rule["key"]
                    if "quiet_ms" in rule:
                        more["due_at"] = self.now + rule["quiet_ms"]
                instead = self.admit(call) if rule else None
                if instead:
                    answers.append(instead)
                    seen.add(id)
                    continue
                answer = self.create(id, each["name"], each["lane"], call.args, call.kwargs, **more)
                if rule:
                    self.added(call)
            seen.add(id)
            answers.append(answer)
            if "waiter" in options:
                if answer == "accepted" and not self.is_unfinished(id):
                    task = self.tasks[id]
                    self.mail.append((options["waiter"], "finished", id, task.state, str(task.tries)))
                else:
                    self.wait_for(id, options["waiter"], options["waiter_ttl_ms"])
        added = self.counters["enqueued"] - added
        if is_offered and added and asked <= MOST_HANDED:
            self.hand_off(lanes, asked, added)
        return answers

    def hand_off(self, lanes: list[str], asked: int, count: int) -> None:
        """So many tasks came, of those asked for, in these lanes: who has nothing to do may get them at once."""
        raise NotImplementedError

    def abort(self, id: str, result_ttl_ms: int) -> str:
        task = self.tasks.get(id)
        if task is None:
            return "not_found"
        if task.state in FINISHED:
            return "aborted" if task.state == "aborted" else "finished"
        if task.state == "running":
            task.abort_requested = True
            token = self.workers[task.worker].running[id]
            self.mail.append((f"{task.worker}:1", "abort", id, str(token)))
            return "requested"
        self.take_out(task)
        self.end(task, "aborted", result_ttl_ms)
        return "aborted"

    def hurry(self, tasks: list[dict[str, str]]) -> list[str]:
        return [self._hurry(each["id"]) for each in tasks]

    def _hurry(self, id: str) -> str:
        task = self.tasks.get(id)
        if task is None:
            return "not_found"
        if task.state == "scheduled":
            del self.scheduled[id]
            task.due_at = self.now
            self.make_ready(task)
        return "finished" if task.state in FINISHED else task.state

    def await_(self, id: str, mailbox: str, waiter_ttl_ms: int, result_ttl_ms: int) -> list[str]:
        task = self.tasks.get(id)
        if task is None:
            return ["not_found"]
        if task.state in WAITING and task.expires_at <= self.now:
            self.take_out(task)
            self.end(task, "expired", result_ttl_ms)
        if task.state in FINISHED:
            return ["finished", task.state]
        self.wait_for(id, mailbox, waiter_ttl_ms)
        return ["unfinished", task.state]

    def watch(self, id: str, mailbox: str, waiter_ttl_ms: int, result_ttl_ms: int) -> list[str]:
        answer = self.await_(id, mailbox, waiter_ttl_ms, result_ttl_ms)
        if answer[0] == "unfinished":
            task = self.tasks[id]
            task.watched_until = max(task.watched_until, self.now + waiter_ttl_ms)
            self.tell_change(task, mailbox)
        return answer

    def stop_waiting(self, id: str, mailbox: str) -> int:
        names = self.waiters[id].names if id in self.waiters else set()
        was_there = mailbox in names
        names.discard(mailbox)
        return int(was_there)

    # Dead letters.

    def requeue(self, tasks: list[dict[str, str]]) -> list[str]:
        return [self._revive(each["id"]) for each in tasks]

    def requeue_with(self, id: str, args: list[Any]) -> str:
        if id in self.dead:
            self.tasks[id].unique = self.tasks[id].replaced_by = ""
        answer = self._revive(id)
        if answer == "queued":
            task = self.tasks[id]
            task.args, task.kwargs = args, {}
        return answer

    def _revive(self, id: str) -> str:
        task = self.tasks.get(id)
        if task is None or task.state != "failed":
            return "not_dead"
        del self.dead[id]
        fresh = Task(id, task.name, task.lane, task.args, task.kwargs, self.now, task.idempotency_key)
        fresh.watched_until, fresh.result_ttl_ms = task.watched_until, task.result_ttl_ms
        fresh.unique, fresh.replaced_by = task.unique, task.replaced_by
        if fresh.unique:
            self.keys.setdefault(fresh.unique, id)
        self.tasks[id] = fresh
        self.counters["requeued"] += 1
        self.make_ready(fresh)
        return "queued"

    def discard(self, tasks: list[dict[str, str]], result_ttl_ms: int) -> list[str]:
        answers = []
        for each in tasks:
            is_dead = self.dead.pop(each["id"], None) is not None
            if is_dead:
                self._discard(each["id"], result_ttl_ms)
            answers.append("discarded" if is_dead else "not_dead")
        return answers

    def _discard(self, id: str, ttl_ms: int) -> None:
        task = self.tasks[id]
        task.lost, task.abort_requested, task.worker = 0, False, ""
        task.progress, task.notes, task.watched_until = "", {}, 0
        self.end(task, "discarded", ttl_ms)
        task.args, task.kwargs, task.due_at, task.unique, task.replaced_by = [], {}, None, "", ""

    def discard_old(self, dead_ttl_ms: int, dead_limit: int, limit: int, result_ttl_ms: int) -> list[int]:
        by_age = sorted((at, id) for id, at in self.dead.items())
        too_old = sum(at <= self.now - dead_ttl_ms for at, _ in by_age) if dead_ttl_ms > 0 else 0
        count = max(len(by_age) - dead_limit if dead_limit >= 0 else 0, too_old, 0)
        for _, id in by_age[: min(count, limit)]:
            del self.dead[id]
            self._discard(id, result_ttl_ms)
        return [min(count, limit), int(count > limit)]

    def purge(self, place: str, which: str, offset: int, limit: int, result_ttl_ms: int) -> list[int]:
        passed = 0
        if place == "queued":
            ids, looked = self.pop(which, limit)
        elif place == "held":
            entries = self.held.get(which, [])
            ids, entries[:] = entries[:limit], entries[limit:]
            looked = len(ids)
        elif place == "scheduled" and which:
            last_first = [id for _, id in sorted(((at, id) for id, at in self.scheduled.items()), reverse=True)]
            page = last_first[offset : offset + limit]
            ids, looked = [id for id in page if self.tasks[id].lane == which], len(page)
            passed = looked - len(ids)
            for id in ids:
                del self.scheduled[id]
        else:
            entries_at: dict[str, int] = getattr(self, place)
            ids = [id for _, id in sorted((at, id) for id, at in entries_at.items())[:limit]]
            looked = len(ids)
            for id in ids:
                del entries_at[id]
        for id in ids:
            self._discard(id, result_ttl_ms)
        return [len(ids), int(looked == limit), passed]

    # Pauses.

    def pause(self, task: str, argument: str, value: Any, positions: dict[str, int]) -> str:
        id = _pause_id(task, argument, value)
        before = self.pauses.get(id)
        if before is None or before.resuming:
            before = self.pauses[id] = Pause(task, argument, value, {})
        if argument:
            before.positions = {**positions, **before.positions}
        return "paused"

    def resume(self, task: str, argument: str, value: Any, limit: int, resuming: int) -> list[Any]:
        id = _pause_id(task, argument, value)
        rule = self.pauses.get(id)
        if resuming and not (rule and rule.resuming):
            return ["not_paused", 0, 0]
        if rule is None and not self.held.get(id):
            return ["not_paused", 0, 0]
        moved = self.give_back(id, limit)
        left = bool(self.held.get(id))
        if left:
            rule = rule or Pause(task, argument, value, {})
            rule.resuming, self.pauses[id] = True, rule
        else:
            self.pauses.pop(id, None)
        return ["resumed", moved, int(left)]


def _pause_id(task: str, argument: str, value: Any) -> str:
    return f"{task or '*'}({argument}={json.dumps(value)})" if argument else f"{task or '*'}()"


def _may_be_scheduled(options: dict[str, Any]) -> bool:
    replaces = options.get("unique", {}).get("on_conflict") == "replace"
    return replaces or any(name in options for name in ("delay_ms", "debounce", "throttle"))
