"""`ardiq doctor`: every server of a topology is looked at, and what is out of place is mended or left to a person."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli_fsck import BASE, claim, core, enqueue, populate, server  # noqa: F401
from test_cli_fsck import join as join_as
from topologies import cluster, sentinel, until

from ardiq import _core
from ardiq.cli import _repair, fsck, main
from ardiq.cli.fsck import Check

WITHOUT_FAILED = """
redis.call('SREM', KEYS[1], 'b')
redis.call('HSET', KEYS[2], 'state', 'aborted')
redis.call('HSET', KEYS[3], 'aborted', '1')
"""
DAMAGES = {
    "not_in_ready": ["LREM", f"{BASE}ready:default", "1", "queued-700"],
    "ghost_in_tombstones": ["SADD", f"{BASE}tombstones:default", "queued-700"],
    "not_in_scheduled": ["ZREM", f"{BASE}scheduled", "later"],
    "ghost_in_scheduled": ["ZADD", f"{BASE}scheduled", "1", "queued-700"],
    "ghost_in_schedule_due": ["ZADD", f"{BASE}schedule_due", "1", "nightly"],
    "not_in_running": ["HDEL", f"{BASE}running:w", "queued-3"],
    "ghost_in_running": ["HSET", f"{BASE}running:w", "queued-700", "1"],
    "not_in_dead": ["ZREM", f"{BASE}dead", "queued-1"],
    "ghost_in_dead": ["ZADD", f"{BASE}dead", "1", "queued-700"],
    "ghost_in_quarantined": ["ZADD", f"{BASE}quarantined", "1", "queued-700"],
    "not_in_quarantined": ["HSET", f"{BASE}task:queued-700", "lost", "2"],
    "wrong_load": ["ZADD", f"{BASE}loads", "7", "w"],
    "no_such_worker": ["HSET", f"{BASE}worker:gone", "x", "1"],
    "no_row": ["DEL", f"{BASE}worker:w"],
    "ghost_in_held": ["ZADD", f"{BASE}held:other()", "1", "queued-700"],
    "not_in_held": ["HSET", f"{BASE}task:queued-2", "state", "held", "pause", "x()"],
    "no_ttl": ["SADD", f"{BASE}waiters:later", "m"],
    "not_in_line": ["LREM", f"{BASE}line:default:partner", "1", "limited-1"],
    "not_in_turn": ["ZREM", f"{BASE}ring:default", "partner"],
    "wrong_busy": ["HSET", f"{BASE}busy", "partner", "7"],
    "ghost_in_pauses": ["HSET", f"{BASE}pauses", "gone~*", '{"workflow":"gone"}'],
    "ghost_in_workflows": ["ZADD", f"{BASE}workflows", "1", "gone"],
    "not_in_workflows": ["ZREM", f"{BASE}workflows", "wf"],
    "not_open": ["SREM", f"{BASE}open:wf", "b"],
    "open_but_ended": ["HSET", f"{BASE}task:wf~b", "state", "complete"],
    "open_without_record": ["DEL", f"{BASE}task:wf~b"],
    "stuck_group": ["HSET", f"{BASE}task:wf~b", "needs", "0"],
    "no_such_group": ["SADD", f"{BASE}open:gone", "a"],
    "no_such_task": ["HSET", f"{BASE}steps:gone", "charge", "step  1"],
    "wrong_dead": ["HSET", f"{BASE}task:wf", "state", "failed", "dead", "7"],
    "lost_ends": [
        "EVAL",
        "redis.call('SREM', KEYS[1], 'a'); redis.call('HSET', KEYS[2], 'state', 'complete')",
        "2",
        f"{BASE}open:wf",
        f"{BASE}task:wf~a",
    ],
    "not_in_deadlines": ["HSET", f"{BASE}task:wf", "timeout_ms", "3600000"],
    "not_in_failed": ["EVAL", WITHOUT_FAILED, "3", f"{BASE}open:wf", f"{BASE}task:wf~b", f"{BASE}task:wf"],
    "not_in_nodes": ["DEL", f"{BASE}nodes:wf"],
    "not_woken": ["HSET", f"{BASE}task:later", "waits_for", "nap"],
    "ended_without_outbox": [
        *("HSET", f"{BASE}task:order~pay@shop", "state", "complete", "name", "work", "lane", "default"),
        *("home", "shop", "life", "1 k", "finished_at", "1"),
    ],
}
# Which it takes another queue to know: test_workflows_across_queues.py.
ELSEWHERE = {"away_without_outbox"}


def test_there_is_an_answer_to_every_finding() -> None:
    assert {*_repair.MENDED_BY, *_repair.BY_HAND} == set(fsck.FINDINGS)
    assert set(DAMAGES) | ELSEWHERE == set(_repair.MENDED_BY)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_mended(core: _core.Core, kind: str) -> None:  # noqa: F811
    populate(core)
    if kind in ("ghost_in_held", "ghost_in_pauses"):
        core.call("pause", ["other", "", "", "{}"])
    core.command(DAMAGES[kind])
    mended = [row.kind for row, answer in _repair.mend(core, 60_000) if answer == "mended"]
    assert kind in mended
    # What may be left is an entry that a claim passes over.
    assert {row.kind for row in Check(core).findings()} <= {"ghost_in_ready"}
    assert not [row for row, answer in _repair.mend(core, 60_000) if answer == "mended"]


def test_what_is_mended_is_run_once(core: _core.Core) -> None:  # noqa: F811
    """In a long list a task may be put back that was there after all: nobody gets it twice."""
    enqueue(core, *(f"t{number}" for number in range(11_000)))
    answers = core.call("repair", [60_000, "not_in_ready", "t5500", "default", "not_in_ready", "t1", "default"])
    assert answers == [b"mended", b"sound"]
    claimed: list[str] = []
    while page := claim(core, 500):
        claimed += (identity for identity, _ in page)
    assert sorted(claimed) == sorted(f"t{number}" for number in range(11_000))


def test_repair_while_tasks_move(core: _core.Core) -> None:  # noqa: F811
    """Whatever a sound queue's tasks do meanwhile, nothing is taken for damage and mended."""
    populate(core)
    stop = threading.Event()

    def move() -> None:
        other = _core.Core(core.url, BASE)
        join_as(other, "x")
        number = 0
        while not stop.is_set():
            enqueue(other, *(f"moving-{number + at}" for at in range(50)))
            number += 50
            for identity, token in claim(other, 50, "x"):
                other.call("release" if number % 100 else "complete", _outcome(identity, token, number))
        other.close()

    def _outcome(identity: str, token: str, number: int) -> list[str | int]:
        return ["x", identity, token, *([] if number % 100 else [1, "null", ""]), 1000]

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(5):
            assert not [row for row, answer in _repair.mend(core, 60_000) if answer == "mended"]
    finally:
        stop.set()
        mover.join()


