"""Several worker processes, kept running."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time

from .._execution.memory import oom_kills
from .._execution.processes import exit_reason
from ._environment import words
from ._lifeline import IN_ORDER, NOW, STOP, Requests, tell

_log = logging.getLogger("ardiq")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REFUSED = 2
GAVE_UP = 5
RECYCLED = 3
INTERRUPTED = 130
STUBBORN_S = 8.0  # longer than a cancelled worker takes to leave
_STALLED = 4  # see native/src/engine/stalls.rs
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_HEALTHY_AFTER_S = 60.0
_DEAF_S = STUBBORN_S + 2.0
_AT_ONCE_S = 2.0
# Of workers that were asked to stop: the signals reach one that is not ready yet, too.
_STOPPED = (0, RECYCLED, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)


class Supervisor:
    """Starts worker processes, tells them to stop when it is told to, and starts a crashed one again."""

    def __init__(self, arguments: argparse.Namespace, count: int) -> None:
        self._count = count
        self._drain_timeout: float | None = arguments.drain_timeout
        options = words(arguments, without=("workers", "health"))
        self._command = [sys.executable, "-m", "ardiq", "run", arguments.app, "--workers=1", *options]
        self._health = arguments.health
        self._children: dict[asyncio.subprocess.Process, socket.socket] = {}
        self._requests = Requests()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop)
        _log.info("supervisor starting workers=%d", self._count)
        code = max(await asyncio.gather(*(self._keep(number) for number in range(1, self._count + 1))))
        _log.info("supervisor stopped workers=%d code=%d", self._count, code)
        return code

    def _stop(self) -> None:
        # Not by a signal: who signals every process has reached the workers already.
        loop, request = asyncio.get_running_loop(), self._requests.count()
        if request == "first":
            self._tell(STOP)
            self._stopping.set()
            if self._drain_timeout is not None:
                # One that holds on to the interpreter does not even hear it.
                loop.call_later(self._drain_timeout + _DEAF_S, self._kill)
        elif request == "further":
            self._tell(NOW)
            loop.call_later(_AT_ONCE_S, self._kill)

    def _tell(self, word: bytes) -> None:
        for line in self._children.values():
            tell(line, word)

    def _kill(self) -> None:
        for child in self._children:
            _log.warning("worker process %d does not stop: killed", child.pid)
            _send(child, signal.SIGKILL)

    async def _keep(self, number: int) -> int:
        pause = _FIRST_PAUSE_S
        while True:
            started, kills = time.monotonic(), oom_kills()
            try:
                code, is_in_order = await self._one(number)
                why = "its event loop was stalled" if code == _STALLED else exit_reason(code, kills)
                what = f"ended: {why}"
            except OSError as error:  # there is no process, memory or descriptor to be had
                code, is_in_order, what = 1, False, f"cannot be started: {error}"
            if self._stopping.is_set():
                return _after_stop(code)
            if is_in_order and code in (0, REFUSED, GAVE_UP):
                return code
            if is_in_order and code == RECYCLED:
                _log.info("worker %d of %d has reached a limit; starting a new one", number, self._count)
                continue
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                pause = _FIRST_PAUSE_S
            _log.error("worker %d of %d %s; restarting it in %g s", number, self._count, what, pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return _after_stop(code)
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _one(self, number: int) -> tuple[int, bool]:
        """The exit code of a worker process, and whether its interpreter ended in order (see `end_in_order`)."""
        health = [] if self._health is None else ["--health", str(self._health.of_worker(number))]
        ours, lifeline = socket.socketpair()
        with ours:
            with lifeline:
                # A process group of its own: Ctrl-C in the terminal reaches this process alone.
                child = await asyncio.create_subprocess_exec(
                    *self._command,
                    *health,
                    "--lifeline",
                    str(lifeline.fileno()),
                    pass_fds=[lifeline.fileno()],
                    stdin=subprocess.DEVNULL,
                    process_group=0,
                )
            self._children[child] = ours
            if self._stopping.is_set():
                tell(ours, STOP)
            try:
                code = await child.wait()
            finally:
                del self._children[child]
            with contextlib.suppress(OSError):  # a child of the child may hold its end, which then has nothing to read
                return code, ours.recv(1, socket.MSG_DONTWAIT) == IN_ORDER
            return code, False


def _after_stop(code: int) -> int:
    """What a worker's exit code means once it was asked to stop."""
    return 0 if code in _STOPPED else max(code, 1)


def _send(child: asyncio.subprocess.Process, number: int) -> None:
    """A signal, unless it has ended. Its own `send_signal` may take the exit code of one that just did, and asyncio
    then makes one up (255; https://github.com/python/cpython/issues/87744).
    """
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
