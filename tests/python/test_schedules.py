"""Recurring tasks: that each occurrence runs once, and changing them at run time."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_sound, working

from ardiq import Ardiq, EnqueueContext, ExecutionContext


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({}, TypeError, "either"),
        ({"spec": "* * * * *", "every": 5}, TypeError, "either"),
        ({"spec": "61 * * * *"}, ValueError, "61"),
        ({"spec": "every day"}, ValueError, "every day"),
        ({"spec": "0 0 31 2 *"}, ValueError, "0 0 31 2"),
        ({"spec": 5}, TypeError, "str"),
        ({"every": 0}, ValueError, "every must be at least 1 ms"),
        ({"every": "hour"}, TypeError, "every"),
        ({"spec": "@daily", "tz": "Mars/Olympus"}, ValueError, "Mars"),
        ({"spec": "@daily", "tz": 5}, TypeError, "tz"),
        ({"every": 5, "tz": "UTC"}, TypeError, "tz"),
        ({"spec": "@daily", "priority": "none"}, ValueError, "none"),
        ({"spec": "@daily", "missed": "always"}, ValueError, "missed"),
        ({"spec": "@daily", "jitter": -1}, ValueError, "jitter"),
        ({"spec": "@daily", "jitter": float("inf")}, ValueError, "jitter"),
        ({"spec": "@daily", "jitter": "1 min"}, TypeError, "jitter"),
    ],
)
def test_misuse_is_refused_at_registration(app: Ardiq, options: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        app.cron(**options)(lambda: None)
    assert app.crons == []


async def test_each_occurrence_runs_once_however_many_workers_there_are(make_app: Callable[..., Ardiq]) -> None:
    seen: list[str] = []
    apps = [make_app(queue_name="many-workers") for _ in range(3)]
    for app in apps:

        @app.cron(every=0.2)
        async def tick() -> None:
            from ardiq import current_task

            task = current_task()
            assert task is not None
            seen.append(task.task_id)

        assert app.crons == ["tick"]
    async with working(apps[0]), working(apps[1]), working(apps[2]):
        await eventually(lambda: has(seen, 5))
    assert len(set(seen)) == len(seen)
    due = sorted(int(task_id.rpartition(":")[2]) for task_id in seen)
    assert all(task_id.startswith("cron:tick:") for task_id in seen)
    assert all(time_ms % 200 == 0 for time_ms in due)
    assert is_sound(apps[0])


@pytest.mark.parametrize("key", [None, b"k" * 16])
async def test_occurrences_pass_the_enqueue_hooks(make_app: Callable[..., Ardiq], key: bytes | None) -> None:
    told: list[tuple[Any, ...]] = []
    ran: list[str] = []
    headers: list[dict[str, Any]] = []
    apps = [make_app(queue_name=f"hooked-{key}", signing_key=key) for _ in range(2)]
    for app in apps:

        @app.on_enqueue
        def hook(call: EnqueueContext) -> None:
            told.append(call[:4])
            call.headers["by"] = b"hook"

        @app.middleware
        async def look(call: ExecutionContext, call_next: Callable[[], Any]) -> Any:
            ran.append(call.task_id)
            headers.append(call.headers)
            return await call_next()

        @app.cron(every=0.2)
        async def tick() -> None: ...

    async with working(apps[0]), working(apps[1]):
        await eventually(lambda: has(ran, 3))
    assert len(set(ran)) == len(ran)
    assert all(each == {"by": b"hook"} for each in headers)
    assert set(ran) <= {call[0] for call in told}
    assert all(call[1:] == ("tick", (), {}) for call in told)


async def test_an_enqueue_hook_that_raises_holds_an_occurrence_up(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    from ardiq._execution.scheduler import Scheduler

    fails: BaseException | None = LookupError("no tenant")

    @app.on_enqueue
    async def hook(call: EnqueueContext) -> None:
        if fails is not None:
            raise fails

    await app.schedules.put("one", "nobody", every=3600, missed="once")
    overdue(app, "one", 2)
    scheduler = Scheduler(app.context)
    for _ in range(2):
        await scheduler.fire_due()
    assert await app.queue_size() == 0
    (record,) = (each for each in caplog.records if "cannot be fired" in each.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is fails
    fails = asyncio.CancelledError()  # of something that it waited for
    await scheduler.fire_due()
    assert await app.queue_size() == 0
    fails = None
    await scheduler.fire_due()
    assert await app.queue_size() == 1


async def has(seen: list[str], count: int) -> bool:
    return len(seen) >= count


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_it_does_not_pile_up_where_it_coalesces(make_app: Callable[..., Ardiq], concurrency: int) -> None:
    app = make_app(concurrency=concurrency)
    go_on = asyncio.Event()
    started: list[int] = []

    @app.cron(every=0.1, coalesce=True)
    async def slow() -> None:
        started.append(1)
        await go_on.wait()

    async with working(app):
        await eventually(lambda: has(started, concurrency))  # type: ignore[arg-type]
        await asyncio.sleep(0.5)
        assert len(started) == concurrency
        assert await app.queue_size() == concurrency + 1  # those that run, and one
        go_on.set()
        await eventually(lambda: has(started, concurrency + 1))  # type: ignore[arg-type]


async def test_pause_resume_run_now_and_remove(app: Ardiq) -> None:
    seen: list[int] = []

    @app.task
    async def note(number: int, *, twice: bool = False) -> None:
        seen.append(number * (2 if twice else 1))

    await app.schedules.put("notes", "note", "@yearly", args=[7], kwargs={"twice": True}, missed="once")
    schedule = (await app.schedules.list())[0]
    assert (schedule.name, schedule.task, schedule.spec, schedule.paused) == ("notes", "note", "@yearly", False)
    assert schedule.next_due_at > time.time() * 1000
    assert schedule.last_due_at is None
    assert await app.schedules.pause("notes")
    assert (await app.schedules.list())[0].paused
    assert await app.schedules.resume("notes")
    async with working(app), asyncio.timeout(SOON_S):
        job = await app.schedules.run_now("notes")
        assert job is not None
        assert await job.result(timeout=SOON_S)
    assert seen == [14]
    schedule = (await app.schedules.list())[0]
    assert schedule.last_outcome is not None
    assert (schedule.last_outcome.id, schedule.last_outcome.state) == (job.id, "complete")
    assert (schedule.last_id, schedule.last_due_at) == (None, None)
    assert await app.schedules.remove("notes")
    for call in (app.schedules.pause, app.schedules.resume, app.schedules.remove):
        assert not await call("notes")
    assert await app.schedules.run_now("notes") is None
    assert await app.schedules.list() == []


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("once", 1), ("all", 3)])
async def test_what_nobody_fired_in_time(app: Ardiq, missed: str, expected: int) -> None:
    now = int(time.time() * 1000)
    # A period whose newest occurrence was missed, too.
    period = next(period for period in (3_600_000, 3_900_000, 4_700_000) if now % period > 120_000)
    await app.schedules.put("hourly", "nobody", every=period / 1000, missed=missed)
    due_at = now // period * period - 2 * period
    app.context.server.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", due_at, "hourly"])
    from ardiq._execution.scheduler import Scheduler

    await Scheduler(app.context).fire_due()
    assert await app.queue_size() == expected
    assert (await app.schedules.list())[0].next_due_at == now // period * period + period


async def test_no_more_than_a_hundred_missed_ones_are_made_up_for(app: Ardiq) -> None:
    await app.schedules.put("often", "nobody", every=1, missed="all")
    now = int(time.time() * 1000)
    due_at = now // 1000 * 1000 - 3_600_000
    app.context.server.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", due_at, "often"])
    from ardiq._execution.scheduler import Scheduler

    scheduler = Scheduler(app.context)
    await scheduler.fire_due()
    assert await app.queue_size() == 100
    assert (await app.schedules.list())[0].next_due_at > now


async def test_it_is_a_hundred_however_many_workers_see_to_it(app: Ardiq) -> None:
    from ardiq._execution.scheduler import Scheduler

    await app.schedules.put("often", "nobody", every=60, missed="all")
    now = int(time.time() * 1000)
    first = now // 60_000 * 60_000 - 86_400_000
    app.context.server.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", first, "often"])
    # One worker has come to the middle when another one looks.
    for due_at in range(first, first + 50 * 60_000, 60_000):
        fired = await app.schedules.fire("often", due_at, due_at + 60_000, now, {})
        assert (fired.answer, fired.next_due_at) == ("fired", due_at + 60_000)
    await Scheduler(app.context).fire_due()
    # With those that are in time.
    assert 100 <= await app.queue_size() <= 102
    assert (await app.schedules.list())[0].next_due_at > now


async def test_a_definition_written_by_hand_stops_nobody(app: Ardiq) -> None:
    seen: list[str] = []
    core, base = app.context.server.core, f"ardiq:{{{app.queue_name}}}:"
    core.command(["HSET", f"{base}schedules", "broken", '{"task": "x", "lane": "default", "spec": "soon"}'])
    core.command(["HSET", f"{base}schedules", "no-lane", '{"task": "x", "every_ms": 100}'])
    core.command(["ZADD", f"{base}schedule_due", "1", "broken", "2", "no-lane"])

    @app.cron(every=0.1)
    async def tick() -> None:
        seen.append("tick")

    async with working(app):
        await eventually(lambda: has(seen, 2))


def overdue(app: Ardiq, name: str, due_at: int) -> None:
    """Let a schedule have fallen due at a time."""
    app.context.server.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", due_at, name])


async def fire(app: Ardiq) -> None:
    from ardiq._execution.scheduler import Scheduler

    await Scheduler(app.context).fire_due()


async def test_jitter_spreads_occurrences_the_same_way_everywhere(make_app: Callable[..., Ardiq]) -> None:
    apps = [make_app(), make_app()]
    now = int(time.time() * 1000) // 1000 * 1000
    starts = []
    for app in apps:
        for number in range(20):
            await app.schedules.put(f"s{number}", "nobody", every=3600, jitter=timedelta(days=1), missed="once")
            overdue(app, f"s{number}", now - 1000)
        await fire(app)
        infos = [await app.info(f"cron:s{number}:{now - 1000}") for number in range(20)]
        assert all(info is not None and info.status in ("scheduled", "queued") for info in infos)
        starts.append([info.scheduled_at for info in infos if info is not None])
    assert starts[0] == starts[1]
    spread = [start - now for start in starts[0] if start is not None]
    assert len(set(spread)) > 10
    assert all(-1000 <= delay <= 86_400_000 for delay in spread)
    assert max(spread) - min(spread) > 3_600_000
    schedule = (await apps[0].schedules.list())[0]
    assert schedule.jitter_ms == 86_400_000
    assert is_sound(apps[0])


async def test_an_occurrence_runs_once_its_jitter_is_over(app: Ardiq) -> None:
    seen: list[str] = []

    @app.cron(every=0.2, jitter=0.1)
    async def tick() -> None:
        seen.append("tick")

    async with working(app):
        await eventually(lambda: has(seen, 3))


@pytest.mark.parametrize("result_ttl_ms", [0, 60_000])
async def test_the_last_outcome_outlives_its_record(make_app: Callable[..., Ardiq], result_ttl_ms: int) -> None:
    app = make_app(result_ttl_ms=result_ttl_ms)

    @app.task(max_retries=0)
    async def work(fails: bool) -> None:
        if fails:
            raise ValueError("no\nsuch thing")

    await app.schedules.put("fine", "work", every=3600, args=[False], missed="once")
    await app.schedules.put("wrong", "work", every=3600, args=[True], missed="once")
    await app.schedules.put("never", "work", "@yearly", args=[True])
    now = int(time.time() * 1000)
    for name in ("fine", "wrong"):
        overdue(app, name, now - 1000)
    await fire(app)
    assert [schedule.last_outcome for schedule in await app.schedules.list()] == [None] * 3
    await drain(app)
    outcomes = {schedule.name: schedule.last_outcome for schedule in await app.schedules.list()}
    fine, wrong = outcomes["fine"], outcomes["wrong"]
    assert fine is not None
    assert (fine.id, fine.state, fine.error) == (f"cron:fine:{now - 1000}", "complete", None)
    assert abs(fine.finished_at - now) < 3_600_000
    assert wrong is not None
    assert (wrong.state, wrong.error) == ("failed", "ValueError('no\\nsuch thing')")
    assert outcomes["never"] is None
    # It stays through a change of the schedule.
    await app.schedules.put("fine", "work", every=60, args=[False])
    assert {schedule.name: schedule.last_outcome for schedule in await app.schedules.list()} == outcomes
    assert is_sound(app)


@pytest.mark.damages_keys
async def test_a_long_list_is_whole_whatever_moves_meanwhile(app: Ardiq) -> None:
    """Each schedule is in it once, though others fall due, come and go between its pages."""
    core, base = app.context.server.core, f"ardiq:{{{app.queue_name}}}:"
    names = [f"s{number}" for number in range(1200)]
    definition = '{"task": "x", "lane": "default", "every_ms": 3600000}'
    core.command(["HSET", f"{base}schedules", *(word for name in names for word in (name, definition))])
    core.command(["ZADD", f"{base}schedule_due", *(word for n, name in enumerate(names) for word in (n, name))])
    schedules, pages, ask = app.schedules, 0, app.schedules._ask

    async def moving(call: Any) -> Any:
        nonlocal pages
        answer = await ask(call)
        pages += 1
        # From front to back, from back to front, and more of them.
        core.command(["ZADD", f"{base}schedule_due", *(w for n in range(300) for w in (10_000 - n, f"s{n + 300}"))])
        core.command(["ZADD", f"{base}schedule_due", *(w for n in range(300) for w in (-n, f"s{n + 900}"))])
        core.command(["ZADD", f"{base}schedule_due", *(w for n in range(200) for w in (n, f"new-{pages}-{n}"))])
        return answer

    schedules._ask = moving  # type: ignore[method-assign]
    found = [schedule.name for schedule in await schedules.list()]
    assert pages > 2
    assert len(set(found)) == len(found)
    assert set(names) <= set(found)


@pytest.mark.parametrize(
    ("definition", "due_at"),
    [
        ('{"task": "x", "lane": "default", "spec": "soon"}', "1"),
        ('{"task": "x", "lane": "default", "spec": ["* * * * *"]}', "1"),
        ('{"task": "x", "lane": "default", "every_ms": 1e300}', "1"),
        ('{"task": "x", "lane": "default", "every_ms": 1000, "tz": "Nowhere"}', "1"),
        ('{"task": "x", "lane": "default", "spec": "* * * * *", "missed": "all"}', "-1e18"),
        ('{"task": "x", "lane": "default", "spec": "* * * * *", "missed": "all"}', "-inf"),
        ("7", "1"),
    ],
)
async def test_one_that_cannot_be_fired_is_told_of_once_and_again_when_it_breaks_again(
    app: Ardiq, caplog: pytest.LogCaptureFixture, definition: str, due_at: str
) -> None:
    from ardiq._execution.scheduler import Scheduler

    scheduler, core, base = Scheduler(app.context), app.context.server.core, f"ardiq:{{{app.queue_name}}}:"

    async def told_of() -> int:
        caplog.clear()
        await scheduler.fire_due()
        return sum("schedule 'odd' cannot be fired" in line.getMessage() for line in caplog.records)

    await app.schedules.put("fine", "nobody", every=3600, missed="once")
    for _ in range(2):
        core.command(["HSET", f"{base}schedules", "odd", definition])
        core.command(["ZADD", f"{base}schedule_due", due_at, "odd"])
        overdue(app, "fine", 2)
        assert [await told_of(), await told_of()] == [1, 0]
        await app.schedules.remove("odd")
        assert await told_of() == 0
    assert await app.queue_size() == 1  # the second time it is no new occurrence


async def test_timings_are_not_gathered_for_ever(app: Ardiq) -> None:
    from ardiq._execution.scheduler import Scheduler

    scheduler = Scheduler(app.context)
    for number in range(2500):
        assert scheduler._timing({"every_ms": 1000 + number}).every_ms == 1000 + number
    assert len(scheduler._timings) <= 1000


async def test_many_that_cannot_be_fired_do_not_hide_one_that_can(app: Ardiq) -> None:
    core, base = app.context.server.core, f"ardiq:{{{app.queue_name}}}:"
    names = [f"s{number}" for number in range(700)]
    definition = '{"task": "x", "lane": "default", "spec": "soon"}'
    core.command(["HSET", f"{base}schedules", *(word for name in names for word in (name, definition))])
    core.command(["ZADD", f"{base}schedule_due", *(word for name in names for word in (1, name))])
    await app.schedules.put("fine", "nobody", every=3600, missed="once")
    overdue(app, "fine", 2)
    await fire(app)
    assert await app.queue_size() == 1
