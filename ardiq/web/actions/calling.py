"""Calls that people write: a new one, a dead letter with other arguments, and a call like one before."""

from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec

from ..._client.inspector import text_of
from ..._server import calls
from ..._values.encodings import from_json, to_json
from ..._values.ids import new_id
from ..._values.signature import MISSING
from ...cli._arguments import did_you_mean
from ...cli._output import short
from ...errors import ArdiqError, BrokerError
from .._asked import Asked, Refused
from .told import Form, Input, Question, Told

_LONGEST = 60_000  # a form has up to three characters for one
_NO_LETTER = "{}: no dead letter any more; nothing was changed."
_WRITTEN = "What is redacted stays as it is, as long as it stays where it is."

Done = TypeVar("Done")


async def may_enqueue(asked: Asked, form: Form) -> Question:
    app = asked.app
    lane = Input("lane", "lane", form.get("lane", ""), app.priorities, "Leave it empty for the lane of the task.")
    inputs = [
        Input("name", "task", form.get("name", ""), app.tasks),
        *_inputs(form.get("args", "[]"), form.get("kwargs", "{}")),
        lane,
    ]
    checks = "Its arguments are checked before it is enqueued." if app.tasks else "Its worker checks its arguments."
    return Question("Enqueue a task", checks, more={"new_id": form.get("new_id") or new_id()}, inputs=inputs)


