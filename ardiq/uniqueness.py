"""Rules for calls with the same key: one at a time, one when it has been quiet, one in a while."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ._values import options as _options

Key: TypeAlias = str | Sequence[str] | Callable[..., Any] | None
"""What makes two calls of a task the same: an argument, several, what a function of some returns; None: all of them."""

_CONFLICTS = ("keep", "replace", "reject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """Of the calls with one key, one is a task at a time: `@app.task(unique=Unique(key="user_id"))`.

    Args:
        until: how long a task is in the way of others: "start": until it runs (and again while it waits for another
            try); "finish": until it has ended; a timedelta or seconds: for this time from its enqueue, however it ends.
        key: the name of a parameter, several, or a function whose parameters are named as the task's; None: all
            arguments. Two calls are the same if these are, with defaults filled in, by position or by name.
        on_conflict: what becomes of a call that finds a task in its way. "keep": nothing is added, and the job is that
            of the task. "replace": the same, and if that task waits, it takes the new arguments, headers, expiry and
            result TTL, and if it is not due yet, the new due time. "reject": `Duplicate` is raised.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value.
    """

    until: Literal["start", "finish"] | _options.Duration = "finish"
    key: Key = None
    on_conflict: Literal["keep", "replace", "reject"] = "keep"

    def __post_init__(self) -> None:
        if isinstance(self.until, str):
            if self.until not in ("start", "finish"):
                raise ValueError(f"until of Unique must be 'start', 'finish' or a time, not {self.until!r}")
        else:
            _options.milliseconds("until of Unique", self.until, least=1)
        if self.on_conflict not in _CONFLICTS:
            raise ValueError(f"on_conflict of Unique must be one of {_CONFLICTS}, not {self.on_conflict!r}")
        _check_key(self)

    @property
    def fields(self) -> dict[str, Any]:
        """The rule as `enqueue` of the library takes it."""
        window = not isinstance(self.until, str)
        found: dict[str, Any] = {"until": "window" if window else self.until}
        if not isinstance(self.until, str):
            found["ttl_ms"] = _options.milliseconds("until", self.until)
        if self.on_conflict != "keep":
            found["on_conflict"] = self.on_conflict
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Debounce:
    """Calls with one key become one task, once there was none for a while: `@app.task(debounce=Debounce(quiet=5))`.

    The last call's arguments count. Once the task is ready and waits for a worker, further calls still change its
    arguments; once it runs, the next call is a new task.

    Args:
        quiet: how long there must be no call before it is due, a timedelta or seconds.
        most: how long after the first call it is due at the latest, a timedelta or seconds; None: any time.
        key: see `Unique`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value, or `most` is below `quiet`.
    """

    quiet: _options.Duration
    most: _options.Duration | None = None
    key: Key = None

    def __post_init__(self) -> None:
        quiet_ms = _options.milliseconds("quiet of Debounce", self.quiet, least=1)
        if self.most is not None and _options.milliseconds("most of Debounce", self.most, least=1) < quiet_ms:
            raise ValueError(f"most of Debounce must not be below quiet: {self.most!r} is below {self.quiet!r}")
        _check_key(self)

    @property
    def fields(self) -> dict[str, Any]:
        """The rule as `enqueue` of the library takes it."""
        found = {"quiet_ms": _options.milliseconds("quiet", self.quiet)}
        return found if self.most is None else {**found, "most_ms": _options.milliseconds("most", self.most)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Of the calls with one key, one starts in a while: `@app.task(throttle=Throttle(per=10))`.

    The first call is a task at once. Of those that come within `per` after it, the last one is a task that is due when
    this time is over, and begins the next.

    Args:
        per: the time, a timedelta or seconds.
        key: see `Unique`.
        trailing: False: what comes within the time is dropped, and its job is that of the task that began it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value.
    """

    per: _options.Duration
    key: Key = None
    trailing: bool = True

    def __post_init__(self) -> None:
        _options.milliseconds("per of Throttle", self.per, least=1)
        _options.boolean("trailing of Throttle", self.trailing)
        _check_key(self)

    @property
    def fields(self) -> dict[str, Any]:
        """The rule as `enqueue` of the library takes it."""
        found: dict[str, Any] = {"per_ms": _options.milliseconds("per", self.per)}
        return found if self.trailing else {**found, "trailing": False}


Rule: TypeAlias = Unique | Debounce | Throttle
"""What a task or a call may say of others with its key."""


def _check_key(rule: Rule) -> None:
    key: Any = rule.key
    names = [key] if isinstance(key, str) else key
    if key is None or callable(key) or (isinstance(names, list | tuple) and names and all(map(_is_name, names))):
        return
    raise TypeError(
        f"key of {type(rule).__name__} must be the name of a parameter, a list of names, or a function, not {key!r}"
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def rule_of(unique: Any, debounce: Any, throttle: Any) -> Rule | None:
    """The one rule among the options of a task or a call, or None; `unique` may be a bool, which is none.

    Raises:
        TypeError: one of them has the wrong type.
        ValueError: there are several.
    """
    found: list[Any] = []
    for name, given, kind in (
        ("unique", unique, Unique),
        ("debounce", debounce, Debounce),
        ("throttle", throttle, Throttle),
    ):
        if isinstance(given, kind) or (name == "unique" and given is True):
            found.append(given)
        elif given is not None and not (name == "unique" and given is False):
            also = "True, False or " if name == "unique" else ""
            raise TypeError(f"{name} must be {also}a {kind.__name__}, not {type(given).__name__}")
    if len(found) > 1:
        raise ValueError("give one of unique, debounce and throttle")
    return found[0] if found and found[0] is not True else None
