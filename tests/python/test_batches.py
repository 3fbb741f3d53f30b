"""Batches on a real server: which calls come into one execution, and what becomes of each of them."""

import asyncio
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, result_of, stranger, working
from pydantic import BaseModel

from ardiq import (
    Ardiq,
    Batch,
    ErrorContext,
    ExecutionContext,
    ItemErrors,
    Job,
    Limit,
    Rate,
    RateLimited,
    Retry,
    Snooze,
    Unique,
    current_task,
)
from ardiq.testing import assert_enqueued

LONG_S = 3600.0
"""For a batch that only its size may start."""


async def values(*jobs: Job) -> list[Any]:
    """The results of jobs; what a failed one says starts with its error."""
    return [(await result_of(job)).value for job in jobs]


def doubling(app: Ardiq, batch: Batch, **options: Any) -> tuple[Any, list[list[int]]]:
    """A task that doubles numbers, and the lists that its executions got."""
    got: list[list[int]] = []

    @app.task(batch=batch, **options)
    async def double(numbers: list[int]) -> list[int]:
        got.append(numbers)
        return [2 * number for number in numbers]

    return double, got


async def test_a_full_batch_starts_at_once(app: Ardiq) -> None:
    double, got = doubling(app, Batch(3, wait=LONG_S))
    async with working(app):
        jobs = [await double.enqueue(number) for number in range(6)]
        assert await values(*jobs) == [0, 2, 4, 6, 8, 10]
        assert got == [[0, 1, 2], [3, 4, 5]]
        waits = await double.enqueue(6)
        assert await waits.status() == "limited"
        assert field(app, waits.id, "buckets") == "#double"
        assert await waits.abort()
    assert is_sound(app)


async def test_others_start_when_the_first_has_waited(app: Ardiq) -> None:
    double, got = doubling(app, Batch(100, wait=0.2))
    async with working(app):
        jobs = await app.enqueue_many(double.prepare(number) for number in range(7))
        assert await values(*jobs) == [2 * number for number in range(7)]
    assert got == [list(range(7))]


async def test_what_never_waits_takes_what_is_there(app: Ardiq) -> None:
    double, got = doubling(app, Batch(5, wait=0))
    jobs = await app.enqueue_many(double.prepare(number) for number in range(12))
    await drain(app)
    assert await values(*jobs) == [2 * number for number in range(12)]
    assert got == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


async def test_a_batch_has_one_key(app: Ardiq) -> None:
    got: list[list[tuple[str, int]]] = []

    @app.task(batch=Batch(3, wait=LONG_S, key=lambda item: item[0]))
    async def work(items: list[tuple[str, int]]) -> None:
        got.append(items)

    async with working(app):
        jobs = await app.enqueue_many(work.prepare((f"k{number % 4}", number)) for number in range(12))
        assert await values(*jobs) == [None] * 12
    assert sorted(got) == [[(f"k{key}", number) for number in range(key, 12, 4)] for key in range(4)]
    assert is_sound(app)


async def test_a_batch_has_the_same_limits_and_counts_once_for_them(app: Ardiq) -> None:
    """Ten at a time for each tenant: of executions, of which there are just two for each."""
    running: dict[str, int] = defaultdict(int)
    most: dict[str, int] = defaultdict(int)

    @app.task(batch=Batch(10, wait=0.05), limits=Limit("tenant", key=lambda item: item[0], concurrency=1))
    async def work(items: list[tuple[str, int]]) -> None:
        [tenant] = {tenant for tenant, _ in items}
        running[tenant] += 1
        most[tenant] = max(most[tenant], running[tenant])
        await asyncio.sleep(0.02)
        running[tenant] -= 1

    jobs = await app.enqueue_many(work.prepare((f"t{number % 2}", number)) for number in range(40))
    async with working(app):
        await values(*jobs)
    assert most == {"t0": 1, "t1": 1}
    assert await app.limits.buckets() == []
    assert is_sound(app)


