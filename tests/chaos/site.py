"""The servers of a run, whatever their topology, as faults see them."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..python.proxy import Proxy
from ..python.topologies import Cluster, Node, Refused, Sentinels, cluster, free_port, sentinel, until
from .jobs import BASE

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 120.0
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "hash-max-ziplist-value": "512",
    "save": "",
    # DEBUG SLEEP, and answers while the data is being loaded.
    "enable-debug-command": "yes",
    "loading-process-events-interval-bytes": "1024",
}


class Site:
    """One server behind a proxy, a cluster, or a primary that Sentinels watch."""

    def __init__(self, servers: "Node | Cluster | Sentinels", proxy: Proxy | None = None) -> None:
        self.servers = servers
        self.proxy = proxy

    @property
    def url(self) -> str:
        return self.servers.url

    @property
    def urls(self) -> list[str]:
        """What members of the fleet connect to: some by the proxy, where there is one."""
        return [self.url] if self.proxy is None else [f"redis://127.0.0.1:{self.proxy.port}", self.url]

    @property
    def nodes(self) -> list[Node]:
        return [self.servers] if isinstance(self.servers, Node) else self.servers.nodes

    def primary(self) -> Node:
        """The server that holds the queue."""
        if isinstance(self.servers, Cluster):
            return self.servers.primary_of(BASE)
        return self.servers.primary() if isinstance(self.servers, Sentinels) else self.servers

    def command(self, *words: object) -> Any:
        return self.primary().command(*words)

    def serves(self) -> bool:
        """Whether the queue can be written to."""
        try:
            primary = self.primary()
            return (
                primary.is_primary() and primary.command("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, BASE) >= 0
            )
        except (OSError, Refused, StopIteration, AssertionError):
            return False

    def wait_until_it_serves(self) -> float:
        """When it did."""
        until(self.serves, "the queue to be served", self.nodes, _PATIENCE_S)
        return time.monotonic()

    def wait_until_well(self) -> None:
        """Also ready for the next failover."""
        if not isinstance(self.servers, Node):
            until(self.servers.is_ok, "every server to be well", self.nodes, _PATIENCE_S)


def terminate(node: Node) -> None:
    """SIGTERM: it saves what it has and ends."""
    os.kill(node.pid, signal.SIGTERM)
    while Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.005)
    node.kill()


def wipe(node: Node) -> None:
    """What it keeps is gone; it does not run."""
    for path in node.directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in (node.config, node.directory / "log"):
            path.unlink()


@contextmanager
def site(topology: str, directory: Path) -> Iterator[Site]:
    """Servers that run until the block ends."""
    with ExitStack() as stack:
        if topology == "cluster":
            yield Site(stack.enter_context(cluster(settings=SETTINGS)))
        elif topology == "sentinel":
            yield Site(stack.enter_context(sentinel(replicas=1, settings=SETTINGS)))
        else:
            node = Node(directory / "server", free_port(), SETTINGS)
            stack.callback(node.kill)
            node.start()
            until(node.answers, "the server", [node])
            proxy = Proxy(node.port)
            stack.callback(proxy.close)
            yield Site(node, proxy)


def binary(topology: str) -> str | None:
    """The server to run; None: the embedded one."""
    if topology != "redis7":
        return None
    found = ROOT / ".venv" / "tools" / "redis-server"
    if not found.exists():
        raise SystemExit("Redis 7.0 is not here: `make develop` puts it into .venv/tools where it can be had")
    return str(found)
