"""Steps, sleeps and waits: what an attempt did is kept, and a task that waits holds no worker."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from helpers import drain, eventually, field, is_state, result_of, working

from ardiq import (
    Ardiq,
    Batch,
    ErrorContext,
    ExecutionContext,
    Received,
    Retry,
    Signal,
    Suspend,
    context,
    current_task,
    sleep,
    sleep_sync,
    step,
    step_key,
    step_sync,
    version,
    wait_for,
    wait_for_sync,
)

approval = Signal("approval", bool)
budget = Signal("budget", int)
LONG = timedelta(days=3)


@dataclass
class Point:
    x: int
    on: date


async def waits(app: Ardiq, task_id: str, name: str = "wait_for:approval") -> None:
    """Until the task waits under that name."""
    await eventually(lambda: field(app, task_id, "waits_for") == name)


async def error_of(app: Ardiq, task: Any, *args: Any) -> str:
    """What a task fails with, at its first attempt."""
    job = await task.enqueue(*args)
    await drain(app)
    result = await result_of(job)
    assert (result.success, result.tries) == (False, 1)
    return str(result.value)


async def test_a_step_that_was_done_is_not_done_again(app: Ardiq) -> None:
    done: list[Any] = []

    async def locate(x: int, *, on: date) -> Point:
        done.append((x, on))
        return Point(x, on)

    def double(x: int) -> int:
        done.append(threading.current_thread().name)
        return 2 * x

    @app.task(backoff_ms=1)
    async def work() -> str:
        point = await step("locate", locate, 3, on=date(2026, 11, 30))
        doubled = await step("double", double, point.x)
        nothing = await step("nothing", lambda: None)
        if len(done) < 3:
            done.append("fails")
            raise Retry(delay=0)
        return f"{point} {doubled} {nothing}"

    job = await work.enqueue()
    await drain(app)
    assert (await result_of(job)).value == f"{Point(3, date(2026, 11, 30))} 6 None"
    assert done == [(3, date(2026, 11, 30)), "ardiq-call-1", "fails"]
    assert await job.history() != []


@pytest.mark.parametrize(
    "value",
    [None, 0, "text", b"bytes", [1, {"a": None}], (1, 2), datetime(2026, 11, 30, tzinfo=UTC), Point(1, date.min)],
)
async def test_an_earlier_result_is_what_was_returned(app: Ardiq, value: Any) -> None:
    def give() -> Any:
        return value

    give.__annotations__["return"] = type(value)
    got: list[Any] = []

    @app.task(backoff_ms=1)
    async def work() -> None:
        got.append(await step("give", give))
        if len(got) < 2:
            raise Retry(delay=0)

    job = await work.enqueue()
    await drain(app)
    assert (await result_of(job)).success
    assert got == [value, value]
    assert type(got[1]) is type(value)


async def test_a_result_that_cannot_be_kept_fails_the_task(app: Ardiq) -> None:
    results: dict[str, Any] = {"strange": object(), "large": "x" * (1 << 20), "wrong": "no number"}

    def number() -> int:
        number: int = results["wrong"]
        return number

    @app.task
    async def work(name: str) -> None:
        await step("give", number if name == "wrong" else lambda: results[name])

    for name, why in (
        ("strange", "result of step 'give' of task 'work' (id "),
        ("large", "1,048,578 bytes, over the limit of 1,048,576: store large data elsewhere"),
        ("wrong", "does not fit its annotation: Expected `int`, got `str`"),
    ):
        error = await error_of(app, work, name)
        assert error.startswith("InvalidResult("), error
        assert why in error, error


async def test_an_earlier_result_that_no_longer_fits_names_the_step(app: Ardiq) -> None:
    def old() -> str:
        return "twelve"

    def new() -> int:
        return 12

    versions: list[Callable[[], Any]] = [old, new]

    @app.task(backoff_ms=1)
    async def work() -> None:
        await step("price", versions.pop(0))
        if versions:
            raise Retry(delay=0)

    job = await work.enqueue()
    await drain(app)
    error = str((await result_of(job)).value)
    assert "InvalidResult(" in error
    assert f"the result of step 'price' of task 'work' (id {job.id}) does not fit its annotation" in error
    assert "an earlier attempt stored it; rename the step" in error
    assert await app.dead_count() == 1


async def test_one_name_is_one_thing(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def twice(first: str) -> list[Any]:
        found = [await step("page", lambda at=at: at) for at in range(3)]  # type: ignore[misc]
        if first:
            await (sleep("page", 5) if first == "sleep" else version("page", 1))
        return found

    job = await twice.enqueue("")
    await drain(app)
    assert (await result_of(job)).value == [0, 1, 2]
    assert "'page' of task 'twice' is used for two things, step and sleep: rename one" in await error_of(
        app, twice, "sleep"
    )


async def test_a_wait_that_became_a_step(app: Ardiq) -> None:
    calls: list[str] = []

    @app.task(max_retries=0)
    async def changed() -> None:
        calls.append("again")
        if len(calls) == 1:
            await sleep("pause", 2.5)
        await step("pause", calls.append, "no")

    job = await changed.enqueue()
    async with working(app):
        error = str((await result_of(job)).value)
    assert f"step 'pause' of task 'changed' (id {job.id}): an earlier attempt waited under this name" in error
    assert calls == ["again", "again"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "must not be empty"),
        (1, "must be a str, not int"),
        ("a#2", "must not contain '#'"),
        ("a\nb", "control characters"),
        ("é" * 101, "at most 200 bytes"),
    ],
)
async def test_a_name_that_cannot_be(app: Ardiq, name: Any, why: str) -> None:
    @app.task(max_retries=0)
    async def work(of: Any) -> None:
        await step(of, lambda: None)

    assert why in await error_of(app, work, name)


async def test_outside_of_a_task(app: Ardiq) -> None:
    with pytest.raises(RuntimeError, match="step is for a running task: call it in a function that a worker runs"):
        await step("a", lambda: None)
    with pytest.raises(RuntimeError, match="wait_for is for a running task"):
        await wait_for(approval)
    with pytest.raises(RuntimeError, match="step_sync would block the event loop: use `await step"):
        step_sync("a", lambda: None)
    with pytest.raises(RuntimeError, match="is for a function that runs as a step"):
        step_key()
    with pytest.raises(RuntimeError, match="sleep_sync is for a running task"):
        await asyncio.to_thread(sleep_sync, "a", 1)

    @app.task(max_retries=0, batch=Batch(2, wait=0))
    async def gathered(items: list[int]) -> None:
        await step("a", lambda: None)

    assert "step in task 'gathered', which has a batch" in await error_of(app, gathered, 1)


async def test_nothing_is_within_a_step(app: Ardiq) -> None:
    inner: dict[str, Callable[[], Awaitable[Any]]] = {
        "step": lambda: step("inner", lambda: None),
        "sleep": lambda: sleep("inner", 1),
        "wait_for": lambda: wait_for(approval),
        "version": lambda: version("inner", 1),
    }

    @app.task(max_retries=0)
    async def work(name: str) -> None:
        await step("outer", inner[name])

    for name in inner:
        assert f"{name} within the step 'outer': call it in the task itself" in await error_of(app, work, name)


async def test_the_key_of_a_step_is_the_same_in_each_attempt(app: Ardiq) -> None:
    keys: list[str] = []

    async def charge() -> str:
        keys.append(step_key())
        if len(keys) == 1:
            raise ConnectionError("the bank is away")
        return keys[-1]

    @app.task(backoff_ms=1)
    async def work() -> str:
        return await step("charge", charge)

    job = await work.options(task_id="order-7").enqueue()
    async with working(app):
        assert (await result_of(job)).value == "order-7/charge"
    assert keys == ["order-7/charge", "order-7/charge"]


async def test_a_task_that_waits_holds_no_worker(make_app: Callable[..., Ardiq]) -> None:
    app, seen, held = make_app(concurrency=1), list[Any](), list[Any]()

    @app.middleware
    async def around(execution: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call_next()
        except Suspend as error:
            seen.append(f"suspended in {error.name}")
            raise

    @app.on_error
    def never(error: ErrorContext) -> None:
        seen.append(error)

    @app.task(timeout=60)
    async def order(number: int) -> str:
        task = current_task()
        assert task is not None
        seen.append(task.tries)
        held.append(context.waits.get())
        try:
            task.log("a")
            await asyncio.sleep(0.01)  # it is under way, and the next one would be later
            task.log("b")
            return f"{number} {await wait_for(approval, timeout=LONG)}"
        finally:
            seen.append("finally")

    @app.task
    async def other() -> None: ...

    job = await order.enqueue(7)
    async with working(app):
        await waits(app, job.id)
        assert (await result_of(await other.enqueue())).success
        assert (await job.status(), await job.history(), await job.logs()) == ("scheduled", [], ["a", "b"])
        assert not held[0].open
        assert seen == [1, "suspended in wait_for:approval", "finally"] or seen == [
            1,
            "finally",
            "suspended in wait_for:approval",
        ]
        await app.signal(job.id, approval, True)
        assert (await result_of(job)).value == "7 True"
    assert seen[3:] == [1, "finally"]
    assert (await result_of(job)).tries == 1
    counts = {(each.fn_name, each.succeeded, each.retried, each.failed) for each in app.metrics()}
    assert counts == {("order", 1, 0, 0), ("other", 1, 0, 0)}


async def test_a_signal_that_came_first_is_there(app: Ardiq) -> None:
    @app.task
    async def order() -> list[Any]:
        return [await wait_for(budget), await wait_for(approval), await wait_for(budget)]

    job = await order.enqueue()
    for value in (1, 2):
        await app.signal(job.id, budget, value)
    await job.signal("approval", False)
    await drain(app)
    assert (await result_of(job)).value == [1, False, 2]


async def test_the_first_of_several_signals(app: Ardiq) -> None:
    @app.task
    async def order() -> str:
        first = await wait_for(approval, budget, timeout=LONG)
        assert first is not None
        return f"{first.signal.name} {first.value}, {await wait_for(approval, timeout=0)}"

    job = await order.enqueue()
    async with working(app):
        await waits(app, job.id, "wait_for:approval,budget")
        await asyncio.to_thread(job.signal_sync, budget, 5)
        assert (await result_of(job)).value == "budget 5, None"
    assert Received(budget, 5) == (budget, 5)


async def test_a_sleep_is_over_once(app: Ardiq) -> None:
    began: list[float] = []

    @app.task
    async def work() -> str:
        began.append(asyncio.get_running_loop().time())
        await sleep("short", 0.01)
        await sleep("short", timedelta(0))
        await sleep("longer", 2.1)
        return "done"

    job = await work.enqueue()
    async with working(app):
        assert (await result_of(job)).value == "done"
    assert len(began) == 2
    assert began[1] - began[0] >= 2.1


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: sleep("a", -1), "duration must not be negative, not -1"),
        (lambda: sleep("a", timedelta(days=366)), "duration must be at most a year"),
        (lambda: sleep("a", "soon"), "TypeError"),
        (lambda: wait_for(approval, timeout=timedelta(days=366)), "timeout must be at most a year"),
        (lambda: wait_for("approval"), "wait_for takes signals, as Signal('approval', bool), not 'approval'"),
        (lambda: wait_for(), "wait_for needs a signal to wait for"),
        (lambda: wait_for(approval, approval), "was given a signal twice: approval, approval"),
        (lambda: version("a", 0), "the number of a version"),
        (lambda: step("a", 5), "a step needs a function, not int"),
    ],
)
async def test_what_cannot_be_waited_for(app: Ardiq, make: Any, why: str) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        await make()

    assert why in await error_of(app, work)


async def test_one_wait_at_a_time(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        await asyncio.gather(wait_for(approval, timeout=LONG), wait_for(budget, timeout=LONG))

    error = await error_of(app, work)
    assert "this attempt waits already, for 'wait_for:approval'" in error
    assert "for the first of several signals use wait_for(a, b)" in error


@pytest.mark.parametrize("how", ["gather", "return_exceptions", "group", "swallowed"])
async def test_steps_beside_a_wait_end_first(app: Ardiq, how: str) -> None:
    done: list[str] = []

    async def slow(name: str) -> str:
        await asyncio.sleep(0.1)
        done.append(name)
        return name

    @app.task(max_retries=0)
    async def work() -> str:
        both = [step("slow", slow, "slow"), wait_for(approval, timeout=LONG)]
        if how == "group":
            async with asyncio.TaskGroup() as group:
                begun = [group.create_task(each) for each in both]  # type: ignore[arg-type]
            found = [each.result() for each in begun]
        else:
            found = await asyncio.gather(*both, return_exceptions=how == "return_exceptions")
        if isinstance(found[1], Suspend):
            await step("after", slow, "never") if how == "return_exceptions" else None
        return str(found)

    @app.task(max_retries=0)
    async def swallows() -> str:
        try:
            return str(["slow", await wait_for(approval, timeout=LONG)]) + done.append("slow")  # type: ignore[func-returns-value, operator]
        except TypeError:
            return str(["slow", True])
        except BaseException:
            return "swallowed"

    job = await (swallows if how == "swallowed" else work).enqueue()
    async with working(app):
        await waits(app, job.id)
        assert done == ([] if how == "swallowed" else ["slow"])
        await app.signal(job.id, approval, True)
        assert (await result_of(job)).value == str(["slow", True])
    assert done == ["slow"]


async def test_an_error_on_the_way_out_counts(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        try:
            await wait_for(approval, timeout=LONG)
        finally:
            raise ValueError("while it cleans up")

    assert "while it cleans up" in await error_of(app, work)

    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("beside")

    @app.task(max_retries=0)
    async def beside() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(approval, timeout=LONG))  # type: ignore[arg-type]
            group.create_task(fails())

    assert "KeyError('beside')" in await error_of(app, beside)


def add(a: int, b: int) -> int:
    return a + b


async def test_def_tasks_have_the_same(app: Ardiq) -> None:
    seen: list[Any] = []

    @app.task
    def work(a: int) -> str:
        seen.append(a)
        total = step_sync("add", add, a, b=2)
        sleep_sync("short", 0.01)
        sleep_sync("longer", 2.1)
        return f"{total} {wait_for_sync(approval, timeout=LONG)} {step_sync('key', step_key)}"

    @app.task(max_retries=0)
    def wrong() -> None:
        async def one() -> None: ...

        step_sync("a", one)

    job = await work.options(task_id="sums").enqueue(1)
    async with working(app):
        await waits(app, job.id)
        assert seen == [1, 1]
        await app.signal(job.id, approval, True)
        assert (await result_of(job)).value == "3 True sums/key"
    assert seen == [1, 1, 1]
    assert "step_sync calls a `def`" in await error_of(app, wrong)


async def test_with_a_middleware_def_tasks_wait_too(app: Ardiq) -> None:
    @app.middleware
    async def around(execution: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        return await call_next()

    @app.task
    def work() -> bool | None:
        return wait_for_sync(approval, timeout=LONG)

    job = await work.enqueue()
    async with working(app):
        await waits(app, job.id)
        await app.signal(job.id, approval, True)
        assert (await result_of(job)).value is True


async def test_a_value_that_does_not_fit_its_signal(app: Ardiq) -> None:
    @app.task
    async def order() -> None:
        await wait_for(budget)

    job = await order.enqueue()
    with pytest.raises(TypeError, match="the value of signal 'budget' does not fit its annotation: Expected `int`"):
        await app.signal(job.id, budget, "much")  # type: ignore[misc]
    await app.signal(job.id, "budget", "much")
    await drain(app)
    error = str((await result_of(job)).value)
    assert error.startswith("InvalidArguments("), error
    assert f"signal 'budget', for wait_for 'wait_for:budget' of task 'order' (id {job.id}), does not fit" in error


async def test_signals_that_nobody_takes(app: Ardiq) -> None:
    @app.task
    async def order() -> None: ...

    job = await order.enqueue()
    await app.signal(job.id, approval, True)
    with pytest.raises(ValueError, match="the value of signal 'text' has 65,537 bytes, over the limit of 65,536"):
        await app.signal(job.id, "text", "x" * (65_537 - 2))
    for name, why in ((1, "must be a str"), ("a b", "no space, comma or '#'"), ("a,b", "no space"), ("", "empty")):
        with pytest.raises((TypeError, ValueError), match=why):
            await app.signal(job.id, name, True)  # type: ignore[call-overload]
    await drain(app)
    with pytest.raises(LookupError, match=f"task '{job.id}' has ended, so it takes no signal any more"):
        await app.signal(job.id, approval, True)
    with pytest.raises(LookupError, match="there is no task 'nowhere': it was never enqueued, or is no longer kept"):
        app.signal_sync("nowhere", approval, True)


async def test_an_aborted_wait_leaves_nothing(app: Ardiq) -> None:
    @app.task
    async def order() -> None:
        await step("a", lambda: 1)
        await wait_for(approval, timeout=LONG)

    job = await order.enqueue()
    async with working(app):
        await waits(app, job.id)
        await app.signal(job.id, budget, 1)
        assert await job.abort()
        assert (await result_of(job)).aborted
    keys = [f"ardiq:{{{app.queue_name}}}:{kind}:{job.id}" for kind in ("steps", "signals")]
    assert app.context.server.core.command(["EXISTS", *keys]) == 0


async def test_a_dead_letter_goes_on_where_it_failed(app: Ardiq) -> None:
    done: list[str] = []
    broken = [True]

    @app.task(max_retries=0)
    async def order() -> None:
        await step("charge", done.append, "charged")
        if broken:
            raise ConnectionError("no ships")
        await step("ship", done.append, "shipped")

    job = await order.enqueue()
    await drain(app)
    assert await app.dead_count() == 1
    broken.clear()
    assert await app.dead.requeue(job.id)
    await drain(app)
    assert (await result_of(job)).success
    assert done == ["charged", "shipped"]


async def test_tasks_under_way_keep_their_version(app: Ardiq) -> None:
    is_new: list[bool] = []
    took: list[tuple[str, int]] = []

    @app.task
    async def order(name: str) -> None:
        await step("begin", lambda: None)
        if name == "early":
            await wait_for(budget, timeout=LONG)
        if is_new:
            number = await version("discounts", 2)
            assert number == await step("same", lambda: number)
            took.append((name, number))
        await wait_for(approval, timeout=LONG)

    early, late = await order.enqueue("early"), await order.enqueue("late")
    async with working(app):
        await waits(app, early.id, "wait_for:budget")
        await waits(app, late.id)
        is_new.append(True)
        fresh = await order.enqueue("fresh")
        await early.signal(budget, 1)
        for job in (early, late, fresh):
            await job.signal(approval, True)
            assert (await result_of(job)).success
    assert {("early", 2), ("late", 1), ("fresh", 2)} == set(took)


async def test_the_attempt_has_a_time_limit_of_its_own(app: Ardiq) -> None:
    deadlines: list[float] = []

    @app.task(timeout=30)
    async def order() -> bool | None:
        task = current_task()
        assert task is not None
        assert task.deadline is not None
        deadlines.append(task.deadline)
        return await wait_for(approval, timeout=LONG)

    job = await order.enqueue()
    async with working(app):
        await waits(app, job.id)
        await job.signal(approval, True)
        assert (await result_of(job)).value is True
    assert deadlines[0] < deadlines[1]


async def test_an_attempt_that_has_ended_does_no_more_steps(app: Ardiq) -> None:
    hold, told = threading.Event(), list[BaseException]()

    @app.task
    def work() -> None:
        try:
            step_sync("slow", hold.wait)
        except BaseException as error:
            told.append(error)
            try:
                step_sync("next", told.clear)
            except BaseException as error:
                told.append(error)
            raise

    job = await work.enqueue()
    async with working(app):
        await eventually(lambda: is_state(app, job.id, "running"))
        await eventually(lambda: field(app, job.id, "worker"))
        await asyncio.sleep(0.1)
        assert await job.abort()
        assert (await result_of(job)).aborted
        hold.set()
        await eventually(lambda: len(told) == 2)
    assert [type(error).__name__ for error in told] == ["LeaseLost", "LeaseLost"]


async def test_with_a_serializer_of_its_own(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(serializer=lambda value: repr(value).encode(), deserializer=lambda data: eval(data))

    @app.task(backoff_ms=1)
    async def work() -> str:
        value = await step("set", lambda: {1, 2})
        return f"{value} {await wait_for(Signal('more', object), timeout=LONG)}"

    job = await work.enqueue()
    async with working(app):
        await waits(app, job.id, "wait_for:more")
        await job.signal("more", {3})
        assert (await result_of(job)).value == "{1, 2} {3}"
