"""`app.inspect`: what is where in a queue, as typed values, awaited or not."""

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_state, result_of, stranger, working

from ardiq import (
    Ardiq,
    BadArgument,
    Found,
    FoundTask,
    Inspect,
    LaneInfo,
    MinuteCounts,
    Progress,
    QueueCounts,
    QueueOverview,
    TaskPosition,
    TaskTotals,
    WrongType,
    _core,
    current_task,
)
from ardiq._server import calls
from ardiq._server.replies import Ask, at_once

LANES = ["low", "default", "high"]
METHODS = [name for name, _ in inspect.getmembers(Inspect, inspect.iscoroutinefunction) if not name.startswith("_")]


async def both(app: Ardiq, method: str, *args: Any, **named: Any) -> Any:
    """What a method returns, which its twin does, too, where no time passes in it."""
    awaited = await getattr(app.inspect, method)(*args, **named)
    assert type(getattr(app.inspect, f"{method}_sync")(*args, **named)) is type(awaited)
    return awaited


def core_of(app: Ardiq) -> _core.Core:
    return app.context.server.core


def join(app: Ardiq, worker: str, info: str = "{}", lanes: str = '["default"]') -> None:
    core_of(app).call("join", [worker, 3_600_000, info, lanes, 1])


@pytest.fixture
def left(app: Ardiq) -> Iterator[list[str]]:
    """Workers that leave at the end."""
    workers: list[str] = []
    yield workers
    for worker in workers:
        core_of(app).call("leave", [worker, 0])


def test_each_method_has_a_twin() -> None:
    assert METHODS
    for name in METHODS:
        twin = getattr(Inspect, f"{name}_sync")
        assert inspect.signature(twin) == inspect.signature(getattr(Inspect, name)), name
        assert not inspect.iscoroutinefunction(twin)


async def test_an_empty_queue(app: Ardiq) -> None:
    assert await both(app, "counts") == QueueCounts(0, 0, 0, 0, 0, 0, {})
    assert await both(app, "lanes") == [LaneInfo("default", 0, None, 0, 0, 0, None)]
    for method in ("workers", "running", "unknown_tasks", "task_totals"):
        assert await both(app, method) == []
    assert await both(app, "workers_alive") == 0
    assert await both(app, "next_due_at") is None
    assert await both(app, "position", "none") is None
    for minutes in await both(app, "minutes"), app.inspect.minutes_sync():
        assert len(minutes) == 5
        assert {count for minute in minutes for count in minute[1:]} == {0}
        assert [minute.at for minute in minutes] == [minutes[0].at - 60_000 * ago for ago in range(5)]


async def test_what_waits(make_app: Any) -> None:
    app: Ardiq = make_app(priorities=LANES)

    @app.task
    async def work(number: int) -> None: ...

    first = await work.options(priority="low").enqueue(1)
    second = await work.options(priority="low").enqueue(2)
    later = await work.options(delay=3600).enqueue(3)
    counts = await both(app, "counts")
    assert counts == QueueCounts(2, 1, 0, 0, 0, 0, counts.ready)
    assert counts.ready["low"] == 2
    lanes = await both(app, "lanes")
    assert [lane.name for lane in lanes] == LANES[::-1]
    assert [(lane.waiting, lane.workers_alive, lane.claimed, lane.scheduled) for lane in lanes] == [
        (0, 0, None, None),
        (0, 0, None, None),
        (2, 0, None, None),
    ]
    assert [lane.oldest_ms is None for lane in lanes] == [True, True, False]
    assert await both(app, "position", first.id) == TaskPosition("queued", "low", 0, 2, None)
    assert await both(app, "position", second.id) == TaskPosition("queued", "low", 1, 2, None)
    assert await both(app, "position", later.id) == TaskPosition("scheduled", None, 0, 1, None)
    info = await later.info()
    assert info is not None
    assert await both(app, "next_due_at") == info.scheduled_at
    await app.pause(work)
    await drain(app)
    held = await both(app, "position", first.id)
    assert (held.place, held.of, held.length) == ("held", "work()", 2)
    assert (await both(app, "counts")).held == 2


