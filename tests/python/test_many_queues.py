"""What a queue costs the process that sends to it, and the server: no thread, no connection, no descriptor."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import Script, eventually, is_served, number_of, working
from topologies import Cluster, Sentinels, cluster, sentinel

from ardiq import Ardiq, BrokerError, _core
from ardiq.embedded import Server

QUEUES = 200


class Cost(NamedTuple):
    threads: int
    descriptors: int
    connections: int

    @classmethod
    def now(cls, *nodes: Any) -> "Cost":
        """Of this process; connections are those that the nodes see, of anybody."""
        gc.collect()  # of other tests
        connections = sum(_clients(node) for node in nodes)
        threads, descriptors = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("task", "fd"))
        return cls(threads, descriptors, connections)

    def over(self, other: "Cost") -> "Cost":
        return Cost(*(mine - its for mine, its in zip(self, other, strict=True)))


def _clients(node: Any) -> int:
    if isinstance(node, _core.Core):
        listed = node.command(["CLIENT", "LIST", "TYPE", "normal"]).decode()
    else:
        listed = node.command("CLIENT", "LIST", "TYPE", "normal")
    return len(listed.splitlines())


@pytest.fixture
def watcher(server: Server) -> Iterator[_core.Core]:
    """A connection that is none of an app's."""
    core = _core.Core(server.url, "watcher:{w}:")
    core.command(["PING"])
    yield core
    core.close()


async def send_to_many(app: Ardiq, name: str) -> list[Any]:
    """Each of many queues gets three tasks, by each way there is."""
    queues = [app.queue(f"{name}-{number}") for number in range(QUEUES)]
    jobs = [await queue.send("work", 1) for queue in queues[:10]]
    jobs += await asyncio.gather(*(queue.send("work", 1) for queue in queues[10:]))
    jobs += [queue.send_sync("work", 2) for queue in queues]
    for queue in queues:
        jobs += await queue.enqueue_many([queue.ref("work").prepare(3)])
    assert [await queue.queue_size() for queue in queues] == [3] * QUEUES
    return queues


async def test_a_queue_needs_no_thread_no_connection_and_no_descriptor(
    make_app: Callable[..., Ardiq], watcher: _core.Core
) -> None:
    app = make_app()
    before = Cost.now(watcher)
    await app.send("work", 0)
    app.send_sync("work", 0)
    one = Cost.now(watcher)
    queues = await send_to_many(app, app.queue_name)
    many = Cost.now(watcher)
    # A name may be resolved on a thread that ends when there is nothing more to do.
    assert many.threads <= one.threads + 1
    assert many.descriptors <= one.descriptors
    assert many.connections <= one.connections
    # The loop's, and that of blocking calls.
    assert one.over(before).connections == 2
    listed = {name for _, name in app.context.server.core.queues()}
    assert await eventually(lambda: {queue.queue_name for queue in queues} <= listed)
    registered = await eventually(
        lambda: watcher.command(["SMISMEMBER", "ardiq:queues", *(q.queue_name for q in queues)])
    )
    assert registered == [1] * QUEUES


async def test_results_of_many_queues_come_on_one_connection(
    make_app: Callable[..., Ardiq], watcher: _core.Core
) -> None:
    served, waiting = make_app(concurrency=30), make_app()
    work = number_of(served)
    names = [f"{served.queue_name}-{number}" for number in range(30)]
    run = asyncio.create_task(served.run(names))
    await is_served(work.options(queue=names[0]))
    queues = [waiting.queue(name) for name in names]
    await queues[0].ref("work").request(0, timeout=20)
    one = Cost.now(watcher)  # with a worker there is a thread, which does the I/O of all from then on
    for _ in range(3):
        jobs = [await queue.send("work", number) for number, queue in enumerate(queues)]
        waits = [job.value(timeout=20) for job in jobs]
        waits += [queue.ref("work").request(number, timeout=20) for number, queue in enumerate(queues)]
        assert await asyncio.gather(*waits) == [*range(30), *range(30)]
    many = Cost.now(watcher)
    assert many.descriptors <= one.descriptors
    assert many.connections <= one.connections
    # Anew, on another connection.
    watcher.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    assert await asyncio.gather(*(queue.ref("work").request(1, timeout=20) for queue in queues)) == [1] * 30
    for queue in queues[1:]:
        queue.context.server.close()
    assert await queues[0].ref("work").request(7, timeout=20) == 7
    served.stop()
    await run
    assert work.name == "work"


async def test_apps_of_one_server_share_what_they_need(make_app: Callable[..., Ardiq], watcher: _core.Core) -> None:
    first = make_app()
    await first.send("work", 0)
    first.send_sync("work", 0)
    one = Cost.now(watcher)
    others = [make_app() for _ in range(50)]
    for app in others:
        await app.send("work", 0)
        app.send_sync("work", 0)
    many = Cost.now(watcher)
    assert many.threads <= one.threads + 1
    assert many.descriptors <= one.descriptors
    assert many.connections <= one.connections
    # Who wants something else of the connection has one of its own.
    patient = make_app(broker_timeout_ms=60_000)
    await patient.send("work", 0)
    assert Cost.now(watcher).connections == one.connections + 1


