"""Workflows: maps, and lists of results."""

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from helpers import SOON_S, eventually, node_states, result_of, working
from noted_tasks import Point, Tasks, ended

from ardiq import Ardiq, Flow, Results, WorkflowJob


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def test_a_map(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("map")
    numbers = flow.map(tasks.give, range(30), max_concurrent=4)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(numbers.results, plus=5)))
    progress = await job.progress()
    assert progress is not None
    assert (progress.total, progress.done, progress.fraction) == (31, 0, 0)
    assert await app.queue_size() == 4
    async with working(app):
        assert await job.value(timeout=SOON_S) == sum(range(30)) + 5
    assert ("total", list(range(30))) in tasks.seen
    [first, _] = [node async for node in job.nodes()]
    assert (first.name, first.is_map, first.task, first.state, first.total, first.done) == (
        "give", True, "give", "complete", 30, 30
    )  # fmt: skip


async def test_a_map_of_many(app: Ardiq, tasks: Tasks) -> None:
    """They are sent in pages: each a call of its own, by their number or their size."""

    @app.task
    async def length(text: str) -> int:
        return len(text)

    @app.task
    async def add(results: Results[int]) -> int:
        return sum([each async for each in results])

    flow = Flow("many")
    numbers = flow.map(tasks.give, range(2500))
    texts = flow.map(length, ["x" * 300_000] * 10)
    sums = [flow.add(add.prepare(each.result)) for each in (numbers, texts)]
    job = await app.start(flow, output=flow.add(tasks.total.prepare([each.result for each in sums])))
    again = await asyncio.to_thread(app.start_sync, flow)
    async with working(app):
        assert await job.value(timeout=SOON_S) == sum(range(2500)) + 3_000_000
        assert (await result_of(again)).success


async def test_a_map_of_nothing(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("map")
    job = await app.start(flow, output=flow.add(tasks.total.prepare(flow.map(tasks.give, []).results)))
    async with working(app):
        assert await job.value(timeout=SOON_S) == 0


async def test_a_map_bears_some_failures(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.update((3, 5))
    flow = Flow("map")
    numbers = flow.map(tasks.give, range(10), tolerate=0.2)
    last = flow.add(tasks.total.prepare(numbers.results))
    job = await app.start(flow, output=last)
    strict = Flow("strict")
    strict.add(tasks.total.prepare(strict.map(tasks.give, range(10), tolerate=1).results))
    failing = await app.start(strict)
    async with working(app):
        assert await job.value(timeout=SOON_S) == sum(range(10)) - 8
        result = await result_of(failing)
    assert not result.success
    assert "1 of 2" in str(result.value) or "2 of 2" in str(result.value)
    assert await node_states(failing) == {"give": "failed", "total": "skipped"}
    assert (await result_of(failing.node("total"))).skipped
    progress = await failing.progress()
    assert progress == (11, 8, 2, 1, 0)


async def test_starmap_spreads_tuples(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("map")
    numbers = flow.starmap(tasks.double, [(1, 10), (2, 20)])
    job = await app.start(flow, output=flow.add(tasks.total.prepare(numbers.results)))
    async with working(app):
        assert await job.value(timeout=SOON_S) == 36


async def test_results_are_read_in_pages(app: Ardiq, tasks: Tasks) -> None:
    @app.task
    async def count(results: Results[Point]) -> list[int]:
        return [each.x async for each in results]

    @app.task
    def count_sync(results: Results[Point] | None = None) -> int:
        return sum(each.x for each in results or ())

    @app.task
    async def large(number: int) -> str:
        return str(number) * 100_000

    @app.task
    async def lengths(texts: list[str]) -> list[int]:
        return [len(each) for each in texts]

    flow = Flow("pages")
    points = flow.map(tasks.point, range(2100))
    counted = flow.add(count.prepare(points.result))
    flow.add(count_sync.prepare(points.result), name="sync")
    texts = flow.map(large, range(8))
    flow.add(lengths.prepare(texts.results), name="lengths")
    flow.add(lengths.prepare([flow.add(large.prepare(5)).result, flow.add(large.prepare(7)).result]), name="both")
    job = await app.start(flow, output=counted)
    async with working(app):
        assert await job.value(timeout=SOON_S) == list(range(2100))
    assert (await result_of(job.node("sync"))).value == sum(range(2100))
    assert (await result_of(job.node("lengths"))).value == [100_000] * 8
    assert (await result_of(job.node("both"))).value == [100_000, 100_000]


async def test_the_results_of_a_map_are_read_from_outside(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("outside")
    flow.map(tasks.point, [1, 2])
    flow.map(tasks.point, [3], name="unkept", keep_results=False)
    flow.map(tasks.point, [], name="empty")
    job = await app.start(flow)
    await ended(app, job)
    assert [each async for each in job.results("point")] == [Point(1, date(2026, 11, 30)), Point(2, date(2026, 11, 30))]
    assert await asyncio.to_thread(lambda: len(list(job.results("point")))) == 2
    assert [each async for each in job.results("empty")] == []
    for name, why in (("nothing", "unknown, or no longer kept"), ("unkept", "keeps no results")):
        with pytest.raises(LookupError, match=f"map '{job.id}~{name}'.*{why}"):
            [each async for each in job.results(name)]
        with pytest.raises(LookupError, match=why):
            await asyncio.to_thread(lambda name=name: list(job.results(name)))


async def test_a_list_of_results_that_are_gone(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("gone")
    flow.add(tasks.total.options(delay=0.5).prepare(flow.map(tasks.give, [1]).results))
    job = await app.start(flow)
    async with working(app):
        await result_of(job.node("give"))
        app.context.server.core.command(["DEL", f"{app.context.server.base}task:{job.id}~give"])
        total = await result_of(job.node("total"))
    assert not total.success
    assert f"there is no map '{job.id}~give'" in str(total.value)


async def test_too_many_results_for_a_list(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(payload_limit=50_000)

    @app.task
    async def large(number: int) -> str:
        return str(number) * 10_000

    @app.task
    async def lengths(texts: list[str]) -> int:
        return len(texts)

    flow = Flow("pages")
    flow.add(lengths.prepare(flow.map(large, range(9)).results))
    job = await app.start(flow)
    async with working(app):
        assert "Results[…]" in str((await result_of(job)).value)


async def test_a_map_runs_once_a_call_has_ended(app: Ardiq) -> None:
    goes_on = asyncio.Event()

    @app.task
    async def wait(value: int) -> None:
        if value:
            await goes_on.wait()

    flow = Flow()
    flow.map(wait, [0, *[1] * 1000], max_concurrent=2, keep_results=False)
    job = await app.start(flow)
    assert await node_states(job) == {"wait": "blocked"}
    async with working(app):
        await eventually(lambda: has_states(job, {"wait": "running"}))
        progress = await job.progress()
        assert progress is not None
        assert progress.message == "1 of 1,001 done"
        assert await job.abort()
        goes_on.set()
        await result_of(job)


async def has_states(job: WorkflowJob[Any], states: dict[str, str]) -> bool:
    return await node_states(job) == states
