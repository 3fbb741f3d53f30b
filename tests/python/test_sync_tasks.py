"""Sync tasks: on threads, without holding the loop, and what an abort or a time limit can do about them."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_sound, result_of, working

from ardiq import Ardiq, ErrorContext, Retry


async def test_they_run_side_by_side_on_threads_and_the_loop_goes_on(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=4)
    together = threading.Barrier(4)
    names = set()

    @app.task
    def meet() -> int:
        names.add(threading.current_thread().name)
        return together.wait(SOON_S)

    @app.task
    async def tick() -> str:
        return "tick"

    async with working(app):
        jobs = [await meet.enqueue() for _ in range(3)]
        assert (await result_of(await tick.enqueue())).value == "tick"
        jobs.append(await meet.enqueue())
        values = {(await result_of(job)).value for job in jobs}
    assert values == {0, 1, 2, 3}
    assert len(names) == 4
    assert not any(thread.name.startswith("ardiq-task") for thread in threading.enumerate())


async def test_threads_are_started_when_needed(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=8)
    names = set()

    @app.task
    def quick() -> None:
        names.add(threading.current_thread().name)

    async with working(app):
        for _ in range(20):
            assert (await result_of(await quick.enqueue())).success
    assert len(names) <= 2


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_tasks_on_the_loop_get_the_slots_that_threads_give_back(
    make_app: Callable[..., Ardiq], concurrency: int
) -> None:
    app = make_app(concurrency=concurrency)
    ended: list[str] = []

    @app.task
    def in_thread() -> None:
        time.sleep(0.01)
        ended.append("in_thread")

    @app.task
    async def in_loop() -> None:
        await asyncio.sleep(0.01)
        ended.append("in_loop")

    await app.enqueue_many(task.prepare() for _ in range(25) for task in (in_thread, in_loop, in_loop, in_thread))
    async with working(app):
        await eventually(lambda: len(ended) == 100)


async def test_never_more_threads_than_concurrency(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=3)
    lock = threading.Lock()
    now = most = 0

    @app.task
    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    await app.enqueue_many(work.prepare() for _ in range(40))
    await drain(app)
    assert most == 3
    assert await app.queue_size() == 0


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), StopIteration(), GeneratorExit()]
)
@pytest.mark.parametrize("with_middleware", [False, True])
async def test_whatever_is_raised_the_thread_lives(app: Ardiq, error: BaseException, with_middleware: bool) -> None:
    if with_middleware:

        @app.middleware
        async def through(context: Any, call_next: Any) -> Any:
            return await call_next()

    @app.task(max_retries=0)
    def raising() -> None:
        raise error

    @app.task
    def fine() -> int:
        return 1

    async with working(app):
        result = await result_of(await raising.enqueue())
        assert (await result_of(await fine.enqueue())).value == 1
    assert not result.success
    if not isinstance(error, StopIteration):
        assert result.value == repr(error)


async def test_retries(app: Ardiq) -> None:
    tries = []

    @app.task(max_retries=3)
    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise Retry(delay_ms=1)
        return len(tries)

    async with working(app):
        result = await result_of(await flaky.enqueue())
    assert (result.value, result.tries) == (3, 3)


def abandoned(app: Ardiq, name: str) -> int:
    """Threads that run on for a task after it was settled."""
    return sum(row.abandoned_threads for row in app.metrics() if row.fn_name == name)


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_a_time_limit_settles_the_task_while_its_thread_goes_on(
    make_app: Callable[..., Ardiq], with_middleware: bool
) -> None:
    app = make_app(concurrency=2)
    told: list[ErrorContext] = []
    go_on = threading.Event()

    @app.on_error
    async def tell(context: ErrorContext) -> None:
        told.append(context)

    if with_middleware:

        @app.middleware
        async def through(context: Any, call_next: Any) -> Any:
            return await call_next()

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> str:
        go_on.wait(SOON_S)
        return "too late"

    @app.task(timeout=60)
    def fine(number: int) -> int:
        return number

    async with working(app):
        job = await stuck.enqueue()
        result = await result_of(job)
        assert (result.success, result.value) == (False, "timed out after 0.1s")
        assert isinstance(told[0].exc, TimeoutError)
        assert abandoned(app, "stuck") == 1
        jobs = [await fine.enqueue(i) for i in range(5)]
        assert [(await result_of(job)).value for job in jobs] == list(range(5))
        go_on.set()
        assert (await result_of(await fine.enqueue(9))).value == 9
        assert (await job.result()) == result
        await eventually(lambda: abandoned(app, "stuck") == 0)
    assert is_sound(app)


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_an_abort_settles_it_and_what_it_returns_is_dropped(app: Ardiq, with_middleware: bool) -> None:
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    if with_middleware:

        @app.middleware
        async def through(context: Any, call_next: Any) -> Any:
            return await call_next()

    @app.task
    def work() -> str:
        started.set()
        go_on.wait(SOON_S)
        ended.set()
        return "too late"

    async with working(app):
        job = await work.enqueue()
        await eventually(started.is_set)
        assert await job.abort()
        result = await result_of(job)
        assert result.aborted
        assert not ended.is_set()
        assert abandoned(app, "work") == 1
        go_on.set()
        await eventually(ended.is_set)
        await eventually(lambda: abandoned(app, "work") == 0)
        again = await work.enqueue()
        assert (await result_of(again)).value == "too late"
        assert (await result_of(job)).aborted
    assert is_sound(app)


async def test_a_cancelled_worker_hands_sync_tasks_back(app: Ardiq) -> None:
    started, go_on = threading.Event(), threading.Event()

    @app.task
    def work() -> None:
        started.set()
        go_on.wait(SOON_S)

    job = await work.enqueue()
    run = asyncio.create_task(app.run())
    await eventually(started.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, SOON_S)
    assert await job.status() == "queued"
    go_on.set()
    assert is_sound(app)


async def test_stop_waits_for_a_thread(app: Ardiq) -> None:
    started, go_on = threading.Event(), threading.Event()

    @app.task
    def work() -> str:
        started.set()
        go_on.wait(SOON_S)
        return "finished"

    job = await work.enqueue()
    run = asyncio.create_task(app.run())
    await eventually(started.is_set)
    app.stop()
    await asyncio.sleep(0.05)
    assert not run.done()
    go_on.set()
    await asyncio.wait_for(run, SOON_S)
    assert (await result_of(job)).value == "finished"


async def test_a_sync_task_may_enqueue_through_the_loop(app: Ardiq) -> None:
    loop = asyncio.get_running_loop()

    @app.task
    def child() -> str:
        return "child"

    @app.task
    def parent() -> str:
        future = asyncio.run_coroutine_threadsafe(send(), loop)
        return future.result(SOON_S)

    async def send() -> str:
        return (await child.enqueue()).id

    async with working(app):
        child_id = (await result_of(await parent.enqueue())).value
        result = await app.result(child_id, timeout=SOON_S)
    assert result is not None
    assert result.value == "child"


def test_a_loop_in_a_thread_of_its_own(make_app: Callable[..., Ardiq]) -> None:
    """Several loops at once, one app."""
    app = make_app()

    @app.task
    async def whose() -> int:
        return threading.get_ident()

    async def ask() -> Any:
        return await whose.request(timeout=SOON_S)

    async def work() -> int:
        async with working(app):
            answers: list[Any] = []
            threads = [threading.Thread(target=lambda: answers.append(asyncio.run(ask()))) for _ in range(3)]
            for thread in threads:
                thread.start()
            await eventually(lambda: len(answers) == 3)
            for thread in threads:
                thread.join()
            assert set(answers) == {threading.get_ident()}
        return len(answers)

    assert asyncio.run(work()) == 3