async def test_a_rate_counts_executions(app: Ardiq) -> None:
    """One start an hour: the whole of a batch is one."""
    double, got = doubling(app, Batch(20, wait=LONG_S), limits=Limit("hourly", rate=Rate(1, per=3600)))
    async with working(app):
        jobs = await app.enqueue_many(double.prepare(number) for number in range(20))
        assert await values(*jobs) == [2 * number for number in range(20)]
        more = await app.enqueue_many(double.prepare(number) for number in range(20))
        assert (await app.limits.show("hourly")).opens_at  # type: ignore[union-attr]
        assert {await job.status() for job in more} == {"limited"}
    assert len(got) == 1


async def test_a_batch_takes_one_slot_of_a_worker(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=1)
    running, most = 0, 0

    @app.task(batch=Batch(100, wait=LONG_S))
    async def work(numbers: list[int]) -> list[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return numbers

    jobs = await app.enqueue_many(work.prepare(number) for number in range(300))
    async with working(app):
        assert await values(*jobs) == list(range(300))
    assert most == 1


async def test_each_item_ends_by_its_own_error(app: Ardiq) -> None:
    told: list[tuple[str, str, int, bool]] = []
    tries: Counter[str] = Counter()

    @app.on_error
    def hear(failure: ErrorContext) -> None:
        told.append((failure.task_id, repr(failure.exc), failure.tries, failure.will_retry))

    @app.task(batch=Batch(5, wait=0.1), max_retries=1, backoff_ms=1, give_up_on=KeyError)
    async def work(items: list[str]) -> list[str]:
        tries.update(items)
        errors: dict[int, BaseException] = {}
        for at, item in enumerate(items):
            if item == "twice":
                errors[at] = ValueError(item)
            elif item == "never":
                errors[at] = KeyError(item)
            elif item == "later" and tries[item] == 1:
                errors[at] = Retry(delay_ms=1)
            elif item == "snoozed" and tries[item] == 1:
                errors[at] = Snooze(0.001)
        raise ItemErrors(errors, results=[item.upper() for item in items])

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, ["good", "twice", "never", "later", "snoozed"]))
        results = [await result_of(job) for job in jobs]
        counted = {each.fn_name: each for each in app.metrics()}["work"]
    assert [result.value for result in results] == [
        "GOOD",
        "ValueError('twice')",
        "KeyError('never')",
        "LATER",
        "SNOOZED",
    ]
    assert [result.success for result in results] == [True, False, False, True, True]
    assert [result.tries for result in results] == [1, 2, 1, 2, 1]
    assert tries == Counter(good=1, twice=2, never=1, later=2, snoozed=2)
    assert sorted(told) == sorted(
        [
            (jobs[1].id, "ValueError('twice')", 1, True),
            (jobs[1].id, "ValueError('twice')", 2, False),
            (jobs[2].id, "KeyError('never')", 1, False),
        ]
    )
    assert (counted.succeeded, counted.failed, counted.retried) == (3, 2, 3)
    assert {letter.task_id for letter in await app.dead.list()} == {jobs[1].id, jobs[2].id}
    assert is_sound(app)


async def test_what_is_tried_again_gathers_with_others(app: Ardiq) -> None:
    got: list[list[int]] = []

    @app.task(batch=Batch(2, wait=LONG_S), backoff_ms=1)
    async def work(items: list[int]) -> None:
        got.append(items)
        if len(got) == 1:
            raise ItemErrors({1: ValueError("once more")})

    async with working(app):
        first = await app.enqueue_many(map(work.prepare, [0, 1]))
        assert await values(first[0]) == [None]
        await eventually(lambda: is_state(app, first[1].id, "limited"))  # after its backoff
        third = await work.enqueue(2)
        assert await values(first[1], third) == [None, None]
    assert got == [[0, 1], [1, 2]]


async def test_an_error_of_the_execution_is_that_of_each_item(app: Ardiq) -> None:
    depths: list[int] = []

    @app.on_error
    def hear(failure: ErrorContext) -> None:
        depths.append(len(list(traceback.walk_tb(failure.exc.__traceback__))))

    @app.task(batch=Batch(3, wait=LONG_S), max_retries=0)
    async def work(items: list[int]) -> None:
        raise ValueError(f"all of {items}")

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, range(3)))
        assert await values(*jobs) == ["ValueError('all of [0, 1, 2]')"] * 3
    for letter in [await app.dead.show(job.id) for job in jobs]:
        assert letter is not None
        assert letter.traceback.count("raise ValueError") == 1
        assert "ardiq/_execution" not in letter.traceback
    assert len(set(depths)) == 1, "each item adds to the one exception's traceback"


