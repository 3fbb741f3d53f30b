"""`Ardiq`'s part for batches of calls."""

from typing import TYPE_CHECKING, Any

from .._values.ids import new_id
from .._values.options import Duration
from ..models import TaskContext
from .adding import CALLS, CallBatch, batch_flow
from .facade import Facade
from .nodes import Piece

if TYPE_CHECKING:
    from ..task import PreparedTask


class Batching(Facade):
    """Batches of calls that are added while they run; a part of `Ardiq`."""

    def batch(
        self,
        name: str = "batch",
        *,
        on_success: "PreparedTask[Any] | Piece[Any] | None" = None,
        on_complete: "PreparedTask[Any] | Piece[Any] | None" = None,
        on_death: "PreparedTask[Any] | Piece[Any] | None" = None,
        id: str | None = None,
        result_ttl: Duration | None = None,
    ) -> CallBatch:
        """A batch of calls, of any tasks, which run while more are added: `async with`, or `with` for code without an
        event loop. It ends when the block is left and all calls have ended; one whose block raises is aborted, and so
        is one that nobody adds to for an hour before its block is left.

        Args:
            name: what people see.
            on_success: a call, a chain, a group or a workflow that runs once all calls have completed.
            on_complete: one that runs once all have ended, also if some failed.
            on_death: one that runs once all have ended, if some failed for good.
            id: its id: while one with it is open, calls are added to that. None: a new one.
            result_ttl: for how long it is kept after its end, a timedelta or seconds; None: as long as the app keeps
                results.

        Raises:
            ArdiqError: on entering; one with its id has ended, and is kept.
            TypeError, ValueError, BrokerError: as `app.start`.

        Example:
            ```python
            async with app.batch("import", on_success=publish.prepare(), on_death=alarm.prepare("import")) as batch:
                async for row in source:
                    await batch.add(load.prepare(row))
            ```
        """
        flow = batch_flow(self.context, name, id, result_ttl, on_success, on_complete, on_death)
        return CallBatch(self.context, flow.id or new_id(), flow)

    def batch_of(self, task: TaskContext | str) -> CallBatch:
        """The batch that a task is one of the calls of, which may add more to it: `app.batch_of(current_task())`.

        Args:
            task: the task, or its id.

        Raises:
            TypeError: it is neither: no task runs here.
            ValueError: it is no call of a batch.
        """
        if not isinstance(task, str | TaskContext):
            raise TypeError(f"batch_of takes current_task() of a task that runs, or an id, not {type(task).__name__}")
        task_id = task if isinstance(task, str) else task.task_id
        id, _, rest = task_id.partition("~")
        calls, _, number = rest.partition("~")
        if calls != CALLS or not number.isdecimal():
            raise ValueError(f"task {task_id!r} is no call of a batch")
        return CallBatch(self.context, id)
