"""Watching a task until it has ended."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from ._client.facade import Facade
from ._server.calls import Outcome
from ._values import options as _options
from ._values.encodings import from_json
from ._values.objects import as_object
from ._values.options import Duration
from ._values.typing import R_co
from .models import Progress, TaskResult

if TYPE_CHECKING:
    from ._client.queue import QueueContext
    from ._server.changes import Change
    from ._values.signature import Signature


@as_object
class TaskUpdate(NamedTuple, Generic[R_co]):
    """The state of a task while it is watched.

    Attributes:
        status: as `job.status()` says: "queued", "limited", "scheduled", "held", "blocked", "running"; last "complete"
            or "not_found".
        tries: attempts so far, including the running one.
        progress: what it reported last; None if it reported none.
        notes: the notes made since the last update, by name; None for a deleted one.
        lines: the log lines written since the last update.
        result: how it ended, once it is "complete".
    """

    status: str
    tries: int = 0
    progress: Progress | None = None
    notes: dict[str, Any] = {}  # noqa: RUF012
    lines: tuple[str, ...] = ()
    result: TaskResult[R_co] | None = None


class Watching(Facade):
    """Watching an app's tasks; a part of `Ardiq`."""

    def watch(self, task_id: str, timeout: Duration | None = None) -> AsyncGenerator[TaskUpdate, None]:
        """Like `job.watch()`, for any task of this queue by its id."""
        return watch(self.context, task_id, timeout, None)


def watch(
    queue: "QueueContext", task_id: str, timeout: Duration | None, signature: "Signature | None"
) -> AsyncGenerator[TaskUpdate, None]:
    """See `Job.watch`; a wrong timeout is refused here and now."""
    return _updates(queue, task_id, _options.patience("timeout", timeout), signature)


async def _updates(
    queue: "QueueContext", task_id: str, timeout: float | None, signature: "Signature | None"
) -> AsyncGenerator[TaskUpdate, None]:
    progress, tries = None, 0
    async for seen in queue.channel().watch(task_id, timeout):
        if seen is None:
            yield TaskUpdate("not_found", tries, progress)
        elif isinstance(seen, Outcome):
            yield TaskUpdate("complete", seen.tries, progress, result=queue.inspector.decode(seen, signature))
        else:
            tries, progress = seen.tries, read_progress(seen.progress)
            yield _update(task_id, seen, progress)


def _update(task_id: str, change: "Change", progress: Progress | None) -> TaskUpdate:
    notes = {name: read_note(text) if text else None for name, text in change.told if name}
    lines = tuple(text.decode(errors="replace") for name, text in change.told if not name)
    return TaskUpdate(shown(task_id, change.state), change.tries, progress, notes, lines)


def shown(task_id: str, state: str) -> str:
    """A state as people see it: a workflow runs as long as its tasks wait for each other."""
    return "running" if state == "blocked" and "~" not in task_id else state


def read_progress(said: bytes) -> Progress | None:
    """What a record's `progress` says; None where somebody wrote something else into it."""
    try:
        fields = from_json(said or b"null")
    except ValueError:
        return None
    return progress_of(fields) if isinstance(fields, dict) else None


def progress_of(fields: dict[str, Any]) -> Progress:
    """A progress from its JSON object."""
    return Progress(fields.get("fraction", 0.0), fields.get("message", ""))


def read_note(text: bytes) -> Any:
    """A note's value; the text itself where somebody wrote it by hand."""
    try:
        return from_json(text)
    except ValueError:
        return text.decode(errors="replace")
