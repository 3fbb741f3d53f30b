"""Huey: `huey_consumer with_huey.huey`, a `RedisHuey`, the default options (https://huey.readthedocs.io).

`-w` sets how many at once; worker threads are the default, `-k greenlet` is what its documentation recommends for many
tasks that wait, `-k process` for those that compute. redis-py with hiredis. There is no call for many. A result is kept
where a task returns something. Where results are measured `notify_result=True` is set, its option for results without
delay; otherwise `get(blocking=True)` looks at intervals of 50 ms and more.

A thread or greenlet has a connection of its own. redis-py refuses the 101st; a task that had left the queue by then is
lost. So the URL allows more.
"""

from typing import Any

import bodies

_GREENLETS = bodies.CONCURRENCY is not None and bodies.CONCURRENCY >= 500
if _GREENLETS:  # before anything else is imported, as its documentation says
    from gevent import monkey

    monkey.patch_all()

from drive import Driver, program  # noqa: E402
from huey import RedisHuey  # noqa: E402

huey = RedisHuey(url=bodies.ROOMY_URL, notify_result=bodies.RESULTS)

TASKS = {
    "noop": huey.task()(bodies.noop),
    "echo": huey.task()(bodies.echo),
    "nap": huey.task()(bodies.nap),
    "burn": huey.task()(bodies.burn),
}


def _many(body: str, numbers: range) -> None:
    task = TASKS[body]
    for number in numbers:
        task(number)


def _blocking(body: str, number: int) -> None:
    TASKS[body](number)


def _request(number: int) -> Any:
    return TASKS["echo"](number).get(blocking=True, timeout=10)


def _worker(body: str) -> list[str]:
    command = [program("huey_consumer"), "with_huey.huey"]
    if bodies.CONCURRENCY is not None:
        command += ["-w", str(bodies.CONCURRENCY)]
    if body == "burn":
        command += ["-k", "process"]
    elif _GREENLETS:
        command += ["-k", "greenlet"]
    return command


driver = Driver(
    packages=("huey", "redis", "hiredis", "gevent"),
    many=_many,
    blocking=_blocking,
    request=_request,
    worker=_worker,
    notes={
        "enqueue": "no call for many: a loop",
        "latency": "one thread, the default; `notify_result=True`",
        "c100": "`?max_connections=` in the URL: redis-py's 100 make it lose tasks",
        "io": "`-k greenlet -w 500`, and the same",
        "cpu": "`-k process -w 2`",
        "kill": "a task leaves the queue when it is fetched; what ran is gone",
    },
)
