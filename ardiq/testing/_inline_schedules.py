"""The rules of the Lua library about schedules, restated for `inline`; see `_inline_library`."""

from collections.abc import Callable
from hashlib import sha1
from typing import Any

from .._execution.endings import COMPLETE
from .._values.codec import from_json, to_json
from ._inline_library import InlineLibrary, InlineTask, short

_TIMING = ("spec", "every_ms", "tz")
_WAITER = "schedule:"
_MOST_MADE_UP = 100
_KEPT = ("last_id", "last_due_at", "last_outcome", "made_up", "paused")


class InlineSchedules:
    """Schedules in memory: definitions, and when each falls due."""

    def __init__(self, library: InlineLibrary) -> None:
        self._library = library
        library.on_end = self._tell
        self._definitions: dict[str, dict[str, Any]] = {}
        self._declared: list[str] = []
        self.due: dict[str, int] = {}
        self.functions: dict[str, Callable[..., Any]] = {
            "schedules": self.schedules, "schedules_due": self.schedules_due, "schedule_put": self.put,
            "schedule_declare": self.declare, "schedule_fire": self.fire, "schedule_pause": self.pause,
            "schedule_remove": self.remove,
        }  # fmt: skip

    def schedules(self, _cursor: bytes, _limit: int) -> list[Any]:
        """All schedules, as one page."""
        return [b"0", *self._rows(list(self.due))]

    def schedules_due(self, offset: int, limit: int) -> list[Any]:
        """The time, when the next schedule will be due, and a page of those that are."""
        now_ms = self._library.now_ms()
        due = [name for name in self._in_order() if self.due[name] <= now_ms]
        following = min((at for at in self.due.values() if at > now_ms), default=-1)
        return [now_ms, following, *self._rows(due[offset : offset + limit])]

    def declare(self, _version: str, start: int, *records: Any) -> list[bytes]:
        """Put what the code declares; there is one version of it."""
        names = list(records[::3])
        if not names and not self._declared:
            return [b"nothing"]
        if not start:
            return [b"kept"]
        gone = [name for name in self._declared if name not in names and self._is_declared(name)]
        for name in gone:
            self.remove(name)
        for i, name in enumerate(names):
            self.put(name, records[3 * i + 1], records[3 * i + 2])
        self._declared = names
        return [b"declared", *(name.encode() for name in gone)]

    def put(self, name: str, packed: bytes, next_due_at: int) -> int:
        """Make a schedule or change one; when it falls due next."""
        before, definition = self._definitions.get(name), from_json(packed)
        is_same = before is not None and all(before.get(field) == definition.get(field) for field in _TIMING)
        kept = {field: before[field] for field in _KEPT if before and field in before}
        self._definitions[name] = definition | kept
        if not is_same:
            self.due[name] = next_due_at
        return self.due[name]

    def fire(self, name: str, due_at: int, next_due_at: int, run: int, headers: str) -> list[Any]:
        """Enqueue one occurrence, or pass it over, and move on to the next."""
        definition, at = self._definitions.get(name), self.due.get(name)
        if definition is None or at is None:
            return [b"gone", 0, b""]
        if at != due_at:
            return [b"moved", at, b""]
        if due_at > self._library.now_ms():
            return [b"early", at, b""]
        self.due[name] = next_due_at
        if definition.get("paused"):
            return [b"paused", next_due_at, b""]
        made_up = definition.pop("made_up", 0) if run == 0 else definition.get("made_up", 0)
        is_past = due_at <= definition.get("last_due_at", -1)
        if run == 0 or is_past or (run == 2 and made_up >= _MOST_MADE_UP):
            return [b"skipped", next_due_at, b""]
        tasks, task_id = self._library.tasks, f"cron:{name}:{due_at}"
        last = tasks.get(definition.get("last_id", "")) if definition.get("coalesce") else None
        if last is not None and last.is_unfinished and last.state != "running":
            return [b"coalesced", next_due_at, b""]
        definition.update(last_id=task_id, last_due_at=due_at, made_up=made_up + 1 if run == 2 else 0)
        exists = task_id in tasks and tasks[task_id].is_unfinished
        args, kwargs = definition.get("args") or "[]", definition.get("kwargs") or ""
        self._library.waiters[task_id] = _WAITER + name
        headers = headers or definition.get("headers", "")
        fields = {"headers": headers} if headers else {}
        options = to_json({"due_at": due_at + _offset(definition, task_id), **fields})
        self._library.enqueue(task_id, definition["task"], definition["lane"], args.encode(), kwargs.encode(), options)
        return [b"exists" if exists else b"fired", next_due_at, task_id.encode()]

    def pause(self, name: str, paused: int) -> bytes:
        """Pause a schedule or let it go on."""
        if name not in self._definitions:
            return b"not_found"
        self._definitions[name].pop("paused", None)
        if paused:
            self._definitions[name]["paused"] = True
        return b"ok"

    def remove(self, name: str) -> bytes:
        """Remove a schedule."""
        self.due.pop(name, None)
        return b"not_found" if self._definitions.pop(name, None) is None else b"removed"

    def _in_order(self) -> list[str]:
        return sorted(self.due, key=lambda name: (self.due[name], name))

    def _rows(self, names: list[str]) -> list[Any]:
        return [part for name in names for part in (name.encode(), self.due[name], to_json(self._definitions[name]))]

    def _is_declared(self, name: str) -> bool:
        return self._definitions.get(name, {}).get("source") == "code"

    def _tell(self, task: InlineTask) -> None:
        waiter = self._library.waiters.pop(task.id, "")
        definition = self._definitions.get(waiter.removeprefix(_WAITER)) if waiter.startswith(_WAITER) else None
        if definition is None:
            return
        outcome = {
            "id": task.id,
            "state": task.state,
            "tries": task.number("tries"),
            "finished_at": task.number("finished_at"),
        }
        if task.state != COMPLETE:
            outcome["error"] = short(task.record["error"])
        definition["last_outcome"] = outcome


def _offset(definition: dict[str, Any], task_id: str) -> int:
    jitter_ms: int = definition.get("jitter_ms", 0)
    return int(sha1(task_id.encode()).hexdigest()[:12], 16) % (jitter_ms + 1)
