"""streaQ: `streaq run with_streaq:worker`, the default options (https://streaq.readthedocs.io).

Many by `worker.enqueue_many`. CPU: `--workers`, a process for each core.
"""

from typing import Any

import bodies
from drive import Driver, program
from streaq import Worker

worker = Worker(redis_url=bodies.URL, **({} if bodies.CONCURRENCY is None else {"concurrency": bodies.CONCURRENCY}))


@worker.task(name="burn")
async def burn(number: int) -> None:
    bodies.burn(number)


TASKS = {
    "noop": worker.task(name="noop")(bodies.noop_async),
    "echo": worker.task(name="echo")(bodies.echo_async),
    "nap": worker.task(name="nap")(bodies.nap_async),
    "burn": burn,
}


async def _connect() -> None:
    await worker.__aenter__()


async def _many(body: str, numbers: range) -> None:
    task = TASKS[body]
    await worker.enqueue_many([task.enqueue(number) for number in numbers])


async def _awaited(body: str, number: int) -> None:
    await TASKS[body].enqueue(number)


async def _request(number: int) -> Any:
    task = await TASKS["echo"].enqueue(number)
    return (await task.result(10)).result


driver = Driver(
    packages=("streaq", "coredis"),
    connect=_connect,
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=lambda body: [
        *(program("streaq"), "run", "with_streaq:worker"),
        *(["--workers", "2"] if body == "burn" else []),
    ],
    notes={
        "cpu": "`--workers 2`",
        "kill": "what a dead worker held is run again after a minute (`idle_timeout`)",
    },
)
