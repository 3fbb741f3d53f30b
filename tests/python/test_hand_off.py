"""What is enqueued while a worker has nothing to do is claimed for it at once, and comes as a message."""

import asyncio
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
        core, base = app.context.server.core, app.context.server.base
        (worker,) = core.command(["ZRANGE", f"{base}workers", 0, -1])
        core.command(["HSET", f"{base}worker:{worker.decode()}", "mailbox", "nobody:1"])
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
