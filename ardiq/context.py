"""The task that is running here."""

import asyncio
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ._values.reports import Reports
from .models import TaskContext

if TYPE_CHECKING:
    from ._execution.memos import Waits

running: ContextVar[tuple[Any, ...] | None] = ContextVar("ardiq_current_task", default=None)
"""The claim that is being run; a `TaskContext` is made from it only on request."""

reports: ContextVar[Reports | None] = ContextVar("ardiq_reports", default=None)
"""Where the tasks of this worker report progress, notes and logs."""

waits: "ContextVar[Waits | None]" = ContextVar("ardiq_waits", default=None)
"""Where the tasks of this worker find what they did in earlier attempts."""

running_step: ContextVar[str] = ContextVar("ardiq_running_step", default="")
"""The key of the step that runs here; empty outside of steps."""

deadline: ContextVar[float | None] = ContextVar("ardiq_deadline", default=None)
"""When the time limit of this attempt ends, in seconds since the epoch."""


FULL_S = 0.01
"""For how long a task that emits faster than it can be sent waits before it looks again, in seconds."""


def current_task() -> TaskContext | None:
    """The task that is running here, or None outside of a task.

    Returns:
        Its id, name and attempt (from 1), in async and sync tasks and in what they call.

    Example:
        ```python
        @app.task
        async def charge(order_id: int) -> None:
            task = current_task()
            log.info("charging %s, task %s", order_id, task and task.task_id)
        ```
    """
    claim = running.get()
    return None if claim is None else TaskContext.of(claim, reports.get(), deadline.get())


async def emit(chunk: Any) -> None:
    """Add a chunk to the stream of the running task, which `job.stream()` reads while it runs.

    It is sent within a tenth of a second, together with others; only a task that emits faster than the server takes it
    waits here. The server keeps a task's last 10,000 chunks, up to 16 MiB. Nothing is emitted outside of a task, nor by
    an attempt whose outcome no longer counts (`current_task().cancelled()`).

    Args:
        chunk: any value that a task can return, of up to 64 KiB.

    Raises:
        TypeError: it cannot be sent.
        ValueError: it is too large.

    Example:
        ```python
        @app.task
        async def answer(question: str) -> None:
            async for word in model.words(question):
                await emit(word)
        ```
    """
    to = _emitted(chunk)
    while to is not None and to[0].is_full(to[1]):
        await asyncio.sleep(FULL_S)


def emit_sync(chunk: Any) -> None:
    """`emit` for a `def` task, in a thread or a process; blocks where `emit` waits.

    Raises:
        RuntimeError: an event loop runs in this thread: await `emit` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("emit_sync() would block the event loop: await emit() instead")
    to = _emitted(chunk)
    while to is not None and to[0].is_full(to[1]):
        time.sleep(FULL_S)


def _emitted(chunk: Any) -> tuple[Reports, tuple[Any, ...]] | None:
    """Hand a chunk over; to whom, and for which claim."""
    to, claim = reports.get(), running.get()
    if to is None or claim is None:
        return None
    to.add(claim, chunk=to.codec.encode_chunk(claim[2], chunk))
    return to, claim
