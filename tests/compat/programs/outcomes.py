"""What becomes of tasks: results, retries, aborts, expiry, dead letters, counts."""

import asyncio
import os

from observed import drain, kind_of, see, see_later, working

from ardiq import Ardiq, Retry, current_task

URL = os.environ["ARDIQ_REDIS_URL"]
app = Ardiq(URL, "outcomes", ["low", "high"], poll_block_ms=100)
errors, started = [], asyncio.Event()


@app.on_error
def told(ctx):
    errors.append([ctx.name, kind_of(ctx.exc), ctx.tries, ctx.will_retry])


@app.task
async def add(a, b=1):
    return a + b


@app.task()
def in_thread(a):
    return [a, current_task().name, current_task().tries]


@app.task(max_retries=0)
async def fails(why="no"):
    raise ValueError(why)


@app.task(max_retries=2, backoff_ms=1)
async def flaky():
    if current_task().tries < 3:
        raise KeyError("flaky")
    return current_task().tries


@app.task(max_retries=1)
async def asks():
    raise Retry("again", delay_ms=1)


@app.task(max_retries=0, timeout=0.05)
async def slow():
    await asyncio.sleep(30)


@app.task(max_retries=0, timeout=0.05)
def slow_thread():
    import time

    time.sleep(0.5)


@app.task(max_retries=0)
async def own_timeout():
    raise TimeoutError("mine")


@app.task
async def waits():
    started.set()
    await asyncio.sleep(30)


@app.task
async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(30)


@app.task
async def raises_cancelled():
    raise asyncio.CancelledError


@app.task(max_retries=0)
async def exits():
    raise SystemExit(3)


@app.task(unique=True)
async def only_one(a, b=0):
    return a


@app.task(max_retries=0)
async def returns(kind):
    return {"set": {1}, "object": object(), "tuple": (1, (2,)), "bytes": b"x\xff", "keys": {1: 2}, "none": None,
        "nan": float("nan"), "huge": 2**70, "text": "ü"}[kind]  # fmt: skip


def brief(result):
    return None if result is None else [result.success, result.value, result.tries, result.aborted]


async def outcome(job):
    return brief(await job.result(timeout=20))