async def test_the_queue_at_one_moment(app: Ardiq, left: list[str]) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        raise ValueError

    nothing: QueueOverview = await both(app, "overview", 0)
    assert nothing[1:] == (QueueCounts(0, 0, 0, 0, 0, 0, {}), 0, None, 0, 0, {}, {}, {}, [])
    await work.enqueue()
    await drain(app)
    await app.pause(work)
    await work.enqueue()
    await drain(app)
    await app.ref("other").enqueue()
    job = await work.options(delay=3600).enqueue()
    info = await job.info()
    assert info is not None
    join(app, "w:1")
    left.append("w:1")
    overview: QueueOverview = await both(app, "overview", 120)
    assert overview.counts == await app.inspect.counts()
    assert overview.counts == QueueCounts(1, 1, 0, 1, 0, 1, {"default": 1})
    assert (overview.overdue, overview.next_due_at, overview.workers, overview.lost) == (0, info.scheduled_at, 1, 0)
    assert overview.held == {"work()": 1}
    assert 0 <= overview.oldest_ms["default"] < 60_000
    assert overview.totals == {"enqueued": 4, "failed": 1, "held": 1}
    assert overview.minutes[0].at == overview.at // 60_000 * 60_000
    assert [sum(minute[at] for minute in overview.minutes) for at in (1, 2, 3)] == [4, 0, 1]
    (lane,) = await app.inspect.lanes([], overview)
    assert lane == LaneInfo("default", 1, overview.oldest_ms["default"], 0, 0, 1, info.scheduled_at)


async def test_what_is_overdue_and_who_is_lost(app: Ardiq, left: list[str]) -> None:
    job = await app.ref("work").options(delay=3600).enqueue()
    join(app, "w:1")
    left.append("w:1")
    for place, name in ("scheduled", job.id), ("workers", "w:1"):
        core_of(app).command(["ZADD", f"{app.context.server.base}{place}", 1, name])
    overview = await app.inspect.overview()
    assert (overview.overdue, overview.next_due_at, overview.workers, overview.lost) == (1, 1, 1, 1)
    core_of(app).command(["ZADD", f"{app.context.server.base}workers", overview.at + 3_600_000, "w:1"])
    await job.abort()


async def test_what_many_workers_run(app: Ardiq, left: list[str]) -> None:
    """The longest first, whoever runs it; a hundred workers a call, and no more than have a thousand tasks."""
    left += [f"w:{number}" for number in range(250)]
    await app.enqueue_many([app.ref("work").prepare() for _ in range(1_500)])
    core = core_of(app)
    for number, name in enumerate(left):
        join(app, name, '{"concurrency": 4}')
        core.call("claim", [name, '["default"]', 6 if number % 2 else 5, 60_000])
    running = await both(app, "running", 10)
    assert {task.worker for task in running} == {"w:0", "w:1", "w:2"}
    assert len(await both(app, "running", 500)) == 500
    assert len(await both(app, "running", 5_000)) == 1_000, "of each as many as it has slots"
    assert Counter(task.worker for task in await app.inspect.running(5_000)) == dict.fromkeys(left, 4)


async def test_searching(app: Ardiq) -> None:
    @app.task
    async def work(customer_id: int, text: str = "") -> None: ...

    # Each due at a time of its own, which says their order.
    later = [work.options(delay=3600 + at) for at in range(6)]
    jobs = [await later[number].enqueue(number, "Odd" if number % 2 else "even") for number in range(5)]
    named = await later[5].enqueue(customer_id=3, text="odd")
    other = await app.ref("other").options(delay=7200).enqueue(3)

    async def ids(**which: Any) -> list[str]:
        found: Found = await both(app, "find", "scheduled", **which)
        assert (found.looked_at, found.size, found.next_offset) == (7, 7, None)
        return [task.task_id for task in found.tasks]

    assert await ids() == [*(job.id for job in jobs), named.id, other.id]
    assert await ids(task="other") == [other.id]
    assert await ids(text="ODD") == [jobs[1].id, jobs[3].id, named.id]
    assert await ids(text=jobs[2].id.upper()) == [jobs[2].id]
    assert await ids(argument={"customer_id": 3}) == [jobs[3].id, named.id]
    assert await ids(argument={0: 3}) == [jobs[3].id, other.id]
    assert await ids(argument={"text": "Odd"}, text="odd") == [jobs[1].id, jobs[3].id]
    first = await app.inspect.find("scheduled", limit=2)
    assert (len(first.tasks), first.looked_at, first.size, first.next_offset) == (2, 2, 7, 2)
    second = await app.inspect.find("scheduled", look_at=3, offset=2)
    assert [task.task_id for task in second.tasks] == [job.id for job in jobs[2:5]]
    info = await named.info()
    assert info is not None
    (task,) = (await app.inspect.find("scheduled", text='"customer_id":3')).tasks
    assert task == FoundTask(
        named.id, "work", "scheduled", "default", 0, info.scheduled_at or 0, "[]", '{"customer_id":3,"text":"odd"}', ""
    )
    with pytest.raises(ValueError, match="only a string, an integer or a boolean"):
        await app.inspect.find("scheduled", argument={"customer_id": 1.5})
    with pytest.raises(BadArgument, match="place must be"):
        await app.inspect.find("nowhere")


