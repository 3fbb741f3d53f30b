"""Pausing, resuming and running schedules."""

from .._asked import Asked, Refused
from .told import Form, Told


async def pause(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    name = _name(form)
    found = await asked.app.schedules.pause(name)
    answers[name] = "paused" if found else "not_found"
    return Told(f"Schedule {name!r} is paused: its occurrences are skipped.") if found else _gone(name)


async def resume(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    name = _name(form)
    found = await asked.app.schedules.resume(name)
    answers[name] = "resumed" if found else "not_found"
    return Told(f"Schedule {name!r} goes on.") if found else _gone(name)


async def run(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    name = _name(form)
    job = await asked.app.schedules.run_now(name)
    answers[name] = "not_found" if job is None else job.id
    return _gone(name) if job is None else Told(f"Schedule {name!r} was run: its task is {job.id}.")


def _name(form: Form) -> str:
    name = form.get("name", "")
    if not name:
        raise Refused(400, "Name the schedule.")
    return name


def _gone(name: str) -> Told:
    return Told(f"There is no schedule {name!r} any more; nothing was changed.", False)
