"""Show an app's queue: its lanes, workers, running tasks and schedules, and how much was done in the last minutes."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from .._server.replies import number
from .._values.timing import Timing
from ..inspection import WorkerInfo
from ..schedules import Schedule
from . import open_app
from ._arguments import app_argument, json_argument, watch_argument
from ._output import Part, Styled, Table, age, many, moment, present
from ._plain import (
    MINUTES,
    done,
    last_minutes,
    plain_counts,
    plain_lane,
    plain_minute,
    plain_running,
    plain_schedule,
    plain_unknown,
    plain_worker,
)

if TYPE_CHECKING:
    from ..app import Ardiq

_MOST_RUNNING = 10
_MOST_SCHEDULES = 10
_MOST_UNKNOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    watch_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    present(lambda: read(app), _draw, as_json=arguments.json, every_s=arguments.watch)
    return 0


def read(app: "Ardiq") -> dict[str, Any]:
    """The state of the app's queue as `--json` shows it; times are in ms."""
    inspect = app.inspect
    overview, workers, schedules = inspect.overview_sync(MINUTES), inspect.workers_sync(), app.schedules.list_sync()
    now_ms, due_at = overview.at, overview.next_due_at
    return {
        "queue": app.queue_name,
        "now": now_ms,
        "counts": plain_counts(overview.counts),
        "pauses": [pause._asdict() for pause in app.pauses_sync()],
        "unknown_tasks": [plain_unknown(task, now_ms) for task in inspect.unknown_tasks_sync()],
        "next_due_in_ms": None if due_at is None else due_at - now_ms,
        "lanes": [plain_lane(lane) for lane in inspect.lanes_sync(workers, overview)],
        "workers": [_worker_of(worker) for worker in workers if worker.is_alive],
        "gone": [_worker_of(worker) for worker in workers if not worker.is_alive],
        "running": [plain_running(task) for task in inspect.running_sync(_MOST_RUNNING, workers)],
        "schedules": [
            plain_schedule(schedule) | {"due_in_ms": schedule.next_due_at - now_ms} for schedule in schedules
        ],
        "crons": _crons(app, schedules, now_ms),
        "dead": overview.counts.dead,
        "last_minutes": last_minutes(overview.minutes),
        "minutes": [plain_minute(minute) for minute in overview.minutes],
    }


def _worker_of(worker: WorkerInfo) -> dict[str, Any]:
    """A worker, also with the names of ArdiQ 1.2."""
    return {**plain_worker(worker), "started": worker.started_at}


def _crons(app: "Ardiq", schedules: list[Schedule], now_ms: int) -> list[dict[str, Any]]:
    """The schedules in the code, as ArdiQ 1.2 shows them, including those that no worker has declared yet."""
    found = {schedule.name: _cron(schedule) for schedule in schedules if schedule.source == "code"}
    for name, definition in app.context.crons.items():
        found.setdefault(name, {"name": name, "next": Timing.of(definition).after(now_ms), "last": None})
    return [found[name] for name in sorted(found)]


def _cron(schedule: Schedule) -> dict[str, Any]:
    last, outcome = None, schedule.last_outcome
    if outcome is not None:
        ways = {"complete": "succeeded", "aborted": "aborted"}
        fire = number(str(outcome.id).rpartition(":")[2])
        last = {
            "fire": fire,
            "outcome": ways.get(outcome.state, "failed"),
            "tries": outcome.tries,
            "finished": outcome.finished_at,
        }
    return {"name": schedule.name, "next": schedule.next_due_at, "last": last}


