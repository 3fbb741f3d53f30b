"""The errors Ardiq raises.

The compiled core raises these classes by name; `lua/protocol.json` names one for each `ARDIQ_<CODE>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._values import options as _options

if TYPE_CHECKING:
    from .job import Job
    from .models import TaskResult

__all__ = [
    "ArdiqError",
    "BadArgument",
    "BadSignature",
    "BrokerError",
    "Forbidden",
    "LeaseLost",
    "LibraryError",
    "OldStep",
    "OutOfMemory",
    "ProcessDied",
    "Retry",
    "Snooze",
    "TaskError",
    "WrongType",
]


class ArdiqError(RuntimeError):
    """Anything that went wrong in Ardiq or between it and the server.

    Attributes:
        jobs: what `enqueue_many` has put on the queue before this went wrong.
    """

    jobs: Sequence[Job] = ()


class BrokerError(ArdiqError):
    """The server is unreachable, refuses, or dropped the connection.

    Attributes:
        maybe_enqueued: the request may have reached the server before the connection broke or the time was over, so
            what it asked for may have happened. False: it certainly did not.
        unsure: of an enqueue, the tasks of which that is not known: `await job.status()` tells.
    """

    maybe_enqueued: bool
    unsure: Sequence[Job] = ()

    def __init__(self, message: str = "", *, maybe_enqueued: bool = False) -> None:
        super().__init__(message)
        self.maybe_enqueued = maybe_enqueued


class Forbidden(BrokerError):
    """The server does not know the user of the URL, or does not let it do this: `ardiq migrate --acl` prints users with
    the rights they need. A function that lacked a right may have done a part (`maybe_enqueued`).
    """


def is_away(error: BaseException) -> bool:
    """Whether the server does not serve for now, which the worker says itself; a missing right does not pass."""
    return isinstance(error, BrokerError) and not isinstance(error, Forbidden)


class OutOfMemory(BrokerError):
    """The server is at its `maxmemory` and takes no more work; nothing was written.

    Workers are not affected: they go on emptying the queue.
    """


class LibraryError(ArdiqError):
    """The server's Ardiq library is missing, differs from this build's, or the server is too old."""


class BadArgument(ArdiqError):
    """A call did not fit its declaration: number, type or range of arguments."""


class LeaseLost(ArdiqError):
    """The worker is not a member any more: its lease ran out and others were given its tasks."""


class OldStep(ArdiqError):
    """A delayed duplicate of a worker's step; nothing was changed."""


class WrongType(ArdiqError):
    """A key of the queue holds another type than the protocol says: something else wrote it."""


class TaskError(ArdiqError):
    """The task that was waited for failed, was aborted or discarded, or expired.

    Attributes:
        result: how it ended; its `value` is the message.
    """

    def __init__(self, result: TaskResult) -> None:
        super().__init__(result.value)
        self.result = result

    def __reduce__(self) -> tuple[type[TaskError], tuple[TaskResult]]:
        return type(self), (self.result,)


class InvalidArguments(TypeError):
    """The arguments of a task do not fit its function or its annotations: it fails at once, without another try.

    Raised by the worker before the function is called; a task may raise it, too.
    """


class InvalidResult(TypeError):
    """What a task returned cannot be kept: it would not arrive as it is, the serializer refused it, or it is larger
    than `payload_limit`. Another try would only do the work again, so the task fails at once.
    """


class BadSignature(ArdiqError):
    """A task was not enqueued with a `signing_key` of the worker, or changed since: it fails at once, unrun."""


class ProcessDied(RuntimeError):
    """The child process that ran a task (`executor="process"`) ended without an answer; the text says how.

    Attributes:
        exit_code: as `subprocess` tells it, such as -9 for SIGKILL; None where it closed its connection and lives.
    """

    def __init__(self, text: str = "", exit_code: int | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Retry(Exception):
    """Raised in a task: run it again, within its `max_retries`.

    A retry that was asked for is no failure: `@app.on_error` hears only of the one that is out of tries.

    Args:
        message: what to note as the reason.
        delay_ms: how long to wait, instead of the task's backoff.
        delay: the same as a timedelta or in seconds.

    Raises:
        TypeError: a delay of another type.
        ValueError: a delay that is negative or endless, or both.
    """

    def __init__(
        self, message: str = "retry requested", *, delay_ms: int | None = None, delay: _options.Duration | None = None
    ) -> None:
        super().__init__(message)
        # A wrong one is an error where it is raised, in the task.
        given = delay_ms is not None or delay is not None
        self.delay_ms = _options.either_ms("delay", delay, delay_ms or 0) if given else None


class Snooze(Exception):
    """Raised in a task: not yet; run it again later, without spending one of its tries.

    It can be raised any number of times until the task would be older than its `max_age` (7 days where it has none),
    counted from its enqueue: then it fails.

    Args:
        delay: for how long, a timedelta or seconds.
        reason: what its failure says, should it grow too old.

    Raises:
        TypeError: `delay` is neither.
        ValueError: `delay` is negative or endless.
    """

    def __init__(self, delay: _options.Duration, reason: str = "snoozed") -> None:
        super().__init__(reason)
        self.delay_ms = _options.milliseconds("delay", delay)
