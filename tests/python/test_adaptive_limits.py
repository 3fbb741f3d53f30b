"""Adaptive limits: a task that finds one used up elsewhere halves it, and it comes back."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from helpers import eventually, is_sound, result_of, working

from ardiq import Ardiq, Limit, Rate, RateLimited
from ardiq.testing import Clock, inline


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


async def test_calls_that_run_beside_each_other_halve_it_once(app: Ardiq) -> None:
    all_run = asyncio.Event()
    began: list[int] = []

    @app.task(limits=Limit("partner", concurrency=5, adaptive=timedelta(hours=1)))
    async def call(number: int) -> None:
        began.append(number)
        if len(began) == 5:
            all_run.set()
        await all_run.wait()
        if len(began) == 5:
            raise RateLimited(3600)

    jobs = await app.enqueue_many(call.prepare(number) for number in range(5))
    async with working(app):
        await eventually(lambda: nothing_runs(app))
        limit = await app.limits.show("partner")
        assert limit is not None
        assert (limit.concurrency, limit.share, limit.recovery_ms) == (5, 0.5, 3_600_000)
        for job in jobs:
            assert await job.abort()
        await app.limits.put("partner", adaptive=False)
        limit = await app.limits.show("partner")
        assert limit is not None
        assert (limit.concurrency, limit.share, limit.recovery_ms) == (5, 1, None)


async def nothing_runs(app: Ardiq) -> bool:
    limit = await app.limits.show("partner")
    return limit is not None and limit.share < 1 and not limit.running


async def test_more_start_as_it_comes_back_though_nothing_ends_and_nothing_is_left_of_it(app: Ardiq) -> None:
    began, release = list[int](), asyncio.Event()

    @app.task(limits=Limit("partner", concurrency=3, adaptive=0.3))
    async def call(number: int) -> None:
        began.append(number)
        if len(began) == 1:
            raise RateLimited(0)
        await release.wait()

    jobs = [await call.enqueue(number) for number in range(3)]
    async with working(app):
        await eventually(lambda: len(began) == 4)
        release.set()
        for job in jobs:
            await result_of(job)
    core, base = app.context.server.core, app.context.server.base
    await eventually(lambda: core.command(["EXISTS", f"{base}slowed:partner"]) == 0)
    assert is_sound(app)


async def test_a_rate_is_halved_and_comes_back(lonely: Ardiq) -> None:
    clock, at, refused = Clock(), list[float](), False
    start = clock.now

    @lonely.task(limits=Limit("partner", rate=Rate(1, per=1), adaptive=timedelta(seconds=100)))
    async def call(number: int) -> None:
        nonlocal refused
        if not refused:
            refused = True
            raise RateLimited(10)
        at.append((clock.now - start).total_seconds())

    async with inline(lonely, clock=clock):
        for number in range(60):
            await call.enqueue(number)
        await clock.advance(200)
    gaps = [after - before for before, after in pairwise(at)]
    assert at[0] == pytest.approx(10, abs=0.01)
    assert gaps[0] == pytest.approx(2, abs=0.05)
    assert all(later <= earlier + 0.01 for earlier, later in pairwise(gaps))
    assert gaps[-1] == pytest.approx(1, abs=0.01)
    # In fifty seconds from half to all: as many as at three quarters of the rate.
    assert sum(when <= 60 for when in at) == pytest.approx(38.5, abs=1)
