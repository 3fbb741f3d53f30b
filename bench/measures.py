"""The measures. Each is taken once per repetition, Ardiq and its floor one after the other, and gives named samples."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.options import OPTIONS
from bench.programs import Process, Programs, running
from bench.server import Server

# What an idle worker cannot do without: the interpreter, asyncio (which loads ssl) and msgspec.
_BARE = "import asyncio, ssl, msgspec; asyncio.run(asyncio.Event().wait())"
_NAP_S = 0.1
_DAY_MS = 86_400_000


class Sample(NamedTuple):
    """One value of a figure, and what the floor reached; None where there is no floor."""

    name: str
    value: float
    unit: str
    floor: float | None = None


@dataclass
class Setting:
    """What the measures work with."""

    server: Server
    programs: Programs
    tasks: int
    quick: bool
    start_server: Callable[[], Server]
    floor: Path
    kept: ExitStack
    """What lives until the last repetition."""
    earlier: str | None = None
    """The interpreter of another build."""
    crowded: Server | None = None
    contests: dict[str, Any] = field(default_factory=dict)


Samples = Iterator[Sample]


def dispatch(setting: Setting, name: str, concurrency: int, task: str = "noop") -> Samples:
    """A worker empties a full queue of tasks that do nothing."""
    server, programs, n = setting.server, setting.programs, setting.tasks
    server.clear()
    programs.floor("enqueue_many", n=n)
    before = server.cpu_us()
    floor = programs.floor("drain")
    floor_server = (server.cpu_us() - before) / n

    server.clear()
    programs.producer("enqueue_many", n=n, task=task)
    with programs.worker(concurrency) as worker:
        run = drained(setting, worker, n)
    yield Sample(name, run.rate, "tasks/s", floor["n"] / floor["seconds"])
    suffix = name.removeprefix("dispatch")
    suffix = "" if suffix == "_c100" else suffix
    yield Sample(f"worker_cpu{suffix}", run.worker_cpu, "µs/task", 1e6 * floor["cpu_seconds"] / n)
    yield Sample(f"server_cpu{suffix}", run.server_cpu, "µs/task", floor_server)


class Run(NamedTuple):
    """What a worker did: tasks a second, and µs of CPU that a task took it and the server."""

    rate: float
    worker_cpu: float
    server_cpu: float


def drained(setting: Setting, worker: Process, n: int) -> Run:
    """Watch the worker from its first claim to the last task."""
    server, programs = setting.server, setting.programs
    programs.until(worker, lambda: server.progress()[0] > 0)
    started, worker_cpu, server_cpu = time.perf_counter(), worker.cpu_us(), server.cpu_us()
    programs.until(worker, lambda: server.progress()[1] >= n, pause_s=0.003)
    seconds = time.perf_counter() - started
    return Run(n / seconds, (worker.cpu_us() - worker_cpu) / n, (server.cpu_us() - server_cpu) / n)


def enqueue(setting: Setting, name: str) -> Samples:
    """A producer fills an empty queue."""
    server, programs, ours = setting.server, setting.programs, []
    for program in (programs.floor, programs.producer):
        server.clear()
        before = server.cpu_us()
        figures = program(name, n=5_000 if name == "enqueue_sequential" else 20_000)
        n = figures["n"]
        ours.append((n / figures["seconds"], 1e6 * figures["cpu_seconds"] / n, (server.cpu_us() - before) / n))
    floor, value = ours
    yield Sample(name, value[0], "tasks/s", floor[0])
    yield Sample(f"{name}_cpu", value[1], "µs/task", floor[1])
    yield Sample(f"{name}_server_cpu", value[2], "µs/task", floor[2])


def queues(setting: Setting) -> Samples:
    """A task to each of many queues from one process, beside as many to one queue."""
    n, ours = 10_000, []
    for count in (1, n):
        setting.server.clear()
        ours.append(setting.programs.producer("enqueue_queues", n=n, queues=count))
    one, many = ours
    yield Sample("enqueue_queues", n / many["seconds"], "tasks/s", n / one["seconds"])
    for kind in ("threads", "sockets", "descriptors"):
        yield Sample(f"queues_{kind}", many[kind], "of 10,000 queues", one[kind])
    yield Sample("queue_memory", (many["kib"] - one["kib"]) / n, "KiB/queue")


def latency(setting: Setting) -> Samples:
    """One task at a time on an idle, warm worker."""
    server, programs = setting.server, setting.programs
    options = {"n": 300 if setting.quick else 1_000, "pause_us": 1_000}
    server.clear()
    ping = programs.floor("ping", **options)["round_trip_us"]["p50"]
    with programs.floor_worker():
        floor = programs.floor("latency", **options)
    server.clear()
    with programs.worker():
        value = programs.producer("latency", **options)
    result = floor["result_us"]["p50"]
    yield Sample("round_trip", ping, "µs")
    yield Sample("latency_p50", value["request_us"]["p50"], "µs", result)
    yield Sample("latency_p99", value["request_us"]["p99"], "µs", floor["result_us"]["p99"])
    yield Sample("latency_round_trips", value["request_us"]["p50"] / ping, "PINGs", result / ping)
    yield Sample("latency_enqueue_result_p50", value["result_us"]["p50"], "µs", result)
    yield Sample("latency_body_p50", value["body_us"]["p50"], "µs", floor["body_us"]["p50"])


def memory(setting: Setting, size: int) -> Samples:
    """What the server keeps for a queued task beyond its arguments."""
    server, programs, n, ours = setting.server, setting.programs, 20_000, []
    for program in (programs.floor, programs.producer):
        server.clear()
        before = server.memory()
        program("enqueue_many", n=n, size=size, task="payload")
        ours.append((server.memory() - before) / n - size)
    yield Sample(f"server_bytes_{size}", ours[1], "bytes/task", ours[0])


def idle_memory(setting: Setting) -> Samples:
    """An idle worker's share of memory."""
    setting.server.clear()
    with setting.programs.worker():
        pass  # so that the bytecode is cached
    setting.server.clear()
    with setting.programs.worker() as worker:
        time.sleep(2)
        value = worker.pss_mib()
    with running([sys.executable, "-c", _BARE]) as bare:
        time.sleep(1)
        yield Sample("pss_idle", value, "MiB", bare.pss_mib())


