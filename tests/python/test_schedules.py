"""Recurring tasks: when they fall due, that each occurrence runs once, and changing them at run time."""

import asyncio
import time
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from helpers import SOON_S, eventually, is_sound, working

from ardiq import Ardiq
from ardiq._cron import Timing

BERLIN = ZoneInfo("Europe/Berlin")


def ms(*moment: int, zone: Any = UTC, fold: int = 0) -> int:
    return round(datetime(*moment, tzinfo=zone, fold=fold).timestamp() * 1000)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("spec", "start", "expected"),
    [
        ("*/5 * * * *", ms(2026, 1, 1, 0, 2), ms(2026, 1, 1, 0, 5)),
        ("*/5 * * * *", ms(2026, 1, 1, 0, 5), ms(2026, 1, 1, 0, 10)),
        ("*/5 * * * *", ms(2026, 1, 1, 0, 5) - 1, ms(2026, 1, 1, 0, 5)),
        ("*/10 * * * * *", ms(2026, 1, 1, 0, 0, 3), ms(2026, 1, 1, 0, 0, 10)),
        ("@daily", ms(2026, 1, 1, 12), ms(2026, 1, 2)),
        ("0 9 * jan mon", ms(2026, 10, 1), ms(2027, 1, 4, 9)),
        ("0 0 29 2 *", ms(2026, 1, 1), ms(2028, 2, 29)),
    ],
)
def test_cron_expressions(spec: str, start: int, expected: int) -> None:
    assert Timing(spec, None, None).after(start) == expected


