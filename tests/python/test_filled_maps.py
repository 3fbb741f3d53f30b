"""Maps over a result: their items are a list that a node returns."""

import asyncio
import dataclasses
import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from helpers import SOON_S, node_states, result_of, value_of, working

from ardiq import Ardiq, Flow, Results
from ardiq._execution import filling
from ardiq._server import calls
from ardiq._server.replies import ask
from ardiq.testing import Clock, inline


@dataclasses.dataclass
class Point:
    x: int
    on: date


ON = date(2026, 11, 30)


class Tasks:
    """Tasks of an app, and what ran."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.found: Any = []
        seen = self.seen

        @app.task(max_retries=0)
        async def find(what: Any = None) -> Any:
            if isinstance(self.found, Exception):
                raise self.found
            return self.found if what is None else what

        @app.task
        async def points(count: int) -> list[Point]:
            return [Point(number, ON) for number in range(count)]

        @app.task(max_retries=0)
        async def shift(point: Point, by: int = 1) -> Point:
            seen.append(point.x)
            return Point(point.x + by, point.on)

        @app.task(max_retries=0)
        async def double(value: int) -> int:
            seen.append(value)
            if value == 13:
                raise ValueError(value)
            return 2 * value

        @app.task(max_retries=0)
        async def add(a: int, b: int) -> int:
            return a + b

        @app.task(max_retries=0)
        async def total(values: list[int]) -> int:
            return sum(values)

        @app.task
        async def paged(points: Results[Point]) -> list[int]:
            return [point.x async for point in points]

        self.find, self.points, self.shift, self.double = find, points, shift, double
        self.add, self.total, self.paged = add, total, paged


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


def error_of(app: Ardiq, task_id: str) -> str:
    found = app.context.server.core.command(["HGET", f"{app.context.server.base}task:{task_id}", "error"])
    return found.decode()


async def test_a_list_with_types(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow()
    shifted = flow.map(tasks.shift, flow.add(tasks.points.prepare(5)).result, max_concurrent=2)
    again = flow.map(tasks.shift, shifted.results, name="again")
    paged = flow.map(tasks.shift, again.result, name="paged_again", chunk=2)
    job = await app.start(flow, output=flow.add(tasks.paged.prepare(paged.result)))
    assert await value_of(app, job) == [3, 4, 5, 6, 7]
    assert list(await node_states(job)) == [
        "points", "shift.items", "shift", "again.items", "again", "paged_again.items", "paged_again", "paged",
    ]  # fmt: skip
    progress = await job.progress()
    assert progress is not None
    assert (progress.total, progress.done) == (5 + 5 + 5 + 3, 18)
    assert [point async for point in job.results("again")] == [Point(number + 2, ON) for number in range(5)]
    assert (await result_of(job.node("shift.items"))).value == 5


@pytest.mark.parametrize(
    "values", [[1, 2], [b"\x00", b"y"], [{1: b"x"}, {2: None}], ["\ud800", "ü"], [[], [[1]]], [None]]
)
async def test_lists_of_anything(app: Ardiq, tasks: Tasks, values: list[Any]) -> None:
    flow = Flow()
    flow.map(tasks.find, flow.add(tasks.find.prepare(values)).result, name="map")
    job = await app.start(flow)
    tasks.found = None
    async with working(app):
        assert (await result_of(job)).success
    assert [each async for each in job.results("map")] == values


async def test_starmap(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow()
    pairs = flow.add(tasks.find.prepare([[1, 2], [3, 4]]))
    sums = flow.starmap(tasks.add, pairs.result)
    more = flow.starmap(tasks.add, flow.map(tasks.find, [[5, 6]], name="pairs").results, name="more", chunk=3)
    both = flow.add(tasks.total.prepare(sums.results)), flow.add(tasks.total.prepare(more.results))
    job = await app.start(flow, output=flow.add(tasks.total.prepare([each.result for each in both])))
    assert await value_of(app, job) == 21


async def test_a_list_of_results(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow()
    nodes = [flow.add(tasks.double.prepare(each)) for each in (1, 2)]
    doubled = flow.map(tasks.double, [node.result for node in nodes], name="map")
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    assert await value_of(app, job) == 12
    with pytest.raises(TypeError, match="not of maps or lists of such"):
        flow.map(tasks.total, [doubled.results])


async def test_none_at_all(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow()
    doubled = flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    assert await value_of(app, job) == 0
    assert (await node_states(job))["double"] == "complete"


async def test_many_come_in_pages(app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow()
    small = flow.map(tasks.double, flow.add(tasks.find.prepare(list(range(100, 5_600)))).result)
    large = flow.map(tasks.find, flow.add(tasks.find.prepare(["x" * 100_000] * 8)).result, name="large")
    doubled = flow.map(tasks.double, small.result, name="again", chunk=100)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    monkeypatch.setattr(filling, "_PAGE_BYTES", 250_000)
    async with working(app):
        assert await job.value(timeout=4 * SOON_S) == 4 * sum(range(100, 5_600))
    assert len([each async for each in job.results("large")]) == 8
    assert large.name == "large"


@pytest.mark.parametrize("found", ["abc", {"a": 1}, 7, None])
async def test_a_result_that_is_no_list(app: Ardiq, tasks: Tasks, found: Any) -> None:
    tasks.found = found
    flow = Flow()
    doubled = flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    async with working(app):
        assert not (await result_of(job)).success
    assert await node_states(job) == {
        "find": "complete",
        "double.items": "failed",
        "double": "skipped",
        "total": "skipped",
    }
    assert f"the items of map 'double' are no list, but of type {type(found).__name__}" in error_of(
        app, f"{job.id}~double.items"
    )


async def test_items_that_are_no_tuples(app: Ardiq, tasks: Tasks) -> None:
    tasks.found = [[1, 2], 3]
    flow = Flow()
    flow.starmap(tasks.add, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow)
    async with working(app):
        assert not (await result_of(job)).success
    assert "an item of map 'add' is no tuple of arguments, but of type int" in error_of(app, f"{job.id}~add.items")


async def test_too_many(app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST_ITEMS", 1_500)
    tasks.found = list(range(100, 1_601))
    flow = Flow()
    flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow)
    async with working(app):
        assert not (await result_of(job)).success
        assert "more than 1,500 items for map 'double'" in error_of(app, f"{job.id}~double.items")
        assert tasks.seen == []
        monkeypatch.undo()
        assert await job.retry() == 1
        assert (await result_of(job)).success
    assert sorted(tasks.seen) == tasks.found


async def test_a_source_that_fails_and_runs_again(app: Ardiq, tasks: Tasks) -> None:
    tasks.found = ValueError("away")
    flow = Flow()
    doubled = flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    async with working(app):
        assert not (await result_of(job)).success
        assert set((await node_states(job)).values()) == {"failed", "skipped"}
        tasks.found = [1, 2, 3]
        assert await job.retry() == 1
        assert await job.value(timeout=SOON_S) == 12


async def test_a_default_in_its_place(app: Ardiq, tasks: Tasks) -> None:
    tasks.found = ValueError("away")
    flow = Flow()
    node = flow.add(tasks.find.prepare())
    some = flow.map(tasks.double, node.result_or([4, 5]))
    none = flow.map(tasks.double, node.result_or([]), name="none")
    unnamed = flow.map(tasks.double, node.result, name="unnamed").after(node, on_failure="ignore")
    totals = [flow.add(tasks.total.prepare(each.results)).result for each in (some, none)]
    job = await app.start(flow, output=flow.add(tasks.total.prepare(totals)))
    async with working(app):
        assert not (await result_of(job)).success
    assert (await result_of(job.node("total_3"))).value == 18
    assert "map 'unnamed' has no items: 'find' is failed; name some by result_or([])" in error_of(
        app, f"{job.id}~{unnamed.name}.items"
    )


@pytest.mark.parametrize(("tolerate", "succeeds"), [(0, False), (1, True), (0.1, True), (0.05, False), (1.0, True)])
async def test_a_part_of_them_may_fail(app: Ardiq, tasks: Tasks, tolerate: float, succeeds: bool) -> None:
    tasks.found = list(range(5, 15))
    flow = Flow()
    flow.map(tasks.double, flow.add(tasks.find.prepare()).result, tolerate=tolerate)
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success is succeeds


async def test_another_worker_goes_on_where_the_first_died(app: Ardiq, tasks: Tasks) -> None:
    """It has added one page, and somebody else's is refused."""
    flow = Flow()
    doubled = flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
    core = app.context.server.core
    tasks.found = list(range(20, 60))
    core.call("join", ["gone:1", "1000", "{}", '["default"]', "2"])
    found = core.call("claim", ["gone:1", '["default"]', "1", "60000"])
    source = found[1 + 1]
    result = b"[%b]" % b",".join(b"%d" % number for number in tasks.found)
    core.call("complete", ["gone:1", f"{job.id}~find", source, "1", result, "", "60000"])
    found = core.call("claim", ["gone:1", '["default"]', "1", "60000"])
    assert found[1] == f"{job.id}~double.items".encode()

    def fill(token: str, worker: str = "gone:1") -> calls.WorkflowFillReply:
        items = [calls.NewItem("", b"[%d]" % number) for number in tasks.found[:15]]
        call = calls.workflow_fill(
            worker=worker, id=f"{job.id}~double.items", token=token, map="double", offset=0, items=items
        )
        return ask(core, call)

    assert fill(found[2].decode()) == ("added", 15)
    assert fill(found[2].decode()) == ("accepted", 15)
    core.command(["ZADD", f"{app.context.server.base}workers", "1", "gone:1"])
    async with working(app):
        assert await job.value(timeout=30) == 2 * sum(tasks.found)
    assert sorted(tasks.seen) == tasks.found
    assert fill(found[2].decode()) == ("stale", 40)


