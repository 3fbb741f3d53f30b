"""Enqueueing: every path, every option, and what is refused before anything is sent."""

import asyncio
import json
import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from helpers import awaited, drain, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, Job, PreparedTask, WrongType
from ardiq.testing import inline


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    app = make_app(priorities=["low", "default", "high"])

    @app.task
    async def add(a: int, b: int = 10) -> int:
        return a + b

    return app


@pytest.fixture
def add(app: Ardiq) -> Any:
    return app.context.registry.tasks["add"].task


async def test_a_task_that_is_enqueued_runs(app: Ardiq, add: Any) -> None:
    job = await add.enqueue(1, b=2)
    assert isinstance(job, Job)
    assert job == Job(app, job.id)
    assert await job.status() == "queued"
    assert await app.queue_size() == 1
    await drain(app)
    result = await result_of(job)
    assert result.success
    assert result.value == 3
    assert result.tries == 1
    assert result.enqueue_time <= result.start <= result.finish
    assert result.duration_ms == result.finish - result.start
    assert not result.aborted
    assert await job.status() == "complete"
    assert await app.queue_size() == 0


async def test_ids_are_short_random_and_fit_everywhere(add: Any) -> None:
    jobs = await asyncio.gather(*(add.enqueue(i) for i in range(1000)))
    assert len({job.id for job in jobs}) == 1000
    assert all(len(job.id) == 20 and job.id.isalnum() and job.id == job.id.lower() for job in jobs)


async def test_enqueue_gives_what_every_way_of_waiting_takes(app: Ardiq, add: Any) -> None:
    jobs = [
        await add.enqueue(1),
        await asyncio.create_task(add.enqueue(2)),
        *await asyncio.gather(add.enqueue(3), add.options(priority="high").enqueue(4)),
        await asyncio.wait_for(add.enqueue(5), 5),
        await asyncio.shield(add.enqueue(6)),
        await asyncio.ensure_future(add.enqueue(10)),
        *[await each for each in asyncio.as_completed([add.enqueue(11), add.enqueue(12)])],
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(add.enqueue(13), asyncio.get_running_loop())),
    ]
    done, _ = await asyncio.wait([asyncio.create_task(add.enqueue(14)), asyncio.create_task(add.enqueue(15))])
    jobs += [task.result() for task in done]
    async with asyncio.timeout(5):
        jobs.append(await add.enqueue(16))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(add.enqueue(7)), group.create_task(app.send("add", 8))]
    jobs += [task.result() for task in tasks]
    add.enqueue(9)  # nobody waits: it is sent all the same
    await eventually(lambda: app.queue_size())
    assert len({job.id for job in jobs}) == 15
    await eventually(lambda: all_queued(app, 16))


async def all_queued(app: Ardiq, count: int) -> bool:
    return await app.queue_size() == count


