"""RQ: `rq worker`, or `rq worker-pool -n N` for more than one job at a time (https://python-rq.org/docs/workers/).

A worker forks for each job, the default and what the documentation recommends. Many jobs by `Queue.enqueue_many`.
redis-py with hiredis, which redis-py recommends. Results by `job.return_value()`, once `job.latest_result(timeout=…)`,
which blocks on the job's stream of results, has arrived.
"""

from typing import Any

import bodies
from drive import Driver, program
from redis import Redis
from rq import Queue

QUEUE = Queue(connection=Redis.from_url(bodies.URL))
BODIES = {"noop": bodies.noop, "echo": bodies.echo, "nap": bodies.nap, "burn": bodies.burn}


def _many(body: str, numbers: range) -> None:
    QUEUE.enqueue_many(Queue.prepare_data(BODIES[body], (number,)) for number in numbers)


def _blocking(body: str, number: int) -> None:
    QUEUE.enqueue(BODIES[body], number)


def _request(number: int) -> Any:
    result = QUEUE.enqueue(bodies.echo, number).latest_result(timeout=10)
    return result and result.return_value


def _worker(body: str) -> list[str]:
    if bodies.CONCURRENCY is None:
        return [program("rq"), "worker", "--url", bodies.URL, "--quiet"]
    return [program("rq"), "worker-pool", "--url", bodies.URL, "--quiet", "-n", str(bodies.CONCURRENCY)]


driver = Driver(
    packages=("rq", "redis", "hiredis"),
    many=_many,
    blocking=_blocking,
    request=_request,
    worker=_worker,
    notes={
        "c10": "a pool of 10 workers; each forks for each job",
        "cpu": "a pool of 2 workers",
        "kill": "a job of a dead worker ends in the `FailedJobRegistry`, unless it was given a `Retry`; every ten "
        "minutes that is looked for",
    },
    without={
        "c100": "a process for each job at once: a hundred workers on two cores is not what it is for",
        "io": "a process for each job at once",
    },
)
