"""Mending what `fsck` found: who does it, and how; nothing is decided here."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .._server import calls
from .._server.calls import Finding
from .._server.replies import ask
from .fsck import Check

if TYPE_CHECKING:
    from .. import _core
    from .fsck import Elsewhere

_PASSES = 5

MENDED_BY = {
    "away_without_outbox": "hands it to that queue again",
    "ended_without_outbox": "has that queue told",
    "ghost_in_dead": "drops the entry",
    "ghost_in_held": "drops the entry, and makes the task ready again if it is in no lane",
    "ghost_in_running": "drops the entry, and makes the task ready again if nobody holds it",
    "ghost_in_pauses": "ends it; heartbeats give back what it holds",
    "ghost_in_schedule_due": "drops the due time",
    "ghost_in_scheduled": "drops the entry",
    "ghost_in_quarantined": "drops the entry, and makes the task ready again if it is in no lane",
    "ghost_in_tombstones": "drops the mark",
    "ghost_in_workflows": "drops the entry",
    "lost_ends": "counts them, and goes on; a map of more than 20,000 calls: abort it",
    "no_row": "marks the worker as lost: its tasks are given to others",
    "no_such_group": "removes the key; a task that waits for others of that workflow is aborted, or skipped",
    "no_such_task": "removes the key",
    "no_such_worker": "removes the key; tasks left in it are given to others",
    "no_ttl": "gives the key an hour to live; a workflow is kept as long as its results, a task of one as that",
    "not_in_dead": "lists it among the dead letters again",
    "not_in_deadlines": "its time begins again",
    "not_in_failed": "counts it among them again",
    "not_in_held": "makes it ready again; its pause holds it when a worker takes it",
    "not_in_line": "puts it back into its line",
    "not_in_nodes": "adds it to what the workflow consists of",
    "not_in_ready": "makes it ready again",
    "not_in_running": "makes it ready again; no try is charged",
    "not_in_scheduled": "schedules it again, for when it was due",
    "not_in_quarantined": "puts it in quarantine again",
    "not_in_turn": "gives the line its turn again",
    "not_in_workflows": "lists it again",
    "not_open": "its workflow waits for it again",
    "not_woken": "has it go on, in front of its lane",
    "open_but_ended": "its workflow goes on",
    "open_without_record": "its workflow goes on, as if it had failed",
    "stuck_group": "has it go on, or end; where that cannot be, abort it",
    "wrong_busy": "counts what runs again",
    "wrong_dead": "counts them again; without any it is removed when its time is over",
    "wrong_load": "counts its tasks again",
}
"""What `ardiq doctor --repair` does about each finding."""

BY_HAND = {
    "ghost_in_ready": "nothing needs to be done: a worker drops the entry when it gets there",
    "lost_items": "start it again with what is missing once it has failed; `ardiq workflow abort` ends it now",
    "lost_results": "start the workflow again, if what follows needs them",
    "no_such_pause": "end that pause again with `ardiq resume`: its tasks then become ready",
    "not_in_schedule_due": "put it again with `ardiq schedule put`; one declared in code: restart a worker",
    "unknown_key": "find out who wrote it, then delete or rename it with redis-cli",
    "unknown_state": "look at it with `ardiq task show`; set its field `state` right, or delete the record",
    "unseen_pauses": "pause one of them again with `ardiq pause`",
    "wrong_type": "look at it with redis-cli, then delete or rename it",
}
"""What a person is to do about the others."""


def mend(core: "_core.Core", result_ttl_ms: int, elsewhere: "Elsewhere | None" = None) -> Iterator[tuple[Finding, str]]:
    """Check a queue and have mended what is wrong, until nothing is, or no more can be mended.

    Each finding is checked again, atomically, by the call that mends it; so workers may go on meanwhile.

    Returns:
        Every finding with what became of it: "mended", "sound" (nothing was wrong by then) or "by_hand".
    """
    left: set[Finding] = set()
    for _ in range(_PASSES):
        findings, mended = list(Check(core, elsewhere=elsewhere).findings()), False
        for row, answer in _repair(core, findings, result_ttl_ms):
            mended = mended or answer == "mended"
            if answer != "by_hand":
                yield row, answer
            elif row not in left:
                left.add(row)
                yield row, answer
        if not mended:
            return


def _repair(core: "_core.Core", findings: Sequence[Finding], result_ttl_ms: int) -> Iterable[tuple[Finding, str]]:
    for first in range(0, len(findings), calls.REPAIR_MOST):
        portion = findings[first : first + calls.REPAIR_MOST]
        answers = ask(core, calls.repair(result_ttl_ms=result_ttl_ms, findings=portion))
        yield from zip(portion, map(str, answers), strict=True)
