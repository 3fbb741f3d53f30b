"""Show what people did to an app's queue, the newest first: on the command line, and in the dashboard.

The newest thousand are kept, for 90 days after the last.
"""

import argparse

from .._server import calls
from .._server.replies import ask
from . import open_app
from ._arguments import app_argument, json_argument, positive
from ._output import Table, many, moment, print_json, short, show


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("-n", "--limit", type=positive, default=50, metavar="N", help="at most so many (default: 50)")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    core = open_app(arguments).context.server.core
    rows, size, offset = list[calls.AuditRow](), 1, 0
    while offset < min(size, arguments.limit):
        limit = min(calls.AUDIT_LIMIT_MOST, arguments.limit - offset)
        page = ask(core, calls.audit(offset=offset, limit=limit))
        rows, size, offset = rows + page.rows, page.size, offset + limit
    if arguments.json:
        print_json([row._asdict() for row in rows])
        return 0
    cells = [
        [
            moment(row.acted_at),
            row.user,
            row.client,
            row.action,
            short(row.subject),
            f"{row.number:,}",
            short(row.outcome),
        ]
        for row in rows
    ]
    show(Table(["at", "who", "from", "action", "of", "number", "outcome"], cells))
    show(f"{many(len(rows), 'action')} of {size:,}" if rows else "nobody has done anything that is kept")
    return 0
