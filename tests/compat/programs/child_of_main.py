"""`executor="process"`: a task of the program that was started."""

import asyncio
import os

from observed import drain, see, see_later

from ardiq import Ardiq

app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "child-of-main")


@app.task(executor="process", max_retries=0)
def double(x):
    return x * 2


async def main():
    job = await double.enqueue(2)
    await see_later("run", lambda: drain(app))
    result = await job.result()
    see("result", result and result.value)


if __name__ == "__main__":
    asyncio.run(main())
