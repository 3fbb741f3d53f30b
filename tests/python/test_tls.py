"""TLS, with certificates on both sides: one server, a cluster, a primary behind Sentinels."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import eventually, is_served, number_of, working
from streams import Stream, offset
from topologies import Certificates, Cluster, Node, Sentinels, cluster, free_port, sentinel, server_with_tls, until

from ardiq import Ardiq, BrokerError
from ardiq.cli import main

Make = Callable[..., Ardiq]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if server_with_tls() is None:
        assert "CI" not in os.environ
        pytest.skip("no server with TLS here")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def nodes(certificates: Certificates) -> Iterator[Cluster]:
    with cluster(primaries=3, replicas=0, certificates=certificates) as servers:
        yield servers


@pytest.fixture(scope="module")
def watched(certificates: Certificates) -> Iterator[Sentinels]:
    with sentinel(replicas=1, sentinels=3, down_after_ms=2000, certificates=certificates) as servers:
        yield servers


async def test_a_cluster(nodes: Cluster, make_app: Make) -> None:
    assert main(["migrate", nodes.url]) == 0
    queues = nodes.queue_names()
    assert len(queues) == 3
    # Whichever node is asked first, the others are reached by TLS as well, and know us.
    for url in (nodes.url, nodes.nodes[0].url, nodes.nodes[-1].url):
        for name in queues:
            app = make_app(redis_url=url, queue_name=name)
            work = number_of(app)
            async with working(app):
                await is_served(work)


async def test_sentinels(watched: Sentinels, make_app: Make) -> None:
    app = make_app(redis_url=watched.url, poll_block_ms=1000)
    stream = Stream(app)
    async with working(app):
        async with stream.flowing():
            pass
        before, replica = watched.primary(), watched.replicas()[0]
        await eventually(lambda: offset(before) == offset(replica))
        after = await asyncio.to_thread(watched.failover)
        assert after is replica
        async with stream.flowing():
            pass


@pytest.fixture(params=["server", "cluster", "Sentinel"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "cluster":
        return str(request.getfixturevalue("nodes").url)
    watched: Sentinels = request.getfixturevalue("watched")
    return watched.url if request.param == "Sentinel" else watched.nodes[0].url


async def test_an_authority_that_is_not_trusted(
    url: str, certificates: Certificates, make_app: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Certificates(tmp_path_factory.mktemp("other"))
    app = make_app(redis_url=url.replace(str(certificates.authority), str(other.authority)), broker_timeout_ms=60_000)
    await is_refused(app, "not signed by a trusted authority; .* ssl_ca_certs")


@pytest.mark.parametrize("given", ["none", "another authority's"])
async def test_a_certificate_that_the_server_does_not_take(
    url: str, given: str, certificates: Certificates, make_app: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = f"&ssl_certfile={certificates.client}"
    assert own in url
    other = Certificates(tmp_path_factory.mktemp("other"))
    wrong = url.replace(own, "" if given == "none" else f"&ssl_certfile={other.client}")
    told = "requires a client certificate" if given == "none" else "not accept the certificate in ssl_certfile"
    await is_refused(make_app(redis_url=wrong, broker_timeout_ms=60_000), told)


async def is_refused(app: Ardiq, told: str) -> None:
    """An enqueue fails, and at once: no further attempt would go better."""
    with pytest.raises(BrokerError, match=told) as caught:
        async with asyncio.timeout(30):
            await app.ref("work").enqueue(1)
    assert not caught.value.maybe_enqueued


async def test_a_url_with_tls_to_a_server_without_and_the_reverse(
    nodes: Cluster, tmp_path: Path, make_app: Make
) -> None:
    plain = Node(tmp_path / "server", free_port(), {"save": ""})
    plain.start()
    until(plain.answers, "the server", [plain])
    try:
        for url, says in (
            (f"rediss://127.0.0.1:{plain.port}", "speaks no TLS on this port: write redis for rediss"),
            (f"redis://127.0.0.1:{nodes.nodes[0].port}", "wants TLS on this port: write rediss for redis"),
        ):
            app = make_app(redis_url=url)
            with pytest.raises(BrokerError, match=says):
                await app.send("task")
            with pytest.raises(BrokerError, match=says):
                app.send_sync("task")
    finally:
        plain.kill()
