"""What is enqueued while a worker has nothing to do is claimed for it at once, and comes as a message."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from helpers import SOON_S, eventually, is_sound, result_of, working

from ardiq import Ardiq, Job


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


@asynccontextmanager
async def serving(app: Ardiq, *names: str) -> AsyncIterator[list[Ardiq]]:
    """A worker that serves these queues, once each of them has nothing to do."""
    queues = [app.queue(name) for name in names]
    run = asyncio.create_task(app.run(list(names)))
    try:
        for queue in queues:
            await has_nothing_to_do(queue)
        yield queues
    finally:
        app.stop()
        async with asyncio.timeout(SOON_S):
            await run


async def test_a_worker_of_several_queues_is_handed_tasks_too(app: Ardiq) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    async with serving(app, "emails", "reports") as queues:
        before = [int(row(queue, "seq")) for queue in queues]
        for number in range(20):
            for queue in queues:
                job = await queue.send("work", number)
                assert (await result_of(job)).value == number
                await has_nothing_to_do(queue)
        # A block that ends by itself costs one, too; a task that is not handed over takes two.
        assert all(int(row(queue, "seq")) - first < 35 for queue, first in zip(queues, before, strict=True))
    assert all(is_sound(queue) for queue in queues)


async def test_what_several_queues_are_handed_at_once_takes_no_more_slots_than_there_are(
    make_app: Callable[..., Ardiq],
) -> None:
    app = make_app(concurrency=2)
    running, most, ran = 0, 0, 0

    @app.task
    async def work() -> None:
        nonlocal running, most, ran
        running += 1
        most, ran = max(most, running), ran + 1
        await asyncio.sleep(0.02)
        running -= 1

    async with serving(app, "emails", "reports") as queues:
        batches = (queue.enqueue_many(work.prepare() for _ in range(4)) for queue in queues)
        jobs = [job for batch in await asyncio.gather(*batches) for job in batch]
        await asyncio.gather(*map(result_of, jobs))
    assert (most, ran) == (2, 8)
    assert all(is_sound(queue) for queue in queues)


async def test_a_hand_off_to_a_queue_without_a_slot_is_free_for_other_workers(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=2)
    go_on, started = asyncio.Event(), 0

    @app.task
    async def long() -> None:
        nonlocal started
        started += 1
        await go_on.wait()

    @app.task
    async def short() -> None: ...

    async with serving(app, "emails", "reports") as (emails, reports):
        await emails.enqueue_many(long.prepare() for _ in range(2))
        await eventually(lambda: started == 2)
        assert row(reports, "idle"), "its offer stands"
        job = await reports.send("short")
        await eventually(lambda: not row(reports, "handed"))
        assert await job.status() == "queued"
        go_on.set()
        await result_of(job)
    assert is_sound(reports)


async def test_the_loop_reads_its_worker_s_mail_where_no_thread_takes_tasks(make_app: Callable[..., Ardiq]) -> None:
    for threaded in (False, True):
        app = make_app()

        async def work() -> None: ...

        def thread_work() -> None: ...

        app.task(work)
        if threaded:
            app.task(thread_work)
        async with working(app):
            await has_nothing_to_do(app)
            inbox = app.context.server.channel(asyncio.get_running_loop())._inbox
            # What wakes the loop; the connection.
            await eventually(lambda inbox=inbox, count=1 if threaded else 2: len(inbox._watched) == count)


async def test_what_a_busy_loop_does_not_come_for_goes_back(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(poll_block_ms=60_000)
    other = make_app(queue_name=app.queue_name)

    @app.task
    async def work() -> str:
        return "done"

    def state(job: Job) -> bytes:
        value: bytes = other.context.server.core.command(["HGET", f"{app.context.server.base}task:{job.id}", "state"])
        return value

    async with working(app):
        await has_nothing_to_do(app)
        job = other.ref("work").enqueue_sync()
        assert state(job) == b"running", "it was not handed over"
        until = time.monotonic() + SOON_S
        # Nothing turns the loop meanwhile.
        while state(job) != b"queued" and time.monotonic() < until:
            time.sleep(0.01)
        assert state(job) == b"queued"
        result = await job.result(timeout=SOON_S)
        assert result is not None
        assert result.value == "done"
    assert is_sound(app)


async def test_what_comes_while_a_task_holds_up_the_loop_goes_back(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(poll_block_ms=60_000, stall_after=None)
    other = make_app(queue_name=app.queue_name)
    core, base = other.context.server.core, app.context.server.base
    states: list[bytes] = []

    def until(condition: Callable[[], object]) -> None:
        ends = time.monotonic() + SOON_S
        while not condition() and time.monotonic() < ends:
            time.sleep(0.01)

    @app.task
    async def quick() -> None: ...

    @app.task
    async def long() -> None:
        # Handed over itself, it runs before the loop asks for the next message.
        while not row(other, "idle"):
            steps = int(row(other, "seq"))
            core.command(["RPUSH", f"{base}wake:default", ""])
            until(lambda steps=steps: int(row(other, "seq")) > steps)
        job = other.ref("quick").enqueue_sync()
        states.append(core.command(["HGET", f"{base}task:{job.id}", "state"]))
        until(lambda: core.command(["HGET", f"{base}task:{job.id}", "state"]) == b"queued")
        states.append(core.command(["HGET", f"{base}task:{job.id}", "state"]))

    async with working(app):
        await has_nothing_to_do(app)
        await long.request(timeout=2 * SOON_S)
    assert states == [b"running", b"queued"]
    assert is_sound(app)
