"""The task that is running here."""

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
