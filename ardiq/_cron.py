"""When a schedule falls due: cron expressions in a time zone, and fixed periods."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from . import _options

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_SHORTEST_MS = 100


class Timing:
    """A cron expression in a time zone, or a period aligned to the epoch.

    Where a zone's clock jumps forward over a fixed time, that occurrence comes at once after the jump; where it is set
    back, a fixed time occurs once, the first time, and a repeating one (`*/30`) in both hours.

    Raises:
        ValueError: neither or both of spec and period, or an impossible one of them, or an unknown zone.
        TypeError: something else than a str, a duration, a zone.
    """

    def __init__(self, spec: str | None, every: timedelta | float | None, tz: str | tzinfo | None) -> None:
        if (spec is None) == (every is None):
            raise ValueError("give a cron expression or every=, one of them")
        if every is not None and tz is not None:
            raise ValueError("every= counts from the epoch: it takes no tz")
        self.zone = _zone(tz)
        self.every_ms = None if every is None else _options.milliseconds("every", every)
        if self.every_ms is not None and self.every_ms < _SHORTEST_MS:
            raise ValueError(f"every must be at least {_SHORTEST_MS} ms, not {every!r}")
        self.spec = spec
        if spec is not None:
            if not isinstance(spec, str):
                raise TypeError(f"a cron expression is a str, not {type(spec).__name__}")
            self._fields = _NICKNAMES.get(spec.strip().lower(), spec)
            from cronsim import CronSimError  # only apps with schedules pay for it

            try:
                next(self._simulate(datetime.now(self.zone)))
            except CronSimError as error:
                raise ValueError(f"cron expression {spec!r}: {error}") from None
            except StopIteration:
                raise ValueError(f"cron expression {spec!r} never comes true") from None

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
        # It counts from whole seconds, and may give the very second.
        start = datetime.fromtimestamp(time_ms // 1000, UTC).astimezone(self.zone)
        for moment in self._simulate(start):
            occurrence = round(moment.timestamp() * 1000)
            if occurrence > time_ms:
                return occurrence
        raise ValueError(f"cron expression {self.spec!r} never comes true again")

    def describe(self) -> dict[str, Any]:
        """The fields of a definition that say it."""
        if self.every_ms is not None:
            return {"every_ms": self.every_ms}
        return {"spec": self.spec, **({} if self.zone is UTC else {"tz": str(self.zone)})}

    def _simulate(self, start: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        return CronSim(self._fields, start)


def _zone(tz: Any) -> tzinfo:
    if tz is None:
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if isinstance(tz, str):
        try:
            return ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"tz {tz!r} is no time zone: give an IANA name such as 'Europe/Berlin'") from None
    if isinstance(tz, ZoneInfo) or tz is UTC:
        return tz
    raise TypeError(f"tz must be an IANA name, a ZoneInfo or UTC, not {tz!r}: other processes must know it, too")
