"""What is asked of an app about its tasks."""

from .._values.options import Duration
from ..models import Attempt, TaskInfo, TaskResult
from .facade import Facade
from .overview import Inspect


class Asking(Facade):
    """Where tasks are, and what came of them; a part of `Ardiq`."""

    async def result(self, task_id: str, timeout: Duration | None = None) -> TaskResult | None:
        """How a task ended.

        Args:
            task_id: the task.
            timeout: how long to wait for it, a timedelta or seconds; 0: check once; None: do not wait.

        Returns:
            The result, or None if there is none and no timeout was given.

        Raises:
            TimeoutError: there was no result in time.
        """
        return await self.context.inspector.result(task_id, timeout)

    async def status(self, task_id: str) -> str:
        """Where a task is: "queued", "limited" (it waits for its limits), "scheduled", "held" by a pause, "blocked" (it
        waits for other tasks of its workflow), "away" (its workflow handed it to another queue), "running",
        "complete" or "not_found".
        """
        return await self.context.inspector.status(task_id)

    def status_sync(self, task_id: str) -> str:
        """`status` for code without an event loop; blocks this thread until the server has answered."""
        return self.context.inspector.status_sync(task_id)

    async def info(self, task_id: str) -> TaskInfo | None:
        """What is known about an unfinished task; None if it has ended or is unknown."""
        return await self.context.inspector.info(task_id)

    def info_sync(self, task_id: str) -> TaskInfo | None:
        """`info` for code without an event loop; blocks this thread until the server has answered."""
        return self.context.inspector.info_sync(task_id)

    async def history(self, task_id: str) -> list[Attempt]:
        """The attempts of a task that did not succeed: the last 20, oldest first. Empty for an unknown task."""
        return await self.context.inspector.history(task_id)

    async def abort(self, task_id: str) -> bool:
        """Abort a task: at once if it waits, at its next `await` if it runs.

        A running sync task ends at once; its thread cannot be stopped and runs on, but its result is discarded. A task
        in a process ends when its process has ended.

        Returns:
            False if it had ended in another way, or is unknown.
        """
        return await self.context.inspector.abort(task_id)

    def abort_sync(self, task_id: str) -> bool:
        """`abort` for code without an event loop; blocks this thread until the server has answered."""
        return self.context.inspector.abort_sync(task_id)

    async def hurry(self, task_id: str) -> bool:
        """Run a scheduled task as soon as it has its turn, whatever it was to wait for: its delay, its ETA, the backoff
        of a retry, a snooze. It joins the end of its lane, like a task that falls due; its limits and pauses apply.

        Returns:
            True if it is ready now, was so before, or runs. False if a pause holds it, if it waits for other tasks of
            its workflow, for a signal or in a `sleep` of its own, if it has ended, or is unknown.
        """
        return await self.context.inspector.hurry(task_id)

    def hurry_sync(self, task_id: str) -> bool:
        """`hurry` for code without an event loop; blocks this thread until the server has answered."""
        return self.context.inspector.hurry_sync(task_id)

    async def queue_size(self) -> int:
        """How many tasks have not ended: those that wait, including limited, scheduled and held ones, and those that
        run.
        """
        counts = await Inspect(self.context).counts()
        return counts.queued + counts.limited + counts.scheduled + counts.held + counts.running

    def result_sync(self, task_id: str, timeout: Duration | None = None) -> TaskResult | None:
        """`result` for code without an event loop: blocks this thread, and polls at most every 50 ms."""
        return self.context.inspector.result_sync(task_id, timeout)
