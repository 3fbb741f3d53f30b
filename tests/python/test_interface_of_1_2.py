"""What code written for ArdiQ 1.2 names is here: names, order, defaults. Behaviour has tests of its own."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import ardiq
from ardiq import Ardiq, ArdiqError, BrokerError, Job, Retry, Task, TaskContext, TaskInfo, TaskResult
from ardiq.cli import main

POSITIONAL = {"redis_url": None, "queue_name": "default", "priorities": None, "worker_id": None}
KEYWORDS = {
    "default_priority": None, "weights": None, "limits": None, "serializer": None, "deserializer": None,
    "cron_poll_s": 1.0, "concurrency": 16, "prefetch": None, "idle_timeout_ms": 60_000, "result_ttl_ms": 300_000,
    "burst": False,
}  # fmt: skip
TASK = {"name": None, "max_retries": 3, "backoff_ms": 0, "timeout": None, "priority": None}
CALLS: list[tuple[Callable[..., Any], list[str], dict[str, Any]]] = [
    (Ardiq, list(POSITIONAL), {**POSITIONAL, **KEYWORDS}),
    (Ardiq.task, ["self", "fn"], {**TASK, "unique": False, "executor": "thread"}),
    (Ardiq.cron, ["self", "spec"], {**TASK, "every": None, "coalesce": False, "tz": None, "executor": "thread"}),
    (Ardiq.ref, ["self", "name"], {"priority": None, "unique": False}),
    (Ardiq.result, ["self", "task_id", "timeout"], {"timeout": None}),
    (Ardiq.dead_letters, ["self", "limit"], {"limit": 100}),
    *((getattr(Ardiq, name), ["self", "task_id"], {}) for name in ("status", "info", "abort", "replay", "delete_dead")),
    *((getattr(Ardiq, name), ["self"], {}) for name in ("queue_size", "dead_count", "stop", "metrics")),
    (Ardiq.run, ["self", "queues"], {"queues": None}),
    (Job, ["app", "id"], {}),
    (Job.result, ["self", "timeout"], {"timeout": None}),
    (Job.status, ["self"], {}),
    (Job.info, ["self"], {}),
    (Job.abort, ["self"], {}),
    (
        Task.options,
        ["self"],
        {"task_id": None, "priority": None, "delay_ms": 0, "schedule_ms": 0, "expire_ms": 0, "unique": None},
    ),
    (Retry, ["message"], {"message": "retry requested", "delay_ms": None}),
]


@pytest.mark.parametrize(("call", "positional", "defaults"), CALLS, ids=[call.__qualname__ for call, *_ in CALLS])
def test_parameters(call: Callable[..., Any], positional: list[str], defaults: dict[str, Any]) -> None:
    parameters = inspect.signature(call).parameters
    by_position = [name for name, each in parameters.items() if each.kind < each.VAR_POSITIONAL]
    assert [name for name in by_position if not name.startswith("_")] == positional
    assert {name: parameters[name].default for name in defaults} == defaults


@pytest.mark.parametrize("option", [*POSITIONAL, *KEYWORDS, "poll_block_ms"])
def test_options_can_be_read_and_not_set(option: str) -> None:
    app = Ardiq("redis://127.0.0.1:1")
    value = getattr(app, option)
    if option == "burst":
        app.burst = True
        assert app.burst
    else:
        with pytest.raises(AttributeError):
            setattr(app, option, value)


OF_AN_APP = "task cron send ref enqueue_many lifespan middleware on_enqueue on_error state tasks crons"


@pytest.mark.parametrize("name", OF_AN_APP.split())
def test_of_an_app(name: str) -> None:
    assert hasattr(Ardiq("redis://127.0.0.1:1"), name)


def test_of_a_task() -> None:
    task = Ardiq("redis://127.0.0.1:1").task(priority="default", unique=True)(print)
    assert (task.name, task.fn, task.priority, task.unique) == ("print", print, "default", True)
    for name in ("enqueue", "prepare"):
        assert callable(getattr(task, name))
        assert callable(getattr(task.options(delay_ms=1), name))


def test_what_is_handed_out() -> None:
    dead = ["task_id", "fn_name", "args", "kwargs", "priority", "error", "tries", "enqueue_time", "failed_at"]
    assert list(TaskResult._fields) == ["success", "value", "tries", "enqueue_time", "start", "finish"]
    assert TaskResult(False, "aborted", 1, 5, 10, 30).duration_ms == 20
    assert TaskResult(False, "aborted", 1).aborted
    assert list(TaskContext._fields) == ["task_id", "name", "tries"]
    info = ["task_id", "fn_name", "args", "kwargs", "enqueue_time", "tries", "status", "scheduled_at"]
    assert list(TaskInfo._fields)[: len(info)] == info
    assert list(ardiq.DeadLetter._fields)[: len(dead)] == dead
    assert list(ardiq.ErrorContext._fields) == ["name", "task_id", "exc", "tries", "will_retry"]
    assert "headers" in ardiq.EnqueueContext._fields


def test_errors_and_modules() -> None:
    assert BrokerError.__mro__[1:3] == (ArdiqError, RuntimeError)
    assert [error.args for error in (BrokerError(), BrokerError("a", 1))] == [(), ("a", 1)], "as mocks make them"
    assert ardiq.current_task() is None
    assert callable(importlib.import_module("ardiq.testing").inline)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run", "--burst -b --verbose -v --quiet -q --workers -w"),
        ("status", "--json"),
        ("purge", "--lane -y"),
        ("doctor", "--json"),
        ("dlq list", ""),
        ("dlq replay", ""),
        ("dlq delete", ""),
    ],
)
def test_command_line(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert [word for word in words.split() if word not in told] == []
