"""`ardiq run`: what it says to a wrong name, how it stops, and how several workers are kept running."""

import contextlib
import os
import re
import resource
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
    import asyncio, os, signal, threading, time
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
        self.core = _core.Core(url, "ardiq:{default}:")
        self.processes: list[subprocess.Popen[str]] = []
        self.write("jobs.py", JOBS.format(url=url))

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(textwrap.dedent(text))

    def enqueue(self, name: str, arguments: str) -> None:
        task = f"{name}-{time.monotonic_ns()}"
        assert self.core.call("enqueue", [task, name, "default", arguments, "", ""]) == [b"queued"]

    def start(self, *words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "ardiq", "run", *words],
            cwd=self.directory,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.processes.append(process)
        return process

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
        rows = self.core.call("list", ["workers", "", 0, 100])[::2]
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


def eventually(condition: Callable[[], object], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


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
    ready = r"ready: worker \S+:[0-9a-f]{12}, queue 'default', 16 at once, 10 tasks: note, slow, "
    assert re.search(ready, process.stderr.readline())


def test_it_says_at_once_where_a_server_should_be(project: Project) -> None:
    project.write("away.py", "from ardiq import Ardiq\napp = Ardiq('redis://:secret@127.0.0.1:1')\n")
    process = project.start("away:app")
    assert process.stderr is not None
    assert "connecting to redis://" in process.stderr.readline()
    assert "cannot reach redis://" in process.stderr.readline()
    code, errors = stop(process)
    assert code == 0
    assert "secret" not in errors


@pytest.mark.parametrize("options", ["", ", allow_eviction=True"])
def test_it_stops_at_once_where_no_server_answers(project: Project, options: str) -> None:
    away = f"from ardiq import Ardiq\napp = Ardiq('redis://127.0.0.1:1', broker_timeout_ms=600_000{options})\n"
    project.write("away.py", away)
    process = project.start("away:app")
    assert process.stderr is not None
    assert "connecting to redis://" in process.stderr.readline()
    code, errors = stop(process)
    assert code == 0, errors
    # Not because somebody ran out of patience with what still waited.
    assert [line.rpartition(" INFO ")[2][:8] for line in errors.splitlines()] == ["stopping"]


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
    time.sleep(0.3)
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
    assert re.search("killed by SIGKILL(, perhaps out of memory)?; starting it again in 1 s", errors)
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
    assert f"ended: exit code {number}; starting it again in 1 s" in errors


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
    assert "what still runs after 0.3 s is handed back" in errors
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
    assert "starting it again" not in errors, "each ended in order"


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
        ["does not let itself be cancelled", "holds up the event loop", "does not stop: killed"], ends, strict=True
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
    pauses = re.findall("ended: killed by SIGABRT; starting it again in (.*) s", errors)
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
    assert "starting it again in" not in errors


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
