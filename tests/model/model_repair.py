"""What somebody breaks by hand, and what `repair` makes of it: nothing that was whole is lost."""

from __future__ import annotations

from model_queue import WAITING, Task
from model_workers import Workers

# What takes an entry out of a place.
TAKE_OUT = {"running": "HDEL", "ready": "LREM", "tombstones": "SREM"}
# The field of a record that says where a task lies, by its place.
SAYS_WHERE = {"running": "worker", "held": "pause", "quarantined": "lost", "scheduled": "due_at"}
Command = list[str]


class Model(Workers):
    """The whole protocol; see `model_queue`."""

    def place_of(self, task: Task) -> str:
        """The key in which a task has its entry; empty where it needs none."""
        if task.state == "queued":
            return "quarantined" if task.id in self.quarantined else f"ready:{task.lane}"
        if task.state in ("held", "running"):
            return f"{task.state}:{task.pause or task.worker}"
        return {"scheduled": "scheduled", "failed": "dead"}.get(task.state, "")

    def ghost(self, id: str) -> list[Command]:
        """The task gets entries in all places that are not its own."""
        own = self.place_of(self.tasks[id]) if id in self.tasks else ""
        places = [["ZADD", f"$key:{place}", "1", id] for place in ("scheduled", "dead", "quarantined") if place != own]
        places += [["HSET", f"$key:running:{name}", id, "999"] for name in self.workers if own != f"running:{name}"]
        places += [["ZADD", f"$key:held:{pause}", "1", id] for pause in self.pauses if own != f"held:{pause}"]
        return places + [["SADD", f"$key:tombstones:{own[6:]}", id]] * own.startswith("ready:")

    def lose(self, what: str, id: str, result_ttl_ms: int) -> list[Command]:
        """The task's record, its entry, or where it is by its record is lost; and repaired."""
        task = self.tasks[id]
        place = self.place_of(task)
        kind = place.partition(":")[0]
        entry = [TAKE_OUT.get(kind, "ZREM"), f"$key:{place}", *(["0"] if kind == "ready" else []), id]
        if what == "record" and kind != "ready":
            self._forget(task, kind)
            self.remove(task)
            return [["DEL", f"$key:task:{id}"]]
        if what == "field" and kind in SAYS_WHERE:
            self._put_right(task, kind, result_ttl_ms, knows_where=False)
            field = ["HDEL", f"$key:task:{id}", SAYS_WHERE[kind]]
            return [field, entry] if kind == "scheduled" else [field]
        self._put_right(task, kind, result_ttl_ms)
        return [entry]

    def _forget(self, task: Task, kind: str) -> None:
        if task.state in WAITING:
            self.take_out(task)
        elif kind == "running":
            del self.workers[task.worker].running[task.id]
        else:
            del self.dead[task.id]

    def _put_right(self, task: Task, kind: str, ttl_ms: int, knows_where: bool = True) -> None:
        if kind == "running":
            self._forget(task, kind)
            self._hand_back(task, ttl_ms, None)
        elif kind == "held":
            self._forget(task, kind)
            self.make_ready(task, front=True)
        elif kind == "quarantined" and knows_where:
            self.quarantined[task.id] = self.now
        elif kind == "quarantined":
            # Nothing tells that it is one.
            del self.quarantined[task.id]
            task.lost = 0
            self._back.append(task.id)
        elif kind == "ready":
            self.ready[task.lane].remove(task.id)
            self._back.append(task.id)
        elif kind == "scheduled" and not knows_where:
            self.scheduled[task.id], task.due_at = self.now, None
