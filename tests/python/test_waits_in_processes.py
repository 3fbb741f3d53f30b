"""Steps and waits of tasks with `executor="process"`."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers import eventually, field, result_of, task_module, working

from ardiq import Job
from ardiq.embedded import Server

TASKS = """
    import os
    from datetime import timedelta
    from ardiq import Ardiq, Signal, children_sync, current_task
    from ardiq import sleep_sync, step_key, step_sync, version_sync, wait_for_sync

    app = Ardiq({url!r}, queue_name={queue!r}, concurrency=2)
    approval = Signal("approval", bool)

    @app.task(executor="process")
    def order(number: int) -> list[object]:
        task = current_task()
        task.log("begun")
        try:
            pid = step_sync("pid", os.getpid)
            sleep_sync("pause", 2.1)
            answer = wait_for_sync(approval, timeout=timedelta(days=3))
            key = step_sync("key", step_key)
            return [number, isinstance(pid, int), answer, key, version_sync("new", 2), task.tries]
        finally:
            task.log("finally")

    @app.task(executor="process")
    def square(number: int) -> tuple[int, int]:
        return number, number * number

    @app.task(executor="process")
    def squares(*numbers: int) -> list[object]:
        found = children_sync("squares", [square.prepare(number) for number in numbers], tolerate=1)
        return [os.getpid() != 0, *found]

    @app.task(executor="process", max_retries=1)
    def careless() -> None:
        children_sync("wrong", [wrong.prepare()])

    @app.task(executor="process", max_retries=0)
    def wrong() -> None:
        step_sync("pause", lambda: None)
        sleep_sync("pause", 5)
"""


@pytest.fixture
def tasks(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with task_module(TASKS, server, tmp_path, monkeypatch) as module:
        yield module


async def is_logged(job: Job) -> bool:
    return await job.logs() == ["begun", "finally"] * 3


async def test_a_child_waits_as_others_do(tasks: ModuleType) -> None:
    app, order = tasks.app, tasks.order
    job = await order.options(task_id="order-7").enqueue(7)
    async with working(app):
        await eventually(lambda: field(app, job.id, "waits_for") == "wait_for:approval")
        assert await job.history() == []
        await app.signal(job.id, tasks.approval, True)
        assert (await result_of(job)).value == [7, True, True, "order-7/key", 2, 1]
        await eventually(lambda: is_logged(job))
        error = str((await result_of(await tasks.wrong.enqueue())).value)
    assert "'pause' of task 'wrong' is used for two things, step and sleep" in error


async def test_a_child_process_has_children(tasks: ModuleType) -> None:
    app = tasks.app
    async with working(app):
        assert await tasks.squares.request(1, 2) == [True, [1, 1], [2, 4]]
        job = await tasks.careless.enqueue()
        failed = await result_of(job)
    assert (failed.success, failed.tries) == (False, 1)
    assert str(failed.value).startswith("ChildrenFailed(")
    assert f"(id {job.id}): 1 of 1 did not complete: {job.id}.wrong~wrong: ValueError(" in str(failed.value)
