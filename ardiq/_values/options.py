"""Checks of users' options: an error names the option."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from .encodings import to_json

if TYPE_CHECKING:
    from .keyed import Keyed

    class _Ruled(Protocol):
        @property
        def rule(self) -> Keyed | None: ...


# It is part of keys, of which each call names a dozen.
_LONGEST_TEXT = 1000
# Long enough for a wait without a limit, short enough for timers.
_LONGEST_S = 100 * 366 * 86_400
_FINITE = 1e300
Duration: TypeAlias = timedelta | float
"""A timedelta or seconds: the type of every duration whose name does not end in `_ms`."""
Durability: TypeAlias = Literal["primary", "replicated"]


LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: dict[LogLevel, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def log_level(name: str, value: Any) -> LogLevel | None:
    """A level of `logging`, in upper case, too."""
    if value is None:
        return None
    for level in LOG_LEVELS:
        if isinstance(value, str) and value.lower() == level:
            return level
    raise ValueError(f"{name} must be one of {list(LOG_LEVELS)} or None, not {value!r}")


def durability(value: Any) -> Durability:
    """When a task counts as accepted."""
    if value not in ("primary", "replicated"):
        raise ValueError(f"durability must be 'primary' or 'replicated', not {value!r}")
    return "replicated" if value == "replicated" else "primary"


def integer(
    name: str, value: Any, *, least: int | None = None, most: int | None = None, default: int | None = None
) -> int:
    """An int, not below `least` nor above `most`; None stands for the default, if there is one."""
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {_kind(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value}")
    return value


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_kind(value)}")
    return value


def optional_callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {_kind(value)}")
    return value


def required_callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} needs a function, not {_kind(value)}")
    return value


def text(name: str, value: Any) -> str:
    """A string that is fit for a key and a line on a terminal."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {_kind(value)}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    if len(value) > _LONGEST_TEXT:
        raise ValueError(f"{name} must have at most {_LONGEST_TEXT:,} characters, not {len(value):,}")
    if not value.isprintable():
        raise ValueError(f"{name} {value!r} must not contain control characters")
    return value


def key_part(name: str, value: Any) -> str:
    """A string for the beginning of keys, where braces would change the hash slot."""
    text(name, value)
    if "{" in value or "}" in value:
        raise ValueError(f"{name} {value!r} must not contain braces: they mark the hash slot in keys")
    return str(value)


def without_braces(name: str) -> str:
    """What a queue is called here that had braces in its name in ArdiQ 1.2."""
    return name.replace("{", "").replace("}", "")


def lanes(value: Any) -> list[str]:
    """Lane names, lowest first."""
    if value is None:
        return ["default"]
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"priorities must be a list of lane names, not {_kind(value)}")
    names = [text("each of priorities", lane) for lane in value]
    if not names:
        raise ValueError("priorities must name at least one lane")
    if len(set(names)) < len(names):
        raise ValueError(f"priorities must not repeat a lane: {names}")
    return names


def by_lane(name: str, value: Any, known: Collection[str]) -> dict[str, int] | None:
    """Lanes with a positive number each."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of lanes and numbers, not {_kind(value)}")
    for lane, number in value.items():
        if lane not in known:
            raise ValueError(f"{name} names the lane {lane!r}, which is not one of {sorted(known)}")
        integer(f"{name}[{lane!r}]", number, least=1)
    return dict(value) or None


def milliseconds(name: str, value: Any, *, least: int = 0) -> int:
    """A timedelta or seconds as whole milliseconds, not below `least`."""
    found_s = amount_s(name, value)
    if abs(found_s) > _LONGEST_S:
        raise ValueError(f"{name} must be at most a hundred years, not {value!r}")
    found_ms = round(found_s * 1000)
    if found_ms < least:
        raise ValueError(f"{name} must {f'be at least {least} ms' if least else 'not be negative'}, not {value!r}")
    return found_ms


def either_ms(name: str, value: Any, value_ms: Any, *, least: int = 0) -> int:
    """The duration that was given as `name`, a timedelta or seconds, or as `name_ms`; in milliseconds; 0 if neither
    was.
    """
    found_ms = integer(f"{name}_ms", value_ms, least=0)
    if value is None:
        return found_ms
    if found_ms:
        raise ValueError(f"give {name} or {name}_ms, not both")
    return milliseconds(name, value, least=least)


def result_ttl(value: Any) -> int | None:
    """How long a task's result is kept, in milliseconds; None: as long as the app sets."""
    return None if value is None else milliseconds("result_ttl", value)


