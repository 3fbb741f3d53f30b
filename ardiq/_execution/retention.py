"""Trimming dead letters, if the app limits how long or how many are kept."""

import asyncio
import logging
from typing import TYPE_CHECKING

from .._server import calls
from ..errors import ArdiqError, is_away

if TYPE_CHECKING:
    from .._client.queue import QueueContext

log = logging.getLogger("ardiq")

_PERIOD_S = 1.0
_PORTION = 200


async def retain(queue: "QueueContext") -> None:
    """Delete, once a second, the dead letters beyond the app's limits; runs forever."""
    settings, channel, said = queue.settings, queue.channel(), ""
    ttl_ms = 0 if settings.dead_ttl_ms is None else settings.dead_ttl_ms
    most = -1 if settings.dead_limit is None else settings.dead_limit
    while True:
        try:
            more = True
            while more:
                call = calls.discard_old(
                    dead_ttl_ms=ttl_ms, dead_limit=most, limit=_PORTION, result_ttl_ms=settings.result_ttl_ms
                )
                more = (await channel.ask(call)).more
        except ArdiqError as error:
            if is_away(error):
                log.debug("dead letters are not trimmed: %s", error)
            elif said != str(error):
                said = str(error)
                log.error("dead letters are not trimmed: %s", error)
        await asyncio.sleep(_PERIOD_S)
