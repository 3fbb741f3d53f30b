"""Remove the tasks that wait in an app's queue, unrun. What runs, and dead letters, stay."""

import argparse
import sys

from . import Refusal, app_argument, json_argument, load_app
from ._output import print_json, show

# One call keeps the server from others for about a millisecond.
_PORTION = 100


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("--lane", metavar="LANE", help="of this lane only (default: all lanes)")
    parser.add_argument("--scheduled", action="store_true", help="those that are scheduled for later, instead")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = load_app(arguments.app)
    if arguments.scheduled and arguments.lane:
        raise Refusal("give --lane or --scheduled, not both: what is scheduled lies in no lane yet")
    if arguments.lane is not None and arguments.lane not in app.priorities:
        raise Refusal(f"there is no lane {arguments.lane!r}; there are {', '.join(app.priorities)}")
    what = "scheduled tasks" if arguments.scheduled else f"queued tasks of lane {arguments.lane or 'any'}"
    if not arguments.yes and not _agreed(f"remove all {what} of queue {app.queue_name!r}? [y/N] "):
        print("nothing was removed")
        return 1
    core = app._broker.core
    if arguments.scheduled:
        places = [("scheduled", "")]
    elif arguments.lane:
        places = [("queued", arguments.lane)]
    else:
        counted = [name.decode().partition(":") for name in core.call("counts", [])[::2]]
        lanes = {lane for place, _, lane in counted if place == "ready" and lane}
        places = [("queued", lane) for lane in sorted({*lanes, *app.priorities})]
        places += [("suspects", ""), *(("held", pause) for place, _, pause in counted if place == "held" and pause)]
    removed = 0
    for place, lane in places:
        more = True
        while more:
            count, more = core.call("purge", [place, lane, _PORTION, app.result_ttl_ms])
            removed += count
    if arguments.json:
        print_json({"removed": removed})
    else:
        show(f"{removed:,} removed")
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Refusal("nobody can be asked here: say --yes")
    return input(question).strip().lower() in ("y", "yes")
