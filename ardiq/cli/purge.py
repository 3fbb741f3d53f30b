"""Remove the tasks that wait in an app's queue, unrun. What runs, and dead letters, stay."""

import argparse
from typing import TYPE_CHECKING

from ..errors import ArdiqError
from . import open_app
from ._arguments import Refusal, agreed, among, app_argument, did_you_mean, json_argument, word
from ._output import many, print_json, show
from ._state import State

if TYPE_CHECKING:
    from ..app import Ardiq

# One call keeps the server from others for about a millisecond.
_PORTION = 100
_COUNTED = {"queued": "ready"}  # a place by the name that it is counted under


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("--lane", type=word, metavar="LANE", help="of this lane only (default: all lanes)")
    parser.add_argument("--scheduled", action="store_true", help="those that are scheduled for later, instead")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    if arguments.scheduled and arguments.lane:
        raise Refusal("give --lane or --scheduled, not both: what is scheduled lies in no lane yet")
    counts = State(app).counts()
    places = _places(app, arguments, counts)
    found = sum(counts.get(f"{_COUNTED.get(place, place)}{name and ':'}{name}", 0) for place, name in places)
    what = "scheduled" if arguments.scheduled else f"queued in lane {arguments.lane!r}" if arguments.lane else "queued"
    if found and not agreed(f"remove {many(found, 'task')} {what} of queue {app.queue_name!r}?", arguments.yes):
        _tell(0, arguments, "nothing was removed")
        return 1
    removed = 0
    for place, lane in places:
        more = True
        while more:
            count, more = app._broker.core.call("purge", [place, lane, _PORTION, app.result_ttl_ms])
            removed += count
    _tell(removed, arguments, f"{removed:,} removed")
    return 0


def _places(app: "Ardiq", arguments: argparse.Namespace, counts: dict[str, int]) -> list[tuple[str, str]]:
    """Where to remove from, as the library takes it.

    Raises:
        ArdiqError: neither the app nor the queue has the lane.
    """
    if arguments.scheduled:
        return [("scheduled", "")]
    counted = [name.partition(":") for name in counts]
    lanes = sorted({lane for place, _, lane in counted if place == "ready" and lane} | {*app.priorities})
    if arguments.lane is None:
        held = [("held", pause) for place, _, pause in counted if place == "held" and pause]
        return [*(("queued", lane) for lane in lanes), ("suspects", ""), *held]
    if arguments.lane not in lanes:
        raise ArdiqError(f"there is no lane {arguments.lane!r}{did_you_mean(arguments.lane, lanes) or among(lanes)}")
    return [("queued", arguments.lane)]


def _tell(removed: int, arguments: argparse.Namespace, line: str) -> None:
    if arguments.json:
        print_json({"removed": removed})
    else:
        show(line)
