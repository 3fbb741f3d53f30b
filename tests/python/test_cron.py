"""When schedules fall due: expressions, periods, and what zones do to their clocks."""

import zoneinfo
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from ardiq._values.timing import Timing

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


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
        # 1 January 2026 is a Thursday. Of two days that are restricted either will do.
        ("0 0 */2 * 5", ms(2026, 1, 1, 1), ms(2026, 1, 2)),
        ("0 0 31 * */2", ms(2026, 1, 1, 1), ms(2026, 1, 3)),
        ("0 0 */10 * *", ms(2026, 1, 1, 1), ms(2026, 1, 11)),
        ("0 0 0 */10 * 0", ms(2026, 1, 1, 1), ms(2026, 1, 4)),
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


def test_a_period_is_aligned_to_the_epoch() -> None:
    timing = Timing(None, timedelta(minutes=15), None)
    assert timing.after(ms(2026, 1, 1, 0, 1)) == ms(2026, 1, 1, 0, 15)
    assert Timing(None, 0.1, None).after(1_000_000_000_050) == 1_000_000_000_100


@pytest.mark.parametrize(
    ("spec", "spring", "autumn"),
    [
        ("30 2 * * *", [120], [150]),
        ("0 30 2 * * *", [120], [150]),
        ("0,30 2 * * *", [120], [120, 150]),
        ("0 2,3 * * *", [120], [120, 240]),
        ("30 * * * *", [30, 90, 150, 210], [30, 90, 150, 210]),
        ("*/30 2 * * *", [], [120, 150, 180, 210]),
        ("*/30 30 2 * * *", [], [150, 150.5, 210, 210.5]),
    ],
)
def test_a_time_is_fixed_unless_a_field_begins_with_a_star(spec: str, spring: list[float], autumn: list[float]) -> None:
    """In minutes since midnight of the days when Berlin's clocks go from 2:00 to 3:00, and from 3:00 back to 2:00."""
    timing = Timing(spec, None, BERLIN)
    for midnight, expected in ((ms(2026, 3, 29, zone=BERLIN), spring), (ms(2026, 10, 25, zone=BERLIN), autumn)):
        found = occurrences(timing, midnight - 1, midnight + 240 * MINUTE)
        assert [(at - midnight) / MINUTE for at in found] == expected


def occurrences(timing: Timing, after: int, until: int) -> list[int]:
    found = []
    while (after := timing.after(after)) <= until:
        found.append(after)
    return found


class Change(NamedTuple):
    """A zone's clock is set: when (UTC), and its distance from UTC before and after."""

    at: datetime
    before: timedelta
    after: timedelta


def offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes(zone: ZoneInfo) -> Iterator[Change]:
    """All changes of a zone's clock from 2020 to 2030. None of them is undone within three days."""
    left, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    while left < ends:
        right = left + timedelta(days=3)
        before, after = offset(left, zone), offset(right, zone)
        if before != after:
            first, last = left, right
            while last - first > timedelta(seconds=1):
                middle = first + (last - first) // 2
                middle = middle.replace(microsecond=0)
                first, last = (middle, last) if offset(middle, zone) == before else (first, middle)
            yield Change(last, before, after)
        left = right


def fixed(clock_times: Iterable[tuple[int, int]], change: Change, days: Iterable[date]) -> list[int]:
    """The rule for fixed times: what a change skips comes at it, what it repeats comes the first time."""
    found = set()
    for day in days:
        for hour, minute in clock_times:
            local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
            by_before, by_after = local - change.before, local - change.after
            if by_before < change.at:
                found.add(by_before)
            else:
                found.add(max(by_after, change.at))
    return sorted(ms_of(moment) for moment in found)