@pytest.mark.parametrize(
    ("give", "says"),
    [
        ([1, 2], "TypeError('a batch of 3 returns a list of 3 results or None, not a list of 2')"),
        ([1, 2, 3, 4], "TypeError('a batch of 3 returns a list of 3 results or None, not a list of 4')"),
        ("abc", "TypeError('a batch of 3 returns a list of 3 results or None, not str')"),
        ({0: 1}, "TypeError('a batch of 3 returns a list of 3 results or None, not dict')"),
        (ItemErrors({3: ValueError()}), "ItemErrors has an error for item 3, but this batch has the items 0 to 2"),
        (ItemErrors({0: ValueError()}, [1]), "a batch of 3 returns a list of 3 results or None, not a list of 1"),
    ],
    ids=["short", "long", "text", "dict", "range", "results"],
)
async def test_wrong_results_fail_all(app: Ardiq, give: Any, says: str) -> None:
    @app.task(batch=Batch(3, wait=LONG_S), max_retries=0)
    async def work(items: list[int]) -> list[int]:
        if isinstance(give, ItemErrors):
            raise give
        return give  # type: ignore[no-any-return]

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, range(3)))
        for value in await values(*jobs):
            assert says in value


async def test_a_result_that_cannot_be_sent_fails_its_item_alone(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S))
    async def work(items: list[int]) -> list[Any]:
        return [1, object()]

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, range(2)))
        good, bad = await values(*jobs)
    assert good == 1
    assert "InvalidResult" in bad


async def test_an_item_that_cannot_be_read_fails_alone(app: Ardiq) -> None:
    """Be it the first one, whose slots are those of the batch: it ends when the others have."""
    release, got, hooked = asyncio.Event(), list[list[int]](), list[str]()

    @app.on_error
    def hear(failure: ErrorContext) -> None:
        hooked.append(failure.task_id)

    @app.task(batch=Batch(4, wait=LONG_S), limits=Limit("one", concurrency=1))
    async def work(items: list[int]) -> list[int]:
        got.append(items)
        await release.wait()
        return items

    with stranger(app) as other:
        unchecked = other.ref("work", batch=Batch(4, wait=LONG_S), limits=Limit("one", concurrency=1))
        jobs = [await unchecked.enqueue(item) for item in ("text", 1, "text", 2)]
        async with working(app):
            await eventually(lambda: got)
            more = [await unchecked.enqueue(item) for item in (3, 4, 5, 6)]
            assert [await app.status(job.id) for job in jobs] == ["running"] * 4
            assert (await app.limits.show("one")).running == 1  # type: ignore[union-attr]
            assert got == [[1, 2]]
            release.set()
            results = [await app.result(job.id, SOON_S) for job in (*jobs, *more)]
    assert [result.success for result in results if result] == [False, True, False, True, *[True] * 4]
    assert "does not fit its annotation: Expected `int`, got `str`" in str(results[0] and results[0].value)
    assert got == [[1, 2], [3, 4, 5, 6]]
    assert sorted(hooked) == sorted([jobs[0].id, jobs[2].id])
    assert is_sound(app)


async def test_only_what_cannot_be_read_runs_nothing(app: Ardiq) -> None:
    _, got = doubling(app, Batch(2, wait=LONG_S))
    with stranger(app) as other:
        unchecked = other.ref("double", batch=Batch(2, wait=LONG_S))
        jobs = [await unchecked.enqueue("text") for _ in range(2)]
        async with working(app):
            results = [await app.result(job.id, SOON_S) for job in jobs]
    assert [result and result.success for result in results] == [False, False]
    assert got == []


async def test_a_wrong_signature_fails_its_item_alone(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key="a key of sixteen and more", takes_unsigned=False)
    double, got = doubling(app, Batch(3, wait=LONG_S))
    with stranger(app, signing_key="another key of that size") as other:
        forged = await other.ref("double", batch=Batch(3, wait=LONG_S)).enqueue(7)
        async with working(app):
            jobs = [await double.enqueue(number) for number in (1, 2)]
            assert await values(*jobs) == [2, 4]
            result = await app.result(forged.id, SOON_S)
    assert got == [[1, 2]]
    assert "BadSignature" in str(result and result.value)


