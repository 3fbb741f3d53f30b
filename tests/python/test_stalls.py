"""An event loop that does not turn is told of, with what holds it, and replaced where that is asked for."""

import asyncio
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, soon
from helpers import SOON_S, eventually, is_sound, is_state, result_of, working

from ardiq import Ardiq
from ardiq.cli import main
from ardiq.embedded import Server

JOBS = """
    @app.task
    async def block() -> None:
        note("started")
        os.read(open_gate("gate"), 1)

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b
"""


@pytest.fixture
def make_fleet(tmp_path: Path, server: Server, make_app: Callable[..., Ardiq]) -> Iterator[Callable[..., Fleet]]:
    fleets: list[Fleet] = []

    def make(**options: Any) -> Fleet:
        fleets.append(Fleet(tmp_path, make_app(), server.url, JOBS, **options))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


async def test_the_log_says_which_task_holds_the_loop_and_where(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(stall_after=0.1)
    deadline = time.monotonic() + SOON_S

    @app.task
    async def hog() -> None:
        while not said(caplog, "has not run for") and time.monotonic() < deadline:
            time.sleep(0.01)

    @app.task(timeout=60)
    async def idle() -> None:
        await asyncio.sleep(0)

    async with working(app):
        assert (await result_of(await idle.enqueue())).success
        job = await hog.enqueue()
        await result_of(job)
        await eventually(lambda: said(caplog, "the event loop runs again, after about"))
    (line,) = [line for line in said(caplog, "has not run for") if job.id in line]
    assert re.match(rf"the event loop has not run for \d+\.\d s; task 'hog' \(id {job.id}\) blocks it:\n", line)
    assert "in hog" in line
    assert "time.sleep(0.01)" in line
    assert "run_until_complete" not in line, "what called the task is of no use"


async def test_what_is_no_task_is_told_too(make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(stall_after=0.1)
    go_on = threading.Event()

    @app.task
    def wait() -> None:
        go_on.wait(SOON_S)

    job = await wait.enqueue()
    async with working(app):
        await eventually(lambda: is_state(app, job.id, "running"))
        await eventually(lambda: app.run_state.workers[0]._attempts.threads)
        deadline = time.monotonic() + SOON_S
        while not said(caplog, "code outside any task") and time.monotonic() < deadline:
            time.sleep(0.01)
        go_on.set()
    (line,) = said(caplog, f"code outside any task (on threads: task 'wait' (id {job.id})) blocks it")
    assert "test_what_is_no_task_is_told_too" in line


async def test_nobody_looks_where_nobody_asked(make_app: Callable[..., Ardiq]) -> None:
    def watchers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "ardiq-stalls"]

    before = len(watchers())
    app = make_app(stall_after=None)
    async with working(app):
        await eventually(lambda: app.run_state.workers)
        assert len(watchers()) == before
    app = make_app()
    async with working(app):
        await eventually(lambda: len(watchers()) > before)
    await eventually(lambda: len(watchers()) == before)


def test_status_and_doctor_show_it(
    make_fleet: Callable[..., Fleet], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(stall_after=0.2)
    gate = fleet.gate()
    fleet.start()
    fleet.app.ref("block").enqueue_sync()
    soon(lambda: any(worker.stalled_ms for worker in fleet.workers()))
    monkeypatch.chdir(fleet.directory)
    monkeypatch.delitem(sys.modules, "jobs", raising=False)  # of another fleet
    main(["doctor", "jobs:app"])
    del sys.modules["jobs"]
    assert re.search(r"event loop.*has not run for", capsys.readouterr().out, re.DOTALL)
    fleet.open(gate)
    soon(lambda: not any(worker.stalled_ms for worker in fleet.workers()))
    assert fleet.app.ref("add").enqueue_sync(1, 2).result_sync(timeout=SOON_S).value == 3


def test_a_stalled_worker_is_replaced_where_that_is_asked_for(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(stall_after=0.2, idle_timeout_ms=1_000, max_lost=1)
    fleet.gate()
    fleet.start("--workers", "2", "--replace-stalled", "1")
    job = fleet.app.ref("block").enqueue_sync()
    result = job.result_sync(timeout=2 * SOON_S)
    assert result is not None
    assert not result.success
    assert result.value == "poison: 2 workers died while holding this task"
    assert fleet.notes().count("started") == 2, "a worker more than max_lost"
    log = fleet.log()
    assert log.count("ended: its event loop was stalled; restarting it in") == 2
    assert "task 'block'" in log, "it was said before what holds it"
    assert fleet.app.ref("add").enqueue_sync(1, 2).result_sync(timeout=SOON_S).value == 3
    assert is_sound(fleet.app)


def test_one_worker_alone_ends_with_an_exit_code_of_its_own(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(stall_after=None)
    fleet.gate()
    process = fleet.start("--replace-stalled", "1")
    fleet.app.ref("block").enqueue_sync()
    assert process.wait(SOON_S) == 4
    assert "this worker ends, and what it held runs again when its lease is over" in fleet.log()
