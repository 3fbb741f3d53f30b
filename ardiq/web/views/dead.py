"""Dead letters: by task and kind of error, and one by one."""

from typing import Any

from .._asked import Asked
from . import finding


async def read(asked: Asked) -> dict[str, Any]:
    wanted = finding.filters(asked)
    groups = await asked.samples.failures.get()
    found = await finding.find(asked, "dead", "", wanted)
    return {
        "queue": asked.app.queue_name,
        "name": wanted.task,
        "q": wanted.text,
        "arg": wanted.told,
        "groups": [
            {"name": group.fn_name, **dict(zip(group._fields[1:], group[1:], strict=True))} for group in groups.groups
        ],
        "grouped": groups.looked_at,
        "dead": found["size"],
        **found,
    }
