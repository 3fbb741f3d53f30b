"""What a handler on the logger "ardiq" sees of a worker: names, levels, messages."""

import asyncio
import logging
import os
import re

from observed import drain, see, working

from ardiq import Ardiq, Retry

app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "logged", worker_id="a-worker")
records = []


class Kept(logging.Handler):
    def emit(self, record):
        text = re.sub(r"duration_ms=\d+", "duration_ms=N", record.getMessage())
        records.append([record.name, record.levelname, text, record.exc_info is not None])


@app.lifespan
async def lifespan():
    yield {"pool": 1}


@app.on_error
def hook(ctx):
    if ctx.name == "fails":
        raise RuntimeError("the hook")


@app.task
async def adds(a, b):
    return a + b


@app.task
def in_thread():
    return 1


@app.task(max_retries=0)
async def fails():
    raise ValueError("no")


@app.task(max_retries=0)
def fails_in_thread():
    raise ValueError("no\nnever")


@app.task(max_retries=1, backoff_ms=1)
async def again():
    raise KeyError("again")


@app.task(max_retries=1)
async def asks():
    raise Retry("later", delay_ms=60_000)


@app.task(timeout=0.1, max_retries=0)
async def slow():
    await asyncio.sleep(60)


@app.task(timeout=0.1, max_retries=2)
async def slow_again():
    await asyncio.sleep(60)


@app.task
async def stopped():
    await asyncio.sleep(60)


async def main():
    logger = logging.getLogger("ardiq")
    see("handlers of its own", [type(handler).__name__ for handler in logger.handlers])
    see("level", logger.level)
    see("propagates", logger.propagate)
    logger.addHandler(Kept())
    logger.setLevel(logging.DEBUG)
    for task in (adds, in_thread, fails, fails_in_thread, again, asks, slow, slow_again, stopped):
        args = (1, 2) if task is adds else ()
        await task.options(task_id=f"id-{task.name}").enqueue(*args)
    await app.ref("nothing").options(task_id="id-nothing").enqueue()
    waits = await adds.options(task_id="id-aborted", delay_ms=60_000).enqueue(1, 2)
    await waits.abort()
    async with working(app):
        for _ in range(200):
            if await app.status("id-stopped") == "running":
                break
            await asyncio.sleep(0.05)
        await app.abort("id-stopped")
        for _ in range(200):
            if await app.status("id-stopped") == await app.status("id-again") == "complete":
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # the others are faster
    see("names", sorted({record[0] for record in records}))
    for name in (
        "adds",
        "in_thread",
        "fails",
        "fails_in_thread",
        "again",
        "asks",
        "slow",
        "slow_again",
        "stopped",
        "nothing",
        "aborted",
    ):
        mine = [record for record in records if f"id=id-{name} " in record[2]]
        see(f"{name}: lines", [record[1:3] for record in mine])
        see(f"{name}: with a traceback", [record[3] for record in mine])
    see("lifespan", [record[1:3] for record in records if record[2].startswith("lifespan")])
    see("a hook that raises", [[record[1], record[3]] for record in records if "on_error hook failed for" in record[2]])

    logger.setLevel(logging.INFO)
    records.clear()
    await adds.enqueue(1, 2)
    await drain(app)
    see("at info", [record[1:3] for record in records if record[2].startswith(("task", "lifespan"))])


asyncio.run(main())
