"""What the results say: each row of the report, and the medians of the rounds. Only the standard library."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.libraries import BEFORE

RESULTS = Path(__file__).with_name("results.json")
OURS = "ardiq"
BARE = "bare"
_RUN = ("c10", "c100", "latency", "io", "cpu")


@dataclass(frozen=True)
class Row:
    """A figure: from which scenario, in which unit, and which direction is better."""

    key: str
    title: str
    scenario: str
    unit: str
    of: Callable[[dict[str, Any], dict[str, Any]], float | None]
    """From the figures of the scenario, and those without a queue."""
    more_is_better: bool = True


def _figure(name: str) -> Callable[[dict[str, Any], dict[str, Any]], float | None]:
    return lambda taken, bare: taken.get(name)


def _server(taken: dict[str, Any], bare: dict[str, Any]) -> float | None:
    """What it costs to enqueue a task in bulk, and to run it."""
    return taken["many_server_cpu_us"] + taken["server_cpu_us"] if "server_cpu_us" in taken else None


def _share(taken: dict[str, Any], bare: dict[str, Any]) -> float | None:
    return taken["rate"] / bare["rate"] if "rate" in taken and "rate" in bare else None


ROWS = [
    Row("c10", "no-op dispatch, 10 at once", "c10", "tasks/s", _figure("rate")),
    Row("c100", "no-op dispatch, 100 at once", "c100", "tasks/s", _figure("rate")),
    Row("many", "bulk enqueue", "c10", "tasks/s", _figure("many_rate")),
    Row("awaited", "enqueue one by one, awaited", "c10", "tasks/s", _figure("awaited_rate")),
    Row("blocking", "enqueue one by one, blocking", "c10", "tasks/s", _figure("blocking_rate")),
    Row("result", "enqueue → result, p50", "latency", "ms", _figure("result_p50_ms"), more_is_better=False),
    Row("body", "enqueue → body begins, p50", "latency", "ms", _figure("body_p50_ms"), more_is_better=False),
    Row("server_c10", "server CPU a task, 10 at once", "c10", "µs", _server, more_is_better=False),
    Row("server_c100", "server CPU a task, 100 at once", "c100", "µs", _server, more_is_better=False),
    Row("worker_c10", "worker CPU a task, 10 at once", "c10", "µs", _figure("worker_cpu_us"), more_is_better=False),
    Row("worker_c100", "worker CPU a task, 100 at once", "c100", "µs", _figure("worker_cpu_us"), more_is_better=False),
    Row(
        "fresh",
        "idle worker, PSS",
        "latency",
        "MiB",
        _figure("fresh_pss_mib"),
        more_is_better=False,
    ),
    Row("pss", "idle after 500 tasks, PSS", "latency", "MiB", _figure("pss_mib"), more_is_better=False),
    Row("io", "tasks of 100 ms, 500 at once, of bare asyncio's rate", "io", "share", _share),
    Row("cpu", "tasks of 5 ms CPU on 2 cores, of 2 bare processes' rate", "cpu", "share", _share),
]
BY_KEY = {row.key: row for row in ROWS}


class Results:
    """A results.json."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.raw: dict[str, Any] = json.loads(path.read_text())
        self.machine: dict[str, Any] = self.raw["machine"]
        everybody: dict[str, dict[str, Any]] = self.raw["libraries"]
        self.libraries = {name: library for name, library in everybody.items() if name != BEFORE}
        self.before = everybody.get(BEFORE)
        self.rounds: list[dict[str, Any]] = self.raw["rounds"]

    def title(self, name: str) -> str:
        return str(self.libraries[name]["title"])

    def values(self, row: Row, name: str) -> list[float | None]:
        """The value of each round."""
        found = []
        for figures in self.rounds:
            taken = figures.get(name, {}).get(row.scenario, {})
            found.append(row.of(taken, figures[BARE].get(row.scenario, {})))
        return found

    def value(self, row: Row, name: str) -> float | None:
        """The median of the rounds in which there is one."""
        known = [value for value in self.values(row, name) if value is not None]
        return median(known) if known else None

    def reason(self, row: Row, name: str) -> str:
        """Why there is no value."""
        library = self.libraries[name]
        if "failed" in library:
            return f"not measured here: {library['failed']}"
        measured = [figures[name][row.scenario] for figures in self.rounds if row.scenario in figures.get(name, {})]
        if not measured:
            return "not measured in this run"
        for taken in measured:
            if why := taken.get("without") or taken.get("failed"):
                return str(why)
        return "the library has no such call"

    def best_other(self, row: Row, *but: str) -> str | None:
        """Whose median is the best but for ours, and these."""
        values = {name: self.value(row, name) for name in self.libraries if name not in (OURS, *but)}
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            return None
        return (max if row.more_is_better else min)(known, key=lambda name: known[name])

    def ratios(self, row: Row, other: str) -> list[float]:
        """Ours over the other's, of each round in which there are both."""
        pairs = zip(self.values(row, OURS), self.values(row, other), strict=True)
        return [ours / theirs for ours, theirs in pairs if ours is not None and theirs]

    def irregular(self) -> list[tuple[str, str, int, int]]:
        """Of the runs without faults, those in which tasks were lost or ran twice: who, where, how many of each."""
        found = []
        for name in self.libraries:
            for scenario in _RUN:
                taken = [figures.get(name, {}).get(scenario, {}) for figures in self.rounds]
                lost, twice = (sum(one.get(kind, 0) for one in taken) for kind in ("lost", "twice"))
                if lost or twice:
                    found.append((name, scenario, lost, twice))
        return found
