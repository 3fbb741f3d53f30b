"""`ardiq fsck`: says nothing about a sound queue, however busy, and names each thing that is wrong."""

import os
import threading
from collections.abc import Iterator

import pytest

from ardiq import _core
from ardiq.cli import fsck, main
from ardiq.embedded import Server

BASE = "ardiq:{default}:"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server


@pytest.fixture
def core(server: Server) -> Iterator[_core.Core]:
    core = _core.Core(server.url, BASE)
    join(core, "w")
    yield core
    core.close()


def join(core: _core.Core, worker: str) -> None:
    core.call("join", [worker, 60_000, "{}", '["default"]', 1])


def enqueue(core: _core.Core, *names: str, options: str = "") -> None:
    for first in range(0, len(names), 500):
        page = names[first : first + 500]
        core.call("enqueue", [part for name in page for part in (name, "noop", "default", "[]", "", options)])


def claim(core: _core.Core, count: int, worker: str = "w") -> list[tuple[str, str]]:
    """Claim tasks; their ids and tokens."""
    reply = core.call("claim", [worker, '["default"]', count, 60_000])
    return [(reply[at].decode(), str(int(reply[at + 1]))) for at in range(1, len(reply), 10)]


def populate(core: _core.Core) -> None:
    """Tasks in every place: scheduled, queued, running, complete, failed, aborted, and one that is retried."""
    enqueue(core, *(f"queued-{number}" for number in range(1500)))
    enqueue(core, "later", options='{"delay_ms": 3600000}')
    enqueue(core, "never", options='{"expire_ms": 3600000}')
    (done, token), (dead, dead_token), (again, again_token), _ = claim(core, 4)
    core.call("complete", ["w", done, token, 1, "null", "", 60_000])
    core.call("fail", ["w", dead, dead_token, 1, "ValueError", "", 60_000])
    core.call("retry", ["w", again, again_token, 1, 60_000, 0, "ValueError", "", 60_000])
    core.call("abort", ["queued-1000", 60_000])
    limited(core, 3)
    options = ("", '{"after": ["a"]}')
    nodes = [
        part for name, each in zip("ab", options, strict=True) for part in (name, "noop", "default", "[]", "", each)
    ]
    core.call("workflow_create", ["wf", '{"result_ttl_ms": 60000}', *nodes])


def limited(core: _core.Core, count: int) -> None:
    """Tasks in a line."""
    core.call("limits_declare", ["partner", '{"concurrency": 1}'])
    enqueue(core, *(f"limited-{number}" for number in range(count)), options='{"limits": [{"name": "partner"}]}')


def check(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["fsck", server.url, "--queue", "default", *words])
    return code, capsys.readouterr().out


def test_a_sound_queue_is_clean(server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]) -> None:
    populate(core)
    code, output = check(server, capsys)
    assert code == 0
    assert output.splitlines()[-1] == "clean"


