"""A primary that Sentinels watch: it is found, and its successor too."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from helpers import drain, eventually, working
from streams import Stream, offset
from topologies import Sentinels, sentinel, until

from ardiq import Ardiq, BrokerError, LibraryError
from ardiq.cli import main


@pytest.fixture(scope="module")
def servers() -> Iterator[Sentinels]:
    # On a busy machine a server may be silent for a second; and one that came back empty could be made the primary.
    with sentinel(replicas=1, sentinels=3, down_after_ms=2000, settings={"appendonly": "yes"}) as servers:
        yield servers


async def test_what_an_app_is_told_when_the_url_is_wrong(servers: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    primary, watching = servers.primary(), ",".join(node.name for node in servers.sentinels)
    for url, message in (
        (f"redis+sentinel://{watching}/other", 'knows no service "other"'),
        (f"redis+sentinel://{primary.name}/{servers.service}", "the Sentinel at .*unknown command"),
    ):
        with pytest.raises(BrokerError, match=message) as caught:
            await make_app(redis_url=url).ref("work").enqueue(1)
        assert not caught.value.maybe_enqueued
    with pytest.raises(LibraryError, match="is not a cluster node"):
        await make_app(redis_url=f"redis+cluster://{primary.name}").ref("work").enqueue(1)
    with pytest.raises(ValueError, match="missing service"):
        make_app(redis_url=f"redis+sentinel://{watching}")


async def test_one_sentinel_that_answers_is_enough(servers: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone, frozen = "127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"redis+sentinel://{gone},{frozen},{servers.sentinels[0].name}/{servers.service}/3"
        app = make_app(redis_url=url)
        await app.ref("work").enqueue(1)
        assert await app.queue_size() == 1
        # In the database that the URL names.
        assert "db0" not in servers.primary().command("INFO", "keyspace")


async def test_when_none_answers_each_is_named_with_its_reason(make_app: Callable[..., Ardiq]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        frozen = f"127.0.0.1:{silent.getsockname()[1]}"
        app = make_app(redis_url=f"redis+sentinel://127.0.0.1:1,{frozen},localhost:2/main", broker_timeout_ms=1000)
        with pytest.raises(BrokerError) as refused:
            await app.ref("work").enqueue(1)
    first, *others = str(refused.value).split("; ")
    assert first.startswith(f"cannot reach {app.redis_url}: Connection refused")
    reasons = [first.rpartition(": ")[2], *others]
    assert len(reasons) == 3
    for reason, place in (("Connection refused", "127.0.0.1:1"), ("Connection refused", "localhost:2")):
        assert any(told.startswith(reason) and told.endswith(f"(at {place})") for told in reasons), reasons
    assert f"no answer (at {frozen})" in reasons


async def test_one_that_is_wrong_does_not_speak_for_those_that_are_away(
    servers: Sentinels, make_app: Callable[..., Ardiq]
) -> None:
    away, *_ = servers.sentinels
    app = make_app(redis_url=f"redis+sentinel://{servers.primary().name},{away.name}/{servers.service}")
    away.kill()
    sent = asyncio.create_task(app.ref("work").enqueue(1))
    await asyncio.sleep(0.2)
    away.start()
    assert (await sent).id
    await asyncio.to_thread(until, servers.is_ok, "the Sentinels to agree", servers.sentinels)


@pytest.mark.parametrize("way", ["in good order", "kill", "freeze"])
async def test_the_new_primary_is_followed(servers: Sentinels, make_app: Callable[..., Ardiq], way: str) -> None:
    app = make_app(redis_url=servers.url, poll_block_ms=1000)
    stream = Stream(app)
    primary, replica = servers.primary(), servers.replicas()[0]
    async with working(app):
        async with stream.flowing():
            pass
        # What the replica had not received would be lost by nature.
        await eventually(lambda: offset(primary) == offset(replica))
        if way == "in good order":
            await asyncio.to_thread(servers.failover)
        else:
            getattr(primary, way)()
            await asyncio.to_thread(servers.primary_after, primary)
        async with stream.flowing():
            pass
        if way == "freeze":
            primary.thaw()
    await asyncio.to_thread(servers.rejoin, primary)
    assert main(["fsck", servers.url, "--queue", app.queue_name]) == 0


async def test_what_a_replica_had_confirmed_survives_its_primary(
    servers: Sentinels, make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(redis_url=servers.url, durability="replicated")
    ran, accepted = set(), []

    @app.task
    async def work(number: int) -> None:
        ran.add(number)

    async def produce(first: int) -> None:
        for number in itertools.count(first, 4):
            if ended.is_set():
                return
            with suppress(BrokerError):  # it says so: not accepted, or perhaps
                await work.enqueue(number)
                accepted.append(number)

    ended, primary = asyncio.Event(), servers.primary()
    producers = [asyncio.create_task(produce(first)) for first in range(4)]
    await eventually(lambda: len(accepted) >= 100)
    primary.kill()
    await asyncio.to_thread(servers.primary_after, primary)
    # Without a replica nothing would be accepted any more.
    await asyncio.to_thread(servers.rejoin, primary)
    enough = len(accepted) + 100
    await eventually(lambda: len(accepted) >= enough)
    ended.set()
    await asyncio.gather(*producers)
    await drain(app)
    assert set(accepted) <= ran
    assert main(["fsck", servers.url, "--queue", app.queue_name]) == 0


async def test_sentinels_and_servers_have_passwords_of_their_own(make_app: Callable[..., Ardiq]) -> None:
    secret = {"requirepass": "server", "masterauth": "server"}
    with sentinel(settings=secret, sentinel_settings={"requirepass": "sentinel"}) as servers:
        watching, service = servers.url.removeprefix("redis+sentinel://").split("/")
        app = make_app(redis_url=f"redis+sentinel://:server@{watching}/{service}?sentinel_password=sentinel")
        job = await app.ref("work").enqueue(1)
        assert await job.status() == "queued"
        for login, options in ((":server@", ""), ("", "?sentinel_password=sentinel")):
            half = make_app(redis_url=f"redis+sentinel://{login}{watching}/{service}{options}")
            with pytest.raises(BrokerError, match="requires a password"):
                await half.ref("work").enqueue(1)