def naps(setting: Setting) -> Samples:
    """Tasks that wait 100 ms each, as a share of what 500 at once can do."""
    server, programs, n, concurrency = setting.server, setting.programs, 5_000, 500
    server.clear()
    programs.producer("enqueue_many", n=n, task="nap")
    with programs.worker(concurrency) as worker:
        run = drained(setting, worker, n)
    yield Sample("sleep_c500", run.rate / (concurrency / _NAP_S), "of the ceiling", 1.0)


def claim_scheduled(setting: Setting) -> Samples:
    """A worker's step while many tasks are scheduled for later, against one where none is."""
    ahead, n = 100_000 if setting.quick else 1_000_000, 20_000
    if setting.crowded is None:
        setting.crowded = setting.kept.enter_context(setting.start_server())
        Programs(setting.crowded, setting.floor).floor("enqueue_many", n=ahead, delay_ms=_DAY_MS)
    setting.server.clear()
    steps = []
    for server in (setting.server, setting.crowded):
        programs = Programs(server, setting.floor)
        programs.floor("enqueue_many", n=n)
        server.reset_calls()
        programs.floor("drain")
        steps.append(server.call_us("fcall", "evalsha"))
    yield Sample("claim_scheduled_ratio", steps[1] / steps[0], "times", 1.0)


def option(setting: Setting, name: str) -> Samples:
    """Tasks with one option, beside as many without."""
    server, programs, n, rates = setting.server, setting.programs, 20_000, []
    for used in ("", name):
        server.clear()
        figures = programs.producer("enqueue_option", used, n=n)
        with programs.worker(option=used) as worker:
            run = drained(setting, worker, n)
        rates.append((n / figures["seconds"], run.rate))
    yield Sample(f"enqueue_with_{name}", rates[1][0], "tasks/s", rates[0][0])
    yield Sample(f"dispatch_with_{name}", rates[1][1], "tasks/s", rates[0][1])


def redis_call(setting: Setting) -> Samples:
    """The yardstick of this machine and server."""
    yield Sample("redis_call", setting.server.redis_call_us(), "µs")


MEASURES: list[tuple[str, Callable[[Setting], Samples]]] = [
    ("redis_call", redis_call),
    ("dispatch_c10 worker_cpu_c10 server_cpu_c10", lambda setting: dispatch(setting, "dispatch_c10", 10)),
    ("dispatch_c100 worker_cpu server_cpu", lambda setting: dispatch(setting, "dispatch_c100", 100)),
    (
        "dispatch_def_t10 worker_cpu_def_t10 server_cpu_def_t10",
        lambda setting: dispatch(setting, "dispatch_def_t10", 10, "noop_thread"),
    ),
    *(
        (f"{name} {name}_cpu {name}_server_cpu", lambda setting, name=name: enqueue(setting, name))
        for name in ("enqueue_many", "enqueue_concurrent", "enqueue_sequential")
    ),
    ("enqueue_queues queues_threads queues_sockets queues_descriptors queue_memory", queues),
    (
        "round_trip latency_p50 latency_p99 latency_round_trips latency_enqueue_result_p50 latency_body_p50",
        latency,
    ),
    *((f"server_bytes_{size}", lambda setting, size=size: memory(setting, size)) for size in (20, 200, 2_000)),
    ("pss_idle", idle_memory),
    ("sleep_c500", naps),
    ("claim_scheduled_ratio", claim_scheduled),
    *(
        (f"enqueue_with_{name} dispatch_with_{name}", lambda setting, name=name: option(setting, name))
        for name in OPTIONS
    ),
]
"""Names of the figures that a measure gives, and the measure."""
