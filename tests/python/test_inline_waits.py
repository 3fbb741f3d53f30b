"""Within `inline`: a sleep passes at once or by the clock, and a wait ends when the test gives the signal."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ardiq import Ardiq, Signal, sleep, step, step_sync, version, wait_for, wait_for_sync
from ardiq.testing import Clock, inline

approval = Signal("approval", bool)


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 3, 1, tzinfo=UTC))


async def test_without_a_clock_time_passes_and_signals_are_waited_for(lonely: Ardiq) -> None:
    seen: list[str] = []

    @lonely.task
    async def order() -> bool | None:
        await step("begin", seen.append, "begun")
        await sleep("a while", timedelta(days=3))
        seen.append("slept")
        return await wait_for(approval, timeout=timedelta(days=3))

    @lonely.task
    async def other() -> None: ...

    async with inline(lonely):
        job = await order.enqueue()
        assert (await job.status(), seen) == ("scheduled", ["begun", "slept"])
        await other.options(delay=timedelta(days=1)).enqueue()
        assert await job.status() == "scheduled"
        await job.signal(approval, True)
        assert await job.value() is True
        with pytest.raises(LookupError, match="has ended"):
            await lonely.signal(job.id, approval, True)
        with pytest.raises(RuntimeError, match="nothing may block"):
            job.signal_sync(approval, True)


async def test_a_clock_ends_sleeps_and_waits(lonely: Ardiq, clock: Clock) -> None:
    @lonely.task
    async def order() -> list[Any]:
        first = await wait_for(approval, timeout=timedelta(days=3)) or await wait_for(approval, timeout=0)
        await sleep("a second", 1)
        return [first, await wait_for(approval, timeout=timedelta(days=3)), await version("new", 2)]

    async with inline(lonely, clock=clock):
        job = await order.enqueue()
        assert await clock.advance(days=2) == []
        assert await clock.advance(days=1, seconds=1) == [job]
        assert await job.status() == "scheduled"
        await lonely.signal(job.id, approval, False)
        assert await job.value() == [None, False, 2]


async def test_def_tasks_and_processes(lonely: Ardiq) -> None:
    @lonely.task
    def in_thread() -> list[Any]:
        return [step_sync("one", lambda: 1), wait_for_sync(approval)]

    async with inline(lonely):
        jobs = [await in_thread.enqueue(), await lonely.task(executor="process")(in_process).enqueue()]
        for job in jobs:
            assert await job.status() == "scheduled"
            await job.signal(approval, True)
            assert await job.value() == [1, True]


def in_process() -> list[Any]:
    return [step_sync("one", lambda: 1), wait_for_sync(approval)]


async def test_a_workflow_waits_for_a_person(lonely: Ardiq) -> None:
    from ardiq import Flow

    @lonely.task
    async def ask() -> bool:
        return bool(await wait_for(approval))

    @lonely.task
    async def answer(yes: bool) -> str:
        return "yes" if yes else "no"

    async with inline(lonely):
        flow = Flow("order", id="order-17")
        job = await lonely.start(flow, output=flow.add(answer.prepare(flow.add(ask.prepare()).result)))
        await lonely.signal("order-17~ask", approval, True)
        assert await job.value() == "yes"
