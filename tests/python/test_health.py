"""`ardiq run --health`: probes and metrics that answer whatever Python does."""

import argparse
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, Probe, soon
from helpers import SOON_S

from ardiq import Ardiq, Limit, _core
from ardiq.cli import Refusal, main
from ardiq.cli._health import Place, listen, read_place
from ardiq.embedded import Server

JOBS = """
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(max_retries=0)
    def fail() -> None:
        raise ValueError("no")

    @app.task
    async def hold() -> None:
        gate = open_gate("gate")
        ctypes.PyDLL(None).read(gate, ctypes.create_string_buffer(1), 1)  # holds on to the interpreter

    @app.task
    def fork() -> int:
        child = os.fork()
        if child == 0:
            os.closerange(0, 3)
            time.sleep(60)
            os._exit(0)
        note(str(child))

    @app.task
    def wait() -> None:
        os.read(open_gate("gate"), 1)
"""


@pytest.fixture
def make_fleet(tmp_path: Path, server: Server, make_app: Callable[..., Ardiq]) -> Iterator[Callable[..., Fleet]]:
    fleets: list[Fleet] = []

    def make(url: str = server.url, **options: Any) -> Fleet:
        fleets.append(Fleet(tmp_path, make_app(redis_url=url), url, JOBS, **options))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(stall_after=0.3)


def probe(fleet: Fleet) -> Probe:
    """Of the worker that was told to choose a port of its own."""
    return Probe(soon(lambda: re.findall(r"health: http://([^/]+)/live", fleet.log()))[0])


def is_ready(probe: Probe) -> bool:
    return probe.get("/ready") == (200, "ready\n")


def test_a_worker_tells_of_itself_and_of_its_queue(fleet: Fleet) -> None:
    fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: is_ready(worker))
    assert worker.get("/live") == (200, "alive\n")
    assert worker.get("/nothing")[0] == 404
    queue = fleet.app.queue_name
    for number in range(3):
        fleet.app.ref("add").enqueue_sync(number, 1)
    fleet.app.ref("fail").enqueue_sync()
    fleet.app.ref("who knows").enqueue_sync()
    soon(lambda: (worker.metric("attempts_total") or 0) >= 5)
    assert worker.metric("attempts_total", queue=queue, task="add", lane="default", outcome="complete") == 3
    assert worker.metric("attempts_total", task="fail", outcome="failed") == 1
    assert worker.metric("attempts_total", task="", outcome="unknown") == 1, "what nobody registered has no name"
    for name in ("run_seconds", "wait_seconds"):
        assert worker.metric(f"{name}_count", task="add") == 3
        assert worker.metric(f"{name}_bucket", task="add", le="+Inf") == 3
        assert worker.metric(f"{name}_sum", task="add") is not None
    assert worker.metric("concurrency", queue=queue) == 16
    assert worker.metric("worker_info", queue=queue, version=_core.VERSION) == 1
    assert worker.metric("in_flight") == worker.metric("leases_lost_total") == worker.metric("loop_stalls_total") == 0
    assert (worker.metric("connections") or 0) >= 2
    soon(lambda: worker.metric("queue_tasks", state="dead") == 1)
    soon(lambda: worker.metric("queue_tasks", state="overdue") == 0)
    assert worker.metric("queue_workers", queue=queue) == 1
    assert worker.metric("queue_known") == worker.metric("ready") == 1


