"""The app: its options, its tasks, and everything you can ask of its queue."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from . import executors
from ._client.asking import Asking
from ._client.batching import Batching
from ._client.connecting import Connecting
from ._client.hooks import Hooks
from ._client.limiting import Limiting
from ._client.options import Options
from ._client.overview import Inspect
from ._client.queue import QueueContext
from ._client.registry import Registered
from ._client.signalling import Signalling
from ._client.starting import Starting
from ._execution import processes as _processes
from ._execution.run_state import RunState
from ._server.calls import SCHEDULE_DECLARE_MOST
from ._serving.serve import Queues, read_shares, serve
from ._values import imports as _imports
from ._values import options as _options
from ._values.buckets import Buckets
from ._values.defaults import TaskDefaults, with_defaults
from ._values.items import ItemSignature, check_function, of_one
from ._values.metrics import snapshot
from ._values.settings import Settings
from ._values.signature import Signature
from ._values.signing import SigningKey
from ._values.timing import Timing
from .batches import Batch, check_batch
from .dead import DeadLetters
from .dependencies import injected
from .executors import Executor
from .job import Job
from .limits import Limit
from .models import DeadLetter, TaskMetrics
from .pauses import Pausing
from .retries import DEFAULT_MAX_RETRIES, Delay, ExceptionTypes, RetryOption, RetryRules
from .schedules import Schedules, define, kept_as_task
from .streaming import Streaming
from .task import PreparedTask, Task
from .uniqueness import Debounce, Throttle, Unique, rule_of
from .watching import Watching

if TYPE_CHECKING:
    from ._client.typing import BatchDecorator

P = ParamSpec("P")
R = TypeVar("R")


class Ardiq(Options, Hooks, Asking, Pausing, Limiting, Watching, Streaming, Starting, Batching, Signalling, Connecting):
    """A queue and the tasks that run on it.

    Args:
        redis_url: the server: `redis://`, `redis+cluster://`, `redis+sentinel://`, `rediss…://` for TLS, `unix://`, or
            `embedded://` for a private one. Default: the environment variable `ARDIQ_REDIS_URL`, else
            `redis://localhost:6379`.
        queue_name: name of the queue.
        priorities: names of its lanes, lowest first; None: one lane, "default".
        worker_id: name under which people see this worker; None: made from the host's name.
        default_priority: lane of tasks that name none; None: the middle one.
        weights: each lane's share of a worker's claims, instead of strict order; a lane that is not named has 1. What
            an empty lane does not use goes to the others.
        limits: how many tasks of a lane one worker may run at once.
        max_waiting: how many tasks may wait in a lane: a call that finds so many raises `QueueFull`. What is delayed or
            tried again is not refused.
        serializer: turns arguments and results into bytes, instead of JSON or msgpack.
        deserializer: turns the bytes back into values.
        cron_poll_s: how often a worker checks the schedules, in addition to when one falls due.
        concurrency: tasks that one worker runs at once.
        prefetch: how many tasks one worker may fetch ahead; None: adapted to how long they take.
        idle_timeout_ms: the worker's lease: how long it may be silent before its tasks are given to others.
        poll_block_ms: longest single blocking wait for work.
        result_ttl_ms: how long results are kept; 0: not at all, negative: forever.
        burst: whether `run` ends when nothing is ready.
        broker_timeout_ms: how long a call may take, from connecting to the reply, before it raises a `BrokerError`.
        durability: when a task counts as accepted. "primary": once the server has it; "replicated": once one of its
            replicas has it, too; if none has within `broker_timeout_ms`, the call raises a `BrokerError` with
            `maybe_enqueued`.
        max_lost: how many workers may die while holding a task before it is dead-lettered as their killer.
        unknown_task_wait: how long a task that no worker knows waits for one that does, before it is dead-lettered; a
            timedelta or seconds; 0: it fails at once.
        dead_ttl_ms: how long dead letters are kept; None: until you discard them.
        dead_limit: how many of the newest dead letters are kept; None: all.
        payload_limit: largest size of a task's arguments, and of its result, in bytes.
        check_types: whether arguments must fit the annotations, at enqueue and on arrival, and plain JSON is converted
            to them; if False, plain JSON reaches the function as it is, as in ArdiQ 1.2.
        signing_key: workers run only tasks that were signed with it; a str or bytes of at least 16 bytes, or a list:
            the first key signs, and signatures by any of them are accepted.
        takes_unsigned: also run tasks without a signature, until all producers have a key.
        stall_after: after how many seconds without running a worker's event loop counts as stalled; None: never.
        task_logs: what is logged inside a task from this level on is also added to the task's own log: "debug", "info",
            "warning" or "error"; None: nothing.
        task_defaults: `max_retries`, `backoff_ms`, `timeout`, `retry`, `retry_on`, `give_up_on`, `max_age` and
            `result_ttl` of tasks that do not set them.
        imports: modules that workers import for the tasks in them; `*` stands for any text within one part of a name:
            "proj.*.tasks".
        allow_eviction: let workers use a server that may evict tasks when its memory is full.
        prefix: beginning of every key.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option has an invalid value.

    Example:
        ```python
        app = Ardiq("redis://localhost:6379", queue_name="emails")

        @app.task
        async def greet(name: str) -> str:
            return f"Hello, {name}"
        ```
    """

    def __init__(
        self,
        redis_url: str | None = None,
        queue_name: str | None = "default",
        priorities: list[str] | None = None,
        worker_id: str | None = None,
        *,
        default_priority: str | None = None,
        weights: dict[str, int] | None = None,
        limits: dict[str, int] | None = None,
        max_waiting: dict[str, int] | None = None,
        serializer: Callable[[Any], bytes] | None = None,
        deserializer: Callable[[bytes], Any] | None = None,
        cron_poll_s: Delay | None = 1.0,
        concurrency: int | None = 16,
        prefetch: int | None = None,
        idle_timeout_ms: int | None = 60_000,
        poll_block_ms: int | None = 5_000,
        result_ttl_ms: int | None = 300_000,
        burst: bool | None = False,
        broker_timeout_ms: int = 5_000,
        durability: _options.Durability = "primary",
        max_lost: int = 3,
        unknown_task_wait: timedelta | float = 86_400,
        dead_ttl_ms: int | None = None,
        dead_limit: int | None = None,
        signing_key: SigningKey | None = None,
        takes_unsigned: bool = False,
        payload_limit: int = 16 * 1024 * 1024,
        check_types: bool = True,
        stall_after: Delay | None = 5.0,
        task_logs: _options.LogLevel | None = None,
        task_defaults: TaskDefaults | None = None,
        imports: Iterable[str] = (),
        allow_eviction: bool = False,
        prefix: str = "ardiq",
    ) -> None:
        settings = Settings.read(
            redis_url=redis_url,
            queue_name=queue_name,
            priorities=priorities,
            worker_id=worker_id,
            default_priority=default_priority,
            weights=weights,
            limits=limits,
            max_waiting=max_waiting,
            serializer=serializer,
            deserializer=deserializer,
            cron_poll_s=cron_poll_s,
            concurrency=concurrency,
            prefetch=prefetch,
            idle_timeout_ms=idle_timeout_ms,
            poll_block_ms=poll_block_ms,
            result_ttl_ms=result_ttl_ms,
            broker_timeout_ms=broker_timeout_ms,
            durability=durability,
            max_lost=max_lost,
            unknown_task_wait=unknown_task_wait,
            dead_ttl_ms=dead_ttl_ms,
            dead_limit=dead_limit,
            signing_key=signing_key,
            takes_unsigned=takes_unsigned,
            payload_limit=payload_limit,
            check_types=check_types,
            stall_after=stall_after,
            task_logs=task_logs,
            task_defaults=task_defaults,
            imports=imports,
            prefix=prefix,
        )
        run_state = RunState(
            burst=_options.boolean("burst", False if burst is None else burst),
            allow_eviction=_options.boolean("allow_eviction", allow_eviction),
        )
        self._open(QueueContext.first(settings), run_state)

    def _open(self, context: QueueContext, run_state: RunState) -> None:
        super().__init__(context)
        context.app = self
        self.run_state = run_state
        self.schedules = Schedules(context)
        self.dead = DeadLetters(context)
        self.inspect = Inspect(context)
        # At the latest when the interpreter ends.
        weakref.finalize(self, context.server.close)

    def __repr__(self) -> str:
        return f"<Ardiq {self.context.name!r}>"

    @property
    def tasks(self) -> list[str]:
        """Names of the registered tasks."""
        return list(self.context.registry.tasks)

    @property
    def burst(self) -> bool:
        """Whether `run` ends when nothing is ready."""
        return self.run_state.burst

    @burst.setter
    def burst(self, value: bool) -> None:
        self.run_state.burst = _options.boolean("burst", value)

    @property
    def allow_eviction(self) -> bool:
        """Whether workers use a server that may throw away tasks."""
        return self.run_state.allow_eviction

    @allow_eviction.setter
    def allow_eviction(self, value: bool) -> None:
        self.run_state.allow_eviction = _options.boolean("allow_eviction", value)

    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = ...,
        max_retries: int = ...,
        backoff_ms: int = ...,
        timeout: Delay | None = ...,
        priority: str | None = ...,
        unique: bool | Unique = ...,
        debounce: Debounce | None = ...,
        throttle: Throttle | None = ...,
        retry: RetryOption | None = ...,
        retry_on: ExceptionTypes | None = ...,
        give_up_on: ExceptionTypes | None = ...,
        max_age: Delay | None = ...,
        result_ttl: Delay | None = ...,
        executor: Executor = ...,
        limits: Limit | Sequence[Limit] | None = ...,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    @overload
    def task(
        self,
        fn: None = None,
        /,
        *,
        batch: Batch,
        name: str | None = ...,
        max_retries: int = ...,
        backoff_ms: int = ...,
        timeout: Delay | None = ...,
        priority: str | None = ...,
        unique: bool | Unique = ...,
        debounce: Debounce | None = ...,
        throttle: Throttle | None = ...,
        retry: RetryOption | None = ...,
        retry_on: ExceptionTypes | None = ...,
        give_up_on: ExceptionTypes | None = ...,
        max_age: Delay | None = ...,
        result_ttl: Delay | None = ...,
        limits: Limit | Sequence[Limit] | None = ...,
    ) -> "BatchDecorator": ...
    @with_defaults
    def task(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        max_retries: int = DEFAULT_MAX_RETRIES,
        backoff_ms: int = 0,
        timeout: Delay | None = None,
        priority: str | None = None,
        unique: bool | Unique = False,
        debounce: Debounce | None = None,
        throttle: Throttle | None = None,
        retry: RetryOption | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        max_age: Delay | None = None,
        result_ttl: Delay | None = None,
        executor: Executor = "thread",
        limits: Limit | Sequence[Limit] | None = (),
        batch: Batch | None = None,
    ) -> Any:
        """Register a function as a task; `async def` runs on the worker's loop, `def` on a thread or in a process.

        Args:
            fn: the function, when used without parentheses.
            name: the task's name; None: the function's name.
            max_retries: how many times a failed task is retried.
            backoff_ms: pause before each retry; 0: the square of the attempt's number, in seconds.
            timeout: time limit of an attempt, a timedelta or seconds; None: no limit. A thread cannot be stopped: it is
                abandoned.
            priority: its lane.
            unique: while an identical call waits or runs, a new one adds nothing; a `Unique` says which calls are the
                same, for how long, and what becomes of the new one.
            debounce: one task for many calls, once there was none for a while: a `Debounce`.
            throttle: one task in a while: a `Throttle`. At most one of these three.
            retry: pause before a retry, instead of `backoff_ms`: a policy of `ardiq.retries`, a list of delays (the
                last one repeats), or a function of the attempt's number and its exception.
            retry_on: retry only after these exceptions; a `Retry` counts as one.
            give_up_on: never retry after these exceptions.
            max_age: do not retry once the task would be older than this, a timedelta or seconds.
            result_ttl: how long its record is kept after its end (after it is discarded, for a dead letter), a
                timedelta or seconds, up to a hundred years; 0: not at all; None: the app's `result_ttl_ms`.
            executor: where a `def` runs: "thread", or "process" for a child process, which a timeout or an abort kills,
                or an `ardiq.Process` with options.
            limits: a `Limit`, or up to eight: how many attempts run at once and how many start in a time, over all
                workers, by name and by key. A limit without a name gets that of the task.
            batch: the function takes a list, each call passes one item of it, and calls gather in a `Batch`. It returns
                a list of the items' results, or None; `ItemErrors` says which of them failed.

        Returns:
            The `Task`, which you can call like the function, and enqueue.

        Raises:
            ValueError: another task has the name, or an option has an invalid value.
            TypeError: an option has the wrong type, or the function does not fit it.

        Example:
            ```python
            @app.task(max_retries=5, timeout=30)
            async def fetch(url: str) -> int: ...
            ```
        """
        if priority is not None:
            self.context.producer.check_lane(priority)
        retries = RetryRules(max_retries, backoff_ms, retry, retry_on, give_up_on, max_age)
        timeout_s = _options.seconds("timeout", timeout)
        rule = rule_of(unique, debounce, throttle)
        process = executors.read(executor)
        ttl_ms = _options.result_ttl(result_ttl)
        check_batch(batch)

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            if not callable(function):
                raise TypeError(f"@app.task decorates a function, not {type(function).__name__}")
            task_name = name or getattr(function, "__name__", None)
            if task_name is None:
                raise TypeError("@app.task needs a name= for a callable that has none")
            _options.text("name", task_name)
            function = injected(task_name, function)
            if batch is None:
                task = Task(self, task_name, function, priority, unique is True, ttl_ms, rule)
            else:
                check_function(task_name, function)
                calls = ItemSignature(task_name, function, self.context.settings.check_types)
                task = Task(self, task_name, of_one(function), priority, unique is True, ttl_ms, rule, calls)
            task.buckets = Buckets.read(task.name, limits, task.signature, batch)
            other = self.context.registry.tasks.get(task.name)
            if other is not None:
                raise ValueError(
                    f"task {task.name!r} is already registered by {getattr(other.fn, '__module__', '?')}: "
                    "rename one, or give it a name="
                )
            entry = Registered(task, function, retries, timeout_s, process)
            if process is not None:
                if batch is not None:
                    raise TypeError(
                        f"task {task.name!r}: executor='process' takes no batch; without it a `def` runs on a thread"
                    )
                if entry.is_async:
                    raise TypeError(
                        f"task {task.name!r}: executor='process' is for `def`; an `async def` runs on the worker's "
                        "loop and can be stopped there"
                    )
                _processes.remember(entry)
            if task.buckets is not None:
                self.context.registry.declare(*task.buckets.declared)
            self.context.registry.tasks[task.name] = entry
            if ttl_ms is not None:
                self.context.codec.kept[task.name] = ttl_ms != 0
            return task

        return register if fn is None else register(fn)

    @property
    def crons(self) -> list[str]:
        """Names of the recurring tasks."""
        return list(self.context.crons)

    @with_defaults
    def cron(
        self,
        spec: str | None = None,
        *,
        every: Delay | None = None,
        name: str | None = None,
        max_retries: int = DEFAULT_MAX_RETRIES,
        backoff_ms: int = 0,
        timeout: Delay | None = None,
        priority: str | None = None,
        coalesce: bool = False,
        tz: str | tzinfo | None = None,
        result_ttl: Delay | None = None,
        executor: Executor = "thread",
        missed: str = "skip",
        jitter: Delay = 0,
        retry: RetryOption | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        max_age: Delay | None = None,
        limits: Limit | Sequence[Limit] | None = (),
    ) -> Callable[[Callable[[], R]], Task[[], R]]:
        """Register a function as a recurring task: each occurrence runs once, however many workers there are.

        Args:
            spec: cron expression of five fields, of six with seconds first, or a nickname such as "@daily".
            every: a period instead, a timedelta or seconds, at least 1 ms; it counts from the epoch.
            name: the task's name; None: the function's name.
            max_retries: how many times a failed task is retried.
            backoff_ms: pause before each retry; 0: the square of the attempt's number, in seconds.
            timeout: time limit of an attempt, a timedelta or seconds; None: no limit.
            priority: its lane.
            coalesce: skip an occurrence while the previous one still waits to run.
            tz: time zone of `spec`: an IANA name, a `ZoneInfo`, or a `timezone` with a fixed offset; None: UTC.
            result_ttl: how long its results are kept; see `task`.
            executor: where a sync function runs; see `task`.
            missed: what to do about occurrences that no worker fired within a minute: "skip" them, run "once" for all
                of them, or run "all", the oldest hundred at most.
            jitter: start each occurrence up to this much after its time, a timedelta or seconds.
            retry, retry_on, give_up_on, max_age: whether and when it is retried; see `task`.
            limits: how many attempts run at once, and how many start in a time; see `task`.

        Raises:
            ValueError: an invalid timing, or an unknown zone, lane or policy; or a thousand schedules are declared.
            TypeError: neither or both of `spec` and `every` are given, or the function requires arguments.
            RuntimeError: called on `app.queue(name)`: schedules in code belong to the app's own queue.

        Example:
            ```python
            @app.cron("0 6 * * mon-fri", tz="Europe/Berlin")
            async def report() -> None: ...
            ```
        """
        if not self.context.is_own:
            raise RuntimeError(f"@cron is for the app's own queue; on {self.queue_name!r} use schedules.put")
        definition = define(
            self.context, name or "", Timing(spec, every, tz), priority, coalesce, missed, jitter, "code"
        )

        def register(function: Callable[[], R]) -> Task[[], R]:
            if callable(function):
                function = injected(name or str(getattr(function, "__name__", "?")), function)
                _needs_nothing(function, name)
            if len(self.context.registry.crons) >= SCHEDULE_DECLARE_MOST:
                raise ValueError(
                    f"an app declares up to {SCHEDULE_DECLARE_MOST:,} schedules in code; make others with schedules.put"
                )
            task: Task[[], R] = self.task(
                name=name,
                max_retries=max_retries,
                backoff_ms=backoff_ms,
                timeout=timeout,
                priority=priority,
                retry=retry,
                retry_on=retry_on,
                give_up_on=give_up_on,
                max_age=max_age,
                result_ttl=result_ttl,
                executor=executor,
                limits=limits,
            )(function)
            self.context.registry.crons[task.name] = {
                **definition,
                **kept_as_task(self.context, task.name),
                "task": task.name,
            }
            return task

        return register

    def queue(self, name: str) -> "Ardiq":
        """This app on another queue of its server, with the same tasks, options and hooks. It is created once.

        It enqueues to that queue and inspects that queue. `run` takes the names of several queues.

        Args:
            name: the queue; the app's own name returns the app itself.

        Raises:
            ValueError: the name is invalid.

        Example:
            ```python
            reports = app.queue("reports")
            job = await reports.send("build", month="2026-11")
            print(await reports.queue_size())
            ```
        """
        family = self.context.family
        context = family.get(name)
        if context is None:
            made = object.__new__(type(self))
            vars(made).update(vars(self))  # with what a subclass has beside
            made._open(self.context.sibling(_options.key_part("queue_name", name)), self.run_state)
            # Another thread may have been as fast: there is one for each name.
            context = family.setdefault(name, made.context)
            if context is not made.context:
                made.context.server.close()
        other: Ardiq = context.app
        return other

    def ref(
        self,
        name: str,
        *,
        priority: str | None = None,
        unique: bool = False,
        limits: Limit | Sequence[Limit] | None = (),
        batch: Batch | None = None,
    ) -> Task[..., Any]:
        """A task that is registered elsewhere: you can enqueue it, but not call it.

        The worker decides everything but its lane, its uniqueness, its limits, its batch and how long its result is
        kept. If this app has the task, too, its arguments are checked, its result is kept and its calls are limited and
        gather accordingly, and its rule for calls with the same key counts.

        Args:
            name: of the task.
            priority: its lane.
            unique: while an identical call waits or runs, a new one adds nothing.
            limits: those of the task where this app does not have it, as its code says them. Arguments that make a key
                must then be passed by keyword.
            batch: that of the task where this app does not have it, as its code says it.
        """
        registry = self.context.registry
        known = registry.task_of(_options.text("name", name))
        ttl_ms, keyed = (None, None) if known is None else (known.result_ttl_ms, known.rule)
        rule = keyed.rule if keyed is not None and not unique else None
        check_batch(batch)
        calls = None if known is not None or batch is None else ItemSignature.unknown(name)
        task: Task[..., Any] = Task(self, name, None, priority, _options.boolean("unique", unique), ttl_ms, rule, calls)
        if known is not None and known.buckets is not None and known.buckets.gathering is not None:
            batch = known.buckets.gathering.batch
        given = Buckets.read(name, limits, calls or registry.signature_of(name), batch)
        if given is not None:
            registry.declare(*given.declared)
        task.buckets = given or registry.buckets_of(name)
        return task

    async def send(self, name: str, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a task by its name; see `ref` for what is checked. A task that no worker knows waits: see
        `unknown_task_wait`.
        """
        return await self.ref(name).enqueue(*args, **kwargs)

    def send_sync(self, name: str, *args: Any, **kwargs: Any) -> Job:
        """`send` for code without an event loop; blocks this thread until the server has answered."""
        return self.ref(name).enqueue_sync(*args, **kwargs)

    def enqueue_many_sync(self, tasks: Iterable[PreparedTask[R]]) -> list[Job[R]]:
        """`enqueue_many` for code without an event loop; blocks this thread until the server has answered."""
        return self.context.producer.enqueue_many_sync(list(tasks))

    async def enqueue_many(self, tasks: Iterable[PreparedTask[R]]) -> list[Job[R]]:
        """Enqueue many calls at once.

        Args:
            tasks: calls from `task.prepare(...)`.

        Returns:
            Their jobs, in order.

        Raises:
            ValueError: an unknown lane, or too much data; nothing was sent.
            TypeError: an argument cannot be serialized; nothing was sent.
            BrokerError: the connection was lost; `jobs` has the tasks that were accepted.

        Example:
            ```python
            jobs = await app.enqueue_many(resize.prepare(path) for path in paths)
            ```
        """
        return await self.context.producer.enqueue_many(tasks)

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Tasks that failed for good, newest first. See `app.dead`."""
        return await self.dead.list(limit=limit)

    async def dead_count(self) -> int:
        """How many dead letters there are."""
        return await self.dead.count()

    async def replay(self, task_id: str) -> Job | None:
        """Like `dead.requeue` for one dead letter: same id and arguments, new retries. None if there is none with that
        id.
        """
        return Job(self, task_id) if await self.dead.requeue(task_id) else None

    async def delete_dead(self, task_id: str) -> bool:
        """Like `dead.discard` for one dead letter; False if there is none with that id."""
        return bool(await self.dead.discard(task_id))

    def metrics(self) -> list[TaskMetrics]:
        """What this process has run so far, by task and lane: for all queues, or for one on `app.queue(name)`."""
        queues = list(self.context.family.values()) if self.context.is_own else [self.context]
        return snapshot([queue.metrics for queue in queues])

    async def run(self, queues: Queues | None = None) -> None:
        """Run tasks until `stop()`, or in burst mode until nothing is ready.

        Args:
            queues: the queues to serve: names, or a dict of names and shares of the slots; None: the app's own. Each
                queue is guaranteed its share; slots it does not need go to the others.

        Raises:
            RuntimeError: this app is already running, or a command such as `ardiq run` is importing the program.
            ValueError: an invalid name or share, or more queues than slots.
            ModuleNotFoundError: a module in `imports` does not exist.
            LibraryError: the server has a different Lua library, cannot load it, or may evict tasks.
            Forbidden: the server does not know the user of the URL, or the user lacks a right that a worker needs.
        """
        if _imports.is_by_command:
            raise RuntimeError(
                "this program runs a worker when a command imports it: put that under `if __name__ == '__main__':`"
            )
        if queues is None:
            queues = [self.context.name]
        shares, run_state = read_shares(self.context.settings, queues), self.run_state
        if run_state.is_running:
            raise RuntimeError("this app is already running")
        run_state.is_running, run_state.stop_asked = True, False
        try:
            _imports.load(self.context.settings.imports)
            async with self.context.registry.lifespan(self.context.settings.worker_id):
                contexts = [self.queue(name).context for name in shares]
                await serve(contexts, list(shares.values()), run_state)
        finally:
            run_state.workers = []
            run_state.is_running = False

    def stop(self) -> None:
        """Make `run` end once the running tasks have ended. From any thread; does nothing if `run` is not active."""
        self.run_state.stop()


def _needs_nothing(function: Callable[..., Any], name: str | None) -> None:
    try:
        Signature(name or str(getattr(function, "__name__", "?")), function).check((), {})
    except TypeError as error:
        raise TypeError(
            f"@cron calls its function without arguments, but {error}: give it a default, or make the schedule with "
            "app.schedules.put(…, args=[…])"
        ) from None
