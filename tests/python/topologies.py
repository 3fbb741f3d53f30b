"""Servers that belong together, each a process on loopback: a Redis Cluster, or a primary watched by Sentinels.

    with cluster(primaries=3, replicas=1) as servers:
        app = Ardiq(servers.url)
        servers.primary_of("ardiq:{default}:").kill()

    with sentinel(replicas=1) as servers:
        app = Ardiq(servers.url)
        servers.primary().freeze()

With `certificates=Certificates(directory)` all of them speak TLS alone, and want a certificate of whoever comes.

Everything is ready within two or three seconds: who knows whom is written into the servers' own files before they
start, rather than told to them and waited for. The binary is the embedded server's, or the one that ARDIQ_TEST_SERVER
names (Redis 6.2 will do).
"""

import functools
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from ardiq import embedded

SLOTS = 16384
HOST = "127.0.0.1"
_FAILOVER_S = 6.0
"""A failover that takes longer has been given up."""
START_S = 30.0
"""Far longer than anything here takes; only a failure waits so long."""


class Refused(Exception):
    """A server answered a command with an error."""


class Certificates:
    """An authority, and the certificates it issued to servers on this machine and to their clients; as files.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.authority, self.server, self.client = (directory / f"{name}.pem" for name in ("ca", "server", "client"))
        authority.cert_pem.write_to_path(self.authority)
        authority.issue_cert(HOST, "localhost").private_key_and_cert_chain_pem.write_to_path(self.server)
        authority.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(self.client)

    @property
    def settings(self) -> dict[str, str]:
        """Those of a server, towards its clients and the other servers."""
        own = {"tls-cert-file": str(self.server), "tls-key-file": str(self.server)}
        return {**own, "tls-ca-cert-file": str(self.authority), "tls-replication": "yes"}

    @property
    def query(self) -> str:
        """What the URL of an app says of them."""
        return f"?ssl_ca_certs={self.authority}&ssl_certfile={self.client}"

    def context(self) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.client)
        return context


class Node:
    """One server process, which can be killed, frozen and started again on the same port with the same data.

    Args:
        directory: its own; what it keeps is there.
        port: where it listens.
        settings: its configuration, such as `{"appendonly": "yes"}`; a value of several words is split at spaces.
        sentinel: whether it is a Sentinel.
        certificates: for TLS; None: plain.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        settings: dict[str, str],
        *,
        sentinel: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port
        self.name = f"{HOST}:{port}"
        self.id = f"{random.getrandbits(160):040x}"
        self.config = directory / "server.conf"
        listen = {"port": str(port)}
        if certificates is not None:
            listen = {"port": "0", "tls-port": str(port), **certificates.settings}
        options = {**listen, "bind": HOST, "dir": str(directory), **settings}
        self.config.write_text("".join(f"{name} {value or chr(34) * 2}\n" for name, value in options.items()))
        self._sentinel = sentinel
        self._certificates = certificates
        self._password = settings.get("requirepass")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """This server alone."""
        return _url("", self.name, self._certificates)

    @property
    def pid(self) -> int:
        """Of its process, which runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None

    def start(self) -> None:
        """Start it, or start it again; it may not answer yet."""
        if self._process is None:
            binary = server_with_tls() if self._certificates else os.environ.get("ARDIQ_TEST_SERVER")
            binary = binary or embedded._binary()
            command = [binary, str(self.config), *(["--sentinel"] if self._sentinel else [])]
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it without warning (SIGKILL), frozen or not; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Make it stop answering without closing anything, as a machine that vanished does."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, unaware of what happened."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: object, timeout: float = 10.0) -> Any:
        """Its answer to one command: text, a number, None, or a list of these.

        Raises:
            Refused: the answer is an error.
            OSError: it does not answer.
        """
        with self._connected(timeout) as connection, connection.makefile("rb") as answer:
            if self._password is not None:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                _read(answer)
            parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            sent = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
            connection.sendall(b"*%d\r\n%b" % (len(parts), sent))
            return _read(answer)

    def _connected(self, timeout: float) -> socket.socket:
        connection = socket.create_connection((HOST, self.port), timeout)
        if self._certificates is None:
            return connection
        return self._certificates.context().wrap_socket(connection, server_hostname=HOST)

    def answers(self) -> bool:
        """Whether it is up and has loaded its data."""
        try:
            return bool(self.command("PING", timeout=1) == "PONG")
        except (OSError, Refused):
            return False

    def is_primary(self) -> bool:
        """Whether it takes writes, by its own word."""
        try:
            return bool(self.command("ROLE", timeout=1)[0] == "master")
        except (OSError, Refused):
            return False

    def log(self) -> str:
        """What it said so far."""
        return (self.directory / "log").read_text(errors="replace")


class Servers:
    """What a cluster and a Sentinel set have in common."""

    def __init__(self, nodes: Sequence[Node], certificates: Certificates | None) -> None:
        self.nodes = list(nodes)
        self.certificates = certificates

    def start(self) -> None:
        """Start every node that does not run."""
        for node in self.nodes:
            node.start()

    def kill(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.kill()


class Cluster(Servers):
    """A Redis Cluster: `primaries` of the nodes are primaries at first, the rest their replicas."""

    @property
    def url(self) -> str:
        """What an app connects to: every node."""
        return _url("+cluster", ",".join(node.name for node in self.nodes), self.certificates)

    def slots(self) -> dict[int, tuple[Node, list[Node]]]:
        """The first slot of each range → its primary and replicas, as the first node that answers sees it."""
        seen = next(node for node in self.nodes if node.running and node.answers()).command("CLUSTER", "SLOTS")
        by_port = {node.port: node for node in self.nodes}
        return {
            int(first): (by_port[owner[1]], [by_port[replica[1]] for replica in replicas])
            for first, _, owner, *replicas in seen
        }

    def slot_of(self, key: str) -> int:
        """The slot of a key; of a queue, that of its base `ardiq:{name}:`."""
        answering = next(node for node in self.nodes if node.running and node.answers())
        return int(answering.command("CLUSTER", "KEYSLOT", key))

    def primary_of(self, key: str) -> Node:
        """The node that holds a key."""
        slot, slots = self.slot_of(key), self.slots()
        return slots[max(first for first in slots if first <= slot)][0]

    def queue_names(self) -> list[str]:
        """Of one queue on each primary."""
        primaries = {primary.name for primary, _ in self.slots().values()}
        found: dict[str, str] = {}
        names = (f"on{number}" for number in range(1000))
        while len(found) < len(primaries):
            name = next(names)
            found.setdefault(self.primary_of(f"ardiq:{{{name}}}:").name, name)
        return list(found.values())

    def replicas_of(self, key: str) -> list[Node]:
        """The replicas of the node that holds a key."""
        slot, slots = self.slot_of(key), self.slots()
        return slots[max(first for first in slots if first <= slot)][1]

    def failover(self, key: str) -> Node:
        """Promote a replica of the node that holds a key, in good order: nothing is lost. The new primary.

        What a clumsy failover loses comes about with `primary_of(key).kill()` or `.freeze()`.
        """
        until(self.is_ok, "the cluster to be whole", self.nodes)
        promoted = self.replicas_of(key)[0]
        begun = 0.0

        def is_promoted() -> bool:
            nonlocal begun
            if time.monotonic() - begun > _FAILOVER_S:
                begun = time.monotonic()
                promoted.command("CLUSTER", "FAILOVER")
            return promoted.is_primary()

        until(is_promoted, "the replica's promotion", self.nodes)
        return promoted

    def begin_move(self, slot: int, target: Node) -> Node:
        """Declare a slot to be on the move to another primary; the node that still holds it."""
        slots = self.slots()
        source = slots[max(first for first in slots if first <= slot)][0]
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.command("CLUSTER", "MYID"))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.command("CLUSTER", "MYID"))
        return source

    def move_keys(self, slot: int, source: Node, target: Node, most: int = 1_000_000) -> int:
        """Move up to `most` keys of a slot that is on the move; how many were moved."""
        moved = 0
        while moved < most:
            keys = source.command("CLUSTER", "GETKEYSINSLOT", slot, min(100, most - moved))
            if not keys:
                break
            source.command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        return moved

    def end_move(self, slot: int, target: Node) -> None:
        """Declare the move of a slot to be over: every primary is told."""
        name = target.command("CLUSTER", "MYID")
        primaries = [node for node in self.nodes if node.running and node.is_primary()]
        for node in [target, *(node for node in primaries if node is not target)]:
            node.command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def move(self, slot: int, target: Node) -> None:
        """Reshard: move a slot with all its keys to another primary, as `redis-cli --cluster reshard` does."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, target)

    def is_ok(self) -> bool:
        """Whether every node that runs serves, they agree who does what, and every replica is in step."""
        running = [node for node in self.nodes if node.running]
        serving = all("cluster_state:ok" in node.command("CLUSTER", "INFO", timeout=1) for node in running)
        return serving and all(map(_in_step, running)) and len(set(map(_view, running))) == 1


