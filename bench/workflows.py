"""What workflows cost, beside as many plain tasks on the same server."""

import random
import time
from collections.abc import Callable
from itertools import count
from statistics import median

from bench import played
from bench.measures import Sample, Samples, Setting, drained
from bench.played import Node, Queue

_TURNS = 9
_TURN = 20 * played.AT_ONCE


def _turns(setting: Setting, contestants: dict[str, tuple[Queue, Callable[[], int]]]) -> dict[str, float]:
    """By name: µs of the server's CPU that a task takes, all of it. Each in turn does what its function says."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(_TURNS):
        for name, (queue, add) in random.sample(list(contestants.items()), len(contestants)):
            before = setting.server.cpu_us()
            tasks = add()
            assert queue.work(tasks) == tasks
            queue.step()
            taken[name].append((setting.server.cpu_us() - before) / tasks)
    return {name: median(of) for name, of in taken.items()}


def chords(setting: Setting) -> Samples:
    """A map with what follows it; tasks of a chain, many side by side; plain tasks beside a workflow."""
    setting.server.clear()
    url, numbers = setting.server.url, count()
    plain, beside, chord, chain = (Queue(url, name) for name in ("plain", "beside", "chord", "chain"))
    beside.create("waits", [Node("a"), Node("b", after=["a"])])
    assert beside.step() == 1
    beside.give_back()

    def add_plain(queue: Queue) -> Callable[[], int]:
        return lambda: queue.enqueue([""] * _TURN)

    def add_chord() -> int:
        chord.create_map(f"c{next(numbers)}", _TURN - 1)
        return _TURN

    def add_chains() -> int:
        nodes = [Node(f"n{i}", after=[f"n{i - 1}"] if i else []) for i in range(_TURN // 100)]
        for _ in range(100):
            chain.create(f"c{next(numbers)}", nodes)
        return _TURN

    taken = _turns(
        setting,
        {
            "plain": (plain, add_plain(plain)),
            "beside": (beside, add_plain(beside)),
            "chord": (chord, add_chord),
            "chain": (chain, add_chains),
        },
    )
    yield Sample("workflow_beside", taken["beside"], "µs/task", taken["plain"])
    yield Sample("workflow_chord", taken["chord"], "µs/task", taken["plain"])
    yield Sample("workflow_chain", taken["chain"], "µs/task", taken["plain"])


def chord_dispatch(setting: Setting) -> Samples:
    """A worker empties a map and a full queue, of tasks that do nothing."""
    server, n = setting.server, 10_000 if setting.quick else 100_000
    rates: dict[bool, float] = {}
    for is_chord in random.sample([True, False], 2):
        server.clear()
        with Queue(server.url, "bench", joins=False) as queue:
            if is_chord:
                queue.create_map("chord", n - 1)
            else:
                queue.enqueue([""] * n)
        with setting.programs.worker(100) as worker:
            rates[is_chord] = drained(setting, worker, n).rate
    yield Sample("workflow_chord_dispatch", rates[True], "tasks/s", rates[False])


def hops(setting: Setting) -> Samples:
    """From the end of a task to the next one's, in a chain, beside enqueue to result."""
    server, n = setting.server, 500
    server.clear()
    with setting.programs.worker() as worker, Queue(server.url, "bench", joins=False) as queue:
        nodes = [Node(f"n{i}", after=[f"n{i - 1}"] if i else []) for i in range(n)]
        queue.create("warm", nodes[:50])
        setting.programs.until(worker, lambda: server.progress()[1] >= 50)
        queue.create("chain", nodes)
        started = time.perf_counter()
        setting.programs.until(worker, lambda: server.progress()[1] >= 50 + n)
        hop_us = 1e6 * (time.perf_counter() - started) / n
        floor = setting.programs.producer("latency", n=300)["result_us"]["p50"]
    yield Sample("workflow_hop", hop_us, "µs", floor)


def waits(setting: Setting) -> Samples:
    """A task with a step beside one without; from a signal until the task that waits for it goes on."""
    setting.server.clear()
    with setting.programs.worker(option=""):
        figures = setting.programs.producer("waits", n=100 if setting.quick else 300, pause_us=2_000)
    p50 = {name: of["p50"] for name, of in figures.items() if name.endswith("_us")}
    yield Sample("workflow_step", p50["stepped_us"], "µs", p50["result_us"])
    yield Sample("workflow_signal", p50["woken_us"], "µs", p50["body_us"])


def sizes(setting: Setting) -> Samples:
    """The longest calls: of 1,000 nodes, and while a map of a million ends; and what its calls take that wait. Once."""
    if "workflow sizes" in setting.contests:
        return
    setting.contests["workflow sizes"] = True
    server, n = setting.server, 100_000 if setting.quick else 1_000_000
    server.clear()
    queue = Queue(server.url, "sizes")
    nodes = [Node(f"n{i}", after=[f"n{i - 1}"] if i % 10 else []) for i in range(1_000)]
    taken = []
    for number in range(10):
        started = time.perf_counter()
        queue.create(f"w{number}", nodes)
        taken.append(1e3 * (time.perf_counter() - started))
    yield Sample("workflow_create_1000", median(taken), "ms")
    server.clear()
    queue = Queue(server.url, "sizes")
    before = server.memory()
    queue.create_map("million", n, args="x" * 104, starts=False)
    yield Sample("workflow_item_memory", (server.memory() - before) / n, "bytes/item")
    server.command("CONFIG", "SET", "slowlog-log-slower-than", 1_000)
    server.command("SLOWLOG", "RESET")
    queue.start("million")
    assert queue.work(n) == n
    queue.step()
    calls = server.command("SLOWLOG", "GET", 128)
    yield Sample("workflow_longest_call", max((call[2] / 1e3 for call in calls), default=1.0), "ms")


MEASURES: list[tuple[str, Callable[[Setting], Samples]]] = [
    ("workflow_beside workflow_chord workflow_chain", chords),
    ("workflow_chord_dispatch", chord_dispatch),
    ("workflow_hop", hops),
    ("workflow_step workflow_signal", waits),
    ("workflow_create_1000 workflow_item_memory workflow_longest_call", sizes),
]
"""As `bench.measures.MEASURES`."""