async def test_one_that_is_closed_leaves_the_others_alone(make_app: Callable[..., Ardiq], watcher: _core.Core) -> None:
    before = Cost.now(watcher)
    first, second = make_app(), make_app()
    work = number_of(second)
    async with working(second):
        await first.send("work", 1)
        await is_served(work)
        sent = [first.ref("work").enqueue(number) for number in range(20)]
        first.context.server.close()
        # What was on its way is told so, or has arrived.
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            assert not isinstance(answer, BaseException) or isinstance(answer, BrokerError)
        await is_served(work)
        assert await asyncio.to_thread(work.request_sync, 3, timeout=20) == 3
    await first.send("work", 2)  # used again, it connects anew
    first.context.server.close()
    await second.send("work", 1)
    second.context.server.close()
    await asyncio.sleep(0)
    gc.collect()  # the worker, which has ended
    await eventually(lambda: Cost.now(watcher)[1:] == before[1:])
    assert Cost.now().threads <= before.threads + 1


async def test_an_app_that_nobody_has_any_more_is_closed(server: Server, watcher: _core.Core) -> None:
    before = Cost.now(watcher)
    app = Ardiq(server.url, "collected")
    await app.send("work", 1)
    await app.queue("collected-too").send("work", 1)
    gone = weakref.ref(app)
    del app
    await asyncio.sleep(0)  # what has just come is still in the loop's hands
    gc.collect()
    assert gone() is None
    await asyncio.sleep(0)  # its line leaves the loop
    await eventually(lambda: Cost.now(watcher)[1:] == before[1:])
    watcher.command(["DEL", *watcher.command(["KEYS", "ardiq:{collected*"])])


async def test_results_of_very_many_queues_come_together(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    queues = [app.queue(f"{app.queue_name}-{number}") for number in range(3 * QUEUES)]
    jobs = await asyncio.gather(*(queue.send("work", 1) for queue in queues))
    # Their mailboxes are opened in the same moment.
    waits = [asyncio.create_task(job.result(timeout=60)) for job in jobs]
    lines = [queue.context.server.channel(asyncio.get_running_loop()) for queue in queues]
    assert await eventually(lambda: all(line.mailbox._wishes for line in lines), 60)
    for job in jobs:
        await job.abort()
    assert {result.success for result in await asyncio.gather(*waits)} == {False}


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "one-of-two"])
async def test_who_waits_when_a_queue_is_closed_is_told_the_truth(
    make_app: Callable[..., Ardiq], is_last: bool
) -> None:
    app, other = make_app(), make_app()
    if not is_last:
        await other.send("work", 0)
    waiting = asyncio.create_task((await app.send("work", 0)).value())
    requested = asyncio.create_task(app.ref("work").request(0))
    mailbox = app.context.server.channel(asyncio.get_running_loop()).mailbox
    assert await eventually(lambda: len(mailbox._wishes) == 2)
    sent = [asyncio.ensure_future(app.send("work", 1)) for _ in range(3)]
    many = asyncio.ensure_future(app.enqueue_many([app.ref("work").prepare(2)] * 3))
    await asyncio.sleep(0)  # on their way
    app.context.server.close()
    answers = await asyncio.wait_for(asyncio.gather(*sent, many, return_exceptions=True), 20)
    queued = await app.queue_size()
    certain = 2 + sum(3 if isinstance(answer, list) else not isinstance(answer, BaseException) for answer in answers)
    unsure = sum(len(answer.unsure) for answer in answers if isinstance(answer, BrokerError))
    assert certain <= queued <= certain + unsure
    for wait in (waiting, requested):
        with pytest.raises(BrokerError, match=r"close\(\)"):
            await asyncio.wait_for(wait, 20)


@pytest.mark.filterwarnings("ignore:unclosed")
def test_a_loop_that_nobody_closes_is_not_kept(make_app: Callable[..., Ardiq]) -> None:
    app, loop = make_app(), asyncio.new_event_loop()
    loop.run_until_complete(app.send("work", 1))
    gone = weakref.ref(loop)
    app.context.server.close()
    del loop
    gc.collect()
    assert gone() is None


