"""Check the server and the queue of an app, and say what to do about it. Exit code 1 when something is wrong."""

import argparse
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from ..errors import ArdiqError, BrokerError
from . import app_argument, json_argument, load_app, status

if TYPE_CHECKING:
    from ..app import Ardiq

_MOST_SKEW_MS = 2_000
_LISTPACK_BYTES = 512


class Finding(NamedTuple):
    """`level`: "ok", "note" (could be better) or "problem"; `remedy`: what to do, empty for ok."""

    level: str
    about: str
    found: str
    remedy: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    findings = list(examine(load_app(arguments.app)))
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.level:8}{finding.about}: {finding.found}")
            if finding.remedy:
                print(f"{'':8}  {finding.remedy}")
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def examine(app: "Ardiq") -> Iterator[Finding]:
    """Every check of the app's server and queue."""
    core = app._broker.core
    try:
        before = time.time()
        server_ms = status.server_now_ms(core)
    except BrokerError as error:
        remedy = "check redis_url and ARDIQ_REDIS_URL, whether the server runs, and who may reach it"
        yield Finding("problem", "server", str(error), remedy)
        return
    skew_ms = int(server_ms - (before + time.time()) * 500)
    yield from _library(core)
    yield _clock(skew_ms)
    yield from _memory(core)
    yield _persistence(core)
    try:
        yield from _lanes(core, f"{app.prefix}:{{{app.queue_name}}}:")
    except ArdiqError as error:
        yield Finding("problem", "queue", str(error), "`ardiq fsck` names every damaged key")


def _library(core: _core.Core) -> Iterator[Finding]:
    state = core.migrate_status()
    yield Finding("ok", "server", state["server"])
    if state["dirty"]:
        yield Finding("problem", "library", f"a migration was interrupted: {state['dirty']}", "run `ardiq migrate`")
    elif state["pending"]:
        yield Finding("note", "library", "; ".join(state["pending"]), "run `ardiq migrate`, or leave it to a worker")
    else:
        yield Finding("ok", "library", "up to date")


def _clock(skew_ms: int) -> Finding:
    found = f"{abs(skew_ms)} ms {'ahead of' if skew_ms > 0 else 'behind'} this machine's"
    if abs(skew_ms) <= _MOST_SKEW_MS:
        return Finding("ok", "clock", found)
    remedy = "due times follow the server's clock: a moment given with at= comes that much off; run NTP on both"
    return Finding("note", "clock", found, remedy)


def _memory(core: _core.Core) -> Iterator[Finding]:
    policy = _setting(core, "maxmemory-policy")
    if policy is None:
        yield Finding("note", "maxmemory-policy", "CONFIG GET is not allowed here", "make sure that it is noeviction")
    elif policy.startswith("allkeys") and _setting(core, "maxmemory") not in (None, "0"):
        yield Finding("problem", "maxmemory-policy", f"{policy}: tasks may be thrown away", "set it to noeviction")
    else:
        yield Finding("ok", "maxmemory-policy", policy)
    for name in ("hash-max-listpack-value", "hash-max-ziplist-value"):
        value = _setting(core, name)
        if value is not None:
            if int(value) >= _LISTPACK_BYTES:
                yield Finding("ok", name, value)
            else:
                remedy = f"{_LISTPACK_BYTES} halves the memory of tasks whose arguments are longer than {value} bytes"
                yield Finding("note", name, value, remedy)
            return


def _persistence(core: _core.Core) -> Finding:
    append, save = _setting(core, "appendonly"), _setting(core, "save")
    if append is None:
        return Finding("note", "persistence", "CONFIG GET is not allowed here", "make sure that appendonly is on")
    if append == "yes":
        return Finding("ok", "persistence", "append-only file")
    if save:
        return Finding(
            "note",
            "persistence",
            f"snapshots only (save {save})",
            "set appendonly yes: a crash loses what came after the last",
        )
    return Finding("note", "persistence", "none", "a restart of the server loses every task: set appendonly yes")


def _lanes(core: _core.Core, base: str) -> Iterator[Finding]:
    queue = status.read(core, base)
    for lane in queue["lanes"]:
        if lane["ready"] and not lane["workers"]:
            found = f"{lane['ready']:,} tasks are ready, and no live worker serves it"
            yield Finding("problem", f"lane {lane['name']}", found, "start a worker that has it among its priorities")
    if queue["dead"]:
        yield Finding("note", "dead letters", f"{queue['dead']:,}", "look at them with `ardiq dlq list`")
    alive = sum(worker["lease_left_ms"] > 0 for worker in queue["workers"])
    yield Finding("ok", "workers", f"{alive} alive")


def _setting(core: _core.Core, name: str) -> str | None:
    try:
        answer = core.command(["CONFIG", "GET", name])
    except ArdiqError:
        return None  # not allowed, as with many hosted servers
    return answer[1].decode() if answer else None
