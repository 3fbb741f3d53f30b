"""A worker that is told to stop while its server is away: it waits for it only with something to tell, and a lease."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, eventually
from topologies import Node, free_port, until

LONG_MS, SHORT_MS = 600_000, 3_000
PATIENCE_S = 60.0


class Away:
    """A worker, its server, and what the worker says."""

    def __init__(self, directory: Path) -> None:
        self.node = Node(directory / "server", free_port(), {"save": "", "appendonly": "yes", "appendfsync": "always"})
        self.node.start()
        until(self.node.answers, "the server", [self.node])
        self.project = Project(directory, self.node.url)
        self._log = directory / "log"

    def work(self, lease_ms: int, *words: str) -> "subprocess.Popen[str]":
        """A worker that is ready."""
        said = self._log.read_text().count("ready: worker") if self._log.exists() else 0
        self.project.write("brief.py", f"from jobs import app\napp.context.change(idle_timeout_ms={lease_ms})\n")
        with self._log.open("a") as log:
            process = self.project.start("brief:app", *words, stderr=log.fileno())
        self.hears("ready: worker", said + 1)
        return process

    def run(self, seconds: float) -> None:
        """A task that the worker runs."""
        before = self.project.notes().count("started")
        self.project.enqueue("slow", f"[{seconds}]")
        eventually(lambda: self.project.notes().count("started") > before, PATIENCE_S)

    def hears(self, what: str, times: int = 1) -> None:
        eventually(lambda: self._log.read_text().count(what) >= times, PATIENCE_S)

    def leaves(self, process: "subprocess.Popen[str]") -> str:
        """What it said when it has ended, in order."""
        assert process.wait(PATIENCE_S) == 0
        return self._log.read_text()

    def comes_back(self) -> None:
        self.node.start()
        until(self.node.answers, "the server", [self.node])


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Away]:
    away = Away(tmp_path)
    yield away
    for process in away.project.processes:
        process.kill()
        process.wait()
    away.node.kill()


@pytest.mark.parametrize("words", [(), ("--workers", "2")], ids=["one", "two"])
def test_an_idle_worker_leaves(away: Away, words: tuple[str, ...]) -> None:
    process = away.work(LONG_MS, *words)
    away.node.kill()
    away.hears("trying again")
    process.send_signal(signal.SIGTERM)
    assert "end of tasks" not in away.leaves(process)


def test_an_idle_worker_leaves_when_it_finds_that_the_server_is_silent(away: Away) -> None:
    process = away.work(LONG_MS)
    away.node.freeze()
    process.send_signal(signal.SIGTERM)
    assert "end of tasks" not in away.leaves(process)


def test_a_task_that_runs_is_waited_for_and_told_when_the_server_is_back(away: Away) -> None:
    process = away.work(LONG_MS)
    away.run(2)
    away.node.kill()
    process.send_signal(signal.SIGTERM)
    away.hears("waiting to report the end of tasks (1)")
    assert away.project.notes() == ["started", "finished"]
    away.comes_back()
    away.leaves(process)
    assert away.project.of_all("state") == ["complete"]
    assert away.project.workers() == []


def test_what_had_ended_before_it_was_to_stop_is_told_too(away: Away) -> None:
    process = away.work(LONG_MS)
    away.run(0.5)
    away.node.kill()
    eventually(lambda: "finished" in away.project.notes(), PATIENCE_S)
    away.hears("trying again")
    process.send_signal(signal.SIGTERM)
    away.hears("waiting to report the end of tasks (1)")
    away.comes_back()
    away.leaves(process)
    assert away.project.of_all("state") == ["complete"]


def test_when_the_lease_is_over_it_leaves_and_others_run_the_task(away: Away) -> None:
    process = away.work(SHORT_MS)
    away.run(0.5)
    away.node.kill()
    process.send_signal(signal.SIGTERM)
    assert "the end of tasks could not be reported (1)" in away.leaves(process)
    away.comes_back()
    assert away.project.of_all("state") == ["running"]
    other = away.work(SHORT_MS)
    eventually(lambda: away.project.of_all("state") == ["complete"], PATIENCE_S)
    assert away.project.notes() == ["started", "finished"] * 2
    other.send_signal(signal.SIGTERM)
    away.leaves(other)


def test_a_task_that_outlasts_the_lease_is_waited_for(away: Away) -> None:
    process = away.work(SHORT_MS)
    away.run(5)
    away.node.kill()
    process.send_signal(signal.SIGTERM)
    assert "the end of tasks could not be reported (1)" in away.leaves(process)
    assert away.project.notes() == ["started", "finished"]
