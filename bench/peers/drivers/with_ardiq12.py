"""ArdiQ 1.2, Ardiq's forerunner, from PyPI: `ardiq run`, the default options."""

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
    await app.enqueue_many([task.prepare(number) for number in numbers])


async def _awaited(body: str, number: int) -> None:
    await TASKS[body].enqueue(number)


async def _request(number: int) -> Any:
    job = await TASKS["echo"].enqueue(number)
    outcome = await job.result(timeout=10)
    return outcome and outcome.value


driver = Driver(
    packages=("ardiq",),
    many=_many,
    awaited=_awaited,
    request=_request,
    worker=lambda body: [sys.executable, "-m", "ardiq", "run", f"{__name__}:app"],
    notes={
        "cpu": '`executor="process"`, a process for each task',
        "kill": "what a dead worker held is run again after a minute (`idle_timeout`)",
    },
)
