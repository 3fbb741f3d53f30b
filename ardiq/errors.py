"""The errors Ardiq raises.

The compiled core raises these classes by name; `lua/protocol.json` names one for each `ARDIQ_<CODE>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._values import options as _options

if TYPE_CHECKING:
    from .job import Job
    from .limits import Limit
    from .models import TaskResult

__all__ = [
    "ArdiqError",
    "BadArgument",
    "BadSignature",
    "BrokerError",
    "ChildrenFailed",
    "Duplicate",
    "Forbidden",
    "ItemErrors",
    "LeaseLost",
    "LibraryError",
    "NoLimit",
    "OldStep",
    "OutOfMemory",
    "ProcessDied",
    "QueueFull",
    "RateLimited",
    "Retry",
    "Snooze",
    "Suspend",
    "TaskError",
    "WrongType",
]


class ArdiqError(RuntimeError):
    """Base class: something went wrong in Ardiq, or between it and the server.

    Attributes:
        jobs: what `enqueue_many` had enqueued before the error.
    """

    jobs: Sequence[Job] = ()


class BrokerError(ArdiqError):
    """The server cannot be reached, refused the call, or dropped the connection.

    Attributes:
        maybe_enqueued: the call may have reached the server before the connection broke or the time was up, so it may
            have been carried out. False: it certainly was not.
        unsure: for an enqueue, the tasks that may or may not be enqueued: `await job.status()` finds out.
    """

    maybe_enqueued: bool
    unsure: Sequence[Job] = ()

    def __init__(self, *args: object, maybe_enqueued: bool = False) -> None:
        super().__init__(*args)
        self.maybe_enqueued = maybe_enqueued


class Forbidden(BrokerError):
    """The server does not know the user in the URL, or the user lacks a right: `ardiq migrate --acl` prints users with
    the rights they need. A function that lacked a right may have done a part of its work (`maybe_enqueued`).
    """


def is_away(error: BaseException) -> bool:
    """Whether the server does not serve for now, which the worker says itself; a missing right does not pass."""
    return isinstance(error, BrokerError) and not isinstance(error, Forbidden)


class OutOfMemory(BrokerError):
    """The server is at its `maxmemory` and accepts no more work; nothing was written.

    Workers are not affected: they continue to empty the queue.
    """


class LibraryError(ArdiqError):
    """The server's Ardiq library is missing, differs from this build's, or the server is too old."""


class BadArgument(ArdiqError):
    """A call does not match its declaration: number, type or range of arguments."""


class Duplicate(ArdiqError):
    """Another task has the key of a call whose `Unique` says `on_conflict="reject"`: it was not enqueued.

    Attributes:
        task_id: the id of that task.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.task_id = str(self).partition(" belongs to the task ")[2]


class QueueFull(ArdiqError):
    """As many tasks wait as a limit of the task allows (`max_waiting`): it was not enqueued. Try again later."""


class LeaseLost(ArdiqError):
    """The worker is no longer a member: its lease expired, and its tasks were given to others."""


class NoLimit(ArdiqError):
    """The queue does not know a limit of the task, and this code does not declare it; nothing was written."""


class OldStep(ArdiqError):
    """A delayed duplicate of a worker's step; nothing was changed."""


class WrongType(ArdiqError):
    """A key of the queue has a different type than the protocol says: something else wrote it."""


class TaskError(ArdiqError):
    """The task you waited for failed, was aborted or discarded, or expired.

    Attributes:
        result: how it ended; its `value` is the message.
    """

    def __init__(self, result: TaskResult) -> None:
        super().__init__(result.value)
        self.result = result

    def __reduce__(self) -> tuple[type[TaskError], tuple[TaskResult]]:
        return type(self), (self.result,)


