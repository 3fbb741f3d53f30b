"""The worker of `inline` is not that of a server, yet a scenario ends the same, inline, by a clock, and on a server."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_state, number_of, working

from ardiq import (
    Ardiq,
    Job,
    Retry,
    Signal,
    Snooze,
    children,
    children_sync,
    current_task,
    sleep,
    sleep_sync,
    step,
    step_sync,
    wait_for,
    wait_for_sync,
)
from ardiq._server import calls
from ardiq.testing import Clock, inline

PassTime = Callable[[], Awaitable[None]]


async def told(job: Job) -> list[Any]:
    """What there is to know about a task that has ended, without times."""
    result = await job.result(timeout=SOON_S)
    assert result is not None
    history = [(attempt.tries, attempt.error) for attempt in await job.history()]
    return [await job.status(), result.success, result.value, result.tries, result.aborted, history]


async def letters(app: Ardiq) -> list[Any]:
    found = [(letter.fn_name, letter.args, letter.error, letter.tries) for letter in await app.dead_letters()]
    return [sorted(found), await app.dead_count(), await app.queue_size()]


async def retries(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task(retry=[0.01, 0.02])
    async def flaky(fails: int) -> int:
        task = current_task()
        assert task is not None
        if task.tries <= fails:
            raise ValueError(f"try {task.tries}")
        return task.tries

    jobs = [await flaky.enqueue(fails) for fails in range(6)]
    await pass_time()
    return [await told(job) for job in jobs] + await letters(app)


async def asked_for(app: Ardiq, pass_time: PassTime) -> list[Any]:
    seen: list[int] = []

    @app.task(max_retries=2)
    def put_off() -> str:
        task = current_task()
        assert task is not None
        seen.append(task.tries)
        if len(seen) in (1, 3):
            raise Retry("asked", delay_ms=5)
        if len(seen) in (2, 4):
            raise Snooze(0.005)
        return "done"

    job = await put_off.enqueue()
    await pass_time()
    return [await told(job), seen]


async def too_old(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task(max_age=60, retry=[3600])
    async def fails() -> None:
        raise ValueError("no")

    @app.task(max_age=60)
    async def snoozes() -> None:
        raise Snooze(3600, "not yet")

    jobs = [await fails.enqueue(), await snoozes.enqueue()]
    await pass_time()
    return [await told(job) for job in jobs] + await letters(app)


async def unknown(app: Ardiq, pass_time: PassTime) -> list[Any]:
    number_of(app)
    app.context.change(unknown_task_wait_ms=50)
    job = await app.send("nobody_knows", 1)
    await pass_time()
    return [await told(job), *await letters(app)]


async def reports(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task
    async def tell() -> None:
        task = current_task()
        assert task is not None
        for number in range(3):
            task.log(f"line {number}")
            task.note(**{f"n{number}": number}, last=number)
        task.progress(0.5, "half")

    job = await tell.enqueue()
    await pass_time()
    await told(job)
    await eventually(job.progress)
    return [await job.progress(), await job.notes(), await job.logs(), await job.logs(limit=2)]


async def aborts(app: Ardiq, pass_time: PassTime) -> list[Any]:
    started = asyncio.Event()

    @app.task
    async def hang() -> None:
        started.set()
        await asyncio.sleep(600)

    enqueued = asyncio.ensure_future(hang.options(task_id="mine").enqueue())
    await started.wait()
    again = await hang.options(task_id="mine").enqueue()
    status = await again.status()
    aborted = await again.abort()
    job = await enqueued
    return [status, aborted, await told(job), await job.abort(), await app.abort("nobody")]


async def pauses(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task
    async def send(customer: int | str, text: str = "") -> list[Any]:
        return [customer, text]

    @app.task
    async def bill(amount: int, customer: int, day: date | None = None) -> int:
        return amount

    @app.task
    async def other() -> None: ...

    async def paused() -> list[Any]:
        return sorted(
            (pause.id, pause.task or "", str(pause.argument), str(pause.value), pause.held)
            for pause in await app.pauses()
        )

    for task, argument in [
        (None, {"customer": 42}),
        ("bill", {"amount": 3}),
        (bill, {2: "2026-01-02"}),
        (send, {1: "x"}),
    ]:
        await app.pause(task, argument=argument)  # type: ignore[arg-type]
    await app.pause("other")
    await app.pause("other")
    jobs = {
        await send.enqueue(42): "held",
        await send.enqueue(customer=42): "held",
        await send.enqueue(1, "x"): "held",
        await send.enqueue(1, "y"): "complete",
        await send.enqueue("42", text="x"): "complete",
        await bill.enqueue(5, 42): "held",
        await bill.enqueue(3, customer=42): "held",
        await bill.enqueue(5, 43, date(2026, 1, 2)): "held",
        await bill.enqueue(5, 43): "complete",
        await app.send("other"): "held",
    }
    for job, state in jobs.items():
        await eventually(lambda job=job, state=state: is_state(app, job.id, state))  # type: ignore[misc]
    first, *others, last = jobs
    answers = [await paused(), await first.abort(), await app.queue_size(), await paused()]
    answers.append([await app.resume(send), await app.resume("other"), await app.resume("other")])
    answers.append([await told(last), await paused()])
    for pause in await app.pauses():
        assert pause.argument is not None
        answers.append(await app.resume(pause.task, argument={pause.argument: pause.value}))  # type: ignore[misc]
    answers += [await told(job) for job in (first, *others)]
    await app.pause()
    job = await send.enqueue(7)
    answers += [await job.status(), await paused(), await app.resume(), await told(job), await app.resume()]
    return answers


async def waits(app: Ardiq, pass_time: PassTime) -> list[Any]:
    approval, budget = Signal("approval", bool), Signal("budget", int)
    failed: list[str] = []

    @app.task(retry=[0.01])
    async def order(name: str) -> list[Any]:
        price = await step("price", failed.count, name)
        await sleep("short", 0.01)
        if name not in failed:
            failed.append(name)
            raise ValueError("once")
        await sleep("longer", 2.1)
        first = await wait_for(approval, budget, timeout=2592000)
        assert first is not None
        return [price, first.signal.name, first.value, await wait_for(budget)]

    @app.task
    def later() -> list[Any]:
        return [step_sync("price", lambda: 5), sleep_sync("longer", 2.1), wait_for_sync(approval)]

    jobs = [await order.enqueue("a"), await order.enqueue("b"), await later.enqueue()]
    await jobs[0].signal(budget, 3)
    await jobs[0].signal(budget, 4)
    await jobs[1].signal(approval, True)
    await jobs[1].signal(budget, 5)
    await jobs[2].signal("approval", False)
    await pass_time()
    return [await told(job) for job in jobs]


async def families(app: Ardiq, pass_time: PassTime) -> list[Any]:
    begun: list[str] = []

    @app.task(max_retries=1, backoff_ms=1)
    async def square(number: int) -> int:
        begun.append(f"square {number}")
        if number < 0:
            raise ValueError("negative")
        return number * number

    @app.task
    async def shift(number: int) -> int:
        await sleep("a while", 0.01)
        return sum(await children("inner", [square.prepare(number), square.prepare(number + 1)]))

    @app.task
    def total(*numbers: int) -> list[int]:
        begun.append("total")
        found = children_sync("outer", [shift.prepare(number) for number in numbers])
        begun.append("found")
        if begun.count("found") == 1:
            raise Retry(delay=0)
        return found

    @app.task(max_retries=0)
    async def careful(tolerate: int) -> list[int | None]:
        return await children("some", [square.prepare(-1), square.prepare(2)], tolerate=tolerate)

    jobs = [await total.enqueue(1, 2), await careful.enqueue(1), await careful.enqueue(0)]
    await pass_time()
    found = [await told(job) for job in jobs]
    texts = [str(one).replace(job.id, "ID") for one, job in zip(found, jobs, strict=True)]
    return [texts, sorted(begun), await app.dead_count()]


SCENARIOS = [families, retries, asked_for, too_old, unknown, reports, aborts, pauses, waits]


@pytest.mark.parametrize("by_the_clock", [False, True], ids=["at-once", "by-the-clock"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_inline_agrees_with_the_server(
    scenario: Callable[[Ardiq, PassTime], Awaitable[list[Any]]], by_the_clock: bool, app: Ardiq
) -> None:
    async def nothing_waits() -> None:
        await eventually(all_ended)

    async def all_ended() -> bool:
        counts = await app.context.channel().ask(calls.counts())
        return not (counts["queued"] + counts["scheduled"] + counts["running"])

    async with working(app):
        expected = await scenario(app, nothing_waits)

    clock = Clock() if by_the_clock else None

    async def advance() -> None:
        if clock is not None:
            await clock.advance(hours=1)

    alone = Ardiq("redis://127.0.0.1:1")
    async with inline(alone, clock=clock), asyncio.timeout(SOON_S):
        assert await scenario(alone, advance) == expected
