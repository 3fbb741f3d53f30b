"""Waiting for results, asking for states, aborting, and `request`."""

import asyncio
import dataclasses
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from helpers import SOON_S, awaited, drain, eventually, field, is_sound, is_state, number_of, result_of, working

from ardiq import Ardiq, BrokerError, PreparedTask, TaskError, TaskResult, current_task
from ardiq._server import calls
from ardiq._server.inbox import name_unsure


@pytest.fixture
def add(app: Ardiq) -> Any:
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    return add


async def test_without_a_timeout_the_result_is_what_there_is_now(app: Ardiq, add: Any) -> None:
    job = await add.enqueue(1, 2)
    assert await job.result() is None
    assert await app.result("unknown") is None
    await drain(app)
    assert await job.result() == await app.result(job.id)
    assert (await job.result()).value == 3


async def test_only_who_gives_up_has_something_to_take_back(
    app: Ardiq, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    channel = app.context.channel()
    ask = channel.ask

    def asked(call: Any) -> Any:
        told.extend([call.function] if call.function == "stop_waiting" else [])
        return ask(call)

    monkeypatch.setattr(channel, "ask", asked)
    job = await add.enqueue(1, 2)
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.05)
    assert told == ["stop_waiting"]
    told.clear()
    waiting = asyncio.create_task(job.result(timeout=SOON_S))
    await drain(app)
    assert (await waiting).value == 3
    assert (await job.result(timeout=SOON_S)).value == 3  # it has ended already
    assert [update.status async for update in job.watch()] == ["complete"]
    assert told == []


async def test_waiting_is_over_when_the_task_is(app: Ardiq, add: Any) -> None:
    job = await add.enqueue(1, 2)
    waiting = [asyncio.create_task(job.result(timeout=SOON_S)) for _ in range(3)]
    await asyncio.sleep(0.02)
    async with working(app):
        results = await asyncio.gather(*waiting)
    assert [result.value for result in results] == [3, 3, 3]
    assert (await job.result(timeout=0)).value == 3  # afterwards, too


async def test_a_wait_may_begin_before_the_task_exists(app: Ardiq, add: Any) -> None:
    waiting = asyncio.create_task(app.result("invoice-7", timeout=SOON_S))
    await asyncio.sleep(0.05)
    await add.options(task_id="invoice-7").enqueue(1, 2)
    async with working(app):
        result = await waiting
    assert result is not None
    assert result.value == 3


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_a_wait_that_is_too_long_is_a_timeout(app: Ardiq, add: Any, timeout: float) -> None:
    job = await add.options(delay=60).enqueue(1, 2)
    with pytest.raises(TimeoutError, match=rf"no result for '{job.id}' within {timeout}s"):
        await job.result(timeout=timeout)
    with pytest.raises(TimeoutError, match="no result for 'unknown'"):
        await app.result("unknown", timeout=timeout)


async def test_who_stops_waiting_is_forgotten(app: Ardiq, add: Any) -> None:
    core, base = app.context.server.core, f"ardiq:{{{app.queue_name}}}:"
    job = await add.enqueue(1, 2)
    waiting = asyncio.create_task(job.result(timeout=SOON_S))
    await eventually(lambda: core.command(["EXISTS", f"{base}waiters:{job.id}"]))
    waiting.cancel()
    await eventually(lambda: not core.command(["EXISTS", f"{base}waiters:{job.id}"]))
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.05)
    await eventually(lambda: not core.command(["EXISTS", f"{base}waiters:{job.id}"]))


async def test_who_was_answered_has_nothing_to_take_back(app: Ardiq, add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    channel = app.context.server.channel(asyncio.get_running_loop())
    monkeypatch.setattr(channel, "tell", lambda call: told.append(call.function))
    async with working(app):
        job = await add.enqueue(1, 2)
        await job.result(timeout=SOON_S)  # perhaps by message
        await job.result(timeout=SOON_S)
        assert await add.request(3, 4, timeout=SOON_S) == 7
        with pytest.raises(TimeoutError):
            await app.result("unknown", timeout=0.1)
    assert told == []


async def test_one_who_stops_waiting_does_not_disturb_the_others(app: Ardiq, add: Any) -> None:
    job = await add.enqueue(1, 2)
    kept = asyncio.create_task(job.result(timeout=SOON_S))
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.05)
    async with working(app):
        assert (await kept).value == 3


async def test_many_waits_at_once(app: Ardiq, add: Any) -> None:
    async with working(app):
        jobs = await asyncio.gather(*(add.enqueue(i, 0) for i in range(500)))
        results = await asyncio.gather(*(job.result(timeout=SOON_S) for job in jobs))
    assert [result.value for result in results] == list(range(500))


