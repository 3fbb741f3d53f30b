"""What callers, hooks and tasks receive: results, contexts, metrics."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple

from ._values.encodings import to_json
from ._values.notes import Notes
from ._values.objects import as_object
from ._values.reports import Reports
from ._values.typing import R_co

ABORTED = "aborted"
"""The `value` of a task that was aborted."""
EXPIRED = "expired"
"""The `value` of a task that did not start in time."""
DISCARDED = "discarded"
"""The `value` of a task that was removed before it ran."""
SKIPPED = "skipped: "
"""What the `value` of a task begins with that another one's failure kept from running."""

_LONGEST_MESSAGE = 1000
# What a claim has, before the claims of a batch.
_CLAIM_FIELDS = 10


@as_object
class TaskResult(NamedTuple, Generic[R_co]):
    """How a task ended.

    Attributes:
        success: whether it completed.
        value: what it returned; if it did not succeed, whatever the type says, the error's text, `ABORTED`, `EXPIRED`
            or `DISCARDED`.
        tries: how many attempts it took.
        enqueue_time: when it was enqueued, in ms since the epoch.
        start: when its last attempt started, in ms since the epoch.
        finish: when it ended, in ms since the epoch.
    """

    success: bool
    value: R_co
    tries: int
    enqueue_time: int = 0
    start: int = 0
    finish: int = 0

    @property
    def duration_ms(self) -> int:
        """How long the last attempt ran, in ms."""
        return self.finish - self.start

    @property
    def aborted(self) -> bool:
        """Whether it was aborted instead of failing on its own."""
        return not self.success and self.value == ABORTED

    @property
    def expired(self) -> bool:
        """Whether it expired before it started."""
        return not self.success and self.value == EXPIRED

    @property
    def discarded(self) -> bool:
        """Whether it was removed before it ran. A discarded dead letter keeps the error it failed with."""
        return not self.success and self.value == DISCARDED

    @property
    def skipped(self) -> bool:
        """Whether it did not run, because another task of its workflow that it needed did not complete."""
        return not self.success and isinstance(self.value, str) and self.value.startswith(SKIPPED)


class _TaskFields(NamedTuple):
    task_id: str
    name: str
    tries: int


class TaskContext(_TaskFields):
    """The task that is running here, as `current_task()` returns it; `tries` counts from 1.

    What it reports is stored with its result and can be read while it runs (`job.progress()`, `job.notes()`,
    `job.logs()`, redis-cli). Reports are sent within a tenth of a second, from any thread, and never make the task
    wait.
    """

    _reports: Reports | None = None
    _claim: tuple[Any, ...] = ()
    _deadline: float | None = None

    @classmethod
    def of(cls, claim: tuple[Any, ...], reports: Reports | None, deadline: float | None) -> "TaskContext":
        """That of a claim."""
        task = cls(claim[0], claim[2], claim[8])
        task._reports, task._claim, task._deadline = reports, claim, deadline
        return task

    @property
    def queue(self) -> str:
        """The queue that the task came from."""
        return "" if self._reports is None else self._reports.queue

    @property
    def deadline(self) -> float | None:
        """When the `timeout` of this attempt ends, comparable to `time.time()`; None if it has none."""
        return self._deadline

    @property
    def batch(self) -> "tuple[TaskContext, ...]":
        """In a task with a `batch`: the task of each item, in the order of the list; empty in others. The running task
        itself is that of the first item.
        """
        claims = self._claim[_CLAIM_FIELDS:]
        return tuple(TaskContext.of(each, self._reports, self._deadline) for each in claims[0]) if claims else ()

    @property
    def notes(self) -> Notes:
        """The task's notes, which you set, read and delete by name: `task.notes["rows"] = 7`.

        A note is any JSON value, of up to 8 KiB of JSON; a task has up to 100. `job.notes()` reads them.

        Raises:
            TypeError: JSON would change the value.
            ValueError: the note is too large, or one too many.
        """
        return Notes(self._reports, self._claim)

    @property
    def meta(self) -> Notes:
        """The same as `notes`."""
        return self.notes

    def progress(self, fraction: float, message: str = "") -> None:
        """Report the task's progress.

        Args:
            fraction: from 0 to 1.
            message: for people; its first 1,000 characters are kept.

        Raises:
            ValueError: `fraction` is not from 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be from 0 to 1, not {fraction!r}")
        if self._reports is not None:
            message = message[:_LONGEST_MESSAGE]
            self._reports.add(self._claim, progress=to_json({"fraction": fraction, "message": message}))

    def log(self, line: str) -> None:
        """Add a line to the task's log on the server, which keeps the last 1,000."""
        if not isinstance(line, str):
            raise TypeError(f"a line of the log must be a str, not {type(line).__name__}")
        if self._reports is not None:
            self._reports.add(self._claim, line=line)

    def note(self, **notes: Any) -> None:
        """Add notes to the task, JSON values by name, as setting `notes` does; one with the same name is replaced."""
        self.notes.update(notes)

    def cancelled(self) -> bool:
        """Whether the task's outcome no longer counts: it was aborted, has timed out, or runs on another worker.

        A sync task cannot be stopped from outside: a long one should check this from time to time, and return. In a
        task with a `batch`: whether none of the outcomes counts.
        """
        reports, claims = self._reports, self._claim[_CLAIM_FIELDS:]
        return reports is not None and not any(map(reports.is_current, claims[0] if claims else (self._claim,)))


