"""A stop is one request, whoever delivers it: to one process, to all of a unit, again within a second."""

import signal
import subprocess
import sys
import time

import pytest
from projects import Project, eventually, signal_all, stop, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def started(project: Project, count: int) -> None:
    eventually(lambda: project.notes().count("started") == count, 30)


@SIGNALS
@pytest.mark.parametrize("words", [(), ("--workers", "2")], ids=["one", "two"])
def test_a_signal_to_every_process_is_one_request(project: Project, words: tuple[str, ...], number: int) -> None:
    for _ in range(3):
        project.enqueue("slow", "[2]")
        project.enqueue("in_child", "[2]")
    process = project.start("jobs:app", *words)
    started(project, 6)
    signal_all(process.pid, number)
    code, errors = ended(process)
    assert code == 0, errors
    assert project.notes().count("finished") == 6, errors
    assert project.of_all("state") == ["complete"] * 6
    assert project.of_all("tries") == ["1"] * 6
    assert project.workers() == []


@pytest.mark.parametrize("words", [(), ("--workers", "2")], ids=["one", "two"])
def test_again_within_a_second_is_the_same_request(project: Project, words: tuple[str, ...]) -> None:
    project.enqueue("slow", "[2]")
    process = project.start("jobs:app", *words)
    started(project, 1)
    for _ in range(4):
        signal_all(process.pid, signal.SIGTERM)
        time.sleep(0.1)
    code, errors = ended(process)
    assert code == 0, errors
    assert project.notes().count("finished") == 1


@pytest.mark.parametrize("words", [(), ("--workers", "2")], ids=["one", "two"])
def test_a_later_one_stops_at_once(project: Project, words: tuple[str, ...]) -> None:
    project.enqueue("slow", "[600]")
    process = project.start("jobs:app", *words)
    started(project, 1)
    signal_all(process.pid, signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    signal_all(process.pid, signal.SIGINT)
    code, errors = ended(process)
    assert code == 1, errors
    assert "stopped at once" in errors


def test_what_is_sent_to_the_first_process_alone_stops_all(project: Project) -> None:
    for _ in range(4):
        project.enqueue("slow", "[1]")
    process = project.start("jobs:app", "--workers", "2")
    started(project, 4)
    code, errors = stop(process)
    assert code == 0, errors
    assert project.notes().count("finished") == 4


def test_a_second_one_to_the_first_process_alone_ends_even_what_hears_nothing(project: Project) -> None:
    project.enqueue("hold_on", "[]")
    process = project.start("jobs:app", "--workers", "2")
    started(project, 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    code, errors = stop(process)
    assert code == 1, errors
    assert "does not stop: killed" in errors


@SIGNALS
def test_a_child_that_dies_of_the_stop_is_handed_back_uncharged(project: Project, number: int) -> None:
    project.enqueue("in_child", '[600, "dies of signals"]')
    process = project.start("jobs:app")
    started(project, 1)
    signal_all(process.pid, number)
    code, errors = ended(process)
    assert code == 0, errors
    assert project.queued() == [("queued", "0")], errors


def test_a_child_that_dies_of_a_signal_while_nobody_stops_has_failed(project: Project) -> None:
    project.enqueue("in_child", '[600, "dies of signals"]')
    process = project.start("jobs:app")
    started(project, 1)
    for pid in project.pids():
        signal_all(pid, signal.SIGTERM)
    eventually(lambda: project.of_all("state") == ["failed"])
    assert "killed by SIGTERM" in project.of_all("error")[0]
    assert stop(process)[0] == 0


def test_workers_that_are_not_ready_yet_stop_too(project: Project) -> None:
    project.write(
        "late.py",
        """
        import time
        from jobs import app, note
        import asyncio
        asyncio.run(note.fn("started"))
        time.sleep(1)
        """,
    )
    process = project.start("late:app", "--workers", "2")
    started(project, 3)
    signal_all(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 0
    process = project.start("late:app", "--workers", "2")
    started(project, 6)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    assert not tree(process.pid)[1:]


@pytest.mark.parametrize("name", ["fork_on_a_thread", "fork_in_a_child"])
def test_what_a_task_forks_can_be_terminated(project: Project, name: str) -> None:
    project.enqueue(name, "[]")
    process = project.start("jobs:app", "--burst")
    assert ended(process)[0] == 0
    assert project.of_all("result") == [str(-signal.SIGTERM)]
