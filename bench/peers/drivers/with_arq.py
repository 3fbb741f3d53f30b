"""arq: `arq WorkerSettings`, the default options (https://arq-docs.helpmanual.io).

It depends on redis-py with hiredis. There is no call for many jobs: concurrent `enqueue_job` calls, which its
documentation shows in a loop, are gathered a hundred at a time. CPU: the documentation sends blocking functions to a
`ProcessPoolExecutor` by `run_in_executor`.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import bodies
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from drive import Driver, program

SETTINGS = RedisSettings.from_dsn(bodies.URL)
_AT_ONCE = 100


async def noop(ctx: dict[str, Any], number: int) -> None:
    await bodies.noop_async(number)


async def echo(ctx: dict[str, Any], number: int) -> int:
    return await bodies.echo_async(number)


async def nap(ctx: dict[str, Any], number: int) -> None:
    await bodies.nap_async(number)


async def burn(ctx: dict[str, Any], number: int) -> None:
    await asyncio.get_running_loop().run_in_executor(ctx["pool"], bodies.burn, number)


async def _start(ctx: dict[str, Any]) -> None:
    ctx["pool"] = ProcessPoolExecutor()  # starts processes when it is used


class WorkerSettings:
    functions = (noop, echo, nap, burn)
    redis_settings = SETTINGS
    on_startup = _start
    if bodies.CONCURRENCY is not None:
        max_jobs = max(10, bodies.CONCURRENCY)  # 10 is the default; of what computes, the pool runs two at once


class _Client:
    pool: ArqRedis


async def _connect() -> None:
    _Client.pool = await create_pool(SETTINGS)


async def _many(body: str, numbers: range) -> None:
    for at in range(0, len(numbers), _AT_ONCE):
        await asyncio.gather(*(_Client.pool.enqueue_job(body, number) for number in numbers[at : at + _AT_ONCE]))


async def _awaited(body: str, number: int) -> None:
    await _Client.pool.enqueue_job(body, number)


async def _request(number: int) -> Any:
    job = await _Client.pool.enqueue_job("echo", number)
    assert job is not None
    return await job.result()


driver = Driver(
    packages=("arq", "redis", "hiredis"),
    connect=_connect,
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=lambda body: [program("arq"), "with_arq.WorkerSettings"],
    notes={
        "enqueue": "no call for many jobs: `enqueue_job` gathered, 100 at a time",
        "c10": "a worker takes what it has room for every 0.5 s (`poll_delay`)",
        "latency": "the worker, and `job.result()`, look every 0.5 s (`poll_delay`)",
        "kill": "a job of a dead worker runs again when its mark has expired: `job_timeout` (300 s) and ten more",
        "cpu": "`run_in_executor` with a `ProcessPoolExecutor`; ten jobs, the default, every 0.5 s",
    },
)
