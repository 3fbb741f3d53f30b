"""Children: calls that a running task starts once and waits for, and holds no worker meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, node_states, result_of, working

from ardiq import (
    Ardiq,
    ChildrenFailed,
    EnqueueContext,
    ExecutionContext,
    Flow,
    Job,
    Limit,
    Retry,
    Signal,
    WorkflowJob,
    children,
    children_sync,
    current_task,
    sleep,
    step,
    wait_for,
)

LONG = timedelta(days=3)
approval = Signal("approval", bool)


@dataclass
class Point:
    x: int
    on: date


async def waits(app: Ardiq, task_id: str, name: str = "kids") -> None:
    """Until the task waits for its children of that name."""
    await eventually(lambda: field(app, task_id, "waits_for") == f"children:{name}")


async def error_of(app: Ardiq, task: Any, *args: Any) -> str:
    """What a task fails with, at its first attempt."""
    job = await task.enqueue(*args)
    await drain(app)
    result = await result_of(job)
    assert (result.success, result.tries) == (False, 1)
    return str(result.value)


async def test_results_come_in_order_and_no_slot_is_held(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=1)
    begun: list[Any] = []

    @app.task
    async def search(text: str) -> str:
        begun.append(text)
        return text.upper()

    @app.task
    def rank(number: int) -> int:
        begun.append(number)
        return number * 2

    @app.task
    async def research() -> list[Any]:
        begun.append("research")
        return [*await children("first", [search.prepare("a"), rank.prepare(3), search.prepare("b")])]

    job = await research.options(task_id="r-1").enqueue()
    async with working(app):
        result = await result_of(job)
    assert (result.value, result.tries) == (["A", 6, "B"], 1)
    assert (begun[0], begun[-1], sorted(map(str, begun[1:-1]))) == ("research", "research", ["3", "a", "b"])
    assert await Job(app, "r-1.first~rank").value() == 6
    assert await node_states(WorkflowJob(app, "r-1.first")) == dict.fromkeys(["search", "rank", "search_2"], "complete")


async def test_a_def_task_waits_for_children_too(app: Ardiq) -> None:
    @app.task
    def square(number: int) -> int:
        return number * number

    @app.task
    def total(numbers: list[int]) -> int:
        return sum(children_sync("squares", [square.prepare(number) for number in numbers]))

    async with working(app):
        assert await total.request([1, 2, 3]) == 14


async def test_retries_begin_none_again(app: Ardiq) -> None:
    begun: list[str] = []

    @app.task
    async def count(name: str) -> int:
        begun.append(name)
        return len(begun)

    @app.task(backoff_ms=1)
    async def work() -> list[int]:
        first = await children("first", [count.prepare("a"), count.prepare("b")])
        if len(begun) < 4:
            begun.append("fails")
            raise Retry(delay=0)
        return first + await children("second", [count.prepare("c")])

    job = await work.enqueue()
    async with working(app):
        result = await result_of(job)
    assert (result.value, result.tries) == ([1, 2, 5], 3)
    assert begun == ["a", "b", "fails", "fails", "c"]


async def test_results_are_what_the_calls_return(app: Ardiq) -> None:
    @app.task
    async def locate(x: int, *, on: date) -> Point:
        return Point(x, on)

    @app.task
    async def pair(x: int) -> tuple[int, bytes]:
        return x, b"raw"

    @app.task
    async def large() -> str:
        return "x" * 700_000

    @app.task
    async def nothing() -> None: ...

    got: list[Any] = []

    @app.task
    async def work() -> None:
        day = date(2026, 11, 30)
        calls: list[Any] = [locate.prepare(3, on=day), pair.prepare(4), nothing.prepare()]
        got.extend(await children("some", [*calls, large.prepare(), large.prepare(), large.prepare()]))

    async with working(app):
        await work.request()
    assert got == [Point(3, date(2026, 11, 30)), (4, b"raw"), None, *["x" * 700_000] * 3]


async def test_what_did_not_complete_is_named(app: Ardiq) -> None:
    caught: list[ChildrenFailed] = []

    @app.task(max_retries=0)
    async def fails(number: int) -> int:
        if number % 2:
            raise ValueError(f"no {number}")
        return number

    @app.task
    async def careful() -> str:
        try:
            await children("kids", [fails.prepare(number) for number in range(4)])
        except ChildrenFailed as error:
            caught.append(error)
            return "some failed"
        return "none failed"

    @app.task
    async def careless() -> None:
        await children("kids", [fails.prepare(1)])

    async with working(app):
        job = await careful.options(task_id="c-1").enqueue()
        assert (await result_of(job)).value == "some failed"
        failed = await result_of(await careless.options(task_id="c-2").enqueue())
    [error] = caught
    assert str(error) == (
        "children 'kids' of task 'careful' (id c-1): 2 of 4 did not complete: c-1.kids~fails_2: ValueError('no 1'); "
        "c-1.kids~fails_4: ValueError('no 3')"
    )
    assert error.job_id == "c-1.kids"
    assert error.errors == {"c-1.kids~fails_2": "ValueError('no 1')", "c-1.kids~fails_4": "ValueError('no 3')"}
    assert (failed.success, failed.tries) == (False, 1)
    assert "ChildrenFailed(" in str(failed.value)


async def test_a_task_goes_on_once_its_children_were_retried(app: Ardiq) -> None:
    broken = [True]

    @app.task(max_retries=0)
    async def flaky(number: int) -> int:
        if broken and number:
            raise ValueError("broken")
        return number

    @app.task
    async def work() -> list[int]:
        return await children("kids", [flaky.prepare(0), flaky.prepare(1)])

    async with working(app):
        job = await work.enqueue()
        assert not (await result_of(job)).success
        broken.clear()
        kids: WorkflowJob[Any] = WorkflowJob(app, f"{job.id}.kids")
        assert await kids.retry() == 1
        assert (await result_of(kids)).success
        assert await app.dead.requeue(job.id)
        assert (await result_of(job)).value == [0, 1]


@pytest.mark.parametrize(("tolerate", "is_borne"), [(1, True), (0.34, True), (0, False), (0.3, False)])
async def test_failures_that_are_tolerated_leave_none(app: Ardiq, tolerate: float, is_borne: bool) -> None:
    @app.task(max_retries=0)
    async def fails(number: int) -> int:
        if number == 1:
            raise ValueError
        return number

    @app.task
    async def work() -> list[int | None]:
        return await children("kids", [fails.prepare(number) for number in range(3)], tolerate=tolerate)

    async with working(app):
        result = await result_of(await work.enqueue())
    assert result.success is is_borne
    if is_borne:
        assert result.value == [0, None, 2]


async def test_children_end_with_their_task(app: Ardiq) -> None:
    @app.task
    async def waiting() -> None:
        await wait_for(approval)

    @app.task(max_retries=0)
    async def work(fails: bool) -> None:
        async def break_down() -> None:
            await eventually(lambda: field(app, f"{current_task().task_id}.kids", "state"))  # type: ignore[union-attr]
            raise ValueError

        if fails:
            await asyncio.gather(children("kids", [waiting.prepare()]), step("break", break_down))
        await children("kids", [waiting.prepare(), waiting.prepare()])

    aborted = await work.options(task_id="a").enqueue(False)
    failed = await work.options(task_id="f").enqueue(True)
    async with working(app):
        await waits(app, "a")
        await eventually(lambda: is_state(app, "a.kids~waiting_2", "scheduled"))
        assert await aborted.abort()
        assert field(app, "a.kids", "state") == "aborted"
        assert await node_states(WorkflowJob(app, "a.kids")) == {"waiting": "aborted", "waiting_2": "aborted"}
        assert not (await result_of(failed)).success
        await eventually(lambda: field(app, "f.kids", "state") == "aborted")
    assert is_sound(app)


async def test_a_task_hears_that_its_children_were_aborted(app: Ardiq) -> None:
    @app.task
    async def waiting() -> None:
        await wait_for(approval)

    @app.task
    async def work() -> None:
        await children("kids", [waiting.prepare()])

    job = await work.options(task_id="w").enqueue()
    async with working(app):
        await waits(app, "w")
        assert await WorkflowJob(app, "w.kids").abort()
        result = await result_of(job)
    assert "children 'kids' of task 'work' (id w): 1 of 1 did not complete: w.kids~waiting: aborted" in str(
        result.value
    )


async def test_children_have_children(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=1)

    @app.task
    async def sum_of(depth: int) -> int:
        if depth == 0:
            return 1
        return 1 + sum(await children("kids", [sum_of.prepare(depth - 1)] * 2))

    flow = Flow("families")
    family = flow.add(sum_of.prepare(2))
    many = flow.map(sum_of, [1, 2])
    async with working(app):
        job = await app.start(flow, output=family)
        assert await job.value(timeout=20) == 7
        assert [each async for each in job.results(many.name)] == [3, 7]
        assert await WorkflowJob(app, f"{job.id}.sum_of.kids").result() is not None
    assert is_sound(app)


async def test_children_beside_steps_and_waits(app: Ardiq) -> None:
    @app.task
    async def double(number: int) -> int:
        return 2 * number

    @app.task
    async def work() -> list[Any]:
        first = await step("one", lambda: 1)
        [second] = await children("two", [double.prepare(first)])
        await sleep("a while", 0.01)
        third = await wait_for(approval, timeout=LONG)
        return [first, second, third, *await children("three", [double.prepare(second)])]

    job = await work.enqueue()
    await job.signal(approval, True)
    async with working(app):
        assert (await result_of(job)).value == [1, 2, True, 4]


async def test_one_waits_for_one_thing_at_a_time(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def nothing() -> None: ...

    @app.task(max_retries=0)
    async def work() -> None:
        await asyncio.gather(children("a", [nothing.prepare()]), children("b", [nothing.prepare()]))

    async with working(app):
        error = str((await result_of(await work.enqueue())).value)
    assert "this attempt waits already, for 'children:a'" in error
    assert "for several calls one children(…)" in error


async def test_hooks_and_limits_are_those_of_any_call(app: Ardiq) -> None:
    seen: list[Any] = []

    @app.on_enqueue
    async def trace(context: EnqueueContext) -> None:
        context.headers["trace"] = context.name

    @app.middleware
    async def look(context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
        seen.append(context.headers)
        return await call_next()

    @app.task(limits=[Limit("narrow", concurrency=1)])
    async def traced() -> int:
        return 1

    @app.task
    async def work() -> list[int]:
        return await children("kids", [traced.prepare(), traced.prepare()])

    async with working(app):
        assert await work.request() == [1, 1]
    assert seen == [{"trace": name} for name in ("work", "traced", "traced", "work")]


@pytest.mark.parametrize("changed", [False, True])
async def test_results_are_signed(make_app: Callable[..., Ardiq], changed: bool) -> None:
    app = make_app(signing_key="a long secret from the secret store")

    @app.task
    async def one() -> int:
        return 1

    @app.task
    async def work() -> list[int]:
        found = await children("kids", [one.prepare()])
        await wait_for(approval)
        return found

    job = await work.options(task_id="w").enqueue()
    async with working(app):
        await eventually(lambda: field(app, "w", "waits_for") == "wait_for:approval")
        if changed:
            app.context.server.core.command(["HSET", f"ardiq:{{{app.queue_name}}}:task:w.kids~one", "result", "2"])
        await job.signal(approval, True)
        result = await result_of(job)
    if changed:
        assert "the result of 'one' was signed with another key, for something else, or changed since" in str(
            result.value
        )
    else:
        assert result.value == [1]


async def test_no_calls_are_no_children(app: Ardiq) -> None:
    @app.task
    async def work() -> list[Any]:
        return await children("kids", [])

    job = await work.enqueue()
    await drain(app)
    assert (await result_of(job)).value == []
    assert await app.status(f"{job.id}.kids") == "not_found"


WRONG: list[tuple[str, Callable[[Ardiq, Any], Any], str]] = [
    ("twice", lambda app, task: children("kids", [task.prepare(1)]), "this attempt has used the name already"),
    (
        "spaces",
        lambda app, task: children("a b", [task.prepare(1)]),
        "must be 1 to 100 of A-Z, a-z, 0-9, '_', '.' and '-'",
    ),
    ("number", lambda app, task: children(7, [task.prepare(1)]), "the name of children must be a str, not int"),
    ("many", lambda app, task: children("x", [task.prepare(1)] * 1001), "are 1,001 calls, and may be 1,000"),
    ("no_list", lambda app, task: children("x", task.prepare(1)), "must be a list of calls, of task.prepare(…)"),
    ("no_call", lambda app, task: children("x", [task]), "takes task.prepare(...), not Task"),
    ("not_prepared", lambda app, task: children("x", [task(1)]), "takes task.prepare(...), not coroutine"),
    (
        "tolerate",
        lambda app, task: children("x", [task.prepare(1)], tolerate=1.5),
        "tolerate must be a number of calls",
    ),
    ("argument", lambda app, task: children("x", [task.prepare("no")]), "children 'x' of task 'work' (id "),
    (
        "queue",
        lambda app, task: children("x", [task.options(queue="gpu").prepare(1)]),
        "call 0, of task 'call', is for queue 'gpu', and children run in that of their task",
    ),
    ("own_id", lambda app, task: children("x", [task.options(task_id="7").prepare(1)]), "cannot have a task_id"),
    ("in_step", lambda app, task: step("s", lambda: children("x", [task.prepare(1)])), "within the step 's'"),
    ("sync", lambda app, task: children_sync("x", [task.prepare(1)]), "children_sync would block the event loop"),
]


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(("call", "why"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
async def test_what_cannot_be(app: Ardiq, call: Callable[[Ardiq, Any], Any], why: str) -> None:
    @app.task(name="call")
    async def one(number: int) -> int:
        return number

    @app.task(max_retries=0)
    async def work() -> None:
        await children("kids", [])
        await call(app, one)

    error = await error_of(app, work)
    assert why in error, error


async def test_outside_of_a_task(app: Ardiq) -> None:
    with pytest.raises(RuntimeError, match="children is for a running task: call it in a function that a worker runs"):
        await children("kids", [])
    with pytest.raises(RuntimeError, match="children_sync is for a running task"):
        await asyncio.to_thread(children_sync, "kids", [])


async def test_the_name_of_a_step(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        await step("children:kids", lambda: None)
        await children("kids", [work.prepare()])

    assert "children:kids' of task 'work' is used for two things, step and children" in await error_of(app, work)


async def test_an_id_of_another(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def work() -> None:
        await children("kids", [work.prepare()])

    await app.start(flow_of(app), output=None)
    await drain(app)
    job = await work.options(task_id="w").enqueue()
    await drain(app)
    assert "there is a workflow w.kids already, which is not of task w: give these children another name" in str(
        (await result_of(job)).value
    )


def flow_of(app: Ardiq) -> Flow:
    @app.task
    async def other() -> None: ...

    flow = Flow("other", id="w.kids")
    flow.add(other.prepare())
    return flow


async def test_a_call_of_a_task_that_nobody_has_waits_for_one_who_has(app: Ardiq) -> None:
    @app.task
    async def work() -> list[Any]:
        return [*await children("kids", [app.ref("elsewhere").prepare()])]

    job = await work.options(task_id="w").enqueue()
    async with working(app):
        await waits(app, "w")
        await eventually(lambda: field(app, "w.kids~elsewhere", "unknown_since"))
        assert await job.abort()
        assert field(app, "w.kids", "state") == "aborted"


async def test_what_a_requeued_task_had_begun_is_begun_again(app: Ardiq) -> None:
    """Its children were aborted with it."""
    begun: list[str] = []

    @app.task
    async def slow() -> str:
        begun.append("slow")
        if len(begun) == 1:
            await wait_for(approval)
        return "slow"

    @app.task(max_retries=0)
    async def work() -> list[str]:
        async def break_down() -> None:
            await eventually(lambda: field(app, "w.kids~slow", "waits_for"))
            raise ValueError

        if not begun:
            await asyncio.gather(children("kids", [slow.prepare()]), step("break", break_down))
        return await children("kids", [slow.prepare()])

    job = await work.options(task_id="w").enqueue()
    async with working(app):
        assert not (await result_of(job)).success
        await eventually(lambda: field(app, "w.kids", "state") == "aborted")
        assert await app.dead.requeue(job.id)
        assert (await result_of(job)).value == ["slow"]
    assert begun == ["slow", "slow"]


async def test_a_task_ends_although_nothing_can_be_left_to_heartbeats(
    app: Ardiq, caplog: pytest.LogCaptureFixture
) -> None:
    core, chores = app.context.server.core, f"{app.context.server.base}chores"

    @app.task
    async def child() -> None: ...

    @app.task
    async def work() -> str:
        # Together they have more records than one call gives their time to live.
        for name in ("one", "two"):
            await children(name, [child.prepare() for _ in range(510)])
        core.command(["SET", chores, "damaged"])
        return "done"

    job = await work.options(task_id="damaged").enqueue()
    async with working(app):
        assert await job.value(timeout=6 * SOON_S) == "done"
        core.command(["DEL", chores])
    assert "trying again" not in caplog.text
