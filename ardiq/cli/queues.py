"""List the queues of a server: what is where in each, and how many workers it has."""

import argparse
from typing import Any

from . import is_url, load_app, queues_of, server_app
from ._arguments import Refusal, json_argument, prefix_argument, target_argument
from ._output import Styled, Table, print_json, show
from ._state import COUNTS, State


def configure(parser: argparse.ArgumentParser) -> None:
    target_argument(parser)
    prefix_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if is_url(arguments.target):
        app = server_app(arguments.target, None, arguments.prefix)
    elif arguments.prefix is not None:
        raise Refusal(f"--prefix goes with a URL; {arguments.target} has its own")
    else:
        app = load_app(arguments.target)
    queues: list[dict[str, Any]] = []
    for name in sorted(queues_of(app._broker.core, app._broker._registry)):
        other = app.queue(name)
        state = State(other)
        counts, alive = state.counts(), state.workers_alive()
        is_paused = any(pause.task is None and pause.argument is None for pause in state.pauses())
        queues.append(
            {
                "queue": name,
                "counts": {name: counts[name] for name in COUNTS},
                "workers_alive": alive,
                "paused": is_paused,
            }
        )
        if other is not app:
            other._broker.close()
    if arguments.json:
        print_json(queues)
    elif not queues:
        show("there is no queue on this server")
    else:
        show(Table(["queue", *COUNTS, "workers"], [_row(queue) for queue in queues]))
    return 0


def _row(queue: dict[str, Any]) -> list[str]:
    counts = queue["counts"]
    alive = queue["workers_alive"]
    waits = counts["queued"] or counts["scheduled"]
    workers = "paused" if queue["paused"] else f"{alive:,}" if alive else Styled("none", "red" if waits else "")
    return [queue["queue"], *(f"{counts[name]:,}" for name in COUNTS), workers]