@pytest.fixture
def module(core: _core.Core, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # type: ignore[no-untyped-def]  # noqa: F811
    (tmp_path / "doctor_jobs.py").write_text(f"from ardiq import Ardiq\napp = Ardiq({core.url!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "doctor_jobs:app"
    sys.modules.pop("doctor_jobs").app.context.server.close()


def test_doctor_repairs(core: _core.Core, module: str, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    populate(core)
    core.command(DAMAGES["not_in_scheduled"])
    core.command(["SET", f"{BASE}mine", "1"])
    assert main(["doctor", module, "--all"]) == 1  # without it, a busy machine may not come far
    text = capsys.readouterr().out
    assert "fail    keys: later: scheduled, but without a due time (scheduled)" in text
    assert "`ardiq doctor --repair` schedules it again" in text
    assert "warn    keys: mine: a key that Ardiq does not know" in text
    assert main(["doctor", module, "--repair", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(row["status"] for row in told["checks"] if row["name"] == "keys") == ["mended", "ok", "warn"]
    assert main(["doctor", module]) == 0
    assert "entries checked" in capsys.readouterr().out


def test_a_look_that_is_cut_short_says_so(core: _core.Core) -> None:  # noqa: F811
    populate(core)
    check = Check(core, most_s=0)
    assert list(check.findings()) == []
    assert not check.complete


Doctor = Callable[..., tuple[int, str, list[dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Doctor]:
    """What it says of an app: exit code, text, checks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def run(url: str, **options: object) -> tuple[int, str, list[dict[str, Any]]]:
        names.append(f"doctor_topology_{len(names)}")
        given = {"broker_timeout_ms": 500, **options}
        (tmp_path / f"{names[-1]}.py").write_text(f"from ardiq import Ardiq\napp = Ardiq({url!r}, **{given!r})\n")
        code = main(["doctor", f"{names[-1]}:app"])
        text = capsys.readouterr().out
        main(["doctor", f"{names[-1]}:app", "--json"])
        return code, text, json.loads(capsys.readouterr().out)["checks"]

    yield run
    for name in names:
        sys.modules.pop(name).app.context.server.close()


def join(url: str) -> None:
    """A worker of the queue, alive for an hour."""
    made = _core.Core(url, BASE)
    made.call("join", ["w:1", 3_600_000, "{}", '["default"]', 1])
    made.close()


def test_every_primary_of_a_cluster_is_looked_at(doctor: Doctor) -> None:
    with cluster(primaries=3, replicas=0, settings={"cluster-require-full-coverage": "no"}) as servers:
        mine = servers.primary_of(BASE)
        evicting, gone = (node for node in servers.nodes if node is not mine)
        join(servers.url)
        for url in (servers.url, evicting.url):
            code, text, findings = doctor(url)
            assert code == 0, text
            for about in ("server", "maxmemory-policy", "persistence"):
                seen = [finding["at"] for finding in findings if finding["name"] == about]
                assert seen[0] == mine.name
                assert sorted(seen) == sorted(node.name for node in servers.nodes)
            assert text.count("holds the queue") == 1
            assert "warn    replicas: none is connected\n" in text
        with_functions = int(mine.command("INFO", "server").partition("_version:")[2].partition(".")[0]) >= 7
        if with_functions:
            # The calls of the first look have loaded it where the queue is.
            (pending,) = (finding["detail"] for finding in findings if finding["name"] == "library")
            assert [node.name in pending for node in (mine, evicting, gone)] == [False, True, True]
        assert main(["migrate", servers.url]) == 0
        assert "ok      library: up to date on 3 primaries\n" in doctor(servers.url)[1]

        evicting.command("CONFIG", "SET", "maxmemory", "1gb")
        evicting.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        gone.kill()
        code, text, findings = doctor(servers.url)
        assert code == 1
        problems = {(finding["name"], finding["at"]) for finding in findings if finding["status"] == "fail"}
        assert problems == {("maxmemory-policy", evicting.name), ("server", gone.name)}
        assert f"fail    server at {gone.name}: cannot reach" in text
        assert "ok      keys: 5 entries checked" in text

        mine.kill()
        code, text, findings = doctor(servers.url)
        assert code == 1
        assert f"fail    server at {mine.name}: cannot reach" in text
        assert f"ok      persistence at {evicting.name}" in text or f"warn    persistence at {evicting.name}" in text


def test_what_is_durable_only_with_a_replica(doctor: Doctor) -> None:
    with sentinel(replicas=1, sentinels=1) as servers:
        primary, replica = servers.primary(), servers.replicas()[0]
        join(servers.url)
        # A replica in step may still be told by the Sentinel, and connect once more.
        until(lambda: doctor(servers.url, durability="replicated")[0] == 0, "the replica to stay connected")
        code, text, _ = doctor(servers.url, durability="replicated")
        assert code == 0
        assert re.search(f"ok      server: \\w+ [\\d.]+ at {primary.name}, the primary that the Sentinels name\n", text)
        assert "ok      replicas: 1 is connected\n" in text
        replica.kill()
        until(lambda: "connected_slaves:0" in primary.command("INFO", "replication"), "the replica to be gone")
        code, text, _ = doctor(servers.url, durability="replicated")
        assert code == 1
        assert "fail    replicas: none is connected" in text
        assert "each enqueue will fail" in text
        # Nobody counts on it here.
        code, text, _ = doctor(servers.url)
        assert code == 0
        assert "warn    replicas: none is connected\n" in text
        code, text, _ = doctor(primary.url, durability="replicated")
        assert code == 1
        assert "fail    replicas" in text
        assert "replicas" not in doctor(primary.url)[1]
