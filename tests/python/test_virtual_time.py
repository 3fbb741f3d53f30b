"""`inline(app, clock=clock)`: what is due runs when the test moves the clock, and nobody sleeps."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ardiq import Ardiq, Job, Snooze, TaskError, current_task
from ardiq.testing import Clock, inline

START = datetime(2026, 3, 28, 9, tzinfo=UTC)


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


async def test_delays_fall_due_in_their_order(lonely: Ardiq, clock: Clock) -> None:
    ran: list[tuple[str, timedelta]] = []

    @lonely.task
    async def note(name: str, then: str = "") -> str:
        ran.append((name, clock.now - START))
        if then:
            await note.options(delay=timedelta(minutes=1)).enqueue(then)
        return name

    async with inline(lonely, clock=clock):
        late = await note.options(at=START + timedelta(hours=2)).enqueue("late")
        soon = await note.options(delay_ms=60_000).enqueue("soon", then="after")
        await note.enqueue("now")
        assert (await late.status(), await soon.status()) == ("scheduled", "scheduled")
        info = await late.info()
        assert info is not None
        assert info.scheduled_at == 1000 * (START + timedelta(hours=2)).timestamp()
        assert await clock.advance(seconds=59) == []
        assert await soon.result() is None
        first, after = await clock.advance(minutes=5)
        assert first == soon
        result = await soon.result()
        assert result is not None
        assert (result.value, result.finish - result.enqueue_time) == ("soon", 60_000)
        assert (await after.status(), await lonely.queue_size()) == ("complete", 1)
        assert await clock.advance_to(START + timedelta(hours=2)) == [late]
        assert clock.now == START + timedelta(hours=2)
    minutes = [(name, after / timedelta(minutes=1)) for name, after in ran]
    assert minutes == [("now", 0), ("soon", 1), ("after", 2), ("late", 120)]


async def test_what_falls_due_at_once_runs_as_it_was_enqueued(lonely: Ardiq, clock: Clock) -> None:
    @lonely.task
    async def work() -> None: ...

    async with inline(lonely, clock=clock):
        jobs = [await work.options(delay=60).enqueue() for _ in range(10)]
        assert await clock.advance(minutes=1) == jobs


async def test_retries_wait_for_their_backoff(lonely: Ardiq, clock: Clock) -> None:
    tries: list[float] = []

    @lonely.task(max_retries=3)
    async def fails() -> None:
        tries.append((clock.now - START).total_seconds())
        raise ValueError(len(tries))

    async with inline(lonely, clock=clock):
        job = await fails.enqueue()
        assert (await job.status(), await lonely.dead_count()) == ("scheduled", 0)
        assert await clock.advance(hours=1) == [job]
        assert (await job.status(), await lonely.dead_count(), tries) == ("complete", 1, [0, 1, 5, 14])
        assert await lonely.replay(job.id) == job
        assert await job.status() == "scheduled"


async def test_snoozing_ends_by_age(lonely: Ardiq, clock: Clock) -> None:
    @lonely.task(max_age=timedelta(days=2))
    async def not_yet() -> None:
        raise Snooze(timedelta(hours=10), "shop is closed")

    async with inline(lonely, clock=clock):
        job = await not_yet.enqueue()
        await clock.advance(days=1)
        assert await job.result() is None
        await clock.advance(days=1)
        result = await job.result()
        assert result is not None
        assert result.value == "shop is closed (older than its max_age of 172800000 ms)"
        assert result.finish - result.enqueue_time == 40 * 3_600_000


async def test_what_was_not_started_in_time_expires(lonely: Ardiq, clock: Clock) -> None:
    @lonely.task
    async def work() -> None: ...

    async with inline(lonely, clock=clock):
        job = await work.options(delay=timedelta(hours=2), expire=timedelta(hours=1)).enqueue()
        waits = asyncio.ensure_future(work.options(delay=timedelta(hours=2), expire=timedelta(hours=1)).request())
        await asyncio.sleep(0)
        assert await clock.advance(hours=3) == []
        result = await job.result()
        assert result is not None
        assert (result.success, result.value) == (False, "expired")
        with pytest.raises(TaskError, match="expired"):
            await waits


async def test_schedules_fire_at_their_times(lonely: Ardiq, clock: Clock) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    ran: list[str] = []

    def note(name: str) -> None:
        ran.append(f"{name} {clock.now.astimezone(berlin):%a %H:%M}")

    @lonely.cron("30 2 * * *", tz="Europe/Berlin")
    def nightly() -> None:
        note("nightly")

    @lonely.cron(every=timedelta(hours=12))
    async def twice_a_day() -> None:
        note("twice")

    @lonely.task
    async def report(number: int) -> None:
        note(f"report {number}")

    async with inline(lonely, clock=clock):
        jobs = await clock.advance_to(datetime(2026, 3, 29, 12, tzinfo=UTC))
        # In the night to Sunday the clocks went forward over half past two.
        assert ran == ["twice Sat 13:00", "twice Sun 01:00", "nightly Sun 03:00", "twice Sun 14:00"]
        assert [job.id.split(":")[1] for job in jobs] == ["twice_a_day", "twice_a_day", "nightly", "twice_a_day"]
        ran.clear()
        await lonely.schedules.put("monday", "report", "0 8 * * mon", tz="Europe/Berlin", args=[7])
        await lonely.schedules.pause("twice_a_day")
        await clock.advance(days=1)
        assert ran == ["nightly Mon 02:30", "report 7 Mon 08:00"]
        assert await lonely.schedules.remove("nightly")
        await clock.advance(days=6)
        assert ran[2:] == []
        assert [schedule.name for schedule in await lonely.schedules.list()] == ["twice_a_day", "monday"]


async def test_an_occurrence_is_passed_over_while_the_one_before_waits(lonely: Ardiq, clock: Clock) -> None:
    tries: list[int] = []

    @lonely.cron(every=60, coalesce=True, backoff_ms=150_000, max_retries=1)
    def slow() -> None:
        task = current_task()
        assert task is not None
        tries.append(task.tries)
        if task.tries == 1:
            raise ValueError

    async with inline(lonely, clock=clock):
        await clock.advance(minutes=6)
    # At 1:00, again at 3:30, and the next ones at 4:00 and 6:30.
    assert tries == [1, 2, 1]


async def test_one_clock_for_several_apps(lonely: Ardiq, clock: Clock) -> None:
    other, order = Ardiq("redis://127.0.0.1:1", "other"), list[str]()
    jobs: list[Job] = []
    async with inline(lonely, clock=clock), inline(other, clock=clock):
        for app, seconds in ((lonely, 3), (other, 2), (lonely, 1)):

            @app.task(name=f"t{seconds}")
            def work(name: str) -> None:
                order.append(name)

            jobs.append(await work.options(delay=seconds).enqueue(f"t{seconds}"))
        assert set(await clock.advance(seconds=2)) == {jobs[1], jobs[2]}
        assert await clock.advance(1) == [jobs[0]]
    assert order == ["t1", "t2", "t3"]


async def test_misuse(lonely: Ardiq, clock: Clock) -> None:
    errors: list[Any] = []

    @lonely.task
    async def nested() -> None:
        with pytest.raises(RuntimeError, match="already moving") as caught:
            await clock.advance(seconds=1)
        errors.append(caught.value)

    with pytest.raises(RuntimeError, match="within"):
        await clock.advance(minutes=5)
    with pytest.raises(ValueError, match="time zone"):
        Clock(datetime(2026, 3, 1))
    async with inline(lonely, clock=clock):
        with pytest.raises(ValueError, match="minutes must not be negative"):
            await clock.advance(minutes=-1)
        with pytest.raises(ValueError, match="go back"):
            await clock.advance_to(datetime(2025, 1, 1, tzinfo=UTC))
        with pytest.raises(ValueError, match="time zone"):
            await clock.advance_to(datetime(2027, 1, 1))
        with pytest.raises(TypeError):
            await clock.advance("5 minutes")  # type: ignore[arg-type]
        await nested.options(delay=1).enqueue()
        await clock.advance(2)
        assert len(errors) == 1
        assert repr(clock) == "<Clock 2026-03-28T09:00:02+00:00>"
    with pytest.raises(RuntimeError, match="within"):
        await clock.advance(minutes=5)


async def test_an_abort_on_the_way(lonely: Ardiq, clock: Clock) -> None:
    ran: list[str] = []

    @lonely.task
    async def stop_other() -> None:
        assert await lonely.abort("other")

    @lonely.task
    async def work() -> None:
        ran.append("work")

    async with inline(lonely, clock=clock):
        await stop_other.options(delay=1).enqueue()
        job = await work.options(delay=1, task_id="other").enqueue()
        await clock.advance(1)
        result = await job.result()
        assert result is not None
        assert result.aborted
    assert ran == []


async def test_a_queue_that_is_first_used_while_the_clock_moves() -> None:
    app, clock = Ardiq("redis://nowhere.invalid"), Clock()

    @app.task
    async def inner() -> None: ...

    @app.task
    async def outer() -> None:
        await inner.options(queue="other").enqueue()
        await inner.options(queue="third", delay=60).enqueue()

    async with inline(app, clock=clock):
        job = await outer.options(delay=60).enqueue()
        ran = await clock.advance(minutes=5)
        assert [each.app.queue_name for each in ran] == ["default", "other", "third"]
        assert ran[0] == job
