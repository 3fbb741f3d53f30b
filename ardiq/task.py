"""Tasks: what `@app.task` makes of a function, and the ways to enqueue it."""

import asyncio
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from ._values.buckets import Buckets
from ._values.keyed import Keyed
from ._values.options import NO_OPTIONS, CallOptions, Duration
from ._values.options import result_ttl as result_ttl_ms
from ._values.signature import Signature
from ._values.typing import R_co as Returned
from .job import Job
from .uniqueness import Debounce, Rule, Throttle, Unique, rule_of

if TYPE_CHECKING:
    from ._client.queue import QueueContext
    from ._client.typing import EnqueueMethod, EnqueueSyncMethod, PrepareMethod
    from .app import Ardiq

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)  # what the function returns: a coroutine for `async def`
T = TypeVar("T")

REQUEST_TIMEOUT_S = 30.0


def _mark_as_coroutine_function(function: Any) -> None:
    """For callers that check before a call, such as Starlette's `BackgroundTasks` and `unittest.mock`: it must be
    awaited.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]


class _Enqueueable(Generic[P, R_co]):
    """The calls that a task and a task with options have in common."""

    __slots__ = ()

    _task: "Task[P, R_co]"
    _options: CallOptions

    if TYPE_CHECKING:  # what editors show, where the task has no docstring of its own
        enqueue = EnqueueMethod()
        """Put this call on the queue.

        Awaited, it gives the `Job`. Calls made in the same turn of the event loop are sent together.
        """
        enqueue_sync = EnqueueSyncMethod()
        """`enqueue` for code without an event loop: blocks this thread until the server has answered."""
        prepare = PrepareMethod()
        """The call that `enqueue` would make, for `app.enqueue_many`."""

    else:

        def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Job]:
            """Put this call on the queue.

            Returns:
                The job, when awaited. Calls made in the same turn of the event loop are sent together.

            Raises:
                TypeError: the arguments do not fit the function, or one does not fit its annotation or cannot be
                    serialized.
                ValueError: an unknown lane, or more data than `payload_limit`.
                BrokerError: the server cannot be reached.

            Example:
                ```python
                job = await send_email.enqueue("a@example.com", subject="Hello")
                ```
            """
            task = self._task
            return task.app.context.producer.enqueue(task, args, kwargs, self._options)

        def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job:
            """`enqueue` for code without an event loop: blocks this thread until the server has answered.

            It works from any thread; in a running loop it blocks the loop. Raises what `enqueue` raises, and
            `RuntimeError` if an `@app.on_enqueue` hook is async.

            Example:
                ```python
                job = send_email.enqueue_sync("a@example.com")
                print(job.result_sync(timeout=10))
                ```
            """
            task = self._task
            return task.app.context.producer.enqueue_sync(task, args, kwargs, self._options)

        def prepare(self, *args: P.args, **kwargs: P.kwargs) -> "PreparedTask":
            """The call that `enqueue` would make, for `app.enqueue_many`."""
            return PreparedTask.of(self._task, args, kwargs, self._options)

        _mark_as_coroutine_function(enqueue)

    @overload
    def request(
        self: "_Enqueueable[P, Coroutine[Any, Any, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def request(
        self: "_Enqueueable[P, Coroutine[Any, Any, T]]", *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def request(self: "_Enqueueable[P, T]", *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    @overload
    def request(
        self: "_Enqueueable[P, T]", *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    def request(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Enqueue this call and wait for its return value, in one call to the server.

        Args:
            args: the task's arguments; pass a parameter of the task named `timeout` by position.
            kwargs: the task's keyword arguments, and `timeout`: seconds to wait for the result; 30 by default; None: as
                long as it takes.

        Returns:
            What the task returned.

        Raises:
            TaskError: the task failed, was aborted or discarded, or expired; its `result` has the details.
            TimeoutError: it did not end in time. It stays on the queue.
        """
        task, timeout = self._task, kwargs.pop("timeout", REQUEST_TIMEOUT_S)
        return task.context.producer.request(task, args, kwargs, self._options, timeout)

    @overload
    def request_sync(self: "_Enqueueable[P, Coroutine[Any, Any, T]]", *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def request_sync(
        self: "_Enqueueable[P, Coroutine[Any, Any, T]]", *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> T: ...
    @overload
    def request_sync(self: "_Enqueueable[P, T]", *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def request_sync(self: "_Enqueueable[P, T]", *args: Any, timeout: Duration | None, **kwargs: Any) -> T: ...
    def request_sync(self, *args: Any, **kwargs: Any) -> Any:
        """`request` for code without an event loop: blocks this thread until the task has ended.

        Takes, returns and raises what `request` does, and raises `ValueError` if the app keeps no results. It polls for
        the result, at most every 50 ms.

        Example:
            ```python
            total = add.request_sync(1, 2, timeout=5)
            ```
        """
        task, timeout = self._task, kwargs.pop("timeout", REQUEST_TIMEOUT_S)
        return task.context.producer.request_sync(PreparedTask.of(task, args, kwargs, self._options), timeout)


class Task(_Enqueueable[P, R_co]):
    """A registered task. Calling it runs the function right here; `enqueue` sends it to a worker.

    Type checkers check the arguments of both against the function.
    """

    is_moved = False
    """Whether a call said of which queue it is."""

    def __init__(
        self,
        app: "Ardiq",
        name: str,
        fn: Callable[P, R_co] | None,
        priority: str | None = None,
        unique: bool = False,
        result_ttl_ms: int | None = None,
        rule: Rule | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.app = app
        self.name = name
        self.fn = fn
        self.priority = priority
        self.unique = unique
        self._buckets: Buckets | None = None
        self._task = self
        self._options = NO_OPTIONS if result_ttl_ms is None else CallOptions(result_ttl_ms=result_ttl_ms)
        if signature is None and fn is not None:
            signature = Signature(name, fn, self.context.settings.check_types)
        self._signature = signature
        self._rule = None if rule is None else self._keyed(rule)
        """Its rule for calls with the same key, for the rest of Ardiq."""
        if fn is not None:
            functools.update_wrapper(self, fn, updated=())  # what it is called, says and takes, for help() and its like

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        if self.fn is None:
            raise TypeError(f"task {self.name!r} is a reference, not a local function: it can only be enqueued")
        return self.fn(*args, **kwargs)

    def options(
        self,
        *,
        task_id: str | None = None,
        priority: str | None = None,
        delay_ms: int = 0,
        schedule_ms: int = 0,
        expire_ms: int = 0,
        unique: bool | Unique | None = None,
        debounce: Debounce | None = None,
        throttle: Throttle | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        expire: Duration | None = None,
        result_ttl: Duration | None = None,
        queue: str | None = None,
        wait_for_room: Duration | None = None,
    ) -> "BoundTask[P, R_co]":
        """This task with other options for the calls made through it.

        Args:
            task_id: your own id: while a task with it waits or runs, the call adds nothing.
            priority: a lane of the app.
            delay_ms: start no sooner than this much later.
            schedule_ms: start no sooner than this moment, in ms since the epoch.
            expire_ms: drop it if it has not started within this time.
            unique: whether the call adds nothing while an identical one waits or runs, or a `Unique`; False: none of
                these rules, not the task's either.
            debounce: a `Debounce`, instead of the task's rule.
            throttle: a `Throttle`, instead of the task's rule.
            delay: `delay_ms` as a timedelta or in seconds.
            at: `schedule_ms` as a datetime with a time zone.
            expire: `expire_ms` as a timedelta or in seconds.
            result_ttl: how long its result is kept, a timedelta or seconds, up to a hundred years; 0: not at all; None:
                the task's.
            queue: another queue on the app's server, which some worker must serve; see `Ardiq.queue`.
            wait_for_room: where as many tasks wait as may (`max_waiting`), enqueue again until there is room, for up to
                this time, a timedelta or seconds, and only then raise `QueueFull`; None: at once.

        Example:
            ```python
            await report.options(delay=timedelta(minutes=5), priority="low").enqueue(7)
            ```
        """
        ttl_ms = self._options.result_ttl_ms if result_ttl is None else result_ttl_ms(result_ttl)
        if queue is not None:
            self.app.queue(queue)  # an impossible name is refused here
        rule = rule_of(unique, debounce, throttle)
        options = CallOptions(
            task_id=task_id,
            priority=priority,
            delay_ms=delay_ms,
            schedule_ms=schedule_ms,
            expire_ms=expire_ms,
            unique=False if rule is not None else cast("bool | None", unique),
            rule=None if rule is None else self._keyed(rule),
            delay=delay,
            at=at,
            expire=expire,
            result_ttl_ms=ttl_ms,
            wait_for_room=wait_for_room,
        )
        keyed = options.rule_of(self)
        if keyed is not None and keyed.delays and (options.delay_ms or options.schedule_ms):
            raise ValueError(
                f"task {self.name!r} has a {type(keyed.rule).__name__}, which says when it falls due: give it no delay"
            )
        return BoundTask(self, options, queue)

    def _keyed(self, rule: Rule) -> Keyed:
        known = self._signature or self.context.registry.signature_of(self.name)
        return Keyed(self.name, rule, known)

    @property
    def context(self) -> "QueueContext":
        """The queue that it is enqueued to, for the rest of Ardiq."""
        return self.app.context

    @property
    def signature(self) -> Signature | None:
        """What its calls take and return; None for a reference to a task that is registered elsewhere."""
        return self._signature

    @property
    def rule(self) -> Keyed | None:
        """How calls with the same key are treated; None for any."""
        return self._rule

    @property
    def buckets(self) -> Buckets | None:
        """Its limits; None if it has none."""
        return self._buckets

    @buckets.setter
    def buckets(self, buckets: Buckets | None) -> None:
        self._buckets = buckets

    @property
    def call_options(self) -> CallOptions:
        """What its calls have without `options`."""
        return self._options

    @property
    def result_ttl_ms(self) -> int | None:
        """For how long its results are kept, where it says so itself."""
        return self._options.result_ttl_ms

    def on(self, context: "QueueContext") -> "Task[P, R_co]":
        """The task as it is sent to another queue of its app."""
        other = copy.copy(self)
        other.app, other._task, other.is_moved = context.app, other, True
        return other


class BoundTask(_Enqueueable[P, R_co]):
    """A task with options for its calls, as `task.options(...)` returns it."""

    __slots__ = ("_options", "_queue", "task")

    task: Task[P, R_co]
    """The task itself."""

    def __init__(self, task: Task[P, R_co], options: CallOptions, queue: str | None = None) -> None:
        self.task = task
        self._options = options
        self._queue = queue

    @property
    def _task(self) -> Task[P, R_co]:  # type: ignore[override]
        # Not before it is used: in a test the app may be on another server by then.
        return self.task if self._queue is None else self.task.on(self.task.app.queue(self._queue).context)


class _Origin:
    """Of a held back call, what its fields do not say; unset where it was not made by `task.prepare`."""

    __slots__ = ("call_options", "task")

    task: Task[..., Any]
    call_options: CallOptions

    def __getattr__(self, name: str) -> Any:
        # A call is made for each task of a batch, and few are asked: what its task and options say waits for that.
        if name in _SAID and hasattr(self, "task"):
            return _SAID[name](self.task, self.call_options)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_SAID: dict[str, Callable[[Task[..., Any], CallOptions], Any]] = {
    "name": lambda task, options: task.name,
    "task_id": lambda task, options: options.task_id,
    "priority": lambda task, options: options.priority or task.priority,
    "delay_ms": lambda task, options: options.delay_ms,
    "schedule_ms": lambda task, options: options.schedule_ms,
    "expire_ms": lambda task, options: options.expire_ms,
    "unique": lambda task, options: task.unique if options.unique is None else options.unique,
}


@dataclass(frozen=True, slots=True)
class PreparedTask(_Origin, Generic[Returned]):
    """A call that is not sent yet, so that `app.enqueue_many` can send many at once.

    Attributes:
        name: the task's name.
        task_id: its own id, if you gave one.
        priority: its lane, if you gave one.
        delay_ms: how long to wait before it may start.
        schedule_ms: the earliest moment to start it, in ms since the epoch.
        expire_ms: how long it may wait to be started.
        unique: whether it adds nothing while an identical call waits or runs.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    task_id: str | None
    priority: str | None
    delay_ms: int
    schedule_ms: int
    expire_ms: int
    unique: bool = False

    @classmethod
    def of(
        cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> "PreparedTask[Any]":
        """A call of a task of some app."""
        call = _new(cls)
        _set_task(call, task)
        _set_options(call, options)
        _set_args(call, args)
        _set_kwargs(call, kwargs)
        return call

    def at(self, context: "QueueContext") -> "PreparedTask[Any]":
        """This call as that of a queue, where nobody said of which: it was made by hand, or replaced, or unpickled."""
        if hasattr(self, "task"):
            return self
        task: Task[..., Any] = context.app.ref(self.name)
        bound = task.options(
            task_id=self.task_id,
            priority=self.priority,
            delay_ms=self.delay_ms,
            schedule_ms=self.schedule_ms,
            expire_ms=self.expire_ms,
            unique=self.unique or None,
        )
        return PreparedTask.of(task, self.args, self.kwargs, bound._options)


# The slots themselves are the fastest way around `frozen`.
_new = object.__new__
_set_task, _set_options = _Origin.__dict__["task"].__set__, _Origin.__dict__["call_options"].__set__
_set_args, _set_kwargs = PreparedTask.__dict__["args"].__set__, PreparedTask.__dict__["kwargs"].__set__
