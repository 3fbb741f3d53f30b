"""What recurs: by the hand of operators, or by the code of which several versions may run side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_queue import Queue, Schedule

TIMING = ("spec", "every_ms", "tz")
MINUTE_MS, DAY_MS, WEEK_MS = 60_000, 86_400_000, 604_800_000


@dataclass
class Version:
    """A version of the code: when it came, and when a worker last told that it runs."""

    came_at: int
    seen_at: int


class Schedules(Queue):
    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, Version] = {}
        self.declared_version = ""
        self.declared_names: list[str] = []

    def schedule_put(self, name: str, definition: dict[str, Any], next_due_at: int) -> int:
        """It falls due when it did before, unless its timing changed."""
        before = self.schedules.get(name)
        if before is None:
            self.schedules[name] = Schedule(definition, next_due_at)
        else:
            if any(before.definition.get(each) != definition.get(each) for each in TIMING):
                before.due_at = next_due_at
            before.definition = definition
        return self.schedules[name].due_at

    def schedule_pause(self, name: str, paused: int) -> str:
        if name not in self.schedules:
            return "not_found"
        self.schedules[name].paused = bool(paused)
        return "ok"

    def schedule_remove(self, name: str) -> str:
        return "not_found" if self.schedules.pop(name, None) is None else "removed"

    def schedule_fire(self, name: str, due_at: int, following_at: int, next_due_at: int, headers: str) -> list[Any]:
        """What is fired here fell due long ago."""
        schedule = self.schedules.get(name)
        if schedule is None:
            return ["gone", 0, ""]
        if schedule.due_at != due_at:
            return ["moved", schedule.due_at, ""]
        schedule.due_at = next_due_at
        if schedule.paused:
            return ["paused", next_due_at, ""]
        missed = schedule.definition.get("missed")
        is_enough = missed == "all" and schedule.caught_up >= 100
        if missed not in ("once", "all") or is_enough or due_at <= schedule.last_due_at:
            schedule.caught_up = 0
            return ["skipped", next_due_at, ""]
        if schedule.definition.get("coalesce") and self.is_waiting(schedule.last_id):
            return ["coalesced", next_due_at, ""]
        if missed == "all":
            next_due_at = schedule.due_at = following_at
        id = f"cron:{name}:{due_at}"
        schedule.last_id, schedule.last_due_at = id, due_at
        schedule.caught_up = schedule.caught_up + 1 if missed == "all" else 0
        self.wait_for(id, f"schedule:{name}", WEEK_MS)
        if self.is_unfinished(id):
            return ["exists", next_due_at, id]
        self.create(id, schedule.definition["task"], schedule.definition["lane"], [], {})
        return ["fired", next_due_at, id]

    # By the code: the version that came last counts, of those that run.

    def schedule_declare(self, version: str, starting: int, schedules: list[dict[str, Any]]) -> list[str]:
        if not schedules and not self.declared_version:
            return ["nothing"]
        if not starting:
            self._forgive_silence()
        others = [each for name, each in self.versions.items() if name != version and self._was_seen(each)]
        came_at = max([self.now, *(each.came_at + 1 for each in others)])
        own = self.versions.setdefault(version, Version(came_at, self.now))
        own.seen_at = self.now
        self.versions = {name: each for name, each in self.versions.items() if self._was_seen(each)}
        if any(each.came_at > own.came_at and self._runs(each, self.now) for each in self.versions.values()):
            return ["superseded"]
        if version == self.declared_version and not starting:
            return ["kept"]
        names = [each["name"] for each in schedules]
        gone = [name for name in self.declared_names if name not in names and self._is_of_code(name)]
        for name in gone:
            self.schedule_remove(name)
        for each in schedules:
            self.schedule_put(**each)
        self.declared_version, self.declared_names = version, names
        return ["declared", *gone]

    def _was_seen(self, version: Version) -> bool:
        return self.now - version.seen_at <= DAY_MS

    def _runs(self, version: Version, at: int) -> bool:
        return at - version.seen_at <= MINUTE_MS

    def _forgive_silence(self) -> None:
        """Nobody gave a sign of life for so long that the server was away: what ran when that began runs still."""
        last = max((each.seen_at for each in self.versions.values()), default=0)
        if self.now - last > MINUTE_MS / 2:
            for each in self.versions.values():
                if self._runs(each, last):
                    each.seen_at = self.now

    def _is_of_code(self, name: str) -> bool:
        return name in self.schedules and self.schedules[name].definition.get("source") == "code"
