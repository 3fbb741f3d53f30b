"""How batches end that do not just end: aborted, too late, on a thread, with their worker."""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, Script, eventually, field, is_sound, is_state, result_of, working

from ardiq import Ardiq, Batch, ExecutionContext, Job, Limit, current_task
from ardiq.embedded import Server

LONG_S = 3600.0


class Held:
    """A task whose executions wait until they are released."""

    def __init__(self, app: Ardiq, size: int, **options: Any) -> None:
        self.got: list[list[int]] = []
        self.cancelled = 0
        self.release = asyncio.Event()

        @app.task(batch=Batch(size, wait=LONG_S), max_retries=0, **options)
        async def work(items: list[int]) -> list[int]:
            self.got.append(items)
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return items

        self.app, self.work = app, work

    async def began(self, *items: int) -> list[Job[int]]:
        """A batch of these that is running."""
        before = len(self.got)
        jobs = await self.app.enqueue_many(map(self.work.prepare, items))
        await eventually(lambda: len(self.got) > before)
        return jobs


async def ends(*jobs: Job[Any]) -> list[str]:
    """How tasks ended."""
    results = [await result_of(job) for job in jobs]
    return ["aborted" if each.aborted else "complete" if each.success else str(each.value) for each in results]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_an_aborted_item_ends_when_the_others_do(app: Ardiq, number: int) -> None:
    """Until then it counts for the limit, above all if it is the first one, which has the slot."""
    held = Held(app, 3, limits=Limit("one", concurrency=1))
    async with working(app):
        jobs = await held.began(1, 2, 3)
        assert await jobs[number].abort()
        await eventually(lambda: field(app, jobs[number].id, "abort_requested"))
        more = await app.enqueue_many(map(held.work.prepare, (4, 5, 6)))
        await asyncio.sleep(0.1)
        assert await jobs[number].status() == "running"
        assert (await app.limits.show("one")).running == 1  # type: ignore[union-attr]
        assert held.got == [[1, 2, 3]]
        held.release.set()
        expected = ["complete"] * 3
        expected[number] = "aborted"
        assert await ends(*jobs) == expected
        assert await ends(*more) == ["complete"] * 3
        assert held.cancelled == 0
    assert is_sound(app)


async def test_an_execution_of_which_all_items_are_aborted_is_cancelled(app: Ardiq) -> None:
    held = Held(app, 3)
    async with working(app):
        jobs = await held.began(1, 2, 3)
        for job in jobs:
            assert await job.abort()
        assert await ends(*jobs) == ["aborted"] * 3
        assert held.cancelled == 1
        held.release.set()
        assert await ends(*await held.began(4, 5, 6)) == ["complete"] * 3
    assert is_sound(app)


async def test_what_gathers_can_be_aborted(app: Ardiq) -> None:
    held = Held(app, 3)
    held.release.set()
    async with working(app):
        first, *others = await app.enqueue_many(map(held.work.prepare, (1, 2)))
        assert await first.abort()
        others += await app.enqueue_many(map(held.work.prepare, (3, 4)))
        await asyncio.sleep(0.1)
        others += await app.enqueue_many(map(held.work.prepare, (5, 6)))
        held_back = [job for job in others if await is_state(app, job.id, "limited")]
        assert await ends(*[job for job in others if job not in held_back]) == ["complete"] * (5 - len(held_back))
        assert await ends(first) == ["aborted"]
    assert 1 not in [item for items in held.got for item in items]


async def test_a_task_that_cancels_itself_is_aborted(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S))
    async def work(items: list[int]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with working(app):
        assert await ends(*await app.enqueue_many(map(work.prepare, (1, 2)))) == ["aborted"] * 2


async def test_what_it_awaits_may_be_cancelled(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S), max_retries=0)
    async def work(items: list[int]) -> None:
        waiting = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await waiting

    async with working(app):
        assert await ends(*await app.enqueue_many(map(work.prepare, (1, 2)))) == ["CancelledError()"] * 2


async def test_a_time_limit_is_that_of_the_execution(app: Ardiq) -> None:
    held = Held(app, 2, timeout=0.05)
    async with working(app):
        jobs = await held.began(1, 2)
        assert await ends(*jobs) == ["timed out after 0.05s"] * 2
    assert held.cancelled == 1


async def test_a_def_runs_on_a_thread(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S))
    def work(items: list[int]) -> list[tuple[int, str]]:
        task = current_task()
        assert task is not None
        return [(each.tries, threading.current_thread().name) for each in task.batch]

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, (1, 2)))
        for tries, name in [(await result_of(job)).value for job in jobs]:
            assert tries == 1
            assert name.startswith("ardiq-call")


