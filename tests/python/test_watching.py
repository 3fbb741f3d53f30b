"""Watching a task: each change as the server tells it, until it has ended."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, result_of, working

from ardiq import Ardiq, Job, Progress, TaskUpdate, current_task
from ardiq.testing import assert_enqueued, inline


async def states(watching: AsyncGenerator[TaskUpdate[Any], None]) -> list[str]:
    """What is told, each status that follows another."""
    seen: list[str] = []
    async for update in watching:
        if seen[-1:] != [update.status]:
            seen.append(update.status)
    return seen


def key(app: Ardiq, name: str) -> str:
    return f"ardiq:{{{app.queue_name}}}:{name}"


def watchers(app: Ardiq, task_id: str) -> set[bytes]:
    """The mailboxes that are told."""
    return set(app.context.server.core.command(["SMEMBERS", key(app, f"waiters:{task_id}")]))


async def test_each_state_is_told_and_last_how_it_ended(app: Ardiq) -> None:
    @app.task(retry=[0.01])
    async def work() -> int:
        task = current_task()
        assert task is not None
        if task.tries == 1:
            raise ValueError("no")
        return 7

    job = await work.enqueue()
    updates: list[TaskUpdate[int]] = []

    async def watch() -> None:
        async for update in job.watch(SOON_S):
            updates.append(update)

    watching = asyncio.create_task(watch())
    await eventually(lambda: updates)
    async with working(app):
        await watching
    told = [(update.status, update.tries) for update in updates]
    assert told == [
        ("queued", 0), ("running", 1), ("scheduled", 1), ("queued", 1), ("running", 2), ("complete", 2),
    ]  # fmt: skip
    assert [update.result for update in updates[:-1]] == [None] * 5
    assert updates[-1].result == await result_of(job)
    assert updates[-1].result is not None
    assert updates[-1].result.value == 7
    assert is_sound(app)


async def test_what_a_task_tells_arrives_while_it_runs(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        task.progress(0.5, "half")
        task.note(rows=7)
        task.log("one")
        await go_on.wait()
        task.log("two")
        task.progress(1)
        del task.notes["rows"]
        await asyncio.sleep(0.3)  # what is told just before the end may come after it

    job = await work.enqueue()
    lines: list[str] = []
    notes: list[dict[str, Any]] = []
    seen: list[Progress | None] = []
    watching = job.watch(SOON_S)
    assert await anext(watching) == TaskUpdate("queued")
    async with working(app):
        async for update in watching:
            lines += update.lines
            notes += [update.notes] if update.notes else []
            seen.append(update.progress)
            if lines and notes:
                go_on.set()
    assert lines == ["one", "two"]
    assert notes == [{"rows": 7}, {"rows": None}]
    assert Progress(0.5, "half") in seen
    assert seen[-1] == Progress(1, "")


async def test_a_task_that_has_ended_is_told_once(app: Ardiq) -> None:
    @app.task
    async def work() -> int:
        return 7

    job = await work.enqueue()
    await drain(app)
    updates = [update async for update in job.watch()]
    assert updates == [TaskUpdate("complete", 1, result=await result_of(job))]


async def test_an_unknown_task_ends_the_watch(app: Ardiq) -> None:
    assert [update async for update in app.watch("nobody")] == [TaskUpdate("not_found")]
    assert await Job(app, "nobody").status() == "not_found"


async def test_a_task_that_ends_without_running(app: Ardiq) -> None:
    aborted, purged, expired = [await app.send("work") for _ in range(3)]
    watching = [asyncio.create_task(states(app.watch(job.id, SOON_S))) for job in (aborted, purged, expired)]
    for job in (aborted, purged, expired):
        await eventually(lambda job=job: watchers(app, job.id))
    await aborted.abort()
    app.context.server.core.call("purge", ["queued", "default", 0, 10, 60_000])
    app.context.server.core.command(["HSET", key(app, f"task:{expired.id}"), "expires_at", "1"])
    assert await asyncio.gather(*watching) == [["queued", "complete"]] * 3


async def test_a_watch_is_over_in_time(app: Ardiq) -> None:
    job = await app.send("work")
    with pytest.raises(TimeoutError, match=job.id):
        await states(job.watch(0.05))
    await eventually(lambda: not watchers(app, job.id))


async def test_a_watch_is_over_in_time_without_a_server(make_app: Callable[..., Ardiq]) -> None:
    nowhere = make_app(redis_url="redis://127.0.0.1:1")
    with pytest.raises(TimeoutError, match="no result for 'some-task' within"):
        await states(nowhere.watch("some-task", 0.05))


async def test_with_no_time_it_is_asked_once(app: Ardiq) -> None:
    job = await app.send("work")
    with pytest.raises(TimeoutError, match=job.id):
        await states(job.watch(0))
    await job.abort()
    assert await states(job.watch(0)) == ["complete"]


async def test_who_stops_watching_is_forgotten_and_who_waits_is_not(app: Ardiq) -> None:
    @app.task
    async def work() -> int:
        return 7

    job = await work.enqueue()
    waiting = asyncio.create_task(job.result(SOON_S))
    others = asyncio.create_task(states(job.watch(SOON_S)))
    watching = job.watch()
    assert (await anext(watching)).status == "queued"
    await watching.aclose()
    async with working(app):
        assert await others == ["queued", "running", "complete"]
        assert (await waiting).value == 7  # type: ignore[union-attr]
    assert is_sound(app)


async def test_a_lost_connection_does_not_end_a_watch(app: Ardiq) -> None:
    @app.task
    async def work() -> int:
        return 7

    job = await work.enqueue()
    updates: list[str] = []

    async def watch() -> None:
        async for update in job.watch(SOON_S):
            updates.append(update.status)

    watching = asyncio.create_task(watch())
    await eventually(lambda: updates)
    for _ in range(3):
        before = watchers(app, job.id)
        app.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal"])
        # One mailbox, the new one: nothing is sent to those that nobody reads any more.
        await eventually(lambda before=before: len(now := watchers(app, job.id)) == 1 and now != before)
    async with working(app):
        await watching
    assert updates == ["queued", "running", "complete"]


@pytest.mark.parametrize("size", [0, 100_000])
async def test_how_it_ended_is_told_where_results_are_not_kept(make_app: Callable[..., Ardiq], size: int) -> None:
    app = make_app(result_ttl_ms=0)

    @app.task
    async def work() -> str:
        return "x" * size

    job = await work.enqueue()
    waiting = asyncio.create_task(job.result(SOON_S))
    watching = job.watch(SOON_S)
    assert (await anext(watching)).status == "queued"
    # The mail is late: a question asked meanwhile is answered that the task is unknown.
    mailbox, loop = app.context.server.channel(asyncio.get_running_loop()).mailbox, asyncio.get_running_loop()
    receive, held = mailbox.receive, asyncio.Event()

    def receive_later(fields: Any) -> None:
        held.set()
        loop.call_later(0.2, receive, fields)

    mailbox.receive = receive_later  # type: ignore[method-assign]
    async with working(app):
        await held.wait()
        await eventually(lambda: is_state(app, job.id, "not_found"))
        mailbox._wishes[job.id].watchers[0].ask_again()
        *_, last = [update async for update in watching]
        assert last.status == "complete"
        assert last.result is not None
        assert last.result.value == "x" * size
        assert await waiting == last.result


async def test_a_task_that_is_gone_ends_the_watch(app: Ardiq) -> None:
    job = await app.send("work")
    watching = job.watch(SOON_S)
    assert (await anext(watching)).status == "queued"
    app.context.server.core.command(["DEL", key(app, f"task:{job.id}"), key(app, "ready:default")])
    app.context.server.channel(asyncio.get_running_loop()).mailbox._wishes[job.id].watchers[0].ask_again()
    assert [update.status async for update in watching] == ["not_found"]


async def test_what_somebody_wrote_into_the_record_is_borne(app: Ardiq) -> None:
    job = await app.send("work")
    record = key(app, f"task:{job.id}")
    app.context.server.core.command(["HSET", record, "progress", "half", "note:rows", "many", "tries", "x"])
    watching = job.watch(SOON_S)
    assert await anext(watching) == TaskUpdate("queued")
    await watching.aclose()
    assert await job.progress() is None
    assert await job.notes() == {"rows": "many"}
    app.context.server.core.command(["HSET", record, "progress", "7"])
    assert await job.progress() is None


async def test_a_slow_reader_hears_the_latest_and_all_lines(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        for number in range(1, 21):
            task.progress(number / 20)
            task.log(str(number))
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)

    job = await work.enqueue()
    watching = job.watch(SOON_S)
    await anext(watching)
    async with working(app):
        await result_of(job)
        updates = [update async for update in watching]
    assert [update.status for update in updates] == ["running", "complete"]
    assert updates[0].lines == tuple(str(number) for number in range(1, 21))
    assert updates[0].progress == Progress(1, "")


async def test_nobody_watches_nothing_is_written(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        pass

    job = await work.enqueue()
    await drain(app)
    assert field(app, job.id, "watched_until") is None


async def test_inline(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def work() -> int:
        task = current_task()
        assert task is not None
        task.log("one")
        await go_on.wait()
        task.log("two")
        task.progress(1)
        await asyncio.sleep(0.05)
        return 7

    async with inline(app):
        sending = asyncio.ensure_future(work.enqueue())
        await asyncio.sleep(0.01)
        task_id = assert_enqueued(work).task_id
        watching = app.watch(task_id, SOON_S)
        assert await anext(watching) == TaskUpdate("running", 1)
        go_on.set()
        updates = [update async for update in watching]
        assert updates[0].lines == ("two",)
        assert updates[-1].status == "complete"
        assert updates[-1].progress == Progress(1, "")
        assert await sending
        assert [update.status async for update in app.watch("nobody")] == ["not_found"]
