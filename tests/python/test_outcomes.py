"""A task that expired, was aborted or was discarded says so when asked, is counted, and is not silently gone."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, result_of

from ardiq import Ardiq, Job, TaskError, TaskResult
from ardiq._server import calls

HOUR_MS = 3_600_000


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    app = make_app(priorities=["low", "default"])

    @app.task(max_retries=0)
    async def work(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return number

    return app


def counted(app: Ardiq, name: str) -> int:
    return int(app.context.server.core.command(["HGET", f"ardiq:{{{app.queue_name}}}:stats", name]) or 0)


async def purge(app: Ardiq, place: str, lane: str = "") -> None:
    channel = app.context.channel()
    await channel.ask(calls.purge(place=place, which=lane, offset=0, limit=100, result_ttl_ms=app.result_ttl_ms))


async def said_of(job: Job) -> tuple[str, TaskResult]:
    """What status and result say, with no more known than that it has ended."""
    result = await job.result()
    assert result is not None
    assert await job.info() is None
    return await job.status(), result


async def test_one_that_was_not_started_in_time(app: Ardiq) -> None:
    work = app.ref("work").options(expire_ms=20)
    queued, scheduled = await work.enqueue(1), await app.ref("work").options(expire_ms=20, delay_ms=HOUR_MS).enqueue(1)
    claimed = await work.enqueue(1)
    await asyncio.sleep(0.03)
    for job in (queued, scheduled):  # nobody works here
        status, result = await said_of(job)
        assert (status, result.success, result.value, result.expired) == ("complete", False, "expired", True)
        assert not result.aborted
        assert not result.discarded
        assert result.finish >= result.enqueue_time + 20
    await drain(app)
    assert field(app, claimed.id, "state") == "expired"
    assert (await result_of(claimed)).expired
    assert counted(app, "expired") == 3
    assert await app.queue_size() == 0
    assert is_sound(app)


async def test_who_waits_for_one_that_expires_is_told(app: Ardiq) -> None:
    job = await app.ref("work").options(expire_ms=20).enqueue(1)
    waiting = asyncio.create_task(result_of(job))
    await asyncio.sleep(0.03)
    await drain(app)
    assert (await waiting).expired


async def test_one_that_was_aborted(app: Ardiq) -> None:
    queued = await app.send("work", 1)
    scheduled = await app.ref("work").options(delay_ms=HOUR_MS).enqueue(1)
    for job in (queued, scheduled):
        assert await job.abort()
        status, result = await said_of(job)
        assert (status, result.success, result.value, result.aborted) == ("complete", False, "aborted", True)
        assert not result.expired
    assert counted(app, "aborted") == 2


async def test_one_that_was_discarded(app: Ardiq) -> None:
    queued = await app.send("work", 1)
    scheduled = await app.ref("work").options(delay_ms=HOUR_MS).enqueue(1)
    waiting = asyncio.create_task(result_of(queued))
    await eventually(
        lambda: app.context.server.core.command(["EXISTS", f"ardiq:{{{app.queue_name}}}:waiters:{queued.id}"])
    )
    await purge(app, "queued", "default")
    await purge(app, "scheduled")
    assert (await waiting).discarded
    for job in (queued, scheduled):
        status, result = await said_of(job)
        assert (status, result.success, result.value, result.discarded) == ("complete", False, "discarded", True)
        assert not result.aborted
        assert field(app, job.id, "args") is None  # what is large of it is gone
        assert not await job.abort()
        assert await app.replay(job.id) is None
    assert counted(app, "discarded") == 2
    assert await app.queue_size() == 0
    assert is_sound(app)


async def test_a_request_for_one_that_was_discarded(app: Ardiq) -> None:
    asked = asyncio.create_task(app.ref("work").request(1, timeout=SOON_S))
    await eventually(app.queue_size)
    await purge(app, "queued", "default")
    with pytest.raises(TaskError) as raised:
        await asked
    assert raised.value.result.discarded


async def test_a_dead_letter_that_was_deleted_keeps_what_it_failed_with(app: Ardiq) -> None:
    job, other = await app.send("work", -1), await app.send("work", -2)
    await drain(app)
    before = await result_of(job)
    assert await app.delete_dead(job.id)
    assert await app.dead.purge(until=timedelta(milliseconds=1)) == 1
    assert await said_of(job) == ("complete", before)
    assert before.value == "ValueError(-1)"
    assert field(app, job.id, "state") == field(app, other.id, "state") == "discarded"
    assert await app.dead_count() == 0
    assert await app.replay(job.id) is None
    assert counted(app, "discarded") == 2
    assert is_sound(app)


async def test_it_is_told_as_long_as_results_are_kept(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(result_ttl_ms=30)
    jobs = [await app.send("work", 1), await app.send("work", 1), await app.ref("work").options(expire_ms=1).enqueue(1)]
    await jobs[0].abort()
    await asyncio.sleep(0.005)
    await jobs[2].status()
    await purge(app, "queued", "default")
    for job in jobs:
        assert await job.status() in ("complete", "not_found")
        await eventually(lambda job=job: is_state(app, job.id, "not_found"))


async def test_an_id_that_was_discarded_may_be_used_again(app: Ardiq) -> None:
    mine = app.ref("work").options(task_id="mine")
    await mine.enqueue(1)
    await purge(app, "queued", "default")
    job = await mine.enqueue(2)
    assert await job.status() == "queued"
    await drain(app)
    assert (await result_of(job)).value == 2
    assert is_sound(app)


def test_a_worker_that_was_to_abort_thousands_of_tasks_lives(app: Ardiq) -> None:
    """More than the stack of the server's Lua takes at once."""
    core, asked = app.context.server.core, f"{app.context.server.base}aborts:w:1"
    core.call("join", ["w:1", 600_000, "{}", '["default"]', 1])
    core.command(["SADD", asked, *(f"t{number}" for number in range(9000))])
    for _ in range(9):
        core.call("heartbeat", ["w:1", 600_000, 1000, 1, 3, 0, 0])
    assert core.command(["SCARD", asked]) == 0
