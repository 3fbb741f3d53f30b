"""Workflows that have not ended."""

from typing import Any

from ..._server import calls
from .._asked import Asked

_LIMIT = 50


async def read(asked: Asked) -> dict[str, Any]:
    offset = asked.number("from")
    rows = await asked.ask(calls.workflows(offset=offset, limit=_LIMIT + 1))
    return {
        "queue": asked.app.queue_name,
        "workflows": [row._asdict() for row in rows[:_LIMIT]],
        "from": offset,
        "next": offset + _LIMIT if len(rows) > _LIMIT else None,
    }
