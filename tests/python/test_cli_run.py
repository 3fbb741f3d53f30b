"""`ardiq run`: what it says to a wrong name, how it stops, and how several workers are kept running."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from projects import JOBS, Project, eventually, stop

from ardiq import Ardiq
from ardiq._execution.worker import give_up_after
from ardiq.embedded import Server

AWAY = """
    from ardiq import Ardiq
    app = Ardiq({url!r}, broker_timeout_ms={timeout}{more})
    app.task(name="nothing")(print)
"""


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("jobs", "'jobs' is not MODULE:ATTR"),
        ("jobs:", "'jobs:' is not MODULE:ATTR"),
        (":app", "':app' is not MODULE:ATTR"),
        ("jobs:app:x", "'jobs:app:x' is not MODULE:ATTR"),
        ("jobs.py:app", "there is no module 'jobs.py'"),
        ("nowhere:app", "there is no module 'nowhere'"),
        ("jobs:missing", "module 'jobs' has no 'missing'"),
        ("jobs:number", "'jobs:number' is an int, not an Ardiq app"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(project: Project, target: str, says: str) -> None:
    process = project.start(target)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert errors.startswith(f"ardiq: {says}")
    assert errors.count("\n") == 1


def test_a_module_that_fails_shows_where(project: Project) -> None:
    project.write("broken.py", "import no_such_thing\n")
    process = project.start("broken:app")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert 'broken.py", line 1' in errors
    assert errors.splitlines()[-1].startswith("ardiq: importing 'broken' failed: ModuleNotFoundError")


def test_it_says_what_it_connects_to_and_when_it_is_ready(project: Project) -> None:
    process = project.start("jobs:app")
    assert process.stderr is not None
    assert process.stderr.readline().endswith(f"connecting to {project.core.url}\n")
    ready = r"ready: worker \S+:[0-9a-f]{12}, queue 'default', 16 at once, 1[0-9] tasks: note, slow, "
    assert re.search(ready, process.stderr.readline())


def test_it_says_at_once_where_a_server_should_be(project: Project) -> None:
    project.write("away.py", AWAY.format(url="redis://:secret@127.0.0.1:1", timeout=600_000, more=""))
    process = project.start("away:app")
    assert process.stderr is not None
    assert "connecting to redis://" in process.stderr.readline()
    assert "cannot reach redis://" in process.stderr.readline()
    code, errors = stop(process)
    assert code == 0
    assert "secret" not in errors


@pytest.mark.parametrize("options", ["", ", allow_eviction=True"])
def test_it_stops_at_once_where_no_server_answers(project: Project, options: str) -> None:
    project.write("away.py", AWAY.format(url="redis://127.0.0.1:1", timeout=600_000, more=options))
    process = project.start("away:app")
    assert process.stderr is not None
    assert "connecting to redis://" in process.stderr.readline()
    code, errors = stop(process)
    assert code == 0, errors
    # Not because somebody ran out of patience with what still waited.
    assert [line.rpartition(" INFO ")[2][:14] for line in errors.splitlines()] == ["worker stoppin", "worker stopped"]


@pytest.mark.parametrize("words", [(), ("--workers", "2")])
def test_a_run_that_somebody_waits_for_gives_up_on_a_server_that_is_away(
    project: Project, words: tuple[str, ...]
) -> None:
    project.write("away.py", AWAY.format(url="redis://127.0.0.1:1", timeout=100, more=""))
    process = project.start("away:app", "--burst", "--give-up-after", "1", *words)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 5
    assert re.search(r"ERROR cannot reach redis://127.0.0.1:1: .*; gave up after \d s", errors)
    assert "Traceback" not in errors


def test_one_that_loses_the_server_gives_up_too(project: Project) -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        project.write("away.py", AWAY.format(url=server.url, timeout=100, more=""))
        process = project.start("away:app", "--give-up-after", "1")
        assert process.stderr is not None
        assert any("ready: worker" in line for line in process.stderr)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors
    assert "gave up after" in errors


def test_without_a_bound_it_waits_and_in_burst_mode_half_a_minute() -> None:
    app = Ardiq("redis://127.0.0.1:1")
    assert give_up_after(app.run_state) is None
    app.burst = True
    assert give_up_after(app.run_state) == 30
    app.run_state.give_up_after_s = 5.0
    assert give_up_after(app.run_state) == 5


def test_burst_ends_when_nothing_is_ready(project: Project) -> None:
    for number in range(20):
        project.enqueue("note", f'["{number}"]')
    process = project.start("jobs:app", "--burst")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert sorted(project.notes(), key=int) == [str(number) for number in range(20)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_task_end(project: Project, number: int) -> None:
    project.enqueue("slow", "[1]")
    process = project.start("jobs:app")
    eventually(lambda: project.notes() == ["started"])
    code, errors = stop(process, number)
    assert code == 0, errors
    assert project.notes() == ["started", "finished"]
    assert project.workers() == []


def test_a_second_signal_stops_at_once(project: Project) -> None:
    project.enqueue("slow", "[60]")
    process = project.start("jobs:app")
    eventually(lambda: project.notes() == ["started"])
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    code, _ = stop(process, signal.SIGINT)
    assert code == 1


def test_a_crashed_worker_is_started_again_and_the_signal_named(project: Project) -> None:
    process = project.start("jobs:app", "--workers", "2")
    eventually(lambda: len(project.workers()) == 2)
    first, second = project.workers()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(set(project.workers()) - {first, second}) == 1)
    code, errors = stop(process)
    assert code == 0, errors
    # Where the control group counts what the kernel kills for want of memory, it was not that.
    assert re.search("killed by SIGKILL(, perhaps out of memory)?; restarting it in 1 s", errors)
    assert set(project.workers()) <= {first}, errors


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are Linux's")
def test_a_worker_that_cannot_be_started_ends_no_other_and_is_tried_again(project: Project) -> None:
    process = project.start("jobs:app", "--workers", "2")
    eventually(lambda: len(project.workers()) == 2)
    first, second = project.workers()
    few, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, most))
    os.kill(first, signal.SIGKILL)
    assert process.stderr is not None
    line = next(line for line in process.stderr if "Too many open files" in line)
    assert "worker 1 of 2 cannot be started" in line or "worker 2 of 2 cannot be started" in line
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (few, most))
    eventually(lambda: len(set(project.workers()) - {first, second}) == 1)
    assert second in project.workers()
    assert stop(process)[0] == 0


@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_task_that_exits_has_crashed_its_worker_whatever_the_code(project: Project, number: int) -> None:
    process = project.start("jobs:app", "--workers", "2")
    eventually(lambda: len(project.workers()) == 2)
    first = set(project.workers())
    project.enqueue("leave", f"[{number}]")
    eventually(lambda: len(set(project.workers()) - first) == 1)
    code, errors = stop(process)
    assert code == 0, errors
    assert f"ended: exit code {number}; restarting it in 1 s" in errors


def test_workers_end_when_the_process_that_keeps_them_is_killed(project: Project) -> None:
    process = project.start("jobs:app", "--workers", "2")
    eventually(lambda: len(project.workers()) == 2)
    process.kill()
    eventually(lambda: project.workers() == [])


def test_several_workers_in_burst_mode_share_the_work_and_end(project: Project) -> None:
    for number in range(50):
        project.enqueue("note", f'["{number}"]')
    process = project.start("jobs:app", "--workers", "2", "--burst", "--quiet")
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert sorted(project.notes(), key=int) == [str(number) for number in range(50)]


def test_workers_of_an_embedded_server_share_it(project: Project) -> None:
    project.write("jobs.py", JOBS.format(url="embedded://"))
    project.write(
        "both.py",
        """
        import asyncio, subprocess, sys
        from jobs import app, note

        async def main():
            await note.enqueue("one")
            subprocess.run([sys.executable, "-m", "ardiq", "run", "jobs:app", "-w", "2", "-b", "-q"], check=True)
        asyncio.run(main())
        """,
    )
    subprocess.run([sys.executable, "both.py"], cwd=project.directory, check=True, timeout=30)
    assert project.notes() == ["one"]


def test_no_workers_is_a_wrong_number(project: Project) -> None:
    process = project.start("jobs:app", "--workers", "0")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "at least 1" in errors


@pytest.mark.parametrize(("name", "arguments"), [("slow", "[60]"), ("blocking", "[60]"), ("crunch", "[]")])
def test_what_does_not_end_within_the_drain_timeout_is_handed_back(project: Project, name: str, arguments: str) -> None:
    project.enqueue(name, arguments)
    process = project.start("jobs:app", "--drain-timeout", "0.3")
    eventually(lambda: project.notes() == ["started"])
    [pid] = project.pids()
    code, errors = stop(process)
    assert code == 0, errors
    assert "tasks still running after 0.3 s are handed back" in errors
    assert project.queued() == [("queued", "0")]  # no attempt was charged
    assert project.workers() == []
    assert not Path(f"/proc/{pid}").exists()


def test_threads_that_tasks_left_behind_do_not_hold_up_the_end(project: Project) -> None:
    alone = project.start("jobs:app")
    project.enqueue("leave_threads", "[]")
    eventually(lambda: project.notes() == ["started"])
    alone.send_signal(signal.SIGTERM)
    project.enqueue("leave_threads", "[]")
    burst = project.start("jobs:app", "--burst")
    eventually(lambda: project.notes() == ["started", "started"] and project.workers() == [])
    code, errors = stop(burst)
    assert (code, "Traceback" in errors) == (0, False), errors
    kept = project.start("jobs:app", "--workers", "2", "--max-tasks", "1")
    project.enqueue("leave_threads", "[]")
    eventually(lambda: len(project.notes()) == 3)
    project.enqueue("note", '["next"]')
    _, errors = alone.communicate(timeout=30)
    assert alone.returncode == 0
    assert re.search("ended without waiting for threads that tasks left behind: .*immortal", errors)
    eventually(lambda: project.notes() == [*["started"] * 3, "next"])
    time.sleep(1)
    code, errors = stop(kept)
    assert code == 0
    assert "restarting it" not in errors, "each ended in order"


def test_nothing_holds_up_the_stop(project: Project) -> None:
    """Neither a task that ignores its cancellation, nor one that holds up the loop, nor one the interpreter."""
    processes = []
    for number, (name, words) in enumerate([("deaf", []), ("hog", []), ("hold_on", ["--workers", "2"])], 1):
        project.enqueue(name, "[]")
        processes.append(project.start("jobs:app", "--drain-timeout", "0", *words))
        eventually(lambda number=number: len(project.notes()) == number)
        processes[-1].send_signal(signal.SIGTERM)  # it takes no more
    ends = [process.communicate(timeout=30)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1, 1], ends
    for says, errors in zip(
        ["ignores its cancellation", "blocks the event loop", "does not stop: killed"], ends, strict=True
    ):
        assert says in errors
    assert len(project.queued()) == 3


@pytest.mark.parametrize("words", [(), ("--workers", "2")])
def test_what_was_not_started_is_handed_back_too(project: Project, words: tuple[str, ...]) -> None:
    for _ in range(60):
        project.enqueue("slow", "[60]")
    process = project.start("jobs:app", "--drain-timeout", "0.2", *words)
    eventually(lambda: len(project.notes()) == (32 if words else 16))
    code, errors = stop(process)
    assert code == 0, errors
    assert project.queued() == [("queued", "0")] * 60  # no attempt was charged
    assert project.workers() == []


def test_a_worker_that_goes_on_crashing_is_started_less_and_less_often(project: Project) -> None:
    project.write(
        "crashing.py",
        """
        import asyncio, os
        from jobs import app, note

        @app.lifespan
        async def crash():
            await note.fn("started")
            os.abort()
            yield
        """,
    )
    process = project.start("crashing:app", "--workers", "2")
    eventually(lambda: len(project.notes()) >= 6, 20)
    code, errors = stop(process)
    assert code == 1
    pauses = re.findall("ended: killed by SIGABRT; restarting it in (.*) s", errors)
    assert sorted(pauses)[:4] == ["1", "1", "2", "2"]


def test_what_ends_within_the_drain_timeout_has_ended(project: Project) -> None:
    project.enqueue("slow", "[0.5]")
    process = project.start("jobs:app", "--drain-timeout", "20")
    eventually(lambda: project.notes() == ["started"])
    code, errors = stop(process)
    assert code == 0, errors
    assert project.notes() == ["started", "finished"]


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (("--max-tasks", "3"), "3 attempts (--max-tasks 3)"),
        (("--max-age", "500ms"), "0.5 s old (--max-age)"),
        (("--max-memory-mb", "1"), "MiB (--max-memory-mb 1)"),
    ],
)
def test_a_worker_that_reached_a_limit_ends_and_says_why(project: Project, limit: tuple[str, str], says: str) -> None:
    for _ in range(3):
        project.enqueue("note", '["x"]')
    process = project.start("jobs:app", *limit)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert says in errors


def test_the_memory_of_its_children_counts(project: Project) -> None:
    project.enqueue("swell", "[300]")
    process = project.start("jobs:app", "--max-memory-mb", "250")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "MiB (--max-memory-mb 250)" in errors


def test_a_worker_that_reached_a_limit_is_replaced_at_once(project: Project) -> None:
    process = project.start("jobs:app", "--workers", "2", "--max-tasks", "1")
    eventually(lambda: len(project.workers()) == 2)
    before = set(project.workers())
    project.enqueue("note", '["x"]')
    eventually(lambda: len(project.workers()) == 2 and len(set(project.workers()) - before) == 1)
    code, errors = stop(process)
    assert code == 0, errors
    assert "has reached a limit; starting a new one" in errors
    assert "restarting it in" not in errors


@pytest.mark.parametrize(
    "words",
    [
        ("--drain-timeout", "-1"),
        ("--drain-timeout", "nan"),
        ("--max-tasks", "0"),
        ("--max-age", "0"),
        ("--drain-timeout", "soon"),
    ],
)
def test_a_wrong_limit_is_refused(project: Project, words: tuple[str, str]) -> None:
    process = project.start("jobs:app", *words)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert words[0] in errors
