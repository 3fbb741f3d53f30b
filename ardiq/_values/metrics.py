"""Counters and histograms of what this process ran, per task and lane."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from threading import Lock

from ..models import Histogram, TaskMetrics

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_FIRST_BOUND = _BOUNDS[0]


class Counters:
    """One task in one lane. Sync tasks end on several threads: they count under `Metrics.lock`."""

    __slots__ = ("_run", "_run_s", "_wait", "_wait_s", "abandoned_threads", "aborted", "failed", "retried", "succeeded")

    def __init__(self) -> None:
        self.succeeded = 0
        self.retried = 0
        self.failed = 0
        self.aborted = 0
        self.abandoned_threads = 0
        # How many observations fell into each bucket, up to its bound; the last one is for the rest.
        self._run = [0] * (len(_BOUNDS) + 1)
        self._wait = [0] * (len(_BOUNDS) + 1)
        self._run_s = 0.0
        self._wait_s = 0.0

    def observe(self, run_s: float, wait_s: float | None) -> None:
        """Record how long one attempt ran and, if known, had waited: by two clocks, so that may be negative."""
        # Most fall into the first bucket: they need no search.
        self._run_s += run_s
        self._run[0 if run_s <= _FIRST_BOUND else bisect_left(_BOUNDS, run_s)] += 1
        if wait_s is not None:
            self._wait_s += max(0.0, wait_s)
            self._wait[0 if wait_s <= _FIRST_BOUND else bisect_left(_BOUNDS, wait_s)] += 1

    def add(self, other: "Counters") -> None:
        """Add the counts of another one."""
        for name in ("succeeded", "retried", "failed", "aborted", "abandoned_threads", "_run_s", "_wait_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._run = [a + b for a, b in zip(self._run, other._run, strict=True)]
        self._wait = [a + b for a, b in zip(self._wait, other._wait, strict=True)]

    def totals(self) -> list[int]:
        """Succeeded, failed, retried, aborted; ms they ran; how many were first attempts, ms these had waited."""
        run_ms, wait_ms = int(self._run_s * 1000), int(self._wait_s * 1000)
        return [self.succeeded, self.failed, self.retried, self.aborted, run_ms, sum(self._wait), wait_ms]

    @property
    def run(self) -> Histogram:
        """How long the attempts ran."""
        return _histogram(self._run, self._run_s)

    @property
    def wait(self) -> Histogram:
        """How long they had waited."""
        return _histogram(self._wait, self._wait_s)


def _histogram(counts: list[int], seconds: float) -> Histogram:
    buckets = tuple(zip(_BOUNDS, accumulate(counts), strict=False))
    return Histogram(buckets, seconds, sum(counts))


class Metrics:
    """All counters of one queue in this process."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str], Counters] = {}
        self.lock = Lock()

    def of(self, name: str, lane: str) -> Counters:
        """The counters of a task in a lane."""
        try:
            return self.counters[name, lane]
        except KeyError:
            return self.counters.setdefault((name, lane), Counters())


def snapshot(of: Iterable[Metrics]) -> list[TaskMetrics]:
    """What was counted so far, by task and lane."""
    sums: dict[tuple[str, str], Counters] = {}
    for metrics in of:
        for key, counters in list(metrics.counters.items()):
            sums.setdefault(key, Counters()).add(counters)
    return [
        TaskMetrics(
            name,
            lane,
            counters.succeeded,
            counters.retried,
            counters.failed,
            counters.aborted,
            counters.run,
            counters.wait,
            counters.abandoned_threads,
        )
        for (name, lane), counters in sorted(sums.items())
    ]
