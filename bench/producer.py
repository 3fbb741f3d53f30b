"""The producer that is measured: a user's script on the public API.

`python -m bench.producer MEASURE [name=value …]` prints one line of JSON, as the floor does.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import options, played
from bench.jobs import app, clock, nap, noop, noop_thread, payload

Figures = dict[str, Any]

_WARM_UP = 200


class Usage:
    """Time and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._at = time.perf_counter()

    def figures(self, n: int) -> Figures:
        seconds = time.perf_counter() - self._at
        return {"n": n, "seconds": seconds, "cpu_seconds": time.process_time() - self._cpu}


async def enqueue_many(n: int = 20_000, task: str = "noop", size: int = 0, delay_ms: int | None = None) -> Figures:
    """One call with all tasks. `size`: bytes of their arguments as JSON; `delay_ms`: of `noop`."""
    text = "x" * (size - len('[""]'))
    prepare: Callable[[], Any] = {
        "noop": noop.prepare if delay_ms is None else noop.options(delay_ms=delay_ms).prepare,
        "noop_thread": noop_thread.prepare,
        "nap": lambda: nap.prepare(0.1),
        "payload": lambda: payload.prepare(text),
    }[task]
    usage = Usage()
    jobs = await app.enqueue_many(prepare() for _ in range(n))
    assert len(jobs) == n
    return usage.figures(n)


async def enqueue_option(n: int = 20_000) -> Figures:
    """One call with all tasks, each with the option that BENCH_OPTION names."""
    usage = Usage()
    await options.app.enqueue_many(options.prepare(number) for number in range(n))
    return usage.figures(n)


async def enqueue_concurrent(n: int = 20_000) -> Figures:
    """As many awaiting callers as tasks."""
    usage = Usage()
    await asyncio.gather(*(noop.enqueue() for _ in range(n)))
    return usage.figures(n)


async def enqueue_sequential(n: int = 5_000) -> Figures:
    """One task after the other, each awaited."""
    usage = Usage()
    for _ in range(n):
        await noop.enqueue()
    return usage.figures(n)


async def enqueue_queues(n: int = 10_000, queues: int = 1) -> Figures:
    """As many awaiting callers as tasks, each of a queue in turn; and what the process has when all are through."""
    before = _holds()
    usage = Usage()
    await asyncio.gather(*(app.queue(f"bench-{number % queues}").send("noop") for number in range(n)))
    figures = usage.figures(n)
    held = _holds()
    return {**figures, **held, "kib": held["kib"] - before["kib"]}


def _holds() -> dict[str, int]:
    """Threads, sockets and other descriptors of this process, and its memory."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    sockets = sum(name.startswith("socket:") for name in opened)
    status = Path("/proc/self/status").read_text()
    kib = int(status.partition("VmRSS:")[2].split()[0])
    return {"threads": threads, "sockets": sockets, "descriptors": len(opened), "kib": kib}


async def latency(n: int = 1_000, pause_us: int = 0) -> Figures:
    """From before a task is enqueued until its body runs, and until its result is here; one at a time."""
    request: list[int] = []
    result: list[int] = []
    body: list[int] = []
    for sample in range(_WARM_UP + n):
        await asyncio.sleep(pause_us / 1e6)
        started = time.monotonic_ns()
        await clock.request()
        finished = time.monotonic_ns()
        if sample >= _WARM_UP:
            request.append(finished - started)
        await asyncio.sleep(pause_us / 1e6)
        started = time.monotonic_ns()
        job = await clock.enqueue()
        outcome = await job.result(timeout=10)
        finished = time.monotonic_ns()
        assert outcome is not None
        if sample >= _WARM_UP:
            result.append(finished - started)
            body.append(outcome.value - started)
    return {
        "request_us": percentiles(request),
        "result_us": percentiles(result),
        "body_us": percentiles(body),
    }


async def slots(n: int = 300, pause_us: int = 0) -> Figures:
    """From before another worker ends what had the only slot until the next body runs; from the end of a body to the
    next one of the same worker; and from before a plain task is enqueued until its body runs. One after the other.
    """
    body: list[int] = []
    passed: list[int] = []
    reused: list[int] = []
    gate = played.limits(("gate", None))
    holder = played.Queue(options.app.redis_url, "bench", lane="other")
    for sample in range(_WARM_UP + n):
        await asyncio.sleep(pause_us / 1e6)
        started = time.monotonic_ns()
        clocked = await (await options.clock.enqueue()).result(timeout=10)
        holder.enqueue([gate], lane="other")
        assert holder.step(want=1) == 1
        waiting = await options.gated.enqueue()
        await asyncio.sleep(pause_us / 1e6)
        freed = time.monotonic_ns()
        holder.step(want=0)
        alone = await waiting.result(timeout=10)
        jobs = await options.app.enqueue_many(options.gated.prepare() for _ in range(2))
        first, second = [await job.result(timeout=10) for job in jobs]
        assert clocked is not None
        assert alone is not None
        assert first is not None
        assert second is not None
        if sample >= _WARM_UP:
            body.append(clocked.value - started)
            passed.append(alone.value[0] - freed)
            reused.append(second.value[0] - first.value[1])
    holder.close()
    return {"body_us": percentiles(body), "passed_us": percentiles(passed), "reused_us": percentiles(reused)}


async def waits(n: int = 300, pause_us: int = 0) -> Figures:
    """From before a task is enqueued until its body runs, and until its result is here; the latter of a task with a
    step, too; and from before a signal is sent until the body that waits for it goes on. One after the other.
    """
    body: list[int] = []
    result: list[int] = []
    stepped: list[int] = []
    woken: list[int] = []

    async def request(task: Any) -> tuple[int, int]:
        await asyncio.sleep(pause_us / 1e6)
        started = time.monotonic_ns()
        outcome = await (await task.enqueue()).result(timeout=10)
        assert outcome is not None
        return outcome.value - started, time.monotonic_ns() - started

    for sample in range(_WARM_UP + n):
        to_body, to_result = await request(options.clock)
        _, with_step = await request(options.stepped)
        job = await options.waiting.enqueue()
        while await job.status() != "scheduled":
            await asyncio.sleep(0.001)
        await asyncio.sleep(pause_us / 1e6)
        sent = time.monotonic_ns()
        await job.signal(options.woken, 1)
        went_on = await job.result(timeout=10)
        assert went_on is not None
        if sample >= _WARM_UP:
            body.append(to_body)
            result.append(to_result)
            stepped.append(with_step)
            woken.append(went_on.value - sent)
    return {
        "body_us": percentiles(body),
        "result_us": percentiles(result),
        "stepped_us": percentiles(stepped),
        "woken_us": percentiles(woken),
    }


def percentiles(samples: list[int]) -> dict[str, float]:
    """In microseconds."""
    samples.sort()
    return {f"p{share}": samples[(len(samples) - 1) * share // 100] / 1000 for share in (50, 95, 99)}


async def _main(measure: str, arguments: dict[str, Any]) -> Figures:
    await (
        options.app if measure in ("enqueue_option", "slots", "waits") else app
    ).queue_size()  # connects, and loads the library
    figures: Figures = await globals()[measure](**arguments)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


if __name__ == "__main__":
    pairs = (word.split("=", 1) for word in sys.argv[2:])
    arguments = {name: int(value) if value.isdecimal() else value for name, value in pairs}
    print(json.dumps(asyncio.run(_main(sys.argv[1], arguments))))
