"""Ardiq, this checkout: `ardiq run`, the default options; a wheel as it is released.

`def` tasks with `executor="process"` are what docs/executors.md recommends for what computes.
"""

import sys
from typing import Any

import bodies
from drive import Driver

from ardiq import Ardiq

app = Ardiq(bodies.URL, **({} if bodies.CONCURRENCY is None else {"concurrency": bodies.CONCURRENCY}))

TASKS = {
    "noop": app.task(name="noop")(bodies.noop_async),
    "echo": app.task(name="echo")(bodies.echo_async),
    "nap": app.task(name="nap")(bodies.nap_async),
    "burn": app.task(name="burn", executor="process")(bodies.burn),
}


async def _many(body: str, numbers: range) -> None:
    task = TASKS[body]
    await app.enqueue_many(task.prepare(number) for number in numbers)


async def _awaited(body: str, number: int) -> None:
    await TASKS[body].enqueue(number)


def _blocking(body: str, number: int) -> None:
    TASKS[body].enqueue_sync(number)


async def _request(number: int) -> Any:
    return await TASKS["echo"].request(number, timeout=10)


driver = Driver(
    packages=("ardiq", "msgspec"),
    many=_many,
    awaited=_awaited,
    blocking=_blocking,
    request=_request,
    worker=lambda body: [sys.executable, "-m", "ardiq", "run", f"{__name__}:app"],
    notes={
        "cpu": '`executor="process"`',
        "kill": "what a dead worker held is run again after a minute (`idle_timeout_ms`)",
    },
)
