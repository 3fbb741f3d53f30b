"""What is logged: of failed attempts, and by whom it is configured."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_state, result_of, task_module, working

from ardiq import Ardiq, InvalidResult, Retry, Snooze
from ardiq._execution.stacks import traceback_text
from ardiq.embedded import Server


def fields(record: logging.LogRecord) -> tuple[Any, ...]:
    return tuple(getattr(record, name, None) for name in ("task", "task_id", "attempt", "queue"))


def traceback_of(record: logging.LogRecord) -> str:
    return logging.Formatter("").format(record)


async def test_a_failed_attempt_is_logged_with_its_traceback_and_named(
    app: Ardiq, caplog: pytest.LogCaptureFixture
) -> None:
    def inner(kind: str) -> None:
        raise ValueError(kind)

    @app.task(max_retries=1, backoff_ms=1)
    async def on_the_loop() -> None:
        inner("loop")

    @app.task(max_retries=1, backoff_ms=1)
    def on_a_thread() -> None:
        inner("thread")

    @app.task(max_retries=1, backoff_ms=1, timeout=60)
    async def with_a_limit() -> None:
        inner("limit")

    for task in (on_the_loop, on_a_thread, with_a_limit):
        caplog.clear()
        async with working(app):
            job = await task.enqueue()
            assert not (await result_of(job)).success
            said = "task failed", "retry scheduled"
            await eventually(lambda: [r for r in caplog.records if r.message.startswith("task failed")])
        retried, failed = (r for r in caplog.records if any(words in r.message for words in said))
        assert (retried.levelname, failed.levelname) == ("WARNING", "ERROR")
        assert fields(retried) == (task.name, job.id, 1, app.queue_name)
        assert fields(failed) == (task.name, job.id, 2, app.queue_name)
        for record in (retried, failed):
            text = traceback_of(record)
            assert text.rstrip().endswith(
                f"in inner\n    raise ValueError(kind)\nValueError: {task.name.split('_')[-1]}"
            )
            assert "/ardiq/_" not in text, "the worker's own frames tell nothing"
            assert record.exc_info
            assert isinstance(record.exc_info[1], ValueError)


async def test_a_time_limit_says_where_the_task_was(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    async def hangs() -> None:
        await asyncio.sleep(600)

    @app.task(max_retries=0, timeout=0.05)
    async def slow() -> None:
        await hangs()

    job = await slow.enqueue()
    await drain(app)
    [record] = [r for r in caplog.records if fields(r)[1] == job.id]
    assert "in slow\n    await hangs()\n" in traceback_of(record)
    assert "in hangs\n    await asyncio.sleep(600)\n" in traceback_of(record)
    assert traceback_of(record).endswith("TimedOut: timed out after 0.05s")
    assert "/ardiq/_" not in traceback_of(record)


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_a_thread_that_cannot_be_stopped_is_shown(
    app: Ardiq, caplog: pytest.LogCaptureFixture, with_middleware: bool
) -> None:
    if with_middleware:

        @app.middleware
        async def through(context: Any, call_next: Any) -> Any:
            return await call_next()

    go_on = threading.Event()

    @app.task(max_retries=0, timeout=0.05)
    def stuck() -> None:
        go_on.wait(SOON_S)

    async with working(app):
        job = await stuck.enqueue()
        await result_of(job)
        go_on.set()
    shown, failed = [r for r in caplog.records if fields(r)[1] == job.id]
    assert shown.message.startswith(f"the thread of task 'stuck' (id {job.id}) cannot be stopped, and runs on")
    assert "in stuck\n    go_on.wait(SOON_S)\n" in shown.message
    assert "/ardiq/_" not in shown.message
    assert failed.message.endswith("error=timed out after 0.05s")


async def test_an_error_of_ardiq_s_own_shows_no_code_of_ardiq(
    app: Ardiq, make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    @app.task
    async def gives(number: int) -> object:
        return object()

    @app.task
    def gives_on_a_thread(number: int) -> object:
        return object()

    stranger = make_app(queue_name=app.queue_name)
    for name in ("gives", "gives_on_a_thread"):
        for arguments in ((1,), ("text",), (1, 2)):
            await stranger.send(name, *arguments)
    await drain(app)
    lines = [traceback_of(r).splitlines()[1:] for r in caplog.records if r.message.startswith("task failed")]
    assert [len(each) for each in lines] == [1] * 6, "without frames and causes"
    kinds = ["InvalidArguments"] * 4 + ["InvalidResult"] * 2
    assert sorted(line.split(": ")[0] for [line] in lines) == [f"ardiq.errors.{kind}" for kind in kinds]


def test_what_a_serializer_raised_is_shown() -> None:
    def refuse(value: Any) -> bytes:
        raise ValueError("not today")

    codec = Ardiq("redis://127.0.0.1:1", serializer=refuse, deserializer=json.loads).context.codec
    with pytest.raises(InvalidResult) as raised:
        codec.encode_result("task", None, 1)
    text = traceback_text(raised.value.with_traceback(None))
    assert 'in refuse\n    raise ValueError("not today")\nValueError: not today' in text
    assert text.rstrip().rpartition("\n")[2].startswith("ardiq.errors.InvalidResult: ")
    assert "/ardiq/_" not in text


async def test_what_was_asked_for_has_no_traceback_but_is_named(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ardiq")

    asked: set[str] = set()

    @app.task(max_retries=1)
    async def asks(how: str) -> str:
        if how == "abort":
            await asyncio.sleep(600)
        is_first = how not in asked
        asked.add(how)
        if how == "retry" and is_first:
            raise Retry(delay_ms=1)
        if how == "snooze" and is_first:
            raise Snooze(0.001)
        return how

    async with working(app):
        retried, snoozed = [await asks.enqueue(how) for how in ("retry", "snooze")]
        assert [(await result_of(job)).value for job in (retried, snoozed)] == ["retry", "snooze"]
        aborted = await asks.enqueue("abort")
        await eventually(lambda: is_state(app, aborted.id, "running"))
        await aborted.abort()
        assert (await result_of(aborted)).aborted
    about = [r for r in caplog.records if r.message.startswith("task ")]
    assert all(fields(r)[0] == "asks" and fields(r)[3] == app.queue_name for r in about)
    assert {(r.message.split(" id=")[0], fields(r)[1]) for r in about} == {
        *(("task started", job.id) for job in (retried, snoozed, aborted)),
        ("task retry scheduled", retried.id),
        ("task succeeded", retried.id),
        ("task snoozed", snoozed.id),
        ("task succeeded", snoozed.id),
        ("task aborted", aborted.id),
    }
    assert not any(r.exc_info for r in about)


async def test_a_child_s_traceback_is_logged_by_its_worker(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
        from ardiq import Ardiq

        app = Ardiq({url!r}, queue_name={queue!r})

        @app.task(executor="process", max_retries=0)
        def fail() -> None:
            raise ValueError("in a child")
        """
    with task_module(source, server, tmp_path, monkeypatch) as module:
        job = await module.fail.enqueue()
        await drain(module.app)
        [record] = [r for r in caplog.records if r.message.startswith("task failed")]
        assert fields(record) == ("fail", job.id, 1, module.app.queue_name)
        assert 'raise ValueError("in a child")' in traceback_of(record)
        assert "FromChild" not in traceback_of(record), "nor what carried it here"


async def test_a_text_that_is_huge_or_no_text_harms_no_log(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(max_retries=0)
    async def fail(text: str) -> None:
        raise ValueError(text * 1_000_000 if text == "x" else "\ud800")

    for text in ("x", "surrogate"):
        job = await fail.enqueue(text)
        await drain(app)
        [record] = [r for r in caplog.records if fields(r)[1] == job.id]
        assert len(traceback_of(record).encode()) < 100_000
