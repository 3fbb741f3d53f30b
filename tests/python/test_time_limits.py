"""`broker_timeout_ms` is what a call may take, whatever the server does: nothing, half of it, or all of it slowly."""

import asyncio
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import randrange
from typing import Any

import pytest
from helpers import SOON_S, awaited, eventually
from proxy import Proxy
from topologies import Node, cluster, free_port, sentinel, until

from ardiq import Ardiq, BrokerError, _core

LIMIT_MS = 300
BOUND_S = 8


@pytest.fixture(autouse=True)
def connecting_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an answer may, ten seconds: what ends sooner was ended by the call's own limit, also on a busy machine."""
    monkeypatch.setattr(_core, "Core", functools.partial(_core.Core, connect_timeout_ms=60_000))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    until(node.answers, "the server", [node])
    yield node
    node.kill()


@pytest.fixture
def proxy(node: Node) -> Iterator[Proxy]:
    proxy = Proxy(node.port)
    yield proxy
    proxy.close()


@pytest.fixture
def make_app() -> Iterator[Callable[..., Ardiq]]:
    apps: list[Ardiq] = []

    def make(url: str, **options: Any) -> Ardiq:
        apps.append(Ardiq(url, **{"broker_timeout_ms": LIMIT_MS, **options}))
        return apps[-1]

    yield make
    for app in apps:
        app.context.server.close()


def all_calls(app: Ardiq) -> dict[str, Callable[[], Any]]:
    task = app.ref("task")
    return {
        "enqueue": lambda: task.enqueue(1),
        "enqueue_many": lambda: app.enqueue_many(task.prepare(number) for number in range(1000)),
        "request": lambda: task.request(1, timeout=60),
        "result": lambda: app.result("x"),
        "result in time": lambda: app.result("x", timeout=60),
        "status": lambda: app.status("x"),
        "info": lambda: app.info("x"),
        "abort": lambda: app.abort("x"),
        "queue_size": lambda: app.queue_size(),
        "dead_letters": lambda: app.dead_letters(),
        "replay": lambda: app.replay("x"),
        "schedules": lambda: app.schedules.put("s", "task", every=3600),
        "enqueue_sync": lambda: task.enqueue_sync(1),
        "enqueue_many_sync": lambda: app.enqueue_many_sync(task.prepare(number) for number in range(1000)),
        "request_sync": lambda: task.request_sync(1, timeout=60),
        "result_sync": lambda: app.result_sync("x", timeout=60),
        "status_sync": lambda: app.status_sync("x"),
        "info_sync": lambda: app.info_sync("x"),
        "abort_sync": lambda: app.abort_sync("x"),
        "command": lambda: app.context.server.core.command(["PING"]),
        "check_eviction": lambda: app.context.server.core.check_eviction(),
    }


async def late(name: str, call: Callable[[], Any]) -> BrokerError:
    """What a call fails with, in time."""
    started = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        await (asyncio.to_thread(call) if name.endswith(("_sync", "command", "eviction", "primaries")) else call())
    assert time.monotonic() - started < BOUND_S, f"{name}: {caught.value}"
    return caught.value


async def are_late(app: Ardiq) -> dict[str, BrokerError]:
    """What each call of an app fails with, in time."""
    app.context.server.is_listed = False  # lest the registration connect before them
    calls = all_calls(app)
    # Alone, too: nobody else connects for them. Calls of a loop have one connection, blocking ones another.
    errors = {name: await late(name, calls.pop(name)) for name in ("enqueue", "enqueue_sync")}
    return errors | dict(zip(calls, await asyncio.gather(*map(late, calls, calls.values())), strict=True))


def is_sure(errors: dict[str, BrokerError]) -> bool:
    """Whether nothing was sent, by all of them."""
    return not any(error.maybe_enqueued or error.unsure for error in errors.values())


