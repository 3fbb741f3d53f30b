"""The connections of an app to its server, for programs that open and close what they use."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .. import _core
from .._server.commands import ping
from ..errors import ArdiqError
from .facade import Facade

_log = logging.getLogger("ardiq")


class Connecting(Facade):
    """Opening and closing connections; a part of `Ardiq`."""

    async def ping(self) -> None:
        """Check that the server answers, as a health check does; on a thread, within `broker_timeout_ms`.

        Raises:
            BrokerError: it does not.
            Forbidden: it does not know the user.

        Example:
            ```python
            @api.get("/health")
            async def health() -> str:
                await app.ping()
                return "well"
            ```
        """
        await asyncio.to_thread(self.ping_sync)

    def ping_sync(self) -> None:
        """`ping` for code without an event loop; blocks this thread until the server has answered."""
        ping(self._opened())

    async def aclose(self) -> None:
        """Close the connections of all its queues; the next call opens them again. Calls that are under way are lost:
        await them before, and do not close an app whose worker runs in this process.
        """
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """`aclose` for code without an event loop."""
        for queue in list(self.context.family.values()):
            queue.server.close()

    @asynccontextmanager
    async def connected(self, host: object = None) -> AsyncIterator[None]:
        """A lifespan for FastAPI, Starlette and Litestar: connected from the start of a web server to its end.

        The connection is there before the first request. A server that does not answer is logged as a warning: the web
        server starts, and calls reach the server once it is back.

        Args:
            host: the web app, which frameworks give to a lifespan; it does not matter which.

        Example:
            ```python
            api = FastAPI(lifespan=app.connected)
            ```
        """
        try:
            await asyncio.to_thread(self._opened)  # an embedded server takes its time
            self.context.channel()  # the loop's connection, which registers the queue
            await self.ping()
        except ArdiqError as error:
            _log.warning("%s; trying again with the next call", error)
        try:
            yield
        finally:
            await self.aclose()

    def _opened(self) -> _core.Core:
        return self.context.server.core
