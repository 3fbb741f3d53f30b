"""The app that shows what each option costs: the tasks do nothing, the app has the option that BENCH_OPTION names."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from ardiq import Ardiq, EnqueueContext, ExecutionContext, Limit, Signal, step, wait_for
from ardiq.retries import ExponentialBackoff
from ardiq.task import PreparedTask

_OF_APP: dict[str, dict[str, Any]] = {
    "weights": {"priorities": ["low", "default", "high"], "weights": {"high": 5, "default": 3}},
    "limits": {"priorities": ["low", "default", "high"], "limits": {"high": 50, "low": 50}},
    "lanes": {"priorities": ["low", "default", "high"]},
}
_option = os.environ.get("BENCH_OPTION", "")

app = Ardiq(queue_name="bench", concurrency=100, **_OF_APP.get(_option, {}))

if _option == "middleware":

    @app.middleware
    async def pass_on(ctx: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        return await call_next()


if _option == "on_enqueue":

    @app.on_enqueue
    def add_header(ctx: EnqueueContext) -> None:
        ctx.headers["trace"] = "0123456789abcdef"


@app.task
async def plain() -> None: ...


@app.task
async def argument(number: int) -> None: ...


@app.task
async def moment(at: datetime) -> None: ...


@app.task(timeout=30)
async def timeout() -> None: ...


@app.task(max_retries=5, retry=ExponentialBackoff(1), give_up_on=ValueError, max_age=timedelta(hours=1))
async def retries() -> None: ...


@app.task(limits=Limit("wide", concurrency=1_000_000))
async def limited() -> None: ...


@app.task(limits=Limit("keyed", key="number", concurrency=2))
async def keyed(number: int) -> None: ...


@app.task(limits=Limit("gate", concurrency=1))
async def gated() -> tuple[int, int]:
    """When it began and ended: the monotonic clock is the same in every process."""
    began = time.monotonic_ns()
    await asyncio.sleep(0.002)
    return began, time.monotonic_ns()


@app.task
async def clock() -> int:
    return time.monotonic_ns()


@app.task
async def stepped() -> int:
    """The same, by a step whose result is kept."""
    return await step("clock", time.monotonic_ns)


woken = Signal("woken", int)


@app.task
async def waiting() -> int:
    """When it went on behind a wait."""
    await wait_for(woken)
    return time.monotonic_ns()


_NOW = datetime.now().astimezone()
_BY_OPTION: dict[str, Callable[[int], PreparedTask]] = {
    "argument": lambda _: argument.prepare(7),
    "datetime": lambda _: moment.prepare(_NOW),
    "timeout": lambda _: timeout.prepare(),
    "retries": lambda _: retries.prepare(),
    "unique": lambda n: argument.options(unique=True).prepare(n),
    "task_id": lambda n: plain.options(task_id=f"task-{n}").prepare(),
    "expire": lambda _: plain.options(expire=timedelta(hours=1)).prepare(),
    "limit": lambda _: limited.prepare(),
    "limit_keys": lambda n: keyed.prepare(n % 1_000),
    "delay": lambda _: plain.options(delay_ms=1).prepare(),
}
OPTIONS = [*_BY_OPTION, "middleware", "on_enqueue", *_OF_APP]


def prepare(n: int) -> PreparedTask:
    """The n-th task with the option; a plain one where the option is the app's, or none."""
    return _BY_OPTION.get(_option, lambda _: plain.prepare())(n)
