"""What an attempt became is told by the server's answer: in logs, figures and hooks, not by what was asked for."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_sound, is_state, result_of, working

from ardiq import Ardiq, ErrorContext, Retry, Snooze, TaskMetrics, context
from ardiq.retries import Fixed

MAX_AGE: dict[str, Any] = {"max_age": 30, "retry": Fixed(60)}


def counted(app: Ardiq) -> tuple[int, int, int]:
    """How many were retried, failed and aborted."""
    metrics: list[TaskMetrics] = app.metrics()
    return sum(m.retried for m in metrics), sum(m.failed for m in metrics), sum(m.aborted for m in metrics)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of attempts, by its first words."""
    said = (record.getMessage().split(" id=")[0] for record in caplog.records if record.name == "ardiq")
    return [line for line in said if line.startswith("task ")]


@pytest.fixture
def told(app: Ardiq) -> list[ErrorContext]:
    heard: list[ErrorContext] = []
    app.on_error(heard.append)
    return heard


def failing(app: Ardiq, where: str, error: Exception, **options: Any) -> Any:
    if where == "loop":

        @app.task(name="fail", **options)
        async def fail() -> None:
            raise error

        return fail

    @app.task(name="fail", **options)
    def fail_sync() -> None:
        raise error

    return fail_sync


@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize(
    "error", [ValueError("no"), Retry("no"), Snooze(60, "no")], ids=lambda error: type(error).__name__
)
async def test_a_retry_that_max_age_forbids_has_failed(
    app: Ardiq, told: list[ErrorContext], caplog: pytest.LogCaptureFixture, where: str, error: Exception
) -> None:
    fail = failing(app, where, error, **MAX_AGE)
    async with working(app):
        result = await result_of(await fail.enqueue())
    assert result.value.endswith("no') (older than its max_age of 30000 ms)") or result.value.startswith("no (older")
    assert [(failure.exc, failure.tries, failure.will_retry) for failure in told] == [(error, 1, False)]
    assert counted(app) == (0, 1, 0)
    assert lines(caplog) == ["task failed"]
    assert "(older than its max_age of 30000 ms)" in caplog.text


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_retry_that_is_taken_is_told_as_one(
    app: Ardiq, told: list[ErrorContext], caplog: pytest.LogCaptureFixture, where: str
) -> None:
    fail = failing(app, where, ValueError("no"), max_age=3600, retry=Fixed(60))
    async with working(app):
        job = await fail.enqueue()
        await eventually(lambda: told)
        assert await is_state(app, job.id, "scheduled")
    assert [failure.will_retry for failure in told] == [True]
    assert counted(app) == (1, 0, 0)
    assert lines(caplog) == ["task retry scheduled"]


async def test_one_that_was_asked_to_abort_meanwhile_is_aborted(
    app: Ardiq, told: list[ErrorContext], caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @app.task(retry=Fixed(60))
    def fail() -> None:
        begun.set()
        go_on.wait(SOON_S)
        raise ValueError("no")

    async with working(app):
        job = await fail.enqueue()
        await eventually(begun.is_set)
        # The server knows it first.
        app.run_state.workers[0]._attempts.abort = lambda token: True  # type: ignore[method-assign]
        await job.abort()
        go_on.set()
        assert (await result_of(job)).aborted
        await eventually(lambda: counted(app) == (0, 0, 1))
    assert told == []
    assert lines(caplog) == ["task aborted"]


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_what_is_refused_is_neither_counted_nor_told(
    app: Ardiq, told: list[ErrorContext], caplog: pytest.LogCaptureFixture, where: str
) -> None:
    begun = threading.Event()

    def taken_away() -> None:
        claim = context.running.get()
        assert claim is not None
        if claim[8] == 1 and not begun.is_set():
            identity = app.run_state.workers[0].link.holder(claim[1])[0]
            app.context.server.core.command(["HSET", f"ardiq:{{{app.queue_name}}}:running:{identity}", claim[0], "0"])
            begun.set()
            raise ValueError("no")

    @app.task(name="fail", retry=Fixed(60))
    async def fail() -> None:
        taken_away()

    @app.task(name="fail_sync", retry=Fixed(60))
    def fail_sync() -> None:
        taken_away()

    async with working(app):
        await (fail if where == "loop" else fail_sync).enqueue()
        await eventually(lambda: "task outcome refused" in caplog.text)
    assert told == []
    assert counted(app) == (0, 0, 0)
    assert lines(caplog) == ["task outcome refused"]


async def test_a_slow_hook_keeps_its_slot_and_the_worker_waits_for_it(make_app: Callable[..., Ardiq]) -> None:
    app, at_once, most, heard = make_app(concurrency=2), 0, 0, 0

    @app.on_error
    async def report(failure: ErrorContext) -> None:
        nonlocal at_once, most, heard
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        heard += 1

    @app.task(retry=Fixed(3600))
    async def fail() -> None:
        raise ValueError

    jobs = await app.enqueue_many(fail.prepare() for _ in range(20))
    async with working(app):
        for job in jobs:
            await eventually(lambda job=job: is_state(app, job.id, "scheduled"))
    assert heard == 20
    assert most <= 2
    assert is_sound(app)


async def test_an_outcome_that_cannot_be_read_takes_no_other_along(app: Ardiq) -> None:
    @app.task
    async def work(number: int) -> int:
        if number == 1:
            app.run_state.workers[0]._attempts.outcomes.append(("wrong",))  # type: ignore[arg-type]
        return number

    jobs = await app.enqueue_many(work.prepare(number) for number in range(3))
    with pytest.raises(TypeError, match="an outcome is"):
        await app.run()
    assert [await job.status() for job in jobs][:2] == ["complete", "complete"]
