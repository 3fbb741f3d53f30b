"""Threads that run on after their task was settled take its slot until they end: no limit is exceeded."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_sound, result_of, working

from ardiq import Ardiq, current_task
from ardiq.embedded import Server


def abandoned_threads(app: Ardiq) -> int:
    """As `ardiq status` tells it."""
    return sum(worker.abandoned_threads for worker in app.inspect.workers_sync())


@pytest.fixture
def go_on() -> threading.Event:
    return threading.Event()


@pytest.mark.parametrize("with_middleware", [False, True])
@pytest.mark.parametrize("how", ["timeout", "abort"])
async def test_the_concurrency_is_not_exceeded(
    make_app: Callable[..., Ardiq], go_on: threading.Event, with_middleware: bool, how: str
) -> None:
    app = make_app(concurrency=2)
    running, most = 0, 0
    both = asyncio.Barrier(2)
    begun = threading.Event()

    @app.task(timeout=0.1 if how == "timeout" else None, max_retries=0)
    def stuck() -> None:
        begun.set()
        go_on.wait(SOON_S)

    @app.task
    async def probe() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    @app.task
    async def meet() -> None:
        await both.wait()

    if with_middleware:

        @app.middleware
        async def through(context: Any, call_next: Any) -> Any:
            return await call_next()

    async with working(app), asyncio.timeout(SOON_S):
        while not begun.is_set():  # on a busy machine the time may be over before a thread has begun
            job = await stuck.enqueue()
            if how == "abort":
                await eventually(begun.is_set)
                await job.abort()
            await result_of(job)
        for each in await app.enqueue_many(probe.prepare() for _ in range(20)):
            await result_of(each)
        assert most == 1
        await eventually(lambda: abandoned_threads(app) == 1)
        go_on.set()
        for each in await app.enqueue_many([meet.prepare(), meet.prepare()]):
            await result_of(each)
        await eventually(lambda: abandoned_threads(app) == 0)
    assert is_sound(app)


async def test_a_worker_whose_slots_they_all_take_leaves_the_work_to_others(
    make_app: Callable[..., Ardiq], go_on: threading.Event
) -> None:
    app, other = (make_app(concurrency=1, queue_name="all-taken") for _ in range(2))

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> None:
        go_on.wait(SOON_S)

    async def mine() -> str:
        return "first"

    async def theirs() -> str:
        return "other"

    app.task(name="whose")(mine)
    other.task(name="whose")(theirs)
    async with working(app):
        await result_of(await stuck.enqueue())
        await eventually(lambda: abandoned_threads(app) == 1)
        jobs = await app.enqueue_many(app.ref("whose").prepare() for _ in range(5))
        async with working(other):
            assert {(await result_of(job)).value for job in jobs} == {"other"}
        go_on.set()
        assert (await result_of(await app.ref("whose").enqueue())).value == "first"


async def test_they_count_against_the_limit_of_their_lane(
    make_app: Callable[..., Ardiq], go_on: threading.Event
) -> None:
    app = make_app(priorities=["low", "high"], limits={"low": 1}, concurrency=4)
    seen: list[str] = []

    @app.task(timeout=0.1, max_retries=0, priority="low")
    def stuck() -> None:
        go_on.wait(SOON_S)

    @app.task
    async def note(lane: str) -> None:
        seen.append(lane)

    async with working(app):
        await result_of(await stuck.enqueue())
        low = await note.options(priority="low").enqueue("low")
        for job in await app.enqueue_many(note.options(priority="high").prepare("high") for _ in range(20)):
            await result_of(job)
        assert "low" not in seen
        go_on.set()
        await result_of(low)
    assert is_sound(app)


async def test_a_worker_stops_without_waiting_for_them(make_app: Callable[..., Ardiq], go_on: threading.Event) -> None:
    app = make_app(concurrency=1)

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> None:
        go_on.wait(SOON_S)

    async with working(app):
        await result_of(await stuck.enqueue())
    assert not go_on.is_set()
    go_on.set()
    assert is_sound(app)


@pytest.mark.parametrize("calls", [2, 3])
async def test_each_thread_that_a_middleware_left_behind_keeps_a_slot(
    make_app: Callable[..., Ardiq], go_on: threading.Event, calls: int
) -> None:
    app = make_app(concurrency=calls + 2)
    begun: list[int] = []

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> None:
        begun.append(1)
        go_on.wait(SOON_S)

    @app.task
    async def probe() -> str:
        return "ran"

    @app.middleware
    async def again(context: Any, call_next: Any) -> Any:
        if context.name == probe.name:
            return await call_next()
        while len(begun) < calls:
            with contextlib.suppress(TimeoutError):
                await call_next()
        raise TimeoutError("all calls took too long")

    async with working(app), asyncio.timeout(SOON_S):
        assert not (await result_of(await stuck.enqueue())).success
        await eventually(lambda: abandoned_threads(app) == len(begun) >= calls)
        assert (await result_of(await probe.enqueue())).value == "ran"
        go_on.set()
        await eventually(lambda: abandoned_threads(app) == 0)
    assert is_sound(app)


async def test_a_call_that_is_over_before_a_thread_was_free_is_not_made(
    make_app: Callable[..., Ardiq], go_on: threading.Event
) -> None:
    app = make_app(concurrency=1)
    begun = 0

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> None:
        nonlocal begun
        begun += 1
        go_on.wait(SOON_S)

    @app.task
    def probe() -> str:
        return "ran"

    @app.middleware
    async def again(context: Any, call_next: Any) -> Any:
        if context.name == stuck.name:
            while not begun:
                with contextlib.suppress(TimeoutError):
                    await call_next()
        return await call_next()  # where that is stuck's, the one thread is busy

    async with working(app), asyncio.timeout(SOON_S):
        await result_of(await stuck.enqueue())
        go_on.set()
        assert (await result_of(await probe.enqueue())).value == "ran"
        await eventually(lambda: abandoned_threads(app) == 0)
    assert begun == 1
    assert is_sound(app)


async def test_a_worker_that_ends_joins_no_thread_that_is_busy(
    make_app: Callable[..., Ardiq], go_on: threading.Event
) -> None:
    app = make_app(concurrency=2)
    joined: list[Any] = []

    @app.task(timeout=0.1, max_retries=0)
    def stuck() -> None:
        threading.current_thread().join = joined.append  # type: ignore[method-assign,assignment]
        go_on.wait(SOON_S)

    async with working(app):
        await result_of(await stuck.enqueue())
    assert joined == []
    go_on.set()


@pytest.mark.parametrize("how", ["return", "abort"])
async def test_they_are_not_taken_for_the_attempt_that_gets_their_token_when_the_server_has_lost_its_data(
    make_app: Callable[..., Ardiq], how: str
) -> None:
    begun: list[str] = []
    ends = {which: threading.Event() for which in ("before", "after")}
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        app = make_app(redis_url=server.url, concurrency=2, idle_timeout_ms=1000)

        @app.task
        def work(which: str) -> str:
            task = current_task()
            assert task is not None
            begun.append(which)
            ends[which].wait(SOON_S)
            task.log(f"the one from {which}")
            return which

        both = asyncio.Barrier(2)
        most, running = 0, 0

        @app.task
        async def meet() -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await both.wait()
            running -= 1

        def held() -> list[bytes]:
            reply: list[bytes] = app.context.server.core.call(
                "list", ["running", app.inspect.workers_sync()[0].worker, 0, 9]
            )
            return reply

        async with working(app), asyncio.timeout(SOON_S):
            await work.options(task_id="same").enqueue("before")
            await eventually(lambda: begun == ["before"])
            first = held()
            app.context.server.core.command(["FLUSHALL"])
            # The first lease is lost as soon as a heartbeat tells: from then on its thread is left behind.
            await eventually(lambda: abandoned_threads(app) == 1)
            job = await work.options(task_id="same").enqueue("after")
            await eventually(lambda: begun == ["before", "after"])
            assert held() == first, "the server was to give the token out again"
            if how == "abort":
                assert await job.abort()
                await eventually(lambda: abandoned_threads(app) == 2)
                ends["after"].set()
                await eventually(lambda: abandoned_threads(app) == 1)
            ends["before"].set()
            await eventually(lambda: abandoned_threads(app) == 0)
            ends["after"].set()
            result = await result_of(job)
            assert result.value == ("after" if how == "return" else "aborted")
            if how == "return":
                await eventually(job.logs)
                assert await job.logs() == ["the one from after"]
            # Both slots are free, and no more.
            for each in await app.enqueue_many(meet.prepare() for _ in range(4)):
                await result_of(each)
            assert most == 2
        assert is_sound(app)
