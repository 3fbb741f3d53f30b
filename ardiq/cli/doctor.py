"""Check the server and the queue of an app, and say what to do about each finding.

Of a cluster, every primary is checked, the one that holds the queue first; with Sentinels, the primary they name.

Exit code 1 when something is wrong. The keys of a large queue are looked at for a third of a second; `--all` looks at
every one, as `ardiq fsck` does. `--repair` does so and mends what is out of place, while workers go on.
"""

import argparse
import json
import shlex
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from ..errors import ArdiqError, BrokerError, LibraryError
from ..pauses import Pause, read_pauses
from . import _repair, load_app
from ._arguments import app_argument, json_argument
from ._output import Styled, age, many, moment, print_json, show
from ._state import State, server_now_ms
from .fsck import Check, describe

if TYPE_CHECKING:
    from ..app import Ardiq

_MOST_SKEW_MS = 2_000
_LISTPACK_BYTES = 512
_OVERDUE_MS = 10_000
_NEARLY_FULL = 0.9
_LOOK_S = 0.3
_MOST_SHOWN = 20
_AWAY = "check redis_url and ARDIQ_REDIS_URL, whether the server runs, and who may reach it"
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "mended": "cyan"}


class Finding(NamedTuple):
    """`level`: "ok", "note" (could be better), "problem" or "mended"; `remedy`: what to do, empty for ok.

    `at`: which primary of a cluster; empty where there is one server, or for what concerns the queue or all of them.
    """

    level: str
    about: str
    found: str
    remedy: str = ""
    at: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="look at every key, however long it takes")
    which.add_argument("--repair", action="store_true", help="likewise, and mend what is out of place")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = load_app(arguments.app, arguments.queue)
    findings = list(examine(app, look_s=float("inf") if arguments.all else _LOOK_S, repair=arguments.repair))
    if arguments.json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            about = f"{finding.about} at {finding.at}" if finding.at else finding.about
            show(Styled(f"{finding.level:8}{about}: {finding.found}", _STYLES[finding.level]))
            if finding.remedy:
                show(f"{'':10}{finding.remedy}")
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def examine(app: "Ardiq", look_s: float = _LOOK_S, repair: bool = False) -> Iterator[Finding]:
    """Every check of the app's server and queue; its keys are looked at for `look_s` seconds, or mended."""
    core = app._broker.core
    try:
        nodes = core.primaries()
        if not nodes:
            yield from _server(core)
    except BrokerError as error:
        yield Finding("problem", "server", str(error), _AWAY)
        return
    away = yield from _primaries(nodes)
    try:
        yield from _library(core, len(nodes), away)
        before = time.time()
        server_ms = server_now_ms(core)
        yield _clock(int(server_ms - (before + time.time()) * 500))
        yield from _replicas(core, app.durability == "replicated", bool(nodes))
        yield from _queue(State(app), [] if app is app._root else ["--queue", app.queue_name])
        yield from _mended(core, app.result_ttl_ms) if repair else _keys(core, look_s)
    except BrokerError as error:
        yield Finding("problem", "queue", str(error), _AWAY)
    except ArdiqError as error:
        yield Finding("problem", "queue", str(error), "`ardiq fsck` names every damaged key")


def _primaries(nodes: list[tuple[str, bool, _core.Core]]) -> Generator[Finding, None, int]:
    """What there is to say of each primary of a cluster; how many cannot be reached."""
    away = 0
    for at, holds_queue, node in nodes:
        try:
            for finding in _server(node, holds_queue):
                yield finding._replace(at=at)
        except BrokerError as error:
            away += 1
            yield Finding("problem", "server", str(error), _AWAY, at)
        finally:
            node.close()
    return away


def _server(core: _core.Core, holds_queue: bool = False) -> Iterator[Finding]:
    found, at = core.server()
    if "+sentinel://" in core.url:
        found += f" at {at}, the primary that the Sentinels name"
    elif holds_queue:
        found += ", holds the queue"
    yield Finding("ok", "server", found)
    yield from _memory(core)
    yield from _persistence(core)


def _library(core: _core.Core, primaries: int, away: int) -> Iterator[Finding]:
    if away:
        yield Finding("note", "library", "not looked at while a primary is away", "run `ardiq migrate` when it is back")
        return
    try:
        state = core.migrate_status()
    except LibraryError as error:
        yield Finding("problem", "library", str(error))
        return
    if state["dirty"]:
        yield Finding("problem", "library", f"a migration was interrupted: {state['dirty']}", "run `ardiq migrate`")
    elif state["pending"]:
        yield Finding("note", "library", "; ".join(state["pending"]), "run `ardiq migrate`, or leave it to a worker")
    else:
        yield Finding("ok", "library", f"up to date on {primaries} primaries" if primaries > 1 else "up to date")


