"""The app that is measured: a user's, with default options."""

import asyncio
import os
import time

from ardiq import Ardiq

app = Ardiq(queue_name="bench", concurrency=int(os.environ.get("BENCH_CONCURRENCY", "16")))


@app.task
async def noop() -> None:
    """A task that costs nothing but its queueing."""


@app.task
def noop_thread() -> None:
    """The same on a thread."""


@app.task
async def nap(seconds: float) -> None:
    """A task that waits, as most do."""
    await asyncio.sleep(seconds)


@app.task
async def clock() -> int:
    """When it ran: the monotonic clock is the same in every process."""
    return time.monotonic_ns()


@app.task(max_retries=0)
async def fail() -> None:
    """One that becomes a dead letter."""
    raise ValueError("no")


@app.task
async def payload(text: str) -> None:
    """A task with an argument of a certain size."""