class Sentinels(Servers):
    """A primary with replicas (`nodes`), and the Sentinels that watch them (`sentinels`)."""

    def __init__(
        self, nodes: Sequence[Node], sentinels: Sequence[Node], service: str, certificates: Certificates | None
    ) -> None:
        super().__init__(nodes, certificates)
        self.sentinels = list(sentinels)
        self.service = service

    @property
    def url(self) -> str:
        """What an app connects to: every Sentinel, and the service."""
        watching = ",".join(node.name for node in self.sentinels)
        return _url("+sentinel", f"{watching}/{self.service}", self.certificates)

    def start(self) -> None:
        super().start()
        for node in self.sentinels:
            node.start()

    def kill(self) -> None:
        for node in self.sentinels:
            node.kill()
        super().kill()

    def primary(self) -> Node:
        """The one that the Sentinels name."""
        answering = next(node for node in self.sentinels if node.running and node.answers())
        port = int(answering.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1])
        return next(node for node in self.nodes if node.port == port)

    def primary_after(self, gone: Node) -> Node:
        """The primary that was promoted since `gone` was it; waits for it."""
        until(
            lambda: self.primary() is not gone and self.primary().is_primary(),
            "a replica's promotion",
            [*self.nodes, *self.sentinels],
        )
        return self.primary()

    def replicas(self) -> list[Node]:
        """All others."""
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def failover(self) -> Node:
        """Have the Sentinels promote a replica while the primary is well. The new primary.

        What a failure does comes about with `gone.kill()` or `.freeze()`, and `primary_after(gone)`.
        """
        before, begun = self.primary(), 0.0

        def is_replaced() -> bool:
            nonlocal begun
            primary = self.primary()
            # A failover that was accepted may come to nothing, or be forgotten with its Sentinel.
            if primary is before and time.monotonic() - begun > _FAILOVER_S:
                asked = next(node for node in self.sentinels if node.running and node.answers())
                if _accepted(asked, "SENTINEL", "FAILOVER", self.service):
                    begun = time.monotonic()
            return primary is not before and primary.is_primary()

        until(is_replaced, "a replica's promotion", [*self.nodes, *self.sentinels])
        return self.primary()

    def rejoin(self, node: Node) -> None:
        """Have a primary of before, started again where it was killed, follow the one of now.

        The Sentinels would see to it, too, some ten seconds later.
        """
        node.start()
        until(node.answers, "a server that was killed", [node])
        node.command("REPLICAOF", HOST, self.primary().port)
        until(self.is_ok, "the Sentinels to agree", [*self.nodes, *self.sentinels])

    def is_ok(self) -> bool:
        """Whether the Sentinels that run could fail over now: they know each other, and all servers are in step."""
        running = [node for node in self.sentinels if node.running]
        return all(node.answers() and _in_step(node) for node in self.nodes if node.running) and all(
            node.answers()
            and _accepted(node, "SENTINEL", "CKQUORUM", self.service)
            and all("down" not in _pairs(state)["flags"] for state in self._known(node))
            for node in running
        )

    def _known(self, node: Node) -> list[list[str]]:
        primary = node.command("SENTINEL", "MASTER", self.service)
        replicas: list[list[str]] = node.command("SENTINEL", "REPLICAS", self.service)
        return [primary, *replicas]