@as_object
class Progress(NamedTuple):
    """The progress that a task reported: `fraction` from 0 to 1."""

    fraction: float
    message: str


class EnqueueContext(NamedTuple):
    """What an `@app.on_enqueue` hook receives.

    What the hook puts into `headers` travels with the task to `ExecutionContext.headers`.
    """

    task_id: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    headers: dict[str, Any]


class ExecutionContext(NamedTuple):
    """What an `@app.middleware` receives for each attempt; `tries` counts from 1."""

    task_id: str
    name: str
    tries: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    headers: dict[str, Any]


class ErrorContext(NamedTuple):
    """What an `@app.on_error` hook receives.

    `tries` is the number of the attempt that failed, from 1; `will_retry` says whether another follows, which is not so
    if the task would exceed its `max_age`.
    """

    name: str
    task_id: str
    exc: BaseException
    tries: int
    will_retry: bool


@as_object
class TaskInfo(NamedTuple):
    """An unfinished task.

    Attributes:
        status: "queued", "limited" by its limits, "scheduled", "held" by a pause, "blocked" by other tasks of its
            workflow, "away" in another queue, or "running".
        enqueue_time: when it was enqueued, in ms since the epoch.
        scheduled_at: when it falls due, in ms since the epoch, while it is scheduled.
    """

    task_id: str
    fn_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    enqueue_time: int
    tries: int
    status: str
    scheduled_at: int | None = None


class Unreadable(NamedTuple):
    """Stands for arguments that cannot be read: `raw` as they are stored, and the reason."""

    raw: bytes
    reason: str


@as_object
class DeadLetter(NamedTuple):
    """A task that failed for good and is kept until requeued or discarded.

    `error` is what its result says; times are in ms since the epoch. If its arguments cannot be read, because their
    codec is unknown here or somebody changed them, `args` is one `Unreadable`.
    """

    task_id: str
    fn_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    priority: str
    error: str
    tries: int
    enqueue_time: int
    failed_at: int


@as_object
class DeadGroup(NamedTuple):
    """Dead letters of one task with the same kind of error.

    Attributes:
        fn_name: the task's name.
        kind: of the error: its text up to the first colon, space or parenthesis, such as "ValueError".
        letters: how many of the dead letters that were looked at.
        newest_at: when the newest of them failed, in ms since the epoch.
        oldest_at: when the oldest of them failed, likewise.
        task_id: the id of the newest.
        error: the error of the newest, up to 500 bytes.
    """

    fn_name: str
    kind: str
    letters: int
    newest_at: int
    oldest_at: int
    task_id: str
    error: str


@as_object
class DeadGroups(NamedTuple):
    """The newest dead letters, by task and kind of error.

    Attributes:
        groups: the most frequent first.
        looked_at: how many of the newest were looked at.
        total: how many there are.
    """

    groups: list[DeadGroup]
    looked_at: int
    total: int


@as_object
class Attempt(NamedTuple):
    """An attempt that did not succeed.

    Attributes:
        tries: its number, from 1.
        ended_at: when it ended, in ms since the epoch.
        run_ms: how long it ran; None when its worker died.
        worker: the worker's identity.
        error: what it raised, up to 500 bytes.
    """

    tries: int
    ended_at: int
    run_ms: int | None
    worker: str
    error: str


@as_object
class DeadRecord(NamedTuple):
    """Everything known about a dead letter.

    Attributes:
        letter: the dead letter.
        traceback: of its last attempt; empty if its worker died.
        history: its last 20 attempts, oldest first.
    """

    letter: DeadLetter
    traceback: str
    history: list[Attempt]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations in seconds. Each bucket is an upper bound and the number of observations up to it."""

    buckets: tuple[tuple[float, int], ...]
    sum: float
    count: int


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """What this process has run so far of one task in one lane.

    Attributes:
        run: how long the attempts ran.
        wait: how long tasks were ready before their first attempt, and again where one was put off; a delay does not
            count.
        abandoned_threads: how many threads are still busy with attempts that timed out, were aborted or handed back.
    """

    fn_name: str
    priority: str
    succeeded: int
    retried: int
    failed: int
    aborted: int
    run: Histogram
    wait: Histogram
    abandoned_threads: int = 0


class State(SimpleNamespace):
    """What an `@app.lifespan` set up for the tasks of this worker."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"app.state has no {name!r}: set it in an @app.lifespan, which runs only in app.run()")
