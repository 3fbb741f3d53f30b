"""Show what is where in an app's queue: lanes, workers, what runs, and how much was done of late."""

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from ..pauses import read_pauses
from . import app_argument, json_argument, load_app, table

if TYPE_CHECKING:
    from .. import _core

_MINUTES = 5
_PAGE = 1000
_RATES = ("enqueued", "completed", "failed", "retried", "aborted", "expired", "discarded", "lost")


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = load_app(arguments.app)
    status = read(app._broker.core, f"{app.prefix}:{{{app.queue_name}}}:")
    status = {"queue": app.queue_name, **status}
    print(json.dumps(status, indent=2) if arguments.json else _text(status))
    return 0


def read(core: "_core.Core", base: str) -> dict[str, Any]:
    """The state of one queue as plain data.

    Returns:
        `scheduled`, `queued`, `running`, `held`, `suspects`, `dead`: numbers of tasks; `pauses`: see `Pause`;
        `lanes`: `name`, `ready`, how many `workers` serve it;
        `workers`: see `read_workers`; `last_minutes`: counters of this minute and four before.
    """
    counts = pairs(core.call("counts", []))
    workers = read_workers(core, base)
    served = [lane for worker in workers if worker["lease_left_ms"] > 0 for lane in worker["lanes"]]
    ready = {name.partition(":")[2]: int(value) for name, value in counts.items() if name.startswith("ready:")}
    lanes = [
        {"name": name, "ready": ready.get(name, 0), "workers": served.count(name)} for name in sorted({*ready, *served})
    ]
    return {
        **{name: int(counts[name]) for name in ("scheduled", "queued", "running", "held", "suspects", "dead")},
        "pauses": [pause._asdict() for pause in read_pauses(core.call("pauses", []))],
        "lanes": lanes,
        "workers": workers,
        "last_minutes": _rates(core, base),
    }


def read_workers(core: "_core.Core", base: str) -> list[dict[str, Any]]:
    """Its workers.

    Returns:
        `identity`, `label`, `host`, `pid`, `concurrency`, `lanes`, `held` tasks, `left_threads` (which run on after
        their task was settled, and take its slot) and `lease_left_ms` each.
    """
    now_ms = server_now_ms(core)
    workers: list[dict[str, Any]] = []
    while page := core.call("list", ["workers", "", len(workers), _PAGE]):
        for identity, expiry in zip(page[::2], page[1::2], strict=True):
            name = identity.decode(errors="replace")
            row = pairs(core.command(["HGETALL", f"{base}worker:{name}"]))
            info = _json(row.get("info", ""), {})
            workers.append(
                {
                    "identity": name,
                    **{key: info.get(key) for key in ("label", "host", "pid", "concurrency")},
                    "lanes": _json(row.get("lanes", ""), []),
                    "held": int(core.command(["HLEN", f"{base}running:{name}"])),
                    "left_threads": int(row.get("left_threads", 0)),
                    "lease_left_ms": max(0, int(float(expiry)) - now_ms),
                }
            )
    return workers


def server_now_ms(core: "_core.Core") -> int:
    """The server's clock."""
    seconds, microseconds = core.command(["TIME"])
    return int(seconds) * 1000 + int(microseconds) // 1000


def pairs(answer: list[Any]) -> dict[str, str]:
    """A flat reply of names and values."""
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _rates(core: "_core.Core", base: str) -> dict[str, int]:
    minute = server_now_ms(core) // 60_000
    totals = dict.fromkeys(_RATES, 0)
    for number in range(minute - _MINUTES + 1, minute + 1):
        counted = pairs(core.command(["HGETALL", f"{base}stats:{number}"]))
        for name in _RATES:
            totals[name] += int(counted.get(name, 0))
    return totals


def _pause(pause: dict[str, Any]) -> list[str]:
    name = "the whole queue" if pause["id"] == "*()" else pause["id"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(pause["paused_at"] / 1000))
    return [name, f"{pause['held']:,}", "ended, on the way back" if pause["resuming"] else since]


def _json(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def _text(status: dict[str, Any]) -> str:
    lines = [f"queue {status['queue']} at {time.strftime('%H:%M:%S')}"]
    lines.append(", ".join(f"{status[name]:,} {name}" for name in ("queued", "scheduled", "running", "dead")))
    if status["held"]:
        lines.append(f"{status['held']:,} held by a pause")
    if status["suspects"]:
        lines.append(f"{status['suspects']:,} of the queued ones are suspected of killing their worker")
    if status["pauses"]:
        lines += ["", *table(["paused", "held", "since"], [_pause(pause) for pause in status["pauses"]])]
    lanes = [[lane["name"], f"{lane['ready']:,}", str(lane["workers"] or "none")] for lane in status["lanes"]]
    lines += ["", *table(["lane", "ready", "workers"], lanes)]
    workers = [
        [
            worker["identity"],
            f"{worker['host']}/{worker['pid']}",
            f"{worker['held']}/{worker['concurrency']}"
            + (f" ({worker['left_threads']} taken by threads left behind)" if worker["left_threads"] else ""),
            f"{worker['lease_left_ms'] / 1000:.0f} s" if worker["lease_left_ms"] else "run out",
        ]
        for worker in status["workers"]
    ]
    lines += ["", *table(["worker", "host/pid", "held/slots", "lease left"], workers)]
    counted = ", ".join(f"{number:,} {name}" for name, number in status["last_minutes"].items() if number)
    lines += ["", f"last {_MINUTES} minutes: {counted or 'nothing'}"]
    return "\n".join(lines)
