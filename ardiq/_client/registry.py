"""What is registered with an app: tasks, schedules, hooks. All its queues share it."""

import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .._values.buckets import Buckets, Gathering
from .._values.items import ItemSignature
from .._values.signature import Signature
from ..executors import Process
from ..limits import Limit
from ..models import EnqueueContext, ErrorContext, State
from ..retries import RetryRules

if TYPE_CHECKING:
    from ..task import Task

log = logging.getLogger("ardiq")


class Registered:
    """A task as the worker knows it."""

    __slots__ = (
        "__weakref__",
        "fn",
        "gathers",
        "home",
        "is_async",
        "process",
        "retries",
        "signature",
        "task",
        "timeout",
    )

    def __init__(
        self,
        task: "Task[..., Any] | None",
        fn: Callable[..., Any],
        retries: RetryRules,
        timeout: float | None = None,
        process: Process | None = None,
    ) -> None:
        self.task = task
        self.fn = fn
        self.signature: Signature | None = None if task is None else task.signature
        # Whether the function takes a list, to which each call adds one.
        self.gathers = isinstance(self.signature, ItemSignature)
        self.retries = retries
        self.timeout = timeout
        self.process = process
        # The module that registered it, which a child process must import.
        self.home = ""
        # An instance whose class defines `async def __call__` counts, too.
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            getattr(type(fn), "__call__", None)  # noqa: B004
        )


@dataclass
class Registry:
    """What an app registered.

    Attributes:
        tasks: by name.
        crons: the definitions of its `@app.cron`, by name; they are of the app's own queue.
        limits: the limits of its tasks and of `app.limit`, and the batches of its tasks, by name.
        state: what its lifespans set up.
    """

    tasks: dict[str, Registered] = field(default_factory=dict)
    crons: dict[str, dict[str, Any]] = field(default_factory=dict)
    limits: dict[str, Limit | Gathering] = field(default_factory=dict)
    lifespans: list[Callable[[], AsyncGenerator[Any]]] = field(default_factory=list)
    middleware: list[Callable[..., Awaitable[Any]]] = field(default_factory=list)
    enqueue_hooks: list[Callable[[EnqueueContext], Any]] = field(default_factory=list)
    error_hooks: list[Callable[[ErrorContext], Any]] = field(default_factory=list)
    state: State = field(default_factory=State)

    def draft(self) -> "Registry":
        """A copy, to which more can be added; its state is empty."""
        return Registry(**{each.name: copy(getattr(self, each.name)) for each in fields(self)} | {"state": State()})

    def signature_of(self, name: str) -> Signature | None:
        """The signature of a task's function; None if it is registered elsewhere."""
        entry = self.tasks.get(name)
        return None if entry is None else entry.signature

    def task_of(self, name: str) -> "Task[..., Any] | None":
        """A task; None if it is registered elsewhere."""
        entry = self.tasks.get(name)
        return None if entry is None else entry.task

    def result_ttl_ms_of(self, name: str) -> int | None:
        """How long the results of a task are kept, if it sets that itself."""
        task = self.task_of(name)
        return None if task is None else task.result_ttl_ms

    def buckets_of(self, name: str) -> Buckets | None:
        """How the calls of a task are limited, if they are."""
        task = self.task_of(name)
        return None if task is None else task.buckets

    def declare(self, *limits: Limit | Gathering) -> None:
        """Add limits that have names, and batches.

        Raises:
            ValueError: one of that name is defined in another way.
        """
        found = dict(self.limits)
        for limit in limits:
            other = found.setdefault(str(limit.name), limit)
            if other.definition != limit.definition:
                raise ValueError(
                    f"limit {limit.name!r} is declared twice: as {other}, and as {limit}; what has one name is one "
                    "limit, so define it once, or rename one"
                )
        self.limits = found

    @asynccontextmanager
    async def lifespan(self, worker_id: str) -> AsyncIterator[None]:
        """All lifespans, each inside the one that was registered before it."""
        async with AsyncExitStack() as stack:
            for lifespan in list(self.lifespans):
                shared = await stack.enter_async_context(asynccontextmanager(lifespan)())
                if shared is None:
                    continue
                if not isinstance(shared, Mapping):
                    raise TypeError(f"@app.lifespan must yield a mapping or nothing, not {type(shared).__name__}")
                for name, value in shared.items():
                    setattr(self.state, name, value)
            if self.lifespans:
                log.info("lifespan started worker=%s", worker_id)
            try:
                yield
            finally:
                if self.lifespans:
                    log.info("lifespan stopping worker=%s", worker_id)
