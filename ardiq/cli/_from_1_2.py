"""`ardiq migrate --from-1.2`: the plan with its numbers, what is in the way, and the move."""

import argparse
from collections import Counter
from typing import Any

from .._client.from_1_2 import Found, Old
from .._values.options import without_braces
from . import load_app
from ._output import many, print_json, teller

# What a task that is not moved is told of, by the answer it got.
_NOT_MOVED = {
    "exists": "not moved, because the queue has a newer task of the same id: removed",
    "removed": "occurrences of schedules that the code creates again: removed",
    "expired": "had expired, or 1.2 had lost their arguments: removed",
    "claimed": "claimed by a live worker of ArdiQ 1.2: left to it",
    "changed": "changed while they were read: left",
    "gone": "taken by another process meanwhile",
    "unreadable": "cannot be read: left",
}
_STAYS = ("claimed", "changed", "unreadable")


def run(arguments: argparse.Namespace, target: str) -> int:
    queues = list(dict.fromkeys(arguments.queue)) or [None]
    say = teller(arguments.json)
    told, codes = [], []
    for queue in queues:
        facts, code = _move(arguments, target, queue, say)
        told.append(facts)
        codes.append(code)
    if arguments.json:
        print_json({"queues": told})
    return max(codes)


def _move(arguments: argparse.Namespace, target: str, queue: str | None, say: Any) -> tuple[dict[str, Any], int]:
    app = load_app(target, queue and without_braces(queue))
    core = app.context.server.core
    old = Old(app.context, queue or app.queue_name)
    found = old.look()
    facts: dict[str, Any] = {
        "queue": found.queue,
        "queued": found.queued,
        "scheduled": found.scheduled,
        "dead": found.dead,
        "results": found.results,
        "workers": found.workers,
        "moved": {},
        "left": [],
    }
    say(f"{found.queue}, as ArdiQ 1.2 left it: {_summary(found)}")
    if not found.in_all:
        return facts, 0
    obstacle = _obstacle(old, found, arguments.force)
    if obstacle:
        facts["refused"] = obstacle
        say(f"refused: {obstacle}")
        return facts, 1
    if arguments.check or arguments.dry_run:
        return facts, int(arguments.check)
    core.migrate_apply(force=arguments.force)
    app.context.server.register(core)

    def left(task_id: str, reason: str) -> None:
        facts["left"].append({"task_id": task_id, "reason": reason})
        say(f"left: {task_id}: {reason}")

    moved = old.move(left)
    facts["moved"] = dict(moved)
    for line in _lines(moved):
        say(line)
    after = old.look()
    if after.in_all:
        say(f"still there: {_summary(after)}; run it again later to move the rest")
    return facts, int(any(moved[answer] for answer in _STAYS) or bool(after.in_all))


def _obstacle(old: Old, found: Found, force: bool) -> str:
    strange = old.strange_lanes(found)
    if strange:
        return f"no worker of this app serves {', '.join(strange)}: add it to priorities="
    if found.workers and not force:
        return (
            f"{many(len(found.workers), 'worker')} of ArdiQ 1.2 still alive: {', '.join(found.workers)}. Stop them and"
            " wait a minute, or use --force to move what they do not hold"
        )
    return ""


def _summary(found: Found) -> str:
    if not found.in_all:
        return "nothing"
    by_lane = [f"{lane} {count:,}" for lane, count in found.queued.items() if count]
    queued = f"{sum(found.queued.values()):,} queued" + (f" ({', '.join(by_lane)})" if len(by_lane) > 1 else "")
    return (
        f"{queued}, {sum(found.scheduled.values()):,} scheduled, {many(found.dead, 'dead letter')}, "
        f"{many(found.results, 'result')}"
    )


def _lines(moved: Counter[str]) -> list[str]:
    done = [f"{moved[state]:,} {state}" for state in ("queued", "scheduled") if moved[state]]
    done += [many(moved["failed"], "dead letter")] if moved["failed"] else []
    done += [f"{moved['aborted']:,} aborted"] if moved["aborted"] else []
    done += [many(moved["result"], "result")] if moved["result"] else []
    lines = [f"moved: {', '.join(done) or 'nothing'}"]
    return lines + [f"{moved[answer]:,} {what}" for answer, what in _NOT_MOVED.items() if moved[answer]]