@dataclass
class Point:
    x: int


class Model(BaseModel):
    x: int


async def test_items_and_results_travel_as_their_types(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S))
    async def move(points: list[Point]) -> list[Model]:
        return [Model(x=point.x + 1) for point in points]

    async with working(app):
        jobs = [await move.enqueue(Point(1)), await move.enqueue(Point(2))]
        assert await values(*jobs) == [Model(x=2), Model(x=3)]


async def test_items_of_ten_megabytes(app: Ardiq) -> None:
    @app.task(batch=Batch(3, wait=LONG_S))
    async def measure(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    async with working(app):
        jobs = [await measure.enqueue("x" * (10_000_000 + number)) for number in range(3)]
        assert await values(*jobs) == [10_000_000, 10_000_001, 10_000_002]


async def test_a_serializer_of_ones_own_and_no_results(make_app: Callable[..., Ardiq]) -> None:
    import pickle

    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads, result_ttl_ms=0)
    got: list[list[complex]] = []

    @app.task(batch=Batch(3, wait=LONG_S))
    async def work(items: list[Any]) -> list[Any]:
        got.append(items)
        return items

    async with working(app):
        assert await asyncio.gather(*(work.request(number * 1j) for number in range(3))) == [0, 1j, 2j]
        assert got[0] == [0, 1j, 2j]


async def test_equal_calls_are_one_item(app: Ardiq) -> None:
    double, got = doubling(app, Batch(3, wait=LONG_S), unique=Unique(key=lambda number: number % 10))
    async with working(app):
        jobs = await app.enqueue_many(map(double.prepare, [1, 11, 2, 21, 3]))
        assert [job.existed for job in jobs] == [False, True, False, True, False]
        assert await values(*jobs) == [2, 2, 4, 2, 6]
    assert got == [[1, 2, 3]]


async def test_the_running_task_is_that_of_the_first_item_and_knows_the_others(app: Ardiq) -> None:
    @app.task(batch=Batch(2, wait=LONG_S), timeout=60)
    async def work(items: list[str]) -> None:
        task = current_task()
        assert task is not None
        assert task.batch[0] == task
        assert task.deadline is not None
        assert not task.cancelled()
        task.progress(0.5, "half")
        for item, each in zip(items, task.batch, strict=True):
            each.note(item=item, tries=each.tries)
            each.log(f"item {item}")
        assert task.batch[1].batch == ()

    async with working(app):
        jobs = [await work.enqueue("a"), await work.enqueue("b")]
        await values(*jobs)
        for job, item in zip(jobs, "ab", strict=True):
            assert await job.notes() == {"item": item, "tries": 1}
            assert await job.logs() == [f"item {item}"]
    assert await jobs[0].progress() == (0.5, "half")
    assert await jobs[1].progress() is None


async def test_a_middleware_is_around_the_execution(app: Ardiq) -> None:
    seen: list[ExecutionContext] = []

    @app.on_enqueue
    def add_header(call: Any) -> None:
        call.headers["of"] = call.args[0]

    @app.middleware
    async def around(execution: ExecutionContext, call_next: Any) -> Any:
        seen.append(execution)
        return await call_next()

    double, _ = doubling(app, Batch(3, wait=LONG_S))
    async with working(app):
        jobs = await app.enqueue_many(map(double.prepare, [1, 2, 3]))
        assert await values(*jobs) == [2, 4, 6]
    assert seen == [ExecutionContext(jobs[0].id, "double", 1, ([1, 2, 3],), {}, {"of": 1})]


async def test_the_first_limit_of_an_item_that_is_rate_limited_closes(app: Ardiq) -> None:
    got: list[list[int]] = []
    partner = app.limit("partner", concurrency=3)

    @app.task(batch=Batch(2, wait=0.05), limits=partner)
    async def work(items: list[int]) -> list[int]:
        got.append(items)
        if len(got) == 1:
            raise ItemErrors({1: RateLimited(0.2)}, results=items)
        return items

    @app.task(batch=Batch(2, wait=0.05))
    async def unlimited(items: list[int]) -> None:
        if current_task().tries and not got:  # type: ignore[union-attr]
            got.append([])
            raise RateLimited(0.01)

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, [1, 2]))
        assert await values(*jobs) == [1, 2]
        assert got == [[1, 2], [2]]
        got.clear()
        result = await result_of(await unlimited.enqueue(1))
        assert (result.success, result.tries, got) == (True, 1, [[]])  # a batch is no limit that could be closed
    assert is_sound(app)


