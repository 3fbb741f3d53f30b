"""How long dead letters are kept, where the app says so: a worker trims them now and then."""

import asyncio
import logging
from typing import TYPE_CHECKING

from ..errors import ArdiqError, is_away

if TYPE_CHECKING:
    from ..app import Ardiq

log = logging.getLogger("ardiq")

_PERIOD_S = 1.0
_PORTION = 200


async def retain(app: "Ardiq") -> None:
    """Delete, once a second, the dead letters that are older or more than the app keeps; for ever."""
    ttl_ms = 0 if app.dead_ttl_ms is None else app.dead_ttl_ms
    most = -1 if app.dead_limit is None else app.dead_limit
    line, said = app._broker.line(asyncio.get_running_loop()), ""
    while True:
        try:
            more = True
            while more:
                _, more = await line.call("trim", ttl_ms, most, _PORTION, app.result_ttl_ms)
        except ArdiqError as error:
            if is_away(error):
                log.debug("dead letters are not trimmed: %s", error)
            elif said != str(error):
                said = str(error)
                log.error("dead letters are not trimmed: %s", error)
        await asyncio.sleep(_PERIOD_S)
