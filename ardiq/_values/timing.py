"""When a schedule falls due: cron expressions in a time zone, and fixed periods."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from . import options as _options

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIXED = re.compile(r"UTC([+-])(\d\d):(\d\d)(?::(\d\d))?", re.ASCII)
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)


class Timing:
    """A cron expression in a time zone, or a period aligned to the epoch.

    Where a zone's clock jumps forward over a fixed time, that occurrence comes at once after the jump; where it is set
    back, a fixed time occurs once, the first time. Times are fixed unless the field of seconds, minutes or hours begins
    with `*`: those repeat as time passes, in both hours where one comes twice, and not at all in one that is skipped.
    Where day and weekday are both restricted, by whatever but a plain `*`, either will do.

    Raises:
        ValueError: an impossible spec or period, or an unknown zone.
        TypeError: neither or both of spec and period, or something else than a str, a duration, a zone.
    """

    def __init__(self, spec: str | None, every: _options.Duration | None, tz: str | tzinfo | None) -> None:
        if (spec is None) == (every is None):
            raise TypeError("give either a cron expression or every=")
        if every is not None and tz is not None:
            raise TypeError("every= counts from the epoch: it takes no tz")
        self.zone = _zone(tz)
        self.every_ms = None if every is None else _options.milliseconds("every", every, least=1)
        self.spec = spec
        if spec is not None:
            if not isinstance(spec, str):
                raise TypeError(f"a cron expression must be a str, not {type(spec).__name__}")
            fields = _NICKNAMES.get(spec.strip().lower(), spec).split()
            self._fields = " ".join(_either_day(fields))
            self._is_fixed = not any(field.startswith("*") for field in fields[: len(fields) - 3])
            from cronsim import CronSimError  # only apps with schedules pay for it

            try:
                next(self._walls(datetime.now(UTC)))
            except CronSimError as error:
                raise ValueError(f"cron expression {spec!r}: {error}") from None
            except StopIteration:
                raise ValueError(f"cron expression {spec!r} never matches") from None

    @classmethod
    def of(cls, definition: dict[str, Any]) -> "Timing":
        """The timing that a stored definition describes."""
        every_ms = definition.get("every_ms")
        every = None if every_ms is None else timedelta(milliseconds=every_ms)
        return cls(definition.get("spec"), every, definition.get("tz"))

    def after(self, time_ms: int) -> int:
        """The first occurrence after a time, both in ms since the epoch."""
        if self.every_ms is not None:
            return (time_ms // self.every_ms + 1) * self.every_ms
        # Occurrences fall on whole seconds.
        start = datetime.fromtimestamp(time_ms // 1000, UTC)
        moment = self._fixed_after(start) if self._is_fixed else self._repeating_after(start)
        if moment is None:
            raise ValueError(f"cron expression {self.spec!r} never matches again")
        return round(moment.timestamp() * 1000)

    def describe(self) -> dict[str, Any]:
        """The fields of a definition that say it."""
        if self.every_ms is not None:
            return {"every_ms": self.every_ms}
        return {"spec": self.spec, **({} if self.zone is UTC else {"tz": str(self.zone)})}

    # Here a wall clock is a datetime that says UTC and means what clocks in the zone show; a moment is a real one.

    def _walls(self, after: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        return CronSim(self._fields, after)

    def _fixed_after(self, start: datetime) -> datetime | None:
        for wall in self._walls(start + self._offset(start)):
            if (moment := self._first_time(wall)) > start:
                return moment
        return None

    def _first_time(self, wall: datetime) -> datetime:
        """When clocks show that first; where it is skipped, when it is."""
        local = wall.replace(tzinfo=self.zone)
        moment = local.astimezone(UTC)
        if moment + self._offset(moment) == wall:
            return moment
        change = self._next_change(local.replace(fold=1).astimezone(UTC), moment)
        return moment if change is None else change

    def _repeating_after(self, start: datetime) -> datetime | None:
        since, offset = start, self._offset(start)
        wall = since + offset
        while (match := next(self._walls(wall), None)) is not None:
            change = self._next_change(since, match - offset)
            if change is None:
                return match - offset
            since, offset = change, self._offset(change)
            wall = since + offset - _SECOND  # what they show at the change itself counts
        return None

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta(0)

    def _next_change(self, since: datetime, until: datetime) -> datetime | None:
        """When clocks are set first, after one moment and not after the other."""
        offset, left = self._offset(since), since
        while left < until:
            right = min(left + _DAY, until)
            if self._offset(right) != offset:
                while right - left > _SECOND:
                    middle = left + (right - left) // _SECOND // 2 * _SECOND
                    left, right = (middle, right) if self._offset(middle) == offset else (left, middle)
                return right
            left = right
        return None


def _either_day(fields: list[str]) -> list[str]:
    """The fields of an expression so that of two days which are both restricted either will do: `*/2` restricts, too,
    which cronsim takes for a `*`.
    """
    if len(fields) < 5 or "*" in (fields[-3], fields[-1]):
        return fields
    day, month, weekday = fields[-3:]
    return [*fields[:-3], re.sub(r"(^|,)\*", r"\g<1>1-31", day), month, re.sub(r"(^|,)\*", r"\g<1>0-6", weekday)]


def _zone(tz: Any) -> tzinfo:
    """A zone that other processes know by its name, too."""
    if tz is None:
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if isinstance(tz, str):
        if found := _FIXED.fullmatch(tz):
            sign, hours, minutes, seconds = found.groups(default="0")
            offset = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
            return timezone(-offset if sign == "-" else offset)
        try:
            return ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"tz {tz!r} is not a time zone: give an IANA name such as 'Europe/Berlin'") from None
    if isinstance(tz, ZoneInfo):
        return tz
    if isinstance(tz, tzinfo):
        fixed = tz.utcoffset(None)
        if fixed is not None:
            return timezone(timedelta(seconds=round(fixed.total_seconds())))
        name = getattr(tz, "zone", None)  # pytz
        if isinstance(name, str):
            return _zone(name)
    raise TypeError(
        f"tz must be an IANA name, a ZoneInfo, or a timezone with a fixed offset, not {tz!r}: other processes must "
        "know it, too"
    )
