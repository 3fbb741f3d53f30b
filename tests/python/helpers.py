"""What the tests of the Python API share."""

import asyncio
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ardiq import Ardiq, Job, Task, TaskResult, WorkflowJob, _core
from ardiq.cli import main
from ardiq.embedded import Server

SOON_S = 20.0
"""Far longer than anything here takes on a busy machine; only a failure waits so long."""


@asynccontextmanager
async def working(app: Ardiq) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker of the app on this loop, stopped gracefully at the end."""
    run = asyncio.create_task(app.run())
    await asyncio.sleep(0)  # it runs from here on
    try:
        yield run
    finally:
        app.stop()
        async with asyncio.timeout(SOON_S):
            await run


async def value_of(app: Ardiq, job: WorkflowJob[Any]) -> Any:
    """What a workflow returned, with a worker of the app."""
    async with working(app):
        return await job.value(timeout=SOON_S)


async def node_states(job: WorkflowJob[Any]) -> dict[str, str]:
    """The states of a workflow's nodes, by name."""
    return {node.name: node.state async for node in job.nodes()}


async def drain(app: Ardiq) -> None:
    """Run what is ready, as `ardiq run --burst` does."""
    app.burst = True
    async with asyncio.timeout(SOON_S):
        await app.run()


@contextmanager
def stranger(app: Ardiq, **options: Any) -> Iterator[Ardiq]:
    """An app on the same queue that has none of its tasks: what it sends nobody checks."""
    other = Ardiq(app.redis_url, app.queue_name, **options)
    try:
        yield other
    finally:
        other.context.server.close()


async def result_of(job: Job) -> TaskResult:
    result = await job.result(timeout=SOON_S)
    assert result is not None
    return result


def number_of(app: Ardiq) -> Task[[int], int]:
    """A task that returns the number it gets."""

    @app.task
    async def work(number: int) -> int:
        return number

    return work


async def is_served(work: Task[[int], int]) -> None:
    """Its results come back, told and asked for."""
    assert await work.request(1, timeout=SOON_S) == 1
    assert (await result_of(await work.enqueue(2))).value == 2


async def eventually(condition: Callable[[], Any], seconds: float = SOON_S) -> Any:
    """The first true value of a condition, awaited if it is awaitable."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


async def awaited(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives, at once or awaited."""
    answer = call(*args)
    return await answer if inspect.isawaitable(answer) else answer


async def is_state(app: Ardiq, task_id: str, state: str) -> bool:
    """Whether the task is in that state now."""
    return await app.status(task_id) == state


def field(app: Ardiq, task_id: str, name: str) -> str | None:
    """One field of a task's record, as redis-cli would show it."""
    value = app.context.server.core.command(["HGET", f"ardiq:{{{app.queue_name}}}:task:{task_id}", name])
    return None if value is None else value.decode()


def leftovers(server: Server, base: str, for_ever: bool) -> list[str]:
    """The keys of a queue that have neither an owner nor a time to live, and why; the queue is deleted.

    `for_ever`: it keeps finished records without a time to live.
    """
    core = _core.Core(server.url, base)
    owners = {name: key["owner"] for name, key in json.loads(_core.PROTOCOL)["keys"].items()}
    script = Path(__file__).with_name("leftovers.lua").read_text()
    found = core.command(["EVAL", script, 1, base, json.dumps(owners), int(for_ever)])
    core.close()
    return [line.decode() for line in found]


def is_sound(app: Ardiq) -> bool:
    """Whether `ardiq fsck` finds nothing wrong with the queue."""
    return main(["fsck", app.context.server.url, "--queue", app.queue_name]) == 0


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody waits for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def task_module(source: str, server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of tasks that a child can import; `source` has the places `url` and `queue`."""
    name = f"jobs_{time.monotonic_ns()}"
    (directory / f"{name}.py").write_text(textwrap.dedent(source.format(url=server.url, queue=name)))
    monkeypatch.syspath_prepend(str(directory))
    module = importlib.import_module(name)
    yield module
    module.app.context.server.close()
    del sys.modules[name]


class Script:
    """A Python program in a process of its own."""

    def __init__(self, directory: Path, source: str, *arguments: str, name: str = "script.py") -> None:
        path = directory / name
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.end()
        return line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = SOON_S) -> tuple[int, str, str]:
        """Exit code, output and errors, when it has ended."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            out, err = self.process.communicate()
            raise AssertionError(f"it did not end:\n{out}\n{err}") from None
        return self.process.returncode, out, err

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.communicate()
