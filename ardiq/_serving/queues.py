"""Several queues of one app: the app on another one, and one process that works for some of them."""

import asyncio
import copy
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from .. import _core
from .._client.inspector import Queue
from .._client.producer import Producer
from .._execution.processes import Processes
from .._execution.retention import retain
from .._execution.scheduler import Scheduler
from .._execution.stalls import StallWatch
from .._execution.worker import Worker
from .._values import options as _options
from .._values.metrics import Metrics
from ..dead import DeadLetters
from ..schedules import Schedules

if TYPE_CHECKING:
    from ..app import Ardiq

Queues = Mapping[str, int] | Iterable[str]


def on_queue(app: "Ardiq", name: str) -> "Ardiq":
    """The app on another queue of its server: what it registered is shared, what it asks and sends is not."""
    other = copy.copy(app)
    other._queue_name = _options.key_part("queue_name", name)
    other._broker = app._broker.sibling(other)
    other._metrics = Metrics()
    other._producer = Producer(other)
    other._queue = Queue(other)
    other._crons = {}  # they are of the app's own queue
    other.schedules = Schedules(other)
    other.dead = DeadLetters(other)
    weakref.finalize(other, other._broker.close)
    return other


def read_shares(app: "Ardiq", queues: Queues | None) -> dict[str, int]:
    """Queues and their shares, from what `run` takes."""
    if queues is None:
        return {app.queue_name: 1}
    if isinstance(queues, str | bytes) or not isinstance(queues, Iterable):
        raise TypeError(f"queues must be names or a dict of names and shares, not {type(queues).__name__}")
    names = [_options.key_part("queue name", name) for name in queues]
    if not names:
        raise ValueError("queues must name at least one queue")
    if len(set(names)) < len(names):
        raise ValueError(f"queues must not repeat a queue: {names}")
    if len(names) > app.concurrency:
        raise ValueError(f"{len(names)} queues need at least as many slots, but concurrency is {app.concurrency}")
    shares = queues if isinstance(queues, Mapping) else dict.fromkeys(names, 1)
    return {name: _options.integer(f"queues[{name!r}]", shares[name], least=1) for name in names}


async def serve(app: "Ardiq", shares: dict[str, int]) -> None:
    """Work for queues until the app is stopped; in burst mode until none has anything ready."""
    loop = asyncio.get_running_loop()
    apps = [app.queue(name) for name in shares]
    if not app.allow_eviction:
        await _refuse_eviction(app, apps[0])
        if app._stop_asked:
            return
    pool = _core.Pool(app.concurrency, list(shares.values())) if len(apps) > 1 else None
    async with AsyncExitStack() as stack:
        processes = Processes(app)
        stack.push_async_callback(processes.close)
        watch = StallWatch.of(app, apps[0]._broker.line(loop))
        if watch is not None:
            stack.callback(watch.close)
        app._workers = [
            Worker(each, each._broker.line(loop), processes, None if pool is None else (pool, at), watch)
            for at, each in enumerate(apps)
        ]
        if app._stop_asked:  # before there was a worker to tell
            app.stop()
        for each in apps:
            await stack.enter_async_context(_housekeeping(each, declares=each is app))
        await _run_all(app)


async def _refuse_eviction(app: "Ardiq", first: "Ardiq") -> None:
    """As the broker's; no longer than until the app is stopped."""
    loop = asyncio.get_running_loop()
    check = loop.create_task(first._broker.refuse_eviction(loop))
    app._give_up = lambda: loop.call_soon_threadsafe(check.cancel)
    try:
        if app._stop_asked:  # before there was anything to give up
            check.cancel()
        await asyncio.wait([check])
        if not check.cancelled():
            check.result()
    finally:
        app._give_up = None
        check.cancel()


async def _run_all(app: "Ardiq") -> None:
    """Until all have ended; where one fails the others hand back what they run."""
    if len(app._workers) == 1:
        return await app._workers[0].run()

    async def run(worker: Worker) -> None:
        try:
            await worker.run()
        except Exception:
            app._on_cancelled = None  # the group is about to cancel the others
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for worker in app._workers:
                group.create_task(run(worker))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


@asynccontextmanager
async def _housekeeping(app: "Ardiq", declares: bool) -> AsyncIterator[None]:
    """What a worker does besides its tasks."""
    chores: list[asyncio.Task[Any]] = []
    if app._root._fires_schedules and not app.burst:
        chores.append(asyncio.create_task(Scheduler(app, declares).run()))
    if app._dead_ttl_ms is not None or app._dead_limit is not None:
        chores.append(asyncio.create_task(retain(app)))
    try:
        yield
    finally:
        for chore in chores:
            chore.cancel()
            with suppress(asyncio.CancelledError):
                await chore
