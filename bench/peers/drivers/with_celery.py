"""Celery: `celery -A with_celery worker` on a Redis broker (https://docs.celeryq.dev).

`-c N` processes of the prefork pool, the default, up to 10 at once; for many more its documentation recommends
`-P gevent`. Tasks ignore their results, as the documentation advises, except where results are measured. redis-py with
hiredis. There is no call for many: `apply_async` in a loop, which a `group` does, too.
"""

from typing import Any

import bodies
from celery import Celery
from drive import Driver, program

app = Celery("with_celery", broker=bodies.URL, backend=bodies.URL if bodies.RESULTS else None)

TASKS = {
    "noop": app.task(name="noop", ignore_result=True)(bodies.noop),
    "echo": app.task(name="echo")(bodies.echo),
    "nap": app.task(name="nap", ignore_result=True)(bodies.nap),
    "burn": app.task(name="burn", ignore_result=True)(bodies.burn),
}


def _many(body: str, numbers: range) -> None:
    task = TASKS[body]
    for number in numbers:
        task.delay(number)


def _blocking(body: str, number: int) -> None:
    TASKS[body].delay(number)


def _request(number: int) -> Any:
    return TASKS["echo"].delay(number).get(timeout=10)


def _worker(body: str) -> list[str]:
    command = [program("celery"), "--app", "with_celery", "worker"]
    if bodies.CONCURRENCY is not None:
        command += ["--concurrency", str(bodies.CONCURRENCY)]
        if bodies.CONCURRENCY >= 100:
            command += ["--pool", "gevent"]
    else:
        command += ["--concurrency", "1"]
    return command


driver = Driver(
    packages=("celery", "kombu", "redis", "hiredis", "gevent"),
    many=_many,
    blocking=_blocking,
    request=_request,
    worker=_worker,
    notes={
        "enqueue": "no call for many: `delay` in a loop",
        "c10": "`--concurrency 10`, the prefork pool",
        "c100": "`--pool gevent --concurrency 100`",
        "io": "`--pool gevent --concurrency 500`",
        "latency": "`--concurrency 1`: a process, and its parent; the default is one for each core",
        "cpu": "`--concurrency 2`",
        "kill": "tasks are acknowledged before they run; what was fetched besides comes back after an hour "
        "(`visibility_timeout`)",
    },
)