@contextmanager
def cluster(
    primaries: int = 3,
    replicas: int = 1,
    *,
    node_timeout_ms: int = 1500,
    settings: dict[str, str] | None = None,
    certificates: Certificates | None = None,
) -> Iterator[Cluster]:
    """A running cluster whose slots are shared evenly; its nodes end with the block.

    Args:
        primaries: how many; 1 is allowed.
        replicas: of each of them. Who fails over needs at least 3 primaries (a majority) and 1 replica.
        node_timeout_ms: after how long without an answer a node counts as failed.
        settings: more of each server's configuration.
        certificates: for TLS; None: plain.
    """
    with _directory() as directory:
        count = primaries * (1 + replicas)
        options = {
            **_SETTINGS,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(node_timeout_ms),
            "cluster-replica-validity-factor": "0",
            "cluster-migration-barrier": "100",
            **({"tls-cluster": "yes"} if certificates else {}),
            **(settings or {}),
        }
        nodes = [Node(directory / str(port), port, options, certificates=certificates) for port in _ports(count)]
        for node in nodes:
            lines = [_cluster_line(nodes, index, primaries, node) for index in range(count)]
            lines.append(f"vars currentEpoch {primaries} lastVoteEpoch 0")
            (node.directory / "nodes.conf").write_text("\n".join([*lines, ""]))
        servers = Cluster(nodes, certificates)
        try:
            servers.start()
            until(servers.is_ok, "the cluster to serve", nodes)
            yield servers
        finally:
            servers.kill()


