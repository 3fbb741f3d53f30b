"""What the bodies of tasks with limits noted: never more at once, nor closer together, than a limit allows.

Not judged is a body whose claim was taken from it: its task ran again, or its worker was frozen past its lease, or the
server lost the claim with its data. It goes on while its slot is another's.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .faults import LAG_S, NOTED_S
from .limited import AT_ONCE, BURST, ORDERED, RETRY_AFTER_S, STARTS_S, parts

if TYPE_CHECKING:
    from .faults import Event
    from .verdict import Evidence, Execution

WRONG = ABOVE, CLOSER, ORDER, CLOSED = (
    "bodies above a limit",
    "bodies closer together than their rate",
    "key out of order",
    "body began while its limit was closed",
)
_LATE_S = 1.0
"""A body begins so long after its claim at most, and what it ends with is known, if no fault is in the way."""
_LONGEST_OUTAGE_S = 15.0


@dataclass
class Bodies:
    """The figures."""

    starts: int = 0
    lapsed: int = 0
    """Those that are not judged."""
    most: dict[str, int] = field(default_factory=dict)
    """By limit: how many bodies of it, or of one of its keys, ran at once."""
    closer_s: float = 0.0
    """By how much the starts of bodies were closer together than those of their claims may be."""
    closed: int = 0
    """How often a task was told that its limit is used up, far from all faults."""
    in_order: int = 0
    """Starts that were compared with those before them of the same key."""
    wrong: dict[str, list[object]] = field(default_factory=lambda: {name: [] for name in WRONG})


def judge(it: "Evidence", lost: dict[int, int]) -> Bodies:
    """Of all executions. `lost`: how many workers died with a task."""
    bodies, of_buckets = Bodies(), defaultdict[str, list["Execution"]](list)
    starts: list[tuple[float, int]] = []
    in_turn: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (number, _), executions in sorted(it.executions.items()):
        for execution, has_lapsed in _lapses(it, executions, lost.get(number, 0)):
            if execution.line is None:
                continue
            bodies.starts += 1
            bodies.lapsed += has_lapsed
            for bucket, cost in parts(execution.line):
                if bucket == "paced":
                    starts.append((execution.began, cost))
                elif not has_lapsed:
                    of_buckets[bucket].append(execution)
                # In quarantine a task has no order.
                if bucket.startswith(ORDERED) and lost.get(number, 0) < 2:
                    in_turn[bucket][number].append(execution.began)
    for bucket, executions in of_buckets.items():
        _judge_overlap(it, bodies, bucket, executions)
        _judge_closed(it, bodies, bucket, executions)
    _judge_rate(it, bodies, sorted(starts))
    for bucket, tasks in in_turn.items():
        _judge_order(it, bodies, bucket, tasks)
    return bodies


def _lapses(it: "Evidence", executions: list["Execution"], lost: int) -> Iterator[tuple["Execution", bool]]:
    """Executions of one try, in order, and whether the claim of each may have been taken from it."""
    for i, execution in enumerate(executions):
        runs_again = i + 1 < len(executions) and not execution.is_put_back
        yield execution, runs_again or lost > 0 or _is_forgotten(it, execution)


def _is_forgotten(it: "Evidence", execution: "Execution") -> bool:
    ended = execution.ended if execution.ended is not None else float("inf")
    return any(
        _concerns(event, execution.began, ended)
        for event in it.events
        if event.loses or (event.kind == "worker frozen" and event.pid == execution.pid)
    )


def _judge_overlap(it: "Evidence", bodies: Bodies, bucket: str, executions: list["Execution"]) -> None:
    name = bucket.partition("(")[0]
    changes: list[tuple[float, int]] = []
    for execution in executions:
        # One that was killed ran until then.
        death = it.deaths.get(execution.pid)
        ended = execution.ended or (death.at if death is not None else execution.began)
        changes += [(execution.began, 1), (ended, -1)]
    running = 0
    for at, change in sorted(changes):
        running += change
        bodies.most[name] = max(bodies.most.get(name, 0), running)
        if change > 0 and running > AT_ONCE.get(name, running):
            bodies.wrong[ABOVE].append((bucket, running, round(at, 2)))


def _judge_closed(it: "Evidence", bodies: Bodies, bucket: str, executions: list["Execution"]) -> None:
    begun = sorted(execution.began for execution in executions)
    for told in executions:
        if not told.is_put_back or told.ended is None:
            continue
        opens = told.ended + RETRY_AFTER_S
        if any(_concerns(event, told.began, opens) for event in it.events):
            continue
        bodies.closed += 1
        bodies.wrong[CLOSED] += [(bucket, round(at, 2)) for at in begun if told.ended + _LATE_S < at < opens]


def _judge_rate(it: "Evidence", bodies: Bodies, starts: list[tuple[float, int]]) -> None:
    """In every window, of whatever length, that lies between two losses of data."""
    losses = [event for event in it.events if event.loses]
    started, least, least_at, epoch = 0, float("inf"), 0.0, -1
    for at, cost in starts:
        now = sum(event.began - LAG_S <= at for event in losses)
        if now != epoch or any(_concerns(event, at, at) for event in losses):
            started, least, epoch = 0, float("inf"), now
        # The window begins with the start that makes it fullest.
        if started - STARTS_S * at < least:
            least, least_at = started - STARTS_S * at, at
        started += cost
        closer_s = (started - STARTS_S * at - least - BURST) / STARTS_S
        bodies.closer_s = max(bodies.closer_s, closer_s)
        hindered_s = sum(
            event.ended - event.began
            for event in it.events
            if event.began <= at and event.ended >= least_at - _LONGEST_OUTAGE_S
        )
        if closer_s > _LATE_S + hindered_s:
            bodies.wrong[CLOSER].append((round(at, 2), f"{closer_s:.2f} s"))


def _judge_order(it: "Evidence", bodies: Bodies, bucket: str, tasks: dict[int, list[float]]) -> None:
    """A task begins when those that were acknowledged before it was sent do not run again."""
    sent = sorted((it.sent[number], number) for number in tasks if number in it.sent)
    acked = sorted((it.acked[number], number) for number in tasks if number in it.acked)
    latest, latest_number, at = 0.0, 0, 0
    for sent_at, number in sent:
        while at < len(acked) and acked[at][0] < sent_at:
            before = acked[at][1]
            latest, latest_number = max((latest, latest_number), (max(tasks[before]), before))
            at += 1
        bodies.in_order += at > 0
        first = min(tasks[number])
        if first < latest and not any(event.loses and _concerns(event, first, latest) for event in it.events):
            bodies.wrong[ORDER].append((bucket, latest_number, number))


def _concerns(event: "Event", began: float, ended: float) -> bool:
    """Whether a fault may have to do with what was between: what is lost with it, and what is noted late."""
    return event.began - LAG_S <= ended and began <= event.ended + NOTED_S
