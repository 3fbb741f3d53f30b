"""One workflow, as a graph and as a table of its nodes."""

from typing import Any

from ..._client.following import node_of, progress_of
from ..._client.inspector import number_of, text_of
from ..._server import calls
from .._asked import Asked, Refused

_LIMIT = 1000


async def read(asked: Asked) -> dict[str, Any]:
    workflow_id = asked.path["id"]
    page = await asked.ask(calls.workflow(id=workflow_id, offset=0, limit=_LIMIT))
    if page.kind != "workflow":
        raise Refused(404, f"there is no workflow {workflow_id!r}: it was never started, or is no longer kept")
    record = await asked.ask(calls.task(id=workflow_id))
    progress = progress_of(page.rows)
    state = text_of(record, "state")
    nodes = []
    for node in (node_of(workflow_id, row) for row in page.rows):
        plain = node._asdict()
        plain["id"] = plain.pop("task_id")
        nodes.append(plain)
    return {
        "queue": asked.app.queue_name,
        "id": workflow_id,
        "name": text_of(record, "name"),
        "state": "running" if state == "blocked" else state,
        "enqueued_at": number_of(record, "enqueued_at"),
        "finished_at": number_of(record, "finished_at") or None,
        "error": text_of(record, "error"),
        "progress": {**progress._asdict(), "fraction": progress.fraction, "message": progress.message},
        "nodes": nodes,
    }
