"""What a run proved: the ledgers of all processes against what the server holds in the end."""

import bisect
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from . import ledger, slots
from .faults import LAG_S, NOTED_S, Event
from .fleet import Ended, Fleet
from .flows import Flows
from .observer import Findings
from .records import Record, Snapshot, snapshot
from .site import Site
from .slots import Bodies


@dataclass
class Execution:
    pid: int
    began: float
    stamp: str
    line: str | None = None
    """The buckets it ran in."""
    ended: float | None = None
    is_put_back: bool = False
    """Its limit was used up elsewhere, so it runs again."""


@dataclass
class Verdict:
    """The figures of one run. `wrong`: what must be empty."""

    acknowledged: int = 0
    finished: int = 0
    executions: int = 0
    wrong: dict[str, list[object]] = field(default_factory=dict)
    lost_with_data: int = 0
    changed_with_data: int = 0
    replicated: int = 0
    maybe: int = 0
    maybe_ran: int = 0
    refused: int = 0
    seen: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    poisoned: int = 0
    silence: dict[str, float] = field(default_factory=dict)
    resumed: dict[str, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    rerun_s: float = 0.0
    """How long those of a killed worker waited that have no limits."""
    rerun_limited_s: float = 0.0
    """The same of those that have some: they wait for their turn again."""
    drained_s: float = 0.0
    observed: Findings = field(default_factory=Findings)
    bodies: Bodies = field(default_factory=Bodies)
    flows: Flows = field(default_factory=Flows)

    @property
    def good(self) -> bool:
        return not any(self.wrong.values())


class Evidence:
    """All that was noted, and the server's last word."""

    def __init__(
        self, ledgers: Path, site: Site, events: list[Event], fleet: Fleet, before_loss: list[Snapshot]
    ) -> None:
        self.events = events
        self.snapshots = [*before_loss, snapshot(site.primary())]
        self.executions: dict[tuple[int, int], list[Execution]] = defaultdict(list)
        by_stamp: dict[str, Execution] = {}
        for pid, words in ledger.read(ledgers, "runs"):
            if words[0] == "start":
                _, number, tries, stamp, *line, at = words
                by_stamp[stamp] = Execution(pid, float(at), stamp, *line)
                self.executions[int(number), int(tries)].append(by_stamp[stamp])
            else:
                by_stamp[words[2]].ended = float(words[3])
                by_stamp[words[2]].is_put_back = words[0] == "put-back"
        for executions in self.executions.values():
            executions.sort(key=lambda each: each.began)
        self.stamps = by_stamp
        self.ran: dict[int, float] = {}
        """Number → when it last began."""
        for (number, _), executions in self.executions.items():
            self.ran[number] = max(self.ran.get(number, 0.0), *(each.began for each in executions))
        self.starts = sorted(each.began for each in by_stamp.values())
        self.acked: dict[int, float] = {}
        self.sent: dict[int, float] = {}
        """When what was acknowledged was sent."""
        self.replicated: set[int] = set()
        self.saw: list[tuple[int, str, float]] = []
        self.maybe: set[int] = set()
        self.refused: set[int] = set()
        self.errors: list[str] = []
        for _, words in ledger.read(ledgers, "sent"):
            kind, sent, when = words[0], int(words[1]), float(words[-1])
            if kind in ("acked", "safe"):
                self.acked[sent], self.sent[sent] = when, float(words[3])
                if kind == "safe":
                    self.replicated.add(sent)
            elif kind == "saw":
                self.saw.append((sent, words[2], when))
            elif kind == "error":
                self.errors.append(words[2])
            else:
                (self.maybe if kind == "maybe" else self.refused).add(sent)
        members = (*fleet.workers, *fleet.producers)
        self.deaths: dict[int, Ended] = {ended.pid: ended for member in members for ended in member.ended}

    def may_be_gone(self, at: float) -> bool:
        """Whether what was acknowledged then may be lost, because the server lost its data that came after."""
        return any(
            event.loses and at <= event.ended + NOTED_S and (event.loses_all or at >= event.began - LAG_S)
            for event in self.events
        )

    def why_again(self, first: Execution, second: Execution) -> str:
        """Why a task was executed a second time at the same try."""
        death = self.deaths.get(first.pid)
        if death is not None and first.began <= death.at <= second.began + 0.5 and death.code != 0:
            return "its worker was killed"
        between = [event for event in self.events if event.began <= second.began and event.ended >= first.began - 0.5]
        for event in between:
            if event.pid == first.pid and event.kind == "worker frozen":
                return "its worker was silent for longer than its lease"
        for event in between:
            if event.loses:
                return f"the server lost its claim or outcome: {event.kind}"
        for event in between:
            if event.pid is None:
                return f"its worker was cut off for longer than its lease: {event.kind}"
        for event in self.events:  # the half-open connections of before
            if event.kind == "network half-open" and event.began <= second.began <= event.ended + 15:
                return f"its worker was cut off for longer than its lease: {event.kind}"
        return "its worker was silent for longer than its lease, without a fault"


def judge(evidence: Evidence, fleet: Fleet, fsck: str, observed: Findings, left: list[str], judged: Flows) -> Verdict:
    """`observed`: of the limits, all the time; `left`: what they left behind; `judged`: of the workflows."""
    it, verdict = evidence, Verdict(observed=observed, flows=judged)
    verdict.acknowledged, verdict.executions = len(it.acked), len(it.starts)
    verdict.refused, verdict.maybe, verdict.seen = len(it.refused), len(it.maybe), len(it.saw)
    verdict.maybe_ran = sum(number in it.ran for number in it.maybe)
    verdict.replicated = len(it.replicated)
    finished: dict[int, Record] = {}
    for taken in it.snapshots:
        finished |= taken.finished
    last = it.snapshots[-1].records
    verdict.finished = len(finished)
    verdict.poisoned = sum(record.state == "failed" and record.lost > 0 for record in finished.values())
    verdict.bodies = slots.judge(it, {number: record.lost for number, record in finished.items()})

    gone = [number for number in it.acked if number not in finished]
    with_data = {n for n in gone if n not in last and it.may_be_gone(it.acked[n]) and n not in it.replicated}
    verdict.lost_with_data = len(with_data)
    wrong = verdict.wrong
    wrong["lost"] = [number for number in gone if number not in with_data]
    wrong["committed twice"] = []
    for number, value, at in it.saw:
        record = finished.get(number)
        if record is None or record.result == f'"{value}"':
            if record is not None and it.ran.get(number, 0.0) > at and not it.may_be_gone(at):
                wrong["committed twice"].append((number, "ran after its result was seen"))
            continue
        if it.may_be_gone(at):
            verdict.changed_with_data += 1
        else:
            wrong["committed twice"].append((number, f"{value} was seen, {record.result} is there"))
    for taken in it.snapshots:
        if taken.settled != taken.ended:
            wrong["committed twice"].append(f"{taken.settled} settled, {taken.ended} ended")
    wrong["enqueued twice"] = [twice for taken in it.snapshots for twice in taken.doubled]
    wrong["refused, but ran"] = [number for number in it.refused if number in it.ran]
    wrong["finished, but never ran"] = [
        number
        for number, record in finished.items()
        if record.state == "complete" and record.result.strip('"') not in it.stamps
    ]
    wrong["failed call that no fault explains"] = list(it.errors)
    wrong["process that ended by itself"] = [
        (member.name, ended.code)
        for member in (*fleet.workers, *fleet.producers)
        for ended in member.ended
        if not ended.asked or ended.code not in (0, -9, -15)
    ]
    wrong["traceback in a log"] = [
        member.name for member in (*fleet.workers, *fleet.producers) if _has_traceback(member.log)
    ]
    wrong["fsck"] = [] if not fsck else [fsck]
    wrong |= observed.wrong | verdict.bodies.wrong
    wrong["left behind by limits"] = list(left)
    wrong |= judged.wrong

    for executions in it.executions.values():
        for first, second in itertools.pairwise(executions):
            if first.is_put_back:
                continue
            verdict.repeated[it.why_again(first, second)] += 1
    _times(it, verdict)
    return verdict


def _times(it: Evidence, verdict: Verdict) -> None:
    begun = [event.began for event in it.events]
    for before, after in itertools.pairwise(it.starts):
        # A silence is the fault's within which its middle lies.
        if index := bisect.bisect(begun, (before + after) / 2):
            kind = it.events[index - 1].kind
            verdict.silence[kind] = max(verdict.silence.get(kind, 0.0), after - before)
    for event in it.events:
        verdict.faults[event.kind] += 1
        if event.serves_at is not None:
            first = next((at for at in it.starts if at >= event.serves_at), None)
            # Should the service be gone again before it, it is the next fault's time that counts.
            if first is not None and not any(
                other.serves_at is not None and event.serves_at <= other.began < first for other in it.events
            ):
                after = first - event.serves_at
                verdict.resumed[event.kind] = max(verdict.resumed.get(event.kind, 0.0), after)
        if event.kind == "worker killed":
            for executions in it.executions.values():
                # Those lost for the first time: a task lost twice is in quarantine, and those run one at a time.
                if len(executions) > 1 and executions[0].pid == event.pid and executions[0].ended is None:
                    waited = executions[1].began - event.began
                    if executions[0].line is None:
                        verdict.rerun_s = max(verdict.rerun_s, waited)
                    else:
                        verdict.rerun_limited_s = max(verdict.rerun_limited_s, waited)


def _has_traceback(log: Path) -> bool:
    """Whether there is one of something else than a task that raises on purpose."""
    _, *others = log.read_text(errors="replace").split("Traceback (most recent call last):")
    return any("raise RuntimeError(" not in each for each in others)
