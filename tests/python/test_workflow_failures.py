"""Workflows: what follows from the end of a node, and how dead letters run again."""

import asyncio
from typing import Any

import pytest
from helpers import SOON_S, eventually, node_states, result_of, working
from noted_tasks import Tasks, ended

from ardiq import Ardiq, Flow, TaskError, WorkflowJob, chain


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


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
