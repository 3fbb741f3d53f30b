"""Check a queue's data against its invariants: every task in exactly one place, every entry with its record.

Reads page by page, so it neither blocks the server nor stops the workers. What looks wrong because it moved between
two pages is checked again in one atomic step; only confirmed findings are reported. Exit code 1 if there are any.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from .. import _core, errors
from .._server import calls
from .._server.calls import Finding
from .._server.commands import known_queues
from .._server.replies import Call, R, ask
from .._values import options as _options
from .._values.encodings import netstrings
from . import is_url, load_app, open_core
from ._arguments import (
    DEFAULT_PREFIX,
    Refusal,
    among,
    did_you_mean,
    json_argument,
    prefix_argument,
    refusing,
    target_argument,
)
from ._output import many, print_json, printable

Elsewhere: TypeAlias = Callable[[str], _core.Core]

# Bounds for how long one call keeps the server from others: about 1 ms.
_PAGE = 100
_LINE_PAGE = 1000

FINDINGS = {
    "away_without_outbox": "handed to another queue, which does not have it",
    "ended_without_outbox": "ended, but the queue of its workflow is not told",
    "ghost_in_dead": "listed as a dead letter, but has not failed",
    "ghost_in_held": "held by a pause that its record does not name",
    "ghost_in_pauses": "a pause of a workflow that has ended, or is gone",
    "ghost_in_ready": "in a ready list, but not queued in that lane",
    "ghost_in_running": "claimed by a worker, but not running there",
    "ghost_in_schedule_due": "the due time of a schedule that is gone",
    "ghost_in_scheduled": "has a due time, but is not scheduled",
    "ghost_in_quarantined": "in quarantine, but not one that was lost more than once",
    "ghost_in_tombstones": "queued, but marked to be skipped",
    "ghost_in_workflows": "listed as an unfinished workflow, but is none",
    "lost_ends": "tasks of it have ended, and it does not know of that",
    "lost_items": "calls of a map that are gone before they ran; it will fail",
    "lost_results": "results of a map that are gone",
    "no_row": "a worker without its row",
    "no_such_group": "part of a workflow that is gone, or has ended",
    "no_such_pause": "tasks held by a pause that is gone; resume it",
    "no_such_task": "kept for a task that has ended, or is gone",
    "no_such_worker": "belongs to a worker that does not exist",
    "no_ttl": "would stay forever: it has no time to live",
    "not_in_dead": "failed, but not among the dead letters",
    "not_in_deadlines": "has a time limit, or may be left unfinished by its client, but nobody looks at the time",
    "not_in_failed": "did not complete, but its workflow does not count it among those",
    "not_in_held": "held, but not by the pause it names",
    "not_in_line": "limited, but not in its line",
    "not_in_nodes": "of a workflow that does not know what it consists of",
    "not_in_ready": "queued, but in no ready list",
    "not_in_running": "running, but claimed by no worker",
    "not_in_schedule_due": "a schedule that never falls due: it has no next time",
    "not_in_scheduled": "scheduled, but without a due time",
    "not_in_quarantined": "lost with its worker more than once, but not in quarantine",
    "not_in_turn": "a line whose turn never comes",
    "not_in_workflows": "an unfinished workflow, but not listed as one",
    "not_open": "not ended, but its workflow does not wait for it",
    "not_woken": "waits, although what it waits for is there, or nothing says what that is",
    "open_but_ended": "ended, but its workflow still waits for it",
    "open_without_record": "its workflow waits for it, but its record is gone",
    "stuck_group": "waits for nothing, and does not go on",
    "unknown_key": "a key that Ardiq does not know",
    "unknown_state": "a state that Ardiq does not know",
    "unseen_pauses": "workers do not know of them; pause one of them again",
    "wrong_busy": "the number of its attempts that run is recorded wrongly",
    "wrong_dead": "has another number of dead letters than is recorded, and may never be removed",
    "wrong_load": "the number of tasks it holds is recorded wrongly",
    "wrong_type": "a key of the wrong type: something else wrote it",
}


def configure(parser: argparse.ArgumentParser) -> None:
    target_argument(parser)
    parser.add_argument(
        "--queue",
        metavar="NAME",
        help="check this queue (default: the app's, or with a URL all queues of any prefix)",
    )
    prefix_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.queue is not None:
        with refusing():
            _options.key_part("--queue", arguments.queue)
    found, seen = [], {}
    for name, elsewhere, own, registry in _queues(arguments.target, arguments.queue, arguments.prefix):
        started = time.monotonic()
        core = elsewhere(own)
        check = Check(core, elsewhere=elsewhere)
        for row in check.findings():
            found.append({"queue": name, **row._asdict(), "means": FINDINGS.get(row.kind, row.kind)})
            if not arguments.json:
                print(f"{name}: {describe(row)}")
        if not check.seen and name not in (known := known_queues(core, registry)):
            meant = did_you_mean(name, known) or among(known)
            raise errors.ArdiqError(f"there is no queue {name!r} on this server{meant}")
        seen[name] = check.seen
        if not arguments.json:
            print(f"{name}: {many(check.seen, 'entry', 'entries')} checked in {time.monotonic() - started:.1f} s")
    if arguments.json:
        print_json({"findings": found, "looked_at": seen})
    else:
        print(f"{many(len(found), 'finding')}; `ardiq doctor` says what to do" if found else "clean")
    return 1 if found else 0


def describe(row: Finding) -> str:
    """A finding for people."""
    detail = f" ({row.detail})" if row.detail else ""
    return printable(f"{row.id}: {FINDINGS.get(row.kind, row.kind)}{detail}")


class Check:
    """One pass over one queue; `seen` counts the entries looked at.

    Args:
        most_s: it ends after about so many seconds; `complete` tells whether it got to the end.
        elsewhere: the connection to another queue of the server, by its name; None: no other queue is asked.
    """

    def __init__(self, core: _core.Core, most_s: float = math.inf, elsewhere: Elsewhere | None = None) -> None:
        self._core = core
        self._elsewhere = elsewhere
        self._deadline = time.monotonic() + most_s
        self.seen = 0
        self.complete = True

    def findings(self) -> Iterator[Finding]:
        """Everything that is confirmed to be wrong."""
        queued: dict[str, str] = {}
        limited: dict[str, set[str]] = {}
        walked: list[str] = []
        last: list[Finding] = []
        for row in self._rows("records"):
            if row.kind == "queued":
                queued[row.id] = row.detail
            elif row.kind == "group":
                walked.append(f"open:{row.id}")
            elif row.kind == "ended":
                walked.append(f"recount:{row.id}")
            elif row.kind == "away_without_outbox":
                yield from self._away(row)
            elif row.kind == "lost_ends":  # what is open may be all that it does not know of
                last.append(row)
            elif row.kind == "not_in_line":
                limited.setdefault(row.detail, set()).add(row.id)
            else:
                yield row
        yield from last
        if not self.complete:  # what was not looked at may be anywhere
            return
        lanes = set(queued.values())
        for section in (*self._places(lanes), *walked):
            for row in self._rows(section):
                if row.kind == "entry":
                    queued.pop(row.id, None)
                else:
                    yield row
        if self.complete:
            yield from self._missed(queued, lanes)
        for line, identities in limited.items():
            yield from self._not_in(line, identities)

    def _away(self, row: Finding) -> Iterator[Finding]:
        """What of a task that another queue was handed is wrong: it is not there, for this time."""
        if self._elsewhere is None:
            return
        queue, identity, life = (part.decode(errors="replace") for part in netstrings(row.detail.encode()))
        try:
            found = ask(self._elsewhere(queue), calls.task(id=identity))
        except errors.WrongType:
            return
        if found.get("life", b"").decode(errors="replace") != life:
            yield Finding("away_without_outbox", row.id, queue)

    def _missed(self, queued: dict[str, str], lanes: set[str]) -> Iterator[Finding]:
        """What of the `queued` tasks, which were in no list, is confirmed to be wrong.

        What moved meanwhile lies near an end of its list by now, most of it; the rest is looked for once more.
        """
        missed: list[str] = []
        for identity in queued:
            rows = list(self._rows(f"task:{identity}"))
            if any(row.kind == "not_in_ready" for row in rows):
                missed.append(identity)
            else:
                yield from rows
        if not missed:
            return
        seen = {row.id for lane in sorted(lanes) for row in self._rows(f"ready:{lane}") if row.kind == "entry"}
        for identity in missed:
            if identity not in seen:
                yield from self._rows(f"task:{identity}")

    def _not_in(self, line: str, missing: set[str]) -> Iterator[Finding]:
        """What of these tasks, which were not near an end of their line, is confirmed to be nowhere in it."""
        for _ in range(2):
            missing = missing - self._entries(line, next(iter(missing))) if missing else missing
        for identity in sorted(missing):
            yield from self._rows(f"task:{identity}")

    def _entries(self, line: str, identity: str) -> set[str]:
        """The ids in the line of a task, from its end to the front: what is taken off meanwhile hides none."""
        found: set[str] = set()
        position = self._ask(calls.position(id=identity, limit=1))
        first = 0 if position is None else position.length
        while first > 0 and self.complete:
            self.complete = time.monotonic() <= self._deadline
            first = max(0, first - _LINE_PAGE)
            page = self._ask(calls.list_(place="limited", which=line, offset=first, limit=_LINE_PAGE))
            found |= {entry.id for entry in page or ()}
        return found

    def _places(self, lanes: set[str]) -> list[str]:
        names = list(self._ask(calls.counts()) or ())
        lanes |= {name.partition(":")[2] for name in names if name.startswith("ready:")}
        of_lanes = [f"{place}:{lane}" for lane in sorted(lanes) for place in ("ready", "tombstones")]
        return [
            "scheduled",
            "quarantined",
            "dead",
            "workflows",
            "workers",
            "loads",
            "busy",
            "schedules",
            "schedule_due",
            *of_lanes,
            *(name for name in names if name.startswith("held:")),
            *(f"running:{worker}" for worker in self._workers()),
        ]

    def _workers(self) -> Iterator[str]:
        cursor = "0"
        while page := self._ask(calls.workers(cursor=cursor, limit=_PAGE)):
            yield from (row.worker for row in page.rows)
            cursor = page.cursor
            if cursor == "0":
                return

    def _rows(self, section: str) -> Iterator[Finding]:
        cursor = "0"
        while self.complete:
            if time.monotonic() > self._deadline:
                self.complete = False
                return
            page = self._ask(calls.fsck_page(section=section, cursor=cursor, limit=_PAGE))
            if page is None:
                return
            self.seen += page.seen
            yield from page.rows
            cursor = page.cursor
            if cursor == "0":
                return

    def _ask(self, call: Call[R]) -> R | None:
        """The reply; None where a key of the wrong type is in the way, which the pass over all keys reports."""
        try:
            return ask(self._core, call)
        except errors.WrongType:
            return None


def _queues(target: str, queue: str | None, prefix: str | None) -> Iterator[tuple[str, Elsewhere, str, str]]:
    """What it is called, the connections by name, its name and its registry, of each queue to check."""
    if not is_url(target):
        if prefix is not None:
            raise Refusal(f"--prefix is for URLs; {target} has its own")
        app = load_app(target)
        name = queue or app.queue_name
        yield name, partial(open_core, app.redis_url, prefix=app.prefix), name, f"{app.prefix}:queues"
        return
    for each, name in _queues_at(target, queue, prefix):
        label = name if each == (prefix or DEFAULT_PREFIX) else f"{each}:{name}"
        yield label, partial(open_core, target, prefix=each), name, f"{each}:queues"


def _queues_at(url: str, queue: str | None, prefix: str | None) -> list[tuple[str, str]]:
    """Prefix and name; where none of the two is given, of all queues that there are."""
    first = prefix or DEFAULT_PREFIX
    if queue:
        return [(first, queue)]
    core = open_core(url, prefix=first)
    known = {(first, name) for name in known_queues(core, f"{first}:queues")}
    if prefix is None:
        try:
            known |= set(core.queues())
        except errors.ArdiqError as error:
            if errors.is_away(error):
                raise
            print(f"prefixes other than {first} are not searched, see --prefix: {error}", file=sys.stderr)
    return sorted(known, key=lambda found: (found[0] != first, found))
