"""Compensations: what completed is undone, the last first, if its workflow comes to nothing."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, node_states, result_of, working

from ardiq import Ardiq, Flow, Node, Results, WorkflowJob
from ardiq.testing import inline

MODULE = f"{__name__}:undone_app"


class Tasks:
    """Tasks of an app, what they were called with, and which of them fail."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.broken: set[str] = set()
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        seen, broken, begun, may_end = self.seen, self.broken, self.begun, self.may_end

        @app.task(max_retries=0)
        async def do(name: str, after: Any = None) -> str:
            seen.append(name)
            if name in broken:
                raise ValueError(name)
            return f"<{name}>"

        @app.task(max_retries=0)
        async def undo(name: str, results: Any = None) -> None:
            seen.append((f"-{name}", results))
            if f"-{name}" in broken:
                raise ValueError(name)

        @app.task(max_retries=0)
        async def stubborn(name: str) -> str:
            begun.set()
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                seen.append(f"{name} goes on")
            return f"<{name}>"

        @app.task
        async def undo_all(results: Results[str]) -> None:
            seen.append([each async for each in results])

        self.do, self.undo, self.stubborn, self.undo_all = do, undo, stubborn, undo_all


@pytest.fixture
def app(make_app: Callable[..., Ardiq], monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app = make_app()
    monkeypatch.setattr(sys.modules[__name__], "undone_app", app, raising=False)
    return app


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


def saga(flow: Flow, tasks: Tasks) -> Node[str]:
    """Three nodes, one after the other; the first two can be undone."""
    held = flow.add(tasks.do.prepare("held"), name="held").compensate(tasks.undo.prepare("held"), name="release")
    paid = flow.add(tasks.do.prepare("paid"), name="paid").after(held)
    paid.compensate(tasks.undo.prepare("paid", [held.result, paid.result]), name="refund")
    return flow.add(tasks.do.prepare("ship", paid.result), name="ship")


UNDONE = [("-paid", ["<held>", "<paid>"]), ("-held", None)]


async def test_what_completed_is_undone_the_last_first(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add("ship")
    flow = Flow("order")
    job = await app.start(flow, output=saga(flow, tasks))
    assert await node_states(job) == {
        "held": "queued", "release": "blocked", "paid": "blocked", "refund": "blocked", "ship": "blocked"
    }  # fmt: skip
    async with working(app):
        result = await result_of(job)
    assert tasks.seen == ["held", "paid", "ship", *UNDONE]
    assert (result.success, "1 of 3 tasks did not complete, first" in str(result.value)) == (False, True)
    assert await node_states(job) == {
        "held": "complete", "release": "complete", "paid": "complete", "refund": "complete", "ship": "failed"
    }  # fmt: skip
    assert await job.progress() == (3, 2, 1, 0, 0)
    assert [(node.name, node.compensates) async for node in job.nodes() if node.compensates] == [
        ("release", "held"),
        ("refund", "paid"),
    ]
    assert "-. undo .->" in await job.graph()
    # There is no way back from there.
    assert await job.retry() == 0
    assert [letter.task_id for letter in await app.dead.list()] == [f"{job.id}~ship"]


async def test_what_completes_needs_none(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("order")
    job = await app.start(flow, output=saga(flow, tasks))
    async with working(app):
        assert await job.value(timeout=SOON_S) == "<ship>"
    assert tasks.seen == ["held", "paid", "ship"]
    assert [state for name, state in (await node_states(job)).items() if name in ("release", "refund")] == [
        "skipped"
    ] * 2


async def test_a_compensation_that_fails_is_waited_for(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.update(("ship", "-paid"))
    flow = Flow("order")
    job = await app.start(flow, output=saga(flow, tasks))
    async with working(app):
        await eventually(lambda: is_dead(app, 2))
        assert await job.status() == "running"
        assert await node_states(job) == {
            "held": "complete", "release": "blocked", "paid": "complete", "refund": "failed", "ship": "failed"
        }  # fmt: skip
        tasks.broken.clear()
        assert await job.retry() == 1  # the compensation alone: what failed before does not run again
        assert not (await result_of(job)).success
    assert tasks.seen == ["held", "paid", "ship", UNDONE[0], *UNDONE]
    # It is kept as long as that is a dead letter, and runs alone.
    assert await app.dead.requeue(f"{job.id}~ship")
    async with working(app):
        assert (await result_of(job.node("ship"))).value == "<ship>"
    assert not (await result_of(job)).success


async def is_dead(app: Ardiq, count: int) -> bool:
    return await app.dead_count() == count


@pytest.mark.parametrize("how", ["discard", "abort"])
async def test_the_rest_goes_on_without_one(app: Ardiq, tasks: Tasks, how: str) -> None:
    tasks.broken.update(("ship", "-paid"))
    flow = Flow("order")
    job = await app.start(flow, output=saga(flow, tasks))
    async with working(app):
        await eventually(lambda: is_dead(app, 2))
        if how == "discard":
            assert await app.dead.discard(f"{job.id}~refund")
        else:
            assert await job.abort()
        result = await result_of(job)
    assert (result.success, result.aborted) == (False, how == "abort")
    assert tasks.seen == ["held", "paid", "ship", UNDONE[0], *([UNDONE[1]] if how == "discard" else [])]


async def test_what_failed_before_anything_could_be_undone_runs_again(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add("held")
    flow = Flow("order")
    job = await app.start(flow, output=saga(flow, tasks))
    async with working(app):
        assert not (await result_of(job)).success
        tasks.broken.add("ship")
        tasks.broken.discard("held")
        assert await job.retry() == 1
        await eventually(lambda: is_dead(app, 1))
        assert not (await result_of(job)).success
    assert tasks.seen == ["held", "held", "paid", "ship", *UNDONE]


@pytest.mark.parametrize("compensate", [True, False])
async def test_abort(app: Ardiq, tasks: Tasks, compensate: bool) -> None:
    """A task that completes although it was asked to stop is undone, too."""
    flow = Flow("order")
    held = flow.add(tasks.do.prepare("held")).compensate(tasks.undo.prepare("held"))
    long = flow.add(tasks.stubborn.prepare("long")).after(held).compensate(tasks.undo.prepare("long"))
    job = await app.start(flow, output=flow.add(tasks.do.prepare("last", long.result)))
    async with working(app):
        await tasks.begun.wait()
        assert await job.abort(compensate=compensate)
        assert (await result_of(job)).aborted
    undone = [each for each in tasks.seen if isinstance(each, tuple)]
    is_complete = (await node_states(job))["stubborn"] == "complete"
    assert undone == ([("-long", None)] * is_complete + [("-held", None)] if compensate else [])
    # It is aborted already.
    assert await job.abort(compensate=True)
    assert len([each for each in tasks.seen if isinstance(each, tuple)]) == len(undone)


async def test_a_time_limit(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("order", timeout=0.5)
    held = flow.add(tasks.do.prepare("held")).compensate(tasks.undo.prepare("held"))
    job = await app.start(flow, output=flow.add(tasks.do.options(delay=3600).prepare("later")).after(held))
    async with working(app):
        result = await result_of(job)
    assert tasks.seen == ["held", ("-held", None)]
    assert (result.success, "timed out" in str(result.value)) == (False, True)


async def test_maps_and_pauses(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add("last")
    flow = Flow("order")
    rows = flow.map(tasks.do, ["a", "b"], max_concurrent=1, name="rows")
    rows.compensate(tasks.undo_all.prepare(rows.result), name="clean")
    flow.add(tasks.do.prepare("last")).after(rows)
    job = await app.start(flow)
    await drain(app)
    assert not (await result_of(job)).success
    assert tasks.seen == ["a", "b", "last", ["<a>", "<b>"]]

    again = await app.start(other := Flow("again"), output=saga(other, tasks))
    tasks.broken.add("ship")
    tasks.seen.clear()
    async with working(app):
        assert await again.pause()
        assert await again.abort(compensate=True)
        assert await eventually(lambda: ended(again))
    assert tasks.seen == []


async def ended(job: WorkflowJob[Any]) -> bool:
    return await job.status() != "running"


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = Tasks(app)
    tasks.broken.add("ship")
    async with inline(app):
        flow = Flow("order")
        job = await app.start(flow, output=saga(flow, tasks))
        assert not (await result_of(job)).success
        assert tasks.seen == ["held", "paid", "ship", *UNDONE]


def test_blocking_calls(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("order")
    job = app.start_sync(flow, output=saga(flow, tasks))
    assert job.abort_sync(compensate=True)
    result = job.result_sync()
    assert result is not None
    assert result.aborted
    nobody: WorkflowJob[Any] = WorkflowJob(app, "nobody")
    assert not nobody.abort_sync(compensate=True)


def test_what_is_refused(app: Ardiq, tasks: Tasks) -> None:
    def refused(fill: Callable[[Flow], Any], why: str, kind: type[Exception] = ValueError) -> None:
        flow = Flow("x")

        def start() -> None:
            fill(flow)
            app.start_sync(flow)

        with pytest.raises(kind, match=why):
            start()

    def add(flow: Flow, name: str = "a") -> Node[str]:
        return flow.add(tasks.do.prepare(name), name=name)

    undo = tasks.undo.prepare("a")
    refused(lambda flow: add(flow).compensate(undo).compensate(undo), "'a' has a compensation already: 'undo'")
    refused(
        lambda flow: add(flow).compensate(tasks.undo.prepare("x", add(flow, "b").result)), "takes the result of 'b'"
    )
    refused(lambda flow: add(flow).compensate(tasks.undo.prepare("x", add(Flow("y")).result)), "of another flow")
    refused(lambda flow: add(flow).compensate(tasks.undo.options(expire=5).prepare("x")), "cannot have an expiry")
    refused(lambda flow: add(flow).compensate("undo"), "PreparedTask|prepare", TypeError)  # type: ignore[arg-type]
    refused(lambda flow: add(flow).compensate(undo, name="a"), "there is a node 'a'")


def test_the_command_line(app: Ardiq, tasks: Tasks, ardiq: Callable[..., tuple[int, str]]) -> None:
    tasks.broken.update(("ship", "-paid"))
    flow = Flow("order", id="order-1")
    app.start_sync(flow, output=saga(flow, tasks))
    assert "the compensation of held: runs if" in ardiq("task", "show", MODULE, "order-1~release")[1]
    asyncio.run(drain(app))
    code, text = ardiq("workflow", "show", MODULE, "order-1")
    assert (code, "held (undo)" in text, "running, 2 of 3 done, 1 failed" in text) == (0, True, True)
    assert "compensation refund failed, and the rest waits: retry, or discard it" in text
    nodes = json.loads(ardiq("workflow", "show", MODULE, "order-1", "--json")[1])["nodes"]
    assert {node["name"]: node["after"] for node in nodes}["refund"] == {"paid": "undo"}
    assert ardiq("fsck", MODULE)[0] == 0
    tasks.broken.clear()
    assert ardiq("workflow", "retry", MODULE, "order-1") == (0, "1 dead letter requeued\n")
    asyncio.run(drain(app))
    assert json.loads(ardiq("workflow", "show", MODULE, "order-1", "--json")[1])["state"] == "failed"

    other = Flow("order", id="order-2")
    app.start_sync(other, output=saga(other, tasks))
    code, text = ardiq("workflow", "abort", MODULE, "order-2", "--compensate")
    assert (code, text) == (0, "order-2: aborted, or told to stop, and what completed is undone\n")
    assert ardiq("fsck", MODULE)[0] == 0