def _replicas(core: _core.Core, wanted: bool, is_cluster: bool) -> Iterator[Finding]:
    info = _info(core, "replication")
    online = sum(name.startswith("slave") and "state=online" in value for name, value in info.items())
    if online:
        yield Finding("ok", "replicas", f"{many(online, 'is', 'are')} connected")
    elif wanted and not info:
        remedy = 'make sure that one is connected: durability="replicated" wants it'
        yield Finding("note", "replicas", "INFO is not allowed here", remedy)
    elif wanted:
        found = 'none is connected, and the app wants durability="replicated": each enqueue will fail'
        remedy = "start a replica, or see in the log of one why it is not connected; `INFO replication` shows them"
        yield Finding("problem", "replicas", found, remedy)
    elif info and (is_cluster or "+sentinel://" in core.url):
        remedy = "start one: nothing takes the place of this primary when it fails"
        yield Finding("note", "replicas", "none is connected", remedy)


def _clock(skew_ms: int) -> Finding:
    found = f"{abs(skew_ms)} ms {'ahead of' if skew_ms > 0 else 'behind'} this machine's"
    if abs(skew_ms) <= _MOST_SKEW_MS:
        return Finding("ok", "clock", found)
    remedy = "due times follow the server's clock: a moment given with at= comes that much off; run NTP on both"
    return Finding("note", "clock", found, remedy)


def _memory(core: _core.Core) -> Iterator[Finding]:
    policy, most = _setting(core, "maxmemory-policy"), int(_setting(core, "maxmemory") or 0)
    if policy is None:
        yield Finding("note", "maxmemory-policy", "CONFIG GET is not allowed here", "make sure that it is noeviction")
    elif policy.startswith("allkeys") and most:
        yield Finding("problem", "maxmemory-policy", f"{policy}: tasks may be thrown away", "set it to noeviction")
    elif policy != "noeviction" and most:
        remedy = "set it to noeviction: results and logs may be thrown away before their time"
        yield Finding("note", "maxmemory-policy", policy, remedy)
    else:
        yield Finding("ok", "maxmemory-policy", policy)
    used = int(_info(core, "memory").get("used_memory", 0))
    if most and used > most * _NEARLY_FULL:
        remedy = "raise maxmemory, start workers, or shorten result_ttl_ms: when it is full, nothing more is enqueued"
        yield Finding("problem", "memory", f"{used / most:.0%} of maxmemory are in use", remedy)
    for name in ("hash-max-listpack-value", "hash-max-ziplist-value"):
        value = _setting(core, name)
        if value is not None:
            if int(value) >= _LISTPACK_BYTES:
                yield Finding("ok", name, value)
            else:
                remedy = f"{_LISTPACK_BYTES} halves the memory of tasks whose arguments are longer than {value} bytes"
                yield Finding("note", name, value, remedy)
            return


def _persistence(core: _core.Core) -> Iterator[Finding]:
    append, save = _setting(core, "appendonly"), _setting(core, "save")
    if append is None:
        yield Finding("note", "persistence", "CONFIG GET is not allowed here", "make sure that appendonly is on")
    elif append == "yes":
        yield Finding("ok", "persistence", "append-only file")
    elif save:
        remedy = "set appendonly yes: a crash loses what came after the last"
        yield Finding("note", "persistence", f"snapshots only (save {save})", remedy)
    else:
        remedy = "a restart of the server loses every task: set appendonly yes"
        yield Finding("note", "persistence", "none", remedy)
    written = _info(core, "persistence")
    for name in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if written.get(name, "ok") != "ok":
            remedy = "see the server's log; most often its disk is full or it may not write there"
            yield Finding("problem", "persistence", f"{name} is {written[name]}", remedy)


