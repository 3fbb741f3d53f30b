"""Workflows with nodes in other queues of the same server."""

import asyncio
from types import SimpleNamespace
from typing import Any

from helpers import SOON_S, result_of

from ardiq import Ardiq, Flow


def tasks_of(app: Ardiq) -> Any:
    @app.task
    async def give(value: int) -> int:
        return value

    @app.task(max_retries=0)
    async def double(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return 2 * value

    @app.task
    def total(values: list[int], plus: int = 0) -> int:
        return sum(values) + plus

    return SimpleNamespace(give=give, double=double, total=total)


async def test_there_and_back(app: Ardiq) -> None:
    tasks = tasks_of(app)
    gpu = app.queue(f"{app.queue_name}-gpu")
    flow = Flow("away")
    first = flow.add(tasks.give.prepare(3))
    there = flow.add(tasks.double.prepare(first.result), queue=gpu.queue_name)
    last = flow.add(tasks.give.prepare(there.result))
    job = await app.start(flow, output=last)
    run = asyncio.create_task(app.run([app.queue_name, gpu.queue_name]))
    try:
        assert await job.value(timeout=SOON_S) == 6
        assert (await result_of(job.node("double"))).value == 6
    finally:
        app.stop()
        await run