class ChildrenFailed(ArdiqError):
    """Children of a task did not complete: `children` raises it in the task. One that does not catch it fails at once,
    without a retry: what they came to is kept, and a retry would only meet it again.

    Attributes:
        job_id: the id of the workflow that they are.
        errors: each that did not complete, by its task's id, with its error, or how else it ended.
    """

    def __init__(self, text: str = "", job_id: str = "", errors: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.job_id = job_id
        self.errors = dict(errors or {})


class InvalidArguments(TypeError):
    """The arguments of a task do not fit its function or its annotations: it fails at once, without a retry.

    The worker raises it before it calls the function; a task may raise it, too.
    """


class InvalidResult(TypeError):
    """What a task returned cannot be kept: it would arrive changed, the serializer refused it, or it is larger than
    `payload_limit`. A retry would only repeat the work, so the task fails at once.
    """


class BadSignature(ArdiqError):
    """A task was not signed with a `signing_key` of the worker, or was changed since: it fails at once, without
    running.
    """


class ProcessDied(RuntimeError):
    """The child process that ran a task (`executor="process"`) ended without a reply; the text says how.

    Attributes:
        exit_code: as in `subprocess`, such as -9 for SIGKILL; None if it closed its connection but lives.
    """

    def __init__(self, text: str = "", exit_code: int | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Retry(Exception):
    """Raise it in a task to run the task again, within its `max_retries`.

    Such a retry is not a failure: `@app.on_error` hooks run only when no try is left.

    Args:
        message: the reason to record.
        delay_ms: how long to wait, instead of the task's backoff.
        delay: the same as a timedelta or in seconds.

    Raises:
        TypeError: a delay has the wrong type.
        ValueError: a delay is negative or infinite, or both are given.
    """

    def __init__(
        self, message: str = "retry requested", *, delay_ms: int | None = None, delay: _options.Duration | None = None
    ) -> None:
        super().__init__(message)
        # A wrong one is an error where it is raised, in the task.
        given = delay_ms is not None or delay is not None
        self.delay_ms = _options.either_ms("delay", delay, delay_ms or 0) if given else None


class Snooze(Exception):
    """Raise it in a task to run the task later, without using up a try.

    You can raise it any number of times until the task would be older than its `max_age` (7 days if it has none),
    counted from its enqueue: then the task fails.

    Args:
        delay: for how long, a timedelta or seconds.
        reason: the error's text if the task gets too old.

    Raises:
        TypeError: `delay` is neither a timedelta nor a number.
        ValueError: `delay` is negative or infinite.
    """

    def __init__(self, delay: _options.Duration, reason: str = "snoozed") -> None:
        super().__init__(reason)
        self.delay_ms = _options.milliseconds("delay", delay)


class RateLimited(Snooze):
    """Raise it in a task when a limit is used up elsewhere, as an HTTP response 429 says: until then no worker starts
    anything under that limit, or under that key of it. The task goes back to the front of its line, without using up a
    try. In a task without limits it is a `Snooze`.

    Args:
        retry_after: for how long, a timedelta or seconds.
        limit: which of the task's limits; None: the first.
        key: which key of it; None: that of this task.
        reason: the error's text if the task gets too old.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `retry_after` is negative or infinite, or `limit` or `key` is no such name. What a task with limits
            raises must name one of them, and a key only of a limit that has keys: anything else fails the attempt.

    Example:
        ```python
        if response.status == 429:
            raise RateLimited(float(response.headers.get("Retry-After", 30)), limit=partner)
        ```
    """

    def __init__(
        self,
        retry_after: _options.Duration,
        limit: Limit | str | None = None,
        key: str | int | None = None,
        reason: str = "rate limited",
    ) -> None:
        _options.milliseconds("retry_after", retry_after)  # by this name
        super().__init__(retry_after, reason)
        named = limit if limit is None or isinstance(limit, str) else getattr(limit, "name", limit)
        if named is not None and not isinstance(named, str):
            raise TypeError(f"limit must be a Limit or its name, not {type(limit).__name__}")
        if key is not None and (isinstance(key, bool) or not isinstance(key, str | int)):
            raise TypeError(f"key must be a str or an int, not {type(key).__name__}")
        from .limits import check_key, check_name  # not for every program

        self.limit = None if named is None else check_name(named)
        self.key = None if key is None else check_key("RateLimited", str(key))


class Suspend(BaseException):
    """Ends an attempt whose task waits: `sleep`, `wait_for` and their like raise it. The task is no failure and goes on
    when its wait is over, with a new attempt.

    `finally` and `with` blocks run; `except Exception` does not see it. A middleware that catches it must raise it
    again. A task that swallows it and returns is suspended all the same, and steps that it begins meanwhile raise it.

    Attributes:
        name: of the wait.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.name = name


class ItemErrors(Exception):
    """Raise it in a task with a `batch` when some of the items failed: each of these ends as if it alone had raised its
    error (a `Retry`, a `Snooze` and a `RateLimited`, too), and the others are complete.

    Args:
        errors: the errors by the numbers of the items, counted from 0.
        results: the results, one for each item, of which those of failed items do not count; None: each is None.

    Raises:
        TypeError: a number is no int, an error no exception, or `results` no list.
        ValueError: a number is negative.

    Example:
        ```python
        answers = await search.bulk(documents)
        errors = {i: Retry(answer.reason) for i, answer in enumerate(answers) if not answer.ok}
        raise ItemErrors(errors, results=[answer.id for answer in answers])
        ```
    """

    def __init__(self, errors: Mapping[int, BaseException], results: list[Any] | None = None) -> None:
        if not isinstance(errors, Mapping):
            raise TypeError(f"errors must be a dict of item numbers and exceptions, not {type(errors).__name__}")
        for number, error in errors.items():
            _options.integer("the number of an item", number, least=0)
            if not isinstance(error, BaseException):
                raise TypeError(f"the error of item {number} must be an exception, not {error!r}")
        if results is not None and not isinstance(results, list):
            raise TypeError(f"results must be a list or None, not {type(results).__name__}")
        failed = ", ".join(map(str, errors))
        super().__init__(f"items that failed: {failed}" if errors else "no item failed")
        self.errors = dict(errors)
        self.results = results
