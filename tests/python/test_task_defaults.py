"""Options that an app sets for all its tasks, and the retry options of recurring ones."""

from datetime import timedelta
from typing import Any

import pytest
from helpers import result_of, working

from ardiq import Ardiq
from ardiq._client.registry import Registered
from ardiq.retries import Fixed


def app_with(**defaults: Any) -> Ardiq:
    return Ardiq("redis://127.0.0.1:1", task_defaults=defaults)  # type: ignore[typeddict-item]


def nothing() -> None: ...


def registered(app: Ardiq, **options: Any) -> Registered:
    name = f"t{len(app.tasks)}"
    app.task(name=name, **options)(nothing)
    return app.context.registry.tasks[name]


def test_what_a_task_does_not_say_is_the_app_s_default() -> None:
    app = app_with(max_retries=7, timeout=30, max_age=timedelta(hours=1), retry=Fixed(2), give_up_on=KeyError)
    assert app.task_defaults["max_retries"] == 7
    plain = registered(app)
    assert (plain.retries.max_retries, plain.timeout, plain.retries.max_age_ms) == (7, 30, 3_600_000)
    assert plain.retries.delay_ms(1, ValueError()) == 2000
    assert plain.retries.decide(1, KeyError()).outcome != "retry"
    own = registered(app, max_retries=3, timeout=None, max_age=None, give_up_on=None)
    assert (own.retries.max_retries, own.timeout, own.retries.max_age_ms) == (3, None, 0), "3 is said here, and counts"
    assert registered(app, backoff_ms=50).retries.delay_ms(1, ValueError()) == 50, "and not the app's policy"
    bare = app.task(nothing)
    assert app.context.registry.tasks[bare.name].timeout == 30
    app.cron("@daily", name="daily")(nothing)
    app.cron("@daily", name="own", max_retries=1)(nothing)
    assert [app.context.registry.tasks[name].retries.max_retries for name in ("daily", "own")] == [7, 1]
    assert app.context.registry.tasks["daily"].timeout == 30


def test_without_defaults_nothing_changes() -> None:
    plain = registered(Ardiq("redis://127.0.0.1:1"))
    assert (plain.retries.max_retries, plain.timeout, plain.retries.max_age_ms) == (3, None, 0)


@pytest.mark.parametrize(
    ("defaults", "error", "says"),
    [
        ({"max_retry": 5}, TypeError, "max_retries.* not 'max_retry'"),
        ({"unique": True}, TypeError, "not 'unique'"),
        ({"max_retries": -1}, ValueError, "max_retries must be at least 0"),
        ({"timeout": "5"}, TypeError, "timeout"),
        ({"retry": Fixed(1), "backoff_ms": 5}, ValueError, "retry or backoff_ms"),
        ([], TypeError, "task_defaults must be a dict"),
    ],
)
def test_impossible_defaults_are_refused_by_name(defaults: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Ardiq("redis://127.0.0.1:1", task_defaults=defaults)


async def test_a_recurring_task_has_the_retry_options(app: Ardiq) -> None:
    runs: list[str] = []

    @app.cron("@yearly", max_retries=2, retry=[0.001], retry_on=ConnectionError, max_age=60)
    async def tried_again() -> str:
        runs.append("tried again")
        if len(runs) < 3:
            raise ConnectionError
        return "well"

    @app.cron("@yearly", give_up_on=ValueError)
    async def given_up() -> None:
        runs.append("given up")
        raise ValueError

    async with working(app):
        assert (await result_of(await tried_again.enqueue())).value == "well"
        assert not (await result_of(await given_up.enqueue())).success
    assert runs == ["tried again"] * 3 + ["given up"]
    with pytest.raises(ValueError, match="max_age"):
        app.cron("@yearly", max_age=-1)(nothing)
