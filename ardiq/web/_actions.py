"""Every action: its address below a queue, what does it, the permission that it takes, and what is asked before."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ._asked import Asked
from ._users import User
from .actions import calling, dead, pauses, schedules, tasks, workflows
from .actions.told import Form, Question, Told


class Action(NamedTuple):
    """An action.

    Attributes:
        name: its path below `/q/{queue}/`, for POST alone; its twin for programs has `.json` behind it.
        label: of its button.
        act: does it.
        permission: what its users need.
        under: the screen that has its button.
        ask: what is asked of people before, if it cannot be undone, is of many, or has to be filled in.
        is_final: whether it cannot be undone.
    """

    name: str
    label: str
    act: Callable[[Asked, Form, dict[str, str]], Awaitable[Told]]
    permission: str
    under: str
    ask: Callable[[Asked, Form], Awaitable[Question]] | None = None
    is_final: bool = False


ACTIONS = {
    action.name: action
    for action in (
        Action("enqueue", "Enqueue", calling.enqueue, "enqueue", "tasks", calling.may_enqueue),
        Action("abort", "Abort", tasks.abort, "steer", "tasks", tasks.may_abort, True),
        Action("hurry", "Run now", tasks.hurry, "steer", "tasks"),
        Action("again", "Enqueue a copy", calling.again, "steer", "tasks"),
        Action("requeue", "Run again", dead.requeue, "replay", "dead"),
        Action("amend", "Run with other arguments", calling.amend, "amend", "dead", calling.may_amend),
        Action("discard", "Discard", dead.discard, "delete", "dead", dead.may_discard, True),
        Action("requeue-group", "Run all again", dead.requeue_group, "replay", "dead", dead.may_requeue_group),
        Action("purge", "Discard all", dead.purge, "purge", "dead", dead.may_purge, True),
        Action("discard-group", "Discard all", dead.discard_group, "delete", "dead", dead.may_discard_group, True),
        Action("pause", "Pause", pauses.pause, "pause", "pauses"),
        Action("resume", "End", pauses.resume, "pause", "pauses"),
        Action("pause-workflow", "Pause", workflows.pause, "pause", "workflows"),
        Action("resume-workflow", "End the pause", workflows.resume, "pause", "workflows"),
        Action("retry-workflow", "Run what failed again", workflows.retry, "replay", "workflows"),
        Action("pause-schedule", "Pause", schedules.pause, "schedules", "schedules"),
        Action("resume-schedule", "Go on", schedules.resume, "schedules", "schedules"),
        Action("run-schedule", "Run now", schedules.run, "schedules", "schedules"),
    )
}
_OVER = ("complete", "aborted", "expired", "discarded", "skipped")
_OF_STATE = {"scheduled": ("hurry", "abort"), "dead": ("requeue", "discard"), "failed": ("requeue", "discard")}


def offered(user: User, state: str) -> list[Action]:
    """What somebody may do with a task in a state, as far as buttons go: each action decides again."""
    names = () if state in _OVER else _OF_STATE.get(state, ("abort",))
    return allowed(user, *names)


def allowed(user: User, *names: str) -> list[Action]:
    """Those of these actions that somebody may do."""
    return [ACTIONS[name] for name in names if user.can(ACTIONS[name].permission)]
