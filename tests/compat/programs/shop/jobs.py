"""The apps that `ardiq …` is told of by the programs beside this package."""

import asyncio
import os

from ardiq import Ardiq

URL = os.environ["ARDIQ_REDIS_URL"]
app = Ardiq(URL, "shop", ["low", "high"], default_priority="low")
busy = Ardiq(URL, "busy", worker_id="a-worker", concurrency=1, prefetch=1)
unused = Ardiq(URL, "unused")
away = Ardiq("redis://127.0.0.1:1", "away")
not_an_app = 5

for each in (unused, away):
    each.task(name="add")(lambda a, b: a + b)


@app.task
async def add(a, b):
    return a + b


@app.task(max_retries=0)
async def fails(text):
    raise ValueError(text)


@app.task(max_retries=0)
async def slow(seconds):
    await asyncio.sleep(seconds)


@app.task(max_retries=0)
async def dies():
    os._exit(7)


@app.cron("0 3 * * *", priority="high")
async def nightly():
    pass


@busy.task
async def holds():
    await asyncio.sleep(600)


@busy.cron(every=3600)
async def hourly():
    pass
