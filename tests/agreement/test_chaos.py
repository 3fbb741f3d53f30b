"""What `make chaos` would find, if limits did not hold: its judges on looks and stamps made by hand."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from render import ROOT

sys.path.insert(0, str(ROOT))
from tests.chaos import flows, observer, report, slots
from tests.chaos.faults import Event
from tests.chaos.limited import BURST, STARTS_S
from tests.chaos.records import Group, Record, Snapshot
from tests.chaos.verdict import Execution, Verdict

LINE = "account(1)"


def look(token: int = 0, /, *claims: tuple[str, int], **changed: Any) -> observer.Look:
    """One at which all is well: attempts of buckets, by their tokens."""
    leases: dict[str, list[int]] = {}
    for bucket, claim in claims:
        leases.setdefault(bucket, []).append(claim)
    fields: dict[str, Any] = {
        "now_ms": 1000,
        "token": token,
        "leases": leases,
        "paced": {},
        "busy": {bucket: len(tokens) for bucket, tokens in leases.items()},
        "at_once": {"account": 1, "tuned": 2},
        "rates": {"paced": {"rate": 40.0, "per_ms": 1000, "burst": 10}},
        "waiting": [],
        "placed": {},
        "reached": {},
        "shut": {},
        "idle": set(),
    }
    return observer.Look(**{**fields, **changed})


def judged(*looks: observer.Look, step_s: float = 0.1) -> dict[str, list[object]]:
    """What was found."""
    judge = observer.Judge()
    for i, each in enumerate(looks):
        judge.judge(each, 100 + i * step_s, True)
    assert judge.findings.looks == len(looks)
    return {what: cases for what, cases in judge.findings.wrong.items() if cases}


def test_nothing_is_found_where_all_is_well() -> None:
    waiting = look(2, ("account(1)", 1), ("tuned", 2), waiting=[LINE], placed={LINE: 1}, idle={"w"})
    assert judged(look(), waiting, waiting, look(2)) == {}


def test_above_a_limit() -> None:
    two = look(2, ("account(1)", 1), ("account(1)", 2))
    assert list(judged(look(1, ("account(1)", 1)), two)) == [observer.ABOVE]


def test_a_limit_that_was_lowered_lets_run_what_runs_and_starts_nothing() -> None:
    before = look(2, ("tuned", 1), ("tuned", 2))
    lowered = look(2, ("tuned", 1), ("tuned", 2), at_once={"tuned": 1})
    started = look(3, ("tuned", 2), ("tuned", 3), at_once={"tuned": 1})
    assert judged(before, lowered, lowered) == {}
    assert list(judged(before, lowered, started)) == [observer.ABOVE]


def test_starts_closer_together_than_their_rate() -> None:
    burst = look(10, now_ms=1000, paced=dict.fromkeys(range(1, 11), 1))
    assert judged(look(now_ms=990), burst, look(11, now_ms=1025, paced={11: 1})) == {}
    assert list(judged(look(now_ms=990), burst, look(12, now_ms=1020, paced={11: 1, 12: 1}))) == [observer.CLOSER]


def test_a_server_that_lost_writes_is_judged_anew() -> None:
    lowered = look(5, ("tuned", 1), ("tuned", 5), at_once={"tuned": 1})
    again = look(4, ("tuned", 3), ("tuned", 4), at_once={"tuned": 1})
    assert judged(lowered, again) == {}


def test_a_leaked_slot() -> None:
    assert list(judged(look(busy={"tuned": 1}))) == [observer.BUSY]


@pytest.mark.parametrize("places", [0, 2])
def test_a_line_in_no_place_or_two(places: int) -> None:
    assert list(judged(look(waiting=[LINE], placed={LINE: places}))) == [observer.PLACES]


def test_a_start_while_closed() -> None:
    closed = look(1, ("account(1)", 1), shut={"account(1)": 2000.0})
    assert judged(closed, closed) == {}
    assert list(judged(closed, look(2, ("account(1)", 2), shut={"account(1)": 2000.0}))) == [observer.CLOSED]
    assert judged(closed, look(2, ("account(1)", 2), now_ms=2000)) == {}


def test_startable_work_beside_an_idle_worker() -> None:
    beside = look(1, waiting=[LINE], placed={LINE: 1}, idle={"w"})
    enough = int(observer.PATIENCE_S / 0.4) + 2
    assert list(judged(*[beside] * enough, step_s=0.4)) == [observer.IDLE]
    others = [look(1, waiting=[LINE], placed={LINE: 1}, idle={f"w{i}"}) for i in range(enough)]
    assert judged(*others, step_s=0.4) == {}
    assert judged(*[beside] * enough, step_s=5.0) == {}  # nobody looked between


def evidence(*executions: Execution, events: tuple[Event, ...] = ()) -> Any:
    """Each of a task of its own, sent and acknowledged one after the other."""
    numbered = dict(enumerate(executions))
    return SimpleNamespace(
        executions={(number, 1): [execution] for number, execution in numbered.items()},
        events=list(events),
        deaths={},
        sent={number: number * 0.001 for number in numbered},
        acked={number: number * 0.001 + 0.0005 for number in numbered},
    )


def ran(line: str, began: float, ended: float | None, pid: int = 1) -> Execution:
    return Execution(pid, began, f"{pid}.{began}", line, ended)


def found(it: Any, lost: dict[int, int] | None = None) -> dict[str, list[object]]:
    return {what: cases for what, cases in slots.judge(it, lost or {}).wrong.items() if cases}


def test_bodies_above_a_limit() -> None:
    assert found(evidence(ran("one", 10, 11), ran("one", 11, 12))) == {}
    assert list(found(evidence(ran("one", 10, 11.5), ran("one", 11, 12)))) == [slots.ABOVE]


def test_a_body_whose_claim_was_taken_from_it_is_not_judged() -> None:
    it = evidence(ran("one", 10, 13), ran("one", 11, 12))
    it.executions[0, 1].append(ran("one", 12, 12.5, pid=2))
    assert found(it) == {}
    frozen = Event("worker frozen", 10.2, 12.8, pid=1)
    assert found(evidence(ran("one", 10, 13), ran("one", 11, 12, pid=2), events=(frozen,))) == {}
    lost = Event("primary killed", 10.2, 10.8, loses=True)
    assert found(evidence(ran("one", 10, 13), ran("one", 11, 12), events=(lost,))) == {}


def test_a_task_that_was_put_back_is_judged() -> None:
    it = evidence(ran("one", 10, 13), ran("one", 11, 12))
    it.executions[0, 1][0].is_put_back = True
    it.executions[0, 1].append(ran("one", 14, 15))
    assert list(found(it)) == [slots.ABOVE]


def test_a_body_that_began_while_its_limit_was_closed() -> None:
    told = Execution(1, 10, "1.10", "partner", 10.1, is_put_back=True)
    assert found(evidence(told, ran("partner", 10.2, 10.3), ran("partner", 12.7, 12.8))) == {}
    assert list(found(evidence(told, ran("partner", 12, 12.1)))) == [slots.CLOSED]
    other = Event("server asleep", 9, 10.5)
    assert found(evidence(told, ran("partner", 12, 12.1), events=(other,))) == {}


def test_bodies_closer_together_than_their_rate() -> None:
    spread = [ran("paced", 10 + max(0, i - BURST + 1) / STARTS_S, None) for i in range(200)]
    assert found(evidence(*spread)) == {}
    double = [ran("paced*2", 10 + max(0, i - BURST + 1) / STARTS_S, None) for i in range(200)]
    assert list(found(evidence(*double))) == [slots.CLOSER]


def test_a_key_out_of_order() -> None:
    assert found(evidence(ran(LINE, 10, 11), ran(LINE, 12, 13))) == {}
    assert list(found(evidence(ran(LINE, 12, 13), ran(LINE, 10, 11)))) == [slots.ORDER]
    assert found(evidence(ran(LINE, 12, 13), ran(LINE, 10, 11)), lost={0: 2}) == {}


class Flow:
    """A workflow that is well: `a`, a map `m` of two, and `b` with the results of both; `c` is skipped."""

    def __init__(self) -> None:
        self.started = flows.Started({"a": 1, "b": 4, "c": 5}, {"a": [], "b": ["a", "m"], "c": []}, {"m": [2, 3]})
        self.started.outcome = "acked"
        self.given = {"s1": [], "s4": ["s1", "s2", "s3"]}
        self.executions = {n: Execution(1, 10.0 + n, f"s{n}", None, 10.5 + n) for n in range(1, 5)}
        self.last = Snapshot(
            {1: Record("complete", '"s1"', 0), 4: Record("complete", '"s4"', 0), 5: Record("skipped", "", 0)},
            groups={"w": Group("complete", 0), "w~m": Group("complete", 2)},
            results={"w~m": ["s2", "s3"]},
        )
        self.loses = False

    def found(self) -> list[str]:
        executions = {(number, 1): [each] for number, each in self.executions.items()}
        it: Any = SimpleNamespace(
            executions=executions,
            stamps={each.stamp: each for each in self.executions.values()},
            snapshots=[self.last],
            may_be_gone=lambda _: self.loses,
        )
        judge = flows.Judge(it, self.given)
        judge.judge("w", self.started)
        return [what for what, cases in judge.found.wrong.items() if cases]


def test_a_workflow_that_is_well() -> None:
    assert Flow().found() == []


def test_a_lost_workflow() -> None:
    flow = Flow()
    flow.last = Snapshot()
    assert flow.found() == [flows.LOST]
    flow.loses = True
    assert flow.found() == []
    flow.started.outcome = "safe"
    assert flow.found() == [flows.LOST]


@pytest.mark.parametrize("state", ["blocked", "failed", "aborted"])
def test_a_workflow_that_ended_otherwise_than_its_tasks(state: str) -> None:
    flow = Flow()
    flow.last.groups["w"] = Group(state, 0)
    assert flow.found() == [flows.OPEN]


def test_a_workflow_of_which_something_is_open() -> None:
    flow = Flow()
    flow.last.records[4] = Record("queued", "", 0)
    assert flow.found() == [flows.OPEN]


def test_a_start_that_was_refused() -> None:
    flow = Flow()
    flow.started.outcome = "refused"
    assert flow.found() == [flows.REFUSED]


@pytest.mark.parametrize("ended", [14.2, None])
def test_a_task_that_began_before_what_it_follows_had_ended(ended: float | None) -> None:
    flow = Flow()
    flow.executions[3].ended = ended
    assert flow.found() == [flows.EARLY]


@pytest.mark.parametrize("given", [["s1", "s2"], ["s1", "s3", "s2"], ["s1", "s2", "-"], ["s1", "s2", "s9"], []])
def test_other_results_than_those_that_count(given: list[str]) -> None:
    flow = Flow()
    flow.given["s4"] = given
    assert flow.found() == [flows.OTHERS]


def test_a_result_that_was_replaced() -> None:
    flow = Flow()
    flow.last.results["w~m"] = ["s2", "s8"]
    assert flow.found() == [flows.OTHERS]


def test_a_skipped_task_that_ran() -> None:
    flow = Flow()
    flow.executions[5] = Execution(1, 15.0, "s5", None, 15.1)
    assert flow.found() == [flows.SKIPPED]


def test_a_run_takes_the_place_of_the_one_in_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, guide = report.GUIDE.read_text(), tmp_path / "guide.md"
    guide.write_text(before)
    monkeypatch.setattr(report, "GUIDE", guide)
    monkeypatch.setattr(sys, "argv", ["chaos", "--seed", "7", "--write"])
    report.write({"valkey": Verdict(acknowledged=1234)}, {"valkey": "abc"}, 600)
    after = guide.read_text()
    head, _, rest = before.partition("## A run\n")
    assert after.startswith(f"{head}## A run\n\n```sh\npython -m tests.chaos --seed 7\n```\n")
    assert after.endswith(rest[rest.index("\n## ") :])
    assert "| tasks acknowledged | 1,234 |" in after
    assert "valkey `abc`" in after
