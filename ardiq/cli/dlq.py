"""Look at the dead letters of an app's queue, run them again, or discard them.

ardiq dlq list MODULE:ATTR            the newest first
ardiq dlq groups MODULE:ATTR          the newest by task and kind of error, the most frequent first
ardiq dlq show MODULE:ATTR ID         one, with its traceback and its attempts
ardiq dlq requeue MODULE:ATTR ID …    run them again: same id and arguments, new retries
ardiq dlq discard MODULE:ATTR ID …    give them up; their errors are kept as long as a result

replay and delete, ArdiQ 1.2's words for the last two, still work.

list, and requeue and discard with --all, choose by --task, --error, --since and --until. A time is how long ago (90,
5m, 2h, 7d) or a moment such as 2026-03-01T09:00 (UTC if it names no zone).
"""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .._client.filters import Pace
from ..dead import DEFAULT_RATE
from ..errors import ArdiqError, BrokerError
from ..models import DeadLetter
from . import open_app
from ._arguments import (
    Refusal,
    agreed,
    app_argument,
    check_call,
    did_you_mean,
    duration_ms,
    json_argument,
    positive,
    word,
)
from ._audit import came
from ._output import Part, Styled, Table, age, json_text, many, moment, print_json, short, show
from .task import read

if TYPE_CHECKING:
    from ..app import Ardiq

_MOST_COUNTED = 10_000
_MISSING = "there is no such dead letter"
# What is said of each action once it is done; by ArdiQ 1.2's words for the same, too.
_DONE = {"requeue": "requeued", "replay": "replayed", "discard": "discarded", "delete": "deleted"}
_AGAIN = ("requeue", "replay")
_PLAIN = {"fn_name": "name", "task_id": "id"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=["list", "groups", "show", *_DONE], metavar="list|groups|show|requeue|discard"
    )
    app_argument(parser)
    which = "the dead letters to show, requeue or discard"
    parser.add_argument("ids", nargs="*", type=word, default=[], metavar="ID", help=which)
    parser.add_argument("--all", action="store_true", help="requeue or discard all that match the filters")
    parser.add_argument("--task", type=word, metavar="NAME", help="of this task only")
    parser.add_argument(
        "--error", type=word, metavar="TEXT", help="with this text in their error, in upper or lower case"
    )
    parser.add_argument("--since", type=_moment, metavar="TIME", help="that failed at this time or later")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="that failed before this time")
    parser.add_argument(
        "-n", "--limit", type=positive, default=50, metavar="N", help="list at most this many (default: 50)"
    )
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="skip this many of the newest")
    rate = f"requeue at most this many a second; 0: no limit (default: {DEFAULT_RATE:g})"
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE, metavar="N", help=rate)
    parser.add_argument("--args", type=_json, metavar="JSON", help="requeue with this array of arguments, or object of")
    parser.add_argument("--kwargs", type=_json, metavar="JSON", help="keyword arguments, instead of their own")
    parser.add_argument("-y", "--yes", action="store_true", help="with --all: do not ask")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    action, chosen = arguments.action, bool(arguments.ids)
    if action in ("list", "groups") and (chosen or arguments.all):
        raise Refusal(f"{action} takes no ids and no --all; show, requeue and discard do")
    if action == "show" and len(arguments.ids) != 1:
        raise Refusal("show takes one id")
    if action in _DONE and chosen == arguments.all:
        raise Refusal(f"{action} takes ids, or --all")
    if action in ("show", "groups") or chosen:
        given = [f"--{name}" for name, value in _filters(arguments).items() if value is not None]
        if given:
            raise Refusal(f"{given[0]} cannot be combined with {'groups' if action == 'groups' else 'ids'}")
    if action not in _AGAIN and (arguments.args is not None or arguments.kwargs is not None):
        raise Refusal("--args and --kwargs are for requeue")
    for name in ("offset", "rate"):
        if not 0 <= getattr(arguments, name) < math.inf:
            raise Refusal(f"--{name} must be 0 or more, not {getattr(arguments, name)}")
    app = open_app(arguments)
    does = {"list": _list, "groups": _groups, "show": _show}.get(action, _requeue if action in _AGAIN else _discard)
    return asyncio.run(does(app, arguments))


