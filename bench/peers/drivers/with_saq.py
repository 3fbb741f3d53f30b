"""SAQ: `saq with_saq.settings`, the default options (https://saq-py.readthedocs.io).

redis-py with hiredis, SAQ's own extra. There is no call that only enqueues many (`queue.map` also waits for all
results): `queue.enqueue` gathered, 100 at a time, which is what `map` does inside. Results by `job.refresh(1)`, which
its README shows first and which is woken; `queue.apply` sleeps for 0.5 s after each look. CPU: its documentation starts
more worker processes by `--workers`.
"""

import asyncio
from contextlib import suppress
from typing import Any

import bodies
from drive import Driver, program
from saq import Queue

queue = Queue.from_url(bodies.URL)
_AT_ONCE = 100


async def noop(ctx: dict[str, Any], *, number: int) -> None:
    await bodies.noop_async(number)


async def echo(ctx: dict[str, Any], *, number: int) -> int:
    return await bodies.echo_async(number)


async def nap(ctx: dict[str, Any], *, number: int) -> None:
    await bodies.nap_async(number)


async def burn(ctx: dict[str, Any], *, number: int) -> None:
    bodies.burn(number)


settings = {
    "queue": queue,
    "functions": [noop, echo, nap, burn],
    **({} if bodies.CONCURRENCY is None else {"concurrency": bodies.CONCURRENCY}),
}


async def _many(body: str, numbers: range) -> None:
    for at in range(0, len(numbers), _AT_ONCE):
        await asyncio.gather(*(queue.enqueue(body, number=number) for number in numbers[at : at + _AT_ONCE]))


async def _awaited(body: str, number: int) -> None:
    await queue.enqueue(body, number=number)


async def _request(number: int) -> Any:
    job = await queue.enqueue("echo", number=number)
    assert job is not None
    while not job.completed:
        with suppress(TimeoutError):  # the job ended just before it listened
            await job.refresh(1)
    return job.result


driver = Driver(
    packages=("saq", "redis", "hiredis"),
    connect=queue.connect,
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=lambda body: [program("saq"), "with_saq.settings", *(["--workers", "2"] if body == "burn" else [])],
    notes={
        "enqueue": "no call that only enqueues many: `queue.enqueue` gathered, 100 at a time, as in `queue.map`",
        "latency": "`job.refresh(1)`, and once more where it missed the end",
        "cpu": "`--workers 2`",
        "kill": "a job that was running is given up: `retries` is 1, and that was one",
        "start": "a worker looks for stuck jobs (`sweep`) as it starts; one that it fetches in that moment passes for "
        "stuck and runs again",
    },
)