def test_depth_and_age_of_the_lanes_are_the_queues(fleet: Fleet) -> None:
    gate = fleet.gate()
    fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: is_ready(worker))
    for _ in range(40):  # more than it runs and holds
        fleet.app.ref("wait").enqueue_sync()
    soon(lambda: worker.metric("in_flight") == 16)
    soon(lambda: worker.metric("queue_lane_ready", lane="default") == 24)
    soon(lambda: (worker.metric("queue_lane_age_seconds", lane="default") or 0) > 1)
    assert worker.metric("queue_tasks", state="queued") == 24
    for _ in range(40):
        fleet.open(gate)
    soon(lambda: worker.metric("attempts_total", task="wait", outcome="complete") == 40)
    soon(lambda: worker.metric("queue_lane_age_seconds") is None)
    assert worker.metric("run_seconds_bucket", task="wait", le="0.005") != 40

    closed = Limit("closed", concurrency=1)
    fleet.app.limits.put_sync(closed, concurrency=0)
    fleet.app.ref("add", limits=closed).enqueue_sync(1, 2)
    soon(lambda: worker.metric("queue_lane_limited", lane="default") == 1)
    soon(lambda: worker.metric("queue_lane_age_seconds", lane="default") is not None)


def test_they_answer_while_a_task_holds_on_to_the_interpreter(fleet: Fleet) -> None:
    gate = fleet.gate()
    fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: is_ready(worker))
    fleet.app.ref("hold").enqueue_sync()
    soon(lambda: (worker.metric("interpreter_held_total") or 0) == 1)
    assert worker.metric("in_flight") == worker.metric("loop_stalls_total") == 1
    assert (worker.metric("loop_stalled_seconds") or 0) >= 0.3
    status, why = worker.get("/ready")
    assert status == 503
    assert "the interpreter is held and its event loop has not run for" in why
    assert worker.get("/live")[1].startswith("alive, but the interpreter is held")
    assert "no Python code has run for" in fleet.log()
    fleet.open(gate)
    soon(lambda: is_ready(worker))
    soon(lambda: worker.metric("attempts_total", task="hold", outcome="complete") == 1)
    assert worker.metric("loop_stalled_seconds") == worker.metric("attempts_lost_total") == 0
    assert "the event loop runs again" in fleet.log()


def test_a_worker_that_is_stopping_is_not_ready(fleet: Fleet) -> None:
    gate = fleet.gate()
    process = fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: is_ready(worker))
    fleet.app.ref("wait").enqueue_sync()
    soon(lambda: worker.metric("in_flight") == 1)
    process.send_signal(signal.SIGTERM)
    soon(lambda: worker.get("/ready")[0] == 503)
    assert worker.get("/ready")[1] == "not ready: draining: it ends when the running tasks have ended\n"
    assert worker.get("/live")[0] == 200
    assert worker.metric("ready") == 0
    fleet.open(gate)
    assert process.wait(SOON_S) == 0


def test_a_worker_without_its_server_is_alive_and_not_ready(make_fleet: Callable[..., Fleet]) -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        fleet = make_fleet(server.url, idle_timeout_ms=1_000)
        fleet.start("--health", "127.0.0.1:0")
        worker = probe(fleet)
        soon(lambda: is_ready(worker))
        fleet.app.context.server.close()
    soon(lambda: "no answer from the server for" in worker.get("/ready")[1])
    assert worker.get("/live") == (200, "alive\n")
    soon(lambda: worker.metric("queue_known") == 0)
    assert worker.metric("queue_tasks") is None
    assert (worker.metric("lease_renewed_seconds_ago") or 0) > 1


