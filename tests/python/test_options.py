"""The app's options: defaults, properties, and what is refused."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import pytest
from helpers import awaited

from ardiq import Ardiq, BrokerError, Job, Retry, Snooze
from ardiq._background import BackgroundWorker
from ardiq.retries import ExponentialBackoff, Fixed, Quadratic
from ardiq.testing import Clock


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARDIQ_REDIS_URL", raising=False)
    app = Ardiq()
    assert app.redis_url == "redis://localhost:6379"
    assert app.queue_name == "default"
    assert app.priorities == ["default"]
    assert app.default_priority == "default"
    assert app.concurrency == 16
    assert app.prefetch is None
    assert app.idle_timeout_ms == 60_000
    assert app.poll_block_ms == 5_000
    assert app.result_ttl_ms == 300_000
    assert app.dead_ttl_ms is None
    assert app.dead_limit is None
    assert app.stall_after == 5.0
    assert app.burst is False
    assert app.tasks == []
    assert app.worker_id


def test_every_app_is_a_worker_of_its_own() -> None:
    assert Ardiq().worker_id != Ardiq().worker_id


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARDIQ_REDIS_URL", "redis://elsewhere:1234")
    assert Ardiq().redis_url == "redis://elsewhere:1234"
    assert Ardiq("redis://here").redis_url == "redis://here"


def test_the_middle_lane_is_the_default() -> None:
    assert Ardiq(priorities=["low", "mid", "high"]).default_priority == "mid"
    assert Ardiq(priorities=["low", "high"]).default_priority == "high"
    assert Ardiq(priorities=["low", "high"], default_priority="low").default_priority == "low"


def test_only_burst_can_be_set() -> None:
    app = Ardiq()
    app.burst = True
    assert app.burst is True
    with pytest.raises(TypeError, match="burst"):
        app.burst = 1  # type: ignore[assignment]
    for name in ("concurrency", "prefetch", "redis_url", "worker_id"):
        with pytest.raises(AttributeError):
            setattr(app, name, 1)


def test_properties_give_copies() -> None:
    app = Ardiq(priorities=["low", "high"])
    app.priorities.clear()
    assert app.priorities == ["low", "high"]


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"redis_url": " "}, ValueError, "redis_url"),
        ({"redis_url": 6379}, TypeError, "redis_url"),
        ({"queue_name": ""}, ValueError, "queue_name"),
        ({"queue_name": "a{b"}, ValueError, "queue_name"),
        ({"queue_name": "a}b"}, ValueError, "queue_name"),
        ({"queue_name": "a\nb"}, ValueError, "queue_name"),
        ({"queue_name": 3}, TypeError, "queue_name"),
        ({"prefix": "a{b}"}, ValueError, "prefix"),
        ({"priorities": []}, ValueError, "priorities"),
        ({"priorities": "high"}, TypeError, "priorities"),
        ({"priorities": ["a", "a"]}, ValueError, "priorities"),
        ({"priorities": ["a", 1]}, TypeError, "priorities"),
        ({"priorities": ["a", ""]}, ValueError, "priorities"),
        ({"default_priority": "none"}, ValueError, "default_priority"),
        ({"worker_id": ""}, ValueError, "worker_id"),
        ({"worker_id": 1}, TypeError, "worker_id"),
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"concurrency": "16"}, TypeError, "concurrency"),
        ({"concurrency": True}, TypeError, "concurrency"),
        ({"concurrency": 1.5}, TypeError, "concurrency"),
        ({"prefetch": -1}, ValueError, "prefetch"),
        ({"idle_timeout_ms": 0}, ValueError, "idle_timeout_ms"),
        ({"poll_block_ms": 0}, ValueError, "poll_block_ms"),
        ({"result_ttl_ms": "1"}, TypeError, "result_ttl_ms"),
        ({"burst": 1}, TypeError, "burst"),
        ({"broker_timeout_ms": 0}, ValueError, "broker_timeout_ms"),
        ({"max_lost": 0}, ValueError, "max_lost"),
        ({"dead_ttl_ms": 0}, ValueError, "dead_ttl_ms"),
        ({"dead_limit": -1}, ValueError, "dead_limit"),
        ({"dead_limit": "7"}, TypeError, "dead_limit"),
        ({"payload_limit": 0}, ValueError, "payload_limit"),
        ({"stall_after": 0}, ValueError, "stall_after"),
        ({"stall_after": "5"}, TypeError, "stall_after"),
        ({"allow_eviction": None}, TypeError, "allow_eviction"),
        ({"serializer": "json"}, TypeError, "serializer"),
        ({"deserializer": 1}, TypeError, "deserializer"),
        ({"conccurrency": 1}, TypeError, "conccurrency"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=re.escape(named)):
        Ardiq(**options)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:port"])
def test_a_url_that_names_no_server_is_refused_at_once(url: str) -> None:
    with pytest.raises((ValueError, BrokerError)):
        Ardiq(url)


def test_a_task_s_options_are_checked_at_registration() -> None:
    app = Ardiq()
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"max_retries": -1}, ValueError),
        ({"max_retries": "3"}, TypeError),
        ({"backoff_ms": -1}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"priority": "nowhere"}, ValueError),
        ({"unique": 1}, TypeError),
        ({"retries": 1}, TypeError),
    ]
    for options, error in wrong:
        with pytest.raises(error, match=next(iter(options))):
            app.task(**options)(lambda: None)
    assert app.tasks == []


def test_two_tasks_cannot_share_a_name() -> None:
    app = Ardiq()
    app.task(name="report")(lambda: None)
    with pytest.raises(ValueError, match="'report' is already registered"):
        app.task(name="report")(lambda: None)
    assert app.tasks == ["report"]


def test_a_task_is_the_function_when_called() -> None:
    app = Ardiq()

    @app.task(name="sum", priority="default")
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1, b=2) == 3
    assert add.name == "sum"
    assert add.fn is not None
    assert add.fn(1) == 2
    assert add.priority == "default"
    assert add.unique is False
    assert add.__doc__ == "Adds."


def test_what_is_no_function_is_refused() -> None:
    app = Ardiq()
    with pytest.raises(TypeError, match="function"):
        app.task("name")  # type: ignore[call-overload]

    class Callable:
        def __call__(self) -> None: ...

    with pytest.raises(TypeError, match="name="):
        app.task(Callable())
    assert app.task(name="callable")(Callable()).name == "callable"


def test_hooks_must_be_functions() -> None:
    app = Ardiq()

    async def no_generator() -> None: ...
    def no_coroutine(context: Any, call_next: Any) -> None: ...

    with pytest.raises(TypeError, match="lifespan"):
        app.lifespan(no_generator)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="middleware"):
        app.middleware(no_coroutine)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="on_enqueue"):
        app.on_enqueue("hook")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="on_error"):
        app.on_error(None)  # type: ignore[type-var]


def test_state_says_who_fills_it() -> None:
    with pytest.raises(AttributeError, match="lifespan"):
        _ = Ardiq().state.db


WAITS: dict[str, Callable[[Job, Any], Any]] = {
    "job.result": lambda job, timeout: job.result(timeout),
    "job.result_sync": lambda job, timeout: job.result_sync(timeout),
    "job.watch": lambda job, timeout: anext(job.watch(timeout)),
    "app.result": lambda job, timeout: job.app.result(job.id, timeout),
    "app.result_sync": lambda job, timeout: job.app.result_sync(job.id, timeout),
    "app.watch": lambda job, timeout: anext(job.app.watch(job.id, timeout)),
    "request": lambda job, timeout: job.app.ref("work").request(timeout=timeout),
    "request_sync": lambda job, timeout: job.app.ref("work").request_sync(timeout=timeout),
    "wait_until_idle": lambda job, timeout: BackgroundWorker(job.app).wait_until_idle(timeout),
    "stop": lambda job, timeout: BackgroundWorker(job.app).stop(timeout),
    "@app.task": lambda job, timeout: job.app.task(timeout=timeout),
    "stall_after": lambda job, timeout: Ardiq(stall_after=timeout),
    "cron_poll_s": lambda job, timeout: Ardiq(cron_poll_s=timeout),
    "delay": lambda job, timeout: job.app.ref("work").options(delay=timeout),
    "expire": lambda job, timeout: job.app.ref("work").options(expire=timeout),
    "Retry": lambda job, timeout: Retry(delay=timeout),
    "every": lambda job, timeout: job.app.cron(every=timeout),
    "jitter": lambda job, timeout: job.app.cron("@daily", jitter=timeout),
    "@app.cron": lambda job, timeout: Ardiq().cron("@daily", timeout=timeout)(lambda: None),
    "max_age": lambda job, timeout: job.app.task(max_age=timeout),
    "retry": lambda job, timeout: job.app.task(retry=[timeout]),
    "unit": lambda job, timeout: Quadratic(timeout),
    "Fixed": lambda job, timeout: Fixed(timeout),
    "base": lambda job, timeout: ExponentialBackoff(timeout),
    "cap": lambda job, timeout: ExponentialBackoff(cap=timeout),
    "by": lambda job, timeout: Clock().advance(timeout),
    "Snooze": lambda job, timeout: Snooze(timeout),
}


@pytest.mark.parametrize("wait", WAITS)
async def test_a_duration_is_a_finite_number(app: Ardiq, wait: str) -> None:
    for wrong, error in ((nan, ValueError), (inf, ValueError), (-inf, ValueError), (True, TypeError), ("5", TypeError)):
        with pytest.raises(error, match=r"must be .*seconds.*, not (nan|-?inf|bool|str)$"):
            await awaited(WAITS[wait], Job(app, "nobody"), wrong)
    # Refused before anything was sent.
    assert await app.queue_size() == 0


DURATIONS = [name for name in WAITS if name not in ("by", "job.result", "job.result_sync", "job.watch", "app.result")]
WAITING = {"app.result_sync", "app.watch", "request", "request_sync", "wait_until_idle", "stop"}


@pytest.mark.parametrize("wait", [name for name in DURATIONS if name not in WAITING])
def test_a_duration_is_a_timedelta_or_seconds_and_not_negative(wait: str) -> None:
    job = Job(Ardiq(), "nobody")
    with pytest.raises(ValueError, match=r"must (not be negative|be positive|be at least 1 ms), not "):
        WAITS[wait](job, -1)
    WAITS[wait](job, timedelta(seconds=5))
    WAITS[wait](job, 5)


MILLISECONDS: dict[str, Callable[[Any], Any]] = {
    "delay_ms": lambda value: Ardiq().ref("work").options(delay_ms=value),
    "schedule_ms": lambda value: Ardiq().ref("work").options(schedule_ms=value),
    "expire_ms": lambda value: Ardiq().ref("work").options(expire_ms=value),
    "delay_ms of Retry": lambda value: Retry(delay_ms=value),
    "backoff_ms": lambda value: Ardiq().task(backoff_ms=value),
    **{
        name: lambda value, name=name: Ardiq(**{name: value})  # type: ignore[misc]
        for name in ("idle_timeout_ms", "poll_block_ms", "broker_timeout_ms", "dead_ttl_ms")
    },
}


@pytest.mark.parametrize("name", MILLISECONDS)
def test_milliseconds_are_a_whole_number_and_not_negative(name: str) -> None:
    option = name.split()[0]
    for wrong, error in ((-1, ValueError), (nan, TypeError), (1.5, TypeError), (True, TypeError), ("5", TypeError)):
        with pytest.raises(error, match=f"^{option} must be "):
            MILLISECONDS[name](wrong)
    MILLISECONDS[name](5)


def test_a_time_is_given_once() -> None:
    moment, task = datetime.now(UTC), Ardiq().ref("work")
    wrong: list[dict[str, Any]] = [
        {"delay": 1, "delay_ms": 1}, {"expire": 1, "expire_ms": 1}, {"at": moment, "schedule_ms": 1},
        {"at": moment, "delay": 1}, {"at": moment, "delay_ms": 1}, {"schedule_ms": 1, "delay_ms": 1},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(ValueError, match=r"give .* or .*, not both"):
            task.options(**options)
    with pytest.raises(ValueError, match="give delay or delay_ms, not both"):
        Retry(delay_ms=5, delay=5)
    assert (Retry(delay=1.5).delay_ms, Retry(delay_ms=0).delay_ms, Retry().delay_ms) == (1500, 0, None)


async def test_a_time_that_is_over_and_one_without_end(app: Ardiq) -> None:
    job = await app.ref("work").enqueue()
    watching = job.watch(1e200)
    assert (await anext(watching)).status == "queued"
    with pytest.raises(TimeoutError):
        _ = [update async for update in job.watch(-0.5)]
    with pytest.raises(TimeoutError):
        await job.result(-0.5)
    with pytest.raises(TimeoutError):
        job.result_sync(-0.5)
    result = asyncio.create_task(job.result(1e200))
    await job.abort()
    assert await result is not None
    assert [update.status async for update in watching][-1] == "complete"
