"""The processes of a run: one is started with all that it will start, watched as a whole, and ended as a whole."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers.libraries import Library

_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Why a figure could not be taken."""


class Program:
    """A process in a session of its own, so that whatever it starts can be found."""

    def __init__(
        self, command: list[str], environment: dict[str, str], *, talks: bool = False, shown: bool = False
    ) -> None:
        """talks: it is sent steps; shown: what it prints is for the user, not for the log."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `kill`)
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=None if shown else subprocess.PIPE if talks else self._log,
            stderr=None if shown else self._log,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._log.close()

    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self._process.poll() is None

    def log(self) -> str:
        """The end of what it printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 4_000, max(0, size - 4_000)).decode(errors="replace").strip()

    def members(self) -> list[int]:
        """Its process and all that came of it: who is of its session, and their children."""
        session, members, parents = self._process.pid, set(), {}
        for entry in os.scandir("/proc"):
            if not entry.name.isdecimal():
                continue
            try:
                fields = _stat(int(entry.name))
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            if int(fields[3]) == session:
                members.add(int(entry.name))
        grown = True
        while grown:
            children = {child for child, parent in parents.items() if parent in members} - members
            members |= children
            grown = bool(children)
        return sorted(members)

    def cpu_s(self) -> float:
        """CPU time of all of them, with that of their children that have ended."""
        total = 0
        for process in self.members():
            try:
                total += sum(map(int, _stat(process)[11:15]))
            except OSError:
                continue
        return total / _TICKS

    def pss_mib(self) -> float:
        """Proportional set size of all of them."""
        total = 0
        for process in self.members():
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        return total / 1024

    def kill(self) -> None:
        """End all of them at once. None may start another one meanwhile, so they are stopped first."""
        for sign in (signal.SIGSTOP, signal.SIGSTOP, signal.SIGKILL):
            for process in self.members():
                try:
                    os.kill(process, sign)
                except ProcessLookupError:
                    continue
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, step: dict[str, Any], patience_s: float) -> dict[str, Any]:
        """What a producer answers to a step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(step).encode() + b"\n")
            self._process.stdin.flush()
            answer, until = b"", time.monotonic() + patience_s
            while not answer.endswith(b"\n"):
                left_s = until - time.monotonic()
                if left_s < 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                    raise Failed(f"`{step['do']}` took longer than {patience_s:g} s")
                part = os.read(self._process.stdout.fileno(), 1 << 20)
                if not part:
                    raise Failed(f"`{step['do']}` failed: {last_line(self.log())}")
                answer += part
        except BrokenPipeError:
            raise Failed(f"the producer ended: {last_line(self.log())}") from None
        figures: dict[str, Any] = json.loads(answer)
        return figures


def last_line(text: str) -> str:
    """What a traceback ends with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


def describe(library: Library) -> dict[str, Any]:
    """What its driver says of it."""
    done = subprocess.run(
        library.command("describe"), env=library.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(last_line(done.stderr))
    description: dict[str, Any] = json.loads(done.stdout)
    return description


def _stat(process: int) -> list[str]:
    """From the state on: state, parent, group, session, …, and at 11 to 14 the times."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
