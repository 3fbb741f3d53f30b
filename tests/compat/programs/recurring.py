"""Recurring tasks on a worker: short intervals, and `coalesce`."""

import asyncio
import os
from itertools import pairwise

from observed import see, working

from ardiq import Ardiq

URL = os.environ["ARDIQ_REDIS_URL"]


async def intervals():
    app = Ardiq(URL, "intervals", poll_block_ms=50)  # a look each second
    due = []

    @app.middleware
    async def around(ctx, call_next):
        due.append(int(ctx.task_id.rpartition(":")[2]))
        return await call_next()

    @app.cron(every=0.2)
    async def tick(): ...

    async with working(app):
        async with asyncio.timeout(20):
            while len(due) < 6:
                await asyncio.sleep(0.05)
    see("each occurrence once", len(set(due)) == len(due))
    due.sort()
    see("each occurrence of a short interval", {b - a for a, b in pairwise(due)} == {200})


async def coalescing():
    app = Ardiq(URL, "coalescing", cron_poll_s=0.1, poll_block_ms=50, concurrency=3)
    running, most = 0, 0

    @app.cron(every=0.3, coalesce=True)
    async def slow():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1.5)
        running -= 1

    async with working(app):
        await asyncio.sleep(3)
        waiting = await app.queue_size() - running
    see("coalesced: side by side", most > 1)
    see("coalesced: no backlog", waiting <= 2)


async def main():
    await asyncio.gather(intervals(), coalescing())


asyncio.run(main())
