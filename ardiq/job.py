"""The handle of an enqueued task."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ._client.inspector import Inspector, value_of
from ._values.known import Known, set_signature
from ._values.options import Duration
from ._values.signature import Signature
from ._values.typing import R_co
from .models import Attempt, Progress, TaskInfo, TaskResult
from .signals import Signal
from .streaming import Chunk, Reader
from .watching import TaskUpdate, watch

if TYPE_CHECKING:
    from .app import Ardiq
else:
    Ardiq = Any  # a task may have a `Job` in its annotations, which must resolve

T = TypeVar("T")


@dataclass(frozen=True, slots=True, init=False)
class Job(Known, Generic[R_co]):
    """An enqueued task: its app and its id.

    `existed`: nothing was added, because an unfinished task has this id, or the call's key. Only a job returned by an
    enqueue with your own id, or of a unique, debounced or throttled call, knows this; it does not affect whether two
    jobs are equal.

    The job of a task whose function returns an `R` is a `Job[R]`, and its result is an `R`. Otherwise the result is as
    it travels.
    """

    __match_args__ = ("app", "id")
    app: Ardiq
    """The `Ardiq` that it was enqueued by."""
    id: str

    def __init__(self, app: Ardiq, id: str) -> None:
        _set_app(self, app)
        _set_id(self, id)

    @property
    def _inspector(self) -> Inspector:
        return self.app.context.inspector

    def _is_known(self) -> bool:
        """Whether an enqueue gave it, which was answered: where nothing is there of the task, it has ended."""
        return self._signature is not None and not self._is_unsure

    async def result(self, timeout: Duration | None = None) -> TaskResult[R_co] | None:
        """How the task ended.

        Args:
            timeout: how long to wait for it, a timedelta or seconds; 0: check once; None: do not wait.

        Returns:
            The result, or None if the task has not ended and no timeout was given.

        Raises:
            TimeoutError: it did not end in time, or its result is not kept.
            TypeError: the task returned something other than its annotation says.
        """
        return await self._inspector.result(self.id, timeout, self._signature, self._is_known())

    def result_sync(self, timeout: Duration | None = None) -> TaskResult[R_co] | None:
        """`result` for code without an event loop: blocks this thread, and polls at most every 50 ms."""
        return self._inspector.result_sync(self.id, timeout, self._signature, self._is_known())

    async def value(self, timeout: Duration | None = None) -> R_co:
        """What the task returned, once it has ended.

        Args:
            timeout: how long to wait for it, a timedelta or seconds; None: as long as it takes.

        Raises:
            TaskError: the task failed, was aborted or discarded, or expired; its `result` has the details.
            TimeoutError: it did not end in time, or its result is not kept.
            TypeError: the task returned something other than its annotation says.

        Example:
            ```python
            job = await resize.enqueue("cat.png")
            path = await job.value(timeout=30)
            ```
        """
        value: R_co = value_of(await self._inspector.wait(self.id, timeout, self._signature, self._is_known()))
        return value

    def value_sync(self, timeout: Duration | None = None) -> R_co:
        """`value` for code without an event loop: blocks this thread, and polls at most every 50 ms."""
        value: R_co = value_of(self._inspector.wait_sync(self.id, timeout, self._signature, self._is_known()))
        return value

    async def status(self) -> str:
        """Where the task is: "queued", "limited" (it waits for its limits), "scheduled", "held" by a pause, "blocked"
        (it waits for other tasks of its workflow), "away" (its workflow handed it to another queue), "running",
        "complete" or "not_found".
        """
        return await self._inspector.status(self.id)

    def status_sync(self) -> str:
        """`status` for code without an event loop; blocks this thread until the server has answered."""
        return self._inspector.status_sync(self.id)

    async def info(self) -> TaskInfo | None:
        """What is known about the task while it is unfinished, else None."""
        return await self._inspector.info(self.id)

    def info_sync(self) -> TaskInfo | None:
        """`info` for code without an event loop; blocks this thread until the server has answered."""
        return self._inspector.info_sync(self.id)

    async def progress(self) -> Progress | None:
        """The progress that the task reported; None if it reported none."""
        return await self._inspector.progress(self.id)

    async def notes(self) -> dict[str, Any]:
        """The notes that it made with `current_task().notes[...] = ...` or `.note(...)`."""
        return await self._inspector.notes(self.id)

    async def meta(self) -> dict[str, Any]:
        """The same as `notes`."""
        return await self.notes()

    async def logs(self, limit: int = 1000) -> list[str]:
        """The last lines that it wrote with `current_task().log(...)`, oldest first; `limit` is at most 1,000."""
        return await self._inspector.logs(self.id, limit)

    def watch(self, timeout: Duration | None = None) -> AsyncGenerator[TaskUpdate[R_co], None]:
        """Each change of the task as it happens, until it has ended: `async for update in job.watch()`.

        The first update shows the current state; the last one is "complete", with its result, or "not_found" if the
        task is unknown. A reader slower than the task gets only the latest progress. Changes while the connection is
        lost may be missing, but not the current state: `job.logs()` and `job.notes()` have everything.

        Args:
            timeout: how long to watch, a timedelta or seconds; None: until it has ended.

        Raises:
            TimeoutError: it did not end in time.
            BrokerError: the server cannot be reached.
            TypeError: the task returned something other than its annotation says.

        Example:
            ```python
            async for update in job.watch(timeout=60):
                print(update.status, update.progress)
            ```
        """
        return watch(self.app.context, self.id, timeout, self._signature)

    @overload
    def stream(
        self, type: type[T], *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[T], None]: ...

    @overload
    def stream(
        self, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[Any], None]: ...

    def stream(
        self, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> AsyncGenerator[Chunk[Any], None]:
        """What the task emits, as it happens, until it has ended: `async for chunk in job.stream()`.

        First come the chunks that are there already: the last 10,000, up to 16 MiB. They are kept as long as the task's
        log. An attempt that follows another one begins with `chunk.number` 0. There are none of an unknown task.

        Args:
            type: what each value is converted to; without it, it is plain data.
            after: the id of a chunk: only what follows it.
            timeout: how long to wait for the end, a timedelta or seconds; None: as long as it takes.

        Raises:
            TimeoutError: it did not end in time.
            BrokerError: the server cannot be reached.
            TypeError: a chunk does not fit, or nothing can be converted to that type.
            ValueError: `after` is no chunk's id.

        Example:
            ```python
            async for chunk in job.stream(str):
                print(chunk.value, end="")
            ```
        """
        return Reader(self.app.context, self.id, type, after, timeout).chunks()

    @overload
    def stream_sync(self, type: type[T], *, after: str = "", timeout: Duration | None = None) -> Iterator[Chunk[T]]: ...

    @overload
    def stream_sync(
        self, type: Any = Any, *, after: str = "", timeout: Duration | None = None
    ) -> Iterator[Chunk[Any]]: ...

    def stream_sync(self, type: Any = Any, *, after: str = "", timeout: Duration | None = None) -> Iterator[Chunk[Any]]:
        """`stream` for code without an event loop: blocks this thread, and polls at most every 50 ms."""
        return Reader(self.app.context, self.id, type, after, timeout).chunks_sync()

    async def history(self) -> list[Attempt]:
        """The attempts that did not succeed: the last 20, oldest first."""
        return await self._inspector.history(self.id)

    @overload
    async def signal(self, signal: Signal[T], value: T) -> None: ...
    @overload
    async def signal(self, signal: str, value: Any) -> None: ...
    async def signal(self, signal: Any, value: Any) -> None:
        """Give the task a signal, for which it waits or will wait. See `Ardiq.signal`."""
        await self.app.signal(self.id, signal, value)

    @overload
    def signal_sync(self, signal: Signal[T], value: T) -> None: ...
    @overload
    def signal_sync(self, signal: str, value: Any) -> None: ...
    def signal_sync(self, signal: Any, value: Any) -> None:
        """`signal` for code without an event loop; blocks this thread until the server has answered."""
        self.app.signal_sync(self.id, signal, value)

    async def abort(self) -> bool:
        """Abort the task; False if it had ended in another way, or is unknown. See `Ardiq.abort`."""
        return await self._inspector.abort(self.id)

    def abort_sync(self) -> bool:
        """`abort` for code without an event loop; blocks this thread until the server has answered."""
        return self._inspector.abort_sync(self.id)

    async def hurry(self) -> bool:
        """Run the task without waiting for its time; False if it is not time that it waits for. See `Ardiq.hurry`."""
        return await self._inspector.hurry(self.id)

    def hurry_sync(self) -> bool:
        """`hurry` for code without an event loop; blocks this thread until the server has answered."""
        return self._inspector.hurry_sync(self.id)


def job_of(app: Ardiq, id: str, signature: Signature | None) -> Job[Any]:
    """The job of a task of that `Ardiq` whose function is known here, or is not."""
    job: Job[Any] = _new(Job)
    _set_app(job, app)
    _set_id(job, id)
    if signature is not None:
        set_signature(job, signature)
    return job


# As in `Known`.
_new = object.__new__
_set_app, _set_id = Job.__dict__["app"].__set__, Job.__dict__["id"].__set__
