"""Remove the waiting tasks of an app's queue, including scheduled ones. Running tasks and dead letters stay."""

import argparse
from typing import TYPE_CHECKING

from .._server import calls
from .._server.replies import ask
from ..errors import ArdiqError
from . import open_app
from ._arguments import agreed, among, app_argument, did_you_mean, json_argument, word
from ._audit import came
from ._output import many, print_json, show

if TYPE_CHECKING:
    from ..app import Ardiq
    from ..inspection import QueueCounts

# One call keeps the server from others for about a millisecond.
_PORTION = 100


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("--lane", type=word, metavar="LANE", help="of this lane only (default: all lanes)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--queued", action="store_true", help="only those that are ready to run")
    which.add_argument("--scheduled", action="store_true", help="only those that are scheduled for later")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    counts = app.inspect.counts_sync()
    lane, places = arguments.lane or "", _places(app, arguments, counts)
    found = []
    if ready := sum(places.values()):
        found.append(many(ready, "queued task"))
    if (scheduled := counts.scheduled) and not arguments.queued:
        found.append(f"{'any of ' if lane else ''}{many(scheduled, 'scheduled task')}")
    where = f"{f'lane {lane!r} of ' if lane else ''}queue {app.queue_name!r}"
    if found and not agreed(f"remove {' and '.join(found)} from {where}?", arguments.yes):
        _tell(0, arguments, "nothing was removed")
        return 1
    removed = sum(_purge(app, place, of) for place, of in places)
    if not arguments.queued:
        removed += _purge(app, "scheduled", lane)
    _tell(removed, arguments, f"{removed:,} removed")
    return 0


def _places(app: "Ardiq", arguments: argparse.Namespace, counts: "QueueCounts") -> dict[tuple[str, str], int]:
    """From which lane to remove ready tasks, as the library takes it, and how many there are.

    Raises:
        ArdiqError: neither the app nor the queue has the lane.
    """
    ready = dict.fromkeys(app.priorities, 0) | dict.fromkeys(counts.lines, 0) | counts.ready
    if arguments.lane is not None and arguments.lane not in ready:
        raise ArdiqError(f"there is no lane {arguments.lane!r}{did_you_mean(arguments.lane, ready) or among(ready)}")
    if arguments.scheduled:
        return {}
    limited = {("limited", lane): count for lane, count in counts.lines.items() if arguments.lane in (None, lane)}
    if arguments.lane is not None:
        return {("queued", arguments.lane): ready[arguments.lane]} | limited
    held = {("held", pause.id): pause.held for pause in app.pauses_sync() if pause.held}
    queued = {("queued", lane): count for lane, count in ready.items()}
    return queued | limited | {("quarantined", ""): counts.quarantined} | held


def _purge(app: "Ardiq", place: str, of: str) -> int:
    """Remove all of them, a batch per call; returns how many."""
    core, ttl_ms = app.context.server.core, app.result_ttl_ms
    removed, passed, more = 0, 0, True
    while more:
        reply = ask(core, calls.purge(place=place, which=of, offset=passed, limit=_PORTION, result_ttl_ms=ttl_ms))
        removed, passed, more = removed + reply.discarded, passed + reply.passed, reply.more
    return removed


def _tell(removed: int, arguments: argparse.Namespace, line: str) -> None:
    came(removed, line)
    if arguments.json:
        print_json({"removed": removed})
    else:
        show(line)
