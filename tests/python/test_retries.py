"""Retry policies, what is tried again, snoozing, and the history of attempts."""

from datetime import timedelta
from typing import Any

import pytest
from helpers import eventually, field, is_sound, is_state, result_of, working

from ardiq import Ardiq, Retry, Snooze, current_task
from ardiq.retries import ExponentialBackoff, Fixed, Quadratic, RetryRules

ERROR = ValueError("x")


def delays(**options: Any) -> list[int]:
    rules = RetryRules(**options)
    return [rules.delay_ms(tries, ERROR) for tries in (1, 2, 3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1000, 4000, 9000]),
        ({"backoff_ms": 50}, [50, 50, 50]),
        ({"retry": Quadratic(timedelta(milliseconds=10))}, [10, 40, 90]),
        ({"retry": Fixed(2)}, [2000, 2000, 2000]),
        ({"retry": ExponentialBackoff(base=0.1, cap=0.3, jitter=False)}, [100, 200, 300]),
        ({"retry": [1, timedelta(seconds=5)]}, [1000, 5000, 5000]),
        ({"retry": lambda tries, error: tries if isinstance(error, ValueError) else 0}, [1000, 2000, 3000]),
        ({"retry": lambda tries, error: "soon"}, [1000, 4000, 9000]),
    ],
)
def test_policies(options: dict[str, Any], expected: list[int]) -> None:
    assert delays(**options) == expected


def test_jitter_spreads_between_nothing_and_the_whole_pause() -> None:
    policy = ExponentialBackoff(base=1.0, cap=8.0)
    seen = [policy(3, ERROR) for _ in range(2000)]
    assert 0 <= min(seen) < 1
    assert 3 < max(seen) <= 4
    assert 0 <= policy(5000, ERROR) <= 8


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"retry": "soon"}, TypeError, "retry"),
        ({"retry": 5}, TypeError, "retry"),
        ({"retry": Fixed}, TypeError, "retry"),
        ({"retry": []}, ValueError, "retry"),
        ({"retry": [-1]}, ValueError, "each of retry must not be negative"),
        ({"retry": [1], "backoff_ms": 5}, ValueError, "backoff_ms"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on"),
        ({"give_up_on": [ValueError, 5]}, TypeError, "give_up_on"),
        ({"max_age": 0}, ValueError, "max_age"),
        ({"max_age": "day"}, TypeError, "max_age"),
    ],
)
def test_misuse_is_refused_at_registration(app: Ardiq, options: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        app.task(**options)


def test_what_is_tried_again() -> None:
    only = RetryRules(retry_on=(ConnectionError, TimeoutError))
    assert only.allow(1, ConnectionResetError())
    assert not only.allow(1, ERROR)
    assert only.allow(1, Retry())
    assert not only.allow(4, Retry())
    never = RetryRules(give_up_on=ValueError)
    assert not never.allow(1, UnicodeDecodeError("x", b"", 0, 1, "x"))
    assert never.allow(1, KeyError())
    both = RetryRules(retry_on=OSError, give_up_on=[FileNotFoundError])
    assert both.allow(1, PermissionError())
    assert not both.allow(1, FileNotFoundError())


async def test_given_up_at_once(app: Ardiq) -> None:
    @app.task(give_up_on=LookupError)
    async def missing() -> None:
        raise KeyError("order")

    async with working(app):
        result = await result_of(await missing.enqueue())
    assert (result.success, result.tries) == (False, 1)
    assert await app.dead_count() == 1


async def test_the_history_tells_each_attempt(app: Ardiq) -> None:
    @app.task(max_retries=2, retry=Fixed(0.001))
    async def broken() -> None:
        task = current_task()
        raise ValueError(task and task.tries)

    async with working(app):
        job = await broken.enqueue()
        await result_of(job)
        identity = app.run_state.workers[0].link.holder(0)[0] if app.run_state.workers else ""
    history = await job.history()
    assert [(attempt.tries, attempt.error) for attempt in history] == [
        (1, "ValueError(1)"),
        (2, "ValueError(2)"),
        (3, "ValueError(3)"),
    ]
    assert {attempt.worker for attempt in history} == {identity}
    assert all(attempt.ended_at > 0 and attempt.run_ms is not None for attempt in history)
    assert await app.history("nobody") == []
    assert await app.replay(job.id)
    assert await job.history() == []


async def test_a_task_too_old_is_not_tried_again(app: Ardiq) -> None:
    @app.task(max_age=30, retry=Fixed(60))
    async def broken() -> None:
        raise ValueError("no")

    async with working(app):
        result = await result_of(await broken.enqueue())
    assert not result.success
    assert result.value == "ValueError('no') (older than its max_age of 30000 ms)"


async def test_a_snooze_spends_no_try(app: Ardiq) -> None:
    seen: list[int] = []

    @app.task(max_retries=0)
    async def later() -> str:
        task = current_task()
        assert task is not None
        seen.append(task.tries)
        if len(seen) < 3:
            raise Snooze(timedelta(milliseconds=1))
        return "done"

    async with working(app):
        job = await later.enqueue()
        result = await result_of(job)
    assert (result.success, result.value, result.tries) == (True, "done", 1)
    assert seen == [1, 1, 1]
    assert await job.history() == []
    assert is_sound(app)


def sync_later() -> None:
    raise Snooze(60)


async def test_what_cannot_be_judged_fails(app: Ardiq) -> None:
    class Broken(Snooze):
        def __init__(self) -> None:
            Exception.__init__(self, "no delay")

    @app.task
    async def broken() -> None:
        raise Broken

    @app.task(max_retries=0)
    def wrong() -> None:
        raise Retry(delay_ms=timedelta(seconds=5))  # type: ignore[arg-type]

    async with working(app):
        results = [await result_of(await task.enqueue()) for task in (broken, wrong, broken)]
    assert [result.success for result in results] == [False] * 3
    assert "delay_ms must be an int, not timedelta" in results[1].value


async def test_a_sync_task_snoozes_too(app: Ardiq) -> None:
    task = app.task(sync_later)
    async with working(app):
        job = await task.enqueue()
        await eventually(lambda: is_state(app, job.id, "scheduled"))
    assert field(app, job.id, "tries") == "0"


async def test_a_snooze_beyond_the_age_fails(app: Ardiq) -> None:
    @app.task(max_age=10)
    async def later() -> None:
        raise Snooze(60, "the partner is closed")

    async with working(app):
        result = await result_of(await later.enqueue())
    assert result.value == "the partner is closed (older than its max_age of 10000 ms)"


@pytest.mark.parametrize(("delay", "kind"), [(-1, ValueError), ("soon", TypeError)])
def test_a_wrong_snooze_is_an_error_where_it_is_made(delay: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="delay"):
        Snooze(delay)
