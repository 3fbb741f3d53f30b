"""Dramatiq: `dramatiq with_dramatiq`, a `RedisBroker`, the default options (https://dramatiq.io).

`--processes 1`, for one process; the default is one for each core, with 8 threads each. `--threads` sets how many at
once. redis-py with hiredis. There is no call for many: `broker.enqueue` in a loop, as `group.run` does. Results by the
`Results` middleware with its `RedisBackend`, only where they are measured. CPU: a process for each core, the default.

500 threads take more than the hundred connections that redis-py allows, and one that gets none waits for five seconds.
So the URL allows more.
"""

from typing import Any

import bodies
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from drive import Driver, program

broker = RedisBroker(url=bodies.ROOMY_URL)
if bodies.RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=bodies.URL)))
dramatiq.set_broker(broker)

ACTORS = {
    "noop": dramatiq.actor(bodies.noop),
    "nap": dramatiq.actor(bodies.nap),
    "burn": dramatiq.actor(bodies.burn),
}
if bodies.RESULTS:
    ACTORS["echo"] = dramatiq.actor(bodies.echo, store_results=True)


def _many(body: str, numbers: range) -> None:
    dramatiq.group([ACTORS[body].message(number) for number in numbers]).run()


def _blocking(body: str, number: int) -> None:
    ACTORS[body].send(number)


def _request(number: int) -> Any:
    return ACTORS["echo"].send(number).get_result(block=True, timeout=10_000)


def _worker(body: str) -> list[str]:
    command = [program("dramatiq"), "with_dramatiq", "--processes", "2" if body == "burn" else "1"]
    if bodies.CONCURRENCY is not None:
        command += ["--threads", str(1 if body == "burn" else bodies.CONCURRENCY)]
    return command


driver = Driver(
    packages=("dramatiq", "redis", "hiredis"),
    many=_many,
    blocking=_blocking,
    request=_request,
    worker=_worker,
    notes={
        "enqueue": "`group(…).run()`, which sends one by one",
        "io": "500 threads; `?max_connections=` in the URL",
        "cpu": "`--processes 2 --threads 1`",
        "kill": "what a dead worker held goes back when it has been silent for a minute (`heartbeat_timeout`): one "
        "command in a thousand, by chance, looks for that (`maintenance_chance`)",
    },
)
