"""The curves: for each what it is called, and how its points are taken. All through the public API and `ardiq run`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from bench.programs import ROOT, Process, Programs, running
from bench.scale import plain
from bench.server import Server

_DAY_MS = 86_400_000
_LEVEL_S = 0.5


class Curve(NamedTuple):
    """What a curve shows."""

    key: str
    title: str
    unit: str
    floor: str = ""
    """What it is beside."""


class Family(NamedTuple):
    """Curves over one quantity, and how to take a point of all of them."""

    key: str
    over: str
    at: tuple[int, ...]
    quick: tuple[int, ...]
    take: Callable[["Setting", int], "Points"]
    curves: tuple[Curve, ...]


class Point(NamedTuple):
    """One value of a curve, and of its floor."""

    curve: str
    value: float
    floor: float | None = None


Points = Iterator[Point]


@dataclass
class Setting:
    """What the measures work with."""

    server: Server
    programs: Programs
    tasks: int
    beats_s: float
    """How long an idle fleet is watched."""

    def fill(self, n: int, **options: int) -> None:
        """Put so many tasks there, before the clock starts."""
        if n:
            self.programs.producer("enqueue_many", "", n=n, **options)

    def added(self, n: int, **options: int) -> tuple[float, float]:
        """Add so many: tasks a second, µs of the server's CPU a task."""
        before = self.server.cpu_us()
        figures = self.programs.producer("enqueue_many", "", n=n, **options)
        return n / figures["seconds"], (self.server.cpu_us() - before) / n

    def drained(self, workers: list[Process], n: int) -> tuple[float, float, float]:
        """Watch until so many are complete, from the first claim on: tasks a second; µs of the server's and of the
        workers' CPU a task.
        """
        until = self.programs.until
        until(workers[0], lambda: self.server.progress()[0] > 0)
        started, server, theirs = time.perf_counter(), self.server.cpu_us(), _cpu_us(workers)
        until(workers[0], lambda: self.server.progress()[1] >= n, pause_s=0.003)
        seconds = time.perf_counter() - started
        return n / seconds, (self.server.cpu_us() - server) / n, (_cpu_us(workers) - theirs) / n

    @contextmanager
    def workers(self, count: int) -> Iterator[list[Process]]:
        """So many processes of `ardiq run`, which have joined."""
        with ExitStack() as stack:
            started = [stack.enter_context(self.programs.worker(100)) for _ in range(count)]
            self.programs.until(started[0], lambda: self.server.workers() == count)
            yield started

    def command(self, *words: str) -> None:
        """The command line on the app."""
        environment = {**os.environ, "ARDIQ_REDIS_URL": self.server.url}
        command = [sys.executable, "-m", "ardiq", *words, "bench.jobs:app"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def _cpu_us(processes: list[Process]) -> float:
    return sum(process.cpu_us() for process in processes)


def workers(setting: Setting, count: int) -> Points:
    """A full queue, held by a pause until all workers are there, then emptied."""
    server, n = setting.server, setting.tasks
    server.clear()
    tasks = plain.ids(n // 5)
    plain.cost(server, plain.enqueued, tasks)
    floor = plain.cost(server, plain.ran, tasks)
    server.clear()
    setting.fill(n)
    setting.command("pause")
    with setting.workers(count) as started:
        setting.command("resume")
        rate, server_us, worker_us = setting.drained(started, n)
    yield Point("workers_rate", rate)
    yield Point("workers_server", server_us, floor)
    yield Point("workers_cpu", worker_us)


def queued(setting: Setting, ahead: int) -> Points:
    """Tasks are added behind those that wait already, and a worker takes as many from the front."""
    server, n = setting.server, setting.tasks // 5
    server.clear()
    before = server.memory()
    setting.fill(ahead)
    kept = (server.memory() - before) / ahead if ahead else None
    rate, server_us = setting.added(n)
    with setting.workers(1) as started:
        drained = setting.drained(started, n)
    server.clear()
    tasks = plain.ids(n)
    _plain_ahead(server, "LPUSH", ahead)
    added, ran = plain.cost(server, plain.enqueued, tasks), plain.cost(server, plain.ran, tasks)
    yield Point("queued_added", rate)
    yield Point("queued_added_server", server_us, added)
    yield Point("queued_rate", drained[0])
    yield Point("queued_server", drained[1], ran)
    if kept is not None:
        yield Point("queued_memory", kept)


def scheduled(setting: Setting, ahead: int) -> Points:
    """Tasks for tomorrow are there; more are scheduled, others are due now, and a worker runs those."""
    server, n = setting.server, setting.tasks // 5
    server.clear()
    setting.fill(ahead, delay_ms=_DAY_MS)
    rate, server_us = setting.added(n, delay_ms=_DAY_MS)
    setting.fill(n, delay_ms=1)
    time.sleep(_LEVEL_S)
    with setting.workers(1) as started:
        due = setting.drained(started, n)
    server.clear()
    tasks = plain.ids(n)
    _plain_ahead(server, "ZADD", ahead)
    added, ran = plain.cost(server, plain.scheduled, tasks), plain.cost(server, plain.promoted, tasks)
    yield Point("scheduled_added", rate)
    yield Point("scheduled_added_server", server_us, added)
    yield Point("scheduled_rate", due[0])
    yield Point("scheduled_server", due[1], ran)


def _plain_ahead(server: Server, command: str, ahead: int) -> None:
    """As many in the list or the sorted set of the floor."""
    for first in range(0, ahead, 10_000):
        ids = plain.ids(min(10_000, ahead - first))
        if command == "LPUSH":
            server.command("LPUSH", "plain:ready", *ids)
        else:
            server.command("ZADD", "plain:scheduled", *(word for each in ids for word in (plain.DUE, each)))


def queues(setting: Setting, count: int) -> Points:
    """Ten thousand awaiting callers, each for a queue in turn."""
    server, n = setting.server, 10_000
    server.clear()
    tasks = plain.ids(n)
    floor = plain.cost(server, plain.enqueued, tasks)
    server.clear()
    before, cpu = server.memory(), server.cpu_us()
    figures = setting.programs.producer("enqueue_queues", n=n, queues=count)
    server_us = (server.cpu_us() - cpu) / n
    yield Point("queues_added", n / figures["seconds"])
    yield Point("queues_server", server_us, floor)
    yield Point("queues_memory", (server.memory() - before) / n)


def served(setting: Setting, count: int) -> Points:
    """One worker serves so many queues; they are filled while it stands still, once it has begun with all of them."""
    server, n = setting.server, setting.tasks
    server.clear()
    setting.programs.producer("enqueue_queues", n=count, queues=count)
    names = [f"bench-{number}" for number in range(count)]
    words = [sys.executable, "-m", "ardiq", "run", "bench.jobs:app", *(f"--queue={name}" for name in names)]
    environment = {"ARDIQ_REDIS_URL": server.url, "BENCH_CONCURRENCY": "100"}

    def each() -> list[int]:
        return [int(server.command("HGET", f"ardiq:{{{name}}}:stats", "completed") or 0) for name in names]

    def complete() -> int:
        return sum(each())

    with running(words, **environment) as worker:
        setting.programs.until(worker, lambda: all(each()), pause_s=0.01)
        with worker.frozen():
            setting.programs.producer("enqueue_queues", n=n, queues=count)
            started, cpu, theirs = time.perf_counter(), server.cpu_us(), worker.cpu_us()
        setting.programs.until(worker, lambda: complete() >= count + n, pause_s=0.02)
        seconds = time.perf_counter() - started
        yield Point("served_rate", n / seconds)
        yield Point("served_server", (server.cpu_us() - cpu) / n)
        yield Point("served_cpu", (worker.cpu_us() - theirs) / n)


def members(setting: Setting, count: int) -> Points:
    """So many workers, played by the protocol: idle, then tasks one by one; then, without their beats, many at once."""
    server, n, one_by_one = setting.server, setting.tasks // 5, 300
    server.clear()
    alone_us, _ = _idle(setting)
    with _fleet(setting, count, beats=True) as fleet:
        idle_us, beats = _idle(setting)
        server.reset_calls()
        before, began = server.cpu_us(), time.perf_counter()
        setting.programs.producer("enqueue_sequential", n=one_by_one)
        setting.programs.until(fleet, lambda: server.progress()[1] >= one_by_one, pause_s=0.05)
        seconds = time.perf_counter() - began
        # Without what they cost as idle ones; they look for themselves every five seconds.
        single_us = max(0.0, server.cpu_us() - before - idle_us * seconds / setting.beats_s) / one_by_one
        wakes = max(0.0, server.calls("blpop") - count * seconds / 5) / one_by_one
    server.clear()
    with _fleet(setting, count, beats=False) as fleet:
        before = server.cpu_us()
        setting.fill(n)
        setting.programs.until(fleet, lambda: server.progress()[1] >= n, pause_s=0.05)
        many_us = (server.cpu_us() - before) / n
    server.clear()
    tasks = plain.ids(n)
    floor = plain.cost(server, plain.enqueued, tasks) + plain.cost(server, plain.ran, tasks)
    yield Point("members_idle", max(0.0, idle_us - alone_us) / max(1, beats))
    yield Point("members_single", single_us)
    yield Point("members_wakes", wakes)
    yield Point("members_many", many_us, floor)


@contextmanager
def _fleet(setting: Setting, count: int, *, beats: bool) -> Iterator[Process]:
    words = [sys.executable, "-m", "bench.scale.fleet", setting.server.url, str(count), *(["beats"] if beats else [])]
    with running(words) as fleet:
        setting.programs.until(fleet, lambda: setting.server.workers() == count, pause_s=0.05)
        time.sleep(2 * _LEVEL_S)
        yield fleet


def _idle(setting: Setting) -> tuple[float, int]:
    """µs of the server's CPU while nobody asks for anything, and how many functions were called meanwhile."""
    setting.server.reset_calls()
    before = setting.server.cpu_us()
    time.sleep(setting.beats_s)
    return setting.server.cpu_us() - before, setting.server.calls("fcall", "evalsha")


_PLAIN = "plain commands"
FAMILIES = (
    Family(
        "workers",
        "worker processes",
        (1, 2, 4, 8),
        (1, 2, 4),
        workers,
        (
            Curve("workers_rate", "empty tasks run", "tasks/s"),
            Curve("workers_server", "server CPU", "µs/task", _PLAIN),
            Curve("workers_cpu", "CPU of all workers", "µs/task"),
        ),
    ),
    Family(
        "queued",
        "tasks queued before",
        (0, 1_000, 10_000, 100_000, 1_000_000),
        (0, 1_000, 10_000),
        queued,
        (
            Curve("queued_added_server", "enqueueing: server CPU", "µs/task", _PLAIN),
            Curve("queued_server", "running: server CPU", "µs/task", _PLAIN),
            Curve("queued_added", "enqueued in bulk", "tasks/s"),
            Curve("queued_rate", "empty tasks run", "tasks/s"),
            Curve("queued_memory", "server memory", "bytes/task"),
        ),
    ),
    Family(
        "scheduled",
        "tasks scheduled for tomorrow",
        (0, 1_000, 10_000, 100_000, 1_000_000),
        (0, 1_000, 10_000),
        scheduled,
        (
            Curve("scheduled_added_server", "scheduling: server CPU", "µs/task", _PLAIN),
            Curve("scheduled_server", "falling due and running: server CPU", "µs/task", _PLAIN),
            Curve("scheduled_added", "scheduled in bulk", "tasks/s"),
            Curve("scheduled_rate", "empty tasks, due, run", "tasks/s"),
        ),
    ),
    Family(
        "queues",
        "queues that 10,000 tasks go to",
        (1, 10, 100, 1_000, 10_000),
        (1, 10, 100),
        queues,
        (
            Curve("queues_server", "enqueueing: server CPU", "µs/task", _PLAIN),
            Curve("queues_added", "enqueued by awaiting callers", "tasks/s"),
            Curve("queues_memory", "server memory", "bytes/task"),
        ),
    ),
    Family(
        "served",
        "queues that one worker serves",
        (1, 10, 100),
        (1, 10),
        served,
        (
            Curve("served_server", "server CPU", "µs/task"),
            Curve("served_rate", "empty tasks run", "tasks/s"),
            Curve("served_cpu", "CPU of the worker", "µs/task"),
        ),
    ),
    Family(
        "members",
        "workers of one queue (played)",
        (1, 10, 100, 1_000),
        (1, 10, 100),
        members,
        (
            Curve("members_idle", "an idle worker, which beats once a second: server CPU", "µs/s"),
            Curve("members_single", "tasks one by one: server CPU", "µs/task"),
            Curve("members_wakes", "workers woken", "a task alone"),
            Curve("members_many", "many tasks at once: server CPU", "µs/task", _PLAIN),
        ),
    ),
)
