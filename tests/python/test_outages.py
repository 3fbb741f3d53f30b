"""Connections that drop, servers that go away, and what callers are told."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import SOON_S, eventually, is_sound, number_of, result_of, working
from proxy import Proxy
from topologies import Node, free_port

from ardiq import Ardiq, ArdiqError, BrokerError, LibraryError, _core, embedded
from ardiq.embedded import Server


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    return make_app(idle_timeout_ms=1000, poll_block_ms=500)


async def test_dropped_connections_do_not_matter(app: Ardiq) -> None:
    ran = []

    @app.task(max_retries=0)
    async def work(number: int) -> int:
        ran.append(number)
        await asyncio.sleep(0.001)
        return number

    async with working(app):
        jobs = []
        for i in range(30):
            jobs.append(await work.enqueue(i))
            if i % 3 == 0:
                app.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal"])
            await asyncio.sleep(0.005)
        results = await asyncio.gather(*(job.result(timeout=SOON_S) for job in jobs))
    assert [result and result.value for result in results] == list(range(30))
    assert sorted(ran) == list(range(30))
    assert is_sound(app)


async def test_waits_survive_a_dropped_connection(app: Ardiq) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    jobs = [await work.enqueue(i) for i in range(20)]
    waiting = [asyncio.create_task(job.result(timeout=SOON_S)) for job in jobs]
    asking = asyncio.create_task(work.request(99, timeout=SOON_S))
    await asyncio.sleep(0.1)
    app.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal"])
    async with working(app):
        results = await asyncio.gather(*waiting)
        assert [result and result.value for result in results] == list(range(20))
        assert await asking == 99


class Outage:
    """A server of its own that can be away for a while and keeps its data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = f"redis+unix://{directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        binary = os.environ.get("ARDIQ_TEST_SERVER") or embedded._binary()
        command = [binary, "--port", "0", "--unixsocket", f"{self._directory}/socket", "--dir", str(self._directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SOON_S
        while not embedded._answers(f"{self._directory}/socket"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    outage = Outage(tmp_path_factory.mktemp("s"))
    yield outage
    outage.end()


async def test_a_worker_outlives_an_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    app = Ardiq(outage.url, idle_timeout_ms=1000, poll_block_ms=500)
    started = asyncio.Event()
    runs = []

    @app.task
    async def work(number: int) -> int:
        runs.append(number)
        started.set()
        await asyncio.sleep(0.2)
        return number

    async with working(app):
        first = await work.enqueue(1)
        await started.wait()
        outage.end()
        await asyncio.sleep(0.5)  # it ends while nobody can be told
        assert any("trying again" in record.message for record in caplog.records)
        outage.begin()
        second = await work.enqueue(2)
        assert (await result_of(second)).value == 2
        assert (await result_of(first)).value == 1
    assert runs[0] == 1
    assert await app.queue_size() == 0
    app.context.server.close()


async def test_a_half_open_connection_is_given_up_when_the_lease_would_be_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    # No look by itself, and no end of a blocking command, comes in time to help.
    app = Ardiq(f"redis://127.0.0.1:{proxy.port}", idle_timeout_ms=2000, poll_block_ms=60_000)

    ran = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    try:
        async with working(app):
            await work.enqueue(1)
            await eventually(lambda: ran == [1])
            # It has nothing to do, and waits for a wake-up and for mail.
            await eventually(lambda: node.command("INFO", "clients").count("blocked_clients:2"))
            proxy.swallow()
            proxy.heal()  # new connections pass
            await work.enqueue(2)
            await eventually(lambda: ran == [1, 2])
        # Blocking ones are given up later: 5 s after they should have been answered.
        first = next(record.message for record in caplog.records if record.levelname == "WARNING")
        assert "blocking" not in first
    finally:
        app.context.server.close()
        proxy.close()
        node.kill()


async def test_what_a_failover_took_back_runs_again(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    """The server has the worker's last steps no more: a task that it finished is held by it again."""
    ran = []

    @app.task
    async def work(number: int) -> int:
        ran.append(number)
        return number

    core, base = app.context.server.core, app.context.server.base
    async with working(app):
        first = await work.enqueue(1)
        await result_of(first)
        worker = core.command(["ZRANGE", f"{base}workers", 0, 0])[0].decode()
        # In one call, so that no step comes in between.
        take_back = """
        redis.call('HSET', KEYS[1] .. 'task:' .. ARGV[1], 'state', 'running')
        redis.call('PERSIST', KEYS[1] .. 'task:' .. ARGV[1])
        redis.call('HSET', KEYS[1] .. 'running:' .. ARGV[2], ARGV[1], 1)
        redis.call('HINCRBY', KEYS[1] .. 'worker:' .. ARGV[2], 'seq', -1)
        """
        core.command(["EVAL", take_back, 1, base, first.id, worker])
        await eventually(lambda: ran == [1, 1])
        assert (await result_of(first)).value == 1
    assert any("lost its lease" in record.message for record in caplog.records)
    assert is_sound(app)


async def test_a_server_that_lost_its_data_knows_the_queue_again(outage: Outage) -> None:
    app = Ardiq(outage.url, idle_timeout_ms=1000, poll_block_ms=200)
    core = app.context.server.core
    async with working(app):
        await eventually(lambda: core.command(["SISMEMBER", "ardiq:queues", "default"]))
        await eventually(lambda: core.command(["ZCARD", "ardiq:{default}:workers"]))
        core.command(["FLUSHALL"])
        await eventually(lambda: core.command(["SISMEMBER", "ardiq:queues", "default"]))
    app.context.server.close()


async def test_a_flushed_server_gets_its_library_back(outage: Outage) -> None:
    app = Ardiq(outage.url, poll_block_ms=500)

    @app.task
    async def work(number: int) -> int:
        return number

    async with working(app):
        assert await work.request(1) == 1
        for command in (["FUNCTION", "FLUSH"], ["SCRIPT", "FLUSH"]):
            try:
                app.context.server.core.command(command)
            except Exception:  # an old server has no functions
                assert command[0] == "FUNCTION"
        assert await work.request(2, timeout=SOON_S) == 2
    app.context.server.close()


async def test_a_server_that_takes_no_library_now_is_waited_for(outage: Outage) -> None:
    """One that lacks it and takes no writes: a replica that has just taken its primary's place, and is not told yet."""
    app = Ardiq(outage.url, poll_block_ms=200)

    @app.task
    async def work(number: int) -> int:
        return number

    core = app.context.server.core
    async with working(app) as run:
        assert await work.request(1) == 1
        with suppress(ArdiqError):  # an old server has no functions
            core.command(["FUNCTION", "FLUSH"])
        core.command(["SCRIPT", "FLUSH"])
        core.command(["REPLICAOF", "127.0.0.1", 1])
        await asyncio.sleep(1)  # a worker that is idle looks more often
        assert not run.done()
        core.command(["REPLICAOF", "NO", "ONE"])
        assert await work.request(2, timeout=SOON_S) == 2
    app.context.server.close()


async def test_another_library_is_refused_in_one_line(outage: Outage) -> None:
    app = Ardiq(outage.url, burst=True)
    name = f"ardiq_v{_core.PROTOCOL_VERSION}"
    other = f"#!lua name={name}\nredis.register_function('{name}_enqueue', function() return {{'queued'}} end)"
    try:
        app.context.server.core.command(["FUNCTION", "LOAD", other])
    except ArdiqError:
        pytest.skip("this server has no functions")
    for call in (lambda: app.send("task"), lambda: app.ref("task").request(), lambda: app.queue_size(), app.run):
        with pytest.raises(LibraryError, match="ardiq migrate") as caught:
            await call()
        assert "\n" not in str(caught.value)
    app.context.server.close()


async def test_an_unreachable_server_is_a_broker_error_in_bounded_time(tmp_path: Path) -> None:
    app = Ardiq(f"redis+unix://{tmp_path}/nobody", broker_timeout_ms=200)
    task = app.ref("task")
    started = time.monotonic()
    for call in (
        lambda: task.enqueue(1),
        lambda: app.enqueue_many([task.prepare(1)]),
        lambda: task.request(1),
        lambda: app.result("x"),
        lambda: app.result("x", timeout=60),
        lambda: app.status("x"),
        lambda: app.info("x"),
        lambda: app.abort("x"),
        lambda: app.queue_size(),
        lambda: app.dead_letters(),
        lambda: app.replay("x"),
    ):
        with pytest.raises(BrokerError) as caught:
            await call()
        assert caught.value.maybe_enqueued is False
        assert caught.value.jobs == () or caught.value.jobs == []
    outcomes = await asyncio.gather(*(task.enqueue(i) for i in range(20)), return_exceptions=True)
    assert all(isinstance(outcome, BrokerError) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 20
    assert time.monotonic() - started < 60
    app.context.server.close()


async def test_an_enqueue_during_an_outage_reports_what_was_accepted(outage: Outage) -> None:
    app = Ardiq(outage.url, broker_timeout_ms=300)
    task = app.ref("task")
    await app.enqueue_many([task.prepare(1)])
    outage.end()
    with pytest.raises(BrokerError) as caught:
        await app.enqueue_many(task.prepare(i) for i in range(1000))
    assert list(caught.value.jobs) == []
    outage.begin()
    assert await app.queue_size() == 1
    app.context.server.close()


async def test_an_enqueue_waits_for_a_short_outage(outage: Outage) -> None:
    app = Ardiq(outage.url, broker_timeout_ms=int(SOON_S * 1000))
    await app.send("task", 1)
    outage.end()
    sending = asyncio.gather(*(app.send("task", i) for i in range(50)))
    await asyncio.sleep(0.2)
    outage.begin()
    jobs = await sending
    assert len({job.id for job in jobs}) == 50
    assert await app.queue_size() == 51
    app.context.server.close()


async def test_a_worker_refuses_a_server_that_evicts() -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER"), settings={"maxmemory-policy": "allkeys-lru"}) as evicting:
        app = Ardiq(evicting.url, burst=True)
        with pytest.raises(LibraryError, match="allkeys-lru"):
            await app.run()
        allowed = Ardiq(evicting.url, allow_eviction=True)
        job = await number_of(allowed).enqueue(1)
        async with working(allowed):
            assert (await result_of(job)).success
        app.context.server.close()
        allowed.context.server.close()


def test_a_reply_that_is_cut_in_the_middle_is_told_in_one_line(tmp_path: Path) -> None:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    app = Ardiq(f"redis://127.0.0.1:{proxy.port}")  # which closes it when nobody has it any more
    core = app.context.server.core
    try:
        core.command(["SET", "long", "x" * 1000])
        proxy.truncate(100)
        with pytest.raises(BrokerError, match=r"the connection broke: .+") as refused:
            core.command(["GET", "long"])
        assert "\n" not in str(refused.value)
    finally:
        app.context.server.close()
        proxy.close()
        node.kill()


async def test_a_repeat_that_is_refused_says_nothing_of_what_was_sent_before(tmp_path: Path) -> None:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    app, seen = Ardiq(f"redis://127.0.0.1:{proxy.port}", broker_timeout_ms=30_000), Ardiq(node.url)
    try:
        await app.send("work", 0)
        proxy.delay(2)
        sent = asyncio.ensure_future(app.send("work", 1))
        while await seen.queue_size() < 2:
            await asyncio.sleep(0.01)
        seen.context.server.core.command(["CONFIG", "SET", "maxmemory", "1"])
        proxy.cut()  # its answer was on the way
        proxy.delay(0)
        with pytest.raises(BrokerError, match="maxmemory") as refused:
            await sent
        assert refused.value.maybe_enqueued
        assert len(refused.value.unsure) == 1
    finally:
        app.context.server.close()
        seen.context.server.close()
        proxy.close()
        node.kill()
