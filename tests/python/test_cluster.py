"""A Redis Cluster: each queue in its slot, nodes that die, slots that move."""

import asyncio
import shlex
from collections.abc import Callable, Iterator

import pytest
from helpers import drain, eventually, is_served, leftovers, number_of, result_of, working
from streams import Stream, offset
from topologies import Cluster, Node, cluster, until

from ardiq import Ardiq, BrokerError, Flow, _core
from ardiq.cli import main

PATIENT_MS = 20_000
"""Of who works through a failover in good order: Redis 6.2 and 7.0 may hold their clients up for 10 s of it."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with cluster(primaries=3, replicas=1) as servers:
        yield servers


@pytest.fixture
def make_app(servers: Cluster, make_app: Callable[..., Ardiq]) -> Iterator[Callable[..., Ardiq]]:
    apps: list[Ardiq] = []

    def make(**options: object) -> Ardiq:
        apps.append(make_app(**{"redis_url": servers.url, "poll_block_ms": 1000, **options}))
        return apps[-1]

    yield make
    until(servers.is_ok, "the cluster to be whole again", servers.nodes)
    for app in apps:
        app.context.server.close()
        assert leftovers(servers, app.context.server.base, for_ever=False) == []


async def test_queues_lie_on_all_primaries(servers: Cluster, make_app: Callable[..., Ardiq]) -> None:
    queues = servers.queue_names()
    assert len(queues) == len({primary.name for primary, _ in servers.slots().values()})
    # Whichever node is asked first.
    for url in (servers.url, servers.nodes[0].url, servers.nodes[-1].url):
        for name in queues:
            app = make_app(redis_url=url, queue_name=name)
            work = number_of(app)
            async with working(app):
                await is_served(work)
                jobs = await app.enqueue_many(work.prepare(i) for i in range(300))
                assert [(await result_of(job)).value for job in jobs] == list(range(300))
    # All of them are in the registry, which lies on one of the nodes.
    assert main(["fsck", servers.nodes[0].url]) == 0


async def test_a_workflow_has_nodes_in_queues_of_other_primaries(
    servers: Cluster, make_app: Callable[..., Ardiq]
) -> None:
    names = servers.queue_names()
    home = make_app(queue_name=names[0])
    number = number_of(home)
    others = [home.queue(name) for name in names[1:]]
    flow = Flow("primaries")
    last = flow.add(number.prepare(0))
    for name in [*names[1:], *names[1:]]:
        last = flow.add(number.options(queue=name).prepare(last.result))
    run = asyncio.create_task(home.run(names))
    job = await home.start(flow, output=last)
    assert await job.value(timeout=20) == 0
    home.stop()
    await run
    assert {node.state async for node in job.nodes()} == {"complete"}
    for other in others:
        assert other.context.server.core.command(["EXISTS", f"{other.context.server.base}outbox"]) == 0
        other.context.server.close()


async def test_slots_move_while_queues_tell_each_other(servers: Cluster, make_app: Callable[..., Ardiq]) -> None:
    names = servers.queue_names()[:2]
    home = make_app(queue_name=names[0])
    there = home.queue(names[1])
    number = number_of(home)
    jobs = []
    run = asyncio.create_task(home.run(names))
    slots = [servers.slot_of(each.context.server.base) for each in (home, there)]
    sources = [servers.primary_of(each.context.server.base) for each in (home, there)]
    targets = [_others(servers, source)[0] for source in sources]
    for slot, target in zip(2 * slots, targets + sources, strict=True):
        for _ in range(10):
            flow = Flow("moving")
            last = flow.add(number.prepare(len(jobs)))
            for name in 3 * [names[1], names[0]]:
                last = flow.add(number.options(queue=name).prepare(last.result))
            jobs.append(await home.start(flow, output=last))
        await asyncio.to_thread(servers.move, slot, target)
    assert [await job.value(timeout=30) for job in jobs] == list(range(len(jobs)))
    await eventually(lambda: there.context.server.core.command(["EXISTS", f"{there.context.server.base}outbox"]) == 0)
    home.stop()
    await run
    there.context.server.close()


async def test_what_a_home_is_to_be_told_waits_while_its_shard_is_down(make_app: Callable[..., Ardiq]) -> None:
    with cluster(primaries=3, replicas=0) as servers:
        registry = servers.primary_of("ardiq:queues")
        names = sorted(servers.queue_names(), key=lambda name: servers.primary_of(f"ardiq:{{{name}}}:") is registry)
        home, there = (make_app(redis_url=servers.url, queue_name=name, broker_timeout_ms=2000) for name in names[:2])
        number, _ = number_of(home), number_of(there)
        flow = Flow("down")
        away = flow.add(number.options(queue=names[1]).prepare(7), name="away")
        job = await home.start(flow, output=flow.add(number.prepare(away.result)))
        core, base, guest = there.context.server.core, there.context.server.base, f"{job.id}~away@{names[0]}"
        outbox, told = f"{base}outbox", [f"ended {guest}".encode()]
        async with working(home):
            await eventually(lambda: core.command(["EXISTS", f"{base}task:{guest}"]) == 1)
        primary = servers.primary_of(home.context.server.base)
        primary.freeze()
        async with working(there):
            await eventually(lambda: core.command(["LRANGE", outbox, 0, -1]) == told)
        assert core.command(["LRANGE", outbox, 0, -1]) == told
        primary.thaw()
        until(servers.is_ok, "the cluster to serve")
        async with working(home), working(there):
            assert await job.value(timeout=20) == 7
            await eventually(lambda: core.command(["EXISTS", outbox]) == 0)


def test_migrate_loads_on_every_primary(servers: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    primaries = [primary for primary, _ in servers.slots().values()]
    functions = "FUNCTION" in str(primaries[0].command("COMMAND", "INFO", "FUNCTION")).upper()
    if functions:
        for primary in primaries:
            primary.command("FUNCTION", "FLUSH")
    assert main(["migrate", servers.nodes[0].url, "--check"]) == (1 if functions else 0)
    assert main(["migrate", servers.url]) == 0
    done = [line for line in capsys.readouterr().out.splitlines() if line.startswith("done: ")]
    assert sorted(done) == sorted(
        f"done: load ardiq_v{_core.PROTOCOL_VERSION} on {primary.name}" for primary in primaries if functions
    )
    assert main(["migrate", servers.nodes[-1].url, "--check"]) == 0
    servers.slots()
    assert servers.primary_of("ardiq:schema").command("HGET", "ardiq:schema", "data") == str(
        max(1, _core.PROTOCOL_VERSION - 1)
    )


async def test_a_failover_in_good_order_loses_nothing(servers: Cluster, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(broker_timeout_ms=PATIENT_MS)
    stream = Stream(app)
    async with working(app), stream.flowing():
        for _ in range(2):
            await asyncio.to_thread(servers.failover, app.context.server.base)
            await stream.proceeds()


async def test_a_slot_moves_while_its_queue_works(servers: Cluster, make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    slot, stream = servers.slot_of(app.context.server.base), Stream(app)
    source = servers.primary_of(app.context.server.base)
    async with working(app), stream.flowing():
        for target in [*_others(servers, source), source]:
            await asyncio.to_thread(servers.move, slot, target)
            await stream.proceeds()


async def test_half_a_queue_is_not_worked_with(servers: Cluster, make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    impatient = make_app(queue_name=app.queue_name, broker_timeout_ms=1000)
    stream = Stream(app)
    task = impatient.ref("work")
    jobs = await impatient.enqueue_many(task.prepare(i) for i in range(30))
    slot = servers.slot_of(app.context.server.base)
    target = _others(servers, servers.primary_of(app.context.server.base))[0]
    source = servers.begin_move(slot, target)
    for _ in range(3):
        # The last try of a call may get no answer in time on a busy machine; then nothing is known of that one.
        for _ in range(10):
            with pytest.raises(BrokerError) as refused:
                await task.enqueue(30)
            if not refused.value.maybe_enqueued:
                break
        refused.match("moving this queue's slot")
        moved = servers.move_keys(slot, source, target, most=10)
        assert moved == 10
    # Nothing was made on either side meanwhile.
    held = [int(node.command("CLUSTER", "COUNTKEYSINSLOT", slot)) for node in (source, target)]
    assert held[1] == 30
    async with working(app):
        await asyncio.to_thread(servers.move_keys, slot, source, target)
        servers.end_move(slot, target)
        assert [(await result_of(job)).value for job in jobs] == list(range(30))
    assert sorted(stream.ran) == list(range(30))
    await asyncio.to_thread(servers.move, slot, source)
    assert await impatient.queue_size() == 0


async def test_users_with_no_more_rights_than_they_need(
    servers: Cluster, make_app: Callable[..., Ardiq], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", servers.url, "--acl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for node in servers.nodes:
        node.command("ACL", "LOG", "RESET")
        for line in lines:
            node.command(*shlex.split(line))

    def url(role: str) -> str:
        return servers.url.replace("://", f"://ardiq-{role}:{role.upper()}_PASSWORD@")

    assert main(["migrate", url("operator")]) == 0
    app = make_app(redis_url=url("worker"), broker_timeout_ms=PATIENT_MS)
    stream = Stream(app)
    async with working(app), stream.flowing():
        await asyncio.to_thread(servers.failover, app.context.server.base)
    await make_app(redis_url=url("producer"), queue_name=app.queue_name).queue_size()
    assert [node.command("ACL", "LOG") for node in servers.nodes] == [[]] * len(servers.nodes)


@pytest.mark.parametrize("way", ["kill", "freeze"])
async def test_a_primary_that_is_gone(servers: Cluster, make_app: Callable[..., Ardiq], way: str) -> None:
    app = make_app()
    stream = Stream(app)

    async with working(app):
        async with stream.flowing():
            pass
        # What its replica had not received would be lost by nature.
        gone, replica = servers.primary_of(app.context.server.base), servers.replicas_of(app.context.server.base)[0]
        await eventually(lambda: offset(gone) == offset(replica))
        getattr(gone, way)()
        await asyncio.to_thread(until, replica.is_primary, "the replica's promotion", servers.nodes)
        async with stream.flowing():
            pass
        if way == "kill":
            gone.start()
        else:
            gone.thaw()
        await eventually(lambda: not gone.is_primary())


async def test_a_queue_whose_shard_is_down_says_so(make_app: Callable[..., Ardiq]) -> None:
    with cluster(primaries=3, replicas=0) as servers:
        app = make_app(redis_url=servers.url, broker_timeout_ms=2000)
        task = app.ref("work")
        await task.enqueue(1)
        primary = servers.primary_of(app.context.server.base)
        primary.kill()
        with pytest.raises(BrokerError, match=primary.name):
            await task.enqueue(2)
        primary.start()
        until(servers.is_ok, "the cluster to serve")
        await make_app(redis_url=servers.url).ref("work").enqueue(3)


async def test_a_cluster_of_one(make_app: Callable[..., Ardiq]) -> None:
    with cluster(primaries=1, replicas=0) as alone:
        assert main(["migrate", alone.url]) == 0
        app = make_app(redis_url=alone.url)

        @app.task
        async def work() -> int:
            return 1

        job = await work.enqueue()
        await drain(app)
        assert (await result_of(job)).value == 1


def _others(servers: Cluster, primary: Node) -> list[Node]:
    return [other for other, _ in servers.slots().values() if other is not primary]
