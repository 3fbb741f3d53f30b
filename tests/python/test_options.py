"""The app's options: defaults, properties, and what is refused."""

import re
from typing import Any

import pytest

from ardiq import Ardiq, BrokerError


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
    assert app.task_logs is None
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
        ({"task_logs": "loud"}, ValueError, "task_logs"),
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
