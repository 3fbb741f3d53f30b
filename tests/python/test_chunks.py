"""Maps in chunks: one task calls the function for several items."""

import asyncio
import dataclasses
import pickle
import threading
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, result_of, task_module, working

from ardiq import Ardiq, Batch, Flow, Results, Retry, current_task
from ardiq.embedded import Server
from ardiq.testing import inline


@dataclasses.dataclass
class Point:
    x: int
    on: date


ON = date(2026, 11, 30)


async def test_results_stay_in_order_whoever_reads_them(app: Ardiq) -> None:
    sizes: dict[str, int] = {}

    @app.task
    async def shift(point: Point) -> Point:
        current = current_task()
        assert current is not None
        sizes[current.task_id] = sizes.get(current.task_id, 0) + 1
        return Point(point.x + 1, point.on)

    @app.task
    async def listed(points: list[Point]) -> list[int]:
        return [point.x for point in points]

    @app.task
    def paged(points: Results[Point]) -> list[int]:
        return [point.x for point in points]

    @app.task
    async def awaited(points: Results[Point]) -> list[int]:
        return [point.x async for point in points]

    flow = Flow()
    points = flow.map(shift, [Point(number, ON) for number in range(25)], chunk=10)
    for task, what in ((listed, points.results), (paged, points.result), (awaited, points.result)):
        flow.add(task.prepare(what))  # type: ignore[arg-type]
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    for name in ("listed", "paged", "awaited"):
        assert (await result_of(job.node(name))).value == list(range(1, 26))
    assert [point async for point in job.results("shift")] == [Point(number, ON) for number in range(1, 26)]
    assert sizes == {f"{job.id}~shift~{at}": size for at, size in enumerate((10, 10, 5))}
    progress = await job.progress()
    assert progress is not None
    assert (progress.total, progress.done) == (6, 6)


async def test_many(app: Ardiq) -> None:
    @app.task
    async def same(number: int) -> int:
        return number

    @app.task
    async def add(numbers: Results[int]) -> int:
        return sum([number async for number in numbers])

    flow = Flow()
    job = await app.start(flow, output=flow.add(add.prepare(flow.map(same, range(150_001), chunk=100).result)))
    async with working(app):
        assert await job.value(timeout=60) == sum(range(150_001))


@pytest.mark.parametrize("kind", ["async", "timed", "wrapped", "thread", "thread, timed"])
async def test_a_chunk_that_fails_runs_again_from_its_start(app: Ardiq, kind: str) -> None:
    seen: list[int] = []
    wrapped: list[Any] = []

    def once_broken(number: int, plus: int) -> int:
        seen.append(number)
        if seen.count(number) == 1 and number == 4:
            raise Retry(delay_ms=0)
        return number + plus

    async def once_broken_async(number: int, plus: int) -> int:
        return once_broken(number, plus)

    if kind == "wrapped":

        @app.middleware
        async def wrap(context: Any, call_next: Any) -> Any:
            wrapped.append(context.args)
            return await call_next()

    timeout = timedelta(minutes=1) if "timed" in kind else None
    fn: Any = once_broken if "thread" in kind else once_broken_async
    task = app.task(max_retries=1, timeout=timeout)(fn)
    flow = Flow()
    flow.starmap(task, [(number, 10) for number in range(6)], chunk=3, max_concurrent=1, name="rows")
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success
    assert seen == [0, 1, 2, 3, 4, 3, 4, 5]
    assert [each async for each in job.results("rows")] == list(range(10, 16))
    if kind == "wrapped":
        assert wrapped == [([[n, 10] for n in rows],) for rows in ((0, 1, 2), (3, 4, 5), (3, 4, 5))]


