"""When a cron expression comes true: syntax, days, and where clocks are set."""

from datetime import UTC, datetime, timedelta, timezone

from observed import see

try:
    from ardiq.cron import _Schedule

    def after(spec, tz):
        return _Schedule(cron=spec, tz=tz).next_after

    def after_interval(every):
        return _Schedule(every=every).next_after
except ImportError:
    from ardiq._values.timing import Timing

    def after(spec, tz):
        return Timing(spec, None, tz).after

    def after_interval(every):
        return Timing(None, every, None).after


def occurrences(next_after, start, how_many):
    at = round(start.timestamp() * 1000)
    found = []
    for _ in range(how_many):
        at = next_after(at)
        found.append(at)
    return found


def shown(spec, tz, start, how_many=4):
    return [datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in occurrences(after(spec, tz), start, how_many)]


FRIDAY = datetime(2026, 3, 27, 12, 0, 30, tzinfo=UTC)
for spec in (
    "*/7 * * * *", "1-59/20 3 * * *", "00 03 * * *", "  0   3 * * * ", "0,30 5,6 * * *", "*/60 * * * *",
    # days: of the month and of the week
    "0 0 13 * 5", "0 0 */2 * 1", "0 0 1 * */2", "0 0 */2 * */3", "0 0 */1 * 1", "0 0 *,5 * 1", "0 0 1-31 * 1",
    "0 0 */10 * *", "0 0 * * */3", "0 0 1,15 * 3", "* * */2 * 1",
    # weekdays
    "0 0 * * 7-7", "0 0 * * 0", "0 0 * * 7", "0 0 * * 5-7", "0 0 * * 5-7/2", "0 0 * * 0-7", "0 0 * * 0,7",
    "0 0 * * */7",
    # steps from one value, and what `int` reads
    "5/10 * * * *", "0 5/6 * * *", "+5 * * * *", "1_0 * * * *",
    # refused
    "0 0 * * 6-1", "0 0 0 * *", "0 24 * * *", "*/0 * * * *", "0 0 * * 8", "-5 * * * *", "5- * * * *", "5, * * * *",
    "a * * * *",
):  # fmt: skip
    see(spec, lambda spec=spec: shown(spec, None, FRIDAY))

SPRING, AUTUMN = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)
for spec in (
    "30 2 * * *", "30 2-3 * * *", "0 3 * * *", "15,45 2 * * *", "*/30 2 * * *", "15 */2 * * *", "*/2,5 2 * * *",
    "5,*/20 2 * * *", "0 2,*/12 * * *", "30 1 * * 0",
):  # fmt: skip
    for season, start in (("spring", SPRING), ("autumn", AUTUMN)):
        see(f"{spec} in {season}", lambda spec=spec, start=start: shown(spec, "Europe/Berlin", start))
for tz in (timezone(timedelta(hours=2)), timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=3))):
    see(f"0 3 * * * at {tz}", lambda tz=tz: shown("0 3 * * *", tz, FRIDAY, 2))
for every in (0.001, 0.05, 0.3, 1, 7, 3600, timedelta(days=1)):
    see(f"every {every!r}", lambda every=every: occurrences(after_interval(every), FRIDAY, 3))
