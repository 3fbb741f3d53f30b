"""Every screen: its address below a queue, what reads it, and the permission that it takes."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ._asked import Asked
from .views import audit, dead, limits, overview, pauses, schedules, task, tasks, workers, workflow, workflows


class Screen(NamedTuple):
    """A screen.

    Attributes:
        name: of its template.
        path: below `/q/{queue}/`.
        read: what it shows, as plain data; also its twin for programs, under the same path and `.json`.
        permission: what its users need.
        under: the screen that the navigation marks.
    """

    name: str
    path: str
    read: Callable[[Asked], Awaitable[dict[str, Any]]]
    permission: str
    under: str


# An id may have any characters, also slashes and dots: of two paths that match, the first counts.
SCREENS = (
    Screen("overview", "", overview.read, "view", "overview"),
    Screen("tasks", "tasks", tasks.read, "view", "tasks"),
    Screen("task", "tasks/{id:path}", task.read, "view", "tasks"),
    Screen("dead", "dead", dead.read, "view", "dead"),
    Screen("workflows", "workflows", workflows.read, "view", "workflows"),
    Screen("workflow", "workflows/{id:path}", workflow.read, "view", "workflows"),
    Screen("schedules", "schedules", schedules.read, "view", "schedules"),
    Screen("workers", "workers", workers.read, "view", "workers"),
    Screen("limits", "limits", limits.read, "view", "limits"),
    Screen("pauses", "pauses", pauses.read, "view", "pauses"),
    Screen("audit", "audit", audit.read, "view", "audit"),
)