def test_an_empty_server_is_clean(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fsck", server.url]) == 0
    assert capsys.readouterr().out == "clean\n"


@pytest.mark.parametrize(
    "place", ["scheduled", "quarantined", "dead", "workers", "loads", "ready:default", "tombstones:default", "lanes"]
)
def test_a_place_of_the_wrong_type_does_not_hide_the_rest(
    server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    populate(core)
    core.command(["DEL", f"{BASE}{place}"])
    core.command(["SET", f"{BASE}{place}", "mine"])
    core.command(["HSET", f"{BASE}running:gone", "x", "1"])
    code, output = check(server, capsys)
    assert code == 1
    assert f"default: {place}: {fsck.FINDINGS['wrong_type']} (string)" in output
    assert f"default: running:gone: {fsck.FINDINGS['no_such_worker']}" in output


@pytest.mark.parametrize(
    ("damage", "kind", "identity"),
    [
        (["LREM", f"{BASE}ready:default", "1", "queued-700"], "not_in_ready", "queued-700"),
        (["DEL", f"{BASE}task:queued-700"], "ghost_in_ready", "queued-700"),
        (["RPUSH", f"{BASE}ready:default", "later"], "ghost_in_ready", "later"),
        (["SADD", f"{BASE}tombstones:default", "queued-700"], "ghost_in_tombstones", "queued-700"),
        (["ZREM", f"{BASE}scheduled", "later"], "not_in_scheduled", "later"),
        (["ZADD", f"{BASE}scheduled", "1", "queued-700"], "ghost_in_scheduled", "queued-700"),
        (["ZADD", f"{BASE}schedule_due", "1", "nightly"], "ghost_in_schedule_due", "nightly"),
        (["HSET", f"{BASE}schedules", "nightly", "{}"], "not_in_schedule_due", "nightly"),
        (["HDEL", f"{BASE}running:w", "queued-3"], "not_in_running", "queued-3"),
        (["HSET", f"{BASE}running:w", "queued-700", "1"], "ghost_in_running", "queued-700"),
        (["ZREM", f"{BASE}dead", "queued-1"], "not_in_dead", "queued-1"),
        (["ZADD", f"{BASE}dead", "1", "queued-700"], "ghost_in_dead", "queued-700"),
        (["ZADD", f"{BASE}quarantined", "1", "queued-700"], "ghost_in_quarantined", "queued-700"),
        (["HSET", f"{BASE}task:queued-700", "lost", "2"], "not_in_quarantined", "queued-700"),
        (["HSET", f"{BASE}task:queued-700", "state", "lost"], "unknown_state", "queued-700"),
        (["HSET", f"{BASE}running:gone", "x", "1"], "no_such_worker", "running:gone"),
        (["DEL", f"{BASE}worker:w"], "no_row", "w"),
        (["ZADD", f"{BASE}loads", "7", "w"], "wrong_load", "w"),
        (["ZADD", f"{BASE}loads", "0", "gone"], "wrong_load", "gone"),
        (["SET", f"{BASE}mine", "1"], "unknown_key", "mine"),
        (["SET", f"{BASE}task:mine", "1"], "wrong_type", "task:mine"),
        (["SADD", f"{BASE}waiters:later", "m"], "no_ttl", "waiters:later"),
        (["LREM", f"{BASE}line:default:partner", "1", "limited-1"], "not_in_line", "limited-1"),
        (["ZREM", f"{BASE}ring:default", "partner"], "not_in_turn", "line:default:partner"),
        (["HSET", f"{BASE}busy", "partner", "7"], "wrong_busy", "partner"),
        (["HSET", f"{BASE}stats:1", "enqueued", "1"], "no_ttl", "stats:1"),
        (["ZREM", f"{BASE}workflows", "wf"], "not_in_workflows", "wf"),
        (["SREM", f"{BASE}open:wf", "b"], "not_open", "wf~b"),
        (["HSET", f"{BASE}task:wf~b", "state", "complete"], "open_but_ended", "wf~b"),
        (["DEL", f"{BASE}task:wf"], "no_such_group", "open:wf"),
    ],
)
def test_damage_is_found(
    server: Server,
    core: _core.Core,
    capsys: pytest.CaptureFixture[str],
    damage: list[str],
    kind: str,
    identity: str,
) -> None:
    populate(core)
    core.command(damage)
    code, output = check(server, capsys)
    assert code == 1
    assert f"default: {identity}: {fsck.FINDINGS[kind]}" in output


def test_a_long_line_is_searched(server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]) -> None:
    """Longer than what one call looks at from either end."""
    limited(core, 11_000)
    assert check(server, capsys)[0] == 0
    core.command(["LREM", f"{BASE}line:default:partner", "1", "limited-5500"])
    code, output = check(server, capsys)
    assert code == 1
    assert [line for line in output.splitlines() if "limited-" in line] == [
        f"default: limited-5500: {fsck.FINDINGS['not_in_line']} (default:partner)"
    ]


def test_a_queue_that_moves_meanwhile_is_clean(
    server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()

    def move() -> None:
        other = _core.Core(server.url, BASE)
        join(other, "x")
        number = 0
        while not stop.is_set():
            enqueue(other, *(f"moving-{number + at}" for at in range(50)))
            number += 50
            claims = claim(other, 40, "x")
            for at, (identity, token) in enumerate(claims):
                if at % 4 == 0:
                    other.call("release", ["x", identity, token, 1000])
                elif at % 4 == 1:
                    other.call("retry", ["x", identity, token, 1, 0, 0, "again", "", 1000])
                else:
                    other.call("complete", ["x", identity, token, 1, "null", "", 1000])
        other.close()

    populate(core)
    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(10):
            code, output = check(server, capsys)
            assert code == 0, output
    finally:
        stop.set()
        mover.join()


def test_every_known_queue_of_a_server(server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]) -> None:
    core.command(["SADD", "ardiq:queues", "default", "other"])
    core.command(["SET", "ardiq:{other}:junk", "1"])
    assert main(["fsck", server.url]) == 1
    output = capsys.readouterr().out
    assert "other: junk: a key that Ardiq does not know" in output
    assert "default: 0" not in output


def test_queues_of_every_prefix(server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]) -> None:
    populate(core)
    for base in ("shop:{mine}:", "shop:{yours}:"):
        other = _core.Core(server.url, base)
        other.call("enqueue", ["one", "work", "default", "[]", "", ""])
        other.command(["DEL", f"{base}ready:default"])
        other.close()
    assert main(["fsck", server.url]) == 1
    output = capsys.readouterr().out
    assert "default: " in output
    for name in ("shop:mine", "shop:yours"):
        assert f"{name}: one: queued, but in no ready list" in output
    assert main(["fsck", server.url, "--prefix", "shop", "--queue", "mine"]) == 1
    assert "\nmine: " in capsys.readouterr().out
    core.command(["ACL", "SETUSER", "default", "-scan"])  # then only the records cannot be looked at
    try:
        main(["fsck", server.url])
        assert "prefixes other than ardiq are not searched, see --prefix" in capsys.readouterr().err
    finally:
        core.command(["ACL", "SETUSER", "default", "+scan"])
