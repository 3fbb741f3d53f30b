"""Failures that no further try changes: a result that cannot be kept, on every executor."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import drain, field, is_sound, result_of, task_module, working

from ardiq import Ardiq, ErrorContext, ExecutionContext, InvalidResult
from ardiq.embedded import Server

RESULTS: dict[str, Any] = {"lock": threading.Lock, "large": lambda: "x" * 2000, "itself": lambda: endless()}


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


async def as_it_is(_: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("where", ["loop", "loop with a limit", "thread", "middleware"])
async def test_a_result_that_cannot_be_kept_fails_at_once(make_app: Any, where: str, kind: str) -> None:
    app: Ardiq = make_app(payload_limit=1000)
    told: list[ErrorContext] = []
    app.on_error(told.append)
    if where == "middleware":
        app.middleware(as_it_is)
    job = await returning(app, where).enqueue(kind)
    await drain(app)
    result = await result_of(job)
    assert (result.success, result.tries) == (False, 1)
    assert result.value.startswith("InvalidResult(")
    assert "of task 'work'" in result.value
    assert [(type(error.exc), error.will_retry) for error in told] == [(InvalidResult, False)]


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_result_that_nobody_keeps_fails_no_task(make_app: Any, where: str, kind: str) -> None:
    app: Ardiq = make_app(payload_limit=1000, result_ttl_ms=0)
    work = returning(app, where)
    await work.enqueue(kind)
    await drain(app)
    assert await app.dead_count() == 0
    assert app.metrics()[0].succeeded == 1
    assert is_sound(app)


async def test_who_waits_for_a_result_that_nobody_keeps_is_told_why_there_is_none(make_app: Any) -> None:
    app: Ardiq = make_app(payload_limit=1000, result_ttl_ms=0)
    work = returning(app, "loop")
    async with working(app):
        with pytest.raises(InvalidResult, match="2,002 bytes, over the limit of 1,000"):
            await work.request("large", timeout=20)


def returning(app: Ardiq, where: str) -> Any:
    if where in ("loop", "loop with a limit"):

        @app.task(timeout=60 if "limit" in where else None)
        async def work(kind: str):  # type: ignore[no-untyped-def]
            return RESULTS[kind]()

        return work

    @app.task(name="work")
    def work_sync(kind: str):  # type: ignore[no-untyped-def]
        return RESULTS[kind]()

    return work_sync


CHILD = """
    import threading
    from ardiq import Ardiq

    app = Ardiq("{url}", queue_name="{queue}", payload_limit=1000, result_ttl_ms=TTL)

    @app.task(executor="process")
    def work(kind: str):
        return threading.Lock() if kind == "lock" else "x" * 2000
"""


@pytest.mark.parametrize("kind", ["lock", "large"])
async def test_in_a_child_process(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with task_module(CHILD.replace("TTL", "600000"), server, tmp_path, monkeypatch) as module:
        job = await module.work.enqueue(kind)
        await drain(module.app)
        result = await result_of(job)
        assert (result.success, result.tries, result.value[:14]) == (False, 1, "InvalidResult(")
        assert field(module.app, job.id, "history") is not None
    with task_module(CHILD.replace("TTL", "0"), server, tmp_path, monkeypatch) as module:
        await module.work.enqueue(kind)
        await drain(module.app)
        assert (await module.app.dead_count(), module.app.metrics()[0].succeeded) == (0, 1)