@pytest.mark.parametrize("how", ["timeout", "abort"])
async def test_a_thread_runs_on_and_keeps_a_slot(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    app = make_app(concurrency=1)
    go_on, saw, began = threading.Event(), list[bool](), threading.Event()

    @app.task(batch=Batch(2, wait=LONG_S), max_retries=0, timeout=0.2 if how == "timeout" else None)
    def work(items: list[int]) -> None:
        task = current_task()
        assert task is not None
        saw.append(task.cancelled())
        began.set()
        go_on.wait()
        saw.append(task.cancelled())

    @app.task
    async def other() -> None: ...

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, (1, 2)))
        await eventually(began.is_set)
        if how == "abort":
            await jobs[0].abort()
            await jobs[1].abort()
        said = "aborted" if how == "abort" else "timed out after 0.2s"
        assert await ends(*jobs) == [said] * 2
        behind = await other.enqueue()
        await asyncio.sleep(0.1)
        assert await behind.status() == "queued"
        go_on.set()
        await result_of(behind)
    assert saw == [False, True]
    [told] = [record for record in caplog.records if "cannot be stopped" in record.message]
    assert "go_on.wait()" in told.getMessage()


async def test_one_aborted_item_does_not_tell_the_thread_to_return(app: Ardiq) -> None:
    go_on, saw, began = threading.Event(), list[bool](), threading.Event()

    @app.task(batch=Batch(2, wait=LONG_S))
    def work(items: list[int]) -> list[int]:
        task = current_task()
        assert task is not None
        began.set()
        go_on.wait()
        saw.extend([task.cancelled(), *(each.cancelled() for each in task.batch)])
        return items

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, (1, 2)))
        await eventually(began.is_set)
        assert await jobs[0].abort()
        await eventually(lambda: field(app, jobs[0].id, "abort_requested"))
        await asyncio.sleep(0.2)
        go_on.set()
        assert await ends(*jobs) == ["aborted", "complete"]
    assert saw == [False, True, False]


async def test_a_stopped_worker_waits_for_its_batch_and_gives_back_what_gathers(app: Ardiq) -> None:
    held = Held(app, 2)
    async with working(app):
        jobs = await held.began(1, 2)
        left = await held.work.enqueue(3)
        app.stop()
        await asyncio.sleep(0.05)
        held.release.set()
    assert await ends(*jobs) == ["complete"] * 2
    assert (await left.status(), field(app, left.id, "tries")) == ("limited", None)
    assert is_sound(app)


class Stalled:
    """A worker in a thread whose loop stands still in a task, so that it holds the batch that it claims meanwhile."""

    def __init__(self, make_app: Callable[..., Ardiq]) -> None:
        self.app = make_app()
        self.worker = make_app(queue_name=self.app.queue_name, stall_after=None)
        self.go_on, self.got = threading.Event(), list[list[int]]()
        blocked = threading.Event()

        @self.worker.task
        async def block() -> None:
            blocked.set()
            assert self.go_on.wait(SOON_S)

        @self.worker.task(batch=Batch(2, wait=LONG_S))
        async def work(items: list[int]) -> list[int]:
            self.got.append(items)
            return items

        self.work = self.app.ref("work", batch=Batch(2, wait=LONG_S))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.worker.run()))
        self.blocked = blocked

    async def holding(self, *items: int) -> list[Job]:
        """The jobs of a batch that it holds."""
        await self.app.send("block")
        self.thread.start()
        await eventually(self.blocked.is_set)
        jobs = [await self.work.enqueue(item) for item in items]
        await eventually(lambda: is_state(self.app, jobs[0].id, "running"))
        return jobs

    async def ended(self) -> None:
        self.worker.stop()
        self.go_on.set()
        await asyncio.to_thread(self.thread.join)


async def test_a_worker_that_is_stopped_gives_back_a_batch_that_has_not_begun(make_app: Callable[..., Ardiq]) -> None:
    stalled = Stalled(make_app)
    jobs = await stalled.holding(1, 2)
    stalled.worker.stop()
    await eventually(lambda: is_state(stalled.app, jobs[0].id, "limited"))
    await stalled.ended()
    assert {await job.status() for job in jobs} == {"limited"}
    assert {field(stalled.app, job.id, "tries") for job in jobs} == {"0"}
    assert stalled.got == []
    async with working(stalled.worker):
        assert await ends(*jobs) == ["complete"] * 2
    assert stalled.got == [[1, 2]]
    assert is_sound(stalled.app)


@pytest.mark.parametrize("number", [0, 1])
async def test_an_item_of_a_held_batch_can_be_aborted(make_app: Callable[..., Ardiq], number: int) -> None:
    """The other one gathers anew."""
    stalled = Stalled(make_app)
    jobs = await stalled.holding(1, 2)
    aborted, other = jobs[number], jobs[1 - number]
    assert await aborted.abort()
    await eventually(lambda: is_state(stalled.app, other.id, "limited"))
    more = await stalled.work.enqueue(3)
    stalled.go_on.set()
    assert await ends(aborted, other, more) == ["aborted", "complete", "complete"]
    await stalled.ended()
    assert stalled.got == [[2 - number, 3]]
    assert is_sound(stalled.app)


