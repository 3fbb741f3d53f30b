"""What surrounds a task: its context, lifespan, middleware, error hooks."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_state, result_of, working

from ardiq import Ardiq, ErrorContext, ExecutionContext, TaskContext, current_task
from ardiq._execution.endings import Endings

fast_retries: dict[str, Any] = {"max_retries": 2, "backoff_ms": 1}


async def test_current_task(app: Ardiq) -> None:
    async def helper() -> TaskContext | None:
        await asyncio.sleep(0)
        return current_task()

    @app.task(name="named")
    async def tell() -> Any:
        inner = await asyncio.create_task(helper())
        return [list(current_task() or ()), list(inner or ())]

    @app.task
    def tell_sync() -> Any:
        return list(current_task() or ())

    jobs = [await tell.enqueue(), await tell_sync.enqueue()]
    await drain(app)
    assert (await result_of(jobs[0])).value == [[jobs[0].id, "named", 1]] * 2
    assert (await result_of(jobs[1])).value == [jobs[1].id, "tell_sync", 1]
    assert current_task() is None


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_each_task_has_the_lifespan_s_context_and_its_own(app: Ardiq) -> None:
    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        variable.set("lifespan")
        yield

    @app.task
    async def change(value: str) -> list[str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0.01)
        return [before, variable.get()]

    @app.task
    def change_sync(value: str) -> list[str]:
        before = variable.get()
        variable.set(value)
        return [before, variable.get()]

    jobs = await app.enqueue_many(task.prepare(str(i)) for i in range(20) for task in (change, change_sync))
    await drain(app)
    for i, job in enumerate(jobs):
        assert (await result_of(job)).value == ["lifespan", str(i // 2)]


async def test_lifespans_nest_in_the_order_of_registration(app: Ardiq) -> None:
    events = []

    @app.lifespan
    async def database() -> AsyncIterator[dict[str, Any]]:
        events.append("database up")
        yield {"db": "pool", "both": "first"}
        events.append("database down")

    @app.lifespan
    async def cache() -> AsyncIterator[dict[str, Any]]:
        events.append(f"cache up with {app.state.db}")
        yield {"cache": "warm", "both": "second"}
        events.append("cache down")

    @app.task
    async def use() -> str:
        events.append("task")
        return f"{app.state.db} {app.state.cache} {app.state.both}"

    @app.task
    def use_sync() -> str:
        return str(app.state.db)

    jobs = [await use.enqueue(), await use_sync.enqueue()]
    assert events == []
    await drain(app)
    assert events == ["database up", "cache up with pool", "task", "cache down", "database down"]
    assert [(await result_of(job)).value for job in jobs] == ["pool warm second", "pool"]


async def test_what_an_outer_lifespan_set_up_is_torn_down_when_an_inner_one_fails(app: Ardiq) -> None:
    events = []

    @app.lifespan
    async def outer() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("down")

    @app.lifespan
    async def inner() -> AsyncIterator[None]:
        raise OSError("no cache")
        yield

    with pytest.raises(OSError, match="no cache"):
        await app.run()
    assert events == ["down"]


async def test_a_lifespan_that_fails_takes_no_work(app: Ardiq) -> None:
    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    job = await app.send("task")
    with pytest.raises(OSError, match="no database"):
        await app.run()
    assert await job.status() == "queued"


async def test_a_lifespan_yields_a_mapping(app: Ardiq) -> None:
    @app.lifespan
    async def wrong() -> AsyncIterator[int]:
        yield 5

    with pytest.raises(TypeError, match="lifespan must yield a mapping"):
        await app.run()


async def test_stop_during_the_lifespan(app: Ardiq) -> None:
    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        app.stop()
        yield

    await asyncio.wait_for(app.run(), SOON_S)


async def test_middleware_wraps_every_attempt(app: Ardiq) -> None:
    events: list[Any] = []

    @app.middleware
    async def outer(context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
        events.append(("outer", context.name, context.tries, context.args, context.kwargs))
        try:
            return await call_next()
        finally:
            events.append("outer ends")

    class Inner:
        async def __call__(self, context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
            events.append("inner")
            value = await call_next()
            return value * 10

    app.middleware(Inner())

    @app.task(**fast_retries)
    async def work(number: int, *, key: str) -> int:
        events.append("task")
        if len(events) < 6:
            raise ValueError
        return number

    async with working(app):
        job = await work.enqueue(7, key="k")
        result = await result_of(job)
    assert result.value == 70
    one = ["inner", "task", "outer ends"]
    assert events == [("outer", "work", 1, (7,), {"key": "k"}), *one, ("outer", "work", 2, (7,), {"key": "k"}), *one]


async def test_middleware_sees_time_outs_and_may_fail_or_replace(app: Ardiq) -> None:
    seen: list[BaseException] = []

    @app.middleware
    async def watch(context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.1)  # the limit is the task's alone
        if context.name == "refused":
            raise PermissionError("not you")
        try:
            return await call_next()
        except TimeoutError as error:
            seen.append(error)
            return "replaced"

    @app.task(timeout=0.05, max_retries=0)
    async def slow() -> None:
        await asyncio.sleep(SOON_S)

    @app.task(timeout=0.05, max_retries=0)
    async def quick() -> int:
        return 1

    @app.task(max_retries=0)
    async def refused() -> None: ...

    @app.task(max_retries=0, timeout=5)
    def threaded() -> str:
        return (current_task() or TaskContext("", "", 0)).name

    jobs = [await task.enqueue() for task in (slow, quick, refused, threaded)]
    await drain(app)
    values = [(await result_of(job)).value for job in jobs]
    assert values == ["replaced", 1, "PermissionError('not you')", "threaded"]
    assert len(seen) == 1


async def test_a_hook_whose_work_is_cancelled_does_not_keep_the_task(app: Ardiq) -> None:
    @app.on_error
    async def waits_for_what_is_cancelled(context: ErrorContext) -> None:
        other = asyncio.create_task(asyncio.sleep(SOON_S))
        other.cancel()
        await other

    @app.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("async")

    @app.task(max_retries=0)
    def fail_sync() -> None:
        raise ValueError("sync")

    jobs = [await fail.enqueue(), await fail_sync.enqueue()]
    await drain(app)
    assert [(await result_of(job)).value for job in jobs] == ["ValueError('async')", "ValueError('sync')"]


async def test_error_hooks_hear_of_attempts_in_order(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    app.on_error(lambda context: tries.append(context.tries))
    answered = Endings.answered

    def later(self: Endings, *answer: Any) -> None:
        asyncio.get_running_loop().call_later(0.1, answered, self, *answer)  # a turn took the task first

    monkeypatch.setattr(Endings, "answered", later)

    @app.task(max_retries=1, backoff_ms=1)
    async def broken() -> None:
        raise ValueError("x")

    async with working(app):
        assert not (await result_of(await broken.enqueue())).success
    assert tries == [1, 2]


async def test_error_hooks(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, ErrorContext]] = []

    @app.on_error
    def raises(context: ErrorContext) -> None:
        raise RuntimeError("hook")

    @app.on_error
    async def later(context: ErrorContext) -> None:
        await asyncio.sleep(0.01)
        told.append(("async", context))

    app.on_error(lambda context: told.append(("sync", context)))

    @app.task(max_retries=1, backoff_ms=1)
    async def broken() -> None:
        raise ValueError("x")

    @app.task(max_retries=0)
    def broken_sync() -> None:
        raise ValueError("y")

    @app.task(max_retries=0)
    async def aborted() -> None:
        await asyncio.sleep(SOON_S)

    async with working(app):
        job = await broken.enqueue()
        assert not (await result_of(job)).success
        assert [(kind, e.name, e.task_id, e.tries, e.will_retry) for kind, e in told] == [
            ("async", "broken", job.id, 1, True),
            ("sync", "broken", job.id, 1, True),
            ("async", "broken", job.id, 2, False),
            ("sync", "broken", job.id, 2, False),
        ]
        assert all(isinstance(error.exc, ValueError) for _, error in told)
        told.clear()
        assert not (await result_of(await broken_sync.enqueue())).success
        assert [(kind, e.name, e.will_retry) for kind, e in told] == [
            ("async", "broken_sync", False),
            ("sync", "broken_sync", False),
        ]
        told.clear()
        job = await aborted.enqueue()
        await eventually(lambda: is_state(app, job.id, "running"))
        await job.abort()
        assert (await result_of(job)).aborted
    assert told == []
    assert sum("on_error hook failed" in record.message for record in caplog.records) == 3
