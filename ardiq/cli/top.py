"""Show the running tasks of an app's queue, the longest first, and those that took most of the last five minutes.

On a terminal it is redrawn until Ctrl-C. Workers report every five seconds how often their tasks ran. `for` counts from
when a worker took the task; `mean` and `waited` are per attempt.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from . import open_app
from ._arguments import app_argument, duration_s, json_argument, positive
from ._output import Part, Styled, Table, age, many, present
from ._plain import MINUTES, last_minutes, plain_counts, plain_running, plain_totals
from .status import running_table

if TYPE_CHECKING:
    from ..app import Ardiq

_ORDERS = {
    "time": ("run_ms", "most total time"),
    "runs": ("runs", "most often"),
    "slow": ("mean_ms", "slowest"),
    "failed": ("failed", "most failures"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("--once", action="store_true", help="show it once, as when the output is not a terminal")
    parser.add_argument(
        "--every", type=duration_s, default=2.0, metavar="TIME", help="refresh this often (default: 2s)"
    )
    parser.add_argument("--sort", choices=_ORDERS, default="time", help="order of the tasks (default: time)")
    parser.add_argument(
        "-n", "--limit", type=positive, default=20, metavar="N", help="show this many of each (default: 20)"
    )
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    once = arguments.once or arguments.json or not sys.stdout.isatty()
    present(
        lambda: _read(app, arguments.sort, arguments.limit),
        _draw,
        as_json=arguments.json,
        every_s=None if once else arguments.every,
    )
    return 0


def _read(app: "Ardiq", order: str, most: int) -> dict[str, Any]:
    inspect = app.inspect
    overview, workers = inspect.overview_sync(MINUTES), inspect.workers_sync()
    tasks = [{**task, **_means(task)} for task in map(plain_totals, inspect.task_totals_sync(MINUTES))]
    tasks.sort(key=lambda task: (-task[_ORDERS[order][0]], task["name"]))
    return {
        "queue": app.queue_name,
        "counts": plain_counts(overview.counts),
        "workers_alive": sum(worker.is_alive for worker in workers),
        "slots": sum(worker.share or 0 for worker in workers if worker.is_alive),
        "running": [plain_running(task) for task in inspect.running_sync(most, workers)],
        "order": order,
        "tasks": tasks[:most],
        "last_minutes": last_minutes(overview.minutes),
    }


def _means(task: dict[str, Any]) -> dict[str, float]:
    return {
        "mean_ms": round(task["run_ms"] / max(1, task["runs"]), 1),
        "mean_wait_ms": round(task["wait_ms"] / max(1, task["waits"]), 1),
    }


def _draw(top: dict[str, Any]) -> list[Part]:
    counts = top["counts"]
    names = ["queued", *(["limited"] if counts["limited"] else []), "scheduled", "running", "dead"]
    counted = ", ".join(f"{counts[name]:,} {name}" for name in names)
    parts: list[Part] = [
        Styled(f"queue {top['queue']} at {time.strftime('%H:%M:%S')}", "bold"),
        f"{counted}; {many(top['workers_alive'], 'worker')} with {many(top['slots'], 'slot')}",
    ]
    parts.append(running_table(top["running"]) if top["running"] else "nothing runs")
    if top["tasks"]:
        rows = [
            [
                task["name"],
                f"{task['runs']:,}",
                f"{task['failed']:,}",
                f"{task['retried']:,}",
                age(task["mean_ms"]),
                age(task["mean_wait_ms"]),
                age(task["run_ms"]),
            ]
            for task in top["tasks"]
        ]
        header = ["task", "runs", "failed", "retried", "mean", "waited", "in all"]
        parts.append(Table(header, rows, f"last {MINUTES} minutes, {_ORDERS[top['order']][1]} first"))
    else:
        parts.append(f"nothing ran in the last {MINUTES} minutes")
    return parts