async def main():
    async with working(app):
        for name, call in {
            "add": add.enqueue(1), "by name": app.send("add", 1, b=5), "thread": in_thread.enqueue("x"),
            "fails": fails.enqueue(), "flaky": flaky.enqueue(), "asks": asks.enqueue(), "slow": slow.enqueue(),
            "slow thread": slow_thread.enqueue(), "own timeout": own_timeout.enqueue(),
            "cancels itself": cancels_itself.enqueue(), "raises cancelled": raises_cancelled.enqueue(),
        }.items():  # fmt: skip
            job = await call
            await see_later(f"outcome: {name}", outcome(job))
            await see_later(f"status after: {name}", job.status)
            await see_later(f"info after: {name}", job.info)
        see("on_error", sorted(errors))
        for kind in ("tuple", "bytes", "keys", "none", "nan", "text"):
            await see_later(f"returns {kind}", outcome(await returns.enqueue(kind)))
        for kind in ("set", "object"):
            await see_later(f"returns {kind}", lambda kind=kind: outcome_kind(returns.enqueue(kind)))
        job = await waits.enqueue()
        await started.wait()
        await see_later("running: status", job.status)
        await see_later("running: info", lambda: info_of(job))
        await see_later("running: queue_size", app.queue_size)
        await see_later("abort", job.abort)
        await see_later("aborted", outcome(job))
        await see_later("abort twice", job.abort)
        await see_later("aborted: status", job.status)
        await see_later("abort of a done one", (await done(add)).abort)
        await see_later("abort of none", app.abort("none"))
        await see_later("result of none", app.result("none"))
        await see_later("result of none in time", app.result("none", timeout=0.05))
        await see_later("result at once", app.result("none", timeout=0))
        await see_later("result before now", app.result("none", timeout=-1))
        await see_later("status of none", app.status("none"))
        await see_later("info of none", app.info("none"))
    idle = Ardiq(URL, "idle", ["low", "high"])
    idle_add = idle.task(name="add")(add.fn)
    later = await idle_add.options(delay_ms=60_000).enqueue(1)
    now = await idle_add.options(priority="high", task_id="mine").enqueue(2, b=3)
    await see_later("scheduled: status", later.status)
    await see_later("queued: status", now.status)
    await see_later("queued: info", lambda: info_of(now))
    await see_later("scheduled: has a time", lambda: has_time(later))
    await see_later("size", idle.queue_size)
    await see_later("own id again", lambda: same(idle_add.options(task_id="mine").enqueue(9), "mine"))
    await see_later("size again", idle.queue_size)
    await see_later("abort a scheduled one", later.abort)
    await see_later("result of it", lambda: brief_of(later))
    await see_later("abort it again", later.abort)
    await see_later("abort a queued one", now.abort)
    await see_later("size after abort", idle.queue_size)
    one = idle.task(name="only_one", unique=True)(only_one.fn)
    first = await one.enqueue(1, b=2)
    see("unique id", first.id)
    await see_later("unique again", lambda: same(one.enqueue(1, b=2), first.id))
    await see_later("unique otherwise", lambda: same(one.enqueue(1, 2), first.id))
    await see_later("not unique", lambda: same(one.options(unique=False).enqueue(1, b=2), first.id))
    await see_later("of a ref", lambda: same(idle.ref("only_one", unique=True).enqueue(1, b=2), first.id))
    jobs = await idle.enqueue_many([one.prepare(5), one.prepare(5), idle_add.prepare(1)])
    see("many", [len(jobs), jobs[0] == jobs[1]])
    await see_later("many of nothing", idle.enqueue_many([]))
    await see_later("many of a bad lane", lambda: idle.enqueue_many([idle_add.options(priority="x").prepare(1)]))
    await see_later("bad lane", lambda: idle_add.options(priority="x").enqueue(1))
    await see_later("bad lane of a ref", lambda: idle.ref("add", priority="x").enqueue(1))
    expired = await idle_add.options(expire_ms=1).enqueue(3)
    await asyncio.sleep(0.05)
    await drain(idle)
    await see_later("expired: status", expired.status)
    await see_later("expired: result", lambda: brief_of(expired))
    await see_later("drained: size", idle.queue_size)
    await dead()


async def dead():
    app, again = Ardiq(URL, "dead"), Ardiq(URL, "dead")
    ran = []
    app.on_error(lambda ctx: ran.append([ctx.name, kind_of(ctx.exc), ctx.will_retry]))
    again.on_error(lambda ctx: ran.append([ctx.name, kind_of(ctx.exc), ctx.will_retry]))
    task = app.task(max_retries=0, name="fails")(fails.fn)
    again.task(max_retries=0, name="fails")(fails.fn)
    job = await task.options(task_id="d1").enqueue("why")
    await drain(app)
    (letter,) = await app.dead_letters()
    see("dead letter", [*letter[:7]])
    await see_later("dead count", app.dead_count)
    await see_later("dead status", job.status)
    await see_later("dead abort", job.abort)
    await see_later("replay", lambda: same(app.replay("d1"), "d1"))
    await see_later("replayed status", job.status)
    await see_later("replayed result", job.result)
    await see_later("replay again", app.replay("d1"))
    await drain(again)  # a second run of one app takes nothing in 1.2
    await see_later("dead again", app.dead_count)
    await see_later("dead limit", app.dead_letters(limit=0))
    await see_later("delete", app.delete_dead("d1"))
    await see_later("delete again", app.delete_dead("d1"))
    await see_later("result of the deleted", lambda: brief_of(job))
    see("told", ran)


async def outcome_kind(enqueued):
    result = await (await enqueued).result(timeout=3)
    return result.success


async def done(task):
    job = await task.enqueue(1)
    await job.result(timeout=20)
    return job


async def info_of(job):
    info = await job.info()
    return [info.fn_name, info.args, info.kwargs, info.tries, info.status, info.scheduled_at]


async def has_time(job):
    return (await job.info()).scheduled_at is not None


async def brief_of(job):
    return brief(await job.result())


async def same(enqueued, id):
    job = await enqueued
    return job.id == id


asyncio.run(main())
