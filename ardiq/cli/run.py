"""Run a worker for the app that MODULE:ATTR names; the module is importable from the working directory.

SIGINT (Ctrl-C) or SIGTERM stops it when the running tasks have ended, a second one at once. With --workers it starts
that many processes, passes signals on to them, and starts a crashed one again.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .. import embedded
from ..errors import LibraryError
from . import Refusal, load_app

if TYPE_CHECKING:
    from ..app import Ardiq

_log = logging.getLogger("ardiq")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REFUSED = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_HEALTHY_AFTER_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", metavar="MODULE:ATTR", help="where the app is, such as shop.jobs:app")
    parser.add_argument("-b", "--burst", action="store_true", help="end when nothing is ready to run")
    parser.add_argument(
        "-w",
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="number of worker processes (default: 1)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log every step")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")
    parser.add_argument(
        "--allow-eviction",
        action="store_true",
        help="accept a server that may evict tasks when its memory is full",
    )
    parser.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    app = load_app(arguments.app)
    if arguments.workers == 1:
        return asyncio.run(_work(app, arguments))
    if embedded.is_embedded(app.redis_url):
        embedded.url_for(app.redis_url)  # here, so that the children share it
    return asyncio.run(_Supervisor(arguments).run())


async def _work(app: "Ardiq", arguments: argparse.Namespace) -> int:
    app.burst = app.burst or arguments.burst
    app.allow_eviction = app.allow_eviction or arguments.allow_eviction
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            _log.warning("stopped at once; what was running runs again when the lease is over")
            logging.shutdown()
            os._exit(1)
        stopping = True
        _log.info("stopping when the running tasks have ended; a second signal stops at once")
        app.stop()

    def parent_ended() -> None:
        loop.remove_reader(arguments.lifeline)
        if not stopping:
            stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    if arguments.lifeline is not None:
        os.set_inheritable(arguments.lifeline, False)
        loop.add_reader(arguments.lifeline, parent_ended)
    try:
        await app.run()
    except LibraryError as error:
        raise Refusal(str(error)) from None
    return 0


class _Supervisor:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._count: int = arguments.workers
        self._command = [sys.executable, "-m", "ardiq", "run", arguments.app]
        for name in ("burst", "verbose", "quiet", "allow_eviction"):
            if getattr(arguments, name):
                self._command.append("--" + name.replace("_", "-"))
        self._children: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        # The children watch the reading end: it tells them when this process is gone, however it went.
        lifeline, held = os.pipe()
        try:
            return max(await asyncio.gather(*(self._keep(number, lifeline) for number in range(1, self._count + 1))))
        finally:
            os.close(lifeline)
            os.close(held)

    def _stop(self) -> None:
        self._stopping.set()
        for child in self._children:
            _pass_on(child)

    async def _keep(self, number: int, lifeline: int) -> int:
        pause = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = await self._one(lifeline)
            if self._stopping.is_set() or code in (0, _REFUSED):
                return 0 if code == 0 else max(code, 1)
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                pause = _FIRST_PAUSE_S
            _log.error(
                "worker %d of %d ended: %s; starting it again in %g s",
                number,
                self._count,
                _reason(code),
                pause,
            )
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return 1
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _one(self, lifeline: int) -> int:
        # A process group of its own: Ctrl-C in the terminal reaches this process alone, which passes it on once.
        child = await asyncio.create_subprocess_exec(
            *self._command,
            "--lifeline",
            str(lifeline),
            pass_fds=[lifeline],
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        self._children.add(child)
        if self._stopping.is_set():
            _pass_on(child)
        try:
            return await child.wait()
        finally:
            self._children.discard(child)


def _pass_on(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number
