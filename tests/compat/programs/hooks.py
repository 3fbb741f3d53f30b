"""Hooks, middleware, lifespan; headers through the codec; a patched enqueue; cron occurrences."""

import asyncio
import os
import pickle
from unittest.mock import AsyncMock, patch

from observed import drain, see, see_later, working

from ardiq import Ardiq, Job, Task

URL = os.environ["ARDIQ_REDIS_URL"]


async def headers(name, codec, sent):
    app = Ardiq(URL, f"headers-{name}", serializer=codec[0], deserializer=codec[1])
    seen = []

    @app.on_enqueue
    async def hook(ctx):
        ctx.headers.update(sent)
        seen.append([ctx.name, ctx.args, ctx.kwargs])

    @app.middleware
    async def around(ctx, call_next):
        seen.append([ctx.name, ctx.tries, ctx.args, ctx.kwargs, ctx.headers])
        return [await call_next(), "wrapped"]

    task = app.task(name="f")(lambda *args, **kwargs: len(args))
    job = await see_later(f"{name}: enqueued", lambda: is_job(task.enqueue(1, (2,), k={"a": 4})))
    await drain(app)
    if job is not None:
        result = await job.result()
        see(f"{name}: result", result and result.value)
    see(f"{name}: seen", seen)


async def raising():
    app = Ardiq(URL, "raising")

    @app.on_enqueue
    def hook(ctx):
        raise LookupError("no")

    task = app.task(name="f")(lambda: 1)
    await see_later("a hook that raises", task.enqueue)
    await see_later("nothing was sent", app.queue_size)
    await see_later("in a batch", lambda: app.enqueue_many([task.prepare()]))


async def lifespan():
    app = Ardiq(URL, "lifespan")
    order = []

    @app.lifespan
    async def scope():
        order.append("up")
        yield {"db": 5}
        order.append("down")

    @app.middleware
    async def outer(ctx, call_next):
        order.append("outer")
        return await call_next()

    @app.middleware
    async def inner(ctx, call_next):
        order.append("inner")
        return await call_next() + 1

    task = app.task(name="f")(lambda: app.state.db)
    job = await task.enqueue()
    await drain(app)
    see("lifespan", order)
    see("state", (await job.result()).value)

    bad = Ardiq(URL, "lifespan-bad")

    @bad.lifespan
    async def wrong():
        yield 5

    await see_later("a lifespan that yields a number", lambda: drain(bad))


async def crons():
    app = Ardiq(URL, "crons", cron_poll_s=0.1, poll_block_ms=50)
    enqueued, ran = [], []

    @app.on_enqueue
    def hook(ctx):
        enqueued.append((ctx.task_id, ctx.name, ctx.args, ctx.kwargs))
        ctx.headers["h"] = 1

    @app.middleware
    async def around(ctx, call_next):
        ran.append((ctx.task_id, ctx.headers))
        return await call_next()

    @app.cron(every=0.3)
    async def tick():
        return "tock"

    async with working(app):
        async with asyncio.timeout(20):
            while len(ran) < 2:
                await asyncio.sleep(0.05)
    see("cron: id", all(task_id == f"cron:tick:{int(task_id.rpartition(':')[2])}" for task_id, _ in ran))
    see("cron: on the interval", all(int(task_id.rpartition(":")[2]) % 300 == 0 for task_id, _ in ran))
    see("cron: headers", [headers for _, headers in ran][:2])
    see("cron: passed on_enqueue", {task_id for task_id, _ in ran} <= {each[0] for each in enqueued})
    see("cron: call", [*enqueued[0][1:]] if enqueued else None)
    result = await app.result(ran[0][0])
    see("cron: result", result and result.value)


async def patched():
    app = Ardiq(URL, "patched")
    task = app.task(name="f")(lambda x: x)
    fake = AsyncMock(return_value=Job(app, "fake"))
    with patch.object(Task, "enqueue", fake):
        await see_later("patched on the class", lambda: id_of(task.enqueue(1)))
    with patch.object(task, "enqueue", fake):
        await see_later("patched on the task", lambda: id_of(task.enqueue(1)))
    with patch.object(app, "send", fake):
        await see_later("patched send", lambda: id_of(app.send("f", 1)))
    with patch.object(app, "enqueue_many", AsyncMock(return_value=[])):
        await see_later("patched many", app.enqueue_many([]))
    see("a coroutine function", [asyncio.iscoroutinefunction(task.enqueue), asyncio.iscoroutinefunction(app.send)])
    bound = task.options(delay_ms=1)
    see("a coroutine function with options", asyncio.iscoroutinefunction(bound.enqueue))
    see("a mock's spec", asyncio.iscoroutinefunction(AsyncMock(spec=Task).enqueue))


async def is_job(enqueued):
    return await enqueued


async def id_of(enqueued):
    return (await enqueued).id


async def main():
    await headers("plain", (None, None), {"trace": "x", "list": [1], "none": None})
    await headers("bytes", (None, None), {"b": b"x"})
    await headers("pickled", (pickle.dumps, pickle.loads), {"tuple": (1, {2}), "bytes": b"x"})
    await raising()
    await lifespan()
    await crons()
    await patched()


asyncio.run(main())