async def _list(app: "Ardiq", arguments: argparse.Namespace) -> int:
    letters = await app.dead.list(**_filters(arguments), limit=arguments.limit, offset=arguments.offset)
    if arguments.json:
        print_json([_told(letter) for letter in letters])
        return 0
    count = f"{len(letters):,} of {await app.dead.count():,} dead letters{_no_such_task(app, arguments, len(letters))}"
    if sys.stdout.isatty():
        rows = [[letter.task_id, letter.fn_name, moment(letter.failed_at), short(letter.error)] for letter in letters]
        show(Table(["id", "task", "failed at", "error"], rows), count)
        return 0
    for letter in letters:  # a line each, for cut and grep, as ArdiQ 1.2 has it
        at = moment(letter.failed_at).replace(" UTC", "Z")
        error = " ".join(letter.error.splitlines())
        show(f"{letter.task_id}  {letter.fn_name}  {at}  tries={letter.tries}  {error}")
    print(count, file=sys.stderr)
    return 0


async def _groups(app: "Ardiq", arguments: argparse.Namespace) -> int:
    found = await app.dead.groups()
    if arguments.json:
        groups = [{_PLAIN.get(name, name): value for name, value in group._asdict().items()} for group in found.groups]
        print_json({"groups": groups, "looked_at": found.looked_at, "dead": found.total})
        return 0
    rows = [
        [f"{group.letters:,}", group.fn_name, group.kind, moment(group.newest_at), group.task_id, short(group.error)]
        for group in found.groups
    ]
    which = "" if found.looked_at == found.total else f"of the newest {found.looked_at:,}: "
    show(Table(["letters", "task", "kind", "newest", "its id", "its error"], rows))
    show(f"{which}{many(len(rows), 'group')}; {many(found.total, 'dead letter')} in all")
    return 0


