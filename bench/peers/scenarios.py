"""The scenarios. Each is run for one library at a time and gives figures by name."""

import time
from statistics import quantiles

from bench.peers.processes import Failed, Program
from bench.peers.stage import PATIENCE_S, Figures, Stage

_WARM = 20
_SAMPLES, _BUDGET_S = 240, 4.0
_WORKED = _WARM + 2 * _SAMPLES
_STARTED_S = 15.0
_ONE_BY_ONE = ("awaited", "blocking")


def dispatch(stage: Stage, ways: list[str], concurrency: int) -> Figures:
    """A queue is filled in the ways that the library has; then a worker drains it."""
    library, figures = stage.library, Figures()
    producer = stage.producer()
    producer.ask({"do": "many", "body": "noop", "first": 0, "count": _WARM}, PATIENCE_S)
    total = _WARM
    for way in (*(way for way in _ONE_BY_ONE if way in ways), "many"):
        count = library.tasks if way == "many" else library.singles
        server_s = stage.server.cpu_us() / 1e6
        done = producer.ask({"do": way, "body": "noop", "first": total, "count": count}, PATIENCE_S)
        figures[f"{way}_rate"] = count / done["seconds"]
        figures[f"{way}_producer_cpu_us"] = 1e6 * done["cpu_seconds"] / count
        figures[f"{way}_server_cpu_us"] = stage.server.cpu_us() / count - 1e6 * server_s / count
        total += count
    producer.kill()

    worker = stage.worker("noop", concurrency)
    stage.until(worker, lambda: stage.stamps.count() > 0, pause_s=0.0005)
    before, server_us, worker_s = stage.stamps.count(), stage.server.cpu_us(), worker.cpu_s()
    stage.until(worker, lambda: stage.stamps.count() >= total)
    measured = stage.stamps.count() - before
    figures["server_cpu_us"] = (stage.server.cpu_us() - server_us) / measured
    figures["worker_cpu_us"] = 1e6 * (worker.cpu_s() - worker_s) / measured
    figures["rate"] = (total - 1) / _seconds(stage, ended=False)
    return figures | _checked(stage, worker, total)


def latency(stage: Stage, ways: list[str]) -> Figures:
    """One task at a time, on a warm idle worker; and its memory before its first task and after its 500th."""
    worker, figures = stage.worker("noop", None), Figures()
    _settle(worker)
    figures["fresh_pss_mib"] = worker.pss_mib()
    producer = stage.producer()
    producer.ask({"do": "many", "body": "noop", "first": 0, "count": _WARM}, PATIENCE_S)
    stage.until(worker, lambda: stage.stamps.count() >= _WARM)
    total = _WARM
    steps = ["body_latency", *(["result_latency"] if "request" in ways else [])]
    for step in steps:
        sent = producer.ask({"do": step, "first": total, "samples": _SAMPLES, "budget_s": _BUDGET_S}, PATIENCE_S)[
            "sent"
        ]
        if step == "body_latency":
            began = stage.stamps.read()[0]
            figures |= _percentiles("body", [began[number][0] - at for number, at in sent])
        else:
            figures |= _percentiles("result", [finished - at for _, at, finished in sent])
        total += len(sent)
    if total < _WORKED:
        producer.ask({"do": "many", "body": "noop", "first": total, "count": _WORKED - total}, PATIENCE_S)
    stage.until(worker, lambda: stage.stamps.count() >= _WORKED)
    producer.kill()
    time.sleep(1)
    figures["pss_mib"], figures["processes"] = worker.pss_mib(), len(worker.members())
    return figures | _checked(stage, worker, _WORKED)


def waiting(stage: Stage, concurrency: int) -> Figures:
    """Tasks that wait for 100 ms each."""
    total = stage.library.naps
    worker = _full(stage, "nap", concurrency, total)
    return {"rate": total / _seconds(stage, ended=True)} | _checked(stage, worker, total)


def computing(stage: Stage, concurrency: int) -> Figures:
    """Tasks that take 5 ms of CPU time each."""
    total = stage.library.burns
    worker = _full(stage, "burn", concurrency, total)
    return {"rate": total / _seconds(stage, ended=True)} | _checked(stage, worker, total)


def _full(stage: Stage, body: str, concurrency: int, total: int) -> Program:
    """A worker that has emptied a queue."""
    producer = stage.producer()
    producer.ask({"do": "many", "body": body, "first": 0, "count": total}, PATIENCE_S)
    producer.kill()
    worker = stage.worker(body, concurrency)
    stage.until(worker, lambda: stage.stamps.count() >= 2 * total)
    return worker


def _settle(worker: Program) -> None:
    """Wait until it has started: until it has used next to no CPU for a second."""
    before_s, until = 0.0, time.monotonic() + _STARTED_S
    while time.monotonic() < until:
        time.sleep(1)
        used_s = worker.cpu_s()
        if 0.05 < used_s < before_s + 0.05:
            return
        before_s = used_s


def _seconds(stage: Stage, *, ended: bool) -> float:
    """From the first body's beginning to the last one's beginning or end."""
    began, ends = stage.stamps.read()
    last = ends if ended else began
    if not began or not last:
        raise Failed("no task ran")
    return (max(map(max, last.values())) - min(map(min, began.values()))) / 1e9


def _checked(stage: Stage, worker: Program, total: int) -> Figures:
    """Whether each task ran once; and that the worker has outlived them."""
    time.sleep(0.2)
    if not worker.alive():
        raise Failed("the worker ended after its last task")
    return stage.stamps.check(total)


def _percentiles(name: str, samples: list[int]) -> Figures:
    if len(samples) < 2:
        raise Failed(f"{len(samples)} samples of {name}")
    cut = quantiles(samples, n=100, method="inclusive")
    return {f"{name}_p50_ms": cut[49] / 1e6, f"{name}_p99_ms": cut[98] / 1e6, f"{name}_samples": len(samples)}