def _queue(state: State, words: list[str]) -> Iterator[Finding]:
    counts, workers = state.counts(), state.workers()
    for pause in read_pauses(state.core.call("pauses", [])):
        yield _paused(pause, words)
    for lane in state.lanes(counts, workers):
        if lane["ready"] and not lane["workers"]:
            found = f"{many(lane['ready'], 'task is', 'tasks are')} ready, and no live worker serves it"
            yield Finding("problem", f"lane {lane['name']}", found, "start a worker that has it among its priorities")
    due_ms = state.next_due_ms()
    if due_ms is not None and due_ms < -_OVERDUE_MS:
        found = f"the next one is overdue by {age(-due_ms)}"
        yield Finding("problem", "scheduled tasks", found, "start a worker: workers make due tasks ready")
    if counts["dead"]:
        yield Finding("note", "dead letters", f"{counts['dead']:,}", "look at them with `ardiq dlq list`")
    if counts["suspects"]:
        remedy = "see their attempts with `ardiq task show`; abort those that you know to be guilty"
        yield Finding("note", "suspects", f"{many(counts['suspects'], 'task')}, lost with two or more workers", remedy)
    alive = sum(worker["lease_left_ms"] > 0 for worker in workers)
    yield Finding("ok", "workers", f"{alive} alive")
    for worker in workers:
        if worker["stalled_ms"]:
            found = f"{worker['identity']} (process {worker['pid']}) has not turned for {age(worker['stalled_ms'])}"
            yield Finding("problem", "event loop", found, "its log tells what holds it; `def` tasks run on threads")
    gone = [worker["held"] for worker in workers if not worker["lease_left_ms"]]
    if gone:
        found = f"{many(len(gone), 'lease')} ran out; {many(sum(gone), 'task lies', 'tasks lie')} with them"
        remedy = "a live worker gives them to others within a second or two" if alive else "start a worker"
        yield Finding("note" if alive or not sum(gone) else "problem", "lost workers", found, remedy)


def _paused(pause: Pause, queue: list[str]) -> Finding:
    words = [] if pause.task is None else ["--task", pause.task]
    if pause.argument is not None:
        words += ["--arg", f"{pause.argument}={json.dumps(pause.value, ensure_ascii=False)}"]
    about = "queue" if not words else f"tasks of {pause.id}"
    if pause.resuming:
        found, remedy = "the pause was ended, and what it held is not all back", "to finish that"
    else:
        held = f"; {many(pause.held, 'task is', 'tasks are')} held" if pause.held else ""
        found, remedy = f"paused since {moment(pause.paused_at)}: none of it starts{held}", "to let it go on"
    return Finding(
        "note", about, found, f"{remedy}: `{shlex.join(['ardiq', 'resume', 'MODULE:ATTR', *queue, *words])}`"
    )


def _keys(core: _core.Core, look_s: float) -> Iterator[Finding]:
    check = Check(core, look_s)
    for number, row in enumerate(check.findings(), 1):
        if number > _MOST_SHOWN:
            yield Finding("note", "keys", f"more than {_MOST_SHOWN} findings", "`ardiq fsck` shows all of them")
            break
        if row.kind in _repair.MENDED_BY:
            remedy = f"`ardiq doctor --repair` {_repair.MENDED_BY[row.kind]}"
            yield Finding("problem", "keys", describe(row), remedy)
        else:
            level = "note" if row.kind in ("ghost_in_ready", "unknown_key") else "problem"
            yield Finding(level, "keys", describe(row), _repair.BY_HAND[row.kind])
    if check.complete:
        yield Finding("ok", "keys", f"{many(check.seen, 'entry', 'entries')} looked at")
    else:
        found = f"only {many(check.seen, 'entry', 'entries')} looked at in {look_s:g} s"
        yield Finding("ok", "keys", f"{found}; `--all` looks at every one")


def _mended(core: _core.Core, result_ttl_ms: int) -> Iterator[Finding]:
    count = 0
    for row, answer in _repair.mend(core, result_ttl_ms):
        count += answer == "mended"
        if answer == "mended":
            yield Finding("mended", "keys", describe(row))
        elif answer == "by_hand":
            level = "note" if row.kind in ("ghost_in_ready", "unknown_key") else "problem"
            remedy = _repair.BY_HAND.get(row.kind, "a key of the wrong type is in its way: `ardiq fsck` names it")
            yield Finding(level, "keys", describe(row), remedy)
    yield Finding("ok", "keys", f"{count:,} mended" if count else "nothing to mend")


def _setting(core: _core.Core, name: str) -> str | None:
    try:
        answer = core.command(["CONFIG", "GET", name])
    except ArdiqError:
        return None  # not allowed, as with many hosted servers
    return answer[1].decode() if answer else None


def _info(core: _core.Core, section: str) -> dict[str, str]:
    try:
        answer = core.command(["INFO", section])
    except ArdiqError:
        return {}
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}
