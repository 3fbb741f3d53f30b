"""A project that the tests run `ardiq run` in."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ardiq import _core
from ardiq.embedded import Server

JOBS = """
    import asyncio, multiprocessing, os, signal, threading, time
    from ardiq import Ardiq

    app = Ardiq({url!r}, idle_timeout_ms=30_000, poll_block_ms=500)
    number = 1

    @app.task
    async def note(text: str) -> None:
        with open("notes", "a") as notes:
            notes.write(f"{{text}} {{os.getpid()}}\\n")

    @app.task
    async def slow(seconds: float) -> None:
        await note.fn("started")
        await asyncio.sleep(seconds)
        await note.fn("finished")

    @app.task
    def blocking(seconds: float) -> None:
        asyncio.run(note.fn("started"))
        time.sleep(seconds)

    @app.task
    async def deaf() -> None:
        await note.fn("started")
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass

    @app.task
    async def leave(code: int) -> None:
        os._exit(code)

    @app.task
    async def leave_threads() -> None:
        threading.Thread(target=time.sleep, args=[600], name="immortal").start()
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        await note.fn("started")

    @app.task
    async def hog() -> None:
        await note.fn("started")
        time.sleep(600)

    @app.task
    async def hold_on() -> None:
        await note.fn("started")
        sum(range(10**12))  # never lets go of the interpreter

    @app.task(executor="process")
    def swell(mib: int) -> None:
        global held
        held = b"x" * (mib << 20)

    @app.task(executor="process", max_retries=0)
    def in_child(seconds: float, how: str = "") -> None:
        if how:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(note.fn("started"))
        time.sleep(seconds)
        asyncio.run(note.fn("finished"))

    def fork() -> int | None:
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        child = context.Process(target=lambda: ready.set() or time.sleep(600), daemon=True)
        child.start()
        ready.wait(10)
        child.terminate()
        child.join(10)
        code = child.exitcode
        child.kill()
        return code

    @app.task
    def fork_on_a_thread() -> int | None:
        return fork()

    @app.task(executor="process")
    def fork_in_a_child() -> int | None:
        return fork()

    @app.task(executor="process")
    def crunch() -> None:
        asyncio.run(note.fn("started"))
        while True:
            pass
"""


class Project:
    """A directory with a module `jobs`, a server, and the `ardiq` command run in it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.core = _core.Core(url, "ardiq:{default}:")
        self.processes: list[subprocess.Popen[str]] = []
        self.write("jobs.py", JOBS.format(url=url))

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(textwrap.dedent(text))

    def enqueue(self, name: str, arguments: str) -> None:
        task = f"{name}-{time.monotonic_ns()}"
        assert self.core.call("enqueue", [task, name, "default", arguments, "", ""]) == [b"queued"]

    def python(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run Python to its end."""
        return subprocess.run(
            [sys.executable, *words], cwd=self.directory, capture_output=True, text=True, timeout=30, check=False
        )

    def start(self, *words: str, stderr: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "ardiq", "run", *words],
            cwd=self.directory,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.processes.append(process)
        return process

    def of_all(self, name: str) -> list[str]:
        """One field of each task's record."""
        keys = self.core.command(["KEYS", "ardiq:{default}:task:*"])
        return [(self.core.command(["HGET", key, name]) or b"").decode() for key in keys]

    def queued(self) -> list[tuple[str, str]]:
        """State and tries of the tasks that are not finished."""
        keys = self.core.command(["KEYS", "ardiq:{default}:task:*"])
        rows = [self.core.command(["HMGET", key, "state", "tries"]) for key in keys]
        return [(state.decode(), (tries or b"0").decode()) for state, tries in rows]

    def pids(self) -> list[int]:
        """Who wrote the notes."""
        path = self.directory / "notes"
        return [int(line.split()[1]) for line in path.read_text().splitlines()] if path.exists() else []

    def notes(self) -> list[str]:
        path = self.directory / "notes"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def workers(self) -> list[int]:
        """The process ids of the workers that the server knows."""
        rows = self.core.call("workers", ["0", 100])[3::8]
        infos = [self.core.command(["HGET", f"ardiq:{{default}}:worker:{row.decode()}", "info"]) for row in rows]
        return [int(re.findall(rb'"pid":\s*(\d+)', info)[0]) for info in infos if info]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        project = Project(tmp_path, server.url)
        yield project
        for process in project.processes:
            if process.poll() is None:
                # A child that holds on to the interpreter outlives it, and keeps its standard error open.
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                process.kill()
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(child), signal.SIGKILL)
            process.communicate()
        project.core.close()


def eventually(condition: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


def tree(pid: int) -> list[int]:
    """A process and all that descend from it: what systemd signals of a unit (`KillMode=control-group`)."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").glob("*"):
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def signal_all(pid: int, number: int) -> None:
    for each in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)
