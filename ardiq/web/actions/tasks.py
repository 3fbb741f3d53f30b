"""Aborting tasks that have not ended, and running those now that wait for their time."""

import asyncio

from ..._server import calls
from ...cli._output import many
from .._asked import Asked
from .told import Form, Question, Told, ids_of, note, summed

_GONE = "unknown: never enqueued, or no longer kept"
_ABORTED = {
    "aborted": "aborted",
    "requested": "running, and asked to stop",
    "finished": "ended before; nothing was changed",
    "not_found": _GONE,
}
_HURRIED = {
    "queued": "ready, and runs at its turn",
    "limited": "ready, and runs when its limits have room",
    "running": "running already",
    "held": "held by a pause; nothing was changed",
    "blocked": "waiting for other tasks of its workflow; nothing was changed",
    "waits": "waiting for a signal, or in a sleep of its own; nothing was changed",
    "finished": "ended before; nothing was changed",
    "not_found": _GONE,
}


async def abort(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    async def one(task_id: str) -> None:
        ttl_ms = asked.app.context.settings.result_ttl_ms
        answers[task_id] = await asked.ask(calls.abort(id=task_id, result_ttl_ms=ttl_ms))

    await asyncio.gather(*map(one, ids_of(form)))
    return summed(answers, _ABORTED, "aborted requested")


async def may_abort(asked: Asked, form: Form) -> Question:
    ids = ids_of(form)
    why = "What waits is aborted at once; what runs is asked to stop at its next await. This cannot be undone."
    return Question(f"Abort {many(len(ids), 'task')}?", why, ids)


async def hurry(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    ids = ids_of(form)
    note(answers, ids, await asked.ask(calls.hurry(tasks=ids)))
    return summed(answers, _HURRIED, "queued limited")
