"""Attempts: retries, failures of every kind, time limits."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, number_of, result_of, working

from ardiq import Ardiq, ErrorContext, Retry, context, current_task
from ardiq.cli import main

fast_retries: dict[str, Any] = {"max_retries": 2, "backoff_ms": 1}


async def test_a_task_that_raises_is_tried_again(app: Ardiq) -> None:
    tries = []

    @app.task(**fast_retries)
    async def flaky() -> str:
        task = current_task()
        assert task is not None
        tries.append(task.tries)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return "done"

    async with working(app):
        result = await result_of(await flaky.enqueue())
    assert (result.success, result.value, result.tries) == (True, "done", 3)
    assert tries == [1, 2, 3]
    assert await app.dead_count() == 0
    assert is_sound(app)


async def test_out_of_tries_it_is_a_dead_letter(app: Ardiq) -> None:
    @app.task(**fast_retries)
    async def broken(number: int) -> None:
        raise ValueError("no", number)

    async with working(app):
        job = await broken.enqueue(7)
        result = await result_of(job)
    assert (result.success, result.value, result.tries) == (False, "ValueError('no', 7)", 3)
    letter = (await app.dead_letters())[0]
    assert (letter.task_id, letter.fn_name, letter.args, letter.tries) == (job.id, "broken", (7,), 3)
    assert letter.error == "ValueError('no', 7)"
    assert "ValueError: ('no', 7)" in (field(app, job.id, "traceback") or "")
    assert await job.status() == "complete"


async def test_by_default_a_try_waits_for_the_square_of_its_number(app: Ardiq) -> None:
    @app.task
    async def broken() -> None:
        raise ValueError

    async with working(app):
        job = await broken.enqueue()
        await eventually(lambda: is_state(app, job.id, "scheduled"))
        info = await job.info()
    assert info is not None
    assert info.tries == 1
    assert info.scheduled_at is not None
    assert 800 <= info.scheduled_at - info.enqueue_time <= 1000 + 1000 * SOON_S
    assert field(app, job.id, "error") == "ValueError()"


async def test_the_backoff_is_the_task_s_own(app: Ardiq) -> None:
    @app.task(backoff_ms=77_000)
    async def broken() -> None:
        raise ValueError

    @app.task
    async def asking(delay_ms: Any) -> None:
        raise Retry(delay_ms=delay_ms)

    async with working(app):
        jobs = [await broken.enqueue(), await asking.enqueue(88_000), await asking.enqueue(None)]
        for job, expected in zip(jobs, (77_000, 88_000, 1000), strict=True):
            await eventually(lambda job=job: is_state(app, job.id, "scheduled"))
            info = await job.info()
            assert info is not None
            assert info.scheduled_at is not None
            assert expected <= info.scheduled_at - info.enqueue_time < expected + 1000 * SOON_S


async def test_retry_is_no_failure_until_it_is_the_last(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)

    @app.task(max_retries=2)
    async def again() -> None:
        raise Retry("rate limited", delay_ms=0)

    async with working(app):
        result = await result_of(await again.enqueue())
    assert (result.success, result.value, result.tries) == (False, "Retry('rate limited')", 3)
    assert [(error.tries, error.will_retry) for error in told] == [(3, False)]
    assert [record.levelno for record in caplog.records if "retry scheduled" in record.message] == []


async def test_no_retries_means_one_attempt(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def once() -> None:
        raise Retry

    await drain_one(app, await once.enqueue(), "Retry('retry requested')", tries=1)


async def drain_one(app: Ardiq, job: Any, value: str, tries: int) -> None:
    await drain(app)
    result = await result_of(job)
    assert (result.success, result.value, result.tries) == (False, value, tries)


class Odd(BaseException): ...


class BadRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("even that fails")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit(3)"),
        (KeyboardInterrupt(), "KeyboardInterrupt()"),
        (GeneratorExit(), "GeneratorExit()"),
        (Odd("x"), "Odd('x')"),
        (asyncio.CancelledError(), "CancelledError()"),
        (StopAsyncIteration(), "StopAsyncIteration()"),
        (StopIteration(1), "RuntimeError('coroutine raised StopIteration')"),
        (TimeoutError("mine"), "TimeoutError('mine')"),
        (
            ExceptionGroup("many", [ValueError(1), TypeError(2)]),
            "ExceptionGroup('many', [ValueError(1), TypeError(2)])",
        ),
        (BadRepr(), "BadRepr (its repr failed)"),
        (ValueError("\ud800"), "ValueError('\\ud800')"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("awaiting", [False, True])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_whatever_is_raised_the_worker_lives(
    app: Ardiq, error: BaseException, text: str, awaiting: bool, timeout: float | None
) -> None:
    @app.task(max_retries=0, timeout=timeout)
    async def raising() -> None:
        if awaiting:
            await asyncio.sleep(0)
        raise error

    @app.task
    async def fine() -> int:
        return 1

    async with working(app):
        result = await result_of(await raising.enqueue())
        assert (await result_of(await fine.enqueue())).value == 1
    assert (result.success, result.value) == (False, text)
    assert not result.aborted


async def test_a_huge_error_text_is_cut(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def raising() -> None:
        raise ValueError("x" * 1_000_000)

    job = await raising.enqueue()
    await drain(app)
    assert 1000 < len((await result_of(job)).value) < 100_000
    assert len(field(app, job.id, "traceback") or "") < 100_000


async def test_a_task_that_cancels_itself_is_aborted(app: Ardiq) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)

    def cancel_this() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    @app.task(backoff_ms=1)
    async def itself() -> None:
        cancel_this()
        await asyncio.sleep(SOON_S)

    @app.task
    async def swallowed() -> str:
        cancel_this()
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            return "swallowed"
        return "not cancelled"

    async with working(app):
        result = await result_of(await itself.enqueue())
        assert (result.success, result.value, result.aborted, result.tries) == (False, "aborted", True, 1)
        assert (await result_of(await swallowed.enqueue())).value == "swallowed"
    assert told == []
    assert await app.dead_count() == 0


async def test_a_task_that_waited_for_what_was_cancelled_has_failed(app: Ardiq) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)

    @app.task(max_retries=1, backoff_ms=1)
    async def waiting() -> str:
        if (task := current_task()) is not None and task.tries == 2:
            return "again"
        other = asyncio.create_task(asyncio.sleep(SOON_S))
        asyncio.get_running_loop().call_soon(other.cancel)
        await other
        return "not cancelled"

    async with working(app):
        assert (await result_of(await waiting.enqueue())).value == "again"
    assert [(type(error.exc), error.will_retry) for error in told] == [(asyncio.CancelledError, True)]


async def test_a_time_limit(app: Ardiq) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)
    cleaned = []

    @app.task(timeout=0.05, max_retries=1, backoff_ms=1)
    async def slow() -> None:
        try:
            await asyncio.sleep(SOON_S)
        finally:
            cleaned.append(1)

    @app.task(timeout=0.05, max_retries=0)
    async def own() -> None:
        raise TimeoutError("another one")

    async with working(app):
        result = await result_of(await slow.enqueue())
        own_result = await result_of(await own.enqueue())
    assert (result.success, result.value, result.tries) == (False, "timed out after 0.05s", 2)
    assert cleaned == [1, 1]
    assert isinstance(told[0].exc, TimeoutError)
    assert own_result.value == "TimeoutError('another one')"


async def test_an_unknown_task_is_left_for_a_worker_that_knows_it(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    old, told = make_app(), list[ErrorContext]()
    old.on_error(told.append)
    new = make_app(queue_name=old.queue_name)

    @new.task(max_retries=0)
    async def added(number: int) -> int:
        return number + 1

    number_of(old)
    jobs = [await old.send("added", number) for number in range(2)]
    async with working(old):
        for job in jobs:
            await eventually(lambda job=job: is_state(old, job.id, "scheduled"))
    assert [field(old, jobs[0].id, name) for name in ("tries", "error")] == [
        "0",
        "unknown task 'added'",
    ]
    for command in ("status", "doctor"):
        await asyncio.to_thread(main, [command, old.redis_url, "--queue", old.queue_name])
        assert re.search(r"waiting for a worker that knows them: added|task added", capsys.readouterr().out)
    assert caplog.text.count("leaves it for one that does") == 1, "said once of each name"
    async with working(new):
        results = [await result_of(job) for job in jobs]
    assert [(result.value, result.tries) for result in results] == [(1, 1), (2, 1)]
    assert told == []
    assert old.metrics() == []


async def test_an_unknown_task_waits_no_longer_than_it_may(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    app, told = make_app(unknown_task_wait=0.1), list[ErrorContext]()
    number_of(app)
    app.on_error(told.append)
    job = await app.send("missing", 1)
    async with working(app):
        result = await result_of(job)
    assert not result.success
    assert result.value == "unknown task 'missing' (no worker knew it for 100 ms)"
    assert await app.dead.count() == 1
    assert [(error.name, type(error.exc), error.will_retry) for error in told] == [("missing", LookupError, False)]
    assert "task failed" in caplog.text


async def test_an_unknown_task_fails_at_once_where_it_is_not_to_wait(make_app: Callable[..., Ardiq]) -> None:
    app, told = make_app(unknown_task_wait=0), list[ErrorContext]()
    app.on_error(told.append)
    job = await app.send("missing", 1)
    async with working(app):
        result = await result_of(job)
    assert (result.value, result.tries) == ("unknown task 'missing'", 1)
    assert [(error.name, type(error.exc), error.will_retry) for error in told] == [("missing", LookupError, False)]


@pytest.mark.parametrize("why", ["aborted", "a stranger's cancellation", "handed back"])
async def test_cancelled_before_its_first_step_it_is_settled(app: Ardiq, why: str) -> None:
    began: list[int] = []

    @app.task(max_retries=0)
    async def first() -> None:
        claim, attempts = context.running.get(), app.run_state.workers[0]._attempts
        assert claim is not None
        # On Python 3.11 the second one was made in the same turn of the loop, and has not begun.
        if why == "aborted":
            app.run_state.workers[0]._abort(claim[1] + 1)
        elif why == "handed back":
            attempts.hand_back()
        elif (other := attempts.running.get(claim[1] + 1)) is not None:
            other.cancel()

    @app.task(max_retries=0)
    async def second() -> None:
        task = current_task()
        began.append(0 if task is None else task.tries)

    jobs = await app.enqueue_many([first.prepare(), second.prepare()])
    await drain(app)
    result = await result_of(jobs[1])
    if why == "aborted":
        assert (result.aborted, began) == (True, [])
    elif why == "handed back":
        assert (result.success, began) == (True, [1])
    else:  # with an eager start there is nothing to cancel
        assert result.success or result.aborted
    assert is_sound(app)


async def test_a_worker_without_tasks_says_so_and_runs_what_is_added_later(
    app: Ardiq, caplog: pytest.LogCaptureFixture
) -> None:
    job = await app.send("work", 1)
    async with working(app):
        await eventually(lambda: "this worker has no tasks, so it runs none" in caplog.text)
        number_of(app)
        assert (await result_of(job)).success
