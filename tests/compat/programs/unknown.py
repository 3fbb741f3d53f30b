"""A task that no worker knows, where it is to fail at once as in 1.2."""

import asyncio
import inspect
import os

from observed import drain, kind_of, see, see_later

from ardiq import Ardiq


async def main():
    at_once = {"unknown_task_wait": 0} if "unknown_task_wait" in inspect.signature(Ardiq).parameters else {}
    app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "unknown", **at_once)
    told, around = [], []
    app.on_error(lambda ctx: told.append([ctx.name, kind_of(ctx.exc), ctx.tries, ctx.will_retry]))

    @app.middleware
    async def look(ctx, call_next):
        around.append(ctx.name)
        return await call_next()

    app.task(name="known")(lambda: 1)
    job, known = await app.send("nobody", 1, a=2), await app.send("known")
    await drain(app)
    result = await job.result()
    see("result", [result.success, result.tries, result.aborted])
    see("error", result.value)
    see("told", told)
    see("passed the middleware", around)
    see("another", (await known.result()).value)
    await see_later("status", job.status)
    (letter,) = await app.dead_letters()
    see("dead letter", [letter.fn_name, letter.args, letter.kwargs, letter.tries])


asyncio.run(main())
