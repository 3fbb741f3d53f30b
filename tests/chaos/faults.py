"""How each fault of the script is brought about, and mended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ardiq import _core

from ..python.topologies import Cluster, Node, Refused, Sentinels, until
from . import limited, other_version, released
from .fleet import Fleet, Member
from .jobs import BASE, LEASE_MS
from .observer import Observer
from .plan import PRODUCERS, WORKERS, Fault
from .records import Snapshot, snapshot
from .site import Site, terminate, wipe

LAG_S = 2.0
"""What was acknowledged so long before a primary was lost may not have reached its replica."""
NOTED_S = 0.25
"""What a process had from a server is noted so much later at most: it shares the machine with all the others."""
_PAST_LEASE_S = LEASE_MS / 1000 * 1.5
_LOAD_DELAY_US = 500
_PATIENCE_S = 120.0


@dataclass
class Event:
    """A fault that was injected."""

    kind: str
    began: float
    ended: float = 0.0
    """When nothing hindered work any more."""
    serves_at: float | None = None
    """When a server that was away, or a new primary, answered again."""
    pid: int | None = None
    """Of the one process it concerned."""
    loses: bool = False
    """By its nature: what was acknowledged before it may be gone."""
    loses_all: bool = field(default=False)


class Injector:
    """Injects one fault after the other. `sleep` looks after the fleet meanwhile."""

    def __init__(self, site: Site, fleet: Fleet, directory: Path, observer: Observer) -> None:
        self._site, self._fleet, self._directory, self._observer = site, fleet, directory, observer
        self._version: dict[str, str] | None = None
        self._primary: Node | None = None
        self._well_at = 0.0
        self.events: list[Event] = []
        self.before_loss: list[Snapshot] = []
        """What was there before a server lost all it had."""

    def inject(self, fault: Fault) -> Event:
        inject: Callable[[Fault, Event], None] = getattr(
            self, "_" + fault.kind.replace(",", "").replace(" ", "_").replace("-", "_")
        )
        self.notice_failover()
        event = Event(fault.kind, time.monotonic())
        self.events.append(event)
        inject(fault, event)
        if event.ended == 0.0:
            event.ended = time.monotonic()
        self._site.wait_until_well()
        self._primary, self._well_at = self._site.primary(), time.monotonic()
        return event

    def notice_failover(self) -> None:
        """Note a failover that no fault has brought about: on a busy machine a primary may be silent for too long."""
        with contextlib.suppress(OSError, Refused, StopIteration):
            if self._primary not in (None, primary := self._site.primary()):
                self.events.append(Event("failover by itself", self._well_at, time.monotonic(), loses=True))
                self._primary = primary

    def sleep(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._fleet.tend()
            time.sleep(min(left, 0.05))

    # Processes.

    def _worker(self, fault: Fault) -> Member:
        worker = self._fleet.workers[fault.target % WORKERS]
        while not worker.running:
            self.sleep(0.05)
        return worker

    def _worker_killed(self, fault: Fault, event: Event) -> None:
        worker = self._worker(fault)
        event.pid = worker.pid
        worker.signal(signal.SIGKILL)
        self.sleep(LEASE_MS / 1000 + 1.0)  # within which its tasks are to run again, undisturbed

    def _worker_frozen(self, fault: Fault, event: Event) -> None:
        worker = self._worker(fault)
        event.pid = worker.pid
        worker.signal(signal.SIGSTOP)
        self.sleep(_PAST_LEASE_S)
        worker.signal(signal.SIGCONT)

    def _worker_stopped(self, fault: Fault, event: Event) -> None:
        worker = self._worker(fault)
        event.pid = worker.pid
        worker.signal(signal.SIGTERM)
        worker.wait()

    def _producer_killed(self, fault: Fault, event: Event) -> None:
        producer = self._fleet.producers[fault.target % PRODUCERS]
        while not producer.running:
            self.sleep(0.05)
        event.pid = producer.pid
        producer.signal(signal.SIGKILL)

    def _clock_off_by_hours(self, fault: Fault, event: Event) -> None:
        self._fleet.clocks[fault.target % WORKERS].set(3600 * (fault.number % 49 - 24))

    # A server.

    def _single(self) -> Node:
        assert isinstance(self._site.servers, Node)
        return self._site.servers

    def _restarted(self, node: Node, event: Event) -> None:
        node.start()
        event.serves_at = event.ended = self._site.wait_until_it_serves()
        self.sleep(1.0)

    def _server_stopped(self, fault: Fault, event: Event) -> None:
        node = self._single()
        terminate(node)
        self.sleep(fault.for_s)
        self._restarted(node, event)

    def _server_killed(self, fault: Fault, event: Event) -> None:
        node = self._single()
        node.kill()
        self.sleep(fault.for_s)
        self._restarted(node, event)

    def _server_killed_data_gone(self, fault: Fault, event: Event) -> None:
        node = self._single()
        event.loses = event.loses_all = True
        node.command("CLIENT", "PAUSE", 60_000, "WRITE")
        self.before_loss.append(snapshot(node))
        node.kill()
        wipe(node)
        self.sleep(fault.for_s)
        self._restarted(node, event)

    def _server_loads_slowly(self, fault: Fault, event: Event) -> None:
        node = self._single()
        node.kill()
        config = node.config.read_text()
        node.config.write_text(config + f"key-load-delay {_LOAD_DELAY_US}\n")
        node.start()
        self.sleep(fault.for_s)
        node.config.write_text(config)
        until(lambda: _accepted(node, "CONFIG", "SET", "key-load-delay", 0), "a server that loads to answer", [node])
        event.serves_at = event.ended = self._site.wait_until_it_serves()
        self.sleep(1.0)

    def _connections_killed(self, fault: Fault, event: Event) -> None:
        self._site.command("CLIENT", "KILL", "TYPE", "normal")

    def _blocked_clients_killed(self, fault: Fault, event: Event) -> None:
        primary = self._site.primary()
        for line in primary.command("CLIENT", "LIST").splitlines():
            client = dict(word.partition("=")[::2] for word in line.split(" "))
            if "b" in client["flags"]:
                primary.command("CLIENT", "KILL", "ID", client["id"])

    def _functions_flushed(self, fault: Fault, event: Event) -> None:
        self._site.command("FUNCTION", "FLUSH")

    def _scripts_flushed(self, fault: Fault, event: Event) -> None:
        self._site.command("SCRIPT", "FLUSH")

    def _server_asleep(self, fault: Fault, event: Event) -> None:
        self._site.primary().command("DEBUG", "SLEEP", min(fault.for_s, 0.6 if self._site.proxy is None else 2.0))
        event.serves_at = event.ended = self._site.wait_until_it_serves()

    def _memory_full(self, fault: Fault, event: Event) -> None:
        self._site.command("CONFIG", "SET", "maxmemory", 1_000_000)
        self.sleep(fault.for_s)
        self._site.command("CONFIG", "SET", "maxmemory", 0)

    def _read_only(self, fault: Fault, event: Event) -> None:
        self._site.command("REPLICAOF", "127.0.0.1", 1)
        self.sleep(fault.for_s)
        self._site.command("REPLICAOF", "NO", "ONE")
        event.serves_at = event.ended = self._site.wait_until_it_serves()

    def _limits_changed(self, fault: Fault, event: Event) -> None:
        """Lowered, raised, closed, and as declared again; at times no limit, until a producer declares it."""
        for change in limited.changes(self._site.url, fault.number):
            with self._observer.blind():
                change()
            self.sleep(fault.for_s / 4)

    def _two_versions(self, fault: Fault, event: Event) -> None:
        """A deploy of another version of the library, of which one worker comes first, and then back."""
        if self._version is None:
            self._version = other_version.environment()
        worker = self._worker(fault)
        self._migrate(self._version)
        kept = worker.environment
        worker.environment = {**kept, **self._version}
        worker.signal(signal.SIGTERM)
        worker.wait()
        self.sleep(2.0 + fault.for_s)
        while not worker.running:
            self.sleep(0.05)
        worker.environment = kept
        worker.signal(signal.SIGTERM)
        worker.wait()
        self._migrate({}, "--prune")

    def _migrated_both_ways(self, fault: Fault, event: Event) -> None:
        """Nothing that live workers use is dropped, whichever way an operator goes."""
        this, before = _core.PROTOCOL_VERSION, _core.PROTOCOL_VERSION - 1
        until(self._has_both, "workers of both versions", self._site.nodes)
        self._migrate({})
        assert f"keep ardiq_v{before}: live workers" in self._migrate({}, "--prune")
        if before > 0:
            assert f"keep ardiq_v{this}: live workers" in self._migrate({}, "--to", str(before))

    def _back_forth_and_pruned(self, fault: Fault, event: Event) -> None:
        """All goes back to the version before, forward again, and then there is only this one."""
        this, before = _core.PROTOCOL_VERSION, _core.PROTOCOL_VERSION - 1
        ours, theirs = self._fleet.versions()
        self._until(self._has_both, "workers of both versions")
        self._fleet.retire(*ours)
        assert f"drop ardiq_v{this}" in self._migrate({}, "--to", str(before))
        self.sleep(fault.for_s)
        for member in ours:
            self._fleet.start_again(member)  # they load what they miss
        self._until(self._has_both, "workers of both versions")
        self.sleep(fault.for_s)
        worker, producer = theirs
        self._fleet.retire(worker)
        producer.retired = True
        assert f"drop ardiq_v{before}" in self._migrate({}, "--prune")
        worker.start()
        for member in theirs:
            self._until(lambda member=member: not member.running, "what is of the version before to end")
            assert member.ended.pop().code == released.PRUNED, member.log.read_text()
        self.sleep(fault.for_s)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.sleep(0.05)

    def _has_both(self) -> bool:
        alive = "".join(self._site.command("ZRANGEBYSCORE", f"{BASE}workers", f"{time.time() * 1000:.0f}", "+inf"))
        return "released:" in alive and alive.replace("released:", "").count(":") > 0

    def _migrate(self, environment: dict[str, str], *options: str) -> str:
        command = [sys.executable, "-m", "ardiq", "migrate", self._site.url, *options]
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd=Path(__file__).parents[2], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # Connections by the proxy.

    def _connections_cut(self, fault: Fault, event: Event) -> None:
        assert self._site.proxy is not None
        self._site.proxy.cut()

    def _network_slow(self, fault: Fault, event: Event) -> None:
        assert self._site.proxy is not None
        self._site.proxy.delay(0.05 + fault.number / 5000)
        self.sleep(fault.for_s)
        self._site.proxy.delay(0)

    def _network_half_open(self, fault: Fault, event: Event) -> None:
        assert self._site.proxy is not None
        self._site.proxy.swallow()
        self.sleep(fault.for_s)
        self._site.proxy.heal()

    def _replies_truncated(self, fault: Fault, event: Event) -> None:
        assert self._site.proxy is not None
        self._site.proxy.truncate(fault.number)
        self.sleep(fault.for_s / 2)

    # Failovers.

    def _failover_in_order(self, fault: Fault, event: Event) -> None:
        servers, before = self._site.servers, self._site.primary()
        if isinstance(servers, Cluster):
            servers.failover(BASE)
        elif isinstance(servers, Sentinels):
            event.loses = True  # what the primary of before takes until it is told
            servers.failover()
        event.serves_at = self._site.wait_until_it_serves()
        self._follow(before)
        event.ended = time.monotonic()
        self.sleep(1.0)

    def _primary_killed(self, fault: Fault, event: Event) -> None:
        self._replaced(event, Node.kill, Node.start)

    def _primary_frozen(self, fault: Fault, event: Event) -> None:
        self._replaced(event, Node.freeze, Node.thaw)

    def _replaced(self, event: Event, end: Callable[[Node], None], begin_again: Callable[[Node], None]) -> None:
        """The primary is gone until another has taken its place."""
        event.loses = True
        before = self._site.primary()
        end(before)
        while not self._has_other_primary(before):
            self.sleep(0.02)
        event.serves_at = self._site.wait_until_it_serves()
        self.sleep(1.5)
        begin_again(before)
        self._follow(before)
        event.ended = time.monotonic()

    def _follow(self, before: Node) -> None:
        """Until the primary of before follows the one of now. Sentinels would tell it, too, some ten seconds later."""
        servers = self._site.servers
        until(before.answers, "the primary of before", [before], _PATIENCE_S)
        if isinstance(servers, Sentinels):
            before.command("REPLICAOF", "127.0.0.1", servers.primary().port)
        until(lambda: _follows(before), "the primary of before to follow", self._site.nodes, _PATIENCE_S)

    def _has_other_primary(self, before: Node) -> bool:
        with contextlib.suppress(OSError, Refused, StopIteration):
            servers = self._site.servers
            if isinstance(servers, Cluster):
                others = [node for node in servers.nodes if node is not before and node.running]
                slot = servers.slot_of(BASE)
                for first, last, (_, port, *_), *_ in others[0].command("CLUSTER", "SLOTS", timeout=1):
                    if first <= slot <= last and port != before.port:
                        return next(node for node in servers.nodes if node.port == port).is_primary()
            elif isinstance(servers, Sentinels):
                primary = servers.primary()
                return primary is not before and primary.is_primary()
        return False

    def _slot_moved(self, fault: Fault, event: Event) -> None:
        servers = self._site.servers
        assert isinstance(servers, Cluster)
        slot, holder = servers.slot_of(BASE), self._site.primary()
        others = [node for node in servers.nodes if node.is_primary() and node is not holder]
        with self._observer.blind():
            servers.move(slot, others[fault.target % len(others)])
        event.serves_at = event.ended = self._site.wait_until_it_serves()

    def _cluster_down(self, fault: Fault, event: Event) -> None:
        """Another part of the cluster is gone with its replica, so none of it serves."""
        servers = self._site.servers
        assert isinstance(servers, Cluster)
        holder = self._site.primary()
        primary, replicas = next(part for part in servers.slots().values() if part[0] is not holder)
        for node in (primary, *replicas):
            node.kill()
        self.sleep(2.0 + fault.for_s)
        for node in (primary, *replicas):
            node.start()
        event.serves_at = event.ended = self._site.wait_until_it_serves()

    def _sentinel_killed(self, fault: Fault, event: Event) -> None:
        servers = self._site.servers
        assert isinstance(servers, Sentinels)
        watching = servers.sentinels[fault.target % len(servers.sentinels)]
        watching.kill()
        self._connections_killed(fault, event)
        self.sleep(fault.for_s)
        watching.start()


def _accepted(node: Node, *words: object) -> bool:
    try:
        node.command(*words)
    except (OSError, Refused):
        return False
    return True


def _follows(node: Node) -> bool:
    try:
        return not node.is_primary() and bool(node.answers())
    except OSError:
        return False
