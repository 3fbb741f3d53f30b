"""Runs one driver in its library's environment: `python drive.py with_arq describe`, `worker BODY`, or `produce`.

A driver is a module with a `driver`. `worker` becomes the library's own worker command. `produce` reads steps, each a
line of JSON, and answers each with a line. A worker imports this as well, and its memory is measured: what only a
producer needs is imported where it is used.
"""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bodies

_FIRST_PAUSE_S = 0.002
_POLL_S = 0.0002
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Driver:
    """A library as its documentation recommends it.

    many: enqueues the body of this name for each number, by the best bulk way that the documentation names
    awaited, blocking: enqueue one
    request: enqueues `echo` and waits for what it returned
    worker: the command of a worker for this body; `bodies.CONCURRENCY` is how many tasks at once, None the default
    packages: whose versions are reported, the library first
    connect: whatever comes before the first enqueue; may be a coroutine function, as the above may
    loop: what makes the event loop, where the documentation recommends another than asyncio's
    notes, without: by scenario, how the library was used where it is not obvious, and why it has no figure
    """

    packages: tuple[str, ...]
    many: Callable[[str, range], Any]
    worker: Callable[[str], list[str]]
    awaited: Callable[[str, int], Any] | None = None
    blocking: Callable[[str, int], Any] | None = None
    request: Callable[[int], Any] | None = None
    connect: Callable[[], Any] | None = None
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)


def program(name: str) -> str:
    """The path of a program of this environment."""
    return str(Path(sys.executable).with_name(name))


class Producer:
    """A program that enqueues; what it measures is a user's loop around the library's own call."""

    def __init__(self, driver: Driver, runner: asyncio.Runner) -> None:
        self._driver = driver
        self._run = runner.run

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Blocking functions run outside of the loop, as in a user's program."""
        import inspect

        if not inspect.iscoroutinefunction(function):
            return function(*arguments)
        return self._run(function(*arguments))

    def connect(self) -> dict[str, Any]:
        if self._driver.connect is not None:
            self._call(self._driver.connect)
        return {}

    def many(self, body: str, first: int, count: int) -> dict[str, Any]:
        return _timed(lambda: self._call(self._driver.many, body, range(first, first + count)))

    def awaited(self, body: str, first: int, count: int) -> dict[str, Any]:
        one = self._driver.awaited
        assert one is not None

        async def loop() -> None:
            for number in range(first, first + count):
                await one(body, number)

        return _timed(lambda: self._run(loop()))

    def blocking(self, body: str, first: int, count: int) -> dict[str, Any]:
        one = self._driver.blocking
        assert one is not None

        def loop() -> None:
            for number in range(first, first + count):
                one(body, number)

        return _timed(loop)

    def body_latency(self, first: int, samples: int, budget_s: float) -> dict[str, Any]:
        """When each of some tasks was sent; the next one is once the body of the last has begun."""
        import random

        stamps = Path(bodies.STAMPS)

        async def loop() -> list[list[int]]:
            sent, began_s, pause_s = [], time.monotonic(), 0.0
            for number in range(first, first + samples):
                await asyncio.sleep(_FIRST_PAUSE_S + random.uniform(0, pause_s))
                size = stamps.stat().st_size
                started = time.monotonic_ns()
                if self._driver.awaited is not None:
                    await self._driver.awaited("noop", number)
                else:
                    assert self._driver.blocking is not None
                    self._driver.blocking("noop", number)
                while stamps.stat().st_size == size:
                    await asyncio.sleep(_POLL_S)
                    if time.monotonic_ns() - started > _PATIENCE_S * 1e9:
                        raise TimeoutError(f"a task did not run within {_PATIENCE_S:g} s")
                pause_s = (time.monotonic_ns() - started) / 1e9
                sent.append([number, started])
                if time.monotonic() - began_s > budget_s:
                    break
            return sent

        return {"sent": self._run(loop())}

    def result_latency(self, first: int, samples: int, budget_s: float) -> dict[str, Any]:
        """When each of some tasks was sent, and when its result was here."""
        import inspect
        import random

        request = self._driver.request
        assert request is not None

        async def loop() -> list[list[int]]:
            sent, began_s, pause_s = [], time.monotonic(), 0.0
            for number in range(first, first + samples):
                await asyncio.sleep(_FIRST_PAUSE_S + random.uniform(0, pause_s))
                started = time.monotonic_ns()
                value = request(number)
                if inspect.isawaitable(value):
                    value = await asyncio.wait_for(value, _PATIENCE_S)
                finished = time.monotonic_ns()
                if value != number:
                    raise ValueError(f"the result of task {number} is {value!r}")
                pause_s = (finished - started) / 1e9
                sent.append([number, started, finished])
                if time.monotonic() - began_s > budget_s:
                    break
            return sent

        return {"sent": self._run(loop())}


def _timed(work: Callable[[], Any]) -> dict[str, Any]:
    cpu, at = time.process_time(), time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - at, "cpu_seconds": time.process_time() - cpu}


def _describe(driver: Driver) -> dict[str, Any]:
    import importlib.metadata
    import platform

    versions = {name: importlib.metadata.version(name) for name in driver.packages}
    ways = [name for name in ("awaited", "blocking", "request") if getattr(driver, name) is not None]
    return {
        "versions": versions,
        "runtime": f"Python {platform.python_version()}",
        "ways": ways,
        "notes": driver.notes,
        "without": driver.without,
    }


def _produce(driver: Driver) -> None:
    import json

    # What the library prints is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=driver.loop) as runner:
        producer = Producer(driver, runner)
        while line := sys.stdin.readline():
            step = json.loads(line)
            answer = getattr(producer, step.pop("do"))(**step)
            answers.write(json.dumps(answer) + "\n")
        os._exit(0)  # how a library says goodbye is not measured


def main() -> None:
    import json

    name, verb, *rest = sys.argv[1:]
    driver: Driver = importlib.import_module(name).driver
    if verb == "describe":
        print(json.dumps(_describe(driver)))
    elif verb == "worker":
        command = driver.worker(*rest)
        os.execv(command[0], command)
    else:
        _produce(driver)


if __name__ == "__main__":
    sys.modules["drive"] = sys.modules["__main__"]
    main()
