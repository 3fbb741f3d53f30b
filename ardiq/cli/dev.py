"""Develop an app in one terminal: a server, a worker that starts again when a file changes, a dashboard, and a command.

The server is an embedded one, whatever server the app names: its own is not touched unless you ask for it with
--server app. What follows -- is a command that runs beside the worker and sees the same server, such as your web
server. Ctrl-C ends everything, a second one at once.
"""

import argparse
import asyncio
import contextlib
import errno
import importlib.util
import os
import platform
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from .._values.settings import DEV_URL
from ..embedded import Server
from ..errors import ArdiqError
from . import Refusal
from ._arguments import Parser, positive
from ._lifeline import Requests
from ._programs import Kept, Program, Screen

_DRAIN_S = 2
_PATIENCE_S = _DRAIN_S + 3.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_NAMED = 3
_DASHBOARD = ("jinja2", "starlette", "uvicorn")
_MOST_TRIED, _PORTS = 20, 1 << 16


def configure(parser: Parser) -> None:
    parser.takes_command = True
    parser.usage = "%(prog)s MODULE:ATTR [options] [-- COMMAND …]"
    parser.add_argument("app", metavar="MODULE:ATTR", nargs="?", help="the app, such as shop.jobs:app [ARDIQ_APP]")
    parser.add_argument("-w", "--workers", type=positive, metavar="N", help="number of worker processes (default: 1)")
    parser.add_argument(
        "--queue",
        action="append",
        dest="queues",
        metavar="NAME",
        help="serve this queue instead of the app's own; may be repeated",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="keep the embedded server's data in this directory")
    parser.add_argument(
        "--server",
        choices=("embedded", "app"),
        default="embedded",
        help="embedded: a server of its own; app: the one that the app names (default: embedded)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=9180,
        help="of the dashboard, on this machine alone; where it is taken, the next free one (default: 9180)",
    )
    parser.add_argument(
        "--watch",
        action="append",
        type=Path,
        metavar="DIR",
        help="look for changes in this directory instead of the working directory; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    arguments.app = arguments.app or os.environ.get("ARDIQ_APP")
    if not arguments.app or not all(part for part in arguments.app.partition(":")):
        raise Refusal("which app? Name it as MODULE:ATTR, such as `ardiq dev shop.jobs:app`, or in ARDIQ_APP")
    if arguments.server == "app" and arguments.data is not None:
        raise Refusal("--data is for the embedded server, and --server app uses none")
    arguments.watch = arguments.watch or [Path()]
    for directory in arguments.watch:
        if not directory.is_dir():
            raise Refusal(f"--watch {directory}: there is no such directory")
    if importlib.util.find_spec("watchfiles") is None:
        raise ArdiqError("it looks for changes with watchfiles, which is not installed: pip install 'ardiq[dev]'")
    environment = {name: value for name, value in os.environ.items() if name != DEV_URL}
    environment |= {"PYTHONUNBUFFERED": "1", "ARDIQ_APP": arguments.app}
    embedded = Server(arguments.data) if arguments.server == "embedded" else contextlib.nullcontext()
    with _listener(arguments.port) as listener, embedded as server:
        if server is not None:
            environment[DEV_URL] = server.url
        return asyncio.run(_Dev(arguments, environment, server, listener).run())


def _listener(port: int) -> contextlib.AbstractContextManager[socket.socket | None]:
    """Where the dashboard is called, also while it starts again; None where it is not installed."""
    if not all(importlib.util.find_spec(name) for name in _DASHBOARD):
        return contextlib.nullcontext()
    if not 0 <= port < _PORTS:
        raise Refusal(f"--port {port}: ports are numbers from 0 to {_PORTS - 1}")
    for number in range(port, min(port + _MOST_TRIED, _PORTS)):
        try:
            return socket.create_server(("127.0.0.1", number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Refusal(f"--port {number}: {error.strerror}") from None
    raise Refusal(f"--port {port}: it is taken, and so are those after it")


class _Dev:
    """Everything that runs, from the first line to the last."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        environment: dict[str, str],
        server: Server | None,
        listener: socket.socket | None,
    ) -> None:
        self._arguments = arguments
        self._server = server
        self._has_dashboard = listener is not None
        self._screen = screen = Screen()
        if screen.has_colours:
            environment = {"FORCE_COLOR": "1", **environment}  # they write to a pipe
        screen.on_gone = self._stop
        self._stopping = asyncio.Event()
        self._requests = Requests()

        def kept(name: str, command: list[str], *, restarts: bool, sockets: tuple[int, ...] = ()) -> Kept:
            program = Program(name, command, environment, screen, _PATIENCE_S, sockets)
            return Kept(program, restarts=restarts, stopping=self._stopping, say=screen.say)

        ardiq, queues = [sys.executable, "-m", "ardiq"], [f"--queue={queue}" for queue in arguments.queues or ()]
        words = [f"--workers={arguments.workers or 1}", f"--drain-timeout={_DRAIN_S}", *queues]
        self._kept = [kept("worker", [*ardiq, "run", arguments.app, *words], restarts=True)]
        if listener is not None:
            number = listener.fileno()
            web = [*ardiq, "web", arguments.app, f"--listener={number}", *queues]
            self._kept.append(kept("web", web, restarts=False, sockets=(number,)))
        if arguments.command:
            self._kept.append(kept("command", arguments.command, restarts=False))

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        for title, text in self._banner():
            self._screen.say(f"{title:<10}{text}")
        watching = loop.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for kept in self._kept:
                    group.create_task(kept.keep())
        finally:
            watching.cancel()
        return 1 if self._screen.is_gone else 0

    def _banner(self) -> Iterator[tuple[str, str]]:
        """What runs and where, line by line; the dashboard says itself where it is."""
        arguments = self._arguments
        queues = f", queues {', '.join(arguments.queues)}" if arguments.queues else ""
        yield "app", f"{arguments.app}{queues}, Python {platform.python_version()}"
        if self._server is None:
            yield "server", "the one that the app names"
        else:
            kept = (
                f"its data is kept in {arguments.data}"
                if arguments.data
                else "in memory: lost at the end (--data DIR keeps it)"
            )
            yield "server", f"embedded, {kept}"
            yield "", f"look at it: ardiq status {self._server.url}"
        if not self._has_dashboard:
            yield "dashboard", "not installed: pip install 'ardiq[web]'"
        yield "watching", ", ".join(str(directory.resolve()) for directory in arguments.watch)
        if arguments.command:
            yield "command", " ".join(arguments.command)

    def _stop(self) -> None:
        request = self._requests.count()
        if request == "first":
            self._screen.say("stopping")
            self._stopping.set()
            for kept in self._kept:
                kept.stop()
        elif request == "further":
            for kept in self._kept:
                kept.program.kill()

    async def _watch(self) -> None:
        try:
            async for names in _changes(self._arguments.watch):
                more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
                self._screen.say(f"changed: {', '.join(names[:_MOST_NAMED])}{more}")
                for kept in self._kept:
                    kept.change()
        except (OSError, RuntimeError) as error:  # as of a system that watches no more files
            self._screen.say(f"changes are not seen any more: {error}")


async def _changes(directories: list[Path]) -> AsyncIterator[list[str]]:
    """The Python files that changed, again and again."""
    from watchfiles import PythonFilter, awatch

    here = Path.cwd()
    async for changes in awatch(*directories, watch_filter=PythonFilter(), step=50, debounce=400):
        paths = sorted({Path(path) for _, path in changes})
        yield [str(path.relative_to(here)) if path.is_relative_to(here) else str(path) for path in paths]