@contextmanager
def sentinel(
    replicas: int = 1,
    sentinels: int = 3,
    *,
    service: str = "main",
    down_after_ms: int = 1000,
    settings: dict[str, str] | None = None,
    sentinel_settings: dict[str, str] | None = None,
    certificates: Certificates | None = None,
) -> Iterator[Sentinels]:
    """A primary with replicas in step, watched by Sentinels that know each other; all end with the block.

    Args:
        replicas: how many.
        sentinels: how many; most of them must agree on a failover.
        service: the name they know the primary by.
        down_after_ms: after how long without an answer the primary counts as failed.
        settings: more of each server's configuration.
        sentinel_settings: the same for the Sentinels.
        certificates: for TLS, of all of them; None: plain.
    """
    with _directory() as directory:
        first, *others = _ports(1 + replicas + sentinels)
        options = {**_SETTINGS, **(settings or {})}
        follow = {"replicaof": f"{HOST} {first}"}
        own = sentinel_settings or {}

        def node(port: int, settings: dict[str, str], sentinel: bool = False) -> Node:
            return Node(directory / str(port), port, settings, sentinel=sentinel, certificates=certificates)

        nodes = [node(first, options), *(node(port, {**options, **follow}) for port in others[:replicas])]
        watch = [node(port, own, sentinel=True) for port in others[replicas:]]
        for watcher in watch:
            lines = [
                f"sentinel myid {watcher.id}",
                f"sentinel monitor {service} {HOST} {first} {sentinels // 2 + 1}",
                f"sentinel down-after-milliseconds {service} {down_after_ms}",
                f"sentinel failover-timeout {service} 1500",
                *(f"sentinel known-replica {service} {HOST} {port}" for port in others[:replicas]),
                *(f"sentinel known-sentinel {service} {HOST} {n.port} {n.id}" for n in watch if n is not watcher),
            ]
            if "requirepass" in options:
                lines.append(f"sentinel auth-pass {service} {options['requirepass']}")
            if "requirepass" in own:
                lines.append(f"sentinel sentinel-pass {own['requirepass']}")
            with watcher.config.open("a") as config:
                config.write("\n".join([*lines, ""]))
        servers = Sentinels(nodes, watch, service, certificates)
        try:
            for server in nodes:
                server.start()
            # A Sentinel that is up before its primary would begin a failover.
            until(lambda: all(each.answers() and _in_step(each) for each in nodes), "the replicas to be in step", nodes)
            servers.start()
            until(servers.is_ok, "the Sentinels to agree", watch)
            yield servers
        finally:
            servers.kill()


