"""The worker: attempts, retries, failures of every kind, hooks, and how it ends."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, ErrorContext, ExecutionContext, Retry, TaskContext, current_task

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


async def is_state(app: Ardiq, task_id: str, state: str) -> bool:
    return await app.status(task_id) == state


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


async def test_a_task_that_cancels_itself_has_failed(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(SOON_S)

    @app.task(max_retries=1, backoff_ms=1)
    async def swallowed() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            return "swallowed"
        return "not cancelled"

    async with working(app):
        result = await result_of(await itself.enqueue())
        assert (result.success, result.value, result.aborted) == (False, "CancelledError()", False)
        assert (await result_of(await swallowed.enqueue())).value == "swallowed"


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


async def test_an_unknown_task_fails_through_the_normal_retries(app: Ardiq) -> None:
    told: list[ErrorContext] = []
    app.on_error(told.append)
    job = await app.send("missing", 1)
    async with working(app):
        await eventually(lambda: is_state(app, job.id, "scheduled"))
    assert [(error.name, type(error.exc), error.will_retry) for error in told] == [("missing", LookupError, True)]
    assert field(app, job.id, "error") == "LookupError(\"unknown task 'missing'\")"


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


async def test_lifespan(app: Ardiq) -> None:
    events = []

    @app.lifespan
    async def replaced() -> AsyncIterator[dict[str, Any]]:
        events.append("never")
        yield {}

    @app.lifespan
    async def lifespan() -> AsyncIterator[dict[str, Any]]:
        events.append("up")
        yield {"db": "pool"}
        events.append("down")

    @app.task
    async def use() -> str:
        events.append("task")
        return str(app.state.db)

    @app.task
    def use_sync() -> str:
        return str(app.state.db)

    jobs = [await use.enqueue(), await use_sync.enqueue()]
    assert events == []
    await drain(app)
    assert events == ["up", "task", "down"]
    assert [(await result_of(job)).value for job in jobs] == ["pool", "pool"]


async def test_a_lifespan_that_fails_takes_no_work(app: Ardiq) -> None:
    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    job = await app.send("task")
    with pytest.raises(OSError, match="no database"):
        await app.run()
    assert await job.status() == "queued"

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


async def test_concurrency_is_the_limit_and_is_reached(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=5)
    now = most = 0

    @app.task
    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1

    await app.enqueue_many(work.prepare() for _ in range(50))
    await drain(app)
    assert most == 5


async def test_many_tasks_of_every_kind(app: Ardiq) -> None:
    @app.task
    async def at_once(n: int) -> int:
        return n

    @app.task
    async def waiting(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @app.task
    def threaded(n: int) -> int:
        return n

    @app.task(timeout=60)
    async def limited(n: int) -> int:
        return n

    @app.task(max_retries=0)
    async def broken(n: int) -> int:
        raise ValueError(n)

    kinds = (at_once, waiting, threaded, limited, broken)
    jobs = await app.enqueue_many(kinds[i % 5].prepare(i) for i in range(2500))
    await drain(app)
    assert await app.queue_size() == 0
    for i in range(0, 2500, 97):
        value = (await result_of(jobs[i])).value
        assert value == (i if i % 5 < 4 else f"ValueError({i})")
    assert await app.dead_count() == 500
    assert is_sound(app)


async def test_the_loop_stays_alive_under_load(app: Ardiq) -> None:
    turns = 0

    @app.task
    async def busy() -> None:
        sum(range(3000))

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    await app.enqueue_many(busy.prepare() for _ in range(3000))
    ticking = asyncio.create_task(tick())
    await drain(app)
    ticking.cancel()
    assert turns > 20


async def test_a_full_turn_is_followed_by_another(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ardiq.worker._MOST_STARTS", 1)
    ran = []

    @app.task
    async def number(i: int) -> None:
        ran.append(i)

    await app.enqueue_many(number.prepare(i) for i in range(50))
    await drain(app)
    assert sorted(ran) == list(range(50))


async def test_burst_runs_what_is_ready_and_leaves_what_is_not(app: Ardiq) -> None:
    @app.task
    async def spawn(depth: int) -> None:
        if depth:
            await spawn.enqueue(depth - 1)

    later = await app.ref("spawn").options(delay=60).enqueue(0)
    await spawn.enqueue(5)
    await drain(app)
    assert await app.queue_size() == 1
    assert await later.status() == "scheduled"
    await drain(app)  # again, with nothing to do


async def test_stop_waits_for_what_runs_and_hands_back_the_rest(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=2, prefetch=10)
    started, go_on = asyncio.Semaphore(0), asyncio.Event()

    @app.task
    async def work() -> str:
        started.release()
        await go_on.wait()
        return "finished"

    jobs = await app.enqueue_many(work.prepare() for _ in range(10))
    run = asyncio.create_task(app.run())
    await started.acquire()
    await started.acquire()
    app.stop()
    app.stop()
    await asyncio.sleep(0.05)
    assert not run.done()
    go_on.set()
    await asyncio.wait_for(run, SOON_S)
    states = [await job.status() for job in jobs]
    assert states == ["complete"] * 2 + ["queued"] * 8
    for job in jobs[2:]:
        info = await job.info()
        assert info is not None
        assert info.tries == 0  # not charged: it was never started
    assert is_sound(app)
    await drain(app)
    assert await app.queue_size() == 0


async def test_a_cancelled_worker_cancels_its_tasks_and_hands_them_back(app: Ardiq) -> None:
    cleaned = []
    started = asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        finally:
            cleaned.append(1)

    job = await work.enqueue()
    run = asyncio.create_task(app.run())
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, SOON_S)
    assert cleaned == [1]
    assert await job.status() == "queued"
    info = await job.info()
    assert info is not None
    assert info.tries == 0
    assert is_sound(app)


def test_a_worker_that_is_left_running_ends_with_its_loop(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    started = asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        await asyncio.sleep(SOON_S)

    async def main() -> Any:
        job = await work.enqueue()
        run = asyncio.create_task(app.run())
        await asyncio.wait_for(started.wait(), SOON_S)
        return job, run

    job, _ = asyncio.run(main())
    assert asyncio.run(job.status()) == "queued"


async def test_an_app_runs_once_at_a_time_and_again_afterwards(app: Ardiq) -> None:
    app.stop()  # nothing runs: nothing happens
    async with working(app):
        with pytest.raises(RuntimeError, match="runs already"):
            await app.run()
    async with working(app):
        pass


async def test_two_workers_share_the_work(make_app: Callable[..., Ardiq]) -> None:
    done: dict[str, list[int]] = {"one": [], "two": []}
    apps = {name: make_app(queue_name="shared", worker_id="same", concurrency=2, prefetch=0) for name in done}
    for name, app in apps.items():

        @app.task
        async def work(number: int, name: str = name) -> None:
            done[name].append(number)
            await asyncio.sleep(0.01)

    first = apps["one"]
    await first.enqueue_many(first.ref("work").prepare(i) for i in range(60))
    async with working(apps["one"]), working(apps["two"]):
        await eventually(lambda: len(done["one"]) + len(done["two"]) >= 60)
    assert sorted(done["one"] + done["two"]) == list(range(60))
    assert done["one"]
    assert done["two"]


async def test_several_apps_and_queues_on_one_loop(make_app: Callable[..., Ardiq]) -> None:
    apps = [make_app() for _ in range(3)]
    for app in apps:

        @app.task
        async def whose(app: str = app.queue_name) -> str:
            return app

    runs = [asyncio.create_task(app.run()) for app in apps]
    jobs = [await app.send("whose") for app in apps]
    assert [(await result_of(job)).value for job in jobs] == [app.queue_name for app in apps]
    for app in apps:
        app.stop()
    await asyncio.wait_for(asyncio.gather(*runs), SOON_S)


async def test_the_server_knows_its_workers(app: Ardiq) -> None:
    core = app._broker.core
    async with working(app):
        workers = await eventually(lambda: core.call("list", ["workers", "", 0, 10]))
        identity = workers[0].decode()
        info = core.command(["HGET", f"ardiq:{{{app.queue_name}}}:worker:{identity}", "info"])
    assert identity.startswith(f"{app.worker_id}:")
    assert b'"concurrency":16' in info.replace(b" ", b"")
    assert core.call("list", ["workers", "", 0, 10]) == []


async def test_a_wrapper_object_with_an_async_call_is_async(app: Ardiq) -> None:
    class Fetch:
        async def __call__(self, number: int) -> int:
            await asyncio.sleep(0)
            return number

    task = app.task(name="fetch")(Fetch())
    job = await task.enqueue(5)
    await drain(app)
    assert (await result_of(job)).value == 5


async def test_debug_logs_name_the_task_and_no_arguments(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    async def secret(password: str) -> str:
        return "hunter2"

    @app.task
    def secret_sync(password: str) -> str:
        return "hunter2"

    with caplog.at_level(logging.DEBUG, "ardiq"):
        jobs = [await secret.enqueue("hunter2"), await secret_sync.enqueue("hunter2")]
        await drain(app)
    for job in jobs:
        assert any("task succeeded" in record.message and job.id in record.message for record in caplog.records)
    assert "hunter2" not in caplog.text