async def test_results_that_are_not_kept_reach_who_waits(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(result_ttl_ms=0)

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    job = await add.enqueue(1, 2)
    waiting = asyncio.create_task(job.result(timeout=SOON_S))
    await asyncio.sleep(0.05)
    async with working(app):
        result = await waiting
        assert result is not None
        assert result.value == 3
        assert await add.request(2, 3) == 5
        assert await job.status() == "not_found"
        assert await job.result() is None


@pytest.mark.parametrize(("ttl", "low", "high"), [(60_000, 1, 60_000), (-1, -1, -1)])
async def test_how_long_results_are_kept(make_app: Callable[..., Ardiq], ttl: int, low: int, high: int) -> None:
    app = make_app(result_ttl_ms=ttl)

    @app.task
    async def nothing() -> None: ...

    job = await nothing.enqueue()
    await drain(app)
    assert low <= app.context.server.core.command(["PTTL", f"ardiq:{{{app.queue_name}}}:task:{job.id}"]) <= high


async def test_states(app: Ardiq) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @app.task(max_retries=0)
    async def work() -> None:
        started.set()
        await go_on.wait()
        raise ValueError

    assert await app.status("unknown") == "not_found"
    assert await app.info("unknown") is None
    job = await work.options(priority="default").enqueue()
    assert await job.status() == "queued"
    info = await job.info()
    assert info is not None
    assert (info.task_id, info.fn_name, info.args, info.kwargs) == (job.id, "work", (), {})
    assert (info.tries, info.status, info.scheduled_at) == (0, "queued", None)
    assert abs(info.enqueue_time - time.time() * 1000) < SOON_S * 1000
    async with working(app):
        await started.wait()
        assert await job.status() == "running"
        info = await job.info()
        assert info is not None
        assert (info.tries, info.status) == (1, "running")
        go_on.set()
        assert not (await result_of(job)).success
    assert await job.status() == "complete"
    assert await job.info() is None


async def test_an_abort_settles_what_waits_at_once(app: Ardiq, add: Any) -> None:
    for options in ({}, {"delay": 60}, {"unique": True}, {"unique": True, "delay": 60}):
        job = await add.options(**options).enqueue(1, 2)
        waiting = asyncio.create_task(job.result(timeout=SOON_S))
        assert await job.abort() is True
        result = await waiting
        assert result is not None
        assert (result.success, result.value, result.aborted, result.duration_ms) == (False, "aborted", True, 0)
        assert await job.abort() is True
        assert await job.status() == "complete"
        again = await add.options(**options).enqueue(1, 2)  # uniqueness is free
        assert await again.status() in ("queued", "scheduled")
        assert await again.abort()
    assert await app.queue_size() == 0
    assert await app.abort("unknown") is False
    await drain(app)
    assert await app.dead_count() == 0
    assert is_sound(app)


async def test_an_abort_cancels_what_runs(app: Ardiq) -> None:
    started = asyncio.Event()
    cleaned = []

    @app.task(max_retries=5, backoff_ms=1)
    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            await asyncio.sleep(1.2)  # longer than a heartbeat, which asks again
            cleaned.append(1)
            raise

    async with working(app):
        job = await work.enqueue()
        await started.wait()
        assert await job.abort() is True
        result = await result_of(job)
        assert result.aborted
        assert await job.abort() is True
    assert cleaned == [1]
    assert await app.dead_count() == 0
    assert is_sound(app)


async def test_a_task_that_finishes_all_the_same_wins(app: Ardiq) -> None:
    started = asyncio.Event()

    @app.task
    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            return "finished"
        return "?"

    async with working(app):
        job = await stubborn.enqueue()
        await started.wait()
        assert await job.abort()
        assert (await result_of(job)).value == "finished"


async def test_an_aborted_task_is_not_tried_again(app: Ardiq) -> None:
    started = asyncio.Event()

    @app.task(max_retries=5, backoff_ms=1)
    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            raise ValueError("during the abort") from None

    async with working(app):
        job = await work.enqueue()
        await started.wait()
        await job.abort()
        assert (await result_of(job)).aborted


async def test_an_abort_reaches_what_was_claimed_and_not_started(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=1, prefetch=10)
    started, go_on = asyncio.Event(), asyncio.Event()
    ran = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)
        started.set()
        await go_on.wait()

    async with working(app):
        jobs = await app.enqueue_many(work.prepare(i) for i in range(5))
        await started.wait()
        assert await jobs[3].abort()
        go_on.set()
        assert (await result_of(jobs[3])).aborted
        for job in (jobs[0], jobs[1], jobs[2], jobs[4]):
            assert (await result_of(job)).success
    assert sorted(ran) == [0, 1, 2, 4]
    assert is_sound(app)


