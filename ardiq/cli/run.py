"""Run a worker for the app that MODULE:ATTR names; the module is importable from the working directory.

SIGINT (Ctrl-C) or SIGTERM stops it when the running tasks have ended; another signal, more than a second later, stops
it immediately. With --drain-timeout, tasks that still run after that time are handed back. With --workers it starts
that many processes, stops them when it is stopped, and replaces those that crash. --max-tasks, --max-age,
--max-memory-mb and --replace-stalled end a worker; with --workers a new one takes its place.
"""

import argparse
import asyncio
import logging
import os
from functools import partial
from typing import Any

from .._execution import logging as _logging
from .._values import imports as _imports
from . import Refusal, load_app
from ._arguments import duration_s, positive, refusing
from ._environment import add_variables, fill
from ._health import check_ports, read_place
from ._lifeline import Lifeline
from ._supervisor import Supervisor
from ._work import Work, read_queues

_log = logging.getLogger("ardiq")

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error")}


def configure(parser: argparse.ArgumentParser) -> None:
    def option(*names: str, **settings: Any) -> None:
        parser.add_argument(*names, **{"default": None, **settings})

    def flag(*names: str, help: str) -> None:
        option(*names, action="store_true", help=help)

    def number(*names: str, help: str) -> None:
        option(*names, type=positive, metavar="N", help=help)

    def duration(name: str, help: str, least: int = 1) -> None:
        option(name, type=partial(duration_s, least=least), metavar="TIME", help=help)

    where = "the app, such as shop.jobs:app [ARDIQ_APP]"
    parser.add_argument("app", metavar="MODULE:ATTR", nargs="?", help=where)
    flag("-b", "--burst", help="exit when nothing is ready to run")
    number("-w", "--workers", help="number of worker processes (default: 1)")
    number("--concurrency", help="tasks that each runs at once (default: the app's)")
    option(
        "--import",
        type=_pattern,
        action="append",
        dest="imports",
        metavar="MODULE",
        help="also import this module for its tasks, or all that match, such as 'proj.*.tasks'; may be repeated",
    )
    option(
        "--queue",
        type=_queue,
        action="append",
        dest="queues",
        metavar="NAME[=SHARE]",
        help="serve this queue instead of the app's own; repeat it for several, which share the slots",
    )
    flag("-v", "--verbose", help="log every step of Ardiq; other loggers are unchanged")
    flag("-q", "--quiet", help="log warnings and errors only")
    option("--log-level", choices=tuple(_LEVELS), help="log this level and above (default: info)")
    option(
        "--log-format",
        choices=("text", "json", "dev"),
        help="lines for people, JSON objects, or short lines (default: text)",
    )
    option(
        "--log-config",
        metavar="FILE",
        help="configure logging with this file: a dictConfig in JSON or TOML, or an INI for fileConfig",
    )
    flag("--allow-eviction", help="accept a server that may evict tasks when its memory is full")
    duration(
        "--give-up-after",
        help="exit when the server cannot be reached for this long (default: 30s with --burst, else never)",
    )
    duration(
        "--drain-timeout",
        least=0,
        help="wait this long for running tasks when stopping, then hand them back (default: wait for them)",
    )
    number("--max-tasks", help="end a worker after about N attempts")
    duration("--max-age", help="end a worker after this time")
    number("--max-memory-mb", help="end a worker that uses more MiB than this, including its child processes")
    duration("--replace-stalled", help="end a worker whose event loop has not run for this time")
    option(
        "--health",
        type=read_place,
        metavar="HOST:PORT",
        help="serve /live, /ready and /metrics there; with --workers, each has its own port: PORT, PORT+1 …",
    )
    add_variables(parser)
    parser.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    fill(arguments)
    arguments.app = arguments.app or os.environ.get("ARDIQ_APP")
    if not arguments.app:
        raise Refusal("which app? Name it as MODULE:ATTR, such as `ardiq run shop.jobs:app`, or in ARDIQ_APP")
    workers = arguments.workers or 1
    lifeline = None if arguments.lifeline is None else Lifeline(arguments.lifeline)
    app = load_app(arguments.app, imports=arguments.imports or (), answers=False)
    with refusing("--log-config"):
        is_ours = _logging.set_up(_logging_of(arguments))
    if arguments.log_format is not None and not is_ours and lifeline is None:
        _log.warning("--log-format has no effect: the program configures logging itself")
    if arguments.concurrency is not None:
        app.context.change(concurrency=arguments.concurrency)
    read_queues(app, arguments.queues)
    check_ports(arguments.health, workers)
    if not app.tasks and not app.context.registry.lifespans:  # which may register some
        raise Refusal(
            f"{arguments.app} has no tasks, so this worker would run none. If they are in other modules, import "
            "these: --import proj.mail, or Ardiq(imports=['proj.mail'])"
        )
    if workers == 1:
        return asyncio.run(Work(app, arguments, lifeline).run())
    from .. import embedded

    if embedded.is_embedded(app.redis_url):
        embedded.url_for(app.redis_url)  # here, so that the children share it
    return asyncio.run(Supervisor(arguments, workers).run())


def _logging_of(arguments: argparse.Namespace) -> _logging.Setup:
    level = arguments.log_level or ("warning" if arguments.quiet and not arguments.verbose else None)
    own_level = logging.DEBUG if arguments.verbose else None if level is None else _LEVELS[level]
    return _logging.Setup(
        arguments.log_format or "text", _LEVELS[level or "info"], own_level, arguments.log_config or None
    )


def _pattern(text: str) -> str:
    try:
        return _imports.patterns("--import", [text])[0]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--import: ")) from None


def _queue(text: str) -> tuple[str, int]:
    name, equals, share = text.rpartition("=")
    return (name, positive(share)) if equals else (text, 1)
