"""Recurring tasks."""

from typing import Any

from ..._server import calls
from ...cli._plain import plain_schedule
from ...schedules import read_schedule
from .._asked import Asked


async def read(asked: Asked) -> dict[str, Any]:
    page = await asked.ask(calls.schedules(cursor=asked.cursor(), limit=calls.SCHEDULES_LIMIT_MOST))
    found = [plain_schedule(read_schedule(row)) for row in page.rows]
    found.sort(key=lambda schedule: (schedule["next_due_at"], schedule["name"]))
    return {"queue": asked.app.queue_name, "schedules": found, "next": _next(page.cursor)}


def _next(cursor: str) -> str | None:
    return None if cursor == "0" else cursor
