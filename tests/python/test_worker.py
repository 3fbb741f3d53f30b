"""The worker loop: concurrency, load, burst mode, and every way it ends."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_sound, result_of, working

from ardiq import Ardiq


async def test_concurrency_is_the_limit_and_is_reached(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=5)
    now = most = 0

    @app.task
    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1

    await app.enqueue_many(work.prepare() for _ in range(50))
    await drain(app)
    assert most == 5


async def test_tasks_that_end_at_once_are_handed_in_while_others_end(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=250)
    gate = asyncio.Event()
    begun = 0

    @app.task
    async def wave() -> int:
        nonlocal begun
        begun += 1
        await gate.wait()
        begun -= 1
        # The last one keeps the loop until the server has heard of others.
        return 1 if begun else await_others()

    def await_others() -> int:
        for _ in range(1000):
            if app.inspect.counts_sync().running < 250:
                return 2
            time.sleep(0.01)
        return 3

    jobs = await app.enqueue_many(wave.prepare() for _ in range(250))
    async with working(app):
        await eventually(lambda: begun == 250)
        gate.set()
        values = [(await result_of(job)).value for job in jobs]
    assert sorted(values) == [*[1] * 249, 2]


async def test_many_tasks_of_every_kind(app: Ardiq) -> None:
    @app.task
    async def at_once(n: int) -> int:
        return n

    @app.task
    async def waiting(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @app.task
    def threaded(n: int) -> int:
        return n

    @app.task(timeout=60)
    async def limited(n: int) -> int:
        return n

    @app.task(max_retries=0)
    async def broken(n: int) -> int:
        raise ValueError(n)

    kinds = (at_once, waiting, threaded, limited, broken)
    jobs = await app.enqueue_many(kinds[i % 5].prepare(i) for i in range(2500))
    await drain(app)
    assert await app.queue_size() == 0
    for i in range(0, 2500, 97):
        value = (await result_of(jobs[i])).value
        assert value == (i if i % 5 < 4 else f"ValueError({i})")
    assert await app.dead_count() == 500
    assert is_sound(app)


async def test_the_loop_stays_alive_under_load(app: Ardiq) -> None:
    turns = 0

    @app.task
    async def busy() -> None:
        sum(range(3000))

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    await app.enqueue_many(busy.prepare() for _ in range(3000))
    ticking = asyncio.create_task(tick())
    await drain(app)
    ticking.cancel()
    assert turns > 20


async def test_a_full_turn_is_followed_by_another(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ardiq._execution.worker._MOST_STARTS", 1)
    ran = []

    @app.task
    async def number(i: int) -> None:
        ran.append(i)

    await app.enqueue_many(number.prepare(i) for i in range(50))
    await drain(app)
    assert sorted(ran) == list(range(50))


async def test_burst_runs_what_is_ready_and_leaves_what_is_not(app: Ardiq) -> None:
    @app.task
    async def spawn(depth: int) -> None:
        if depth:
            await spawn.enqueue(depth - 1)

    later = await app.ref("spawn").options(delay=60).enqueue(0)
    await spawn.enqueue(5)
    await drain(app)
    assert await app.queue_size() == 1
    assert await later.status() == "scheduled"
    await drain(app)  # again, with nothing to do


async def test_stop_waits_for_what_runs_and_hands_back_the_rest(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=2, prefetch=10)
    started, go_on = asyncio.Semaphore(0), asyncio.Event()

    @app.task
    async def work() -> str:
        started.release()
        await go_on.wait()
        return "finished"

    jobs = await app.enqueue_many(work.prepare() for _ in range(10))
    run = asyncio.create_task(app.run())
    await started.acquire()
    await started.acquire()
    app.stop()
    app.stop()
    await asyncio.sleep(0.05)
    assert not run.done()
    go_on.set()
    await asyncio.wait_for(run, SOON_S)
    states = [await job.status() for job in jobs]
    assert states == ["complete"] * 2 + ["queued"] * 8
    for job in jobs[2:]:
        info = await job.info()
        assert info is not None
        assert info.tries == 0  # not charged: it was never started
    assert is_sound(app)
    await drain(app)
    assert await app.queue_size() == 0


async def test_a_cancelled_worker_cancels_its_tasks_and_hands_them_back(app: Ardiq) -> None:
    cleaned = []
    started = asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        finally:
            cleaned.append(1)

    job = await work.enqueue()
    run = asyncio.create_task(app.run())
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, SOON_S)
    assert cleaned == [1]
    assert await job.status() == "queued"
    info = await job.info()
    assert info is not None
    assert info.tries == 0
    assert is_sound(app)


def test_a_worker_that_is_left_running_ends_with_its_loop(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    started = asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        await asyncio.sleep(SOON_S)

    async def main() -> Any:
        job = await work.enqueue()
        run = asyncio.create_task(app.run())
        await asyncio.wait_for(started.wait(), SOON_S)
        return job, run

    job, _ = asyncio.run(main())
    assert asyncio.run(job.status()) == "queued"


async def test_an_app_runs_once_at_a_time_and_again_afterwards(app: Ardiq) -> None:
    app.stop()  # nothing runs: nothing happens
    async with working(app):
        with pytest.raises(RuntimeError, match="already running"):
            await app.run()
    async with working(app):
        pass


async def test_two_workers_share_the_work(make_app: Callable[..., Ardiq]) -> None:
    done: dict[str, list[int]] = {"one": [], "two": []}
    apps = {name: make_app(queue_name="shared", worker_id="same", concurrency=2, prefetch=0) for name in done}
    for name, app in apps.items():

        @app.task
        async def work(number: int, name: str = name) -> None:
            done[name].append(number)
            await asyncio.sleep(0.01)

    first = apps["one"]
    await first.enqueue_many(first.ref("work").prepare(i) for i in range(60))
    async with working(apps["one"]), working(apps["two"]):
        await eventually(lambda: len(done["one"]) + len(done["two"]) >= 60)
    assert sorted(done["one"] + done["two"]) == list(range(60))
    assert done["one"]
    assert done["two"]


async def test_several_apps_and_queues_on_one_loop(make_app: Callable[..., Ardiq]) -> None:
    apps = [make_app() for _ in range(3)]
    for app in apps:

        @app.task
        async def whose(app: str = app.queue_name) -> str:
            return app

    runs = [asyncio.create_task(app.run()) for app in apps]
    jobs = [await app.send("whose") for app in apps]
    assert [(await result_of(job)).value for job in jobs] == [app.queue_name for app in apps]
    for app in apps:
        app.stop()
    await asyncio.wait_for(asyncio.gather(*runs), SOON_S)


async def test_the_server_knows_its_workers(app: Ardiq) -> None:
    core = app.context.server.core
    async with working(app):
        workers = await eventually(lambda: core.call("workers", ["0", 10])[3:])
        identity = workers[0].decode()
        info = core.command(["HGET", f"ardiq:{{{app.queue_name}}}:worker:{identity}", "info"])
    assert identity.startswith(f"{app.worker_id}:")
    assert b'"concurrency":16' in info.replace(b" ", b"")
    assert core.call("workers", ["0", 10])[3:] == []


async def test_a_wrapper_object_with_an_async_call_is_async(app: Ardiq) -> None:
    class Fetch:
        async def __call__(self, number: int) -> int:
            await asyncio.sleep(0)
            return number

    task = app.task(name="fetch")(Fetch())
    job = await task.enqueue(5)
    await drain(app)
    assert (await result_of(job)).value == 5


async def test_debug_logs_name_the_task_and_no_arguments(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    async def secret(password: str) -> str:
        return "hunter2"

    @app.task
    def secret_sync(password: str) -> str:
        return "hunter2"

    with caplog.at_level(logging.DEBUG, "ardiq"):
        jobs = [await secret.enqueue("hunter2"), await secret_sync.enqueue("hunter2")]
        await drain(app)
    for job in jobs:
        assert any("task succeeded" in record.message and job.id in record.message for record in caplog.records)
    assert "hunter2" not in caplog.text
