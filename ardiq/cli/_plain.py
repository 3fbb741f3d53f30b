"""What `app.inspect` returns, in the words of `--json`."""

from collections.abc import Sequence
from typing import Any

from ..inspection import (
    LaneInfo,
    LimitInfo,
    MinuteCounts,
    QueueCounts,
    RunningTask,
    TaskTotals,
    UnknownTask,
    WorkerInfo,
)
from ..limits import definition_of
from ..schedules import Schedule

MINUTES = 5
COUNTS = ("queued", "limited", "scheduled", "running", "held", "quarantined", "dead")
_COUNTERS = ("enqueued", "completed", "failed", "retried", "aborted", "expired", "discarded", "lost")


def plain_counts(counts: QueueCounts) -> dict[str, int]:
    """How many tasks are where."""
    return {name: getattr(counts, name) for name in COUNTS}


def plain_lane(lane: LaneInfo) -> dict[str, Any]:
    """A lane; `held` are those that workers have taken, as in ArdiQ 1.2."""
    plain = lane._asdict()
    held, scheduled, next_scheduled = (plain.pop(name) for name in ("claimed", "scheduled", "next_due_at"))
    return {**plain, "held": held, "scheduled": scheduled, "next_scheduled": next_scheduled}


def plain_worker(worker: WorkerInfo) -> dict[str, Any]:
    """A worker; `held` are the tasks that it has taken, as in ArdiQ 1.2."""
    renamed = {"worker": "id", "claimed": "held"}
    return {renamed.get(name, name): value for name, value in worker._asdict().items()}


def plain_running(task: RunningTask) -> dict[str, Any]:
    """A task that runs."""
    renamed = {"task_id": "id", "fn_name": "name", "tries": "try"}
    plain = {renamed.get(name, name): value for name, value in task._asdict().items()}
    return plain | {"progress": None if task.progress is None else task.progress._asdict()}


def plain_unknown(task: UnknownTask, now_ms: int) -> dict[str, Any]:
    """A task that a worker does not know."""
    return {"name": task.fn_name, "seen_ms": max(0, now_ms - task.seen_at)}


def plain_schedule(schedule: Schedule) -> dict[str, Any]:
    """A schedule."""
    outcome = schedule.last_outcome
    return schedule._asdict() | {"last_outcome": None if outcome is None else outcome._asdict()}


def plain_limit(limit: LimitInfo) -> dict[str, Any]:
    """A limit, or one key of it."""
    plain, rate = limit._asdict(), limit.rate
    told = {"rate": None, "per_ms": None, "burst": None} if rate is None else definition_of(None, rate)
    return {**plain, **told}


def plain_minute(minute: MinuteCounts) -> dict[str, Any]:
    """What was counted in one minute."""
    return {name: getattr(minute, name) for name in ("at", *_COUNTERS)}


def last_minutes(minutes: Sequence[MinuteCounts]) -> dict[str, int]:
    """What was counted in some minutes in all."""
    return {name: sum(getattr(minute, name) for minute in minutes) for name in _COUNTERS}


def plain_totals(task: TaskTotals) -> dict[str, Any]:
    """How often a task ran, and for how long."""
    return {"name" if name == "fn_name" else name: value for name, value in task._asdict().items()}


def done(progress: dict[str, Any]) -> str:
    """How far a task is, as it told."""
    fraction = progress.get("fraction")
    told = fraction if isinstance(fraction, int | float) else 0
    return f"{told:.0%} {progress.get('message', '')}".strip()
