"""The task that runs here."""

from contextvars import ContextVar
from typing import Any

from .models import TaskContext

running: ContextVar[tuple[Any, ...] | None] = ContextVar("ardiq_current_task", default=None)
"""The claim that is being run; a `TaskContext` is only made of it for who asks."""


def current_task() -> TaskContext | None:
    """The task that runs here, or None outside one.

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
    return None if claim is None else TaskContext(claim[0], claim[2], claim[8])
