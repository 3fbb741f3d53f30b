"""Workflows among tasks of other people, damage and lost replies."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import SOON_S, awaited, drain, eventually, result_of, working
from proxy import Proxy
from topologies import Node, free_port

from ardiq import Ardiq, BrokerError, Flow
from ardiq.cli._repair import mend
from ardiq.cli.fsck import Check
from ardiq.errors import BadArgument


async def test_dead_letters_that_are_gone_are_counted_again(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail(number: int) -> None:
        raise ValueError(number)

    flow = Flow("rows", id="rows", result_ttl=3600)
    flow.map(fail, range(1_200), tolerate=2_000)
    job = await app.start(flow)
    server = app.context.server
    core, record = server.core, f"{server.base}task:rows"
    async with working(app):
        assert (await result_of(job)).success
    assert [*Check(core).findings()] == []
    dead = core.command(["ZRANGE", f"{server.base}dead", 0, -1])
    assert len(dead) == 1_200
    core.command(["DEL", f"{server.base}dead", *(f"{server.base}task:{id.decode()}" for id in dead)])
    [finding] = Check(core).findings()
    assert (finding.kind, finding.id, finding.detail) == ("wrong_dead", "rows", "1200")
    assert core.command(["TTL", record]) == -1
    answers = [answer for _, answer in mend(core, 60_000)]
    assert set(answers) <= {"mended", "sound"}
    async with working(app):
        await eventually(lambda: 0 < core.command(["TTL", record]) <= 3600)
    assert [*Check(core).findings()] == []


async def test_a_task_with_the_id_of_a_call_is_left_alone(app: Ardiq) -> None:
    goes_on = asyncio.Event()

    @app.task
    async def mine(word: str) -> str:
        await goes_on.wait()
        return word

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    other = await mine.options(task_id="w~rows~1").enqueue("mine")
    flow = Flow("w", id="w")
    rows = flow.map(double, range(4), name="rows")
    job = await app.start(flow)
    for name in ("rows~2", "rows~9", "other"):
        with pytest.raises(BadArgument, match=rf"the id w~{name} is a place in workflow w: choose another one"):
            await mine.options(task_id=f"w~{name}").enqueue("mine")
    async with working(app):
        server = app.context.server
        await eventually(lambda: server.core.command(["HLEN", f"{server.base}results:w~rows"]) == 1)
        waits = asyncio.ensure_future(other.value(timeout=SOON_S))
        goes_on.set()
        assert await waits == "mine"
        assert (await result_of(job)).success
    assert [each async for each in job.results(rows.name)] == [0, 2, 4, 6]


async def test_a_workflow_does_not_take_the_place_of_a_task(app: Ardiq) -> None:
    @app.task
    async def work() -> str:
        return "done"

    for id in ("w", "v~work"):
        job = await work.options(task_id=id).enqueue()
        for _ in range(2):
            flow = Flow("new", id=id.partition("~")[0])
            flow.add(work.prepare())
            with pytest.raises(BadArgument, match=f"there is a task {id} already, which is no"):
                await app.start(flow)
            await drain(app)
        assert await job.value() == "done"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[Proxy, Node]]:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    yield proxy, node
    proxy.close()
    node.kill()


@pytest.mark.parametrize("result_ttl", [0, 3600])
@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_a_start_whose_reply_is_lost_is_repeated_where_the_workflow_is_kept(
    proxy: tuple[Proxy, Node], result_ttl: int, is_sync: bool
) -> None:
    between, node = proxy
    app, direct = Ardiq(f"redis://127.0.0.1:{between.port}"), Ardiq(node.url)
    ran = []

    @direct.task
    async def work(number: int) -> None:
        ran.append(number)

    def start(number: int) -> Callable[..., object]:
        flow = Flow("once", result_ttl=result_ttl)
        flow.add(work.prepare(number))
        return lambda: (app.start_sync if is_sync else app.start)(flow)

    await awaited(start(1))
    between.truncate(0)
    if result_ttl:
        await awaited(start(2))
    else:
        with pytest.raises(BrokerError) as unknown:
            await awaited(start(2))
        assert unknown.value.maybe_enqueued
    await drain(direct)
    assert ran == [1, 2]
    for each in (app, direct):
        each.context.server.close()
