"""Limits within `inline`: the same Lua, in virtual time."""

import asyncio
from datetime import UTC, datetime

import pytest
from helpers import SOON_S, eventually

from ardiq import Ardiq, Limit, Rate
from ardiq.testing import Clock, inline

START = datetime(2026, 3, 28, 9, tzinfo=UTC)


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


async def test_a_limit_holds_by_key(lonely: Ardiq) -> None:
    ran, most, running = list[tuple[str, int]](), 0, 0

    @lonely.task(limits=Limit("account", key="account", concurrency=1))
    async def work(account: str, number: int) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        ran.append((account, number))
        running -= 1

    async with inline(lonely), asyncio.timeout(SOON_S):
        jobs = await asyncio.gather(*(work.enqueue(f"a{number % 2}", number) for number in range(10)))
        for job in jobs:
            await job.result(timeout=SOON_S)
    assert most == 2
    assert [number for account, number in ran if account == "a0"] == [0, 2, 4, 6, 8]


async def test_what_waits_says_so_and_starts_when_a_slot_is_free(lonely: Ardiq) -> None:
    go_on, began = asyncio.Event(), list[int]()

    @lonely.task(limits=Limit(concurrency=1))
    async def work(number: int) -> None:
        began.append(number)
        await go_on.wait()

    async with inline(lonely), asyncio.timeout(SOON_S):
        first = asyncio.ensure_future(work.enqueue(1))
        await eventually(lambda: began)
        second = await work.enqueue(2)  # returns, though it has not run
        assert (await second.status(), (await lonely.inspect.counts()).limited, began) == ("limited", 1, [1])
        go_on.set()
        await first
        await second.result(timeout=SOON_S)
    assert began == [1, 2]


async def test_a_rate_is_kept_as_the_clock_moves(lonely: Ardiq) -> None:
    @lonely.task(limits=Limit(rate=Rate(2, per=60)))
    async def call() -> None: ...

    clock = Clock(START)
    async with inline(lonely, clock=clock):
        jobs = [await call.enqueue() for _ in range(3)]
        assert [await job.status() for job in jobs] == ["complete", "limited", "limited"]
        assert await clock.advance(seconds=29) == []
        assert await clock.advance(seconds=1) == [jobs[1]]
        assert await clock.advance(minutes=5) == [jobs[2]]
        results = [await job.result() for job in jobs]
    assert [result.start // 1000 - START.timestamp() for result in results if result is not None] == [0, 30, 60]


async def test_without_a_clock_nobody_waits_for_a_rate(lonely: Ardiq) -> None:
    ran: list[int] = []
    work = lonely.task(name="work", limits=Limit(rate=Rate(1, per=3600)))(ran.append)
    async with inline(lonely), asyncio.timeout(SOON_S):
        for number in range(3):
            await work.enqueue(number)
        await lonely.enqueue_many(work.prepare(number) for number in (3, 4))
        # The end of one lets the next one start, whose end the call need not wait for.
        while len(ran) < 5:
            await asyncio.sleep(0.001)
    assert ran == [0, 1, 2, 3, 4]


async def test_what_is_put_counts_when_the_call_returns(lonely: Ardiq) -> None:
    ran: list[int] = []
    shop = lonely.limit("shop", concurrency=2)
    work = lonely.task(name="work", limits=shop)(ran.append)
    async with inline(lonely, clock=Clock(START)):
        await lonely.limits.put(shop, concurrency=0)
        job = await work.enqueue(1)
        assert (await job.status(), ran) == ("limited", [])
        assert await lonely.limits.remove(shop)
        assert (await job.status(), ran) == ("complete", [1])