async def test_a_cancelled_worker_hands_its_batch_back(app: Ardiq) -> None:
    held = Held(app, 2)
    run = asyncio.create_task(app.run())
    await asyncio.sleep(0)
    jobs = await held.began(1, 2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert held.cancelled == 1
    assert {field(app, job.id, "state") for job in jobs} == {"limited"}
    assert {field(app, job.id, "tries") for job in jobs} == {"0"}
    held.release.set()
    async with working(app):
        assert await ends(*jobs) == ["complete"] * 2
    assert is_sound(app)


PROGRAM = """
    import asyncio, sys
    from ardiq import Ardiq, Batch

    app = Ardiq(sys.argv[1], sys.argv[2], idle_timeout_ms=1000)

    @app.task(batch=Batch(3, wait=3600))
    async def work(items: list[int]) -> list[int]:
        print(*items)
        if sys.argv[3] == "hang":
            await asyncio.sleep(3600)
        return items

    if __name__ == "__main__":
        asyncio.run(app.run())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
async def test_the_items_of_a_killed_worker_come_back(
    make_app: Callable[..., Ardiq], server: Server, run_script: Callable[..., Script]
) -> None:
    app = make_app(idle_timeout_ms=1000)
    work = app.ref("work", batch=Batch(3, wait=LONG_S))
    jobs = await app.enqueue_many(map(work.prepare, range(3)))
    dying = run_script(PROGRAM, server.url, app.queue_name, "hang")
    assert dying.line() == "0 1 2"
    dying.signal(signal.SIGKILL)
    heir = run_script(PROGRAM, server.url, app.queue_name, "return")
    assert sorted(heir.line().split()) == ["0", "1", "2"]
    assert [(await result_of(job)).value for job in jobs] == [0, 1, 2]
    assert {field(app, job.id, "lost") for job in jobs} == {"1"}
    heir.signal(signal.SIGTERM)
    heir.end()
    assert is_sound(app)


async def test_a_middleware_may_end_it(app: Ardiq) -> None:
    @app.middleware
    async def around(execution: ExecutionContext, call_next: Any) -> Any:
        return await call_next() if execution.args == ([1, 2],) else [7] * len(execution.args[0])

    held = Held(app, 2)
    held.release.set()
    async with working(app):
        jobs = await app.enqueue_many(map(held.work.prepare, (1, 2, 3, 4)))
        assert [(await result_of(job)).value for job in jobs] == [1, 2, 7, 7]


async def test_what_runs_is_logged_by_item(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ardiq")
    held = Held(app, 2)
    held.release.set()
    async with working(app):
        jobs = await app.enqueue_many(map(held.work.prepare, (1, 2)))
        await ends(*jobs)
    for what in ("task started", "task succeeded"):
        assert sum(what in record.message for record in caplog.records) == 2


async def test_many_batches_at_once_keep_their_items(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=8)
    began = time.monotonic()

    @app.task(batch=Batch(7, wait=0.02, key=lambda item: item % 5), max_retries=5, backoff_ms=1)
    async def work(items: list[int]) -> list[int]:
        await asyncio.sleep(0.001)
        if sum(items) % 11 == 0 and time.monotonic() - began < SOON_S / 4:
            raise ValueError
        return [item + 1 for item in items]

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, range(500)))
        for number, job in enumerate(jobs):
            assert (await result_of(job)).value in (number + 1, "ValueError()")
    assert is_sound(app)


async def test_a_worker_that_lost_its_lease_leaves_its_batch_to_others(make_app: Callable[..., Ardiq]) -> None:
    one = make_app(idle_timeout_ms=3000)
    two = make_app(queue_name=one.queue_name, idle_timeout_ms=1000)
    held, heir = Held(one, 2), Held(two, 2)
    heir.release.set()
    core, base = one.context.server.core, one.context.server.base
    async with working(one):
        jobs = await held.began(1, 2)
        [worker] = core.command(["ZRANGE", f"{base}workers", 0, -1])

        def is_lost() -> bool:
            """Its lease is over, however often it renews it."""
            core.command(["ZADD", f"{base}workers", "XX", 1, worker])
            return field(one, jobs[1].id, "lost") == "1"

        async with working(two):
            await eventually(is_lost)
            await eventually(lambda: held.cancelled == 1)
            held.release.set()
            assert await ends(*jobs) == ["complete"] * 2
    assert sorted(held.got + heir.got) == [[1, 2], [1, 2]]
    assert is_sound(one)