async def test_the_error_says_which_item_it_was(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail(number: int) -> int:
        if number == 1201:
            raise KeyError(number)
        return number

    @app.task(max_retries=0)
    def misfit(number: Any) -> int:
        return number  # type: ignore[no-any-return]

    flow = Flow()
    flow.map(fail, range(1000, 1500), chunk=100, tolerate=1)
    flow.map(misfit, [1, b"x"], chunk=2)
    job = await app.start(flow)
    strict = Flow()
    strict.map(fail, range(1000, 1500), chunk=100, tolerate=0.1)
    strict_job = await app.start(strict)
    async with working(app):
        await result_of(job)
        assert not (await result_of(strict_job)).success
    kept = [each async for each in job.results("fail")]
    assert kept == [number for number in range(1000, 1500) if not 1200 <= number < 1300]
    assert "item 2 of 100 of its chunk" in field(app, f"{job.id}~fail~2", "traceback")
    nodes = {node.name: node.state async for node in job.nodes()}
    assert nodes == {"fail": "complete", "misfit": "complete"}


def field(app: Ardiq, task_id: str, name: str) -> str:
    found = app.context.server.core.command(["HGET", f"{app.context.server.base}task:{task_id}", name])
    return found.decode()


async def test_arguments_that_do_not_fit_fail_the_chunk_at_once(app: Ardiq) -> None:
    ran: list[Any] = []

    @app.task
    async def take(number: int) -> None:
        ran.append(number)

    flow = Flow()
    flow.map(take, [1, 2], chunk=2)
    job = await app.start(flow)
    key = f"ardiq:{{{app.queue_name}}}:task:{job.id}~take~0"
    core = app.context.server.core
    core.command(["HSET", key, "args", '4: [1],7: ["no"],'])
    async with working(app):
        await result_of(job)
    error = field(app, f"{job.id}~take~0", "error")
    assert "argument 'number' does not fit its annotation" in error
    assert "item 2 of 2 of its chunk" in error
    assert ran == []


async def test_what_cannot_be(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(payload_limit=10_000)

    @app.task
    async def same(text: str) -> str:
        return text

    @app.task
    async def grow(number: int) -> str:
        return "x" * 3_000

    @app.task(batch=Batch(3, wait=1))
    async def gather(numbers: list[int]) -> list[int]:
        return numbers

    flow = Flow()
    for chunk, error in ((0, ValueError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="chunk"):
            flow.map(same, ["a"], chunk=chunk)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has a batch"):
        flow.map(gather, [1], chunk=2)
    flow.map(same, ["x" * 3_000] * 4, chunk=4)
    with pytest.raises(ValueError, match=r"the arguments of a chunk of 4 items are .* over the limit of 10,000"):
        await app.start(flow)
    flow = Flow()
    flow.map(grow, range(4), chunk=4)
    job = await app.start(flow)
    async with working(app):
        assert not (await result_of(job)).success
    assert "over the limit of 10,000" in field(app, f"{job.id}~grow~0", "error")


async def test_a_batch_elsewhere_refuses_chunks(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    sender = make_app(queue_name=app.queue_name)

    @app.task(batch=Batch(3, wait=0.1), max_retries=0)
    async def gather(numbers: list[int]) -> list[int]:
        return numbers

    flow = Flow()
    flow.map(sender.ref("gather"), [1, 2], chunk=2)
    job = await sender.start(flow)
    async with working(app):
        assert not (await result_of(job)).success
    assert "has a batch" in field(app, f"{job.id}~gather~0", "error")


async def test_a_custom_serializer(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads)

    @app.task
    async def turn(value: complex) -> complex:
        return value * 1j

    @app.task
    async def add(values: list[complex]) -> complex:
        return sum(values)

    flow = Flow()
    output = flow.add(add.prepare(flow.map(turn, [1 + 1j, 2 + 0j, 3j], chunk=2).results))
    job = await app.start(flow, output=output)
    async with working(app):
        assert await job.value(timeout=SOON_S) == (3 + 4j) * 1j


async def test_an_aborted_thread_stops_at_the_next_item(app: Ardiq) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []

    @app.task(max_retries=0)
    def wait(number: int) -> None:
        seen.append(number)
        began.set()
        go_on.wait(SOON_S)
        ended.set()

    flow = Flow()
    flow.map(wait, range(5), chunk=5)
    job = await app.start(flow)
    async with working(app):
        await asyncio.to_thread(began.wait, SOON_S)
        await job.abort()
        await result_of(job)
        go_on.set()
        ended.wait(SOON_S)
    assert seen == [0]


CHILD = """
    import os
    from ardiq import Ardiq

    app = Ardiq({url!r}, queue_name={queue!r})

    @app.task(executor="process", max_retries=0)
    def where(number: int) -> list[int]:
        return [number, os.getpid()]
"""


async def test_in_a_child_process(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with task_module(CHILD, server, tmp_path, monkeypatch) as module:
        app = module.app
        flow = Flow()
        flow.map(module.where, range(5), chunk=2)
        job = await app.start(flow)
        async with working(app):
            assert (await result_of(job)).success
        found = [each async for each in job.results("where")]
        assert [each[0] for each in found] == [0, 1, 2, 3, 4]
        assert len({pid for _, pid in found[:2]}) == 1


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")

    @app.task
    async def same(number: int) -> int:
        return number

    @app.task(executor="thread")
    def add(numbers: list[int]) -> int:
        return sum(numbers)

    async with inline(app):
        flow = Flow()
        job = await app.start(flow, output=flow.add(add.prepare(flow.map(same, range(7), chunk=3).results)))
        assert (await result_of(job)).value == 21
