"""Look at the recurring tasks of an app's queue, or change them.

ardiq schedule list MODULE:ATTR              list schedules, the next one due first
ardiq schedule show MODULE:ATTR NAME         one, with the outcome of its last run
ardiq schedule put MODULE:ATTR NAME TASK …   create one, or change the one with that name
ardiq schedule pause MODULE:ATTR NAME        skip its occurrences until it is resumed
ardiq schedule resume MODULE:ATTR NAME       let it go on
ardiq schedule run MODULE:ATTR NAME          enqueue its task now, in addition to its times
ardiq schedule remove MODULE:ATTR NAME       remove it; one declared in code returns with the next worker
"""

import argparse
import asyncio
import sys
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from .._server import commands
from ..schedules import MISSED
from . import note_new_queue, open_app
from ._arguments import (
    add_actions,
    among,
    check_lane,
    check_task,
    did_you_mean,
    duration_ms,
    json_argument,
    json_value,
    refusing,
    unknown_argument,
    word,
)
from ._output import Part, Styled, Table, age, moment, print_json, short, show
from ._plain import plain_schedule

if TYPE_CHECKING:
    from ..app import Ardiq

_ACTIONS = {
    "list": "list schedules, the next one due first",
    "show": "one of them, with the outcome of its last run",
    "put": "create one, or change the one with that name",
    "pause": "skip its occurrences until it is resumed",
    "resume": "end its pause",
    "run": "enqueue its task now, in addition to its times",
    "remove": "remove it; one declared in code returns with the next worker",
}


_DONE = {"pause": "paused", "resume": "goes on", "remove": "removed"}


def configure(parser: argparse.ArgumentParser) -> None:
    for action, chosen in add_actions(parser, _ACTIONS):
        if action != "list":
            chosen.add_argument("name", type=word, metavar="NAME", help="the schedule")
        if action == "put":
            _configure_put(chosen)
        json_argument(chosen)


def _configure_put(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", type=word, metavar="TASK", help="the task it enqueues")
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="cron expression, such as '0 6 * * mon-fri' or @daily")
    parser.add_argument("--every", type=duration_ms, metavar="TIME", help="a period instead: 90, 5m, 2h")
    parser.add_argument("--tz", metavar="ZONE", help="zone of SPEC, such as Europe/Berlin (default: UTC)")
    parser.add_argument("--args", default="[]", metavar="JSON", help="positional arguments of the task")
    parser.add_argument("--kwargs", default="{}", metavar="JSON", help="keyword arguments of the task")
    parser.add_argument("--priority", metavar="LANE", help="its lane")
    parser.add_argument(
        "--jitter",
        type=partial(duration_ms, least=0),
        default=0,
        metavar="TIME",
        help="start up to this much after its time",
    )
    parser.add_argument("--coalesce", action="store_true", help="skip one while the previous one still waits to run")
    unknown_argument(parser)
    parser.add_argument(
        "--missed", choices=MISSED, default="skip", help="what to do about missed occurrences (default: skip)"
    )


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments, may_be_new=arguments.action == "put")
    if arguments.action == "list":
        return asyncio.run(_list(app, arguments.json))
    if arguments.action == "show":
        return asyncio.run(_show(app, arguments.name, arguments.json))
    if arguments.action == "put":
        return asyncio.run(_put(app, arguments))
    return asyncio.run(_change(app, arguments.action, arguments.name, arguments.json))


async def _list(app: "Ardiq", as_json: bool) -> int:
    found = [plain_schedule(schedule) for schedule in await app.schedules.list()]
    if as_json:
        print_json(found)
        return 0
    now_ms = commands.now_ms(app.context.server.core)
    rows = [
        [
            schedule["name"],
            schedule["task"],
            _timing(schedule),
            _next(schedule, now_ms),
            _last(schedule),
            _outcome(schedule),
        ]
        for schedule in found
    ]
    show(Table(["name", "task", "timing", "next", "last", "outcome"], rows))
    return 0


