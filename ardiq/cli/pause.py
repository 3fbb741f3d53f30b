"""Keep an app's queue from starting tasks: all of them, those of one name, or those with a given argument.

ardiq pause MODULE:ATTR                              the whole queue
ardiq pause MODULE:ATTR --task send                  tasks of a name
ardiq pause MODULE:ATTR --arg customer_id=42         any task with that argument; a text has its quotes: 'plan="free"'
ardiq pause MODULE:ATTR --task send --arg 0=42       by its position

It applies to all workers immediately, until `ardiq resume` with the same arguments; `ardiq status` shows it. Nothing is
lost.
"""

import argparse
import asyncio
import json
from typing import Any

from . import is_url, open_app
from ._arguments import Refusal, app_argument, check_task, json_argument, refusing, unknown_argument, word
from ._output import print_json, show


def configure(parser: argparse.ArgumentParser) -> None:
    configure_words(parser)
    unknown_argument(parser, "even if there is no task or queue of that name")


def configure_words(parser: argparse.ArgumentParser) -> None:
    """Add what names a pause."""
    app_argument(parser)
    parser.add_argument("--task", type=word, metavar="NAME", help="tasks of this name only")
    parser.add_argument(
        "--arg",
        metavar="NAME=JSON",
        help="those with this argument only: name or position, and a text, integer, boolean",
    )
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    # The app's own queue need not have been used yet.
    is_own = arguments.queue is None and not is_url(arguments.app)
    app = open_app(arguments, may_be_new=is_own or arguments.unknown)
    argument = read_argument(arguments.arg)
    if arguments.task is not None:
        check_task(app, arguments, arguments.task)
    if is_url(arguments.app) and argument and not arguments.unknown and isinstance(next(iter(argument)), str):
        why = "only the app's code knows at which position that argument is passed"
        raise Refusal(f"{why}: give MODULE:ATTR, or --unknown to match it only as a keyword argument")
    with refusing():
        asyncio.run(app.pause(arguments.task, argument=argument))
    if arguments.json:
        print_json(told(app.queue_name, arguments.task, argument, True))
    else:
        show(f"paused {what(app.queue_name, arguments)}")
    return 0


def read_argument(text: str | None) -> dict[Any, Any] | None:
    """What `--arg` says, as `app.pause` takes it.

    Raises:
        Refusal: it is not a name or a position, an equals sign and JSON.
    """
    if text is None:
        return None
    name, is_pair, value = text.partition("=")
    if not name or not is_pair:
        raise Refusal(f"--arg {text!r} is not NAME=JSON, such as customer_id=42")
    try:
        return {int(name) if name.isdecimal() else name: json.loads(value)}
    except ValueError:
        raise Refusal(f"{value!r} is not JSON; quote a text: --arg '{name}={json.dumps(value)}'") from None


def told(queue: str, task: str | None, argument: dict[Any, Any] | None, changed: bool) -> dict[str, Any]:
    """The pause for programs, and whether there was something to do."""
    [(name, value)] = (argument or {None: None}).items()
    return {"queue": queue, "task": task, "argument": name, "value": value, "changed": changed}


def what(queue: str, arguments: argparse.Namespace) -> str:
    """The pause for people."""
    tasks = f"task {arguments.task!r}" if arguments.task else "all tasks" if arguments.arg else f"queue {queue!r}"
    return f"{tasks} with {arguments.arg}" if arguments.arg else tasks
