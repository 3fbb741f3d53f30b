"""What tasks tell of themselves: progress, notes, log lines, and whether they are still wanted."""

import asyncio
import time

import pytest
from helpers import SOON_S, eventually, is_sound, result_of, working

from ardiq import Ardiq, Progress, current_task


async def test_everything_can_be_read_while_it_runs(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def export() -> str:
        task = current_task()
        assert task is not None
        task.progress(0.4, "half of it")
        task.note(rows=7, file="a.csv")
        task.note(rows=8)
        task.log("opened")
        task.log("wrote")
        await go_on.wait()
        task.log("closed")
        return "done"

    async with working(app), asyncio.timeout(SOON_S):
        job = await export.enqueue()
        await eventually(lambda: has_logged(app, job.id, 2))
        assert await job.status() == "running"
        assert await job.progress() == Progress(0.4, "half of it")
        assert await job.meta() == {"rows": 8, "file": "a.csv"}
        assert await job.logs() == ["opened", "wrote"]
        go_on.set()
        await result_of(job)
        # What was said last arrives after the end.
        await eventually(lambda: has_logged(app, job.id, 3))
    assert await job.logs(limit=1) == ["closed"]
    assert is_sound(app)


async def has_logged(app: Ardiq, task_id: str, count: int) -> bool:
    return len(await app._queue.logs(task_id, 1000)) == count


async def test_a_sync_task_tells_from_its_thread(app: Ardiq) -> None:
    @app.task
    def work() -> None:
        task = current_task()
        assert task is not None
        for number in range(3000):
            task.log(str(number))
        task.progress(1)

    async with working(app):
        job = await work.enqueue()
        await result_of(job)
    await eventually(lambda: has_logged(app, job.id, 1000))
    assert (await job.logs())[-1] == "2999"
    assert await job.progress() == Progress(1, "")


async def test_a_task_that_tells_nothing(app: Ardiq) -> None:
    job = await app.send("nobody")
    assert await job.progress() is None
    assert await job.meta() == {}
    assert await job.logs() == []


async def test_what_a_stopping_worker_was_told_is_sent(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        for number in range(5):
            task.log(str(number))
            await asyncio.sleep(0.001)

    app.burst = True
    job = await work.enqueue()
    await app.run()
    await eventually(lambda: has_logged(app, job.id, 5))


async def test_an_aborted_thread_can_notice(app: Ardiq) -> None:
    noticed: list[bool] = []

    @app.task
    def long() -> None:
        task = current_task()
        assert task is not None
        noticed.append(task.cancelled())
        ends = time.monotonic() + SOON_S
        while not task.cancelled() and time.monotonic() < ends:
            time.sleep(0.005)
        noticed.append(task.cancelled())

    async with working(app):
        job = await long.enqueue()
        await eventually(lambda: is_noticed(noticed, 1))
        assert await job.abort()
        await eventually(lambda: is_noticed(noticed, 2))
    assert noticed == [False, True]


async def is_noticed(noticed: list[bool], count: int) -> bool:
    return len(noticed) == count


async def test_an_async_task_is_wanted_until_it_is_cancelled(app: Ardiq) -> None:
    seen: list[bool] = []

    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        seen.append(task.cancelled())
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(task.cancelled())

    async with working(app):
        job = await work.enqueue()
        await eventually(lambda: is_noticed(seen, 1))
        assert await job.abort()
        await result_of(job)
    assert seen == [False, True]


async def test_misuse(app: Ardiq) -> None:
    errors: list[str] = []

    @app.task
    async def wrong() -> None:
        task = current_task()
        assert task is not None
        for call in (lambda: task.progress(40), lambda: task.note(it=object())):
            try:
                call()
            except (TypeError, ValueError) as error:
                errors.append(type(error).__name__)

    async with working(app):
        await result_of(await wrong.enqueue())
    assert errors == ["ValueError", "TypeError"]


def test_a_context_of_nothing_is_silent() -> None:
    from ardiq import TaskContext

    task = TaskContext("id", "name", 1)
    task.progress(0.5)
    task.log("x")
    task.note(a=1)
    assert not task.cancelled()
    assert task == ("id", "name", 1)
    with pytest.raises(ValueError, match="fraction"):
        task.progress(-1)
