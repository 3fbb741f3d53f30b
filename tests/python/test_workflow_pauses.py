"""Workflows that are paused: nothing of them starts, and nothing is lost."""

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, node_states, result_of, working

from ardiq import Ardiq, Flow, Limit, WorkflowJob
from ardiq.testing import inline

MODULE = f"{__name__}:paused_app"


class Tasks:
    """Tasks of an app, and what they were called with."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        seen, begun, may_end = self.seen, self.begun, self.may_end

        @app.task(max_retries=0)
        async def give(value: int) -> int:
            seen.append(value)
            return value

        @app.task(max_retries=0)
        async def wait(value: int) -> int:
            begun.set()
            await may_end.wait()
            return value

        self.give, self.wait = give, wait


@pytest.fixture
def app(make_app: Callable[..., Ardiq], monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app = make_app()
    monkeypatch.setattr(sys.modules[__name__], "paused_app", app, raising=False)
    return app


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def test_what_runs_goes_on_and_nothing_else_starts(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("order", id="order-17")
    first = flow.add(tasks.wait.prepare(1))
    last = flow.add(tasks.give.prepare(first.result))
    flow.map(tasks.give, [7, 8, 9], max_concurrent=2, name="rows").after(first)
    job = await app.start(flow, output=last)
    async with working(app):
        await tasks.begun.wait()
        assert await job.pause()
        tasks.may_end.set()
        assert (await result_of(job.node("wait"))).value == 1
        await eventually(lambda: held(app, 3))
        assert await node_states(job) == {"wait": "complete", "give": "held", "rows": "blocked"}
        # Plain tasks start as ever.
        assert await tasks.give.request(5) == 5
        assert await job.status() == "running"
        [pause] = await app.pauses()
        assert (pause.id, pause.workflow, pause.task, pause.held) == ("order-17~*", "order-17", None, 3)
        assert tasks.seen == [5]
        assert await job.resume()
        assert await job.value(timeout=SOON_S) == 1
    assert tasks.seen == [5, 1, 7, 8, 9]
    assert not await job.resume()
    assert await app.pauses() == []


async def held(app: Ardiq, count: int) -> bool:
    return [pause.held for pause in await app.pauses()] == [count]


async def test_what_cannot_be_paused(app: Ardiq, tasks: Tasks) -> None:
    job = await app.start(flow := Flow("x", id="x"), output=flow_of(flow, tasks))
    other: WorkflowJob[Any] = WorkflowJob(app, "nobody")
    assert not await other.pause()
    assert not await other.resume()
    assert not await job.resume()
    await drain(app)
    assert not await job.pause()


def flow_of(flow: Flow, tasks: Tasks) -> Any:
    return flow.add(tasks.give.prepare(1))


async def test_a_pause_ends_with_its_workflow(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("x")
    flow.map(tasks.give, range(5), max_concurrent=3)
    job = await app.start(flow)
    assert await job.pause()
    async with working(app):
        await eventually(lambda: held(app, 3))
        assert await job.abort()
        assert (await result_of(job)).aborted
        await eventually(lambda: no_pauses(app))
    assert tasks.seen == []
    assert (await app.inspect.counts()).held == 0


async def no_pauses(app: Ardiq) -> bool:
    return not await app.pauses()


async def test_more_than_a_portion_is_held(app: Ardiq, tasks: Tasks) -> None:
    limited = app.task(name="limited", limits=[Limit("all", concurrency=50)])(tasks.give.fn)
    flow = Flow("x")
    rows = flow.map(tasks.give, range(1500))
    flow.map(limited, range(1500, 1600))
    job = await app.start(flow)
    assert await job.pause()
    async with working(app):
        await eventually(lambda: held(app, 1600))
        assert await job.resume()
        await result_of(job)
    assert sorted(tasks.seen) == list(range(1600))
    assert rows.name == "give"


def test_blocking_calls(app: Ardiq, tasks: Tasks) -> None:
    flow = Flow("x")
    job = app.start_sync(flow, output=flow.add(tasks.give.prepare(1)))
    assert job.pause_sync()
    assert [pause.workflow for pause in app.pauses_sync()] == [job.id]
    asyncio.run(drain(app))
    assert job.status_sync() == "running"
    assert job.node("give").status_sync() == "held"
    assert job.resume_sync()
    assert not job.resume_sync()
    asyncio.run(drain(app))
    assert job.value_sync() == 1
    assert not job.pause_sync()


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = Tasks(app)
    async with inline(app):
        flow = Flow("x")
        job = await app.start(flow, output=flow.add(tasks.give.options(delay_ms=1000).prepare(1)))
        assert await job.value() == 1
        assert not await job.pause()
        assert not await job.resume()


def test_the_command_line(app: Ardiq, tasks: Tasks, ardiq: Callable[..., tuple[int, str]]) -> None:
    flow = Flow("site", id="site-1")
    app.start_sync(flow, output=flow.add(tasks.give.prepare(1)))
    assert ardiq("workflow", "pause", MODULE, "site-1") == (0, "site-1: paused; what runs goes on\n")
    asyncio.run(drain(app))
    assert re.search("running, 0 of 1 done\n.*\npaused since 2.*: none", ardiq("workflow", "show", MODULE, "site-1")[1])
    assert "0 of 1 done, paused" in ardiq("workflow", "list", MODULE)[1]
    assert "held: its workflow is paused" in ardiq("task", "show", MODULE, "site-1~give")[1]
    [pause] = json.loads(ardiq("status", MODULE, "--json")[1])["pauses"]
    shown = json.loads(ardiq("workflow", "show", MODULE, "site-1", "--json")[1])
    assert (pause["workflow"], pause["held"], pause["paused_at"]) == ("site-1", 1, shown["paused_at"])
    assert re.search("workflow site-1 +1 ", ardiq("status", MODULE)[1])
    [queue] = [each for each in json.loads(ardiq("queues", MODULE, "--json")[1]) if each["queue"] == app.queue_name]
    assert not queue["paused"]
    assert ardiq("fsck", MODULE)[0] == 0
    found = re.search("workflow site-1: paused since 2.*\n +.*: `(.*)`", ardiq("doctor", MODULE)[1])
    assert found
    _, *words = shlex.split(found[1])
    assert ardiq(*[MODULE if word == "MODULE:ATTR" else word for word in words]) == (0, "site-1: goes on\n")
    assert ardiq("workflow", "resume", MODULE, "site-1") == (1, "site-1: it is not paused\n")
    assert ardiq("workflow", "pause", MODULE, "nobody")[0] == 1
    asyncio.run(drain(app))
    assert ardiq("workflow", "pause", MODULE, "site-1") == (1, "site-1: it had ended already\n")
    assert "paused_at" not in json.loads(ardiq("workflow", "show", MODULE, "site-1", "--json")[1])
