"""What went wrong with workflows of others, each named after where it was reported: it cannot happen here."""

import asyncio
from typing import Any

import pytest
from helpers import SOON_S, eventually, result_of, working

from ardiq import Ardiq, Flow, Node, Retry, TaskError, chain, chord, current_task, group


async def test_celery_4207_the_body_of_a_chord_runs_though_a_header_was_tried_again(app: Ardiq) -> None:
    tried: list[int] = []

    @app.task(max_retries=3)
    async def header(number: int) -> int:
        tried.append(number)
        if tried.count(number) < 3:
            raise Retry(delay_ms=0)
        return number

    @app.task
    async def body(numbers: list[int]) -> int:
        return sum(numbers)

    job = await chord([header.prepare(number) for number in range(5)], body).start()
    async with working(app):
        assert await job.value(timeout=SOON_S) == 10
    assert sorted(tried) == sorted(3 * list(range(5)))


async def test_celery_9107_what_follows_a_failure_within_is_reached(app: Ardiq) -> None:
    called: list[str] = []

    @app.task(max_retries=0)
    async def fail(number: int) -> int:
        raise ValueError(number)

    @app.task
    async def body(numbers: list[int]) -> int:
        return len(numbers)

    @app.task
    async def alarm(name: str) -> None:
        called.append(name)

    flow = Flow()
    inner = flow.map(fail, range(3))
    summed = flow.add(body.prepare(inner.results))
    outer = flow.add(body.prepare([summed.result]))
    flow.add(alarm.prepare("inner")).after(inner, on_failure="only")
    flow.add(alarm.prepare("outer")).after(outer, on_failure="only")
    job = await app.start(flow)
    async with working(app):
        assert not (await result_of(job)).success
    assert sorted(called) == ["inner", "outer"]


async def test_celery_5000_a_task_does_not_carry_what_comes_after_it(app: Ardiq) -> None:
    @app.task
    async def link(value: int) -> int:
        return value + 1

    steps = chain(link.prepare(0))
    for _ in range(499):
        steps = steps.then(link)
    job = await steps.start()
    core = app.context.server.core
    base = f"ardiq:{{{app.queue_name}}}:"
    sizes = [core.command(["MEMORY", "USAGE", f"{base}task:{job.id}~link{suffix}"]) for suffix in ("", "_2", "_400")]
    assert max(sizes) - min(sizes) < 200, sizes
    async with working(app):
        assert await job.value(timeout=10 * SOON_S) == 500


async def test_celery_4207_the_body_of_a_nested_chord_runs_though_a_header_was_tried_again(app: Ardiq) -> None:
    tried: list[int] = []

    @app.task(max_retries=3)
    async def header(number: int) -> int:
        tried.append(number)
        if tried.count(number) < 3:
            raise Retry(delay_ms=0)
        return number

    @app.task
    async def body(numbers: list[int]) -> int:
        return sum(numbers)

    inner = [chord([header.prepare(2 * each), header.prepare(2 * each + 1)], body) for each in range(3)]
    job = await chain(header.prepare(6)).then(lambda _: chord(inner, body)).start()
    async with working(app):
        assert await job.value(timeout=SOON_S) == 15
    assert sorted(tried) == sorted(3 * list(range(7)))


