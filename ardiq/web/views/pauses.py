"""What is paused."""

from typing import Any

from .._asked import Asked
from .finding import is_secret_pause


async def read(asked: Asked) -> dict[str, Any]:
    pauses = [pause._asdict() for pause in await asked.app.pauses()]
    for pause in pauses:
        pause["is_hidden"] = is_secret_pause(asked, pause["id"])
        if pause["is_hidden"]:
            pause["value"], pause["id"] = None, f"{pause['task'] or '*'}({pause['argument']}=…)"
    return {"queue": asked.app.queue_name, "pauses": pauses, "tasks": asked.app.tasks}