def test_the_metrics_of_many_queues_answer_in_an_outage(make_fleet: Callable[..., Fleet]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        fleet = make_fleet(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        fleet.start("--health", "127.0.0.1:0", *(f"--queue=q{number}" for number in range(5)))
        worker = probe(fleet)
        soon(lambda: worker.get("/ready")[1].count("has not joined its queue") == 5)
        status, text = worker.get("/metrics")
        assert (status, text.count("ardiq_queue_known{")) == (200, 5)


def test_a_worker_that_never_reached_its_server_is_starting(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("redis://127.0.0.1:1")
    fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: "it has not joined its queue" in worker.get("/ready")[1])
    assert worker.get("/live")[0] == 200


def test_each_of_several_workers_has_a_port_of_its_own(fleet: Fleet) -> None:
    first = two_free_ports()
    fleet.start("--health", f"127.0.0.1:{first}", "--workers", "2")
    workers = [Probe(f"127.0.0.1:{first + number}") for number in range(2)]
    soon(lambda: all(is_ready(worker) for worker in workers))
    pids = {worker.pid for worker in fleet.workers()}
    os.kill(min(pids), signal.SIGKILL)
    soon(lambda: {worker.pid for worker in fleet.workers()} > pids)
    soon(lambda: all(is_ready(worker) for worker in workers))  # the new one has the old one's port


def test_what_a_task_forked_leaves_the_port_to_the_next_worker(fleet: Fleet) -> None:
    place = f"127.0.0.1:{two_free_ports()}"
    worker = Probe(place)
    first = fleet.start("--health", place)
    soon(lambda: is_ready(worker))
    fleet.app.ref("fork").enqueue_sync()
    (child,) = soon(fleet.notes)
    try:
        first.kill()
        first.wait()
        fleet.start("--health", place)
        soon(lambda: is_ready(worker))
    finally:
        os.kill(int(child), signal.SIGKILL)


def two_free_ports() -> int:
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            try:
                other.bind(("127.0.0.1", one.getsockname()[1] + 1))
            except OSError:
                continue
            return int(one.getsockname()[1])


def test_who_speaks_no_http_or_says_nothing_keeps_nobody_waiting(fleet: Fleet) -> None:
    fleet.start("--health", "127.0.0.1:0")
    worker = probe(fleet)
    soon(lambda: is_ready(worker))
    host, port = worker.address.split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    with socket.create_connection((host, int(port))) as rude:
        rude.sendall(b"\x00\xff nonsense\r\n\r\n")
        rude.settimeout(SOON_S)
        assert rude.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection((host, int(port))) as poster:
        poster.sendall(b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        poster.settimeout(SOON_S)
        assert poster.recv(100).startswith(b"HTTP/1.1 405")
    assert is_ready(worker)
    for connection in silent:
        connection.close()


@pytest.mark.parametrize(
    "text", ["9100", ":9100", "localhost:", "localhost:http", "localhost:70000", "::1:9100", "[::1]"]
)
def test_where_to_listen_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(text)):
        read_place(text)


def test_an_ipv6_address_stands_in_brackets(app: Ardiq) -> None:
    place = read_place("[::1]:0")
    assert (place, str(place)) == (Place("::1", 0), "[::1]:0")
    try:
        with socket.socket(socket.AF_INET6) as probing:
            probing.bind(("::1", 0))
    except OSError:
        with pytest.raises(Refusal, match="--health"):
            listen(app, place)
    else:
        health = listen(app, place)
        assert re.fullmatch(r"\[::1\]:\d+", health.address)
        assert Probe(health.address).get("/ready") == (503, "not ready: starting\n")
        health.close()


def test_an_address_that_cannot_be_used_is_refused(app: Ardiq) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refusal, match=r"--health 127\.0\.0\.1:\d+: the port is taken"):
            listen(app, Place("127.0.0.1", taken.getsockname()[1]))
    with pytest.raises(Refusal, match="this machine does not have that address"):
        listen(app, Place("192.0.2.1", 0))
    with pytest.raises(Refusal, match=r"--health no\.such\.host\.invalid:0: "):
        listen(app, Place("no.such.host.invalid", 0))


def test_a_port_that_is_for_root_alone_is_refused(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unprivileged:
        def health(self, host: str, port: int) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(app.context.server), "core", Unprivileged())
    with pytest.raises(Refusal, match=r"--health 127\.0\.0\.1:80: ports below 1024 are reserved for root"):
        listen(app, Place("127.0.0.1", 80))


def test_workers_need_as_many_ports(fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(fleet.directory)
    assert main(["run", "jobs:app", "--workers", "4", "--health", "127.0.0.1:65533"]) == 2
    assert "4 workers need ports up to 65536" in capsys.readouterr().err