def test_an_hour_that_is_skipped_and_one_that_repeats() -> None:
    fixed, repeating = Timing("30 2 * * *", None, BERLIN), Timing("*/30 * * * *", None, "Europe/Berlin")
    # 29 March 2026: from 2:00 to 3:00. The fixed time comes right after the jump.
    assert fixed.after(ms(2026, 3, 28, 12, zone=BERLIN)) == ms(2026, 3, 29, 3, zone=BERLIN)
    assert fixed.after(ms(2026, 3, 29, 3, zone=BERLIN)) == ms(2026, 3, 30, 2, 30, zone=BERLIN)
    # 25 October 2026: 2:00 to 3:00 twice. A fixed time comes once, a repeating one in both hours.
    first = fixed.after(ms(2026, 10, 24, 12, zone=BERLIN))
    assert first == ms(2026, 10, 25, 2, 30, zone=BERLIN)
    assert fixed.after(first) == ms(2026, 10, 26, 2, 30, zone=BERLIN)
    at, seen = ms(2026, 10, 25, 1, 45, zone=BERLIN), []
    for _ in range(5):
        at = repeating.after(at)
        seen.append((at - ms(2026, 10, 25, 0, zone=UTC)) // 60_000)
    assert seen == [0, 30, 60, 90, 120]


def test_over_every_change_of_every_zone_of_a_decade() -> None:
    """Each day has one occurrence of a fixed time, and they come in order, whatever a zone does to its clock."""
    for name in sorted(zoneinfo.available_timezones()):
        zone = ZoneInfo(name)
        for change in changes(zone):
            timing = Timing("30 2 * * *", None, zone)
            at, days = ms_of(change) - 2 * 86_400_000, []
            for _ in range(4):
                following = timing.after(at)
                assert following > at
                days.append(datetime.fromtimestamp(following / 1000, zone).date())
                at = following
            skipped = any(not exists(day, zone) for day in spread(days))
            assert len(set(days)) == len(days), (name, change)
            assert skipped or spread(days) == days, (name, change, days)


def ms_of(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def changes(zone: ZoneInfo) -> list[datetime]:
    """The days around which the zone's offset changes, from 2020 to 2030, the first of each kind."""
    found, seen = [], set()
    moment, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    offset = moment.astimezone(zone).utcoffset()
    while moment < ends:
        moment += timedelta(days=5)
        now = moment.astimezone(zone).utcoffset()
        if now != offset and (offset, now) not in seen:
            seen.add((offset, now))
            found.append(moment)
        offset = now
    return found


def spread(days: list[Any]) -> list[Any]:
    return [days[0] + timedelta(days=number) for number in range((days[-1] - days[0]).days + 1)]


def exists(day: Any, zone: ZoneInfo) -> bool:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    return noon.astimezone(UTC).astimezone(zone).date() == day


def test_a_period_is_aligned_to_the_epoch() -> None:
    timing = Timing(None, timedelta(minutes=15), None)
    assert timing.after(ms(2026, 1, 1, 0, 1)) == ms(2026, 1, 1, 0, 15)
    assert Timing(None, 0.1, None).after(1_000_000_000_050) == 1_000_000_000_100


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({}, ValueError, "one of them"),
        ({"spec": "* * * * *", "every": 5}, ValueError, "one of them"),
        ({"spec": "61 * * * *"}, ValueError, "61"),
        ({"spec": "every day"}, ValueError, "every day"),
        ({"spec": "0 0 31 2 *"}, ValueError, "0 0 31 2"),
        ({"spec": 5}, TypeError, "str"),
        ({"every": 0.05}, ValueError, "100 ms"),
        ({"every": "hour"}, TypeError, "every"),
        ({"spec": "@daily", "tz": "Mars/Olympus"}, ValueError, "Mars"),
        ({"spec": "@daily", "tz": 5}, TypeError, "tz"),
        ({"every": 5, "tz": "UTC"}, ValueError, "tz"),
        ({"spec": "@daily", "priority": "none"}, ValueError, "none"),
        ({"spec": "@daily", "missed": "always"}, ValueError, "missed"),
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
    assert all(task_id.startswith("tick:") for task_id in seen)
    assert all(time_ms % 200 == 0 for time_ms in due)
    assert is_sound(apps[0])


async def has(seen: list[str], count: int) -> bool:
    return len(seen) >= count


async def test_it_does_not_pile_up_where_it_coalesces(app: Ardiq) -> None:
    go_on = asyncio.Event()
    started: list[int] = []

    @app.cron(every=0.1, coalesce=True)
    async def slow() -> None:
        started.append(1)
        await go_on.wait()

    async with working(app):
        await eventually(lambda: has(started, 1))  # type: ignore[arg-type]
        await asyncio.sleep(0.5)
        assert len(started) == 1
        assert await app.queue_size() == 0
        go_on.set()
        await eventually(lambda: has(started, 2))  # type: ignore[arg-type]


async def test_a_deploy_changes_and_removes_what_code_declared(make_app: Callable[..., Ardiq]) -> None:
    before, after = make_app(queue_name="deploy"), make_app(queue_name="deploy")
    before.cron("0 3 * * *", name="stays")(lambda: None)
    before.cron("0 4 * * *", name="goes")(lambda: None)
    await before.schedules.put("by-hand", "stays", every=3600)
    async with working(before):
        await eventually(lambda: names_are(before, {"stays", "goes", "by-hand"}))
    first = {schedule.name: schedule for schedule in await before.schedules.list()}
    after.cron("0 5 * * *", name="stays", tz="Europe/Berlin")(lambda: None)
    async with working(after):
        await eventually(lambda: names_are(after, {"stays", "by-hand"}))
        await eventually(lambda: is_spec(after, "stays", "0 5 * * *"))
    changed = {schedule.name: schedule for schedule in await after.schedules.list()}
    assert (first["stays"].tz, changed["stays"].tz) == (None, "Europe/Berlin")
    assert changed["by-hand"] == first["by-hand"]
    assert (changed["by-hand"].source, changed["stays"].source) == ("runtime", "code")


async def names_are(app: Ardiq, names: set[str]) -> bool:
    return {schedule.name for schedule in await app.schedules.list()} == names


async def is_spec(app: Ardiq, name: str, spec: str) -> bool:
    return any(schedule.name == name and schedule.spec == spec for schedule in await app.schedules.list())


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
    app._broker.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", due_at, "hourly"])
    from ardiq._scheduler import Scheduler

    await Scheduler(app).fire_due()
    assert await app.queue_size() == expected
    assert (await app.schedules.list())[0].next_due_at == now // period * period + period


async def test_no_more_than_a_hundred_missed_ones_are_made_up_for(app: Ardiq) -> None:
    await app.schedules.put("often", "nobody", every=1, missed="all")
    now = int(time.time() * 1000)
    due_at = now // 1000 * 1000 - 3_600_000
    app._broker.core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:schedule_due", due_at, "often"])
    from ardiq._scheduler import Scheduler

    scheduler = Scheduler(app)
    await scheduler.fire_due()
    assert await app.queue_size() == 100
    assert (await app.schedules.list())[0].next_due_at > now


async def test_a_definition_written_by_hand_stops_nobody(app: Ardiq) -> None:
    seen: list[str] = []
    core, base = app._broker.core, f"ardiq:{{{app.queue_name}}}:"
    core.command(["HSET", f"{base}schedules", "broken", '{"task": "x", "lane": "default", "spec": "soon"}'])
    core.command(["HSET", f"{base}schedules", "no-lane", '{"task": "x", "every_ms": 100}'])
    core.command(["ZADD", f"{base}schedule_due", "1", "broken", "2", "no-lane"])

    @app.cron(every=0.1)
    async def tick() -> None:
        seen.append("tick")

    async with working(app):
        await eventually(lambda: has(seen, 2))
