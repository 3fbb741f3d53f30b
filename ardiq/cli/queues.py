"""List the queues of a server: how many tasks are where in each, and how many workers it has."""

import argparse
from typing import TYPE_CHECKING, Any

from .._server.commands import known_queues
from ..errors import ArdiqError, BrokerError
from . import is_url, load_app, server_app
from ._arguments import Refusal, json_argument, prefix_argument, target_argument
from ._output import Styled, Table, print_json, short, show
from ._plain import COUNTS, plain_counts

if TYPE_CHECKING:
    from ..app import Ardiq


def configure(parser: argparse.ArgumentParser) -> None:
    target_argument(parser)
    prefix_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if is_url(arguments.target):
        app = server_app(arguments.target, None, arguments.prefix)
    elif arguments.prefix is not None:
        raise Refusal(f"--prefix is for URLs; {arguments.target} has its own")
    else:
        app = load_app(arguments.target)
    server = app.context.server
    queues = [_read(app, name) for name in sorted(known_queues(server.core, server.queues_key))]
    if arguments.json:
        print_json(queues)
    elif not queues:
        show("there is no queue on this server")
    else:
        show(Table(["queue", *COUNTS, "workers"], [_row(queue) for queue in queues]))
    return 1 if any("error" in queue for queue in queues) else 0


def _read(app: "Ardiq", name: str) -> dict[str, Any]:
    """One queue; only the error if its keys are damaged."""
    other = app.queue(name)
    try:
        return {
            "queue": name,
            "counts": plain_counts(other.inspect.counts_sync()),
            "workers_alive": other.inspect.workers_alive_sync(),
            "paused": any(pause.task is pause.argument is pause.workflow is None for pause in other.pauses_sync()),
        }
    except BrokerError:
        raise
    except ArdiqError as error:
        return {"queue": name, "error": str(error)}
    finally:
        other.context.forget()


def _row(queue: dict[str, Any]) -> list[str]:
    if "error" in queue:
        return [queue["queue"], *["?"] * len(COUNTS), Styled(short(queue["error"]), "red")]
    counts = queue["counts"]
    alive = queue["workers_alive"]
    waits = counts["queued"] or counts["scheduled"]
    workers = "paused" if queue["paused"] else f"{alive:,}" if alive else Styled("none", "red" if waits else "")
    return [queue["queue"], *(f"{counts[name]:,}" for name in COUNTS), workers]