def epoch_milliseconds(name: str, moment: Any) -> int:
    """A datetime with a time zone as milliseconds since the epoch."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} must be a datetime, not {_kind(moment)}")
    if moment.tzinfo is None:
        raise ValueError(f"{name} must have a time zone, like datetime.now(UTC): {moment} has none")
    return round(moment.timestamp() * 1000)


def seconds(name: str, value: Any) -> float | None:
    """A positive timedelta or seconds in seconds, or None for no limit."""
    if value is None:
        return None
    found_s = amount_s(name, value)
    if found_s <= 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return found_s


def patience(name: str, value: Any) -> float | None:
    """How many seconds to wait; 0: not at all; None: as long as it takes."""
    if value is None:
        return None
    found_s = amount_s(name, value)
    if found_s < 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return min(found_s, _LONGEST_S)


def amount_s(name: str, value: Any) -> float:
    """A timedelta or seconds in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else finite(name, value, "a timedelta or seconds")


def finite(name: str, value: Any, what: str) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be {what}, not {_kind(value)}")
    if not abs(value) < _FINITE:  # also refuses NaN
        raise ValueError(f"{name} must be {what}, not {value}")
    return value


def tolerated(value: Any) -> float:
    """How many of several calls may fail, or which part of them."""
    finite("tolerate", value, "a number of calls, or a part of them from 0 to 1")
    if value < 0 or (value > 1 and not isinstance(value, int)):
        raise ValueError(f"tolerate must be a number of calls, or a part of them from 0 to 1, not {value!r}")
    found: float = value
    return found


class CallOptions:
    """What `task.options(...)` overrides for the calls made through it."""

    __slots__ = (
        "delay_ms",
        "expire_ms",
        "fields",
        "packed",
        "priority",
        "result_ttl_ms",
        "rule",
        "schedule_ms",
        "task_id",
        "unique",
        "wait_s",
    )

    def __init__(
        self,
        *,
        task_id: str | None = None,
        priority: str | None = None,
        delay_ms: int = 0,
        schedule_ms: int = 0,
        expire_ms: int = 0,
        unique: bool | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        expire: Duration | None = None,
        result_ttl_ms: int | None = None,
        rule: "Keyed | None" = None,
        wait_for_room: Duration | None = None,
    ) -> None:
        if task_id:
            text("task_id", task_id)
        elif task_id is not None and task_id != "":
            raise TypeError(f"task_id must be a str, not {_kind(task_id)}")
        if priority is not None and not isinstance(priority, str):
            raise TypeError(f"priority must be a str, not {_kind(priority)}")
        self.task_id = task_id or None
        self.priority = priority
        self.delay_ms = either_ms("delay", delay, delay_ms)
        self.expire_ms = either_ms("expire", expire, expire_ms, least=1)
        self.schedule_ms = integer("schedule_ms", schedule_ms, least=0)
        if at is not None:
            _only_one("at", "schedule_ms", schedule_ms)
            self.schedule_ms = epoch_milliseconds("at", at)
        if self.schedule_ms:
            moment = "schedule_ms" if at is None else "at"
            _only_one(moment, "delay_ms" if delay is None else "delay", self.delay_ms)
        self.unique = None if unique is None else boolean("unique", unique)
        self.result_ttl_ms = result_ttl_ms
        self.rule = rule
        self.wait_s = patience("wait_for_room", wait_for_room)
        """For how many seconds a call waits for room in a queue that is full; None or 0: not at all."""
        self.fields: dict[str, Any] = {}
        if self.schedule_ms > 0:
            self.fields["due_at"] = self.schedule_ms
        if self.delay_ms:
            self.fields["delay_ms"] = self.delay_ms
        if self.expire_ms:
            self.fields["expire_ms"] = self.expire_ms
        if result_ttl_ms is not None:
            self.fields["result_ttl_ms"] = result_ttl_ms
        self.packed = to_json(self.fields) if self.fields else b""

    def rule_of(self, task: "_Ruled") -> "Keyed | None":
        """The rule of a call of this task."""
        return task.rule if self.rule is None and self.unique is None else self.rule


NO_OPTIONS = CallOptions()


def _only_one(name: str, other: str, value: Any) -> None:
    if value:
        raise ValueError(f"give {name} or {other}, not both")


def _kind(value: Any) -> str:
    return type(value).__name__
