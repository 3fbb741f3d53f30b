"""What is enqueued while a worker has nothing to do is claimed for it at once, and comes as a message."""

import asyncio
from collections.abc import Callable
from typing import Any

from helpers import SOON_S, eventually, is_sound, working

from ardiq import Ardiq


def row(app: Ardiq, field: str) -> str:
    """Of the only worker."""
    core, base = app.context.server.core, app.context.server.base
    for worker in core.command(["ZRANGE", f"{base}workers", 0, -1]):
        value = core.command(["HGET", f"{base}worker:{worker.decode()}", field])
        return value.decode() if value else ""
    return ""


async def has_nothing_to_do(app: Ardiq) -> None:
    await eventually(lambda: row(app, "idle"))


def lose_messages(app: Ardiq) -> None:
    """Of the only worker, until it has a new mailbox."""
    core, base = app.context.server.core, app.context.server.base
    (worker,) = core.command(["ZRANGE", f"{base}workers", 0, -1])
    core.command(["HSET", f"{base}worker:{worker.decode()}", "mailbox", "nobody:1"])


async def test_one_task_alone_costs_its_worker_one_step(app: Ardiq) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    async with working(app):
        await has_nothing_to_do(app)
        before = int(row(app, "seq"))
        for number in range(20):
            assert await work.request(number, timeout=SOON_S) == number
            await has_nothing_to_do(app)
        # A block that ends by itself costs one, too.
        assert int(row(app, "seq")) - before < 35


async def test_a_thread_gets_what_is_handed_over(app: Ardiq) -> None:
    @app.task
    def work(number: int) -> int:
        return number

    async with working(app):
        for number in range(5):
            await has_nothing_to_do(app)
            assert await work.request(number, timeout=SOON_S) == number


async def test_a_message_that_is_lost_costs_time_and_no_task(app: Ardiq) -> None:
    ran: list[int] = []

    @app.task(max_retries=0)
    async def work(number: int) -> int:
        ran.append(number)
        return number

    async with working(app):
        await has_nothing_to_do(app)
        lose_messages(app)
        assert await work.request(1, timeout=SOON_S) == 1
    assert ran == [1]
    assert is_sound(app)


async def test_what_runs_is_not_told_of_twice(app: Ardiq) -> None:
    ran: list[int] = []
    go_on = asyncio.Event()

    @app.task(max_retries=0)
    async def work(number: int) -> Any:
        ran.append(number)
        await go_on.wait()

    async with working(app):
        await has_nothing_to_do(app)
        jobs = [await work.enqueue(0)]
        await eventually(lambda: ran == [0])
        # The steps that get these tell of the first again, which runs already.
        for number in range(1, 5):
            jobs.append(await work.enqueue(number))
            await eventually(lambda expected=number + 1: len(ran) == expected)
        go_on.set()
        await asyncio.gather(*(job.result(timeout=SOON_S) for job in jobs))
    assert ran == list(range(5))
    assert is_sound(app)


async def test_a_step_that_overtakes_the_message_keeps_the_limit_of_a_lane(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["heavy", "default"], limits={"heavy": 1})
    running, most = 0, 0

    @app.task(priority="heavy")
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1

    async with working(app):
        await has_nothing_to_do(app)
        lose_messages(app)
        jobs = [await work.enqueue() for _ in range(4)]
        for job in jobs:
            await job.result(timeout=SOON_S)
    assert most == 1
    assert is_sound(app)


async def test_a_worker_that_stops_keeps_nothing_that_is_handed_over(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def long() -> None:
        await go_on.wait()

    @app.task
    def work() -> None: ...

    async with working(app):
        await long.enqueue()
        await has_nothing_to_do(app)
        app.stop()
        await eventually(lambda: not row(app, "idle"), seconds=2)
        job = await work.enqueue()
        core, base = app.context.server.core, app.context.server.base
        assert core.command(["HGET", f"{base}task:{job.id}", "state"]) == b"queued"
        go_on.set()


async def test_a_server_that_lost_a_hand_off_and_no_step_is_noticed(app: Ardiq) -> None:
    ran: list[int] = []
    go_on = asyncio.Event()

    @app.task
    async def work(number: int) -> int:
        ran.append(number)
        if number == 0:
            await go_on.wait()
        return number

    async with working(app):
        await has_nothing_to_do(app)
        core, base = app.context.server.core, app.context.server.base
        (worker,) = core.command(["ZRANGE", f"{base}workers", 0, -1])
        lost = await work.enqueue(0)
        await eventually(lambda: ran == [0])
        # As after a failover to a replica that had not received that enqueue.
        core.command(["DEL", f"{base}task:{lost.id}", f"{base}running:{worker.decode()}"])
        core.command(["ZREM", f"{base}loads", worker])
        core.command(["HSET", f"{base}worker:{worker.decode()}", "handed", ""])
        core.command(["HINCRBY", f"{base}meta", "token", -1])
        # It gets the token of the lost one.
        assert await work.request(1, timeout=SOON_S) == 1
        go_on.set()
    assert is_sound(app)
