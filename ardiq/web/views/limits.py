"""The limits of the queue, and the keys of one."""

from typing import Any

from ..._client.limiting import info_of
from ..._server import calls
from ...batches import is_batch
from ...cli._plain import plain_limit
from .._asked import Asked, Refused

_LIMIT = 100


async def read(asked: Asked) -> dict[str, Any]:
    name, cursor = asked.params.get("name", ""), asked.cursor()
    page: calls.LimitsReply | calls.BucketsReply
    if name:
        if not asked.sees_payloads:
            raise Refused(403, "your role may not see keys, which are values of arguments")
        page = await asked.ask(calls.buckets(name=name, cursor=cursor, limit=_LIMIT))
    else:
        page = await asked.ask(calls.limits(cursor=cursor, limit=_LIMIT))
    found = [plain_limit(info_of(row)) for row in page.rows if not is_batch(row.bucket)]
    if not asked.sees_payloads:
        found = [limit for limit in found if limit["key"] is None]
    found.sort(key=lambda limit: (limit["name"], limit["key"] or ""))
    return {
        "queue": asked.app.queue_name,
        "name": name,
        "limits": found,
        "next": None if page.cursor == "0" else page.cursor,
    }
