"""Messages of a later version of the library, which may say more than this one knows."""

import asyncio
from typing import Any

from helpers import SOON_S, eventually, working

from ardiq import Ardiq

BASE = "ardiq:{later}:"


def command(app: Ardiq, *words: object) -> Any:
    return app.context.server.core.command([str(word) for word in words])


def packed(*fields: str) -> str:
    return "".join(f"{len(field)}:{field}," for field in fields)


async def test_an_end_that_says_more_is_heard(make_app: Any) -> None:
    app = make_app(queue_name="later")
    job = await app.ref("work").enqueue()
    waiting = asyncio.create_task(job.result(SOON_S))
    await eventually(lambda: command(app, "SMEMBERS", f"{BASE}waiters:{job.id}"))
    (mailbox,) = command(app, "SMEMBERS", f"{BASE}waiters:{job.id}")
    message = packed("finished", job.id, "complete", "1", "1", "1", "1", "", "42", "more")
    command(app, "RPUSH", f"{BASE}mailbox:{mailbox.decode()}", message)
    result = await waiting
    assert result is not None
    assert (result.value, result.success) == (42, True)


async def test_an_abort_that_says_more_is_heeded(make_app: Any) -> None:
    app = make_app(queue_name="later")
    started = asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        await asyncio.sleep(60)

    async with working(app):
        job = await work.enqueue()
        await asyncio.wait_for(started.wait(), SOON_S)
        (worker,) = command(app, "ZRANGE", f"{BASE}workers", 0, -1)
        token = command(app, "HGET", f"{BASE}running:{worker.decode()}", job.id).decode()
        mailbox = command(app, "HGET", f"{BASE}worker:{worker.decode()}", "mailbox").decode()
        command(app, "RPUSH", f"{BASE}mailbox:{mailbox}", packed("abort", job.id, token, "more"))
        result = await job.result(SOON_S)
    assert result is not None
    assert result.success is False
