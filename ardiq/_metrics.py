"""Counters and histograms of what this process ran, per task and lane."""

from bisect import bisect_left
from threading import Lock

from .models import Histogram, TaskMetrics

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _Observations:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.sum += seconds

    def histogram(self) -> Histogram:
        buckets, so_far = [], 0
        for bound, count in zip(_BOUNDS, self.counts, strict=False):
            so_far += count
            buckets.append((bound, so_far))
        return Histogram(tuple(buckets), self.sum, sum(self.counts))


class Counters:
    """One task in one lane. Sync tasks end on several threads: they count under `lock`."""

    __slots__ = ("aborted", "failed", "retried", "run", "succeeded", "wait")

    def __init__(self) -> None:
        self.succeeded = 0
        self.retried = 0
        self.failed = 0
        self.aborted = 0
        self.run = _Observations()
        self.wait = _Observations()


class Metrics:
    """All counters of one app in this process."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], Counters] = {}
        self.lock = Lock()

    def of(self, name: str, lane: str) -> Counters:
        """The counters of a task in a lane."""
        try:
            return self._counters[name, lane]
        except KeyError:
            return self._counters.setdefault((name, lane), Counters())

    def snapshot(self) -> list[TaskMetrics]:
        """What was counted so far, by task and lane."""
        return [
            TaskMetrics(
                name,
                lane,
                counters.succeeded,
                counters.retried,
                counters.failed,
                counters.aborted,
                counters.run.histogram(),
                counters.wait.histogram(),
            )
            for (name, lane), counters in sorted(self._counters.items())
        ]