async def test_celery_8211_an_errand_is_run_wherever_in_a_canvas_the_failure_is(app: Ardiq) -> None:
    """Each that is around the failure, and none that is beside it."""
    called: list[str] = []

    @app.task(max_retries=0)
    async def give(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number

    @app.task
    async def body(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task
    async def alarm(name: str) -> None:
        called.append(name)

    @app.workflow
    def part(flow: Flow, number: int) -> Node[int]:
        return flow.add(give.prepare(number))

    def level(name: str, first: int) -> Any:
        line = chain(give.prepare(first)).then(lambda _: group(give.prepare(first + 1), part.prepare(first + 2)))
        return line.then(body).on_failure(alarm.prepare(name))

    sides = chord([level("left", 1), level("right", 4)], body).on_failure(alarm.prepare("around"))
    whole = chain(sides).then(part).then(lambda number: group(give.prepare(number))).then(body)
    job = await whole.on_failure(alarm.prepare("all")).start()
    async with working(app):
        assert not (await result_of(job)).success
    assert sorted(called) == ["all", "around", "left"]


async def test_celery_5286_chords_in_a_chain_do_not_carry_each_other(app: Ardiq) -> None:
    """Neither does a node grow with what comes after it, nor its creation with the depth."""

    @app.task
    async def give(number: int) -> int:
        return number

    @app.task
    async def body(numbers: list[int]) -> int:
        return sum(numbers) // len(numbers) + 1

    line: Any = chain(give.prepare(0))
    for _ in range(60):
        line = line.then(lambda number: group(*[give.prepare(number) for _ in range(10)])).then(body)
    job = await line.start()
    core = app.context.server.core
    base = f"ardiq:{{{app.queue_name}}}:"
    sizes = [
        core.command(["MEMORY", "USAGE", f"{base}task:{job.id}~{name}"]) for name in ("body", "body_30", "body_59")
    ]
    assert max(sizes) - min(sizes) < 200, sizes
    async with working(app):
        assert await job.value(timeout=10 * SOON_S) == 60


async def test_bullmq_3362_no_parent_waits_for_ever(app: Ardiq) -> None:
    """Children that fail, expire, are aborted or discarded: each of them is an end."""

    @app.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("no")

    @app.task
    async def never() -> None: ...

    @app.task
    async def parent() -> str:
        return "ran"

    flow = Flow()
    children = [
        flow.add(fail.prepare()),
        flow.add(never.options(expire=0.001).prepare(), name="expires"),
        flow.add(never.options(delay=3600).prepare(), name="aborted"),
    ]
    flow.add(parent.prepare(), name="strict").after(*children)
    flow.add(parent.prepare(), name="lenient").after(*children, on_failure="ignore")
    job = await app.start(flow)
    await asyncio.sleep(0.01)
    await job.node("aborted").abort()
    async with working(app):
        assert not (await result_of(job)).success
    assert (await result_of(job.node("lenient"))).value == "ran"
    assert (await job.node("strict").status()) == "complete"
    assert not (await result_of(job.node("strict"))).success


async def test_bullmq_1752_a_child_that_is_removed_is_noticed(app: Ardiq) -> None:
    @app.task
    async def child() -> None: ...

    flow = Flow()
    flow.add(child.prepare(), name="parent").after(flow.add(child.prepare(), name="child"))
    job = await app.start(flow)
    app.context.server.core.command(["DEL", f"ardiq:{{{app.queue_name}}}:task:{job.id}~child"])
    async with working(app):
        result = await job.result(timeout=30)
    assert result is not None
    assert not result.success


async def test_bullmq_1021_a_node_has_several_parents(app: Ardiq) -> None:
    order: list[str] = []

    @app.task
    async def note(name: str) -> None:
        order.append(name)

    flow = Flow()
    first = flow.add(note.prepare("first"))
    sides = [flow.add(note.prepare(name)).after(first) for name in ("left", "right")]
    flow.add(note.prepare("last")).after(*sides)
    job = await app.start(flow)
    async with working(app):
        await result_of(job)
    assert (order[0], order[3], sorted(order[1:3])) == ("first", "last", ["left", "right"])


async def test_rq_2006_what_depends_on_a_task_whose_worker_died_is_released(app: Ardiq) -> None:
    """A claim whose worker is gone, again and again, is a dead letter at last, which is an end."""

    @app.task
    async def kills() -> None: ...

    @app.task
    async def after() -> str:
        return "ran"

    flow = Flow()
    flow.add(after.prepare()).after(flow.add(kills.prepare()), on_failure="ignore")
    job = await app.start(flow)
    core = app.context.server.core
    for number in range(5):
        worker = f"gone:{number}"
        core.call("join", [worker, "1000", "{}", '["default"]', "1"])
        claimed = core.call("claim", [worker, '["default"]', "1", "60000"])
        core.command(["ZADD", f"ardiq:{{{app.queue_name}}}:workers", "1", worker])
        core.call("join", ["alive", "60000", "{}", '["default"]', "1"])
        for _ in range(4):
            core.call("heartbeat", ["alive", "60000", "60000", "1", "3", "0", "0"])
        assert claimed
        if await job.node("after").status() != "blocked":
            break
    async with working(app):
        assert (await result_of(job.node("after"))).value == "ran"


async def test_sidekiq_5290_what_follows_an_empty_map_runs_once(app: Ardiq) -> None:
    called: list[int] = []

    @app.task
    async def one(item: int) -> int:
        return item

    @app.task
    async def done(items: list[int]) -> None:
        called.append(len(items))

    flow = Flow()
    flow.add(done.prepare(flow.map(one, []).results))
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    assert called == [0]


async def test_sidekiq_6026_what_follows_comes_neither_early_nor_twice(app: Ardiq) -> None:
    ended: list[int] = []
    called: list[int] = []

    @app.task(max_retries=3)
    async def one(item: int) -> int:
        current = current_task()
        if item % 5 == 0 and current.tries == 1:
            raise Retry(delay_ms=5)
        ended.append(item)
        return item

    @app.task
    async def done(items: list[int]) -> None:
        called.append(len(ended))

    flow = Flow()
    flow.add(done.prepare(flow.map(one, range(50), max_concurrent=7).results))
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    assert called == [50]
    assert sorted(ended) == list(range(50))


def with_callbacks(app: Ardiq, called: list[Any]) -> Any:
    """A batch whose callbacks are noted."""

    @app.task(name="callback")
    async def callback(name: str) -> None:
        called.append(name)

    names = {f"on_{name}": callback.prepare(name) for name in ("success", "complete", "death")}
    return lambda **options: app.batch("batch", **{**names, **options})


async def test_sidekiq_5290_the_callbacks_of_an_empty_batch_run_once(app: Ardiq) -> None:
    called: list[Any] = []
    async with with_callbacks(app, called)() as batch:
        await batch.add()
    async with working(app):
        assert (await result_of(batch.job)).success
    assert sorted(called) == ["complete", "success"]


async def test_sidekiq_6026_no_callback_comes_while_calls_are_being_added(app: Ardiq) -> None:
    """All that was added has ended, again and again, before the last call is there."""
    called: list[Any] = []

    @app.task
    async def one(number: int) -> None:
        called.append(number)

    async with working(app):
        async with with_callbacks(app, called)() as batch:
            for number in range(3):
                await batch.add(*[one.prepare(number)] * 100)
                await eventually(lambda number=number: len(called) == 100 * number + 100)
            assert await batch.job.status() == "running"
        assert (await result_of(batch.job)).success
    assert sorted(called[300:]) == ["complete", "success"]


async def test_sidekiq_3535_callbacks_wait_for_calls_that_calls_have_added(app: Ardiq) -> None:
    """Also where the block is long over, and each call is the last one for a while."""
    called: list[Any] = []

    @app.task
    async def one(left: int) -> None:
        called.append(left)
        current = current_task()
        if left:
            await app.batch_of(current).add(one.prepare(left - 1))

    async with with_callbacks(app, called)() as batch:
        await batch.add(one.prepare(30))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert called[:31] == [*range(30, -1, -1)]
    assert sorted(called[31:]) == ["complete", "success"]


async def test_sidekiq_4685_callbacks_of_a_batch_within_another_run_before_those_around_it(app: Ardiq) -> None:
    """A call that is a batch of its own ends when that does: it waits for it as for anything else."""
    called: list[Any] = []
    start = with_callbacks(app, called)

    @app.task(max_retries=0)
    async def one(number: int) -> None:
        called.append(number)
        if number == 3:
            raise ValueError(number)

    @app.task
    async def inner(first: int) -> None:
        async with start() as batch:
            await batch.add(one.prepare(first), one.prepare(first + 1))
        await batch.job.result(timeout=SOON_S)
        called.append("inner")

    async with start(on_death=None) as batch:
        await batch.add(inner.prepare(1), inner.prepare(3))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert sorted(map(str, called[:-2])) == sorted(
        ["1", "2", "3", "4", "success", "complete", "complete", "death", "inner", "inner"]
    )
    assert sorted(called[-2:]) == ["complete", "success"]


async def test_durable_workflow_501_a_failed_step_goes_on_without_paying_for_the_others_again(app: Ardiq) -> None:
    ran: list[str] = []
    broken = {"charge"}

    @app.task(max_retries=0)
    async def step(name: str) -> str:
        ran.append(name)
        if name in broken:
            raise ValueError(name)
        return name

    flow = Flow()
    before: Any = None
    for name in ("reserve", "charge", "ship"):
        node = flow.add(step.prepare(name), name=name)
        before = node if before is None else node.after(before)
    job = await app.start(flow, output=before)
    async with working(app):
        with pytest.raises(TaskError, match="charge"):
            await job.value(timeout=SOON_S)
        broken.clear()
        assert await app.dead.requeue([f"{job.id}~charge"]) == 1
        assert await job.value(timeout=SOON_S) == "ship"
    assert ran == ["reserve", "charge", "charge", "ship"]


async def test_bullmq_800_ten_thousand_children(app: Ardiq) -> None:
    @app.task
    async def child(number: int) -> int:
        return number

    @app.task
    async def parent(numbers: list[int]) -> int:
        return sum(numbers)

    flow = Flow()
    output = flow.add(parent.prepare(flow.map(child, range(10_000)).results))
    job = await app.start(flow, output=output)
    async with working(app):
        assert await job.value(timeout=60) == sum(range(10_000))
    await eventually(lambda: app.context.server.core.command(["EXISTS", f"ardiq:{{{app.queue_name}}}:workflows"]) == 0)
