"""Taskiq: `taskiq worker with_taskiq:broker` with a `RedisStreamBroker`, because that one acknowledges.

https://taskiq-python.github.io and https://github.com/taskiq-python/taskiq-redis. `--workers 1`, for one process; the
CLI's default is two. `--max-async-tasks` sets how many at once (default 100). uvloop, which its worker uses where it is
installed, and redis-py with hiredis. There is no call for many: `kiq` gathered, 10 at a time. Each takes a connection,
and a hundred of them are slower. A result backend is set only where results are measured. CPU: a process for each core.
"""

import asyncio
from typing import Any

import bodies
import uvloop
from drive import Driver, program
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(bodies.URL)
if bodies.RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(bodies.URL))
_AT_ONCE = 10


@broker.task(task_name="burn")
async def burn(number: int) -> None:
    bodies.burn(number)


TASKS = {
    "noop": broker.task(task_name="noop")(bodies.noop_async),
    "echo": broker.task(task_name="echo")(bodies.echo_async),
    "nap": broker.task(task_name="nap")(bodies.nap_async),
    "burn": burn,
}


async def _many(body: str, numbers: range) -> None:
    task = TASKS[body]
    for at in range(0, len(numbers), _AT_ONCE):
        await asyncio.gather(*(task.kiq(number) for number in numbers[at : at + _AT_ONCE]))


async def _awaited(body: str, number: int) -> None:
    await TASKS[body].kiq(number)


async def _request(number: int) -> Any:
    task = await TASKS["echo"].kiq(number)
    return (await task.wait_result(timeout=10)).return_value


def _worker(body: str) -> list[str]:
    command = [program("taskiq"), "worker", "with_taskiq:broker", "--workers", "2" if body == "burn" else "1"]
    if bodies.CONCURRENCY is not None:
        command += ["--max-async-tasks", str(1 if body == "burn" else bodies.CONCURRENCY)]
    return command


driver = Driver(
    packages=("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"),
    connect=broker.startup,
    loop=uvloop.new_event_loop,
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=_worker,
    notes={
        "enqueue": "no call for many: `kiq` gathered, 10 at a time; 100 are slower",
        "latency": "`wait_result` looks every 0.2 s (`check_interval`)",
        "cpu": "`--workers 2 --max-async-tasks 1`",
        "kill": "unacknowledged messages are taken over after ten minutes (`idle_timeout`)",
    },
)
