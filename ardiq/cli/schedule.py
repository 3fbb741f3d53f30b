"""Look at the recurring tasks of an app's queue, or change them.

ardiq schedule list MODULE:ATTR           what recurs, the next to fall due first
ardiq schedule pause MODULE:ATTR NAME     let its occurrences pass by
ardiq schedule resume MODULE:ATTR NAME    let it go on
ardiq schedule run MODULE:ATTR NAME       enqueue its task now, besides its times
ardiq schedule remove MODULE:ATTR NAME    remove it; one declared in code returns with the next worker
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..schedules import Schedule
from . import Refusal, app_argument, json_argument, load_app, table

if TYPE_CHECKING:
    from ..app import Ardiq

_ACTIONS = ("list", "pause", "resume", "run", "remove")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=_ACTIONS, metavar="|".join(_ACTIONS))
    app_argument(parser)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the schedule")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if (arguments.action == "list") == bool(arguments.name):
        raise Refusal("list takes no name; the other actions take one")
    app = load_app(arguments.app)
    if arguments.action == "list":
        return asyncio.run(_list(app, arguments.json))
    return asyncio.run(_change(app, arguments.action, arguments.name))


async def _list(app: "Ardiq", as_json: bool) -> int:
    schedules = await app.schedules.list()
    if as_json:
        print(json.dumps([_row(schedule) for schedule in schedules], indent=2))
        return 0
    rows = [
        [
            schedule.name,
            schedule.task,
            _timing(schedule),
            "paused" if schedule.paused else _when(schedule.next_due_at),
            _when(schedule.last_due_at) if schedule.last_due_at else "never",
            _outcome(schedule),
        ]
        for schedule in schedules
    ]
    print("\n".join(table(["name", "task", "timing", "next", "last", "outcome"], rows)))
    return 0


async def _change(app: "Ardiq", action: str, name: str) -> int:
    schedules = app.schedules
    if action == "run":
        job = await schedules.run_now(name)
        done = job is not None
        if job is not None:
            print(f"enqueued {job.id}")
    else:
        done = await {"pause": schedules.pause, "resume": schedules.resume, "remove": schedules.remove}[action](name)
    if not done:
        print(f"there is no schedule {name!r}")
    return 0 if done else 1


def _row(schedule: Schedule) -> dict[str, Any]:
    outcome = schedule.last_outcome
    return schedule._asdict() | {"last_outcome": None if outcome is None else outcome._asdict()}


def _timing(schedule: Schedule) -> str:
    jitter = f" + up to {schedule.jitter_ms / 1000:g} s" if schedule.jitter_ms else ""
    if schedule.every_ms is not None:
        return f"every {schedule.every_ms / 1000:g} s{jitter}"
    return f"{schedule.spec} {schedule.tz or 'UTC'}{jitter}"


def _outcome(schedule: Schedule) -> str:
    outcome = schedule.last_outcome
    if outcome is None:
        return ""
    error = " ".join((outcome.error or "").split())
    return f"{outcome.state} {_when(outcome.finished_at)}" + (f": {error[:60]}" if error else "")


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
