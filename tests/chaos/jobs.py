"""The app that the workers and producers of a run share, and its tasks: each notes that it ran.

What a task returns names the one execution that returned it, so a result that changed shows.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ardiq import Ardiq, RateLimited, current_task

from .ledger import Ledger

LEASE_MS = 2000
QUEUE = "chaos"
BASE = f"ardiq:{{{QUEUE}}}:"

app = Ardiq(
    os.environ.get("CHAOS_URL"),
    QUEUE,
    idle_timeout_ms=LEASE_MS,
    poll_block_ms=1000,
    result_ttl_ms=-1,
    concurrency=64,
    durability="replicated" if os.environ.get("CHAOS_REPLICATED") else "primary",
)
_executions = count(1)
_ledgers: dict[str, Ledger] = {}
_lock = threading.Lock()


def ledger(kind: str) -> Ledger:
    """This process's, made when first used: one, whichever thread asks first."""
    with _lock:
        if kind not in _ledgers:
            _ledgers[kind] = Ledger(Path(os.environ["CHAOS_LEDGERS"]), kind)
        return _ledgers[kind]


@contextmanager
def execution(number: int, *line: str) -> Iterator[str]:
    """Note that a task's body runs, and in which buckets, where it has any."""
    task = current_task()
    assert task is not None
    stamp = f"{os.getpid()}.{next(_executions)}"
    ledger("runs").write("start", number, task.tries, stamp, *line)
    ended = "end"
    try:
        yield stamp
    except RateLimited:
        ended = "put-back"
        raise
    finally:
        ledger("runs").write(ended, number, stamp)


@app.task(max_retries=0)
async def quick(number: int) -> str:
    with execution(number) as stamp:
        return stamp


@app.task(max_retries=0)
async def slow(number: int, seconds: float) -> str:
    with execution(number) as stamp:
        await asyncio.sleep(seconds)
        return stamp


@app.task(max_retries=0)
def threaded(number: int, seconds: float) -> str:
    with execution(number) as stamp:
        time.sleep(seconds)
        return stamp


@app.task(max_retries=2, backoff_ms=50)
async def flaky(number: int) -> str:
    with execution(number) as stamp:
        task = current_task()
        if task is not None and task.tries == 1:
            raise RuntimeError("not yet")
        return stamp


@app.task(max_retries=1, backoff_ms=50)
async def hopeless(number: int) -> str:
    with execution(number) as stamp:
        raise RuntimeError(stamp)