async def test_the_lane_of_a_queue_with_one(app: Ardiq) -> None:
    job = await app.ref("work").options(delay=3600).enqueue()
    info = await job.info()
    assert info is not None
    assert await both(app, "lanes") == [LaneInfo("default", 0, None, 0, 0, 1, info.scheduled_at)]


async def test_what_runs(app: Ardiq) -> None:
    @app.task
    async def long() -> None:
        task = current_task()
        assert task is not None
        task.progress(0.5, "half")
        await asyncio.sleep(SOON_S)

    async with working(app):
        jobs = [await long.enqueue() for _ in range(3)]
        for job in jobs:
            await eventually(lambda job=job: is_state(app, job.id, "running"))
        await eventually(lambda: all(task.progress for task in app.inspect.running_sync()))
        (worker,) = await both(app, "workers")
        assert worker.is_alive
        assert (worker.claimed, worker.concurrency, worker.share, worker.lanes) == (3, 16, 16, ["default"])
        assert (worker.abandoned_threads, worker.stalled_ms) == (0, 0)
        assert isinstance(worker.pid, int)
        assert worker.host
        assert worker.version
        assert worker.started_at
        assert await both(app, "workers_alive") == 1
        running = await both(app, "running")
        assert {task.task_id for task in running} == {job.id for job in jobs}
        assert {(task.fn_name, task.lane, task.worker, task.tries, task.progress) for task in running} == {
            ("long", "default", worker.worker, 1, Progress(0.5, "half"))
        }
        assert [task.run_ms for task in running] == sorted((task.run_ms for task in running), reverse=True)
        assert [len(await both(app, "running", limit)) for limit in (0, 2)] == [0, 2]
        assert await both(app, "running", 10, []) == []
        with pytest.raises(ValueError, match="limit"):
            await app.inspect.running(-1)
        position = await both(app, "position", jobs[0].id)
        assert position == TaskPosition("running", worker.worker, None, 3, None)
        assert (await app.inspect.lanes())[0].claimed == 3
        for job in jobs:
            await job.abort()
            await result_of(job)


async def test_what_was_done(app: Ardiq) -> None:
    @app.task
    async def fine() -> None: ...

    @app.task(max_retries=0)
    async def broken() -> None:
        raise ValueError("no good")

    for _ in range(2):
        await fine.enqueue()
    bad = await broken.enqueue()
    with stranger(app) as other:
        await other.send("nobody_knows")
    await drain(app)
    minutes: list[MinuteCounts] = await both(app, "minutes", 120)
    assert len(minutes) == 120
    assert [sum(minute[at] for minute in minutes) for at in (1, 2, 3)] == [4, 2, 1]
    totals: dict[str, TaskTotals] = {task.fn_name: task for task in await both(app, "task_totals", 120)}
    assert totals["fine"][1:6] == (2, 2, 0, 0, 0)
    assert totals["broken"][1:6] == (1, 0, 1, 0, 0)
    assert totals["fine"].waits == 2
    (unknown,) = await both(app, "unknown_tasks")
    assert unknown.fn_name == "nobody_knows"
    assert unknown.seen_at >= minutes[-1].at
    assert await both(app, "position", bad.id) == TaskPosition("dead", None, 0, 1, None)