@pytest.mark.parametrize("durability", ["primary", "replicated"])
async def test_a_server_that_falls_silent(node: Node, make_app: Callable[..., Ardiq], durability: str) -> None:
    # Of another connection, as its options are others.
    app, other = make_app(node.url), make_app(node.url, durability=durability, broker_timeout_ms=LIMIT_MS + 1)
    await app.send("task")
    app.send_sync("task")
    line = app.context.server.core.command(["CLIENT", "ID"])
    node.freeze()
    try:
        errors = await are_late(app)
        for name in ("enqueue", "enqueue_sync", "enqueue_many", "enqueue_many_sync"):
            assert errors[name].maybe_enqueued, name
            assert errors[name].unsure, name
        assert f"no answer from {node.url} within {LIMIT_MS} ms" in str(errors["enqueue"])
        assert is_sure(await are_late(other)), "there is no line yet"
    finally:
        node.thaw()
    # What was sent is there; and a call that gave up has not ended the line of all.
    await eventually(app.queue_size)
    assert app.context.server.core.command(["CLIENT", "ID"]) == line
    if durability == "primary":
        await other.send("task")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_server_that_accepts_and_says_nothing(make_app: Callable[..., Ardiq], scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        port = silent.getsockname()[1]
        app = make_app(f"{scheme}://127.0.0.1:{port}")
        errors = await are_late(app)
        errors["primaries"] = await late("primaries", app.context.server.core.primaries)
    assert is_sure(errors)
    assert f"cannot reach {scheme}://127.0.0.1:{port}: no connection within {LIMIT_MS} ms" in str(errors["enqueue"])


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="names are resolved as for all")
def test_a_resolver_that_says_nothing(tmp_path: Path) -> None:
    address = f"127.{randrange(1, 255)}.{randrange(1, 255)}.{randrange(1, 255)}"
    (tmp_path / "resolv.conf").write_text(f"nameserver {address}\n")
    (tmp_path / "calls.py").write_text(
        textwrap.dedent(f"""
            import asyncio
            from ardiq import Ardiq, BrokerError

            app = Ardiq("redis://nowhere.example:6379", broker_timeout_ms={LIMIT_MS})

            async def main() -> None:
                try:
                    await app.send("task")
                except BrokerError as error:
                    print(error)

            asyncio.run(main())
            try:
                app.send_sync("task")
            except BrokerError as error:
                print(error)
            """)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((address, 53))
        ended = subprocess.run(
            ["unshare", "-m", "sh", "-c", 'mount --bind resolv.conf /etc/resolv.conf && "$0" calls.py', sys.executable],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    says = f"cannot reach redis://nowhere.example:6379: no connection within {LIMIT_MS} ms"
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip(ended.stderr)
    assert ended.stdout.splitlines() == [says, says], ended.stderr


# In the greeting, in the questions that precede the first call, in its answer.
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
async def test_a_server_that_falls_silent_in_the_middle(
    proxy: Proxy, make_app: Callable[..., Ardiq], part: float
) -> None:
    def app() -> Ardiq:
        app = make_app(f"redis://127.0.0.1:{proxy.port}")
        app.context.server.is_listed = False
        return app

    async def send() -> None:
        one = app()
        await one.send("task")
        one.context.server.close()

    await send()  # loads the library
    before = proxy.replied
    await send()
    proxy.hush(round(10 + part * (proxy.replied - before - 15)))
    assert (await are_late(app()))["enqueue"].maybe_enqueued == (part == 1)


@pytest.mark.parametrize("used", [True, False])
async def test_a_cluster_and_a_primary_behind_sentinels(make_app: Callable[..., Ardiq], used: bool) -> None:
    with (
        cluster(primaries=3, replicas=0) as nodes,
        sentinel(replicas=0, sentinels=1, down_after_ms=60_000) as watched,
    ):
        apps = [make_app(nodes.url), make_app(watched.url)]
        for app in apps if used else ():
            await app.send("task")
        frozen = [*nodes.nodes, watched.primary()]
        for server in frozen:
            server.freeze()
        try:
            for app in apps:
                assert used or is_sure(await are_late(app))
        finally:
            for server in frozen:
                server.thaw()
        for app in apps:
            await eventually(lambda app=app: awaits(app))


async def awaits(app: Ardiq) -> bool:
    """Whether the server answers again."""
    try:
        await app.queue_size()
    except BrokerError:
        return False
    return True


async def sends(app: Ardiq) -> bool:
    """Whether it takes a blocking call again, on the connection of those."""
    try:
        app.send_sync("task")
    except BrokerError:
        return False
    return True


async def test_connecting_may_take_longer_than_a_call(node: Node, proxy: Proxy, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(f"redis://127.0.0.1:{proxy.port}")
    app.context.server.is_listed = False

    def connections() -> int:
        return int(re.findall(r"total_connections_received:(\d+)", node.command("INFO", "stats"))[0])

    before = connections()
    proxy.delay(2 * LIMIT_MS / 1000)
    with pytest.raises(BrokerError, match="no connection within"):
        await app.send("task")
    with pytest.raises(BrokerError, match="no connection within"):
        app.send_sync("task")
    proxy.delay(0)
    await eventually(lambda: awaits(app))
    await eventually(lambda: sends(app))
    # The two whose calls had given up, and the one that asks here.
    assert connections() - before == 3


async def test_the_questions_before_the_first_call_may_take_longer_too(
    proxy: Proxy, make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(f"redis://127.0.0.1:{proxy.port}", broker_timeout_ms=1000)
    app.context.server.is_listed = False
    proxy.delay(0.2)  # there is time for two answers
    with pytest.raises(BrokerError):
        await app.send("task")
    await eventually(lambda: awaits(app))


async def test_a_line_that_stays_silent_is_replaced_although_each_call_gives_up_sooner(
    proxy: Proxy, make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(f"redis://127.0.0.1:{proxy.port}", idle_timeout_ms=1000)  # two seconds for an answer
    await app.send("task")
    proxy.swallow()
    proxy.heal()
    with pytest.raises(BrokerError):
        await app.send("task")
    await eventually(lambda: awaits(app))


@pytest.mark.parametrize("way", ["enqueue", "enqueue_many", "enqueue_many_sync"])
async def test_many_tasks_may_take_longer_than_one(proxy: Proxy, make_app: Callable[..., Ardiq], way: str) -> None:
    app = make_app(f"redis://127.0.0.1:{proxy.port}", broker_timeout_ms=2000)
    await app.send("task")
    proxy.delay(0.15)  # two calls each three tenths of a second
    task, started = app.ref("task"), time.monotonic()
    if way == "enqueue":
        await asyncio.gather(*(task.enqueue(number) for number in range(4000)))
    else:
        await awaited(getattr(app, way), [task.prepare(number) for number in range(4000)])
    assert time.monotonic() - started > 2
    proxy.delay(0)
    assert await app.queue_size() == 4001


async def test_who_waits_behind_a_call_that_fails_waits_no_longer(node: Node, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(node.url, broker_timeout_ms=2000)
    task = app.ref("task")
    await task.enqueue(0)
    node.freeze()
    started = time.monotonic()
    outcomes = await asyncio.gather(*(task.enqueue(number) for number in range(2000)), return_exceptions=True)
    assert time.monotonic() - started < 6  # there are four pairs of calls
    assert all(isinstance(outcome, BrokerError) for outcome in outcomes)
    node.thaw()


@pytest.mark.parametrize("way", ["enqueue_many", "enqueue_many_sync"])
async def test_of_a_batch_that_fails_only_what_was_under_way_is_unsure(
    node: Node, make_app: Callable[..., Ardiq], way: str
) -> None:
    app = make_app(node.url)
    task = app.ref("task")
    await task.enqueue(0)
    task.enqueue_sync(0)
    node.freeze()
    calls = [task.prepare(number) for number in range(3000)]
    with pytest.raises(BrokerError) as caught:
        await (getattr(app, way)(calls) if way == "enqueue_many" else asyncio.to_thread(getattr(app, way), calls))
    node.thaw()
    assert list(caught.value.jobs) == []
    assert 0 < len(caught.value.unsure) <= 500, "two calls of 250 tasks"
    await eventually(lambda: awaits(app))
    assert await app.queue_size() <= 502


async def test_what_waits_in_an_outage_is_bounded(node: Node, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(node.url, broker_timeout_ms=60_000)
    task, large = app.ref("task"), "x" * 5_000_000
    # With a server that answers there is no bound.
    await asyncio.gather(*(task.enqueue(large) for _ in range(20)))
    node.freeze()
    await asyncio.sleep(2.5)  # having nothing to answer is no silence
    waiting = [asyncio.create_task(task.enqueue(large)) for _ in range(20)]

    async def is_refused() -> bool:
        sent = asyncio.create_task(task.enqueue(1))
        await asyncio.wait([sent], timeout=0.1)
        if not sent.done():
            waiting.append(sent)
            return False
        with pytest.raises(BrokerError, match=r"\d\d MiB of tasks wait for redis:.* was not sent") as refused:
            await sent
        return not refused.value.maybe_enqueued and not refused.value.unsure

    await eventually(is_refused)
    with pytest.raises(BrokerError, match="MiB of tasks wait") as refused:
        await app.enqueue_many(task.prepare(number) for number in range(1000))
    assert not refused.value.unsure
    node.thaw()
    await asyncio.gather(*waiting)
    await task.enqueue(1)
    assert await app.queue_size() == 20 + len(waiting) + 1


async def test_a_wait_for_a_result_ends_in_time(node: Node, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(node.url, broker_timeout_ms=60_000)
    job = await app.send("task")
    node.freeze()
    started = time.monotonic()
    for timeout in (0.2, 0.2009, 0.2009, 0.2009):
        for call in (job.result(timeout=timeout), asyncio.to_thread(job.result_sync, timeout=timeout)):
            with pytest.raises(TimeoutError, match="no result for"):
                await call
    assert time.monotonic() - started < SOON_S
    node.thaw()
