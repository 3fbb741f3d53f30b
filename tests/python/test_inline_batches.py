"""Batches within `inline`: calls gather in virtual time."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from helpers import SOON_S, eventually, field

from ardiq import Ardiq, Batch, ItemErrors, Job, Limit
from ardiq.testing import Clock, inline

START = datetime(2026, 3, 28, 9, tzinfo=UTC)


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


def doubling(app: Ardiq, batch: Batch, **options: Any) -> tuple[Any, list[list[int]]]:
    """A task that doubles numbers, but 13 at its first try."""
    got: list[list[int]] = []

    @app.task(batch=batch, **options)
    async def double(numbers: list[int]) -> list[int]:
        is_first = not any(13 in numbers for numbers in got)
        got.append(numbers)
        await asyncio.sleep(0.001)
        errors = {at: ValueError(13) for at, number in enumerate(numbers) if number == 13 and is_first}
        raise ItemErrors(errors, results=[2 * number for number in numbers])

    return double, got


async def values(*jobs: Job) -> list[Any]:
    return [await job.value(timeout=SOON_S) for job in jobs]


async def test_time_passes_until_a_batch_starts(lonely: Ardiq) -> None:
    double, got = doubling(lonely, Batch(3, wait=3600))
    async with inline(lonely), asyncio.timeout(SOON_S):
        assert await values(await double.enqueue(1)) == [2]
        assert got == [[1]]
        jobs = await lonely.enqueue_many(map(double.prepare, (1, 2, 3)))
        assert await values(*jobs) == [2, 4, 6]
        assert got == [[1], [1, 2, 3]]
        jobs = await lonely.enqueue_many(map(double.prepare, (1, 13)))  # returns when all have ended
        assert [field(lonely, job.id, "state") for job in jobs] == ["complete"] * 2
        assert await values(*jobs) == [2, 26]
        assert got[2:] == [[1, 13], [13]]


async def test_a_batch_waits_for_the_clock_or_is_full(lonely: Ardiq) -> None:
    double, got = doubling(lonely, Batch(3, wait=10, key=lambda number: number % 2))
    clock = Clock(START)
    async with inline(lonely, clock=clock), asyncio.timeout(SOON_S):
        one = await double.enqueue(1)
        await clock.advance(9)
        three = await double.enqueue(3)
        assert (await one.status(), got) == ("limited", [])
        await clock.advance(1)
        assert got == [[1, 3]]
        assert await values(one, three) == [2, 6]
        jobs = [await double.enqueue(number) for number in (2, 4, 6)]  # the last one returns when all have run
        assert [field(lonely, job.id, "state") for job in jobs] == ["complete"] * 3
        assert got[1:] == [[2, 4, 6]]
        failed = [await double.enqueue(number) for number in (13, 15, 17)]
        assert [await job.status() for job in failed] == ["scheduled", "complete", "complete"]
        await clock.advance(20)
        assert got[3:] == [[13]]
        assert await values(*failed) == [26, 30, 34]


async def test_a_limit_counts_a_batch_once(lonely: Ardiq) -> None:
    release, began = asyncio.Event(), list[list[int]]()

    @lonely.task(batch=Batch(2, wait=0), limits=Limit(concurrency=1))
    async def work(numbers: list[int]) -> None:
        began.append(numbers)
        await release.wait()

    async with inline(lonely, clock=Clock(START)), asyncio.timeout(SOON_S):
        running = asyncio.ensure_future(lonely.enqueue_many(map(work.prepare, (1, 2))))
        await eventually(lambda: began)
        waits = await work.enqueue(3)
        assert (await waits.status(), began) == ("limited", [[1, 2]])
        release.set()
        await values(*await running, waits)
    assert began == [[1, 2], [3]]


async def test_an_item_is_aborted_and_the_others_go_on(lonely: Ardiq) -> None:
    release, began = asyncio.Event(), list[list[int]]()

    @lonely.task(batch=Batch(2, wait=0))
    async def work(numbers: list[int]) -> list[int]:
        began.append(numbers)
        await release.wait()
        return numbers

    async with inline(lonely), asyncio.timeout(SOON_S):
        jobs = [work.options(task_id=f"t{number}").prepare(number) for number in (1, 2)]
        running = asyncio.ensure_future(lonely.enqueue_many(jobs))
        await eventually(lambda: began)
        assert await lonely.abort("t1")
        await asyncio.sleep(0.01)
        assert await lonely.status("t1") == "running"
        release.set()
        first, second = await running
        result = await first.result(timeout=SOON_S)
        assert result is not None
        assert result.aborted
        assert await values(second) == [2]


async def test_a_def_gets_a_list_too(lonely: Ardiq) -> None:
    @lonely.task(batch=Batch(2, wait=5))
    def work(numbers: list[int]) -> list[int]:
        return [sum(numbers)] * len(numbers)

    async with inline(lonely), asyncio.timeout(SOON_S):
        assert await values(*await lonely.enqueue_many(map(work.prepare, (1, 2)))) == [3, 3]
