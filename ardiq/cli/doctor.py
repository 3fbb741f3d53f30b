"""Check the server and the queue of an app, and say what to do about each finding.

Of a cluster, every primary is checked, the one that holds the queue first; with Sentinels, the primary they name.

Exit code 1 when something is wrong. The keys of a large queue are looked at for a third of a second; `--all` checks
every one, as `ardiq fsck` does. `--repair` does so and mends what is out of place, while workers go on.
"""

import argparse
import json
import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from .._server import commands
from ..errors import ArdiqError, BrokerError, LibraryError
from ..pauses import Pause
from . import _repair, no_such_queue, open_app
from ._arguments import app_argument, json_argument
from ._output import Styled, age, many, moment, print_json, show
from .fsck import Check as Pass
from .fsck import Elsewhere, describe

if TYPE_CHECKING:
    from ..app import Ardiq
    from ..inspection import LimitInfo, WorkerInfo

_MOST_SKEW_MS = 2_000
_LISTPACK_BYTES = 512
_OVERDUE_MS = 10_000
_CLOSED_MS = 3_600_000
_NEARLY_FULL = 0.9
_LOOK_S = 0.3
_MOST_SHOWN = 20
_AWAY = "check redis_url and ARDIQ_REDIS_URL, and whether the server is running and reachable"
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "mended": "cyan"}


