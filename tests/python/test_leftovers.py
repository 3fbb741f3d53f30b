"""What looks for keys without an owner after each test finds them: each kind of key, left as it must not be."""

import json
from collections.abc import Callable

import pytest
from helpers import leftovers

from ardiq import Ardiq, _core
from ardiq.embedded import Server

LEFT = [
    (("HSET", "task:a", "state", "queued", "lane", "default"), "is queued nowhere"),
    (("HSET", "task:a", "state", "running", "worker", "w"), "no worker holds it"),
    (("HSET", "task:a", "state", "held", "pause", "send()"), "no pause holds it"),
    (("HSET", "task:a", "state", "scheduled"), "is not scheduled"),
    (("HSET", "task:a", "state", "failed"), "is no dead letter"),
    (("HSET", "task:a", "state", "complete"), "has no time to live"),
    (("HSET", "task:a", "name", "x"), "has no state"),
    (("RPUSH", "ready:default", "a"), "a is nothing"),
    (("SADD", "tombstones:default", "a"), "marks no entry"),
    (("RPUSH", "wake:default", "1"), "there is no work to wake anybody for"),
    (("HSET", "task:a", "state", "limited", "lane", "default", "buckets", "one"), "is in no line"),
    (("RPUSH", "line:default:one", "a"), "never has its turn"),
    (("ZADD", "ring:default", "1", "one"), "one is empty"),
    (("ZADD", "blocked:default:one", "1", "one"), "one is empty"),
    (("HSET", "blocked_lanes", "one", '["default"]'), "nothing waits for one in default"),
    (("HSET", "turns", "default", "1 0"), "default has no lines"),
    (("HSET", "limited", "default", "1"), "default has no lines"),
    (("HSET", "busy", "one", "1"), "nothing runs"),
    (("ZADD", "opens", "1", "one"), "nothing waits for one"),
    (("ZADD", "scheduled", "1", "a"), "a is nothing"),
    (("HSET", "running:w", "a", "1"), "its worker is gone"),
    (("ZADD", "held:send()", "1", "a"), "its pause has ended"),
    (("HSET", "pauses", "send()", "{}"), "no claim looks at it"),
    (("ZADD", "quarantined", "1", "a"), "a is nothing"),
    (("ZADD", "workers", "1", "w"), "w is nothing"),
    (("ZADD", "loads", "1", "w"), "w is nothing"),
    (("ZADD", "idle:default", "1", "w"), "w is nothing"),
    (("HSET", "worker:w", "info", "{}"), "its worker is gone"),
    (("SADD", "aborts:w", "a"), "its worker is gone"),
    (("RPUSH", "mailbox:m", "x"), "has no time to live"),
    (("SADD", "waiters:a", "m"), "has no time to live"),
    (("RPUSH", "log:a", "x"), "has no time to live"),
    (("RPUSH", "stream:a", "x"), "has no time to live"),
    (("RPUSH", "audit", "x"), "has no time to live"),
    (("ZADD", "dead", "1", "a"), "a is nothing"),
    (("HSET", "schedules", "s", "{}"), "s is half a schedule"),
    (("ZADD", "schedule_due", "1", "s"), "s is half a schedule"),
    (("HSET", "stats:1", "enqueued", "1"), "has no time to live"),
    (("HSET", "task_stats:1", "a", "[1]"), "has no time to live"),
    (("ZADD", "unknown_tasks", "1", "work"), "has no time to live"),
    (("HSET", "unique", "key", "a"), "a has ended"),
    (("SET", "window:key", "a"), "has no time to live"),
    (("SET", "slowed:partner", "0.5 1"), "has no time to live"),
    (("SET", "saving:partner", "1 2"), "has no time to live"),
    (("SET", "replicated", ""), "has no time to live"),
    (("ZADD", "workflows", "1", "w"), "w is nothing"),
    (("ZADD", "deadlines", "1", "w"), "w is nothing"),
    (("SADD", "open:w", "a"), "its group is gone"),
    (("RPUSH", "nodes:w", "a"), "has no time to live"),
    (("RPUSH", "items:w~m", " [1]"), "its map has ended"),
    (("HSET", "results:w~m", "0", " 1"), "has no time to live"),
    (("SADD", "failed:w", "a"), "has no time to live"),
    (("RPUSH", "undo:w", "a"), "its workflow has ended"),
    (("HSET", "steps:a", "charge", "step  1"), "its task has ended"),
    (("HSET", "signals:a", "1 x approval", " true"), "its task has ended"),
    (("SET", "other", "1"), "is of no kind that the protocol names"),
]


@pytest.mark.parametrize(("command", "why"), LEFT, ids=[" ".join(command[:2]) for command, _ in LEFT])
def test_it_is_found_and_deleted(command: tuple[str, ...], why: str, app: Ardiq, server: Server) -> None:
    core, base = app.context.server.core, app.context.server.base
    verb, key, *rest = command
    core.command([verb, base + key, *rest])
    assert leftovers(server, base, for_ever=False) == [f"{base}{key} {why}"]
    assert leftovers(server, base, for_ever=False) == []


def test_no_kind_of_key_is_forgotten() -> None:
    kinds = json.loads(_core.PROTOCOL)["keys"]
    looked_at = {command[1].partition(":")[0] for command, _ in LEFT} | {"stats_minute"}
    # Limits stay until somebody removes them, rates until others are added, chores and outbox until a heartbeat comes.
    kept = {"limits", "overrides", "rates", "chores", "outbox"}
    assert {name for name, key in kinds.items() if key["owner"] != "queue"} - kept <= looked_at


def test_what_is_kept_for_ever_is_no_leftover(make_app: Callable[..., Ardiq], server: Server) -> None:
    app = make_app(result_ttl_ms=-1)
    base = app.context.server.base
    app.context.server.core.command(["HSET", f"{base}task:a", "state", "complete"])
    assert leftovers(server, base, for_ever=True) == []
