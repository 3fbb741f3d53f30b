"""The rules of the Lua library about schedules, restated for `inline`; see `_inline_library`."""

from collections.abc import Callable
from typing import Any

from ._codec import from_json, to_json
from ._inline_library import InlineLibrary

_TIMING = ("spec", "every_ms", "tz")
_KEPT = ("last_id", "last_due_at", "paused")


class InlineSchedules:
    """Schedules in memory: definitions, and when each falls due."""

    def __init__(self, library: InlineLibrary) -> None:
        self._library = library
        self._definitions: dict[str, dict[str, Any]] = {}
        self.due: dict[str, int] = {}
        self.functions: dict[str, Callable[..., Any]] = {
            "schedules": self.schedules, "schedule_put": self.put, "schedule_fire": self.fire,
            "schedule_pause": self.pause, "schedule_remove": self.remove,
        }  # fmt: skip

    def schedules(self, offset: int, limit: int) -> list[Any]:
        """The time, and a page of schedules in the order of when they fall due."""
        names = sorted(self.due, key=lambda name: (self.due[name], name))[offset : offset + limit]
        rows = [(name.encode(), self.due[name], to_json(self._definitions[name])) for name in names]
        return [self._library.now_ms(), *(part for row in rows for part in row)]

    def put(self, name: str, packed: bytes, next_due_at: int) -> int:
        """Make a schedule or change one; when it falls due next."""
        before, definition = self._definitions.get(name), from_json(packed)
        is_same = before is not None and all(before.get(field) == definition.get(field) for field in _TIMING)
        kept = {field: before[field] for field in _KEPT if before and field in before}
        self._definitions[name] = definition | kept
        if not is_same:
            self.due[name] = next_due_at
        return self.due[name]

    def fire(self, name: str, due_at: int, next_due_at: int, run: int) -> list[Any]:
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
        if not run or due_at <= definition.get("last_due_at", -1):
            return [b"skipped", next_due_at, b""]
        tasks, task_id = self._library.tasks, f"{name}:{due_at}"
        last = tasks.get(definition.get("last_id", "")) if definition.get("coalesce") else None
        if last is not None and last.is_unfinished:
            return [b"coalesced", next_due_at, b""]
        definition.update(last_id=task_id, last_due_at=due_at)
        exists = task_id in tasks and tasks[task_id].is_unfinished
        args, kwargs = definition.get("args") or "[]", definition.get("kwargs") or ""
        self._library.enqueue(task_id, definition["task"], definition["lane"], args.encode(), kwargs.encode(), b"")
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
