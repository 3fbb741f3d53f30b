"""Docket: `docket worker --tasks with_docket:tasks`, the default options (https://docket.lol).

Many by `docket.add_many`. redis-py with hiredis. CPU: two workers would be two commands; a worker is one process.

Each task that begins takes a connection. redis-py refuses the 101st, on which a worker stops for five seconds and
leaves what it holds until `--redelivery-timeout`. So the URL allows more: an option that `docket/_redis_sentinel.py`
names.
"""

from datetime import timedelta
from typing import Any

import bodies
from docket import Docket
from drive import Driver, program


async def noop(number: int) -> None:
    await bodies.noop_async(number)


async def echo(number: int) -> int:
    return await bodies.echo_async(number)


async def nap(number: int) -> None:
    await bodies.nap_async(number)


async def burn(number: int) -> None:
    bodies.burn(number)


tasks = [noop, echo, nap, burn]
BODIES = {task.__name__: task for task in tasks}
DOCKET = Docket(name="docket", url=bodies.ROOMY_URL)


async def _connect() -> None:
    await DOCKET.__aenter__()
    for task in tasks:
        DOCKET.register(task)


async def _many(body: str, numbers: range) -> None:
    await DOCKET.add_many([DOCKET.call(BODIES[body])(number) for number in numbers])


async def _awaited(body: str, number: int) -> None:
    await DOCKET.add(BODIES[body])(number)


async def _request(number: int) -> Any:
    execution = await DOCKET.add(echo)(number)
    return await execution.get_result(timeout=timedelta(seconds=10))


def _worker(body: str) -> list[str]:
    command = [
        program("docket"),
        "worker",
        "--url",
        bodies.ROOMY_URL,
        "--docket",
        "docket",
        "--tasks",
        "with_docket:tasks",
    ]
    return command + ([] if bodies.CONCURRENCY is None else ["--concurrency", str(bodies.CONCURRENCY)])


driver = Driver(
    packages=("pydocket", "redis", "hiredis"),
    connect=_connect,
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=_worker,
    notes={
        "c10": "a worker whose slots are all taken looks again after 0.1 s (`--minimum-check-interval`)",
        "c100": "`?max_connections=` in the URL: redis-py's 100 stop its workers",
        "io": "the same",
        "kill": "tasks of a dead worker are run again after five minutes (`--redelivery-timeout`)",
    },
    without={"cpu": "a worker is one process with one event loop; more cores take more workers"},
)