def test_each_loop_has_one_connection_and_threads_share_one(
    make_app: Callable[..., Ardiq], watcher: _core.Core
) -> None:
    app = make_app()
    app.send_sync("work", 0)
    one, ready, seen = Cost.now(watcher), threading.Barrier(5), []

    async def use(number: int) -> None:
        for queue in range(20):
            await app.queue(f"{app.queue_name}-{queue}").send("work", number)
        ready.wait(20)
        if number == 0:
            seen.append(Cost.now(watcher))
        ready.wait(20)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(use(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(20)
    ready.wait(20)
    for thread in threads:
        thread.join()
    assert seen[0].connections == one.connections + 4
    # Each loop has its own descriptors, one more to be told of what happened elsewhere, and its connection.
    assert seen[0].over(one).descriptors <= 4 * 6
    for queue in range(20):
        assert asyncio.run(app.queue(f"{app.queue_name}-{queue}").queue_size()) == 4


def test_a_forked_child_has_its_own_connection(server: Server, run_script: Callable[..., Script]) -> None:
    script = run_script(f"""
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from ardiq import Ardiq

        app, other = Ardiq({server.url!r}, "forked"), Ardiq({server.url!r}, "forked-too")

        async def use():
            for number in range(20):
                await app.queue(f"forked-{{number}}").send("work", number)
            app.send_sync("work", 1)
            await other.send("work", 1)

        def client():
            return app.context.server.core.command(["CLIENT", "ID"])

        asyncio.run(use())
        mine, opened = client(), len(os.listdir("/proc/self/fd"))
        for generation in range(2):
            if os.fork() == 0:
                assert client() != mine
                asyncio.run(use())
                mine = client()
            else:
                _, status = os.wait()
                asyncio.run(use())
                assert client() == mine
                assert generation or len(os.listdir("/proc/self/fd")) == opened
                raise SystemExit(os.waitstatus_to_exitcode(status))
        """)
    assert script.end() == (0, "", "")


@pytest.fixture(params=[1, 3], scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    # One that is frozen is away for a moment, and the others are not to take the cluster for down.
    with cluster(primaries=request.param, replicas=0, node_timeout_ms=30_000) as servers:
        yield servers


async def test_a_cluster_has_one_connection_of_each_kind_to_each_node(
    nodes: Cluster, make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(redis_url=nodes.url)
    before = Cost.now(*nodes.nodes)
    await app.send("work", 0)
    await send_to_many(app, app.queue_name)
    cost = Cost.now(*nodes.nodes).over(before)
    # The loop's, and that of blocking calls.
    assert cost.connections == 2 * len(nodes.nodes)
    assert cost.threads <= 2
    assert cost.descriptors <= 2 * len(nodes.nodes) + 6


async def test_queues_of_a_slot_that_moves_follow_it(nodes: Cluster, make_app: Callable[..., Ardiq]) -> None:
    if len(nodes.nodes) == 1:
        pytest.skip("there is nowhere to move to")
    app = make_app(redis_url=nodes.url)
    queues = await send_to_many(app, app.queue_name)
    before = Cost.now(*nodes.nodes)
    moved = queues[0]
    slot, source = nodes.slot_of(moved.context.server.base), nodes.primary_of(moved.context.server.base)
    target = next(node for node in nodes.nodes if node is not source)
    await asyncio.to_thread(nodes.move, slot, target)
    await asyncio.gather(*(queue.send("work", 1) for queue in queues))
    assert [await queue.queue_size() for queue in queues] == [4] * QUEUES
    # The nodes have connections among each other while keys move.
    assert Cost.now().descriptors <= before.descriptors + 1
    await asyncio.to_thread(nodes.move, slot, source)
    await asyncio.gather(*(queue.send("work", 1) for queue in queues))


async def test_a_node_that_is_away_holds_up_its_own_queues_only(nodes: Cluster, make_app: Callable[..., Ardiq]) -> None:
    if len(nodes.nodes) == 1:
        pytest.skip("all queues are on it")
    app = make_app(redis_url=nodes.url)
    queues = [app.queue(f"{app.queue_name}-{number}") for number in range(30)]
    for queue in queues:
        queue.context.server.is_listed = False  # lest the registration connect before them
    frozen = nodes.primary_of(queues[0].context.server.base)
    here = [queue for queue in queues if nodes.primary_of(queue.context.server.base) is frozen]
    frozen.freeze()
    try:
        # They are first: nobody knows yet which node has which.
        late = [asyncio.ensure_future(queue.send("work", 1)) for queue in here]
        await asyncio.sleep(0.1)
        jobs = await asyncio.gather(*(queue.send("work", 1) for queue in queues if queue not in here))
        assert len(jobs) == len(queues) - len(here)
        assert not any(answer.done() for answer in late)
    finally:
        frozen.thaw()
    await asyncio.gather(*late, return_exceptions=True)


@pytest.fixture(scope="module")
def watched() -> Iterator[Sentinels]:
    with sentinel(replicas=0, sentinels=1) as servers:
        yield servers


async def test_behind_sentinels_it_is_one_of_each_kind_too(watched: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(redis_url=watched.url)
    before = Cost.now(watched.primary())
    await app.send("work", 0)
    await send_to_many(app, app.queue_name)
    assert Cost.now(watched.primary()).over(before).connections == 2
