"""Workflows inline, in child processes, on the command line."""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SOON_S, result_of, task_module, working

from ardiq import Ardiq, Batch, Flow, Results, chain, chord, group
from ardiq.embedded import Server
from ardiq.testing import Clock, all_enqueued, assert_enqueued, inline

MODULE = f"{__name__}:workflow_app"


def tasks_of(app: Ardiq) -> Any:
    @app.task(max_retries=0)
    async def give(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    @app.task(max_retries=0)
    def total(values: list[int], plus: int = 0) -> int:
        return sum(values) + plus

    @app.task
    async def count(values: Results[int]) -> int:
        return len([each async for each in values])

    @app.task
    def count_sync(values: Results[int]) -> int:
        return len(list(values))

    @app.task(batch=Batch(3, wait=5))
    async def gather(values: list[int]) -> list[int]:
        return [10 * each for each in values]

    return SimpleNamespace(give=give, total=total, count=count, count_sync=count_sync, gather=gather)


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = tasks_of(app)
    async with inline(app):
        job = await chain(tasks.give.prepare(1)).then(tasks.gather).then(tasks.give).start()
        assert (await result_of(job)).value == 10
        assert await (await chord([tasks.give.prepare(n) for n in range(5)], tasks.total, plus=1).start()).value() == 11

        flow = Flow("inline")
        numbers = flow.map(tasks.give, range(3000), max_concurrent=700)
        for task in (tasks.count, tasks.count_sync):
            flow.add(task.prepare(numbers.result))
        job = await app.start(flow, output=flow.add(tasks.total.prepare(numbers.results)))
        assert await job.status() == "complete"
        assert await job.value() == sum(range(3000))
        assert await job.node("count").value() == await job.node("count_sync").value() == 3000

        flow = Flow("failing")
        flow.add(tasks.total.prepare([flow.add(tasks.give.prepare(-1)).result]))
        flow.add(tasks.give.prepare(7), name="only").after(flow.members["give"], on_failure="only")
        job = await app.start(flow)
        assert {node.name: node.state async for node in job.nodes()} == {
            "give": "failed", "total": "skipped", "only": "complete"
        }  # fmt: skip
        assert await app.dead.requeue(f"{job.id}~give", args=[5]) == 1
        assert (await job.node("total").value(), await job.status()) == (5, "complete")
        assert (await job.progress()) == (3, 3, 0, 0, 0)


async def test_inline_with_a_clock() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = tasks_of(app)
    clock = Clock()
    async with inline(app, clock=clock):
        flow = Flow("later")
        first = flow.add(tasks.give.prepare(1))
        last = flow.add(tasks.give.options(delay=3600, expire=7200).prepare(first.result))
        job = await app.start(flow, output=last)
        assert await job.status() == "running"
        assert await job.node("give_2").status() == "scheduled"
        await clock.advance(3600)
        assert await job.value() == 1


async def test_what_was_enqueued(app: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("assertions")
    first = flow.add(tasks.give.prepare(1))
    flow.map(tasks.give, [2], name="map").after(first)
    flow.add(tasks.give.prepare(first.result))
    await app.start(flow)
    assert_enqueued(tasks.give, 1)
    assert {(info.fn_name, info.args, info.status) for info in all_enqueued(app)} == {
        ("give", (1,), "queued"), ("give", (None,), "blocked")
    }  # fmt: skip


async def test_another_queue_of_the_app(app: Ardiq) -> None:
    tasks = tasks_of(app)
    other = app.queue(f"{app.queue_name}-other")
    flow = Flow("other")
    job = await other.start(flow, output=flow.add(tasks.total.prepare(flow.map(tasks.give, range(5)).results)))
    run = asyncio.create_task(app.run([other.queue_name]))
    assert await job.value(timeout=SOON_S) == 10
    app.stop()
    await run
    assert await app.status(job.id) == "not_found"


PROCESSES = """
    from ardiq import Ardiq, Results

    app = Ardiq("{url}", "{queue}")

    @app.task(executor="process")
    def double(value: int) -> int:
        return 2 * value

    @app.task
    async def large(value: int) -> str:
        return str(value) * 100_000

    @app.task(executor="process", max_retries=0)
    def lengths(texts: list[str], numbers: Results[int], bad: int = 0) -> list[int]:
        return [*map(len, texts), sum(numbers), bad]
"""


async def test_a_task_of_another_app_is_told_where_it_is_to_run(app: Ardiq) -> None:
    other = Ardiq(app.redis_url, queue_name=f"{app.queue_name}-theirs")

    @other.task
    async def theirs(value: int) -> int:
        return value

    flow = Flow("mixed", id="mixed-1")
    flow.add(tasks_of(app).give.prepare(1))
    flow.add(theirs.prepare(1))
    told = (
        f"node 'theirs' is of another app, with the queue {other.queue_name!r}, and its workflow is for "
        f"{app.queue_name!r}: for it to run there, add it as theirs.options(queue={other.queue_name!r})"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        await app.start(flow)
    flow = Flow("mixed", id="mixed-1")
    flow.add(theirs.options(queue=other.queue_name).prepare(1))
    job = await app.start(flow)
    assert [node.queue async for node in job.nodes()] == [other.queue_name]


async def test_in_child_processes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with task_module(PROCESSES, server, tmp_path, monkeypatch) as module:
        app: Ardiq = module.app
        flow = Flow("processes")
        numbers = flow.map(module.double, range(5))
        texts = [flow.add(module.large.prepare(number)).result for number in range(3)]
        last = flow.add(module.lengths.prepare(texts, numbers.result))
        flow.add(module.lengths.prepare([], numbers.result, bad=flow.members["large"].result), name="bad")  # type: ignore[attr-defined]
        job = await app.start(flow, output=last)
        async with working(app):
            assert await job.node("lengths").value(timeout=SOON_S) == [100_000] * 3 + [20, 0]
            assert "(the result of 'large')" in str((await result_of(job.node("bad"))).value).replace("\\'", "'")


@pytest.fixture
def app(make_app: Callable[..., Ardiq], monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app = make_app()
    monkeypatch.setattr(sys.modules[__name__], "workflow_app", app, raising=False)
    return app


def test_the_command_line(app: Ardiq, ardiq: Callable[..., tuple[int, str]]) -> None:
    tasks = tasks_of(app)
    flow = Flow("site", id="site-1")
    numbers = flow.map(tasks.give, range(-1, 3), name="numbers")
    flow.add(tasks.total.prepare(numbers.results))
    flow.add(tasks.give.prepare(1)).after(numbers, on_failure="ignore")
    app.start_sync(flow)
    assert ardiq("workflow", "list", MODULE)[1].splitlines()[1].split()[:2] == ["site-1", "site"]
    [listed] = json.loads(ardiq("workflow", "list", MODULE, "--json")[1])
    assert (listed["id"], listed["state"], listed["progress"]["total"]) == ("site-1", "running", 6)
    code, text = ardiq("task", "show", MODULE, "site-1")
    assert (code, "site" in text) == (0, True)
    assert "blocked, until its tasks have ended" in text
    code, text = ardiq("task", "show", MODULE, "site-1~total")
    assert (code, "blocked, waits for numbers\ntotal(<results of numbers>)" in text) == (0, True)
    shown = json.loads(ardiq("task", "show", MODULE, "site-1~total", "--json")[1])
    assert (shown["after"], shown["inputs"], "needs" in shown) == ({"numbers": "fail"}, {"0": "*numbers"}, False)

    async def work(id: str) -> None:
        async with working(app):
            await app.result(id, timeout=SOON_S)

    asyncio.run(work("site-1"))
    assert ardiq("workflow", "list", MODULE, "-n", "5", "--json") == (0, "[]\n")
    code, text = ardiq("workflow", "show", MODULE, "site-1")
    assert code == 0
    assert "failed, 4 of 6 done, 1 failed, 1 skipped" in text
    assert "give, 4 calls" in text
    assert "numbers (ignore)" in text
    shown = json.loads(ardiq("workflow", "show", MODULE, "site-1", "--json")[1])
    assert [node["state"] for node in shown["nodes"]] == ["failed", "skipped", "complete"]
    assert shown["nodes"][2]["after"] == {"numbers": "ignore"}
    assert [node.get("result") for node in shown["nodes"]] == [None, None, 1]
    assert "result" not in shown
    assert ardiq("workflow", "graph", MODULE, "site-1")[1].startswith("flowchart TD\n")
    assert ardiq("workflow", "graph", MODULE, "site-1", "--format", "dot")[1].startswith('digraph "site-1" {\n')
    chained = chain(tasks.give.prepare(17)).then(tasks.give).start_sync()
    asyncio.run(work(chained.id))
    shown = json.loads(ardiq("workflow", "show", MODULE, chained.id, "--json")[1])
    assert (shown["result"], [node["result"] for node in shown["nodes"]]) == (17, [17, 17])
    text = ardiq("workflow", "show", MODULE, chained.id)[1]
    assert ("result 17" in text, text.splitlines()[-1].endswith(" 17")) == (True, True)
    code, text = ardiq("workflow", "show", MODULE, "nothing")
    assert (code, "there is no such workflow" in text) == (1, True)
    assert json.loads(ardiq("workflow", "show", MODULE, "nothing", "--json")[1]) == {
        "id": "nothing",
        "state": "not_found",
    }
    for action in ("show", "graph", "abort", "pause", "resume", "retry"):
        for task in ("site-1~total", "site-1~numbers"):
            told = f"{task}: it is a task, no workflow: `ardiq task show` has it\n"
            assert ardiq("workflow", action, MODULE, task) == (1, told)
    assert ardiq("workflow", "list", MODULE) == (
        0, "all workflows have ended: `ardiq workflow show` has those that are kept\n"
    )  # fmt: skip
    code, text = ardiq("task", "show", MODULE, "site-1")
    assert (code, text.splitlines()[1]) == (0, "failed, kept as long as it has dead letters")
    assert "lane" not in text
    assert ardiq("task", "requeue", MODULE, "site-1") == (
        1, "site-1: it is a workflow; `ardiq workflow retry` runs the dead letters of one again\n"
    )  # fmt: skip
    assert "it is a map; `ardiq workflow retry`" in ardiq("task", "requeue", MODULE, "site-1~numbers")[1]
    code, text = ardiq("dlq", "list", MODULE)
    assert (code, "site-1~numbers~0" in text) == (0, True)
    assert ardiq("task", "show", MODULE, "site-1~numbers~0")[0] == 0
    assert ardiq("status", MODULE)[0] == 0
    assert ardiq("fsck", MODULE)[0] == 0
    assert ardiq("workflow", "retry", MODULE, "site-1") == (0, "1 dead letter requeued\n")
    assert ardiq("workflow", "retry", MODULE, "site-1") == (0, "site-1: it has no dead letters\n")

    rows = '{"map": {"size": 0, "max_concurrent": 0, "tolerate": 0, "keep_results": true}}'
    created = ["parts", '{"is_open": true, "result_ttl_ms": 60000}', "rows", "give", "default", "", "", rows]
    assert app.context.server.core.call("workflow_create", created) == b"created"
    assert "0 of 0 done, being created" in ardiq("workflow", "list", MODULE)[1]
    assert "being created: nothing runs before all parts are there" in ardiq("workflow", "show", MODULE, "parts")[1]
    assert json.loads(ardiq("workflow", "show", MODULE, "parts", "--json")[1])["is_building"] is True
    assert ardiq("workflow", "abort", MODULE, "parts")[0] == 0
    assert "created" not in ardiq("workflow", "show", MODULE, "parts")[1]


def test_blocking_calls(app: Ardiq) -> None:
    tasks = tasks_of(app)
    job = group(tasks.give.prepare(1), tasks.give.prepare(2)).then(tasks.total).start_sync()
    assert (job.status_sync(), job.node("total").status_sync()) == ("running", "blocked")
    assert job.info_sync() is not None
    assert job.node("total").info_sync() is not None

    async def work() -> None:
        async with working(app):
            await job.result(timeout=SOON_S)

    asyncio.run(work())
    assert job.value_sync(timeout=SOON_S) == 3
    assert job.abort_sync() is False
