"""An app's defaults for options that a task does not set."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict, TypeVar, cast

from ..retries import Delay, ExceptionTypes, RetryOption, RetryRules
from . import options as _options

F = TypeVar("F", bound=Callable[..., Any])


class TaskDefaults(TypedDict, total=False):
    """Options of `@app.task` and `@app.cron` that an app may set for all of them: `Ardiq(task_defaults={…})`."""

    max_retries: int
    backoff_ms: int
    timeout: Delay | None
    retry: RetryOption | None
    retry_on: ExceptionTypes | None
    give_up_on: ExceptionTypes | None
    max_age: Delay | None
    result_ttl: Delay | None


class _HasDefaults(Protocol):
    @property
    def task_defaults(self) -> TaskDefaults: ...


def read(value: object) -> TaskDefaults:
    """The defaults, checked.

    Raises:
        TypeError: not a mapping, or it names another option.
        ValueError: one of them has an invalid value.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"task_defaults must be a dict of task options, not {type(value).__name__}")
    for name in value:
        if name not in TaskDefaults.__annotations__:
            raise TypeError(f"task_defaults may have {', '.join(TaskDefaults.__annotations__)}, not {name!r}")
    _options.seconds("timeout", value.get("timeout"))
    _options.result_ttl(value.get("result_ttl"))
    RetryRules(**{name: option for name, option in value.items() if name not in ("timeout", "result_ttl")})
    return cast("TaskDefaults", dict(value))


def with_defaults(method: F) -> F:
    """Let a method of the app use the app's defaults for options that are not given."""

    @functools.wraps(method)
    def call(app: _HasDefaults, /, *args: Any, **given: Any) -> Any:
        defaults: dict[str, Any] = {**app.task_defaults}
        if "retry" in given or "backoff_ms" in given:  # each of them says how long to wait
            defaults.pop("retry", None)
            defaults.pop("backoff_ms", None)
        return method(app, *args, **{**defaults, **given})

    return cast("F", call)