def repeating(minutes: Iterable[int], hours: Iterable[int], change: Change, start: int, end: int) -> list[int]:
    """The rule for repeating times: each minute that passes and matches."""
    found = []
    for at in range(-(-start // MINUTE) * MINUTE, end + 1, MINUTE):
        moment = datetime.fromtimestamp(at / 1000, UTC)
        local = moment + (change.before if moment < change.at else change.after)
        if local.minute in minutes and local.hour in hours and at > start:
            found.append(at)
    return found


def ms_of(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def test_the_rules_hold_at_every_change_of_every_zone_of_a_decade() -> None:
    """By whatever edition of the zones is installed: what is expected is computed from the changes it has."""
    kinds = set()
    for name in sorted(zoneinfo.available_timezones()):
        zone = ZoneInfo(name)
        for change in changes(zone):
            at = ms_of(change.at)
            local = change.at + change.before
            # Half an hour into what is skipped or repeated.
            midst = local + (change.after - change.before) / 2
            hold(zone, change, [(midst.hour, midst.minute)])
            kind = (local.time(), change.before, change.after)
            if kind in kinds:
                continue
            kinds.add(kind)
            edges = [local + step for step in (timedelta(0), change.after - change.before)]
            for edge in edges:
                for minutes in (-1, 0, 1):
                    near = edge + timedelta(minutes=minutes)
                    hold(zone, change, [(near.hour, near.minute)])
            hold(zone, change, [(hour, minute) for minute in (0, 30) for hour in {midst.hour, local.hour, 12}])
            every = range(60)
            for spec, minute_set, hour_set in (
                ("*/20 * * * *", every[::20], range(24)),
                ("15 * * * *", [15], range(24)),
                ("30 */2 * * *", [30], range(0, 24, 2)),
                (f"*/30 {midst.hour} * * *", every[::30], [midst.hour]),
                (f"*/30 {local.hour} * * *", every[::30], [local.hour]),
            ):
                found = occurrences(Timing(spec, None, zone), at - 5 * HOUR, at + 5 * HOUR)
                expected = repeating(minute_set, hour_set, change, at - 5 * HOUR, at + 5 * HOUR)
                assert found == expected, (name, change, spec)
    assert len(kinds) > 20


def hold(zone: ZoneInfo, change: Change, clock_times: list[tuple[int, int]]) -> None:
    """A cron expression of these fixed times occurs as the rule says, the day before the change and the day after."""
    minutes = ",".join(str(minute) for minute in sorted({minute for _, minute in clock_times}))
    hours = ",".join(str(hour) for hour in sorted({hour for hour, _ in clock_times}))
    timing = Timing(f"{minutes} {hours} * * *", None, zone)
    at = ms_of(change.at)
    today = (change.at + change.before).date()
    expected = fixed(clock_times, change, (today + timedelta(days=day) for day in range(-2, 4)))
    expected = [time_ms for time_ms in expected if at - DAY < time_ms <= at + DAY]
    assert occurrences(timing, at - DAY, at + DAY) == expected, (zone, change, clock_times)


@pytest.mark.parametrize(
    ("tz", "name", "offset"),
    [
        (timezone(timedelta(hours=2)), "UTC+02:00", timedelta(hours=2)),
        (timezone(-timedelta(hours=3, minutes=30), "named"), "UTC-03:30", -timedelta(hours=3, minutes=30)),
        (timezone(timedelta(seconds=1)), "UTC+00:00:01", timedelta(seconds=1)),
        (timezone(timedelta(0)), None, timedelta(0)),
        ("UTC+05:45", "UTC+05:45", timedelta(hours=5, minutes=45)),
    ],
)
def test_a_zone_may_be_a_fixed_offset(tz: Any, name: str | None, offset: timedelta) -> None:
    timing = Timing("30 6 * * *", None, tz)
    assert timing.describe().get("tz") == name
    again = Timing.of(timing.describe())
    for moment in (ms(2026, 1, 1), ms(2026, 7, 1, 12)):
        due = timing.after(moment)
        assert again.after(moment) == due
        wall = datetime.fromtimestamp(due / 1000, UTC) + offset
        assert (wall.hour, wall.minute) == (6, 30)


def test_a_period_may_be_short() -> None:
    assert Timing(None, 0.001, None).after(5) == 6
    assert Timing(None, timedelta(milliseconds=50), None).after(60) == 100