async def test_a_worker_that_waits_for_nothing_leaves_what_gathers(app: Ardiq) -> None:
    double, got = doubling(app, Batch(3, wait=LONG_S))
    jobs = await app.enqueue_many(map(double.prepare, range(4)))
    await drain(app)
    assert await values(*jobs[:3]) == [0, 2, 4]
    assert (await jobs[3].status(), got) == ("limited", [[0, 1, 2]])


async def test_a_task_of_another_queue_and_a_delayed_one_gather_too(app: Ardiq) -> None:
    double, got = doubling(app, Batch(2, wait=LONG_S))
    async with working(app):
        jobs = [await double.options(delay=0.01).enqueue(1), await app.send("double", 2)]
        assert await values(*jobs) == [2, 4]
    assert sorted(got[0]) == [1, 2]


def test_a_call_can_be_found_by_its_item(app: Ardiq) -> None:
    double, _ = doubling(app, Batch(2, wait=LONG_S))
    double.enqueue_sync(5)
    assert_enqueued(double, 5)
    with pytest.raises(AssertionError):
        assert_enqueued(double, 6)


async def test_what_was_enqueued_without_the_batch_is_one_of_its_own(app: Ardiq) -> None:
    double, got = doubling(app, Batch(2, wait=LONG_S))
    with stranger(app) as other:
        alone = await other.ref("double").enqueue(1)
        async with working(app):
            jobs = await app.enqueue_many(map(double.prepare, [2, 3]))
            assert await values(*jobs) == [4, 6]
            result = await app.result(alone.id, SOON_S)
    assert result is not None
    assert result.value == 2
    assert sorted(got) == [[1], [2, 3]]


async def test_a_schedule_adds_an_item(app: Ardiq) -> None:
    _, got = doubling(app, Batch(2, wait=LONG_S))
    await app.schedules.put("often", "double", every=0.05, args=[7])
    async with working(app):
        await eventually(lambda: got)
        await app.schedules.remove("often")
    assert got[0] == [7, 7]


async def test_a_dead_letter_gathers_when_it_is_run_again(app: Ardiq) -> None:
    got: list[list[int]] = []

    @app.task(batch=Batch(2, wait=LONG_S), max_retries=0)
    async def work(items: list[int]) -> None:
        got.append(items)
        if len(got) == 1:
            raise ValueError

    async with working(app):
        jobs = await app.enqueue_many(map(work.prepare, [1, 2]))
        assert [result.success for result in [await result_of(job) for job in jobs]] == [False, False]
        await app.dead.requeue(all=True)
        assert await values(*jobs) == [None, None]
    assert [sorted(items) for items in got] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("kind", ["async", "def"])
async def test_a_worker_whose_code_has_no_batch_runs_the_items_one_by_one(
    app: Ardiq, make_app: Callable[..., Ardiq], kind: str
) -> None:
    old = make_app(queue_name=app.queue_name)

    async def on_the_loop(number: int) -> int:
        return number

    def on_a_thread(number: int) -> int:
        return number

    old.task(name="work")(on_the_loop if kind == "async" else on_a_thread)
    work = app.ref("work", batch=Batch(3, wait=LONG_S))
    jobs = [await work.enqueue(number) for number in range(3)]
    async with working(old):
        assert await values(*jobs) == [0, 1, 2]
    assert is_sound(app)


async def test_a_batch_of_a_task_that_a_worker_does_not_have_waits_for_one_that_has(
    app: Ardiq, make_app: Callable[..., Ardiq]
) -> None:
    other = make_app(queue_name=app.queue_name)
    double, _ = doubling(app, Batch(3, wait=LONG_S))
    jobs = [await double.enqueue(number) for number in range(3)]
    async with working(other):
        await eventually(lambda: is_state(app, jobs[2].id, "scheduled"))
        assert {await job.status() for job in jobs} == {"scheduled"}
    await asyncio.gather(*(job.abort() for job in jobs))
    await drain(app)
    assert is_sound(app)
