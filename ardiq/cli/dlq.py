"""Look at the dead letters of an app's queue, run them again, or delete them.

ardiq dlq list MODULE:ATTR            the newest first
ardiq dlq show MODULE:ATTR ID         one, with its traceback and its attempts
ardiq dlq replay MODULE:ATTR ID …     run them again: same id and arguments, new retries
ardiq dlq delete MODULE:ATTR ID …     delete them unrun
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..models import DeadLetter
from . import Refusal, app_argument, json_argument, load_app, table

if TYPE_CHECKING:
    from ..app import Ardiq


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "show", "replay", "delete"], metavar="list|show|replay|delete")
    app_argument(parser)
    parser.add_argument("ids", nargs="*", metavar="ID", help="the dead letters to show, replay or delete")
    parser.add_argument("--all", action="store_true", help="replay or delete all there are")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="list so many at most (default: 100)")
    parser.add_argument("--task", metavar="NAME", help="list, replay or delete those of this task only")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = load_app(arguments.app)
    if arguments.action == "list":
        if arguments.ids or arguments.all:
            raise Refusal("list takes no ids and no --all; show, replay and delete do")
        return asyncio.run(_list(app, arguments))
    if arguments.action == "show":
        if len(arguments.ids) != 1:
            raise Refusal("show takes one id")
        return asyncio.run(_show(app, arguments))
    if bool(arguments.ids) == arguments.all:
        raise Refusal(f"{arguments.action} takes ids, or --all")
    return asyncio.run(_change(app, arguments))


async def _list(app: "Ardiq", arguments: argparse.Namespace) -> int:
    letters = _of_task(await app.dead_letters(arguments.limit), arguments.task)
    if arguments.json:
        print(json.dumps([letter._asdict() for letter in letters], indent=2, default=repr))
        return 0
    rows = [[letter.task_id, letter.fn_name, _when(letter.failed_at), _short(letter.error)] for letter in letters]
    print("\n".join(table(["id", "task", "failed at", "error"], rows)))
    print(f"{len(letters):,} of {await app.dead_count():,} dead letters")
    return 0


async def _show(app: "Ardiq", arguments: argparse.Namespace) -> int:
    record = await app._queue.record(arguments.ids[0])
    if record.get("state") != "failed":
        raise Refusal(f"there is no dead letter {arguments.ids[0]!r}")
    history = [attempt._asdict() for attempt in await app.history(arguments.ids[0])]
    if arguments.json:
        print(json.dumps({**record, "history": history}, indent=2))
        return 0
    shown = ("name", "lane", "args", "kwargs", "tries", "error")
    print("\n".join(f"{name}: {record[name]}" for name in shown if name in record))
    for attempt in history:
        ran = "its worker died" if attempt["run_ms"] is None else f"ran {attempt['run_ms']} ms"
        print(f"attempt {attempt['tries']}: {_when(attempt['ended_at'])}, {ran} on {attempt['worker']}")
        print(f"  {_short(attempt['error'])}")
    print(record.get("traceback", "").rstrip())
    return 0


async def _change(app: "Ardiq", arguments: argparse.Namespace) -> int:
    ids = arguments.ids
    if arguments.all:
        ids = [letter.task_id for letter in _of_task(await app.dead_letters(await app.dead_count()), arguments.task)]
    done, verb = 0, "replayed" if arguments.action == "replay" else "deleted"
    for task_id in dict.fromkeys(ids):
        change = app.replay if arguments.action == "replay" else app.delete_dead
        try:
            changed = await change(task_id)
        except ValueError as error:  # of a lane that the app no longer has
            print(f"{task_id}: {error}")
            continue
        if changed:
            done += 1
        else:
            print(f"{task_id}: there is no such dead letter")
    print(f"{done:,} {verb}")
    return 0 if done == len(set(ids)) else 1


def _of_task(letters: list[DeadLetter], name: str | None) -> list[DeadLetter]:
    return [letter for letter in letters if name in (None, letter.fn_name)]


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _short(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else line[:79] + "…"