class Check(NamedTuple):
    """What was looked at: `status` is "ok", "warn" (could be better), "fail" or "mended"; `remedy`: what to do.

    `at`: which primary of a cluster; empty where there is one server, or for what concerns the queue or all of them.
    """

    status: str
    name: str
    detail: str
    remedy: str = ""
    at: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="check every key, however long it takes")
    which.add_argument("--repair", action="store_true", help="check every key, and repair what is out of place")
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments, may_be_new=True)
    words = [
        word for name in ("queue", "prefix") if (value := getattr(arguments, name)) for word in (f"--{name}", value)
    ]
    checks = list(examine(app, float("inf") if arguments.all else _LOOK_S, arguments.repair, words))
    is_well = not any(check.status == "fail" for check in checks)
    if arguments.json:
        print_json({"ok": is_well, "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            name = f"{check.name} at {check.at}" if check.at else check.name
            show(Styled(f"{check.status:8}{name}: {check.detail}", _STYLES[check.status]))
            if check.remedy:
                show(f"{'':10}{check.remedy}")
    return 0 if is_well else 1


def examine(app: "Ardiq", look_s: float = _LOOK_S, repair: bool = False, words: Sequence[str] = ()) -> Iterator[Check]:
    """Every check of the app's server and queue; its keys are looked at for `look_s` seconds, or mended.

    `words`: what names the queue on the command line, besides the app.
    """
    core = app.context.server.core
    try:
        nodes = core.primaries()
        if not nodes:
            yield from _server(core)
    except BrokerError as error:
        yield Check("fail", "server", str(error), _AWAY)
        return
    away = yield from _primaries(nodes)
    try:
        yield from _library(core, len(nodes), away)
        before = time.time()
        server_ms = commands.now_ms(core)
        yield _clock(int(server_ms - (before + time.time()) * 500))
        yield from _replicas(core, app.durability == "replicated", bool(nodes))
        if missing := no_such_queue(app):
            remedy = "start a worker or enqueue a task; or check queue_name, --queue and --prefix: `ardiq queues` lists"
            yield Check("fail", "queue", missing, f"{remedy} all queues")
            return
        yield from _queue(app, words)
        yield from _mended(app) if repair else _keys(app, look_s)
    except BrokerError as error:
        yield Check("fail", "queue", str(error), _AWAY)
    except ArdiqError as error:
        yield Check("fail", "queue", str(error), "`ardiq fsck` names every damaged key")


def _primaries(nodes: list[tuple[str, bool, _core.Core]]) -> Generator[Check, None, int]:
    """What there is to say of each primary of a cluster; how many cannot be reached."""
    away = 0
    for at, holds_queue, node in nodes:
        try:
            for finding in _server(node, holds_queue):
                yield finding._replace(at=at)
        except BrokerError as error:
            away += 1
            yield Check("fail", "server", str(error), _AWAY, at)
        finally:
            node.close()
    return away


def _server(core: _core.Core, holds_queue: bool = False) -> Iterator[Check]:
    found, at = core.server()
    if "+sentinel://" in core.url:
        found += f" at {at}, the primary that the Sentinels name"
    elif holds_queue:
        found += ", holds the queue"
    yield Check("ok", "server", found)
    yield from _memory(core)
    yield from _persistence(core)


def _library(core: _core.Core, primaries: int, away: int) -> Iterator[Check]:
    if away:
        yield Check(
            "warn", "library", "not checked while a primary cannot be reached", "run `ardiq migrate` when it is back"
        )
        return
    try:
        state = core.migrate_status()
    except LibraryError as error:
        yield Check("fail", "library", str(error))
        return
    if state["dirty"]:
        yield Check("fail", "library", f"a migration was interrupted: {state['dirty']}", "run `ardiq migrate`")
    elif state["pending"]:
        yield Check("warn", "library", "; ".join(state["pending"]), "run `ardiq migrate`, or leave it to a worker")
    else:
        yield Check("ok", "library", f"up to date on {primaries} primaries" if primaries > 1 else "up to date")


def _replicas(core: _core.Core, wanted: bool, is_cluster: bool) -> Iterator[Check]:
    info = commands.info(core, "replication")
    online = sum(name.startswith("slave") and "state=online" in value for name, value in info.items())
    if online:
        yield Check("ok", "replicas", f"{many(online, 'is', 'are')} connected")
    elif wanted and not info:
        remedy = 'make sure that one is connected: durability="replicated" requires it'
        yield Check("warn", "replicas", "INFO is not allowed here", remedy)
    elif wanted:
        found = 'none is connected, but the app requires durability="replicated": each enqueue will fail'
        remedy = "start a replica, or see in the log of one why it is not connected; `INFO replication` shows them"
        yield Check("fail", "replicas", found, remedy)
    elif info and (is_cluster or "+sentinel://" in core.url):
        remedy = "start one: nothing replaces this primary if it fails"
        yield Check("warn", "replicas", "none is connected", remedy)


def _clock(skew_ms: int) -> Check:
    found = f"{abs(skew_ms)} ms {'ahead of' if skew_ms > 0 else 'behind'} this machine's"
    if abs(skew_ms) <= _MOST_SKEW_MS:
        return Check("ok", "clock", found)
    remedy = "due times follow the server's clock: a moment given with at= is off by that much; run NTP on both"
    return Check("warn", "clock", found, remedy)


def _memory(core: _core.Core) -> Iterator[Check]:
    told = commands.info(core, "memory")
    policy = commands.setting(core, "maxmemory-policy") or told.get("maxmemory_policy")
    most = int(commands.setting(core, "maxmemory") or told.get("maxmemory") or 0)
    if policy is None:
        found = "neither CONFIG GET nor INFO is allowed here"
        yield Check("warn", "maxmemory-policy", found, "make sure that it is noeviction")
    elif policy.startswith("allkeys"):
        found = f"{policy}: {'tasks' if most else 'at a memory limit tasks'} may be evicted"
        remedy = "set it to noeviction; workers refuse it unless you set allow_eviction=True"
        yield Check("fail", "maxmemory-policy", found, remedy)
    elif policy != "noeviction" and most:
        remedy = "set it to noeviction: results and logs may be evicted early"
        yield Check("warn", "maxmemory-policy", policy, remedy)
    else:
        yield Check("ok", "maxmemory-policy", policy)
    used = int(told.get("used_memory", 0))
    if most and used > most * _NEARLY_FULL:
        remedy = "raise maxmemory, start workers, or shorten result_ttl_ms: when it is full, nothing more is enqueued"
        yield Check("fail", "memory", f"{used / most:.0%} of maxmemory are in use", remedy)
    for name in ("hash-max-listpack-value", "hash-max-ziplist-value"):
        value = commands.setting(core, name)
        if value is not None:
            if int(value) >= _LISTPACK_BYTES:
                yield Check("ok", name, value)
            else:
                remedy = f"{_LISTPACK_BYTES} halves the memory of tasks whose arguments are longer than {value} bytes"
                yield Check("warn", name, value, remedy)
            return


def _persistence(core: _core.Core) -> Iterator[Check]:
    written = commands.info(core, "persistence")
    append, save = commands.setting(core, "appendonly"), commands.setting(core, "save")
    append = append or {"0": "no", "1": "yes"}.get(written.get("aof_enabled", ""))
    if append is None:
        found = "neither CONFIG GET nor INFO is allowed here"
        yield Check("warn", "persistence", found, "make sure that appendonly is on")
    elif append == "no" and save is None:
        yield Check("warn", "persistence", "no append-only file", "set appendonly yes: a crash loses the latest tasks")
    elif append == "yes":
        yield Check("ok", "persistence", "append-only file")
    elif save:
        remedy = "set appendonly yes: a crash loses what came after the last snapshot"
        yield Check("warn", "persistence", f"snapshots only (save {save})", remedy)
    else:
        remedy = "a restart of the server loses every task: set appendonly yes"
        yield Check("warn", "persistence", "none", remedy)
    for name in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if written.get(name, "ok") != "ok":
            remedy = "see the server's log; usually its disk is full, or it may not write there"
            yield Check("fail", "persistence", f"{name} is {written[name]}", remedy)


def _queue(app: "Ardiq", words: Sequence[str]) -> Iterator[Check]:
    inspect = app.inspect
    overview, workers = inspect.overview_sync(0), inspect.workers_sync()
    counts, now_ms = overview.counts, overview.at
    for pause in app.pauses_sync():
        yield _paused(pause, words)
    for lane in sorted(inspect.lanes_sync(workers, overview), key=lambda lane: lane.name):
        if (ready := lane.waiting + lane.limited) and not lane.workers_alive:
            found = f"{many(ready, 'task is', 'tasks are')} ready, and no live worker serves it"
            yield Check("fail", f"lane {lane.name}", found, "start a worker that has it among its priorities")
        elif lane.limited and all(
            _is_2_0(worker) for worker in workers if worker.is_alive and lane.name in worker.lanes
        ):
            found = f"{many(lane.limited, 'task waits', 'tasks wait')} for limits, and all its live workers are of 2.0"
            yield Check("fail", f"lane {lane.name}", found, "start a worker of 2.1: those of 2.0 know no limits")
    yield from _limits(app, words, now_ms)
    due_at = overview.next_due_at
    if due_at is not None and now_ms - due_at > _OVERDUE_MS:
        found = f"the next one is overdue by {age(now_ms - due_at)}"
        yield Check("fail", "scheduled tasks", found, "start a worker: workers make due tasks ready")
    for schedule in app.schedules.list_sync():
        if not schedule.paused and now_ms - schedule.next_due_at > _OVERDUE_MS:
            found = f"it is overdue by {age(now_ms - schedule.next_due_at)}"
            yield Check(
                "fail", f"schedule {schedule.name}", found, "start a worker (not with --burst): workers fire it"
            )
    for task in inspect.unknown_tasks_sync():
        seen_ms = max(0, now_ms - task.seen_at)
        found = f"a worker without this task was given it {age(seen_ms)} ago; it waits for one that has it"
        remedy = "start a worker whose code has that task; if there is none, abort the waiting tasks or see `ardiq dlq`"
        yield Check("warn", f"task {task.fn_name}", found, remedy)
    if counts.dead:
        yield Check("warn", "dead letters", f"{counts.dead:,}", "look at them with `ardiq dlq list`")
    if counts.quarantined:
        remedy = "see their attempts with `ardiq task show`; abort those that kill their worker"
        found = f"{many(counts.quarantined, 'task')}, lost with two or more workers"
        yield Check("warn", "quarantine", found, remedy)
    alive = sum(worker.is_alive for worker in workers)
    if alive:
        yield Check("ok", "workers", f"{alive} alive")
    else:
        yield Check("fail", "workers", "none is alive: no task of this queue runs", "start one with `ardiq run`")
    for worker in workers:
        if worker.stalled_ms:
            found = f"{worker.worker} (process {worker.pid}) has not run for {age(worker.stalled_ms)}"
            yield Check("fail", "event loop", found, "its log shows what blocks it; `def` tasks run on threads")
    gone = [worker.claimed for worker in workers if not worker.is_alive]
    if gone:
        found = f"{many(len(gone), 'lease')} expired; {many(sum(gone), 'task')} held under them"
        remedy = "a live worker gives them to others within a second or two" if alive else "start a worker"
        yield Check("warn" if alive or not sum(gone) else "fail", "lost workers", found, remedy)


def _is_2_0(worker: "WorkerInfo") -> bool:
    return str(worker.version).startswith("2.0.")


def _closed_ms(limit: "LimitInfo", now_ms: int) -> float:
    """For how long a limit is closed beyond what its rate alone would do."""
    rate = limit.rate
    return (limit.opens_at or 0) - now_ms - (rate.burst * rate.per_ms / rate.starts if rate else 0)


def _as_it_is(limit: "LimitInfo") -> list[str]:
    """The options of `ardiq limits put` that change nothing."""
    rate = limit.rate
    found = [] if limit.concurrency is None else ["--concurrency", str(limit.concurrency)]
    if rate is not None:
        found += ["--rate", f"{rate.starts:g}", "--per", f"{rate.per_ms}ms", "--burst", str(rate.burst)]
    return found


def _limits(app: "Ardiq", queue: Sequence[str], now_ms: int) -> Iterator[Check]:
    code = app.context.registry
    for limit in app.limits.list_sync():
        name = limit.name if limit.key is None else f"{limit.name}({limit.key})"
        remove = f"`{shlex.join(['ardiq', 'limits', 'remove', 'MODULE:ATTR', *queue, name])}`"
        is_used = limit.running or limit.waiting or not limit.exact
        is_of_code = limit.name in code.limits or limit.name.startswith("#") or not code.tasks
        if limit.concurrency == 0:
            waiting = f"; {many(limit.waiting, 'task waits', 'tasks wait')} for it" if limit.waiting else ""
            found = f"it is closed: none of its tasks start{waiting}"
            yield Check("warn", f"limit {name}", found, f"to open it: {remove}")
        elif (closed_ms := _closed_ms(limit, now_ms)) > _CLOSED_MS:
            found = f"a task closed it by RateLimited, for {age(round(closed_ms))} more: none of its tasks start"
            put = shlex.join(["ardiq", "limits", "put", "MODULE:ATTR", *queue, limit.name, *_as_it_is(limit)])
            yield Check("warn", f"limit {limit.name}", found, f"to open it now: `{put}`")
        elif limit.declared and limit.key is None and not is_used and not is_of_code:
            found = "this code does not declare it, and none of its tasks runs or waits"
            yield Check("warn", f"limit {name}", found, f"if no other program of this queue has it: {remove}")


def _paused(pause: Pause, queue: Sequence[str]) -> Check:
    verb, words = ["resume"], [] if pause.task is None else ["--task", pause.task]
    if pause.argument is not None:
        words += ["--arg", f"{pause.argument}={json.dumps(pause.value, ensure_ascii=False)}"]
    about = "queue" if not words else f"tasks of {pause.id}"
    if pause.workflow is not None:
        verb, words, about = ["workflow", "resume"], [pause.workflow], f"workflow {pause.workflow}"
    if pause.resuming:
        found, remedy = "the pause was ended, but not all tasks it held are back", "to finish that"
    else:
        held = f"; {many(pause.held, 'task is', 'tasks are')} held" if pause.held else ""
        found, remedy = f"paused since {moment(pause.paused_at)}: none of its tasks start{held}", "to end the pause"
    return Check("warn", about, found, f"{remedy}: `{shlex.join(['ardiq', *verb, 'MODULE:ATTR', *queue, *words])}`")


def _keys(app: "Ardiq", look_s: float) -> Iterator[Check]:
    check = Pass(app.context.server.core, look_s, _elsewhere(app))
    for number, row in enumerate(check.findings(), 1):
        if number > _MOST_SHOWN:
            yield Check("warn", "keys", f"more than {_MOST_SHOWN} findings", "`ardiq fsck` shows all of them")
            break
        if row.kind in _repair.MENDED_BY:
            remedy = f"`ardiq doctor --repair` {_repair.MENDED_BY[row.kind]}"
            yield Check("fail", "keys", describe(row), remedy)
        else:
            level = "warn" if row.kind in ("ghost_in_ready", "unknown_key") else "fail"
            yield Check(level, "keys", describe(row), _repair.BY_HAND[row.kind])
    if check.complete:
        yield Check("ok", "keys", f"{many(check.seen, 'entry', 'entries')} checked")
    else:
        found = f"only {many(check.seen, 'entry', 'entries')} checked in {look_s:g} s"
        yield Check("ok", "keys", f"{found}; `--all` checks every one")


def _elsewhere(app: "Ardiq") -> Elsewhere:
    return lambda queue: app.queue(queue).context.server.core


def _mended(app: "Ardiq") -> Iterator[Check]:
    count = 0
    for row, answer in _repair.mend(app.context.server.core, app.result_ttl_ms, _elsewhere(app)):
        count += answer == "mended"
        if answer == "mended":
            yield Check("mended", "keys", describe(row))
        elif answer == "by_hand":
            level = "warn" if row.kind in ("ghost_in_ready", "unknown_key") else "fail"
            remedy = _repair.BY_HAND.get(row.kind, "a key of the wrong type is in the way: `ardiq fsck` names it")
            yield Check(level, "keys", describe(row), remedy)
    yield Check("ok", "keys", f"{count:,} mended" if count else "nothing to repair")