async def _show(app: "Ardiq", name: str, as_json: bool) -> int:
    schedule = await app.schedules.get(name)
    if schedule is None:
        return await _missing(app, name, as_json)
    if as_json:
        print_json(plain_schedule(schedule))
    else:
        show(*_draw(plain_schedule(schedule), commands.now_ms(app.context.server.core)))
    return 0


async def _put(app: "Ardiq", arguments: argparse.Namespace) -> int:
    args, kwargs = json_value(arguments.args, list, "--args"), json_value(arguments.kwargs, dict, "--kwargs")
    check_task(app, arguments, arguments.task)
    check_lane(app, arguments.priority)
    note_new_queue(app, arguments)
    with refusing():
        await app.schedules.put(
            arguments.name,
            arguments.task,
            arguments.spec,
            every=None if arguments.every is None else arguments.every / 1000,
            tz=arguments.tz,
            args=args,
            kwargs=kwargs,
            priority=arguments.priority,
            coalesce=arguments.coalesce,
            missed=arguments.missed,
            jitter=arguments.jitter / 1000,
        )
    return await _show(app, arguments.name, arguments.json)


async def _change(app: "Ardiq", action: str, name: str, as_json: bool) -> int:
    schedules = app.schedules
    told: dict[str, Any] = {"name": name, "changed": True}
    if action == "run":
        with redirect_stdout(sys.stderr):  # what a hook prints is no part of the answer
            job = await schedules.run_now(name)
        told["changed"] = job is not None
        if job is not None:
            told["id"] = job.id
    else:
        change = {"pause": schedules.pause, "resume": schedules.resume, "remove": schedules.remove}[action]
        told["changed"] = await change(name)
    if not told["changed"]:
        return await _missing(app, name, as_json)
    if as_json:
        print_json(told)
    else:
        show(f"enqueued {told['id']}" if "id" in told else f"{name}: {_DONE[action]}")
    return 0


async def _missing(app: "Ardiq", name: str, as_json: bool) -> int:
    if as_json:
        print_json({"name": name, "changed": False})
    else:
        known = [schedule.name for schedule in await app.schedules.list()]
        show(f"there is no schedule {name!r}{did_you_mean(name, known) or among(known)}")
    return 1


def _draw(schedule: dict[str, Any], now_ms: int) -> list[Part]:
    coalesce = "coalesced" if schedule["coalesce"] else "not coalesced"
    last = f"last due {_last(schedule)}" + (f" as {schedule['last_id']}" if schedule["last_id"] else "")
    return [
        Styled(schedule["name"], "bold"),
        f"task {schedule['task']}, {_timing(schedule)}, {_next(schedule, now_ms)}",
        f"missed ones: {schedule['missed']}; {coalesce}; from {schedule['source']}",
        last,
        f"last outcome {_outcome(schedule) or 'none yet'}",
    ]


def _timing(schedule: dict[str, Any]) -> str:
    jitter = f" + up to {schedule['jitter_ms'] / 1000:g} s" if schedule["jitter_ms"] else ""
    if schedule["every_ms"] is not None:
        return f"every {schedule['every_ms'] / 1000:g} s{jitter}"
    return f"{schedule['spec']} {schedule['tz'] or 'UTC'}{jitter}"


def _next(schedule: dict[str, Any], now_ms: int) -> str:
    if schedule["paused"]:
        return Styled("paused", "yellow")
    left_ms = schedule["next_due_at"] - now_ms
    left = f"in {age(left_ms)}" if left_ms >= 0 else f"overdue by {age(-left_ms)}"
    return f"{moment(schedule['next_due_at'])} ({left})"


def _last(schedule: dict[str, Any]) -> str:
    return moment(schedule["last_due_at"]) if schedule["last_due_at"] else "never"


def _outcome(schedule: dict[str, Any]) -> str:
    outcome = schedule["last_outcome"]
    if outcome is None:
        return ""
    error = short(outcome["error"] or "", 60)
    told = f"{outcome['state']} {moment(outcome['finished_at'])}" + (f": {error}" if error else "")
    return Styled(told, "" if outcome["state"] == "complete" else "red")
