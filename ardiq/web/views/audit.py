"""What people did to the queue."""

from typing import Any

from ..._server import calls
from .._asked import Asked

_LIMIT = 50


async def read(asked: Asked) -> dict[str, Any]:
    offset = asked.number("from", most=calls.AUDIT_OFFSET_MOST)
    page = await asked.ask(calls.audit(offset=offset, limit=_LIMIT))
    actions = [row._asdict() for row in page.rows]
    if not asked.sees_payloads:  # keys of limits, texts of errors
        for action in actions:
            del action["subject"], action["outcome"]
    return {
        "queue": asked.app.queue_name,
        "actions": actions,
        "from": offset,
        "next": offset + _LIMIT if offset + _LIMIT < page.size else None,
    }
