"""Workflows: what is refused, and starts that break off."""

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SOON_S, drain, node_states, result_of, working
from noted_tasks import Tasks, ended

from ardiq import Ardiq, ArdiqError, BrokerError, Flow, Results, Unique, WorkflowJob, chain
from ardiq._client import starting
from ardiq._client.graphs import Graph
from ardiq._execution.threads import SyncTasks


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def test_the_same_id_twice(app: Ardiq, tasks: Tasks) -> None:
    job = await chain(tasks.give.prepare(1)).start(id="once")
    again = await chain(tasks.give.prepare(1)).start(id="once")
    assert (job.id, job.existed, again.id, again.existed) == ("once", False, "once", True)
    await ended(app, job)
    kept = await chain(tasks.give.prepare(2)).start(id="once")
    assert kept.existed
    assert await kept.value(timeout=SOON_S) == 1
    assert tasks.seen == [1]


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
