"""What a task in a child process may ask for, and that children run side by side."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import SOON_S, alive, is_sound, result_of, task_module, working

from ardiq import Ardiq, Process
from ardiq.embedded import Server

TASKS = """
    import os, resource, signal
    from ardiq import Ardiq, Process, current_task

    app = Ardiq({url!r}, queue_name={queue!r}, concurrency=3)

    def limit():
        return resource.getrlimit(resource.RLIMIT_DATA)[0]

    @app.task(executor="process")
    def pid() -> int:
        return os.getpid()

    @app.task(executor=Process(fresh=True))
    def fresh() -> int:
        return os.getpid()

    @app.task(executor=Process(fresh=True), max_retries=0)
    def fresh_and_wrong() -> None:
        raise ValueError(os.getpid())

    @app.task(executor=Process(max_memory_mb=256), max_retries=0)
    def hold(mib: int) -> list:
        return [len(bytearray(mib << 20)) >> 20, os.getpid(), limit() >> 20]

    @app.task(executor=Process(max_memory_mb=256), max_retries=5, backoff_ms=1, give_up_on=MemoryError)
    def give_up(mib: int) -> None:
        bytearray(mib << 20)

    @app.task(executor=Process(max_memory_mb=256), max_retries=0)
    def careful(mib: int) -> str:
        try:
            bytearray(mib << 20)
        except MemoryError:
            return "did without"

    @app.task(executor=Process(max_memory_mb=256), max_retries=0)
    def die() -> None:
        os.kill(os.getpid(), signal.SIGABRT)

    @app.task(executor="process", max_retries=0)
    def unlimited(mib: int) -> list:
        return [len(bytearray(mib << 20)) >> 20, os.getpid(), limit()]

    @app.task(executor="process", timeout=60, max_retries=0)
    def meet(path: str, count: int) -> int:
        with open(f"{{path}}/{{os.getpid()}}", "w"):
            pass
        while len(os.listdir(path)) < count:
            pass
        return os.getpid()
"""


@pytest.fixture
def jobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of tasks that a child can import."""
    with task_module(TASKS, server, tmp_path, monkeypatch) as module:
        yield module


async def test_a_fresh_child_ends_with_its_attempt(jobs: ModuleType) -> None:
    async with working(jobs.app):
        kept = await jobs.pid.request()
        pids = [await jobs.fresh.request() for _ in range(3)]
        wrong = await result_of(await jobs.fresh_and_wrong.enqueue())
        assert len({kept, *pids}) == 4
        assert not any(map(alive, pids))
        assert not alive(int(wrong.value.removeprefix("ValueError(").removesuffix(")")))
        assert await jobs.pid.request() == kept
    assert is_sound(jobs.app)


async def test_children_are_never_more_than_tasks_run_at_once(jobs: ModuleType, tmp_path: Path) -> None:
    """One that is kept makes room for one that is to be fresh."""
    (place := tmp_path / "meeting").mkdir()
    async with working(jobs.app):
        kept = await asyncio.gather(*[jobs.meet.request(str(place), 3) for _ in range(3)])
        assert sum(map(alive, kept)) == 3
        await jobs.fresh.request()
        assert sum(map(alive, kept)) == 2


async def test_as_many_busy_children_run_side_by_side_as_there_are_slots(jobs: ModuleType, tmp_path: Path) -> None:
    """Each of them is busy until all have begun: they could not if one held up another."""
    (place := tmp_path / "meeting").mkdir()
    async with working(jobs.app), asyncio.timeout(SOON_S):
        pids = await asyncio.gather(*[jobs.meet.request(str(place), 3) for _ in range(3)])
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


async def test_a_task_that_needs_more_memory_than_allowed_fails_and_says_so(jobs: ModuleType) -> None:
    async with working(jobs.app):
        first = await result_of(await jobs.hold.enqueue(20))
        assert first.value[0] == 20
        assert first.value[2] == 256
        job = await jobs.hold.enqueue(1000)
        result = await result_of(job)
        assert not result.success
        assert result.value == "MemoryError('the task needed more than its memory limit of 256 MiB')"
        [letter] = await jobs.app.dead_letters()
        assert (letter.task_id, letter.error) == (job.id, result.value)
        # The child is not used again, and the worker lives.
        after = await result_of(await jobs.hold.enqueue(20))
        assert after.value[1] != first.value[1]
        assert not alive(first.value[1])
        given_up = await result_of(await jobs.give_up.enqueue(1000))
        assert (given_up.success, given_up.tries) == (False, 1)
        assert await jobs.careful.request(1000) == "did without"
    assert is_sound(jobs.app)


async def test_the_limit_is_for_its_task_alone(jobs: ModuleType) -> None:
    async with working(jobs.app):
        size, pid, _ = await jobs.hold.request(20)
        assert size == 20
        size, other, limit = await jobs.unlimited.request(400)
        assert (size, other) == (400, pid)  # the same child
        assert limit < 0 or limit > 400 << 20


async def test_a_child_that_dies_under_a_limit_says_that_it_had_one(jobs: ModuleType) -> None:
    async with working(jobs.app):
        result = await result_of(await jobs.die.enqueue())
    assert not result.success
    assert "killed by SIGABRT, perhaps at its memory limit of 256 MiB" in result.value


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"max_memory_mb": 0}, ValueError, "max_memory_mb"),
        ({"max_memory_mb": "1 GB"}, TypeError, "max_memory_mb"),
        ({"fresh": "yes"}, TypeError, "fresh"),
    ],
)
def test_misuse(options: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        Process(**options)


def test_a_coroutine_cannot_have_it(app: Ardiq) -> None:
    with pytest.raises(TypeError, match="is for `def`"):

        @app.task(executor=Process(fresh=True))
        async def coroutine() -> None: ...
