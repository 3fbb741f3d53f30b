"""Worker processes that `ardiq run` starts, as the tests of probes, stalls and poison need them."""

import os
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from helpers import SOON_S
from prometheus_client.parser import text_string_to_metric_families

from ardiq import Ardiq, WorkerInfo

HEAD = """
    import asyncio, ctypes, os, signal, sys, threading, time
    from ardiq import Ardiq

    app = Ardiq({url!r}, {queue!r}, poll_block_ms=500, **{options!r})

    def note(text):
        with open("notes", "a") as notes:
            notes.write(text + "\\n")

    def open_gate(name):  # closed until the test writes into it
        return os.open(name, os.O_RDWR)
"""


class Fleet:
    """A directory with a module `jobs`, the `ardiq run` of it, and its queue as seen from here."""

    def __init__(self, directory: Path, app: Ardiq, url: str, source: str, **options: Any) -> None:
        self.directory = directory
        self.app = app
        head = textwrap.dedent(HEAD).format(url=url, queue=app.queue_name, options=options)
        (directory / "jobs.py").write_text(head + textwrap.dedent(source))
        self.processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """`ardiq run jobs:app` with more words."""
        self._logs.append(self.directory / f"log{len(self._logs)}")
        with self._logs[-1].open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ardiq", "run", "jobs:app", *words],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        self.processes.append(process)
        return process

    def log(self) -> str:
        """What all of them wrote so far."""
        return "".join(path.read_text() for path in self._logs)

    def notes(self) -> list[str]:
        """What the tasks noted so far."""
        path = self.directory / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def gate(self, name: str = "gate") -> Path:
        """A gate that tasks wait at."""
        path = self.directory / name
        os.mkfifo(path)
        return path

    def open(self, gate: Path) -> None:
        """Let one task through."""
        descriptor = os.open(gate, os.O_RDWR | os.O_NONBLOCK)
        os.write(descriptor, b"x")
        # Whoever waits has it open, so the byte stays there when this end is closed.
        os.close(descriptor)

    def workers(self) -> list[WorkerInfo]:
        """Its workers, those too whose lease has run out."""
        return self.app.inspect.workers_sync()

    def end(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


class Probe:
    """Asks one worker process over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; (0, …) where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=SOON_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of that name with these labels; None where there is none."""
        status, text = self.get("/metrics")
        assert status == 200, text
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"ardiq_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


def soon(condition: Any, what: str = "it did not come about") -> Any:
    """The first true value of a condition, for tests without an event loop."""
    deadline = time.monotonic() + SOON_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value