@functools.cache
def server_with_tls() -> str | None:
    """The program of a server that speaks TLS: that of ARDIQ_TEST_SERVER, the embedded one, Redis 7.0 or the system's.

    None where there is none.
    """
    known = os.environ.get("ARDIQ_TEST_SERVER"), embedded._binary(), str(Path(sys.prefix) / "tools" / "redis-server")
    for binary in (*known, shutil.which("valkey-server"), shutil.which("redis-server")):
        if binary is not None and Path(binary).exists():
            # Without a certificate it ends at once; one without TLS does not know the word.
            tried = subprocess.run(
                [binary, "--port", "0", "--tls-port", "1"], capture_output=True, text=True, timeout=30
            )
            if "Failed to configure TLS" in tried.stdout + tried.stderr:
                return binary
    return None


def until(condition: Callable[[], Any], what: str, nodes: Sequence[Node] = (), seconds: float = START_S) -> None:
    """Wait for a condition; one that meets a server which does not answer is not met.

    Raises:
        AssertionError: it did not come about; with the servers' own words.
    """
    deadline = time.monotonic() + seconds
    while not _holds(condition):
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {node.name}\n{node.log()[-2000:]}" for node in nodes)
            raise AssertionError(f"waited in vain for {what}\n{logs}")
        time.sleep(0.02)


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except (OSError, Refused):
        return False


def _url(form: str, hosts: str, certificates: Certificates | None) -> str:
    return f"redis{form}://{hosts}" if certificates is None else f"rediss{form}://{hosts}{certificates.query}"


_SETTINGS = {
    "save": "",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "hash-max-ziplist-value": "512",
}


def _cluster_line(nodes: list[Node], index: int, primaries: int, reader: Node) -> str:
    """What `reader` knows of a node, as in its nodes.conf."""
    node = nodes[index]
    flags = "master" if index < primaries else "slave"
    follows, slots = "-", ""
    if index < primaries:
        first, last = SLOTS * index // primaries, SLOTS * (index + 1) // primaries - 1
        slots = f" {first}-{last}"
    else:
        follows = nodes[(index - primaries) % primaries].id
    if node is reader:
        flags = f"myself,{flags}"
    epoch = index % primaries + 1
    state = "connected" if node is reader else "disconnected"
    return f"{node.id} {HOST}:{node.port}@{node.port + 10000} {flags} {follows} 0 0 {epoch} {state}{slots}"


def _in_step(node: Node) -> bool:
    role = node.command("ROLE", timeout=1)
    return bool(role[0] == "master" or (role[0] == "slave" and role[3] == "connected"))


def _view(node: Node) -> str:
    """Who does what in the cluster, as one of its nodes sees it."""
    seen = node.command("CLUSTER", "SLOTS", timeout=1)
    return str(sorted((first, owner[1], sorted(other[1] for other in others)) for first, _, owner, *others in seen))


def _pairs(answer: list[str]) -> dict[str, str]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _accepted(node: Node, *words: object) -> bool:
    try:
        node.command(*words)
    except Refused:
        return False
    return True


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="ardiq-topology-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ports(count: int) -> list[int]:
    """Free ports below those that clients are given, whose cluster ports, 10,000 above, are free too."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 22_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def free_port() -> int:
    """One that nobody listens on."""
    return _ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _read(answer: Any) -> Any:
    line = answer.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("the connection ended within an answer")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise Refused(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else answer.read(int(rest) + 2)[:-2].decode(errors="replace")
    if kind == b"*":
        return None if rest == b"-1" else [_read(answer) for _ in range(int(rest))]
    return rest.decode()