@pytest.mark.parametrize("method", ["minutes", "task_totals", "overview"])
async def test_more_minutes_than_are_kept(app: Ardiq, method: str) -> None:
    with pytest.raises(BadArgument, match=r"from [01] to 120"):
        await getattr(app.inspect, method)(121)


async def test_an_ended_task_lies_nowhere(app: Ardiq) -> None:
    @app.task
    async def fine() -> None: ...

    job = await fine.enqueue()
    await drain(app)
    position = await both(app, "position", job.id)
    assert position[:4] == (None, None, None, 0)
    assert 0 < position.kept_ms <= app.result_ttl_ms


async def test_many_workers(app: Ardiq, left: list[str]) -> None:
    """They are read a hundred a call, and each of them once."""
    names = [f"w:{number}" for number in range(250)]
    for name in names:
        join(app, name)
    left += names
    workers = await both(app, "workers")
    assert sorted(worker.worker for worker in workers) == sorted(names)
    assert [worker.lease_left_ms for worker in workers] == sorted(worker.lease_left_ms for worker in workers)
    assert await both(app, "workers_alive") == 250
    assert (await both(app, "lanes"))[0].workers_alive == 250
    assert await both(app, "running") == []


@pytest.mark.damages_keys
async def test_what_somebody_wrote_by_hand(app: Ardiq, left: list[str]) -> None:
    for number, info in enumerate(["[7]", "no JSON", '{"label": 7, "host": [], "pid": "x", "concurrency": 1e999}']):
        join(app, f"w:{number}")
        core_of(app).command(
            ["HSET", f"{app.context.server.base}worker:w:{number}", "info", info, "lanes", "{", "joined_at", ""]
        )
    left += ["w:0", "w:1", "w:2"]
    for worker in await both(app, "workers"):
        assert worker[1:9] == (None, None, None, None, None, None, None, [])
        assert worker.is_alive
    minute = (await app.inspect.minutes())[0].at // 60_000
    for ago in range(2):  # the minute may have ended by now
        key = f"{app.context.server.base}task_stats:{minute + ago}"
        core_of(app).command(["HSET", key, "short", "[1]", "odd", '["x", null, 2]', "none", "no JSON"])
        core_of(app).command(
            ["HSET", f"{app.context.server.base}stats:{minute + ago}", "failed", "x", "completed", "7"]
        )
    totals = {task.fn_name: task.runs for task in await both(app, "task_totals")}
    assert totals["short"] in (1, 2)
    assert totals["odd"] in (2, 4)
    assert totals["none"] == 0
    counted = await both(app, "minutes")
    assert sum(minute.failed for minute in counted) == 0
    assert sum(minute.completed for minute in counted) in (7, 14)


@pytest.mark.damages_keys
async def test_a_key_of_another_type(app: Ardiq) -> None:
    core_of(app).command(["SET", f"{app.context.server.base}scheduled", "mine"])
    for method in ("counts", "next_due_at"):
        with pytest.raises(WrongType):
            await getattr(app.inspect, method)()
        with pytest.raises(WrongType):
            getattr(app.inspect, f"{method}_sync")()


async def test_each_queue_has_its_own(app: Ardiq) -> None:
    other = app.queue(f"{app.queue_name}-other")
    await other.send("work")
    assert (await other.inspect.counts()).queued == 1
    assert (await app.inspect.counts()).queued == 0


async def test_schedules_are_listed_without_a_loop(app: Ardiq) -> None:
    await app.schedules.put("daily", "work", "@daily")
    await app.schedules.put("often", "work", every=60)
    listed = await app.schedules.list()
    assert [schedule.name for schedule in listed] == ["often", "daily"]
    assert app.schedules.list_sync() == listed


def test_what_asks_without_a_loop_may_only_ask(app: Ardiq) -> None:
    async def patient(ask: Ask) -> None:
        await ask(calls.counts())
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        at_once(core_of(app), patient)


def test_values_travel_as_json(app: Ardiq) -> None:
    assert json.loads(json.dumps(app.inspect.counts_sync()._asdict()))["ready"] == {}
