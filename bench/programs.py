"""The processes of a benchmark: the floor, the producer, the worker."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.server import Server

ROOT = Path(__file__).resolve().parent.parent

_PATIENCE_S = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


def stop_in_order(said: Callable[[], str] = lambda: "interrupted") -> None:
    """Let a signal end this program by its blocks, which end what they started. A second one does not disturb that."""
    signums = [
        signum
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(signum) != signal.SIG_IGN  # as in the background, or with nohup
    ]

    def stop(signum: int, frame: Any) -> None:
        for each in signums:
            signal.signal(each, signal.SIG_IGN)
        print(f"\n{said()}", file=sys.stderr, flush=True)
        sys.exit(128 + signum)

    for signum in signums:
        signal.signal(signum, stop)


def busy(seconds: float = 3.0) -> float:
    """What share of the CPU others use while this one waits. A load average would still count a build before a run."""
    before = _cpu_ticks()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(_cpu_ticks(), before, strict=True))
    return round(1 - idle / total, 3)


def _cpu_ticks() -> tuple[int, int]:
    """Of all cores: all of them, and those in which there was nothing to do."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def build_floor() -> Path:
    """Compile the floor as the package is compiled; its path."""
    manifest = ROOT / "native" / "Cargo.toml"
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "native" / "target")
    command = ["cargo", "build", "--locked", "--quiet", "--release", "--example", "floor"]
    subprocess.run([*command, "--manifest-path", manifest], check=True)
    return target / "release" / "examples" / "floor"


class Process:
    """A running process, as the kernel accounts for it."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    def check(self) -> None:
        """Stop the benchmark if the process has ended by itself."""
        if self._process.poll() is not None:
            self._log.seek(0)
            raise SystemExit(f"{self._process.args!r} ended:\n{self._log.read().decode()}")

    def cpu_us(self) -> float:
        """CPU time used so far, all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e6 / _TICKS

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def pss_mib(self) -> float:
        """Proportional set size."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) / 1024


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[Process]:
    """A process that is ended with the block."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Process(process, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Programs:
    """The programs, for one server."""

    def __init__(self, server: Server, floor: Path | None = None) -> None:
        self._server = server
        self._floor = floor

    def floor(self, measure: str, **options: int | str) -> dict[str, Any]:
        """A measure of the floor."""
        return _measure([str(self._floor), self._server.url, measure], options)

    def producer(self, measure: str, option: str = "", **options: int | str) -> dict[str, Any]:
        """The same by a Python program. `option`: of the tasks, see `bench.options`."""
        command = [sys.executable, "-m", "bench.producer", measure]
        return _measure(command, options, ARDIQ_REDIS_URL=self._server.url, BENCH_OPTION=option)

    @contextmanager
    def floor_worker(self) -> Iterator[Process]:
        """The floor's worker, idle."""
        with running([str(self._floor), self._server.url, "serve"]) as process:
            self._joined(process)
            yield process

    @contextmanager
    def worker(self, concurrency: int | None = None, option: str | None = None) -> Iterator[Process]:
        """`ardiq run` as its own process; it has joined and may be at work. `option`: see `bench.options`."""
        environment = {"ARDIQ_REDIS_URL": self._server.url, "BENCH_OPTION": option or ""}
        if concurrency is not None:
            environment["BENCH_CONCURRENCY"] = str(concurrency)
        app = "bench.jobs:app" if option is None else "bench.options:app"
        with running([sys.executable, "-m", "ardiq", "run", app], **environment) as process:
            self._joined(process)
            yield process

    def _joined(self, process: Process) -> None:
        self.until(process, lambda: self._server.workers() > 0)

    def until(self, process: Process, done: Any, pause_s: float = 0.001) -> None:
        """Wait until `done()`; the process must live."""
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            process.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"a measure took longer than {_PATIENCE_S:g} s")
            time.sleep(pause_s)


def _measure(command: list[str], options: dict[str, int | str], **environment: str) -> dict[str, Any]:
    words = [*command, *(f"{name}={value}" for name, value in options.items())]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=False, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
