"""One process that serves several queues of an app."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from .. import _core
from .._client.queue import QueueContext
from .._execution.processes import Processes
from .._execution.retention import retain
from .._execution.run_state import RunState
from .._execution.scheduler import Scheduler
from .._execution.stalls import StallWatch
from .._execution.worker import Worker
from .._server.server import Server
from .._values import options as _options
from .._values.settings import Settings
from ..logs import TaskHandler

Queues = Mapping[str, int] | Iterable[str]


def read_shares(settings: Settings, queues: Queues) -> dict[str, int]:
    """Queues and their shares, from what `run` takes."""
    if isinstance(queues, str | bytes) or not isinstance(queues, Iterable):
        raise TypeError(f"queues must be names or a dict of names and shares, not {type(queues).__name__}")
    names = [_options.key_part("queue name", name) for name in queues]
    if not names:
        raise ValueError("queues must name at least one queue")
    if len(set(names)) < len(names):
        raise ValueError(f"queues must not repeat a queue: {names}")
    if len(names) > settings.concurrency:
        raise ValueError(f"{len(names)} queues need at least as many slots, but concurrency is {settings.concurrency}")
    shares = queues if isinstance(queues, Mapping) else dict.fromkeys(names, 1)
    return {name: _options.integer(f"queues[{name!r}]", shares[name], least=1) for name in names}


async def serve(queues: Sequence[QueueContext], shares: Sequence[int], run_state: RunState) -> None:
    """Serve queues of one app until stopped; in burst mode until none has anything ready."""
    first = queues[0]
    if not run_state.allow_eviction:
        await _refuse_eviction(first.server, run_state)
        if run_state.stop_asked:
            return
    settings = first.settings
    pool = _core.Pool(settings.concurrency, list(shares)) if len(queues) > 1 else None
    async with AsyncExitStack() as stack:
        if settings.task_logs is not None:
            handler = TaskHandler(_options.LOG_LEVELS[settings.task_logs])
            logging.getLogger().addHandler(handler)
            stack.callback(logging.getLogger().removeHandler, handler)
        processes = Processes(first, lambda: run_state.stop_asked)
        stack.push_async_callback(processes.close)
        watch = StallWatch.of(first.channel(), settings.stall_after_s, run_state.replace_stalled_s)
        if watch is not None:
            stack.callback(watch.close)
        run_state.workers = [
            Worker(queue, run_state, processes, None if pool is None else (pool, at), watch)
            for at, queue in enumerate(queues)
        ]
        if run_state.stop_asked:  # before there was a worker to tell
            run_state.stop()
        for queue in queues:
            await stack.enter_async_context(_housekeeping(queue, run_state))
        await _run_all(run_state)


async def _refuse_eviction(server: Server, run_state: RunState) -> None:
    """As the server's; no longer than until the run is to stop."""
    loop = asyncio.get_running_loop()
    check = loop.create_task(server.refuse_eviction(loop))
    run_state.give_up = lambda: loop.call_soon_threadsafe(check.cancel)
    try:
        if run_state.stop_asked:  # before there was anything to give up
            check.cancel()
        await asyncio.wait([check])
        if not check.cancelled():
            check.result()
    finally:
        run_state.give_up = None
        check.cancel()


async def _run_all(run_state: RunState) -> None:
    """Wait until all have ended; if one fails, the others hand back what they run."""
    if len(run_state.workers) == 1:
        return await run_state.workers[0].run()

    async def run(worker: Worker) -> None:
        try:
            await worker.run()
        except Exception:
            run_state.on_cancelled = None  # the group is about to cancel the others
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for worker in run_state.workers:
                group.create_task(run(worker))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


@asynccontextmanager
async def _housekeeping(queue: QueueContext, run_state: RunState) -> AsyncIterator[None]:
    """What a worker does besides its tasks."""
    chores: list[asyncio.Task[Any]] = []
    if run_state.fires_schedules and not run_state.burst:
        chores.append(asyncio.create_task(Scheduler(queue).run()))
    if queue.settings.dead_ttl_ms is not None or queue.settings.dead_limit is not None:
        chores.append(asyncio.create_task(retain(queue)))
    try:
        yield
    finally:
        for chore in chores:
            chore.cancel()
            with suppress(asyncio.CancelledError):
                await chore
