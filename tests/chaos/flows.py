"""Workflows: what the producers start beside single tasks, and what must hold of each.

A task notes what it was called with: the stamps that those before it returned. So it shows which of their executions it
followed.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ardiq import Flow, Results

from . import ledger, limited
from .jobs import execution
from .jobs import ledger as notes

if TYPE_CHECKING:
    from .verdict import Evidence, Execution

PACE_S = 0.3, 1.2
"""How long a producer rests after a start."""
_ITEMS, _WINDOW = (0, 1, 5, 12, 40), 8
_NOTHING = "-"
"""Stands for the result of a task that did not complete."""
_ROUNDED_S = 0.001
LOST = "workflow that was lost"
OPEN = "workflow that did not end as its tasks did"
REFUSED = "workflow whose start was refused, but ran"
EARLY = "task called before what it follows had ended"
OTHERS = "task called with other results than were committed"
SKIPPED = "task that was skipped, but ran"
LEFT = "left behind by workflows"

app = limited.app
"""With the tasks that have limits, and these."""

Number = Callable[[], int]


def _note(number: int, stamp: str, given: list[str | None]) -> None:
    notes("given").write("given", number, stamp, ",".join(each or _NOTHING for each in given))


@app.task(max_retries=0)
async def follow(number: int, given: list[str | None]) -> str:
    with execution(number) as stamp:
        _note(number, stamp, given)
        return stamp


@app.task(max_retries=0)
def follow_sync(number: int, given: list[str | None]) -> str:
    with execution(number) as stamp:
        _note(number, stamp, given)
        return stamp


@app.task(max_retries=0)
async def follow_pages(number: int, given: Results[str]) -> str:
    with execution(number) as stamp:
        _note(number, stamp, [each async for each in given])
        return stamp


@app.task(max_retries=1, backoff_ms=50)
async def fail(number: int) -> str:
    with execution(number) as stamp:
        raise RuntimeError(stamp)


@app.task(max_retries=0)
async def call(number: int) -> str:
    with execution(number) as stamp:
        return stamp


@dataclass
class Planned:
    """What a producer starts: of each task its number and the names of those whose results it is called with."""

    id: str
    flow: Flow
    numbers: dict[str, int] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, number: int, prepared: Any, after: list[str]) -> Any:
        self.numbers[name], self.after[name] = number, after
        return self.flow.add(prepared, name=name)

    def map(self, name: str, numbers: list[int]) -> Any:
        self.maps[name] = numbers
        return self.flow.map(call, numbers, name=name, max_concurrent=_WINDOW)

    def text(self) -> str:
        """As a word for the ledger."""
        return json.dumps([self.numbers, self.after, self.maps], separators=(",", ":"))


def chosen(chance: random.Random, number: Number) -> Planned:
    """A chain, a diamond of which one side fails, or a map and what takes its results."""
    first = number()
    planned = Planned(f"f{first}", Flow("chaos", id=f"f{first}"))
    chance.choice([_chain, _diamond, _chord])(planned, chance, number)
    return planned


def _chain(planned: Planned, chance: random.Random, number: Number) -> None:
    before: Any = None
    for at in range(chance.randrange(1, 6)):
        own, given = number(), [] if before is None else [before.result]
        task = chance.choice([follow, follow, follow_sync])
        before = planned.add(f"n{at}", own, task.prepare(own, given), [f"n{at - 1}"] if at else [])


def _diamond(planned: Planned, chance: random.Random, number: Number) -> None:
    top, left, right, bottom, strict, only = (number() for _ in range(6))
    first = planned.add("top", top, follow.prepare(top, []), [])
    one = planned.add("left", left, follow_sync.prepare(left, [first.result]), ["top"])
    if chance.random() < 0.5:
        other = planned.add("right", right, fail.prepare(right), []).after(first)
    else:
        other = planned.add("right", right, follow.prepare(right, [first.result]), ["top"])
    taken = follow.prepare(bottom, [one.result, other.result])
    planned.add("bottom", bottom, taken, ["left", "right"]).after(other, on_failure="ignore")
    # One of these is skipped.
    planned.add("strict", strict, follow.prepare(strict, []), []).after(other)
    planned.add("only", only, follow.prepare(only, []), []).after(other, on_failure="only")


def _chord(planned: Planned, chance: random.Random, number: Number) -> None:
    rows = planned.map("rows", [number() for _ in range(chance.choice(_ITEMS))])
    own, last = number(), number()
    if chance.random() < 0.5:
        body = planned.add("body", own, follow_pages.prepare(own, rows.result), ["rows"])
    else:
        body = planned.add("body", own, follow.prepare(own, rows.results), ["rows"])
    planned.add("last", last, follow.prepare(last, [body.result]), ["body"])


@dataclass
class Started:
    """What a producer noted of one: as planned, and what came of its start."""

    numbers: dict[str, int]
    after: dict[str, list[str]]
    maps: dict[str, list[int]]
    outcome: str = ""
    """`acked`, `safe`, `refused`, or, where nobody knows, empty."""
    at: float = 0.0


@dataclass
class Flows:
    """The figures of one run."""

    acknowledged: int = 0
    completed: int = 0
    failed: int = 0
    followed: int = 0
    """Executions that were compared with those whose results they were called with."""
    calls: int = 0
    """Results of maps that were compared with what was passed on."""
    wrong: dict[str, list[object]] = field(default_factory=dict)


class Judge:
    """Compares what was noted with what is there in the end."""

    def __init__(self, it: "Evidence", given: dict[str, list[str]]) -> None:
        self._it, self._given, self._last = it, given, it.snapshots[-1]
        self._numbers: dict[str, int] = {}
        self._executions: dict[int, list[Execution]] = {}
        for (number, _), executions in it.executions.items():
            self._numbers |= {each.stamp: number for each in executions}
            self._executions.setdefault(number, []).extend(executions)
        self.found = Flows(wrong={what: [] for what in (LOST, OPEN, REFUSED, EARLY, OTHERS, SKIPPED)})

    def judge(self, id: str, flow: Started) -> None:
        root, wrong = self._last.groups.get(id), self.found.wrong
        if flow.outcome in ("acked", "safe"):
            self.found.acknowledged += 1
            if root is None and not (flow.outcome == "acked" and self._it.may_be_gone(flow.at)):
                wrong[LOST].append(id)
        if flow.outcome == "refused" and (root or any(n in self._executions for n in flow.numbers.values())):
            wrong[REFUSED].append(id)
        for name, number in flow.numbers.items():
            for each in self._executions.get(number, ()):
                self._follows(id, flow, name, each)
        if root is not None:
            self._ended(id, flow, root.state)

    def _follows(self, id: str, flow: Started, name: str, execution: "Execution") -> None:
        """It was called with results of executions that had ended."""
        self.found.followed += 1
        of = dict.fromkeys(
            n for parent in flow.after[name] for n in flow.maps.get(parent) or [flow.numbers.get(parent)]
        )
        for stamp in self._given.get(execution.stamp, ()):
            before = self._it.stamps.get(stamp)
            if stamp == _NOTHING:
                continue
            if before is None or self._numbers[stamp] not in of:
                self.found.wrong[OTHERS].append((id, name, f"was called with {stamp}"))
            elif before.ended is None or before.ended > execution.began + _ROUNDED_S:
                self.found.wrong[EARLY].append((id, name))

    def _ended(self, id: str, flow: Started, state: str) -> None:
        records, wrong = self._last.records, self.found.wrong
        states = {name: records[number].state for name, number in flow.numbers.items() if number in records}
        states |= {name: self._last.groups[f"{id}~{name}"].state for name in flow.maps}
        expected = "failed" if "failed" in states.values() else "complete"
        if state != expected or {*states.values()} - {"complete", "failed", "skipped"}:
            wrong[OPEN].append((id, state, states))
        self.found.completed += state == "complete"
        self.found.failed += state == "failed"
        for name, number in flow.numbers.items():
            if states.get(name) == "skipped" and any(
                not self._it.may_be_gone(each.began) for each in self._executions.get(number, ())
            ):
                wrong[SKIPPED].append((id, name))
            elif states.get(name) == "complete" and flow.after[name]:
                self._is_of_committed(id, flow, name, records[number].result.strip('"'))

    def _is_of_committed(self, id: str, flow: Started, name: str, stamp: str) -> None:
        """What counts was called with what counts."""
        committed: list[str] = []
        for parent in flow.after[name]:
            if parent in flow.maps:
                results = self._last.results.get(f"{id}~{parent}", [])
                self.found.calls += len(results)
                committed += results
            else:
                record = self._last.records[flow.numbers[parent]]
                committed.append(record.result.strip('"') if record.state == "complete" else _NOTHING)
        if self._given.get(stamp) != committed:
            self.found.wrong[OTHERS].append((id, name, f"of {stamp}: {self._given.get(stamp)}, not {committed}"))


def judge(ledgers: Path, it: "Evidence", left: list[str]) -> Flows:
    """`left`: keys of workflows that are there although all have ended."""
    started: dict[str, Started] = {}
    for _, words in ledger.read(ledgers, "flows"):
        if words[0] == "plan":
            started[words[1]] = Started(*json.loads(words[2]))
        else:
            started[words[1]].outcome, started[words[1]].at = words[0], float(words[-1])
    given = {words[2]: [each for each in words[3].split(",") if each] for _, words in ledger.read(ledgers, "given")}
    judging = Judge(it, given)
    for id, flow in started.items():
        judging.judge(id, flow)
    judging.found.wrong[LEFT] = list(left)
    return judging.found
