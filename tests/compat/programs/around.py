"""What runs around tasks: contexts, middleware, hooks and lifespans that raise, stopping, metrics."""

import asyncio
import contextvars
import os
import threading
import time

from observed import drain, kind_of, see, see_later, working

from ardiq import Ardiq, Retry, current_task

URL = os.environ["ARDIQ_REDIS_URL"]
variable = contextvars.ContextVar("variable", default="none")


def task_now():
    task = current_task()
    return None if task is None else [task.name, task.tries]


async def contexts():
    app = Ardiq(URL, "contexts", concurrency=1)
    seen = {}

    @app.lifespan
    async def scope():
        variable.set("lifespan")
        seen["in lifespan"] = task_now()
        yield

    @app.middleware
    async def around(ctx, call_next):
        seen[f"{ctx.name}: before"] = [variable.get(), task_now()]
        variable.set("middleware")
        try:
            return await call_next()
        finally:
            seen[f"{ctx.name}: after"] = [variable.get(), task_now()]

    @app.on_error
    def told(ctx):
        seen[f"{ctx.name}: on_error"] = [variable.get(), task_now()]

    @app.task
    async def on_loop():
        before = variable.get()
        variable.set("task")
        return [before, task_now()]

    @app.task
    def on_thread():
        before = variable.get()
        variable.set("task")
        return [before, task_now(), threading.current_thread() is threading.main_thread()]

    @app.task(timeout=5)
    async def limited():
        variable.set("task")
        return [variable.get(), task_now()]

    @app.task(max_retries=0)
    async def fails():
        variable.set("task")
        raise ValueError

    jobs = {task.name: await task.enqueue() for task in (on_loop, on_thread, limited, fails)}
    await drain(app)
    for name, job in jobs.items():
        see(f"context: {name}", (await job.result()).value)
    for name, what in seen.items():
        see(f"context: {name}", what)
    see("context: outside", [variable.get(), task_now(), on_loop.fn is not None])


async def middleware():
    app = Ardiq(URL, "middleware")
    told = []

    @app.on_error
    async def first(ctx):
        told.append([ctx.name, kind_of(ctx.exc), ctx.tries, ctx.will_retry])
        raise RuntimeError("a hook that raises changes nothing")

    app.on_error(lambda ctx: told.append([ctx.name, "second"]))

    @app.middleware
    async def around(ctx, call_next):
        if ctx.name == "not_called":
            return "instead"
        if ctx.name == "raises":
            raise LookupError("middleware")
        if ctx.name == "swallowed":
            try:
                await call_next()
            except Exception as error:
                return kind_of(error)
        if ctx.name == "twice":
            return [await call_next(), await call_next()]
        if ctx.name == "retried" and ctx.tries < 3:
            raise Retry("once more", delay_ms=1)
        if ctx.name == "changed":
            ctx.args[0].append(1)
            ctx.kwargs["b"] = 2
        return await call_next()

    count = 0

    def counts():
        nonlocal count
        count += 1
        return count

    async def times_out():
        await asyncio.sleep(5)

    def raising():
        raise ValueError

    tasks = {
        name: app.task(name=name, max_retries=2, backoff_ms=1, **options)(fn)
        for name, fn, options in (
            ("not_called", counts, {}), ("raises", counts, {}), ("swallowed", raising, {}), ("twice", counts, {}),
            ("retried", counts, {}), ("changed", lambda a, b=1: [a, b], {}),
        )
    } | {"timed out": app.task(name="times_out", timeout=0.05, max_retries=0)(times_out)}  # fmt: skip
    jobs = {name: await task.enqueue(*([[]] if name == "changed" else [])) for name, task in tasks.items()}
    async with working(app):
        for name, job in jobs.items():
            result = await job.result(timeout=20)
            see(f"middleware: {name}", [result.success, result.value, result.tries])
    see("middleware: told", sorted(map(str, told)))


async def lifespans():
    for name, before, after in (("start", True, False), ("end", False, True)):
        app = Ardiq(URL, f"lifespan-{name}", burst=True)

        @app.lifespan
        async def scope(before=before, after=after):
            if before:
                raise KeyError("start")
            yield {"db": 1}
            if after:
                raise KeyError("end")

        app.task(name="f")(lambda: 1)
        job = await app.send("f")
        await see_later(f"lifespan: raises at its {name}", app.run)
        await see_later(f"lifespan: ran, {name}", job.status)
    app = Ardiq(URL, "lifespan-twice", burst=True)

    @app.lifespan
    async def twice():
        yield
        yield

    await see_later("lifespan: yields twice", app.run)


async def stopping():
    app = Ardiq(URL, "stopping", concurrency=2, poll_block_ms=50)
    started, ended = [], []

    @app.task
    async def slow():
        started.append(1)
        await asyncio.sleep(1)
        ended.append("async")
        return 1

    @app.task
    def slow_thread():
        started.append(2)
        time.sleep(1)
        ended.append("thread")
        return 2

    jobs = [await slow.enqueue(), await slow_thread.enqueue(), await slow.enqueue()]
    async with working(app):
        while len(started) < 2:
            await asyncio.sleep(0.02)
    see("stopping: waits for what runs", sorted(ended))
    see("stopping: status", [await job.status() for job in jobs])
    see("stopping: state", [app.burst, len(app.tasks)])
    app = Ardiq(URL, "stopping-before")
    app.task(name="f")(lambda: 1)
    app.stop()
    app.burst = True
    await see_later("stopping: before it runs", lambda: asyncio.wait_for(app.run(), 10))


async def metrics():
    app = Ardiq(URL, "metrics", ["low", "high"])

    @app.task(max_retries=1, backoff_ms=1)
    async def work(how):
        if how == "fail" or (how == "retry" and current_task().tries == 1):
            raise ValueError(how)

    see("metrics: of nothing", app.metrics())
    for how in ("succeed", "succeed", "retry", "fail"):
        await work.enqueue(how)
    await work.options(priority="low").enqueue("succeed")
    async with working(app):
        async with asyncio.timeout(20):
            while await app.queue_size():
                await asyncio.sleep(0.05)
    for each in sorted(app.metrics(), key=lambda each: each.priority):
        name = f"metrics: {each.fn_name} {each.priority}"
        see(name, [each.succeeded, each.retried, each.failed, each.aborted, each.run.count])
        see(f"{name}: waits", each.wait.count)
        see(f"{name}: bounds", [bound for bound, _ in each.run.buckets])
        see(f"{name}: cumulative", [each.run.buckets[-1][1] <= each.run.count, each.run.sum >= 0])


async def main():
    for part in (contexts, middleware, lifespans, stopping, metrics):
        await see_later(part.__name__, part)


asyncio.run(main())