def _draw(status: dict[str, Any]) -> list[Part]:
    parts: list[Part] = [Styled(f"queue {status['queue']} at {time.strftime('%H:%M:%S')}", "bold")]
    counts = status["counts"]
    parts.append(", ".join(f"{counts[name]:,} {name}" for name in ("queued", "scheduled", "running", "dead")))
    if counts["limited"]:
        parts.append(
            f"{many(counts['limited'], 'more waits', 'more wait')} for limits, which `ardiq limits list` shows, or in "
            "batches that are not full"
        )
    if counts["held"]:
        parts.append(Styled(f"{counts['held']:,} held by a pause", "yellow"))
    if counts["quarantined"]:
        few = many(counts["quarantined"], "of the queued ones is", "of the queued ones are")
        note = f"{few} suspected of killing their worker"
        parts.append(Styled(note, "yellow"))
    if unknown := status["unknown_tasks"]:
        seen = ", ".join(f"{task['name']} ({age(task['seen_ms'])} ago)" for task in unknown[:_MOST_UNKNOWN])
        rest = f" and {len(unknown) - _MOST_UNKNOWN} more" if len(unknown) > _MOST_UNKNOWN else ""
        parts.append(Styled(f"waiting for a worker that knows them: {seen}{rest}", "yellow"))
    if status["pauses"]:
        parts.append(Table(["paused", "held", "since"], [_pause(pause) for pause in status["pauses"]], "paused"))
    if (due_ms := status["next_due_in_ms"]) is not None:
        when = f"falls due in {age(due_ms)}" if due_ms >= 0 else f"is overdue by {age(-due_ms)}"
        parts.append(f"the next scheduled one {when}")
    lanes = ["lane", "waiting", "limited", "oldest", "workers"]
    parts.append(Table(lanes, [_lane(lane) for lane in status["lanes"]], "lanes"))
    if workers := [*status["workers"], *status["gone"]]:
        header = ["worker", "host/pid", "claimed/slots", "lease left"]
        parts.append(Table(header, [_worker(worker) for worker in workers], "workers"))
    if status["running"]:
        parts.append(running_table(status["running"]))
    if status["schedules"]:
        rows = [_schedule(schedule) for schedule in status["schedules"][:_MOST_SCHEDULES]]
        parts.append(Table(["schedule", "task", "next"], rows, many(len(status["schedules"]), "schedule")))
    counters = [name for name, count in status["last_minutes"].items() if count]
    if counters:
        rows = [
            [time.strftime("%H:%M", time.localtime(minute["at"] / 1000)), *(f"{minute[name]:,}" for name in counters)]
            for minute in status["minutes"]
        ]
        parts.append(Table(["minute", *counters], rows, "by minute"))
    counted = ", ".join(f"{status['last_minutes'][name]:,} {name}" for name in counters)
    parts.append(f"last {MINUTES} minutes: {counted or 'nothing'}")
    return parts


def running_table(tasks: list[dict[str, Any]]) -> Table:
    """What runs, as `--json` has it."""
    rows = [
        [
            task["id"],
            task["name"],
            task["lane"],
            task["worker"],
            str(task["try"]),
            age(task["run_ms"]),
            done(task["progress"]) if task["progress"] else "",
        ]
        for task in tasks
    ]
    return Table(["running", "task", "lane", "worker", "try", "for", "progress"], rows, "longest running")


def _pause(pause: dict[str, Any]) -> list[str]:
    name = "the whole queue" if pause["id"] == "*()" else pause["id"]
    if pause["workflow"] is not None:
        name = f"workflow {pause['workflow']}"
    return [
        name,
        f"{pause['held']:,}",
        "ended, tasks are returning" if pause["resuming"] else moment(pause["paused_at"]),
    ]


def _lane(lane: dict[str, Any]) -> list[str]:
    oldest = "" if lane["oldest_ms"] is None else age(lane["oldest_ms"])
    nobody = Styled("none", "red" if lane["waiting"] or lane["limited"] else "")
    return [
        lane["name"],
        f"{lane['waiting']:,}",
        f"{lane['limited']:,}",
        oldest,
        str(lane["workers_alive"]) if lane["workers_alive"] else nobody,
    ]


def _worker(worker: dict[str, Any]) -> list[str]:
    left_ms = worker["lease_left_ms"]
    lease = age(left_ms) if left_ms else Styled("run out", "red")
    if worker["stalled_ms"]:
        lease = Styled(f"{lease}, event loop stalled for {age(worker['stalled_ms'])}", "red")
    shared = "" if worker["share"] == worker["concurrency"] else f" of {worker['concurrency']}"
    return [
        worker["id"],
        f"{worker['host']}/{worker['pid']}",
        f"{worker['held']}/{worker['share']}{shared}"
        + (f" ({worker['abandoned_threads']} taken by abandoned threads)" if worker["abandoned_threads"] else ""),
        lease,
    ]


def _schedule(schedule: dict[str, Any]) -> list[str]:
    if schedule["paused"]:
        due: str = Styled("paused", "yellow")
    elif schedule["due_in_ms"] < 0:
        due = f"overdue by {age(-schedule['due_in_ms'])}"
    else:
        due = f"in {age(schedule['due_in_ms'])}"
    return [schedule["name"], str(schedule["task"]), due]
