"""Workflows: tasks that begin when others have ended, with their results."""

import asyncio
import dataclasses
import json
import pickle
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, node_states, result_of, working

from ardiq import (
    Ardiq,
    ArdiqError,
    Batch,
    BrokerError,
    ExecutionContext,
    Flow,
    ItemErrors,
    Limit,
    Node,
    Results,
    Retry,
    TaskError,
    Unique,
    WorkflowJob,
    chain,
    chord,
    current_task,
    group,
)
from ardiq._client import starting
from ardiq._client.graphs import Graph
from ardiq._execution.threads import SyncTasks


@dataclasses.dataclass
class Point:
    x: int
    on: date


class Tasks:
    """Tasks of an app, and what they were called with."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.broken: set[Any] = set()
        seen, broken = self.seen, self.broken

        @app.task(max_retries=0)
        async def give(value: int) -> int:
            seen.append(value)
            if value in broken:
                raise ValueError(value)
            return value

        @app.task(max_retries=0)
        def double(value: int, plus: int = 0) -> int:
            seen.append(("double", value))
            return 2 * value + plus

        @app.task(max_retries=0)
        async def total(values: list[int], plus: int = 0) -> int:
            seen.append(("total", values))
            return sum(values) + plus

        @app.task(max_retries=0)
        async def note(*values: Any) -> None:
            seen.append(values)

        @app.task(max_retries=0)
        async def point(x: int) -> Point:
            return Point(x, date(2026, 11, 30))

        @app.task(max_retries=0)
        async def x_of(point: Point, other: Point | None = None) -> int:
            seen.append((point, other))
            return point.x

        self.give, self.double, self.total, self.note, self.point, self.x_of = give, double, total, note, point, x_of


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def ended(app: Ardiq, job: WorkflowJob[Any]) -> None:
    """Run until the workflow has ended."""
    async with working(app):
        await result_of(job)


async def test_a_chain_passes_results_on(app: Ardiq, tasks: Tasks) -> None:
    job = await chain(tasks.give.prepare(1)).then(tasks.double).then(tasks.double, plus=1).start()
    assert not job.existed
    assert await job.status() == "running"
    assert await node_states(job) == {"give": "queued", "double": "blocked", "double_2": "blocked"}
    assert await job.node("double").status() == "blocked"
    assert await app.status(f"{job.id}~give") == "queued"
    async with working(app):
        assert await job.value(timeout=SOON_S) == 5
    assert await job.status() == "complete"
    assert set((await node_states(job)).values()) == {"complete"}
    assert (await result_of(job.node("double"))).value == 2
    progress = await job.progress()
    assert progress == (3, 3, 0, 0, 0)
    assert (progress.fraction, progress.message) == (1.0, "3 of 3 done")


async def test_a_chord_takes_a_list(app: Ardiq, tasks: Tasks) -> None:
    calls = [tasks.give.prepare(each) for each in range(5)]
    job = await chord(calls, tasks.total, plus=100).start()
    again = await group(*calls).then(tasks.total).then(tasks.double).start()
    async with working(app):
        assert await job.value(timeout=SOON_S) == 110
        assert await again.value(timeout=SOON_S) == 20
    assert tasks.seen.count(("total", [0, 1, 2, 3, 4])) == 2


async def test_a_group_alone(app: Ardiq, tasks: Tasks) -> None:
    job = await group(tasks.give.prepare(1), tasks.give.prepare(2)).start()
    async with working(app):
        assert await job.value(timeout=SOON_S) is None
    assert (await result_of(job.node("give_2"))).value == 2


async def test_a_graph_with_types(app: Ardiq, tasks: Tasks) -> None:
    """What JSON has no word for arrives as it was returned."""
    flow = Flow("types")
    one, two = (flow.add(tasks.point.prepare(number), name=f"p.{number}") for number in (1, 2))
    last = flow.add(tasks.x_of.prepare(one.result, other=two.result))
    async with working(app):
        assert await (await app.start(flow, output=last)).value(timeout=SOON_S) == 1
        # A value that is there already stands beside one that is not.
        flow = Flow("types")
        last = flow.add(tasks.x_of.prepare(Point(7, date(2026, 1, 1)), flow.add(tasks.point.prepare(8)).result))
        job = await app.start(flow, output=flow.add(tasks.point.prepare(last.result)))
        assert await job.value(timeout=SOON_S) == Point(7, date(2026, 11, 30))
    assert tasks.seen == [
        (Point(1, date(2026, 11, 30)), Point(2, date(2026, 11, 30))),
        (Point(7, date(2026, 1, 1)), Point(8, date(2026, 11, 30))),
    ]


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


@pytest.mark.parametrize(
    ("policy", "runs", "follower", "workflow"),
    [
        ("fail", False, "skipped", False),
        ("cancel", False, "skipped", False),
        ("ignore", True, "complete", True),
        ("continue", True, "complete", True),
        ("only", True, "complete", True),
    ],
)
async def test_what_follows_a_failure(
    app: Ardiq, tasks: Tasks, policy: Any, runs: bool, follower: str, workflow: bool
) -> None:
    tasks.broken.add(1)
    flow = Flow("policies")
    failing = flow.add(tasks.give.prepare(1))
    flow.add(tasks.note.prepare("after")).after(failing, on_failure=policy)
    later = flow.add(tasks.note.options(delay=3600).prepare("later"), name="later")
    job = await app.start(flow)
    async with working(app):
        await eventually(lambda: ended_node(job, "note"))
        if policy != "cancel":
            assert await app.status(f"{job.id}~later") == "scheduled"
            await job.node("later").abort()
        await result_of(job)
    assert (("after",) in tasks.seen) is runs
    assert (await node_states(job))["note"] in (follower, "aborted")
    assert (await node_states(job))["later"] == "aborted"
    assert later.name == "later"


async def ended_node(job: WorkflowJob[Any], name: str) -> bool:
    return await job.node(name).status() == "complete"


@pytest.mark.parametrize("policy", ["ignore", "continue", "only", "fail"])
async def test_what_follows_a_success(app: Ardiq, tasks: Tasks, policy: Any) -> None:
    flow = Flow("policies")
    flow.add(tasks.note.prepare("after")).after(flow.add(tasks.give.prepare(1)), on_failure=policy)
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    assert (await node_states(job))["note"] == ("skipped" if policy == "only" else "complete")


async def test_a_default_in_the_place_of_a_result(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(1)
    flow = Flow("defaults")
    failing = flow.add(tasks.give.prepare(1))
    last = flow.add(tasks.double.prepare(failing.result_or(21)))
    flow.add(tasks.note.prepare(failing.result, "none")).after(failing, on_failure="ignore")
    job = await app.start(flow, output=last)
    async with working(app):
        assert await job.value(timeout=SOON_S) == 42
    assert (None, "none") in tasks.seen


async def test_an_edge_that_does_not_fit_is_named(app: Ardiq, tasks: Tasks) -> None:
    @app.task(max_retries=5)
    async def text() -> Any:
        return "text"

    @app.task(max_retries=5)
    async def texts(number: int) -> Any:
        return "text"

    @app.task(max_retries=5, timeout=60)
    async def limited(value: int) -> None: ...

    @app.task(max_retries=5)
    def in_thread(value: int) -> None: ...

    flow = Flow("misfits")
    source = flow.add(text.prepare(), name="source")
    for number, task in enumerate((tasks.give, limited, in_thread)):
        flow.add(task.prepare(source.result), name=f"one{number}")
    flow.add(tasks.total.prepare([source.result, source.result]), name="list")
    flow.add(tasks.total.prepare(flow.map(texts, [1], name="map").results), name="all")
    flow.add(tasks.x_of.prepare(Point(1, date.today()), other=source.result), name="keyword")
    flow.add(tasks.give.prepare(flow.add(tasks.note.prepare(), name="none").result), name="null")
    job = await app.start(flow)
    async with working(app):
        await result_of(job)
    for name, why in {
        "one0": "argument 'value' does not fit its annotation: Expected `int`, got `str` (the result of 'source')",
        "one1": "argument 'value' does not fit its annotation: Expected `int`, got `str` (the result of 'source')",
        "one2": "argument 'value' does not fit its annotation: Expected `int`, got `str` (the result of 'source')",
        "list": "at `$[0]` (the results of 'source', 'source')",
        "all": "at `$[0]` (the results of 'map')",
        "keyword": "argument 'other' does not fit its annotation: ",
        "null": "Expected `int`, got `null` (the result of 'none')",
    }.items():
        result = await result_of(job.node(name))
        text_ = str(result.value).replace("\\'", "'")
        assert (result.tries, "InvalidArguments" in text_) == (1, True), name
        assert why in text_, name
    letters = {letter.task_id for letter in await app.dead.list()}
    assert letters == {f"{job.id}~{name}" for name in ("one0", "one1", "one2", "list", "all", "keyword", "null")}
    assert {letter.args for letter in await app.dead.list(task="limited")} == {(None,)}


async def test_abort(app: Ardiq, tasks: Tasks) -> None:
    started = asyncio.Event()

    @app.task
    async def long() -> int:
        started.set()
        await asyncio.sleep(3600)
        return 1

    flow = Flow("abort")
    flow.add(tasks.double.prepare(flow.add(long.prepare()).result))
    flow.map(tasks.note.options(priority=None), range(5), max_concurrent=1, name="m").after(flow.add(long.prepare()))
    job = await app.start(flow)
    async with working(app):
        await started.wait()
        assert await job.abort()
        result = await result_of(job)
    assert result.aborted
    assert set((await node_states(job)).values()) == {"aborted"}
    assert await app.dead_count() == 0


async def test_a_dead_letter_that_is_replayed_goes_on(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.update((1, 12))
    flow = Flow("replay")
    numbers = flow.map(tasks.give, range(10, 15))
    failing = flow.add(tasks.give.prepare(1), name="failing")
    last = flow.add(tasks.total.prepare([flow.add(tasks.double.prepare(failing.result)).result]))
    flow.add(tasks.total.prepare(numbers.results), name="sum")
    job = await app.start(flow, output=last)
    async with working(app):
        result = await result_of(job)
        assert not result.success
        assert (await node_states(job))["double"] == "skipped"
        assert await app.dead_count() == 2
        tasks.broken.clear()
        assert await app.dead.requeue(all=True) == 2
        assert await job.value(timeout=SOON_S) == 2
    assert (await result_of(job.node("sum"))).value == sum(range(10, 15))
    assert set((await node_states(job)).values()) == {"complete"}


async def test_an_amended_dead_letter_keeps_its_results(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(2)
    flow = Flow("amend")
    failing = flow.add(tasks.give.prepare(2))
    last = flow.add(tasks.double.prepare(failing.result))
    job = await app.start(flow, output=last)
    async with working(app):
        assert not (await result_of(job)).success
        assert await app.dead.requeue(f"{job.id}~give", args=[3]) == 1
        assert await job.value(timeout=SOON_S) == 6


async def test_an_amended_dead_letter_is_called_with_what_it_is_given(app: Ardiq, tasks: Tasks) -> None:
    """And not with the result that did not fit."""

    @app.task
    async def text() -> Any:
        return "text"

    job = await chain(text.prepare()).then(tasks.double).start()
    async with working(app):
        assert not (await result_of(job)).success
        with pytest.raises(TypeError, match="'value' does not fit"):
            await app.dead.requeue(f"{job.id}~double", args=["text"])
        assert await app.dead.requeue(f"{job.id}~double", args=[21]) == 1
        assert await job.value(timeout=SOON_S) == 42


async def test_the_same_id_twice(app: Ardiq, tasks: Tasks) -> None:
    job = await chain(tasks.give.prepare(1)).start(id="once")
    again = await chain(tasks.give.prepare(1)).start(id="once")
    assert (job.id, job.existed, again.id, again.existed) == ("once", False, "once", True)
    await ended(app, job)
    kept = await chain(tasks.give.prepare(2)).start(id="once")
    assert kept.existed
    assert await kept.value(timeout=SOON_S) == 1
    assert tasks.seen == [1]


async def test_it_is_kept_as_long_as_it_says(app: Ardiq, tasks: Tasks) -> None:
    short = await chain(tasks.give.prepare(1)).then(tasks.double).start(result_ttl=0)
    long = await chain(tasks.give.prepare(1)).then(tasks.double).start(result_ttl=3600)
    async with working(app):
        await eventually(lambda: is_gone(short))
        assert await long.value(timeout=SOON_S) == 2
    assert await short.progress() is None
    ttl_ms = [
        app.context.server.core.command(["PTTL", f"ardiq:{{{app.queue_name}}}:task:{task_id}"])
        for task_id in (long.id, f"{long.id}~give", f"{long.id}~double")
    ]
    assert all(3_500_000 < each <= 3_600_000 for each in ttl_ms), ttl_ms


async def is_gone(job: WorkflowJob[Any]) -> bool:
    return await job.status() == "not_found"


async def test_a_workflow_function(app: Ardiq, tasks: Tasks) -> None:
    @app.workflow
    def sums(flow: Flow, numbers: list[int], plus: int = 0) -> Node[int]:
        """Sums."""
        return flow.add(tasks.total.prepare(flow.map(tasks.double, numbers).results, plus=plus))

    @app.workflow(name="only notes")
    def notes(flow: Flow) -> None:
        flow.add(tasks.note.prepare("note"))

    assert sums.__doc__ == "Sums."
    async with working(app):
        assert await (await sums.start([1, 2], plus=1)).value(timeout=SOON_S) == 7
        job = await sums.options(id="sums-1").start([5])
        assert (job.id, await job.value(timeout=SOON_S)) == ("sums-1", 10)
        blocking = await asyncio.to_thread(notes.start_sync)
        assert await blocking.value(timeout=SOON_S) is None
        assert await asyncio.to_thread(blocking.progress_sync) == (1, 1, 0, 0, 0)
    info = await app.inspect.position(job.id)
    assert info is None or info.place is None


async def test_pictures(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("pictures")
    numbers = flow.map(tasks.give, range(3), name="numbers")
    flow.add(tasks.total.prepare(numbers.results))
    flow.add(tasks.note.prepare()).after(numbers, on_failure="only")
    job = await app.start(flow)
    mermaid = await job.graph()
    assert mermaid.splitlines()[:4] == [
        "flowchart TD",
        '    n0[["numbers: blocked, 0 of 3 done"]]',
        '    n1["total: blocked"]',
        '    n2["note: blocked"]',
    ]
    assert "    n0 --> n1" in mermaid
    assert "    n0 -. only .-> n2" in mermaid
    assert '"numbers" -> "note" [label="only", style=dashed];' in await job.graph("dot")
    nodes = json.loads(await job.graph("json"))["nodes"]
    assert [(node["name"], node["after"]) for node in nodes] == [
        ("numbers", {}), ("total", {"numbers": "fail"}), ("note", {"numbers": "only"})
    ]  # fmt: skip
    with pytest.raises(ValueError, match="format must be one of 'mermaid', 'dot', 'json'"):
        await job.graph("png")  # type: ignore[arg-type]
    await job.abort()


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


async def test_middleware_hooks_limits_batches_and_options(app: Ardiq) -> None:
    seen: list[Any] = []
    app.limit("few", concurrency=1)

    @app.middleware
    async def around(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        seen.append((context.name, context.args, context.headers))
        return await call_next()

    @app.on_enqueue
    def trace(context: Any) -> None:
        context.headers["trace"] = context.task_id.rpartition("~")[2]

    @app.task(limits=app.limit("few", concurrency=1))
    async def few(value: int) -> int:
        return value + 1

    @app.task(batch=Batch(2, wait=0.05))
    async def gather(values: list[int]) -> list[int]:
        if 100 in values:
            raise ItemErrors({values.index(100): ValueError()}, results=[0] * len(values))
        return [10 * value for value in values]

    @app.task
    async def later(values: list[int]) -> int:
        task = current_task()
        assert task is not None
        if task.tries == 1:
            raise Retry("once more", delay_ms=1)
        return sum(values)

    flow = Flow("much")
    firsts = [flow.add(few.prepare(number)) for number in range(3)]
    seconds = [flow.add(gather.prepare(first.result)) for first in firsts]
    last = flow.add(later.options(delay=0.01, expire=60).prepare([each.result for each in seconds]))
    job = await app.start(flow, output=last)
    async with working(app):
        assert await job.value(timeout=SOON_S) == 60
    assert ("later", ([10, 20, 30],), {"trace": "later"}) in seen
    assert ("few", (0,), {"trace": "few"}) in seen
    assert sorted(each for name, args, _ in seen if name == "gather" for each in args[0]) == [1, 2, 3]


async def test_limits_by_key(app: Ardiq, tasks: Tasks) -> None:
    @app.task(limits=Limit(concurrency=1, key="value"))
    async def keyed(value: int, other: int = 0) -> int:
        return other

    flow = Flow("keys")
    number = flow.add(tasks.give.prepare(1))
    flow.add(keyed.prepare(7, other=number.result))
    job = await app.start(flow)
    await ended(app, job)
    assert (await result_of(job)).success
    flow.add(keyed.prepare(number.result), name="wrong")
    with pytest.raises(TypeError, match=r"node 'wrong': the key of .*, not Reference"):
        await app.start(flow)
    flow = Flow("keys")
    flow.map(keyed, [1, 2], name="m")
    with pytest.raises(ValueError, match="node 'm': the calls of a map must have the same limits"):
        await app.start(flow)


async def test_what_is_refused_leaves_nothing(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("wrong")
    one = flow.add(tasks.give.prepare(1))
    two = flow.add(tasks.double.prepare(one.result)).after(one)
    one.after(two)
    with pytest.raises(ValueError, match="goes round in a circle: 'give' is after 'double' is after 'give'"):
        await app.start(flow)
    with pytest.raises(TypeError, match="decorates a `def`, which only fills the flow"):

        @app.workflow
        async def fills(flow: Flow) -> None: ...

    with pytest.raises(ValueError, match="flow 'empty' has no nodes"):
        await app.start(Flow("empty"))
    for options, why in [
        ({"task_id": "x"}, "node 'give' cannot have a task_id"),
        ({"unique": True}, "node 'give' cannot have unique"),
        ({"unique": Unique()}, "node 'give' cannot have a Unique"),
        ({"wait_for_room": 5}, "node 'give' cannot have wait_for_room"),
        ({"priority": "nowhere"}, "node 'give': priority 'nowhere' is not one of"),
    ]:
        wrong = Flow()
        wrong.add(tasks.give.options(**options).prepare(1))
        with pytest.raises(ValueError, match=why):
            await app.start(wrong)
    with pytest.raises(TypeError, match="argument 'value' of task 'give' is the result of node 'give', which is there"):
        await tasks.give.enqueue(one.result)
    assert await app.queue_size() == 0


async def test_a_large_workflow(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("large")
    nodes = [flow.add(tasks.give.prepare(number)) for number in range(998)]
    last = flow.add(tasks.total.prepare([node.result for node in nodes]))
    job = await app.start(flow, output=last)
    await drain(app)
    assert await job.value(timeout=SOON_S) == sum(range(998))
    flow.add(tasks.give.prepare(1))
    flow.add(tasks.give.prepare(1))
    with pytest.raises(ValueError, match="has 1,001 nodes"):
        await app.start(flow)


@pytest.mark.parametrize("how", ["closed", "cancelled", "refused"])
async def test_a_thread_that_waits_for_results_when_its_loop_is_closed(how: str) -> None:
    """Its task is not to fail because of it."""

    async def with_results(claim: Any) -> Any:
        if how == "refused":
            raise ArdiqError("no")
        waits.set()
        await asyncio.sleep(60)

    waits = threading.Event()
    loop = asyncio.new_event_loop()
    tasks: Any = object.__new__(SyncTasks)
    tasks._loop, tasks._attempts = loop, SimpleNamespace(with_results=with_results)
    if how == "closed":
        loop.close()
        assert tasks._with_results(()) is None
        return
    runs = asyncio.ensure_future(asyncio.to_thread(loop.run_forever))
    waiting = asyncio.ensure_future(asyncio.to_thread(tasks._with_results, ()))
    if how == "refused":
        with pytest.raises(ArdiqError, match="no"):
            await waiting
    else:
        await asyncio.to_thread(waits.wait)
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        assert await waiting is None
    loop.call_soon_threadsafe(loop.stop)
    await runs
    loop.close()


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_a_start_by_parts_that_breaks_off(
    app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch, is_sync: bool
) -> None:
    async def start() -> WorkflowJob[Any]:
        flow = Flow("parts", id="parts")
        flow.map(tasks.give, range(2500))
        return await (asyncio.to_thread(app.start_sync, flow) if is_sync else app.start(flow))

    sent = Graph.pages

    def broken(graph: Graph) -> Iterator[Any]:
        yield next(sent(graph))
        raise BrokerError("gone")

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(Graph, "pages", broken)
    with monkeypatch.context() as dead:
        dead.setattr(starting, "_give_up", nothing)
        with pytest.raises(BrokerError, match="gone"):
            await start()
    with pytest.raises(ArdiqError, match="is being created by another call, or by one that broke off"):
        await start()
    job: WorkflowJob[Any] = WorkflowJob(app, "parts")
    assert await job.abort()
    # It makes room.
    with pytest.raises(BrokerError, match="gone"):
        await start()
    assert not (await result_of(job)).success
    assert set((await node_states(job)).values()) == {"aborted"}
    monkeypatch.setattr(Graph, "pages", sent)
    again = await start()
    assert not again.existed
    assert await again.status() == "running"


async def test_a_start_by_parts_that_is_cancelled(app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("parts", id="parts")
    flow.map(tasks.give, range(2500))
    sent = Graph.pages

    def cancelled(graph: Graph) -> Iterator[Any]:
        yield next(sent(graph))
        starts.cancel()
        yield from list(sent(graph))[1:]

    monkeypatch.setattr(Graph, "pages", cancelled)
    starts = asyncio.ensure_future(app.start(flow))
    with pytest.raises(asyncio.CancelledError):
        await starts
    job: WorkflowJob[Any] = WorkflowJob(app, "parts")
    assert set((await node_states(job)).values()) == {"aborted"}


@pytest.mark.parametrize("removed", [False, True], ids=["aborted", "removed"])
@pytest.mark.parametrize("at_page", [1, 3])
async def test_a_start_by_parts_that_others_stop(
    app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch, removed: bool, at_page: int
) -> None:
    flow = Flow("parts", id="parts")
    flow.map(tasks.give, range(2500))
    job: WorkflowJob[Any] = WorkflowJob(app, "parts")
    sent = Graph.pages

    def stopped(graph: Graph) -> Iterator[Any]:
        for number, page in enumerate([*sent(graph), None]):
            if number == at_page:
                job.abort_sync()
                if removed:
                    app.context.server.core.command(["DEL", f"{app.context.server.base}task:parts"])
            if page is not None:
                yield page

    monkeypatch.setattr(Graph, "pages", stopped)
    with pytest.raises(ArdiqError, match="was aborted or removed while it was created"):
        await app.start(flow)


@pytest.mark.parametrize(
    "options",
    [
        {"result_ttl_ms": 0},
        {"result_ttl_ms": -1},
        {"check_types": False},
        {"serializer": pickle.dumps, "deserializer": pickle.loads},
    ],
    ids=["nothing is kept", "all is kept", "unchecked", "serializer"],
)
async def test_with_other_options(make_app: Callable[..., Ardiq], options: dict[str, Any]) -> None:
    app = make_app(**options)

    @app.task
    async def give(value: int) -> int:
        return value

    @app.task(result_ttl=0)
    async def add(values: list[int], also: set[int], pages: Results[int]) -> list[int]:
        return [*values, *sorted(also), *[each async for each in pages]]

    @app.task
    def last(values: list[int], pair: tuple[int, int] = (0, 0)) -> int:
        return sum(values) + sum(pair)

    flow = Flow("options")
    pages = flow.map(give, range(5))
    added = flow.add(add.prepare([flow.add(give.prepare(1)).result], also={2, 3}, pages=pages.result))
    job = await app.start(flow, output=flow.add(last.prepare(added.result, pair=(10, 20))))
    async with working(app):
        assert await job.value(timeout=SOON_S) == 46


async def test_a_failed_workflow_says_why(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(1)
    job = await chain(tasks.give.prepare(1)).then(tasks.double).start()
    async with working(app):
        with pytest.raises(TaskError) as failed:
            await job.value(timeout=SOON_S)
    assert "did not complete" in str(failed.value)
    assert f"{job.id}~give" in str(failed.value)
    async for update in job.watch(timeout=SOON_S):
        assert update.status == "complete"


async def test_retry_runs_all_dead_letters_again(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.update((1, 7))
    flow = Flow()
    items = flow.map(tasks.give, range(3))
    flow.add(tasks.total.prepare(items.results), name="of_map")
    single = flow.add(tasks.give.prepare(7))
    flow.add(tasks.double.prepare(single.result), name="of_node")
    job = await app.start(flow)
    await ended(app, job)
    found = await node_states(job)
    assert (found["of_map"], found["of_node"]) == ("skipped", "skipped")
    tasks.broken.clear()
    tasks.seen.clear()
    assert await job.retry() == 2
    assert await job.retry() == 0
    assert await job.status() == "running"
    async with working(app):
        await result_of(job)
    assert set((await node_states(job)).values()) == {"complete"}
    assert sorted(value for value in tasks.seen if isinstance(value, int)) == [1, 7]


async def test_a_workflow_has_a_time_limit(app: Ardiq, tasks: Tasks) -> None:
    @app.task
    async def wait() -> None:
        await asyncio.sleep(60)

    flow = Flow(timeout=0.2)
    flow.add(tasks.note.prepare()).after(flow.add(wait.prepare()))
    job = await app.start(flow)
    async with working(app):
        result = await result_of(job)
    assert not result.success
    assert set((await node_states(job)).values()) == {"aborted"}
    record = app.context.server.core.call("task", [job.id])
    assert b"timed out after 200 ms" in record
    for wrong in (0, -1, "soon"):
        with pytest.raises((ValueError, TypeError), match="timeout"):
            Flow(timeout=wrong)  # type: ignore[arg-type]
