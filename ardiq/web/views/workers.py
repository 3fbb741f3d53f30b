"""The workers of the queue."""

from typing import Any

from ..._client.overview import worker_of
from ..._server import calls
from ...cli._plain import plain_worker
from .._asked import Asked

_LIMIT = 50


async def read(asked: Asked) -> dict[str, Any]:
    page = await asked.ask(calls.workers(cursor=asked.cursor(), limit=_LIMIT))
    workers = [plain_worker(worker_of(row, page.now)) for row in page.rows]
    workers.sort(key=lambda worker: (worker["lease_left_ms"], worker["id"]))
    versions = sorted({worker["version"] for worker in workers if worker["version"]})
    return {
        "queue": asked.app.queue_name,
        "alive": page.alive,
        "workers": workers,
        "versions": versions,
        "next": None if page.cursor == "0" else page.cursor,
    }
