"""Pausing workflows, and running again what failed of them."""

from typing import Any

from ..._client.following import WorkflowJob
from ...cli._output import many
from .._asked import Asked, Refused
from .told import Form, Told


async def pause(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    job = _job(asked, form)
    done = await job.pause()
    answers[job.id] = "paused" if done else "finished"
    told = "paused; what runs goes on" if done else "ended or unknown; nothing was changed"
    return Told(f"{job.id}: {told}.", done)


async def resume(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    job = _job(asked, form)
    done = await job.resume()
    answers[job.id] = "resumed" if done else "not_paused"
    return Told(f"{job.id}: goes on." if done else f"{job.id}: not paused; nothing was changed.", done)


async def retry(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    job = _job(asked, form)
    count = await job.retry()
    answers[job.id] = f"requeued {count}"
    if not count:
        return Told(f"{job.id}: has no dead letters; nothing was changed.", False)
    return Told(f"{job.id}: {many(count, 'dead letter')} queued again.")


def _job(asked: Asked, form: Form) -> WorkflowJob[Any]:
    if not form.get("id"):
        raise Refused(400, "Name the workflow.")
    return WorkflowJob(asked.app, form["id"])