async def test_request_gives_the_value(app: Ardiq, add: Any) -> None:
    async with working(app):
        assert await add.request(1, 2) == 3
        assert await add.request(1, b=2, timeout=SOON_S) == 3
        assert await add.request(1, 2, timeout=None) == 3
        assert await add.options(priority="default").request(1, 2) == 3
        assert await asyncio.gather(*(add.request(i, i) for i in range(200))) == [2 * i for i in range(200)]


async def test_request_raises_what_became_of_the_task(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("no")

    async with working(app):
        with pytest.raises(TaskError, match=r"ValueError\('no'\)") as caught:
            await fail.request()
        assert caught.value.result.success is False
        assert isinstance(caught.value.result, TaskResult)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert copy.result == caught.value.result
        job = await fail.options(delay=60).enqueue()
        asking = asyncio.create_task(fail.options(delay=60, task_id=job.id).request(timeout=SOON_S))
        await asyncio.sleep(0.05)
        await job.abort()
        with pytest.raises(TaskError) as aborted:
            await asking
        assert aborted.value.result.aborted


async def test_request_of_a_call_that_runs_already_waits_for_that(app: Ardiq) -> None:
    runs = []
    go_on = asyncio.Event()

    @app.task(unique=True)
    async def build(shop: int) -> int:
        runs.append(shop)
        await go_on.wait()
        return shop * 10

    async with working(app):
        asking = [asyncio.create_task(build.request(7, timeout=SOON_S)) for _ in range(5)]
        await eventually(lambda: runs)
        asking.append(asyncio.create_task(build.request(7, timeout=SOON_S)))
        await asyncio.sleep(0.05)
        go_on.set()
        assert await asyncio.gather(*asking) == [70] * 6
    assert runs == [7]


async def test_a_request_that_takes_too_long_leaves_the_task_there(app: Ardiq, add: Any) -> None:
    with pytest.raises(TimeoutError, match="no result"):
        await add.request(1, 2, timeout=0.05)
    assert await app.queue_size() == 1


async def test_a_request_of_a_large_result(app: Ardiq) -> None:
    @app.task
    async def give(size: int) -> bytes:
        return b"x" * size

    async with working(app):
        assert len(await give.request(1_000_000)) == 1_000_000


async def test_replies_are_those_of_the_loop_that_asked(make_app: Callable[..., Ardiq]) -> None:
    """One app on two loops, one after the other."""
    app = make_app()

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async def once() -> int:
        async with working(app):
            return await add.request(1, 2)

    async with working(app):
        assert await add.request(1, 2) == 3
    assert await asyncio.to_thread(lambda: [asyncio.run(once()) for _ in range(3)]) == [3, 3, 3]
    async with working(app):
        assert await add.request(1, 2) == 3


async def test_dead_letters(app: Ardiq) -> None:
    broken = True

    @app.task(max_retries=1, backoff_ms=1)
    async def work(number: int, *, key: str = "") -> int:
        if broken:
            raise ValueError(number)
        return number

    jobs = []
    async with working(app):
        for i in range(5):
            jobs.append(await work.enqueue(i, key="k"))
            assert not (await result_of(jobs[-1])).success
            await asyncio.sleep(0.002)  # they died one after the other
    assert await app.dead_count() == 5
    letters = await app.dead_letters()
    assert [letter.task_id for letter in letters] == [job.id for job in reversed(jobs)]
    assert await app.dead_letters(limit=2) == letters[:2]
    assert await app.dead_letters(limit=0) == []
    newest = letters[0]
    assert (newest.fn_name, newest.args, newest.kwargs, newest.priority) == ("work", (4,), {"key": "k"}, "default")
    assert (newest.error, newest.tries) == ("ValueError(4)", 2)
    assert newest.enqueue_time <= newest.failed_at

    assert await app.delete_dead(jobs[0].id) is True
    assert await app.delete_dead(jobs[0].id) is False
    assert await app.delete_dead("unknown") is False
    assert await jobs[0].status() == "complete"  # it says what it failed with

    broken = False
    assert await app.replay("unknown") is None
    replayed = await app.replay(jobs[1].id)
    assert replayed == jobs[1]
    assert await app.replay(jobs[1].id) is None
    assert await jobs[1].status() == "queued"
    assert await jobs[1].result() is None
    await drain(app)
    result = await result_of(jobs[1])
    assert (result.success, result.value, result.tries) == (True, 1, 1)
    assert await app.dead_count() == 3
    assert is_sound(app)


async def test_a_replay_into_a_lane_that_nobody_serves_is_refused(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["old", "new"])
    job = await app.ref("missing", priority="old").enqueue()
    app.context.registry.tasks.clear()

    @app.task(max_retries=0)
    async def missing() -> None:
        raise ValueError

    await drain(app)
    other = make_app(queue_name=app.queue_name, priorities=["new"])
    with pytest.raises(ValueError, match="'old' is not one of"):
        await other.replay(job.id)
    assert await app.dead_count() == 1


async def test_more_dead_letters_than_a_page(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail(number: int) -> None:
        raise ValueError(number)

    await app.enqueue_many(fail.prepare(i) for i in range(1100))
    await drain(app)
    letters = await app.dead_letters(limit=5000)
    assert len({letter.task_id for letter in letters}) == 1100
    assert len(await app.dead_letters(limit=777)) == 777


async def test_metrics(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["low", "high"])
    assert app.metrics() == []

    @app.task(max_retries=1, backoff_ms=1)
    async def work(how: str) -> None:
        if how == "fail":
            raise ValueError
        if how == "wait":
            await asyncio.sleep(SOON_S)

    @app.task(priority="low", max_retries=0)
    def sync_work(fail: bool) -> None:
        if fail:
            raise ValueError
        time.sleep(0.02)

    async with working(app):
        for job in [await work.enqueue("ok"), await work.enqueue("fail"), await sync_work.enqueue(False)]:
            await result_of(job)
        await result_of(await sync_work.enqueue(True))
        job = await work.enqueue("wait")
        await eventually(lambda: is_state(app, job.id, "running"))
        await job.abort()
        await result_of(job)
    first, second = app.metrics()
    assert (first.fn_name, first.priority) == ("sync_work", "low")
    assert (first.succeeded, first.retried, first.failed, first.aborted) == (1, 0, 1, 0)
    assert (second.fn_name, second.priority) == ("work", "high")
    assert (second.succeeded, second.retried, second.failed, second.aborted) == (1, 1, 1, 1)
    assert first.run.count == first.wait.count == 2
    assert (second.run.count, second.wait.count) == (4, 3)  # the second attempt's wait was its backoff
    assert 0.02 <= first.run.sum < SOON_S
    bounds = [bound for bound, _ in first.run.buckets]
    counts = [count for _, count in first.run.buckets]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0.005
    assert counts == sorted(counts)
    assert counts[-1] == 2


async def test_a_record_shows_who_runs_it(app: Ardiq) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> None:
        started.set()
        await go_on.wait()

    async with working(app):
        job = await work.enqueue()
        await started.wait()
        assert (field(app, job.id, "worker") or "").startswith(app.worker_id)
        go_on.set()


def _left_ms(app: Ardiq, task_id: str) -> int:
    """How long a record is kept still; -1: for ever, -2: there is none."""
    return int(app.context.server.core.command(["PTTL", f"{app.context.server.base}task:{task_id}"]))


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
async def test_a_task_says_how_long_its_result_is_kept(app: Ardiq, is_async: bool) -> None:
    async def answer(fails: bool = False) -> int:
        if fails:
            raise ValueError("no")
        return 1

    def answer_sync(fails: bool = False) -> int:
        if fails:
            raise ValueError("no")
        return 1

    function: Any = answer if is_async else answer_sync
    long = app.task(name="long", max_retries=0, result_ttl=timedelta(hours=5))(function)
    plain = app.task(name="plain", max_retries=0)(function)
    async with working(app):
        jobs = [
            await long.enqueue(),
            await app.send("long"),
            await long.options(result_ttl=60).enqueue(),
            await plain.options(result_ttl=7200).enqueue(),
            await plain.enqueue(),
            await long.enqueue(True),
        ]
        for job in jobs:
            await result_of(job)
    kept = [round(_left_ms(app, job.id) / 60_000) for job in jobs]
    assert kept[:5] == [300, 300, 1, 120, 5]
    assert _left_ms(app, jobs[5].id) == -1, "a dead letter is kept until somebody deletes it"
    assert await app.dead.discard(jobs[5].id)
    assert round(_left_ms(app, jobs[5].id) / 60_000) == 300
    assert is_sound(app)


async def test_however_it_ends_it_is_kept_as_long_as_its_task_says(app: Ardiq) -> None:
    started = asyncio.Event()

    @app.task(result_ttl=3600)
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    waits, late = await hang.enqueue(), await hang.options(expire_ms=1).enqueue()
    assert await waits.abort()
    await asyncio.sleep(0.01)
    assert await late.result() is not None, "it has expired"
    runs = await hang.enqueue()
    async with working(app):
        await started.wait()
        assert await runs.abort()
        await result_of(runs)
    assert [round(_left_ms(app, job.id) / 60_000) for job in (waits, late, runs)] == [60, 60, 60]


async def test_a_task_whose_result_is_not_kept_leaves_nothing(app: Ardiq) -> None:
    @app.task(result_ttl=0)
    async def forget(cannot_travel: bool = False) -> object:
        current = current_task()
        assert current is not None
        current.progress(1.0, "told in time")
        return object() if cannot_travel else None

    async with working(app):
        job = await forget.enqueue(True)
        updates = [update async for update in (await forget.options(delay_ms=50).enqueue()).watch()]
        await eventually(lambda: is_state(app, job.id, "not_found"))
    assert updates[-1].status == "complete"
    with pytest.raises(ValueError, match="none is kept"):
        forget.request_sync()
    assert await app.dead_count() == 0


def test_what_is_no_time_to_keep_a_result_is_refused(app: Ardiq) -> None:
    with pytest.raises(TypeError, match="result_ttl must be a timedelta or seconds"):
        app.task(result_ttl="1h")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="result_ttl"):
        app.task(result_ttl=float("nan"))


async def test_a_cron_and_a_schedule_keep_results_as_their_task_says(app: Ardiq) -> None:
    @app.cron("@daily", result_ttl=3600)
    async def report() -> None: ...

    assert app.context.crons["report"]["result_ttl_ms"] == 3_600_000
    await app.schedules.put("by hand", "report", spec="@daily")
    job = await app.schedules.run_now("by hand")
    assert job is not None
    async with working(app):
        await result_of(job)
    assert round(_left_ms(app, job.id) / 60_000) == 60


@pytest.mark.parametrize("how", ["by its app", "by its task", "by the call"])
async def test_who_begins_to_wait_when_the_result_is_gone_is_told_at_once(
    make_app: Callable[..., Ardiq], how: str
) -> None:
    app = make_app(result_ttl_ms=0 if how == "by its app" else 60_000)

    @app.task(result_ttl=0 if how == "by its task" else None)
    async def add(a: int, b: int) -> int:
        return a + b

    call = add.options(result_ttl=0) if how == "by the call" else add
    job = await call.enqueue(1, 2)
    [one_of_many] = await app.enqueue_many([call.prepare(2, 3)])
    await drain(app)
    for each in (job, one_of_many):
        for wait in (each.value, each.result, each.value_sync, each.result_sync):
            with pytest.raises(TimeoutError, match="its result is not kept"):
                await asyncio.wait_for(awaited(wait, 3 * SOON_S), SOON_S)
    with pytest.raises(TimeoutError, match="its result is not kept"):
        await asyncio.wait_for(job.value(), SOON_S)


async def test_a_task_that_may_have_been_enqueued_is_waited_for(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    work = number_of(app)
    job = await work.options(task_id="late").enqueue(1)
    await app.context.channel().ask(calls.abort(id=job.id, result_ttl_ms=0))
    error = BrokerError("no answer")
    error.maybe_enqueued = True
    name_unsure(error, [job])
    for wait in (job.value, job.result, job.value_sync, job.result_sync):
        with pytest.raises(TimeoutError, match="within"):
            await awaited(wait, 0.2)
    await work.options(task_id="late").enqueue(1)  # it arrives after all
    await drain(app)
    assert await job.value(SOON_S) == 1


async def test_a_blocking_wait_ends_when_the_record_goes(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(result_ttl_ms=0)
    work = number_of(app)
    job = await work.enqueue(1)
    waiting = asyncio.create_task(asyncio.to_thread(app.result_sync, job.id, 3 * SOON_S))
    await asyncio.sleep(0.1)
    async with working(app):
        with pytest.raises(TimeoutError, match="its result is not kept"):
            await asyncio.wait_for(waiting, SOON_S)


@pytest.mark.parametrize("way", ["made by hand", "replaced"])
async def test_a_call_made_by_hand_is_kept_as_its_task_says(app: Ardiq, way: str) -> None:
    @app.task(result_ttl=0)
    async def add(a: int, b: int) -> int:
        return a + b

    call = PreparedTask("add", (1, 2), {}, None, None, 0, 0, 0)
    if way == "replaced":
        call = dataclasses.replace(add.prepare(1, 2), task_id="mine")
    [job] = await app.enqueue_many([call])
    await drain(app)
    assert await job.status() == "not_found"
