"""The tasks of one place."""

from typing import Any

from ..._client.overview import worker_of
from ..._server import calls
from .._asked import Asked, Refused
from . import finding

STATES = ("queued", "running", "scheduled", "held", "dead", "quarantined")
_WORKERS = calls.LONGEST_RUNNING_MOST


async def read(asked: Asked) -> dict[str, Any]:
    state = asked.params.get("state") or "queued"
    if state not in STATES:
        raise Refused(400, f"state must be one of {', '.join(STATES)}")
    wanted, of = finding.filters(asked), asked.params.get("of", "")
    overview = asked.samples.overview.last
    parts: list[str] = []
    if state in ("queued", "held"):
        overview = await asked.samples.overview.get()
        held_of = overview.counts.ready if state == "queued" else overview.held
        parts = [part for part in dict.fromkeys([*held_of, *filter(None, [of])]) if not _is_secret(asked, state, part)]
        if of and of not in parts:
            raise Refused(403, "this pause is by an argument that you may not see")
        of = of or next(iter(parts), "")
    told = {"state": state, "of": of, "parts": parts, "name": wanted.task, "q": wanted.text, "arg": wanted.told}
    counts = {} if overview is None else {name: getattr(overview.counts, name) for name in STATES}
    if state == "running" and not of:
        found = await _running(asked, wanted)
    elif state in ("queued", "held") and not of:
        found = {"tasks": [], "from": 0, "looked_at": 0, "size": 0, "next": None}
    else:
        found = await finding.find(asked, state, of, wanted)
    return {"queue": asked.app.queue_name, "counts": counts, **told, **found}


def _is_secret(asked: Asked, state: str, part: str) -> bool:
    return state == "held" and finding.is_secret_pause(asked, part)


async def _running(asked: Asked, wanted: finding.Filters) -> dict[str, Any]:
    """The longest running tasks of a hundred workers."""
    if wanted.text or wanted.argument:
        raise Refused(400, "to search the arguments of running tasks, choose a worker: of=WORKER")
    page = await asked.ask(calls.workers(cursor="0", limit=_WORKERS))
    workers = [worker_of(row, page.now) for row in page.rows if row.claimed]
    busy = [calls.WorkerSlots(worker.worker, worker.concurrency or worker.claimed) for worker in workers]
    found = await asked.ask(calls.longest_running(limit=finding.LIMIT, workers=busy)) if busy else None
    rows = [] if found is None else [row for row in found.rows if wanted.task in ("", row.name)]
    tasks = [
        {
            "id": row.id,
            "name": row.name,
            "state": "running",
            "lane": row.lane,
            "tries": row.tries,
            "number": row.started_at,
            "error": "",
            "arguments": None,
        }
        for row in rows
    ]
    return {
        "tasks": tasks,
        "from": 0,
        "looked_at": len(tasks),
        "size": sum(row.claimed for row in page.rows),
        "next": None,
    }