async def enqueue(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    name, known = form.get("name", ""), asked.app.tasks
    if not name:
        raise Refused(400, "Name the task.")
    if known and name not in known:
        raise Refused(400, f"There is no task {name!r} here{did_you_mean(name, known)}")
    return await _enqueue(asked, name, *_written(form), form.get("lane", ""), form, answers)


async def may_amend(asked: Asked, form: Form) -> Question:
    task_id, record = await _dead(asked, form)
    if record is None:
        raise Refused(400, _NO_LETTER.format(short(task_id, 60)))
    args, kwargs = _shown(asked, record)
    inputs = _inputs(form.get("args", _pretty(args)), form.get("kwargs", _pretty(kwargs)))
    name = text_of(record, "name")
    why = f"It keeps its id, has all its tries, and runs with what you write here. {_WRITTEN}"
    return Question(f"Run {name} again with other arguments?", why, [task_id], inputs=inputs)


async def amend(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    task_id, record = await _dead(asked, form)
    done = 0
    if record is not None:
        args, kwargs = _restored(asked, record, *_written(form))
        done = await _refusing(asked.app.dead.requeue(task_id, args=args, kwargs=kwargs, rate=None))
    answers[task_id] = "queued" if done else "not_dead"
    if not done:
        return Told(_NO_LETTER.format(short(task_id, 60)), False)
    return Told(f"{short(task_id, 60)}: queued again, with other arguments.")


async def again(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    task_id = _id(form)
    record = await asked.ask(calls.task(id=task_id))
    if not record:
        answers[task_id] = "not_found"
        return Told(f"{task_id}: unknown: never enqueued, or no longer kept.", False)
    if "~" in task_id or text_of(record, "kind") == "workflow":
        raise Refused(400, "It belongs to a workflow, and gets what others of it returned: it has no copy of its own.")
    try:
        args, kwargs = asked.app.context.inspector.arguments(task_id, record)
    except Exception as error:  # of the app's own deserializer, too
        raise Refused(400, f"Its arguments cannot be read: {short(f'{type(error).__name__}: {error}', 300)}") from None
    return await _enqueue(asked, text_of(record, "name"), args, kwargs, text_of(record, "lane"), form, answers)


async def _enqueue(
    asked: Asked, name: str, args: Any, kwargs: Any, lane: str, form: Form, answers: dict[str, str]
) -> Told:
    """A new task. Its id is drawn with the form, so that one that is sent twice adds one task."""
    app, new = asked.app, form.get("new_id") or new_id()
    try:
        known = app.context.registry.task_of(name)
        task = (known or app.ref(name)).options(task_id=new, priority=lane or None, queue=app.queue_name)
    except (TypeError, ValueError) as error:
        raise Refused(400, str(error)) from None
    job = await _refusing(task.enqueue(*args, **kwargs))
    answers[job.id] = "existed" if job.existed else "enqueued"
    if job.existed:
        return Told(f"{job.id}: there already; nothing was added.", False, job.id)
    return Told(f"{job.id}: enqueued.", True, job.id)


async def _dead(asked: Asked, form: Form) -> tuple[str, dict[str, bytes] | None]:
    """The record of the dead letter that was chosen; None: it is none."""
    if not asked.sees_payloads:
        raise Refused(403, "your role may not see arguments, so it cannot change them")
    task_id = _id(form)
    record = await asked.ask(calls.task(id=task_id))
    is_dead = text_of(record, "state") == "failed" and text_of(record, "kind") != "workflow"
    return task_id, record if is_dead else None


def _shown(asked: Asked, record: dict[str, bytes]) -> tuple[list[Any], dict[str, Any]]:
    """Its arguments without secrets."""
    args, kwargs = _arguments(record)
    shown = [value for _, value in asked.redactor.call(args, kwargs, _signature(asked, record))]
    return shown[: len(args)], dict(zip(kwargs, shown[len(args) :], strict=True))


def _restored(
    asked: Asked, record: dict[str, bytes], args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What was written, with secrets where they were."""
    old_args, old_kwargs = _arguments(record)
    signature, redactor = _signature(asked, record), asked.redactor
    names = [] if signature is None else [name for name, _ in signature.positional(len(args))]
    try:
        restored = [
            redactor.restored(
                names[at] if at < len(names) else str(at), value, old_args[at] if at < len(old_args) else MISSING
            )
            for at, value in enumerate(args)
        ]
        return restored, {
            name: redactor.restored(name, value, old_kwargs.get(name, MISSING)) for name, value in kwargs.items()
        }
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _signature(asked: Asked, record: dict[str, bytes]) -> Any:
    return asked.app.context.registry.signature_of(text_of(record, "name"))


def _arguments(record: dict[str, bytes]) -> tuple[list[Any], dict[str, Any]]:
    """As JSON has them, which alone can be redacted and written here."""
    args, kwargs, codec = record.get("args", b"[]"), record.get("kwargs", b"") or b"{}", text_of(record, "codec")
    if codec not in ("", "json"):
        raise Refused(400, f"Its arguments are in the codec {codec!r}, and cannot be written here.")
    if len(args) + len(kwargs) > _LONGEST:
        raise Refused(400, f"Its arguments have {len(args) + len(kwargs):,} bytes, too many to be written here.")
    try:
        found, by_name = from_json(args), from_json(kwargs)
    except ValueError:
        found = by_name = None
    if not isinstance(found, list) or not isinstance(by_name, dict):
        raise Refused(400, "Its arguments are not JSON, and cannot be written here.")
    return found, by_name


def _written(form: Form) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a form; those that it leaves out are none."""
    args, kwargs = _json(form, "args", "[]"), _json(form, "kwargs", "{}")
    if not isinstance(args, list):
        raise Refused(400, 'The positional arguments must be a JSON array, such as [1, "two"].')
    if not isinstance(kwargs, dict):
        raise Refused(400, 'The arguments by name must be a JSON object, such as {"size": 3}.')
    return args, kwargs


def _json(form: Form, name: str, otherwise: str) -> Any:
    try:
        return from_json((form.get(name, "").strip() or otherwise).encode())
    except ValueError as error:
        raise Refused(400, f"The arguments in {name!r} are not JSON: {error}") from None


def _inputs(args: str, kwargs: str) -> list[Input]:
    return [
        Input("args", "positional arguments, a JSON array", args, is_long=True),
        Input("kwargs", "arguments by name, a JSON object", kwargs, is_long=True),
    ]


def _pretty(value: Any) -> str:
    return msgspec.json.format(to_json(value)).decode()


def _id(form: Form) -> str:
    if not form.get("id"):
        raise Refused(400, "No task was chosen.")
    return form["id"]


async def _refusing(doing: Awaitable[Done]) -> Done:
    """What came of it, if the library or the server took it.

    Raises:
        Refused: they did not, and nothing was changed.
    """
    try:
        return await doing
    except BrokerError:
        raise
    except (TypeError, ValueError, ArdiqError) as error:
        raise Refused(400, str(error)) from None
