"""What tasks emit, and who reads it: while they run, and afterwards."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, Chunk, Retry, Signal, TaskError, current_task, emit, emit_sync, step, wait_for
from ardiq.cli import main
from ardiq.embedded import Server
from ardiq.testing import inline

Seen = list[tuple[int, int, Any]]


async def seen_of(stream: AsyncGenerator[Chunk[Any], None]) -> Seen:
    return [(chunk.tries, chunk.number, chunk.value) async for chunk in stream]


async def test_chunks_are_read_while_the_task_runs(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def work() -> str:
        await emit("one")
        await emit({"two": [2, None]})
        await go_on.wait()
        await emit(3.5)
        return "done"

    job = await work.enqueue()
    async with working(app):
        seen: Seen = []
        async for chunk in job.stream(timeout=SOON_S):
            seen.append((chunk.tries, chunk.number, chunk.value))
            if len(seen) == 2:
                assert await job.status() == "running"
                go_on.set()
    assert seen == [(1, 0, "one"), (1, 1, {"two": [2, None]}), (1, 2, 3.5)]
    # One who comes late gets the same.
    assert await seen_of(job.stream()) == seen
    assert await seen_of(app.stream(job.id)) == seen
    assert [(chunk.tries, chunk.number, chunk.value) for chunk in job.stream_sync()] == seen
    assert is_sound(app)


async def test_a_reader_goes_on_behind_a_chunk(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        for number in range(5):
            await emit(number)

    job = await work.enqueue()
    await drain(app)
    ids = [chunk.id async for chunk in job.stream()]
    assert [chunk.value async for chunk in job.stream(after=ids[2])] == [3, 4]
    assert [chunk.value for chunk in job.stream_sync(after=ids[2])] == [3, 4]
    assert [chunk.value async for chunk in job.stream(after=ids[4])] == []
    for wrong in ("3", "a-b", "-", "1-"):
        with pytest.raises(ValueError, match="must be the id of a chunk"):
            job.stream(after=wrong)


async def test_another_attempt_begins_at_0(app: Ardiq) -> None:
    @app.task(max_retries=1, backoff_ms=1)
    async def work() -> None:
        task = current_task()
        assert task is not None
        await emit(f"try {task.tries}")
        await emit("end")
        if task.tries == 1:
            raise Retry

    job = await work.enqueue()
    reading = asyncio.create_task(seen_of(job.stream(timeout=SOON_S)))
    async with working(app):
        seen = await reading
    assert seen == [(1, 0, "try 1"), (1, 1, "end"), (2, 0, "try 2"), (2, 1, "end")]


async def test_a_failed_task_has_streamed_all_that_it_emitted(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        for number in range(3000):
            await emit(number)
        raise ValueError("no")

    job = await work.enqueue()
    async with working(app):
        assert [chunk.value async for chunk in job.stream(timeout=SOON_S)] == list(range(3000))
    with pytest.raises(TaskError):
        await job.value(timeout=SOON_S)
    # Run again as if new, it has emitted nothing yet.
    await app.dead.requeue(job.id)
    assert field(app, job.id, "streamed") is None
    with pytest.raises(TimeoutError):
        await seen_of(job.stream(timeout=0))


async def test_where_no_result_is_kept_the_stream_is(app: Ardiq) -> None:
    @app.task(result_ttl=0)
    async def work() -> None:
        await emit("all there is")

    job = await work.enqueue()
    async with working(app):
        assert await seen_of(job.stream(timeout=SOON_S)) == [(1, 0, "all there is")]
        assert await seen_of(job.stream()) == [(1, 0, "all there is")]


async def test_a_sync_task_emits_from_its_thread(app: Ardiq) -> None:
    @app.task
    def work() -> int:
        for number in range(2500):
            emit_sync(number)
        return threading.get_ident()

    job = await work.enqueue()
    reading = asyncio.create_task(seen_of(job.stream(timeout=SOON_S)))
    async with working(app):
        assert (await result_of(job)).value != threading.get_ident()
        assert await reading == [(1, number, number) for number in range(2500)]


async def test_many_large_chunks_make_the_task_wait(app: Ardiq) -> None:
    text = "x" * 60_000

    @app.task
    async def work() -> None:
        for number in range(100):
            await emit(f"{number} {text}")

    job = await work.enqueue()
    async with working(app):
        numbers = [chunk.value.partition(" ")[0] async for chunk in job.stream(str, timeout=SOON_S)]
    assert numbers == list(map(str, range(100)))
    assert app.context.server.core.command(["LLEN", f"ardiq:{{{app.queue_name}}}:stream:{job.id}"]) == 100


async def test_an_aborted_task_has_streamed_what_it_emitted(app: Ardiq) -> None:
    begun = asyncio.Event()

    @app.task
    async def work() -> None:
        try:
            await emit("before")
            begun.set()
            await asyncio.sleep(SOON_S)
        finally:
            await emit("its outcome no longer counts")

    job = await work.enqueue()
    async with working(app):
        await begun.wait()
        assert await job.abort()
        assert await seen_of(job.stream(timeout=SOON_S)) == [(1, 0, "before")]


@dataclass
class Token:
    text: str
    odds: float


async def test_chunks_are_converted_to_what_the_reader_asks_for(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        await emit(Token("a", 0.5))
        await emit({"text": "b", "odds": 1})

    job = await work.enqueue()
    await drain(app)
    assert [chunk.value async for chunk in job.stream(Token)] == [Token("a", 0.5), Token("b", 1)]
    assert [chunk.value for chunk in job.stream_sync(Token)] == [Token("a", 0.5), Token("b", 1)]
    assert [chunk.value async for chunk in job.stream()] == [{"text": "a", "odds": 0.5}, {"text": "b", "odds": 1}]
    with pytest.raises(TypeError, match=f"a chunk of task '{job.id}' does not fit its annotation"):
        await seen_of(job.stream(int))
    with pytest.raises(TypeError, match="chunks cannot be converted to"):
        job.stream(threading.Thread)


async def test_what_cannot_be_sent_is_refused_in_the_task(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work(what: str) -> str:
        chunk: Any = {"large": "x" * 70_000, "strange": object(), "several": [Token("a", 1)]}[what]
        try:
            await emit(chunk)
        except (TypeError, ValueError) as error:
            return str(error)
        return "sent"

    async with working(app):
        assert "70,002 bytes, over the limit of 65,536" in await work.request("large", timeout=SOON_S)
        for what in ("strange", "several"):
            assert "a chunk of task 'work' is of type" in await work.request(what, timeout=SOON_S)


async def test_a_task_that_waited_emits_from_its_beginning(app: Ardiq) -> None:
    approval = Signal("approval", bool)

    async def draft() -> str:
        await emit("a draft")
        return "draft"

    @app.task
    async def work() -> None:
        assert await step("draft", draft) == "draft"
        await emit("to be approved")
        if await wait_for(approval):
            await emit("approved")

    job = await work.enqueue()
    seen: Seen = []
    async with working(app):
        async for chunk in job.stream(timeout=SOON_S):
            seen.append((chunk.tries, chunk.number, chunk.value))
            if len(seen) == 2:
                await job.signal(approval, True)
    assert seen == [(1, 0, "a draft"), (1, 1, "to be approved"), (1, 0, "to be approved"), (1, 1, "approved")]


async def test_outside_of_a_task_nothing_is_emitted(app: Ardiq) -> None:
    await emit("nobody")
    await asyncio.to_thread(emit_sync, "nobody")
    with pytest.raises(RuntimeError, match="await emit"):
        emit_sync("blocks")
    assert await seen_of(app.stream("nobody")) == []
    assert list(app.stream_sync("nobody")) == []


async def test_lost_connections_lose_and_repeat_nothing(make_app: Callable[..., Ardiq]) -> None:
    with Server() as server:
        app = make_app(redis_url=server.url)
        go_on = asyncio.Event()

        @app.task
        async def work() -> None:
            for number in range(60):
                await emit(number)
                if number % 10 == 9:
                    await go_on.wait()
                    go_on.clear()

        job = await work.enqueue()
        seen: list[int] = []
        async with working(app):
            async for chunk in job.stream(int, timeout=SOON_S):
                seen.append(chunk.value)
                if chunk.value % 10 == 9:
                    go_on.set()
                    app.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"])
        assert seen == list(range(60))
        app.context.server.close()


async def test_a_reader_does_not_wait_for_ever(app: Ardiq) -> None:
    job = await app.send("nobody_runs_it")
    with pytest.raises(TimeoutError, match=f"no result for '{job.id}' within 0.01s"):
        await seen_of(job.stream(timeout=0.01))
    with pytest.raises(TimeoutError, match=f"no result for '{job.id}' within 0.01s"):
        list(job.stream_sync(timeout=0.01))
    waiters = f"ardiq:{{{app.queue_name}}}:waiters:{job.id}"
    await eventually(lambda: app.context.server.core.command(["EXISTS", waiters]) == 0)


async def test_the_command_line_shows_it(
    app: Ardiq, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.task
    async def work() -> None:
        await emit("one")
        await emit({"two": 2})

    job = await work.enqueue()
    await drain(app)
    module = ModuleType("streaming_jobs")
    vars(module)["app"] = app
    monkeypatch.setitem(sys.modules, "streaming_jobs", module)
    command = ["task", "stream", "streaming_jobs:app", job.id]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == 'one\n{"two": 2}\n'
    assert await asyncio.to_thread(main, [*command, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [chunk._asdict() async for chunk in job.stream()]
    assert await asyncio.to_thread(main, [*command[:3], "nobody"]) == 1


async def test_it_works_inline(app: Ardiq) -> None:
    @app.task(max_retries=1)
    async def work() -> None:
        task = current_task()
        assert task is not None
        await emit(Token("a", task.tries))
        if task.tries == 1:
            raise Retry

    @app.task
    def in_thread() -> None:
        emit_sync(1)
        emit_sync(2)

    async with inline(app):
        job = await work.enqueue()
        assert await seen_of(job.stream(Token)) == [(1, 0, Token("a", 1)), (2, 0, Token("a", 2))]
        other = await in_thread.enqueue()
        assert await seen_of(other.stream()) == [(1, 0, 1), (1, 1, 2)]
        assert [chunk.value for chunk in other.stream_sync(int)] == [1, 2]