def test_enqueue_can_be_called_before_there_is_a_loop(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    job = asyncio.run(app.ref("add").enqueue(1))
    assert asyncio.run(job.status()) == "queued"
    job = asyncio.run(app.ref("add").options(delay=60).enqueue(1))
    assert asyncio.run(job.status()) == "scheduled"


def test_an_enqueue_that_nobody_awaits_is_named(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    with pytest.warns(RuntimeWarning, match="coroutine 'add.enqueue' was never awaited"):
        app.ref("add").enqueue(1)


async def test_a_cancelled_enqueue_does_not_disturb_the_others(app: Ardiq, add: Any) -> None:
    first, second = add.enqueue(1), add.enqueue(2)
    first.cancel()
    job = await second
    assert await job.status() == "queued"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_cannot_be_bound_is_refused_at_enqueue(app: Ardiq, add: Any) -> None:
    for wrong in (
        lambda: add.enqueue(),
        lambda: add.enqueue(1, 2, 3),
        lambda: add.enqueue(1, c=3),
        lambda: add.enqueue(1, a=1),
        lambda: add.options(delay=1).enqueue(),
        lambda: app.enqueue_many([add.prepare(1), add.prepare()]),
        lambda: add.request(),
    ):
        with pytest.raises(TypeError, match="'add'"):
            await wrong()
        with pytest.raises(TypeError, match="'add'"):  # the second time as the first
            await wrong()
    assert await app.queue_size() == 0


async def test_a_reference_is_checked_as_far_as_the_task_is_known(app: Ardiq) -> None:
    job = await app.ref("sum").enqueue(1, 2, 3, c=4)
    info = await job.info()
    assert info is not None
    assert info.args == (1, 2, 3)
    assert info.kwargs == {"c": 4}
    with pytest.raises(TypeError, match="reference"):
        app.ref("sum")(1)
    reference = app.ref("sum", unique=True)

    @app.task(name="sum")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    calls: list[Callable[..., Any]] = [
        lambda *a, **k: reference.enqueue(*a, **k),
        lambda *a, **k: app.send("sum", *a, **k),
        lambda *a, **k: awaited(lambda: app.send_sync("sum", *a, **k)),
        lambda *a, **k: app.queue("other").send("sum", *a, **k),
        lambda *a, **k: app.enqueue_many([app.ref("sum").prepare(*a, **k)]),
    ]
    for send in calls:
        with pytest.raises(TypeError, match="task 'sum': too many positional arguments"):
            await send(1, 2, 3)
        with pytest.raises(TypeError, match=r"task 'sum': argument 'b' .*: Expected `int`, got `str`$"):
            await send(1, b="2")
    assert await app.queue_size() == 1


async def test_send_by_name(app: Ardiq) -> None:
    job = await app.send("add", 1, b=1)
    await drain(app)
    assert (await result_of(job)).value == 2


async def test_an_unknown_lane_is_refused_before_anything_is_sent(app: Ardiq, add: Any) -> None:
    elsewhere = add.options(priority="nowhere")
    for wrong in (
        lambda: elsewhere.enqueue(1),
        lambda: elsewhere.request(1),
        lambda: app.ref("add", priority="nowhere").enqueue(1),
        lambda: app.enqueue_many([add.prepare(1), elsewhere.prepare(2)]),
    ):
        with pytest.raises(ValueError, match="'nowhere' is not one of"):
            await wrong()
    assert await app.queue_size() == 0


async def test_the_lane_of_a_call_counts_and_not_that_of_its_task(app: Ardiq) -> None:
    elsewhere = app.ref("add", priority="nowhere").options(priority="default")
    await elsewhere.enqueue(1)
    await app.enqueue_many([elsewhere.prepare(1), elsewhere.prepare(2)])
    assert await app.queue_size() == 3


async def test_lanes_are_served_strictly_by_priority(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["low", "default", "high"], concurrency=1, prefetch=0)
    seen: list[str] = []

    @app.task(priority="low")
    async def note(lane: str) -> None:
        seen.append(lane)

    await app.enqueue_many(note.prepare("low") for _ in range(3))
    await app.enqueue_many(note.options(priority="default").prepare("default") for _ in range(3))
    await app.enqueue_many(note.options(priority="high").prepare("high") for _ in range(3))
    await drain(app)
    assert seen == ["high"] * 3 + ["default"] * 3 + ["low"] * 3


async def test_a_lane_is_first_in_first_out(app: Ardiq) -> None:
    seen: list[int] = []

    @app.task
    async def note(number: int) -> None:
        seen.append(number)

    await app.enqueue_many(note.prepare(i) for i in range(300))
    await drain(app)
    assert seen == list(range(300))


@pytest.mark.parametrize(
    "options",
    [
        {"delay_ms": 300_000},
        {"delay": 300},
        {"delay": 300.0},
        {"delay": timedelta(minutes=5)},
        {"at": lambda: datetime.now(UTC) + timedelta(minutes=5)},
        {"at": lambda: datetime.now(timezone(timedelta(hours=9))) + timedelta(minutes=5)},
        {"schedule_ms": lambda: int(time.time() * 1000) + 300_000},
    ],
)
async def test_a_delayed_task_is_scheduled(app: Ardiq, add: Any, options: dict[str, Any]) -> None:
    options = {name: value() if callable(value) else value for name, value in options.items()}
    before = time.time() * 1000
    job = await add.options(**options).enqueue(1)
    assert await job.status() == "scheduled"
    info = await job.info()
    assert info is not None
    assert info.status == "scheduled"
    assert info.scheduled_at is not None
    assert 295_000 < info.scheduled_at - before < 330_000
    assert await app.queue_size() == 1


async def test_a_delay_passes(app: Ardiq, add: Any) -> None:
    async with working(app):
        job = await add.options(delay_ms=150).enqueue(1)
        result = await result_of(job)
    assert result.start - result.enqueue_time >= 150


async def test_what_is_due_already_runs_at_once(add: Any) -> None:
    for options in ({"at": datetime.now(UTC) - timedelta(days=1)}, {"delay_ms": 0}, {"delay": 0}):
        job = await add.options(**options).enqueue(1)
        assert await job.status() == "queued"


async def test_an_expired_task_does_not_run(app: Ardiq) -> None:
    ran = []

    @app.task
    async def note() -> None:
        ran.append(1)

    job = await note.options(expire_ms=1).enqueue()
    kept = await note.options(expire=timedelta(minutes=1)).enqueue()
    await asyncio.sleep(0.05)
    await drain(app)
    result = await result_of(job)
    assert not result.success
    assert result.value == "expired"
    assert not result.aborted
    assert await job.status() == "complete"
    assert (await result_of(kept)).success
    assert ran == [1]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"task_id": 5}, TypeError),
        ({"task_id": "a\nb"}, ValueError),
        ({"priority": 5}, TypeError),
        ({"delay_ms": "5"}, TypeError),
        ({"delay_ms": 1.5}, TypeError),
        ({"schedule_ms": datetime.now(UTC)}, TypeError),
        ({"expire_ms": None}, TypeError),
        ({"unique": 1}, TypeError),
        ({"delay": "5s"}, TypeError),
        ({"delay": 1, "delay_ms": 1}, ValueError),
        ({"at": 12345}, TypeError),
        ({"at": datetime.now()}, ValueError),
        ({"at": datetime.now(UTC), "schedule_ms": 1}, ValueError),
        ({"expire": 0}, ValueError),
        ({"expire": 1, "expire_ms": 1}, ValueError),
        ({"timeout": 1}, TypeError),
    ],
)
def test_a_wrong_call_option_is_refused_by_name(
    make_app: Callable[..., Ardiq], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        make_app().ref("add").options(**options)


async def test_an_own_id_is_there_once(app: Ardiq, add: Any) -> None:
    first = await add.options(task_id="invoice-7").enqueue(1)
    again = await add.options(task_id="invoice-7").enqueue(2)
    assert first == again
    assert first.id == "invoice-7"
    assert await app.queue_size() == 1
    await drain(app)
    assert (await result_of(first)).value == 11  # the first call's
    await add.options(task_id="invoice-7").enqueue(3)  # it ended: the id is free
    assert await first.status() == "queued"
    await drain(app)
    assert (await result_of(first)).value == 13


async def test_an_empty_own_id_is_a_random_one(add: Any) -> None:
    assert (await add.options(task_id="").enqueue(1)).id


async def test_a_unique_call_is_there_once(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["low", "high"])
    other = make_app(priorities=["low", "high"], queue_name=app.queue_name)
    started = asyncio.Event()
    go_on = asyncio.Event()

    @app.task(unique=True)
    async def rebuild(shop: int, *, full: bool = False, depth: Any = 0) -> int:
        started.set()
        await go_on.wait()
        return shop

    first = await rebuild.enqueue(7, full=True, depth={"a": 1, "b": [2]})
    same = [
        await rebuild.enqueue(7, depth={"b": [2], "a": 1}, full=True),
        *await app.enqueue_many([rebuild.prepare(7, full=True, depth={"a": 1, "b": [2]})] * 2),
        await other.ref("rebuild", unique=True).enqueue(7, full=True, depth={"a": 1, "b": [2]}),
        await other.ref("rebuild").options(unique=True).enqueue(7, full=True, depth={"a": 1, "b": [2]}),
        await rebuild.options(priority="high").enqueue(7, full=True, depth={"a": 1, "b": [2]}),
    ]
    assert {job.id for job in same} == {first.id}
    assert first.id.startswith("unique:rebuild:")
    assert await app.queue_size() == 1
    assert (await rebuild.enqueue(8)).id != first.id
    assert (await rebuild.options(unique=False).enqueue(7, full=True)).id != first.id
    async with working(app):
        await started.wait()
        assert (await rebuild.enqueue(7, full=True, depth={"a": 1, "b": [2]})).id == first.id
        go_on.set()
        assert (await result_of(first)).value == 7
        again = await rebuild.enqueue(7, full=True, depth={"a": 1, "b": [2]})
        assert again.id == first.id
        assert (await result_of(again)).success
    assert is_sound(app)


async def test_what_differs_is_not_the_same_call(app: Ardiq) -> None:
    task = app.ref("task", unique=True)
    calls: list[tuple[Any, ...]] = [
        (1,),
        ("1",),
        (1.0,),
        (True,),
        (None,),
        ([1],),
        (b"1",),
        ("MQ==",),
        (1, 1),
        ({"a": 1},),
    ]
    ids = [(await task.enqueue(*call)).id for call in calls]
    ids += [(await task.enqueue(a=1)).id, (await app.ref("other", unique=True).enqueue(1)).id]
    assert len(set(ids)) == len(calls) + 2


async def test_enqueue_many_keeps_the_order(app: Ardiq, add: Any) -> None:
    calls = [add.prepare(i, b=0) for i in range(1200)]
    calls[5] = add.options(task_id="mine", priority="high", delay_ms=60_000).prepare(5)
    jobs = await app.enqueue_many(iter(calls))
    assert len(jobs) == 1200
    assert jobs[5].id == "mine"
    assert await jobs[5].status() == "scheduled"
    assert await app.queue_size() == 1200
    await drain(app)
    assert (await result_of(jobs[0])).value == 0
    assert (await result_of(jobs[1199])).value == 1199
    assert is_sound(app)


# What a task's record says of the call.
SENT = ("name", "args", "kwargs", "lane", "codec")


async def test_a_call_in_a_batch_is_sent_as_alone(app: Ardiq, add: Any) -> None:
    @app.task(unique=True)
    async def once(what: Any) -> None: ...

    def calls() -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        return [
            (add, (1, 2), {}),
            (add, (3,), {"b": 4}),
            (add.options(priority="low"), (5, 6), {}),
            (once, (1.5,), {}),
            (once, ((1, b"x"),), {}),
            (app.ref("add"), (7, 8), {}),
            (app.ref("unknown"), (), {}),
            (add, (9, 10), {}),
        ]

    def sent_of(job: Any) -> Any:
        return app.context.server.core.command(["HMGET", f"ardiq:{{{app.queue_name}}}:task:{job.id}", *SENT])

    alone = [await task.enqueue(*args, **kwargs) for task, args, kwargs in calls()]
    expected = [sent_of(job) for job in alone]
    for many in (app.enqueue_many, app.enqueue_many_sync):
        sent = many(task.prepare(*args, **kwargs) for task, args, kwargs in calls())
        jobs = sent if isinstance(sent, list) else await sent
        assert [sent_of(job) for job in jobs] == expected


async def test_enqueue_many_of_nothing(app: Ardiq) -> None:
    assert await app.enqueue_many([]) == []


async def test_enqueue_many_takes_prepared_calls_only(app: Ardiq, add: Any) -> None:
    with pytest.raises(TypeError, match="prepare"):
        await app.enqueue_many([add.prepare(1), 5])  # type: ignore[list-item]
    assert await app.queue_size() == 0


def test_a_prepared_call_tells_what_it_is(add: Any) -> None:
    call: PreparedTask = add.options(task_id="x", priority="low", delay_ms=1, expire_ms=3, unique=True).prepare(1, b=2)
    assert (call.name, call.args, call.kwargs) == ("add", (1,), {"b": 2})
    assert (call.task_id, call.priority, call.delay_ms) == ("x", "low", 1)
    assert (call.schedule_ms, call.expire_ms, call.unique) == (0, 3, True)
    assert add.options(schedule_ms=2).prepare().schedule_ms == 2
    plain: PreparedTask = add.prepare(1)
    assert (plain.task_id, plain.priority, plain.delay_ms, plain.unique) == (None, None, 0, False)


@pytest.mark.damages_keys
async def test_a_key_of_another_type_harms_one_call_only(app: Ardiq, add: Any) -> None:
    app.context.server.core.command(["SET", f"ardiq:{{{app.queue_name}}}:task:broken", "by hand"])
    with pytest.raises(WrongType, match="broken"):
        await add.options(task_id="broken").enqueue(1)
    with pytest.raises(WrongType) as caught:
        await app.enqueue_many([add.prepare(1), add.options(task_id="broken").prepare(2), add.prepare(3)])
    assert len(caught.value.jobs) == 2
    assert await app.queue_size() == 2


async def test_too_much_data_is_refused_before_it_is_sent(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    with pytest.raises(ValueError, match=r"'store' are 17,000,00\d bytes, over the limit of 16,777,216"):
        await app.send("store", "x" * 17_000_000)
    small = make_app(payload_limit=100)
    await small.send("store", "x" * 90)
    for wrong in ("x" * 100, b"x" * 100):
        with pytest.raises(ValueError, match="over the limit of 100"):
            await small.send("store", wrong)
        with pytest.raises(ValueError, match="over the limit of 100"):
            await small.enqueue_many([small.ref("store").prepare(1), small.ref("store").prepare(wrong)])
    assert await small.queue_size() == 1


async def test_what_redis_cli_shows(app: Ardiq, add: Any) -> None:
    job = await add.enqueue(1, b=2)
    assert field(app, job.id, "name") == "add"
    assert field(app, job.id, "args") == "[1]"
    assert field(app, job.id, "kwargs") == '{"b":2}'
    assert field(app, job.id, "codec") is None
    queues = await eventually(lambda: app.context.server.core.command(["SMEMBERS", "ardiq:queues"]))
    assert app.queue_name.encode() in queues


async def test_hooks_see_every_enqueue(app: Ardiq, add: Any) -> None:
    seen: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = []
    headers: list[Any] = []

    @app.on_enqueue
    def trace(context: Any) -> None:
        seen.append((context.task_id, context.name, context.args, dict(context.kwargs)))
        context.headers["trace"] = context.task_id

    @app.on_enqueue
    async def later(context: Any) -> None:
        await asyncio.sleep(0)
        context.headers["more"] = {"n": [1]}

    @app.middleware
    async def read(context: Any, call_next: Any) -> Any:
        headers.append(context.headers)
        return await call_next()

    jobs = [await add.enqueue(1, b=2), await app.send("add", 3), *await app.enqueue_many([add.prepare(4)])]
    jobs.append(await add.options(task_id="own", priority="high").enqueue(5))
    unique = await add.options(unique=True).enqueue(6)
    async with working(app):
        await add.request(7)
        for job in [*jobs, unique]:
            await result_of(job)
    assert [call[0] for call in seen[:5]] == [job.id for job in [*jobs, unique]]
    assert seen[0][1:] == ("add", (1,), {"b": 2})
    assert len(seen) == 6
    assert sorted(h["trace"] for h in headers) == sorted(call[0] for call in seen)
    assert all(h["more"] == {"n": [1]} for h in headers)


async def test_a_hook_may_change_keyword_arguments(app: Ardiq, add: Any) -> None:
    @app.on_enqueue
    def fill(context: Any) -> None:
        context.kwargs["b"] = 5

    job = await add.enqueue(1)
    await drain(app)
    assert (await result_of(job)).value == 6


async def test_a_hook_that_raises_fails_the_enqueue(app: Ardiq, add: Any) -> None:
    @app.on_enqueue
    def refuse(context: Any) -> None:
        raise PermissionError("not you")

    for attempt in (
        lambda: add.enqueue(1),
        lambda: app.send("add", 1),
        lambda: app.enqueue_many([add.prepare(1)]),
        lambda: add.request(1),
    ):
        with pytest.raises(PermissionError):
            await attempt()
    assert await app.queue_size() == 0


@pytest.mark.parametrize("name", ["ardiq-signature", "ardiq-packed"])
async def test_a_header_of_a_name_that_is_taken_is_refused(app: Ardiq, add: Any, name: str) -> None:
    app.on_enqueue(lambda context: context.headers.update({name: "mine"}))
    with pytest.raises(ValueError, match=f"header '{name}' of task 'add' is reserved by Ardiq"):
        await add.enqueue(1)
    assert await app.queue_size() == 0


async def test_headers_arrive_as_they_were_sent(app: Ardiq, add: Any) -> None:
    value: Any = None
    seen: list[Any] = []

    @app.on_enqueue
    def trace(context: Any) -> None:
        context.headers.update({"what": value, "signature": "mine"})

    @app.middleware
    async def look(context: Any, call_next: Any) -> Any:
        seen.append(context.headers)
        return await call_next()

    for wrong in ({1, 2}, object(), [timedelta]):
        value = wrong
        with pytest.raises(TypeError, match="header 'what' of task 'add'"):
            await add.enqueue(1)
    value = "x" * 16 * 1024**2
    with pytest.raises(ValueError, match="the headers of task 'add' are"):
        await add.enqueue(1)
    value = ["a", 1, None, {"b": 2.5}]
    job = await add.enqueue(1)
    assert json.loads(field(app, job.id, "headers") or "") == {"what": value, "signature": "mine"}
    sent = [value]
    for value in (b"x\xff", {1: float("inf")}, "\ud800", datetime.now(UTC)):
        sent.append(value)
        await add.enqueue(1)
    await drain(app)
    assert sorted(map(repr, seen)) == sorted(repr({"what": each, "signature": "mine"}) for each in sent)


@pytest.mark.parametrize("key", [None, b"k" * 16])
async def test_headers_pass_the_serializer(make_app: Any, key: bytes | None) -> None:
    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads, signing_key=key)
    sent = {"tuple": (1, {2}), 7: b"x"}
    seen: list[Any] = []
    app.on_enqueue(lambda context: context.headers.update(sent))

    @app.middleware
    async def look(context: Any, call_next: Any) -> Any:
        seen.append(context.headers)
        return await call_next()

    job = await app.task(name="nothing")(lambda: None).enqueue()
    assert "tuple" not in (field(app, job.id, "headers") or "")
    await drain(app)
    assert seen == [sent]


async def test_whether_a_task_of_the_id_existed(app: Ardiq) -> None:
    @app.task
    async def work(number: int = 0) -> None: ...

    mine = work.options(task_id="mine")
    unique = work.options(unique=True)
    assert [(await mine.enqueue()).existed for _ in range(2)] == [False, True]
    assert mine.enqueue_sync().existed
    assert [job.existed for job in await app.enqueue_many([mine.prepare(), work.prepare()])] == [True, False]
    assert [job.existed for job in app.enqueue_many_sync([unique.prepare(1), unique.prepare(1)])] == [False, True]
    assert (await unique.enqueue(1)).existed
    assert (await unique.enqueue(1)) == Job(app, (await unique.enqueue(1)).id), "it is no part of a job's identity"
    assert not (await work.enqueue()).existed
    await drain(app)
    assert not (await mine.enqueue()).existed, "one that has ended makes room"


async def test_whether_a_task_of_the_id_existed_inline(app: Ardiq) -> None:
    @app.task
    async def work() -> bool:
        return (await work.options(task_id="mine").enqueue()).existed

    async with inline(app):
        job = await work.options(task_id="mine").enqueue()
        assert not job.existed
        assert (await result_of(job)).value is True
