"""Calls as users write them, right and wrong, for type checkers; nothing here is run.

A right one must pass. A wrong one carries `type: ignore`, which is an error itself where the call is accepted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ardiq import (
    Ardiq,
    Attempt,
    Batch,
    BrokerError,
    Chunk,
    DeadLetter,
    DeadRecord,
    Debounce,
    EnqueueContext,
    ErrorContext,
    ExecutionContext,
    ItemErrors,
    Job,
    Limit,
    LimitInfo,
    Pause,
    PreparedTask,
    Process,
    Progress,
    Rate,
    RateLimited,
    Retry,
    Schedule,
    ScheduleOutcome,
    Snooze,
    Task,
    TaskContext,
    TaskError,
    TaskInfo,
    TaskMetrics,
    TaskResult,
    TaskUpdate,
    Throttle,
    Unique,
    current_task,
    emit,
)
from ardiq.django import enqueue_on_commit as django_commit
from ardiq.retries import ExponentialBackoff
from ardiq.sqlalchemy import enqueue_on_commit as session_commit
from ardiq.testing import Clock, all_enqueued, assert_enqueued, inline, no_server, on_server, worker

app = Ardiq("redis://localhost", "queue", ["low", "high"], default_priority="low", concurrency=4, prefetch=None)
Ardiq(concurrency="4")  # type: ignore[arg-type]
Ardiq(priorities="low")  # type: ignore[arg-type]
Ardiq(burst=1)  # type: ignore[arg-type]
Ardiq(durability="replicated")
Ardiq(durability="eternal")  # type: ignore[arg-type]
Ardiq(task_logs="info")
Ardiq(task_logs="loud")  # type: ignore[arg-type]
Ardiq(stall_after=2.5)
Ardiq(stall_after=None)
Ardiq(stall_after="5")  # type: ignore[arg-type]
Ardiq(colour="red")  # type: ignore[call-arg]


@app.task
async def fetch(url: str, *, retries: int = 3) -> bytes:
    return url.encode() * retries


@app.task(name="sum", max_retries=5, backoff_ms=100, timeout=1.5, priority="high", unique=True)
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(unique=Unique(until="start", key=["url"], on_conflict="reject"))
async def once(url: str) -> None: ...


@app.task(debounce=Debounce(quiet=5, most=timedelta(minutes=1), key=lambda url: url))
async def late(url: str) -> None: ...


@app.task(throttle=Throttle(per=timedelta(seconds=10), key=("url",), trailing=False))
def seldom(url: str) -> None: ...


Unique(until="end")  # type: ignore[arg-type]
Unique("start")  # type: ignore[call-arg]
Debounce()  # type: ignore[call-arg]
Throttle(per=1, trailing="no")  # type: ignore[arg-type]
app.task(unique="start")  # type: ignore[call-overload]


@app.task(executor="process", timeout=60)
def crunch(number: int) -> int:
    return number


@app.task()
async def nothing() -> None:
    raise Retry("later", delay_ms=5)


app.task(max_retries="5")  # type: ignore[call-overload]
app.task(executor="fiber")  # type: ignore[call-overload]
app.task(executor=Process(max_memory_mb=512, fresh=True))
app.cron("@daily", executor=Process(fresh=True))
Process(max_memory_mb="1 GB")  # type: ignore[arg-type]
app.task(colour="red")  # type: ignore[call-overload]
app.task("name")  # type: ignore[call-overload]


@app.task(batch=Batch(100, wait=2.0, key=lambda word: word[0]), limits=Limit(concurrency=1), timeout=60)
async def index(words: list[str]) -> list[int]:
    raise ItemErrors({0: Retry(), 1: ValueError("no")}, results=[1, 2])


@app.task(batch=Batch(10, wait=timedelta(seconds=1)))
def store(rows: Sequence[dict[str, int]]) -> None: ...


@app.task(batch=Batch(10, wait=0))
async def mail(letters: list[str]) -> None: ...


@app.task(batch=Batch(size=10, wait=0))
def measure(letters: list[str]) -> list[float] | None:
    return None


@app.task(batch=Batch(10, wait=0))
async def ask(letters: list[str]) -> list[float] | None:
    return None


@app.task(batch=Batch(10, wait=0))  # type: ignore[arg-type]
async def of_one(letter: str) -> None: ...


@app.task(batch=Batch(10, wait=0))  # type: ignore[arg-type]
async def of_two(letters: list[str], kind: str) -> None: ...


@app.task(batch=Batch(10, wait=0))  # type: ignore[arg-type]
async def not_each(letters: list[str]) -> int:
    return len(letters)


Batch(10)  # type: ignore[call-arg]
Batch("10", wait=1)  # type: ignore[arg-type]
Batch(10, wait="1s")  # type: ignore[arg-type]
Batch(10, wait=1, key="index")  # type: ignore[arg-type]
app.task(batch=10)  # type: ignore[call-overload]
app.task(batch=Batch(10, wait=1), executor="process")  # type: ignore[call-overload]
app.ref("index", batch=Batch(100, wait=2.0))
ItemErrors([ValueError()])  # type: ignore[arg-type]
ItemErrors({0: "no"})  # type: ignore[dict-item]


async def gathering() -> None:
    assert_type(await index.enqueue("word"), Job[int])
    assert_type(await (await index.enqueue("word")).value(timeout=5), int)
    assert_type(await index("word"), int)
    assert_type(await store.enqueue({"a": 1}), Job[None])
    assert_type(await mail.enqueue("letter"), Job[None])
    assert_type(await measure.enqueue("letter"), Job[float | None])
    assert_type(await ask.enqueue("letter"), Job[float | None])
    assert_type(await ask.request("letter"), float | None)
    assert_type(await app.enqueue_many(index.prepare(word) for word in "abc"), list[Job[int]])
    assert_type(index.options(delay=5).enqueue_sync("word"), Job[int])
    await index.enqueue(["word"])  # type: ignore[arg-type]
    await index.enqueue("word", "word")  # type: ignore[call-arg]
    await index.enqueue(words="word")  # type: ignore[call-arg]
    await store.enqueue({"a": "b"})  # type: ignore[dict-item]
    task = current_task()
    if task is not None:
        assert_type(task.batch, tuple[TaskContext, ...])


def is_a_task(task: Task[..., int]) -> str:
    return task.name


is_a_task(add)
is_a_task(nothing)  # type: ignore[arg-type]


async def calls() -> None:
    # Here and now.
    assert_type(add(1, 2), int)
    assert_type(await fetch("x", retries=1), bytes)
    add("1")  # type: ignore[arg-type]
    add()  # type: ignore[call-arg]

    # Onto the queue.
    assert_type(await add.enqueue(1), Job[int])
    assert_type(await add.enqueue(1, b=2), Job[int])
    assert_type(await fetch.enqueue("x", retries=1), Job[bytes])
    assert_type(await asyncio.create_task(add.enqueue(1)), Job[int])
    assert_type(await asyncio.wait_for(fetch.enqueue("x"), 1), Job[bytes])
    jobs = await asyncio.gather(add.enqueue(1), fetch.enqueue("x"))
    assert_type(jobs, tuple[Job[int], Job[bytes]])
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing.enqueue())
    await add.enqueue("1")  # type: ignore[arg-type]
    await add.enqueue()  # type: ignore[call-arg]
    await add.enqueue(1, 2, 3)  # type: ignore[call-arg]
    await add.enqueue(1, c=3)  # type: ignore[call-arg]
    await fetch.enqueue("x", 3)  # type: ignore[call-arg]
    await fetch.enqueue("x", retries="3")  # type: ignore[arg-type]
    await nothing.enqueue(1)  # type: ignore[call-arg]

    # With options.
    later = add.options(delay=timedelta(minutes=5), priority="low", expire=60.0, unique=False, task_id="x")
    assert_type(await later.enqueue(1), Job[int])
    await add.options(at=datetime.now(UTC), expire_ms=5).enqueue(1, 2)
    await add.options(delay_ms=5, schedule_ms=5, unique=None).enqueue(1)
    await later.enqueue("1")  # type: ignore[arg-type]
    assert_type(await add.options(queue="emails").enqueue(1), Job[int])
    assert_type(app.queue("emails"), Ardiq)
    add.options(delay_ms="5")  # type: ignore[arg-type]
    add.options(at="tomorrow")  # type: ignore[arg-type]
    add.options(delay="5s")  # type: ignore[arg-type]
    assert_type(await fetch.options(unique=Unique(), throttle=None).enqueue("x"), Job[bytes])
    add.options(debounce=Throttle(per=1))  # type: ignore[arg-type]
    add.options(colour="red")  # type: ignore[call-arg]

    # Many.
    assert_type(add.prepare(1), PreparedTask[int])
    assert_type(await app.enqueue_many(add.prepare(i) for i in range(3)), list[Job[int]])
    await app.enqueue_many([add.prepare(1), later.prepare(1), nothing.prepare()])
    add.prepare("1")  # type: ignore[arg-type]
    later.prepare()  # type: ignore[call-arg]
    await app.enqueue_many([add.enqueue(1)])  # type: ignore[arg-type]

    # Ask and wait.
    assert_type(await add.request(1, 2), int)
    assert_type(await add.request(1, b=2, timeout=5), int)
    assert_type(await fetch.request("x"), bytes)
    assert_type(await fetch.request("x", retries=1, timeout=None), bytes)
    assert_type(await fetch.options(priority="high").request("x"), bytes)
    assert_type(await nothing.request(), None)
    await add.request("1")  # type: ignore[call-overload]
    await fetch.request()  # type: ignore[call-overload]
    await add.request(1, timeout="5")  # type: ignore[call-overload]

    # By name, unchecked.
    assert_type(await app.send("anything", 1, a=2), Job)
    assert_type(await app.ref("anything", priority="low", unique=True).enqueue(1, a=2), Job)
    await app.send(5)  # type: ignore[arg-type]


async def questions(job: Job) -> None:
    assert_type(job.id, str)
    assert_type(job.app, Ardiq)
    assert_type(add.app, Ardiq)
    assert_type(await job.result(), TaskResult | None)
    assert_type(await job.result(timeout=5), TaskResult | None)
    assert_type(await app.result(job.id, 0.5), TaskResult | None)
    assert_type(await job.status(), str)
    assert_type(await (await fetch.enqueue("url")).value(timeout=5), bytes)
    assert_type(fetch.enqueue_sync("url").value_sync(timeout=None), bytes)
    assert_type(job.status_sync(), str)
    assert_type(job.info_sync(), TaskInfo | None)
    assert_type(job.abort_sync(), bool)
    assert_type(app.status_sync("id"), str)
    assert_type(app.info_sync("id"), TaskInfo | None)
    assert_type(app.abort_sync("id"), bool)
    await job.value(timeout="5")  # type: ignore[arg-type]
    assert_type(await job.info(), TaskInfo | None)
    assert_type(await job.abort(), bool)
    assert_type(await app.queue_size(), int)
    assert_type(await app.dead_letters(limit=5), list[DeadLetter])
    assert_type(await app.dead_count(), int)
    assert_type(await app.replay(job.id), Job | None)
    assert_type(await app.delete_dead(job.id), bool)
    assert_type(await app.dead.list(task="add", error="no", since=timedelta(hours=1)), list[DeadLetter])
    assert_type(await app.dead.show(job.id), DeadRecord | None)
    assert_type(await app.dead.requeue(job.id, args=[1, 2]), int)
    assert_type(await app.dead.requeue([job.id], rate=None), int)
    assert_type(await app.dead.requeue(all=True) + await app.dead.requeue(task="add", rate=5), int)
    assert_type(await app.dead.discard([job.id]) + await app.dead.purge(task="add"), int)
    await app.dead.requeue(7)  # type: ignore[arg-type]
    await app.dead.requeue(since=3600, until=0.5)
    await app.dead.requeue(since="1h")  # type: ignore[arg-type]
    await app.dead.purge(job.id)  # type: ignore[call-arg]
    assert_type(app.metrics(), list[TaskMetrics])
    assert_type(app.tasks, list[str])
    assert_type(current_task(), TaskContext | None)
    await job.result("5")  # type: ignore[arg-type]
    await app.status(5)  # type: ignore[arg-type]
    app.concurrency = 5  # type: ignore[misc]
    app.burst = True
    result = await job.result(timeout=5)
    if result is not None:
        assert_type(result.success, bool)
        assert_type(result.duration_ms, int)
        assert_type(result.aborted, bool)
        assert_type(result.expired or result.discarded, bool)
    try:
        await add.request(1)
    except TaskError as error:
        assert_type(error.result, TaskResult)
    except BrokerError as error:
        assert_type(error.maybe_enqueued, bool)
        assert_type([*error.jobs, *error.unsure], list[Job])


@app.lifespan
async def lifespan() -> AsyncIterator[dict[str, Any]]:
    yield {"db": 5}


@app.lifespan
async def bare_lifespan() -> AsyncIterator[None]:
    app.state.db = 5
    yield


@app.lifespan  # type: ignore[type-var]
async def wrong_lifespan() -> None: ...


@app.middleware
async def timing(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
    assert_type(context.headers, dict[str, Any])
    return await call_next()


@app.middleware  # type: ignore[type-var]
def wrong_middleware(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> int:
    return 1


@app.on_error
async def report(context: ErrorContext) -> None:
    assert_type(context.exc, BaseException)


@app.on_error
def report_at_once(context: ErrorContext) -> None:
    assert_type(context.will_retry, bool)


@app.on_error  # type: ignore[type-var]
def wrong_hook(context: int) -> None: ...


@app.on_enqueue
def trace(context: EnqueueContext) -> None:
    context.headers["trace"] = context.task_id


async def several_queues() -> None:
    await app.run(["emails", "reports"])
    await app.run({"emails": 3})
    await app.run(7)  # type: ignore[arg-type]


async def main() -> None:
    await app.run()
    app.stop()


@app.task(
    retry=ExponentialBackoff(base=0.5, cap=timedelta(minutes=5)), retry_on=OSError, give_up_on=(KeyError, ValueError)
)
async def partner(order: int) -> str:
    task = current_task()
    if task is not None:
        task.progress(0.5, "half")
        task.note(order=order)
        task.notes["order"] = task.meta["order"] = [order]
        assert_type(task.deadline, float | None)
        task.notes[5] = order  # type: ignore[index]
    raise Snooze(timedelta(minutes=5))


app.task(retry=[1, timedelta(seconds=5)], max_age=timedelta(hours=1))
app.task(retry=lambda tries, error: tries * 2.0)
app.task(retry=5)  # type: ignore[call-overload]
app.task(retry_on=5)  # type: ignore[call-overload]


@app.cron("0 6 * * mon-fri", tz="Europe/Berlin", coalesce=True)
async def nightly() -> None: ...


app.cron(every=timedelta(minutes=5), missed="once", executor="process", jitter=timedelta(seconds=30))
app.cron("@daily", jitter="30 s")  # type: ignore[arg-type]
app.cron(5)  # type: ignore[arg-type]
Ardiq(weights={"low": 1}, limits={"low": 2}, cron_poll_s=0.5)
Ardiq(weights=["low"])  # type: ignore[arg-type]


def blocking() -> None:
    assert_type(add.enqueue_sync(1, b=2), Job[int])
    add.enqueue_sync("1")  # type: ignore[arg-type]
    assert_type(add.request_sync(1, b=2), int)
    assert_type(fetch.request_sync("x", timeout=5), bytes)
    add.request_sync("1")  # type: ignore[call-overload]
    assert_type(django_commit(add.prepare(1), using="other", robust=True), Job)
    django_commit(add)  # type: ignore[arg-type]
    with Session() as session:
        assert_type(session_commit(session, add.prepare(1)), Job)
        session_commit(scoped_session(sessionmaker()), add.prepare(1))
        session_commit(AsyncSession(), add.prepare(1))
        session_commit(session, add)  # type: ignore[arg-type]
        session_commit(5, add.prepare(1))  # type: ignore[arg-type]
    assert_type(app.enqueue_many_sync([add.prepare(1)]), list[Job[int]])
    assert_type(app.send_sync("sum", 1).result_sync(timeout=5), TaskResult | None)


async def looking(job: Job) -> None:
    assert_type(await job.progress(), Progress | None)
    assert_type(await job.logs(limit=5), list[str])
    async for update in job.watch(timeout=5):
        assert_type(update, TaskUpdate)
        assert_type(update.progress, Progress | None)
    async for ended in Job[int](app, "id").watch():
        assert_type(ended, TaskUpdate[int])
        assert_type(ended.result, TaskResult[int] | None)
    assert_type(await anext(app.watch("id", timeout=5)), TaskUpdate)
    job.watch(timeout="5")  # type: ignore[arg-type]
    app.watch(5)  # type: ignore[arg-type]
    await job.watch()  # type: ignore[misc]
    async for chunk in job.stream(str, after="1-0", timeout=5):
        assert_type(chunk, Chunk[str])
        assert_type(chunk.value, str)
    async for plain in app.stream("id"):
        assert_type(plain.value, Any)
    for each in job.stream_sync(int):
        assert_type(each.value + each.tries + each.number, int)
    assert_type(await emit({"any": "thing"}), None)
    job.stream(str, timeout="5")  # type: ignore[call-overload]
    job.stream(str, "1-0")  # type: ignore[call-overload]
    assert_type(await job.history(), list[Attempt])
    assert_type(await app.pauses(), list[Pause])
    await app.pause()
    await app.pause(add)
    await app.pause("sum", argument={0: 42})
    await app.pause(argument={"a": 42})
    assert_type(app.pauses_sync(), list[Pause])
    app.pause_sync(add, argument={"a": 42})
    assert_type(app.resume_sync("sum", argument={0: 42}), bool)
    app.resume_sync(argument="a")  # type: ignore[arg-type]
    await app.pause(argument="a")  # type: ignore[arg-type]
    await app.pause(add, {"a": 42})  # type: ignore[call-arg]
    assert_type(await app.resume(add, argument={"a": 42}), bool)
    assert_type(await app.schedules.list(), list[Schedule])
    assert_type((await app.schedules.list())[0].last_outcome, ScheduleOutcome | None)
    await app.schedules.put("s", "sum", every=60, jitter=5.0)


async def testing() -> None:
    clock = Clock(datetime(2026, 3, 1, tzinfo=UTC))
    async with inline(app, clock=clock) as inlined:
        assert_type(inlined, Ardiq)
        assert_type(await clock.advance(minutes=5), list[Job])
        await clock.advance(timedelta(hours=1))
        await clock.advance("1h")  # type: ignore[arg-type]
        assert_type(await clock.advance_to(clock.now), list[Job])
    inline(app, clock=5)  # type: ignore[arg-type]
    with on_server(app, "embedded://") as redirected, worker(redirected, schedules=True) as running:
        running.wait_until_idle(timeout=5)
        running.stop()
    with on_server(app):  # type: ignore[call-arg]
        pass


async def typed_results(untyped: Job) -> None:
    job = await fetch.enqueue("x")
    result = await job.result(timeout=5)
    assert result is not None
    assert_type(result, TaskResult[bytes])
    assert_type(result.value, bytes)
    now = job.result_sync()
    if now is not None:
        assert_type(now.value, bytes)
    kept: Job = job  # of whatever its task returns
    numbers: Job[int] = await add.enqueue(1)
    wrong: Job[int] = job  # type: ignore[assignment]
    any_result = await untyped.result(timeout=5)
    if any_result is not None:
        assert_type(any_result.value, Any)
    mixed = await app.enqueue_many([add.prepare(1), fetch.prepare("x"), app.ref("anything").prepare()])
    print(kept, numbers, wrong, mixed)


def keep(jobs: dict[str, Job], results: list[TaskResult], calls: list[PreparedTask]) -> None: ...


def assertions() -> None:
    assert_type(assert_enqueued(fetch, "url", retries=3), TaskInfo)
    assert_enqueued(fetch, 7)  # type: ignore[arg-type]
    assert_enqueued(app.ref("any"), 7)
    assert_type(all_enqueued(app), list[TaskInfo])
    assert_type(all_enqueued(fetch), list[TaskInfo])
    with no_server():
        pass


Ardiq(task_defaults={"max_retries": 5, "timeout": 30}, imports=["shop.*.tasks"])
Ardiq(task_defaults={"max_retry": 5})  # type: ignore[arg-type]
Ardiq(task_defaults={"max_retries": "5"})  # type: ignore[arg-type]
app.cron("@daily", retry_on=ConnectionError, max_age=timedelta(hours=1))
app.task(max_retries="3")  # type: ignore[call-overload]

shared = app.limit("partner", rate=Rate(100, per=timedelta(minutes=1), burst=20))


@app.task(limits=[shared, Limit("customer", key="customer", cost=lambda order: order, concurrency=1)])
async def limited(customer: str, order: int) -> int:
    return order


app.task(limits=Limit(key=("customer", "order"), rate=Rate(0.5, per=1.0), weight=2.5))
app.cron("@daily", limits=shared)
app.ref("elsewhere", limits=[shared])
app.task(limits=["partner"])  # type: ignore[list-item]
app.limit("partner", rate=5)  # type: ignore[arg-type]
Limit("partner", 5)  # type: ignore[call-arg]
Rate(100)  # type: ignore[call-arg]
RateLimited(retry_after=timedelta(seconds=30), limit=shared, key=42)
RateLimited(30, "partner", "42", "429")
RateLimited("30")  # type: ignore[arg-type]


async def limits() -> None:
    assert_type(await limited.enqueue("a", 1), Job[int])
    await app.limits.put("customer(42)", concurrency=10)
    await app.limits.put(shared, rate=Rate(1, per=1))
    await app.limits.put(shared, 10)  # type: ignore[call-arg]
    assert_type(await app.limits.list(), list[LimitInfo])
    assert_type(await app.limits.buckets("customer"), list[LimitInfo])
    assert_type(await app.limits.show("partner"), LimitInfo | None)
    assert_type(app.limits.remove_sync("partner"), bool)
    assert_type(app.limits["low"], int)