async def test_an_abort_while_it_is_filled(app: Ardiq, tasks: Tasks) -> None:
    tasks.found = [1, 2]
    began, go_on = asyncio.Event(), asyncio.Event()
    flow = Flow()
    flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
    job = await app.start(flow)
    real = filling.pages.patiently

    async def slow(*args: Any) -> Any:
        began.set()
        await go_on.wait()
        return await real(*args)

    filling.pages.patiently = slow  # type: ignore[assignment]
    try:
        async with working(app):
            await asyncio.wait_for(began.wait(), SOON_S)
            await job.abort()
            go_on.set()
            assert (await result_of(job)).aborted
    finally:
        filling.pages.patiently = real
    assert tasks.seen == []


async def test_a_custom_serializer(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads)

    @app.task
    async def give() -> list[complex]:
        return [1j, 2j]

    @app.task
    async def turn(value: complex, by: complex = 1) -> complex:
        return value * by

    @app.task
    async def pairs() -> list[tuple[complex, complex]]:
        return [(1j, 1j), (2j, 2j)]

    flow = Flow()
    turned = flow.map(turn, flow.add(give.prepare()).result)
    flow.map(turn, turned.result, name="again", chunk=2)
    flow.starmap(turn, flow.add(pairs.prepare()).result, name="star")
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    assert [each async for each in job.results("again")] == [1j, 2j]
    assert [each async for each in job.results("star")] == [-1, -4]


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = Tasks(app)
    tasks.found = [1, 2, 3]
    async with inline(app, clock=Clock()):
        flow = Flow()
        doubled = flow.map(tasks.double, flow.add(tasks.find.prepare()).result)
        job = await app.start(flow, output=flow.add(tasks.total.prepare(doubled.results)))
        assert (await result_of(job)).value == 12


async def test_it_is_in_a_workflow_within_another(app: Ardiq, tasks: Tasks) -> None:
    @app.workflow
    def doubles(flow: Flow, values: list[int]) -> Any:
        return flow.add(tasks.total.prepare(flow.map(tasks.double, values).results))

    asked: list[str] = []

    @app.on_enqueue
    def hook(context: Any) -> None:
        asked.append(context.name)

    flow = Flow()
    part = flow.add(doubles.prepare(flow.add(tasks.find.prepare([1, 2])).result))
    job = await app.start(flow, output=part)
    assert await value_of(app, job) == 6
    assert list(await node_states(job)) == ["find", "doubles.double.items", "doubles.double", "doubles.total"]
    assert len(asked) == 3
    flow.add(tasks.find.prepare(), name="x.items")
    with pytest.raises(ValueError, match=r"there is a node 'x\.items' in this flow already"):
        flow.map(tasks.double, part.result, name="x")  # type: ignore[arg-type]
