"""Work that goes on while the servers are disturbed, and whether all of it came through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from helpers import eventually, result_of
from topologies import Node

from ardiq import Ardiq


class Stream:
    """Tasks that are enqueued one after the other, and what became of them."""

    def __init__(self, app: Ardiq) -> None:
        self.ran: list[int] = []
        self.confirmed: list[int] = []

        @app.task(max_retries=0)
        async def work(number: int) -> int:
            self.ran.append(number)
            return number

        self._work = work

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Tasks are enqueued and run throughout, a few more when the block has ended; each ran once."""
        ended = asyncio.Event()
        producing = asyncio.create_task(self._produce(ended))
        await self.proceeds()
        yield
        await self.proceeds()
        ended.set()
        await producing
        assert sorted(self.ran) == self.confirmed == list(range(len(self.ran)))

    async def proceeds(self) -> None:
        """More tasks come through."""
        enough = len(self.confirmed) + 5
        await eventually(lambda: len(self.confirmed) >= enough)

    async def _produce(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            number = len(self.confirmed)
            assert (await result_of(await self._work.enqueue(number))).value == number
            self.confirmed.append(number)


def offset(node: Node) -> int:
    """How far a server is in the stream of writes: a replica that is as far as its primary has everything."""
    role = node.command("ROLE")
    return int(role[1] if role[0] == "master" else role[4])
