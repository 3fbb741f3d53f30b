"""Exceptions inside a group obey the retry options, which see the same on the loop, on a thread and in a child."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from helpers import drain, field, is_state, result_of, task_module, working

from ardiq import Ardiq, ErrorContext, InvalidArguments, Retry, Snooze
from ardiq.embedded import Server
from ardiq.retries import RetryRules


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("some failed", errors)


CONNECTION, VALUE = ConnectionResetError("gone"), ValueError("no")


@pytest.mark.parametrize(
    ("options", "error", "outcome"),
    [
        ({}, group(VALUE, CONNECTION), "retry"),
        ({"retry_on": ConnectionError}, group(CONNECTION, group(CONNECTION)), "retry"),
        ({"retry_on": ConnectionError}, group(CONNECTION, VALUE), "failed"),
        ({"retry_on": ConnectionError}, group(VALUE), "failed"),
        ({"retry_on": ExceptionGroup}, group(VALUE), "retry"),
        ({"retry_on": ExceptionGroup, "give_up_on": ValueError}, group(VALUE), "failed"),
        ({"give_up_on": ValueError}, group(CONNECTION, group(VALUE)), "failed"),
        ({"give_up_on": ValueError}, group(CONNECTION), "retry"),
        ({"give_up_on": ExceptionGroup}, group(CONNECTION), "failed"),
        ({}, group(CONNECTION, InvalidArguments("x")), "failed"),
        ({"retry_on": ConnectionError}, group(Retry()), "retry"),
        ({"retry_on": ConnectionError}, group(Retry(), VALUE), "failed"),
        ({"max_retries": 0}, group(Retry()), "failed"),
        ({"max_retries": 0}, group(Snooze(1), group(Snooze(3))), "snooze"),
        ({"max_retries": 0}, group(Snooze(1), VALUE), "failed"),
        ({}, group(Snooze(1), VALUE), "retry"),
        ({"retry_on": Exception}, BaseExceptionGroup("x", [KeyboardInterrupt(), VALUE]), "failed"),
    ],
)
def test_a_group_is_tried_again_if_each_of_its_exceptions_is(
    options: dict[str, Any], error: BaseException, outcome: str
) -> None:
    assert RetryRules(**options).decide(1, error).outcome == outcome


def test_the_longest_delay_that_is_asked_for_counts() -> None:
    rules = RetryRules(retry=[77])
    assert rules.decide(1, group(VALUE, CONNECTION)) == ("retry", 77_000, False)
    assert rules.decide(1, group(Retry(delay_ms=5), Retry(delay_ms=90), VALUE)) == ("retry", 90, False)
    assert rules.decide(1, group(Retry(), Snooze(2))) == ("retry", 2000, True)
    assert rules.decide(1, group(Retry())) == ("retry", 77_000, True)
    assert rules.decide(1, group(Snooze(1), group(Snooze(3)))) == ("snooze", 3000, True)


async def test_what_a_task_group_raises(app: Ardiq) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)

    async def fail(error: Exception) -> None:
        raise error

    async def both(one: Exception, other: Exception) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail(one))
            tasks.create_task(fail(other))

    @app.task(give_up_on=LookupError)
    async def gives_up() -> None:
        await both(KeyError("order"), OSError("no"))

    @app.task
    async def later() -> None:
        await both(Snooze(60, "closed"), Snooze(90, "closed"))

    async with working(app):
        jobs = [await gives_up.enqueue(), await later.enqueue()]
        assert (await result_of(jobs[0])).tries == 1
        while not await is_state(app, jobs[1].id, "scheduled"):
            await asyncio.sleep(0.01)
    assert [(error.name, type(error.exc), error.will_retry) for error in told] == [("gives_up", ExceptionGroup, False)]
    assert field(app, jobs[1].id, "tries") == "0"


CHILD = """
    from ardiq import Ardiq, Retry

    app = Ardiq("{url}", queue_name="{queue}")
    told = []
    app.on_error(told.append)

    class Refused(Exception):
        def __init__(self, *, code, answer):
            super().__init__("refused")
            self.code, self.answer = code, answer

    def pause(tries, error):
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return 100 * error.code + error.answer.pause

    class Answer:
        pause = 7

    def fail(grouped: bool) -> None:
        error = Refused(code=3, answer=Answer())
        raise ExceptionGroup("g", [ExceptionGroup("h", [error]), Retry()]) if grouped else error

    options = dict(retry=pause, retry_on=Refused, max_retries=1)

    @app.task(**options)
    async def on_loop(grouped: bool) -> None:
        fail(grouped)

    @app.task(**options)
    def on_thread(grouped: bool) -> None:
        fail(grouped)

    @app.task(executor="process", **options)
    def in_child(grouped: bool) -> None:
        fail(grouped)
"""


@pytest.mark.parametrize("grouped", [False, True])
async def test_retry_rules_see_the_same_everywhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    with task_module(CHILD, server, tmp_path, monkeypatch) as module:
        app = module.app
        jobs = [await task.enqueue(grouped) for task in (module.on_loop, module.on_thread, module.in_child)]
        await drain(app)
        for job in jobs:
            info = await job.info()
            assert info is not None
            assert info.status == "scheduled"
            assert 300_000 <= info.scheduled_at - info.enqueue_time < 350_000
        assert len({field(app, job.id, "error") for job in jobs}) == 1
        assert sorted(error.name for error in module.told) == ["in_child", "on_loop", "on_thread"]
        for error in module.told:
            raised = error.exc.exceptions[0].exceptions[0] if grouped else error.exc
            assert (type(raised), raised.code) == (module.Refused, 3)
        for job in jobs:
            await job.abort()
