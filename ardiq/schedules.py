"""Recurring tasks: what recurs, when next, and changing it at run time."""

from asyncio import get_running_loop
from collections.abc import Sequence
from datetime import timedelta, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._codec import from_json, to_json
from ._cron import Timing

if TYPE_CHECKING:
    from .app import Ardiq
    from .job import Job

Rows: TypeAlias = list[tuple[str, int, dict[str, Any]]]

_PAGE = 500
MISSED = ("skip", "once", "all")
"""What becomes of occurrences that nobody fired within a minute: nothing, one for all of them, each of them."""


class Schedule(NamedTuple):
    """A recurring task as the server knows it.

    Attributes:
        name: of the schedule; its tasks have ids `<name>:<due time in ms>`.
        task: name of the task it enqueues.
        spec: its cron expression; None where it has a period.
        every_ms: its period, aligned to the epoch.
        tz: the IANA name of its zone; None for UTC.
        next_due_at: when it falls due next, in ms since the epoch.
        last_due_at: when it did last, or None.
        last_id: id of the task that was enqueued last, or None.
        paused: whether its occurrences pass by.
        coalesce: whether an occurrence is passed over while the one before is unfinished.
        missed: one of `MISSED`.
        source: "code" for `@app.cron`, "runtime" for `app.schedules.put`.
    """

    name: str
    task: str
    spec: str | None
    every_ms: int | None
    tz: str | None
    next_due_at: int
    last_due_at: int | None
    last_id: str | None
    paused: bool
    coalesce: bool
    missed: str
    source: str


class Schedules:
    """The recurring tasks of one app's queue, as `app.schedules`."""

    def __init__(self, app: "Ardiq") -> None:
        self._app = app

    async def list(self) -> list[Schedule]:
        """All schedules, in the order of when they fall due."""
        _, rows = await self.rows()
        return [_schedule(*row) for row in rows]

    async def put(
        self,
        name: str,
        task: str,
        spec: str | None = None,
        *,
        every: timedelta | float | None = None,
        tz: str | tzinfo | None = None,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: str | None = None,
        coalesce: bool = False,
        missed: str = "skip",
    ) -> None:
        """Make a schedule, or change the one of that name. Workers notice within ten seconds.

        Args:
            name: of the schedule.
            task: name of the task to enqueue.
            spec: cron expression of five fields, of six with seconds first, or a nickname such as "@daily".
            every: period instead, a timedelta or seconds, at least 0.1.
            tz: zone of `spec`; None for UTC.
            args: what to call the task with; values that JSON can carry.
            kwargs: likewise.
            priority: its lane.
            coalesce: pass over an occurrence while the one before is unfinished.
            missed: what to do about occurrences that nobody fired in time: "skip", "once" or "all".

        Raises:
            ValueError: an impossible timing, an unknown zone, lane or policy.
            TypeError: an argument that JSON cannot carry.

        Example:
            ```python
            await app.schedules.put("report-7", "report", "0 6 * * mon", tz="Europe/Berlin", args=[7])
            ```
        """
        call = {"args": to_json(list(args)).decode()} | ({"kwargs": to_json(kwargs).decode()} if kwargs else {})
        definition = define(self._app, task, Timing(spec, every, tz), priority, coalesce, missed, "runtime") | call
        await self.store(name, definition)

    async def pause(self, name: str) -> bool:
        """Let its occurrences pass by; False when there is no such schedule."""
        return bool(await self._call("schedule_pause", name, 1) == b"ok")

    async def resume(self, name: str) -> bool:
        """Let it go on; False when there is no such schedule."""
        return bool(await self._call("schedule_pause", name, 0) == b"ok")

    async def remove(self, name: str) -> bool:
        """Remove it; False when there is no such schedule. One declared in code returns with the next worker."""
        return bool(await self._call("schedule_remove", name) == b"removed")

    async def run_now(self, name: str) -> "Job | None":
        """Enqueue its task now, besides its times; None when there is no such schedule."""
        _, rows = await self.rows()
        for row_name, _, definition in rows:
            if row_name == name:
                args, kwargs = from_json(definition.get("args", "[]")), from_json(definition.get("kwargs", "{}"))
                task = self._app.ref(definition["task"], priority=definition["lane"])
                return await task.enqueue(*args, **kwargs)
        return None

    async def rows(self) -> tuple[int, Rows]:
        """The server's time, and name, next due time and definition of each schedule."""
        now, size = 0, _PAGE
        rows: Rows = []
        while size == _PAGE:
            page = await self._call("schedules", len(rows), _PAGE)
            now, size = page[0], len(page) // 3
            for i in range(1, len(page), 3):
                rows.append((page[i].decode(), page[i + 1], from_json(page[i + 2] or b"{}")))
        return now, rows

    async def store(self, name: str, definition: dict[str, Any]) -> None:
        """Put a definition, first due after now."""
        now, _ = await self.rows()
        await self._call("schedule_put", name, to_json(definition), Timing.of(definition).after(now))

    async def fire(self, name: str, due_at: int, next_due_at: int, run: bool) -> str:
        """Ask for one occurrence; what the library answered."""
        answer = await self._call("schedule_fire", name, due_at, next_due_at, int(run))
        return str(answer[0].decode())

    async def _call(self, function: str, *args: str | bytes | int) -> Any:
        return await self._app._broker.line(get_running_loop()).call(function, *args)


def define(
    app: "Ardiq", task: str, timing: Timing, priority: str | None, coalesce: bool, missed: str, source: str
) -> dict[str, Any]:
    """A definition as the server keeps it."""
    if missed not in MISSED:
        raise ValueError(f"missed must be one of {', '.join(MISSED)}, not {missed!r}")
    lane = priority or app.default_priority
    app._producer.check_lane(lane)
    definition = {"task": task, "lane": lane, "source": source, "missed": missed, **timing.describe()}
    return definition | ({"coalesce": True} if coalesce else {})


def _schedule(name: str, due_at: int, definition: dict[str, Any]) -> Schedule:
    return Schedule(
        name,
        definition.get("task", ""),
        definition.get("spec"),
        definition.get("every_ms"),
        definition.get("tz"),
        due_at,
        definition.get("last_due_at"),
        definition.get("last_id"),
        bool(definition.get("paused")),
        bool(definition.get("coalesce")),
        definition.get("missed", "skip"),
        definition.get("source", "runtime"),
    )
