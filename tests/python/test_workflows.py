"""Workflows: tasks that begin when others have ended, with their results."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
from helpers import SOON_S, eventually, node_states, result_of, working
from noted_tasks import Point, Tasks, ended

from ardiq import (
    Ardiq,
    Batch,
    ExecutionContext,
    Flow,
    ItemErrors,
    Limit,
    Node,
    Retry,
    WorkflowJob,
    chain,
    chord,
    current_task,
    group,
)


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


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
