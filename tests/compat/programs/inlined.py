"""`ardiq.testing.inline`: on one loop, and under a test client that has another."""

import asyncio
import os

from observed import see, see_later

from ardiq import Ardiq, Retry
from ardiq.testing import inline

app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "inline", ["low", "high"])
loops = []


@app.task
async def add(a, b):
    loops.append(asyncio.get_running_loop())
    return a + b


@app.task(max_retries=2)
async def flaky():
    raise Retry("more", delay_ms=60_000)


@app.task
async def aborts_itself():
    await app.abort("self")
    await asyncio.sleep(5)


def brief(result):
    return None if result is None else [result.success, result.value, result.tries]


async def main():
    async with inline(app) as given:
        see("gives", given)
        job = await add.enqueue(2, 3)
        see("result", brief(await job.result()))
        see("waited for", brief(await job.result(timeout=1)))
        await see_later("status", job.status)
        await see_later("info", job.info)
        await see_later("size", app.queue_size)
        await see_later("result of none", app.result("none"))
        await see_later("result of none in time", app.result("none", timeout=0.01))
        await see_later("abort of a done one", job.abort)
        later = await add.options(delay_ms=60_000, expire_ms=1).enqueue(1, 1)
        see("delayed", brief(await later.result()))
        failed = await flaky.options(task_id="f").enqueue()
        see("failed", brief(await failed.result()))
        await see_later("dead", app.dead_count)
        see("dead letter", [*(await app.dead_letters())[0][:7]])
        await see_later("replayed", lambda: id_of(app.replay("f")))
        await see_later("deleted", app.delete_dead("f"))
        unknown = await app.send("nobody", 1)
        see("unknown", brief(await unknown.result()))
        own = await aborts_itself.options(task_id="self").enqueue()
        see("aborted", brief(await own.result()))
        many = await app.enqueue_many([add.prepare(1, n) for n in range(3)])
        see("many", [brief(await job.result()) for job in many])
        await see_later("run", app.run)
        app.stop()
        here = asyncio.get_running_loop()
        see("on this loop", all(loop is here for loop in loops))

        def elsewhere():
            async def call():
                job = await add.enqueue(4, 5)
                return brief(await job.result())

            return asyncio.run(call())

        await see_later("from another loop", asyncio.to_thread(elsewhere))
        see("job of here, asked elsewhere", await asyncio.to_thread(lambda: asyncio.run(brief_of(job))))


async def brief_of(job):
    try:
        return brief(await job.result())
    except Exception as error:
        return type(error).__name__


async def id_of(job):
    return (await job).id


asyncio.run(main())
