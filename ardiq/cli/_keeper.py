"""Keeps one program of `ardiq dev`, and ends all of it. A script of its own, started by `_programs`.

Called with how many seconds the program may take to end, the numbers of open sockets that it is to have (with commas),
and its command line. It ends the program, and whatever that
started, when its standard input says so: a byte, or its end, which comes however the process at the other end is gone.
It does not wait any longer after a byte that is `NOW`.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STOP, NOW = b"s", b"n"
NOT_STARTED = 127
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    patience_s, command = float(sys.argv[1]), sys.argv[3:]
    sockets = [int(number) for number in sys.argv[2].split(",") if number]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # whoever signals every process reaches the program, too; not inherited
    ended, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the program leaves behind becomes this one's child
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=sockets, process_group=0, preexec_fn=_end_with_keeper
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return NOT_STARTED
    word: bytes | None = None
    deadline: float | None = None
    while (code := _reap(child.pid)) is None:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        ready, _, _ = select.select([ended] if word in (b"", NOW) else [ended, 0], [], [], left)
        if ended in ready:
            os.read(ended, 4096)
        if 0 in ready:
            word = os.read(0, 1)
            if deadline is None:
                deadline = time.monotonic() + patience_s
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGTERM)
        if word == NOW or (deadline is not None and time.monotonic() >= deadline):
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    while _end_descendants():
        pass
    child.returncode = 0  # it is reaped: nothing is to be waited for
    return 128 + signal.SIGKILL if code is None else code


def _reap(pid: int) -> int | None:
    """Take the exit codes of all that ended; the program's own, as a shell tells it."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                found = 128 - code if code < 0 else code
    return found


def _end_descendants() -> bool:
    """End what is left, and wait for one of them; whether there was any."""
    for pid in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True


def _descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _descendants(child)


def _end_with_keeper() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main())
