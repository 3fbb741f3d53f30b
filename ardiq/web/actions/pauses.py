"""Keeping tasks from starting, and letting them start again."""

from ..._server import calls
from ..._values.encodings import to_json
from ...cli._output import many
from .._asked import Asked, Refused
from ..views.finding import argument_of, is_hidden, is_secret_pause
from .told import Form, Told

_MOST_PORTIONS = 10


async def pause(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    task, told = form.get("name", ""), form.get("arg", "")
    if bool(form.get("whole")) == bool(task or told):
        raise Refused(400, "Name a task or an argument to pause, or choose the whole queue.")
    if told and not asked.sees_payloads:
        raise Refused(403, "your role may not see arguments: pause a task by its name")
    argument = argument_of(asked, told)
    position = told.partition("=")[0]
    if position.isdecimal() and (not task or is_hidden(asked, task, position)):
        raise Refused(403, "a position is of one task, and its argument must not be redacted: name them")
    try:
        await asked.app.pause(task or None, argument=argument)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    tasks = f"Tasks {task!r}" if task else "Tasks" if told else "The whole queue"
    what = f"{tasks} with {told}" if told else tasks
    answers[what] = "paused"
    known = asked.app.tasks
    unknown = f" This app has no task {task!r}." if task and known and task not in known else ""
    return Told(f"{what}: paused, until the pause is ended here. What runs goes on.{unknown}")


async def resume(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    """The first portions at once; the rest is left to the workers."""
    name = form.get("pause", "")
    if is_secret_pause(asked, name):
        raise Refused(403, "this pause is by an argument that you may not see")
    pause = next((each for each in await asked.app.pauses() if each.id == name), None)
    if pause is None:
        answers[name] = "not_paused"
        return Told("There is no such pause any more; nothing was changed.", False)
    moved, goes_on, limit = 0, pause.resuming, calls.RESUME_LIMIT_MOST
    for _ in range(_MOST_PORTIONS):
        reply: calls.ResumeReply | calls.WorkflowResumeReply
        if pause.workflow is not None:
            reply = await asked.ask(calls.workflow_resume(id=pause.workflow, limit=limit, resuming=goes_on))
        else:
            argument = "" if pause.argument is None else str(pause.argument)
            value = b"" if pause.argument is None else to_json(pause.value)
            reply = await asked.ask(
                calls.resume(task=pause.task or "", argument=argument, value=value, limit=limit, resuming=goes_on)
            )
        moved, goes_on = moved + reply.moved, True
        answers.setdefault(name, reply.answer)
        if not reply.more:
            break
    else:
        return Told(f"The pause ended: {many(moved, 'task')} returned to their lanes, the rest return by and by.")
    if answers[name] == "not_paused":
        return Told("There is no such pause any more; nothing was changed.", False)
    return Told(f"The pause ended: {many(moved, 'task')} returned.")