def _told(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter in the words of the task's record."""
    return {
        "id": letter.task_id,
        "name": letter.fn_name,
        "state": "failed",
        "args": letter.args,
        "kwargs": letter.kwargs,
        "lane": letter.priority,
        "error": letter.error,
        "tries": letter.tries,
        "enqueued_at": letter.enqueue_time,
        "finished_at": letter.failed_at,
    }


def _no_such_task(app: "Ardiq", arguments: argparse.Namespace, found: int) -> str:
    """What to add if a filter found nothing, perhaps because of its spelling."""
    if found or arguments.task is None or arguments.task in app.tasks:
        return ""
    return did_you_mean(arguments.task, app.tasks)


async def _show(app: "Ardiq", arguments: argparse.Namespace) -> int:
    task_id = arguments.ids[0]
    task = read(app, task_id)
    if task is None or task.get("state") != "failed":
        if arguments.json:
            print_json({"id": task_id, "state": "not_found" if task is None else task.get("state")})
        else:
            show(f"{task_id}: {_MISSING}")
        return 1
    if arguments.json:
        print_json(task)
        return 0
    shown = ("name", "lane", "args", "kwargs", "tries")
    parts: list[Part] = [f"{name}: {_plain(task[name])}" for name in shown if name in task]
    parts.append(Styled(f"error: {task.get('error', '')}", "red"))
    for attempt in await app.history(task_id):
        ran = "its worker died" if attempt.run_ms is None else f"ran {age(attempt.run_ms)}"
        parts.append(f"attempt {attempt.tries}: {moment(attempt.ended_at)}, {ran} on {attempt.worker}")
        parts.append(f"  {short(attempt.error)}")
    show(*parts, task.get("traceback", "").rstrip())
    return 0


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


async def _requeue(app: "Ardiq", arguments: argparse.Namespace) -> int:
    args, kwargs = arguments.args, arguments.kwargs
    if isinstance(args, dict) and kwargs is None:
        args, kwargs = None, args
    if not isinstance(args, list | None) or not isinstance(kwargs, dict | None):
        raise Refusal("--args must be a JSON array, or an object for keyword arguments; --kwargs must be an object")
    if arguments.all and arguments.task is None and (args is not None or kwargs is not None):
        raise Refusal("--args and --kwargs are for one task: give ids, or --task with --all")
    options: dict[str, Any] = {"args": args, "kwargs": kwargs, "rate": arguments.rate or None}
    try:
        if arguments.all:
            if not await _agreed(app, arguments):
                return 1
            return _done_all(app, await app.dead.requeue(**_chosen(arguments), **options), arguments)
        if args is not None or kwargs is not None:
            await _check(app, arguments.ids, args or [], kwargs or {})
        pace, one = Pace(options.pop("rate")), {**options, "rate": None}
        return await _one_by_one(lambda task_id: app.dead.requeue(task_id, **one), arguments, pace)
    except TypeError as error:  # the arguments do not fit the task
        raise Refusal(str(error)) from None


async def _agreed(app: "Ardiq", arguments: argparse.Namespace) -> bool:
    """Whether all that the filters choose is to be changed; of many it is said how many at least."""
    if arguments.yes:
        return True
    filters = _filters(arguments)
    if any(value is not None for value in filters.values()):
        found = len(await app.dead.list(**filters, limit=_MOST_COUNTED + 1))
        number = f"more than {_MOST_COUNTED:,}" if found > _MOST_COUNTED else f"{found:,}"
    else:
        found = await app.dead.count()
        number = f"{found:,}"
    what = f"{number} dead {'letter' if found == 1 else 'letters'} of queue {app.queue_name!r}"
    if not found or agreed(f"{arguments.action} {what}?", arguments.yes):
        return True
    _done(0, arguments)
    return False


async def _check(app: "Ardiq", ids: list[str], args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that do not fit the task of one of them, before any is requeued."""
    for task_id in ids:
        record = await app.context.inspector.record(task_id)
        if record.get("state") == "failed":
            check_call(app, record.get("name", ""), args, kwargs)


async def _discard(app: "Ardiq", arguments: argparse.Namespace) -> int:
    if arguments.all:
        if not await _agreed(app, arguments):
            return 1
        return _done_all(app, await app.dead.purge(**_filters(arguments)), arguments)
    return await _one_by_one(app.dead.discard, arguments, Pace(None))


async def _one_by_one(change: Callable[[str], Awaitable[int]], arguments: argparse.Namespace, pace: Pace) -> int:
    """Each id by itself, so that an error of one names it and does not stop the others."""
    done, left = 0, dict[str, str]()
    for task_id in dict.fromkeys(arguments.ids):
        await pace.wait(1)
        try:
            changed = await change(task_id)
        except BrokerError:
            raise
        except (ValueError, ArdiqError) as error:  # of a lane that the app no longer has, or of a damaged record
            left[task_id] = str(error)
            continue
        done += changed
        if not changed:
            left[task_id] = _MISSING
    return _done(done, arguments, left)


def _done_all(app: "Ardiq", count: int, arguments: argparse.Namespace) -> int:
    """As `_done`, of all that the filters choose."""
    if meant := _no_such_task(app, arguments, count):
        print(f"there is no task {arguments.task!r}{meant}", file=sys.stderr)
    return _done(count, arguments)


def _done(count: int, arguments: argparse.Namespace, left: dict[str, str] | None = None) -> int:
    """Print what was done, and why ids were skipped."""
    verb = _DONE[arguments.action]
    came(count, f"{count:,} {verb}" + (f", {len(left):,} not" if left else ""))
    if arguments.json:
        print_json({verb: count} | ({} if left is None else {"left": left}))
    else:
        told = (why if repr(task_id) in why else f"{task_id}: {why}" for task_id, why in (left or {}).items())
        show(*told, f"{count:,} {verb}")
    return 1 if left else 0


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("task", "error", "since", "until")}


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    filters = _filters(arguments)
    return filters if any(value is not None for value in filters.values()) else {"all": True}


def _moment(text: str) -> datetime | timedelta:
    try:
        moment = datetime.fromisoformat(text)  # first: 20260301 is a day
    except ValueError:
        try:
            return timedelta(milliseconds=duration_ms(text))
        except argparse.ArgumentTypeError as error:
            why = "" if "not a duration" in str(error) else f": {error}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 2h or 2026-03-01T09:00{why}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
