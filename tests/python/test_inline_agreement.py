"""`inline` restates rules of the library: a scenario ends the same way inline, by a clock or not, and on a server."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_state, number_of, working

from ardiq import Ardiq, Job, Retry, Snooze, current_task
from ardiq.testing import Clock, inline

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
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
    app._unknown_task_wait_ms = 50
    job = await app.send("nobody_knows", 1)
    await pass_time()
    return [await told(job), *await letters(app)]


async def dead_letters(app: Ardiq, pass_time: PassTime) -> list[Any]:
    broken = True

    @app.task(max_retries=1, retry=[0.005])
    async def work(text: str) -> str:
        if broken:
            raise ValueError(text)
        return text

    job = await work.enqueue("é" * 400)
    await pass_time()
    before = [await told(job), await letters(app), await job.info()]
    broken = False
    again = await app.replay(job.id)
    assert again is not None
    await pass_time()
    after = [await told(again), await app.replay(job.id), await app.delete_dead(job.id), await app.replay("nobody")]
    broken = True
    job = await work.enqueue("no")
    await pass_time()
    await told(job)
    return before + after + [await app.delete_dead(job.id), await job.status(), *await letters(app)]


async def found_dead(app: Ardiq, pass_time: PassTime) -> list[Any]:
    broken = True

    @app.task(max_retries=0)
    async def work(number: int) -> int:
        if broken:
            raise ValueError(number)
        return number

    @app.task(max_retries=0)
    async def other() -> None:
        raise KeyError("Nobody")

    answers: list[Any] = []
    jobs = [await work.enqueue(number) for number in range(4)] + [await other.enqueue()]
    await pass_time()
    dead, hour = app.dead, timedelta(hours=1)
    chosen: list[dict[str, Any]] = [
        {},
        {"task": "work"},
        {"error": "NOBODY"},
        {"since": hour},
        {"until": hour},
        {"limit": 0},
    ]
    for filters in chosen:
        answers.append(sorted(letter.error for letter in await dead.list(**filters)))
    record = await dead.show(jobs[0].id)
    assert record is not None
    answers += [record.letter[1:7], [attempt.error for attempt in record.history], await dead.show("nobody")]
    broken = False
    answers += [await dead.requeue(jobs[0].id), await dead.requeue([jobs[0].id, "nobody"])]
    answers += [await dead.requeue(jobs[1].id, args=[11]), await dead.requeue(jobs[1].id, args=[12])]
    answers += [await dead.discard(jobs[2].id), await dead.requeue(error="valueerror")]
    await pass_time()
    answers += [(await told(jobs[i]))[2] for i in (0, 1, 3)]
    return [*answers, await dead.purge(task="work"), await dead.purge(), await dead.count()]


async def codecs(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task
    async def echo(*values: Any) -> Any:
        return values

    @app.task(max_retries=0)
    async def untold() -> object:
        return object()

    jobs = [await echo.enqueue(1, "two", None), await echo.enqueue(b"\xff", {1: 2}), await untold.enqueue()]
    jobs += await app.enqueue_many(echo.options(task_id="mine").prepare(number) for number in range(3))
    await pass_time()
    return [(await told(job))[:4] for job in jobs]


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


async def waiting(app: Ardiq, pass_time: PassTime) -> list[Any]:
    runs: list[int] = []

    @app.task(unique=True)
    async def work(number: int) -> int:
        runs.append(number)
        return number

    later = work.options(delay_ms=HOUR_MS)
    job, again = await later.enqueue(1), await work.enqueue(1)
    info = await job.info()
    assert info is not None
    assert info.scheduled_at is not None
    waits = [await job.status(), job == again, info[1:4], info.tries, info.scheduled_at - info.enqueue_time]
    waits += [await app.queue_size(), await job.abort(), await told(job), await app.queue_size(), runs[:]]
    job = await work.enqueue(1)
    return [*waits, await told(job), runs]


async def expiry(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task
    async def work() -> str:
        return "done"

    jobs = [
        await work.options(delay_ms=20, expire_ms=10).enqueue(),
        await work.options(delay_ms=10, expire_ms=HOUR_MS).enqueue(),
        await work.options(expire_ms=HOUR_MS).enqueue(),
    ]
    await pass_time()
    return [await told(job) for job in jobs]


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


async def schedules(app: Ardiq, pass_time: PassTime) -> list[Any]:
    @app.task(retry=[3600], max_retries=1)
    async def fails(number: int = 0) -> None:
        raise ValueError(number)

    call, now = app.schedules._call, (await app.schedules.due(0, 1))[0]
    answers: list[Any] = []

    async def put(name: str, due_at: int, **options: Any) -> None:
        definition = {"task": "fails", "lane": "default", "every_ms": 60_000, **options}
        answers.append(await call("schedule_put", name, ardiq_json(definition), due_at) - now)

    async def fire(name: str, due_at: int, run: int = 1, headers: str = "") -> None:
        answer, next_due_at, task_id = await call("schedule_fire", name, due_at, due_at + 1000, run, headers)
        answers.append([answer, next_due_at and next_due_at - now, task_id.replace(str(due_at).encode(), b"DUE")])
        if answer == b"fired":
            await eventually(lambda: is_state(app, task_id.decode(), "scheduled"))

    await put("plain", now - 9000, args="[7]")
    for name, due_at, run in [
        *(("nobody", now, 1), ("plain", now, 1), ("plain", now - 9000, 1), ("plain", now - 9000, 1)),
        *(("plain", now - 8000, 1), ("plain", now - 7000, 0)),
    ]:
        await fire(name, due_at, run)
    await put("plain", now, coalesce=True)
    await fire("plain", now - 6000)
    answers.append([await app.schedules.pause(name) for name in ("plain", "plain", "nobody")])
    await fire("plain", now - 5000)
    answers.append([await app.schedules.resume(name) for name in ("plain", "plain", "nobody")])
    await put("plain", now - 9000, every_ms=1000)  # another timing, which led back
    await fire("plain", now - 9000)
    await put("ahead", now + HOUR_MS)
    await fire("ahead", now + HOUR_MS)
    await put("taken", now - 500)
    await fails.options(task_id=f"cron:taken:{now - 500}", delay_ms=HOUR_MS).enqueue()
    await fire("taken", now - 500)
    await put("spread", now - 500, jitter_ms=DAY_MS)
    await fire("spread", now - 500, headers='{"h":1}')
    spread = await app.info(task_id := f"cron:spread:{now - 500}")
    assert spread is not None
    assert spread.scheduled_at is not None
    expected = int(hashlib.sha1(task_id.encode()).hexdigest()[:12], 16) % (DAY_MS + 1)
    answers += [spread.scheduled_at - (now - 500) == expected, await app.abort(task_id)]
    await put("by-hand", now + HOUR_MS)
    job = await app.schedules.run_now("by-hand")
    assert job is not None
    await eventually(lambda: is_state(app, job.id, "scheduled"))
    answers.append(await job.abort())
    listed = [each._asdict() for each in await app.schedules.list()]
    for each in listed:
        each["next_due_at"] -= now
        each["last_due_at"] = each["last_due_at"] and each["last_due_at"] - now
        each["last_id"] = each["last_id"] and each["last_id"].rpartition(":")[0]
        if (outcome := each["last_outcome"]) is not None:
            assert outcome.finished_at >= now
            each["last_outcome"] = (outcome.id.replace(job.id, "NOW:").rpartition(":")[0], outcome.state, outcome.error)
            answers.append(outcome.tries)
    answers += [listed, await app.schedules.remove("plain"), await app.schedules.remove("plain")]
    assert await app.schedules.run_now("plain") is None
    return answers


def ardiq_json(value: Any) -> bytes:
    from ardiq._values.codec import to_json

    return to_json(value)


ALWAYS = [retries, asked_for, too_old, unknown, dead_letters, found_dead, codecs, reports, aborts, pauses]
# Without a clock nothing waits and nothing expires.
BY_THE_CLOCK = [*ALWAYS, waiting, expiry, schedules]
CASES = [
    *(pytest.param(scenario, False, id=f"{scenario.__name__}-at-once") for scenario in ALWAYS),
    *(pytest.param(scenario, True, id=f"{scenario.__name__}-by-the-clock") for scenario in BY_THE_CLOCK),
]


@pytest.mark.parametrize(("scenario", "by_the_clock"), CASES)
async def test_inline_agrees_with_the_server(
    scenario: Callable[[Ardiq, PassTime], Awaitable[list[Any]]], by_the_clock: bool, app: Ardiq
) -> None:
    async def nothing_waits() -> None:
        await eventually(all_ended)

    async def all_ended() -> bool:
        answer = await app._broker.line(asyncio.get_running_loop()).call("counts")
        counts = {answer[i]: answer[i + 1] for i in range(0, len(answer), 2)}
        return not (counts[b"queued"] + counts[b"scheduled"] + counts[b"running"])

    app._fires_schedules = False  # the scenario does
    async with working(app):
        expected = await scenario(app, nothing_waits)

    clock = Clock() if by_the_clock else None

    async def advance() -> None:
        if clock is not None:
            await clock.advance(hours=1)

    alone = Ardiq("redis://127.0.0.1:1")
    async with inline(alone, clock=clock), asyncio.timeout(SOON_S):
        assert await scenario(alone, advance) == expected
