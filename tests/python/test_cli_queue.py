"""`ardiq status`, `purge`, `dlq` and `doctor`: what they show of a queue, and what they refuse."""

import asyncio
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ardiq import Ardiq
from ardiq._execution.scheduler import Scheduler
from ardiq.cli import main
from ardiq.embedded import Server

Run = Callable[..., tuple[int, str]]
OF_QUEUE = ("held", "scheduled", "next_scheduled")

MODULE = """
from ardiq import Ardiq

app = Ardiq({url!r}, "jobs", priorities=["low", "default"])

@app.task(max_retries=0)
async def broken(number):
    raise ValueError("no good")

@app.task
async def fine():
    pass
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server


@pytest.fixture
def app(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ardiq]:
    """The app of a module in the working directory."""
    (tmp_path / "cli_jobs.py").write_text(MODULE.format(url=server.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("cli_jobs", None)
    import cli_jobs  # type: ignore[import-not-found]

    yield cli_jobs.app
    cli_jobs.app.context.server.close()


@pytest.fixture
def ardiq(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(command: str, *words: str) -> tuple[int, str]:
        first, rest = (words[:1], words[1:]) if command in ("dlq", "schedule") else ((), words)
        code = main([command, *first, "cli_jobs:app", *rest])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def enqueue(app: Ardiq, name: str, count: int, **options: Any) -> list[str]:
    async def work() -> list[str]:
        task = app.ref(name)
        arguments = [7] if name == "broken" else []
        prepared = [task.options(**options).prepare(*arguments) for _ in range(count)]
        return [job.id for job in await app.enqueue_many(prepared)]

    return asyncio.run(work())


def join(app: Ardiq, lease_ms: int = 60_000) -> None:
    """A worker of the lane default, alive for so long."""
    app.context.server.core.call("join", ["w:1", lease_ms, "{}", '["default"]', 1])


def drain(app: Ardiq) -> None:
    app.burst = True
    asyncio.run(app.run())


def test_status_of_a_queue(app: Ardiq, ardiq: Run) -> None:
    enqueue(app, "fine", 3)
    drain(app)
    enqueue(app, "fine", 700, priority="low")
    enqueue(app, "fine", 2, delay_ms=60_000)
    join = ["w:1", 60_000, '{"label": "w", "host": "h", "pid": 7, "concurrency": 4}', '["default"]', 1]
    app.context.server.core.call("join", join)
    code, text = ardiq("status")
    assert code == 0
    assert "700 queued, 2 scheduled, 0 running, 0 dead" in text
    assert re.search(r"low +700 +\d.* +none", text)
    assert "3 completed" in text
    status = json.loads(ardiq("status", "--json")[1])
    assert status["lanes"] == [
        {
            "name": "default",
            "waiting": 0,
            "oldest_ms": None,
            "workers_alive": 1,
            "limited": 0,
            **dict.fromkeys(OF_QUEUE),
        },
        {"name": "low", "waiting": 700, "oldest_ms": status["lanes"][1]["oldest_ms"], "workers_alive": 0, "limited": 0}
        | dict.fromkeys(OF_QUEUE),
    ]
    worker = status["workers"][0]
    assert (worker["id"], worker["pid"], worker["held"]) == ("w:1", 7, 0)
    assert 0 < worker["lease_left_ms"] <= 60_000
    assert status["last_minutes"]["completed"] == 3


def test_status_of_an_empty_queue(ardiq: Run) -> None:
    code, text = ardiq("status")
    assert code == 0
    assert "0 queued" in text
    assert "last 5 minutes: nothing" in text


def test_purge_of_one_lane_and_of_all(app: Ardiq, ardiq: Run) -> None:
    enqueue(app, "fine", 1200, priority="low")
    enqueue(app, "fine", 5)
    enqueue(app, "fine", 2, delay_ms=60_000)
    enqueue(app, "fine", 250, delay_ms=60_000, priority="low")
    assert ardiq("purge", "--lane", "low", "--queued", "-y") == (0, "1,200 removed\n")
    enqueue(app, "fine", 3, priority="low")
    assert ardiq("purge", "--lane", "low", "-y") == (0, "253 removed\n")
    assert ardiq("purge", "--queued", "-y") == (0, "5 removed\n")
    assert ardiq("purge", "--scheduled", "-y") == (0, "2 removed\n")
    enqueue(app, "fine", 5)
    enqueue(app, "fine", 2, delay_ms=60_000)
    enqueue(app, "fine", 120, delay_ms=60_000, priority="low")
    assert ardiq("purge", "--lane", "low", "--scheduled", "-y") == (0, "120 removed\n")
    assert ardiq("purge", "-y") == (0, "7 removed\n")
    assert asyncio.run(app.queue_size()) == 0


def test_purge_asks_first(app: Ardiq, ardiq: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue(app, "fine", 1)
    code, text = ardiq("purge")
    assert code == 2
    assert "--yes" in text
    answers = io.StringIO("n\ny\n")
    monkeypatch.setattr("sys.stdin", answers)
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    question = "remove 1 queued task from queue 'jobs'? [y/N] "
    assert ardiq("purge") == (1, "nothing was removed\n" + question)
    assert ardiq("purge") == (0, "1 removed\n" + question)
    assert ardiq("purge") == (0, "0 removed\n")  # there is nothing to ask about
    enqueue(app, "fine", 1200, priority="low")
    enqueue(app, "fine", 3, delay_ms=60_000)
    # Nobody answers any more.
    told = ardiq("purge", "--lane", "low")[1]
    assert "remove 1,200 queued tasks and any of 3 scheduled tasks from lane 'low' of queue" in told
    assert "remove 3 scheduled tasks from queue" in ardiq("purge", "--scheduled")[1]
    assert "remove 1,200 queued tasks from queue" in ardiq("purge", "--queued")[1]
    asyncio.run(app.pause("fine"))
    drain(app)
    code, text = ardiq("purge")
    assert (code, "remove 1,200 queued tasks and 3" in text) == (1, True)  # those that a pause holds, too


def test_purge_of_what_is_not_there(ardiq: Run) -> None:
    code, text = ardiq("purge", "--lane", "none", "-y")
    assert code == 1
    assert "default, low" in text
    assert ardiq("purge", "--queued", "--scheduled", "-y")[0] == 2


def test_dead_letters(app: Ardiq, ardiq: Run) -> None:
    ids = enqueue(app, "broken", 3)
    drain(app)
    code, text = ardiq("dlq", "list")
    assert code == 0
    assert all(task_id in text for task_id in ids)
    assert "ValueError('no good')" in text
    assert "3 of 3 dead letters" in text
    listed = json.loads(ardiq("dlq", "list", "--json", "--limit", "2")[1])
    assert [letter["name"] for letter in listed] == ["broken", "broken"]
    code, text = ardiq("dlq", "show", ids[0])
    assert code == 0
    assert "Traceback" in text
    assert "attempt 1:" in text
    assert json.loads(ardiq("dlq", "show", ids[0], "--json")[1])["history"][0]["try"] == 1
    assert ardiq("dlq", "replay", ids[0]) == (0, "1 replayed\n")
    assert asyncio.run(app.status(ids[0])) == "queued"
    assert ardiq("dlq", "delete", ids[1]) == (0, "1 deleted\n")
    code, text = ardiq("dlq", "delete", ids[1])
    assert code == 1
    assert ids[1] in text
    assert ardiq("dlq", "delete", "--all", "--task", "other") == (0, "0 deleted\n")
    assert ardiq("dlq", "delete", "--all", "-y") == (0, "1 deleted\n")
    assert asyncio.run(app.dead_count()) == 0


def test_dead_letters_by_filters(app: Ardiq, ardiq: Run) -> None:
    ids = enqueue(app, "broken", 3)
    drain(app)
    damaged = f"ardiq:{{jobs}}:task:{ids[0]}"
    app.context.server.core.command(["HSET", damaged, "args", "[7"])
    assert "3 of 3 dead letters" in ardiq("dlq", "list", "--task", "broken", "--error", "NO GOOD", "--since", "1h")[1]
    assert "3 of 3 dead letters" in ardiq("dlq", "list", "--since", "3600")[1]
    assert "0 of 3 dead letters" in ardiq("dlq", "list", "--until", "7d")[1]
    assert "1 of 3 dead letters" in ardiq("dlq", "list", "-n", "1")[1]
    assert "0 of 3 dead letters" in ardiq("dlq", "list", "--since", "2100-01-01")[1]
    assert "2 of 3 dead letters" in ardiq("dlq", "list", "--offset", "1")[1]
    assert ids[0] in json.dumps(json.loads(ardiq("dlq", "list", "--json", "--until", "2100-01-01T00:00+02:00")[1]))
    assert ardiq("dlq", "replay", "--all", "--error", "other") == (0, "0 replayed\n")
    assert ardiq("dlq", "replay", ids[0], "--args", "[8]") == (0, "1 replayed\n")
    code, text = ardiq("dlq", "replay", ids[0], "--args", "[8]")
    assert (code, text) == (1, f"{ids[0]}: there is no such dead letter\n0 replayed\n")
    assert app.context.server.core.command(["HGET", damaged, "args"]) == b"[8]"
    assert ardiq(
        "dlq", "replay", "--all", "--task", "broken", "--args", '{"number": 9}', "--rate", "0", "--json", "-y"
    ) == (
        0,
        '{\n  "replayed": 2\n}\n',
    )
    drain(app)
    assert ardiq("dlq", "delete", "--all", "--since", "5m", "-y") == (0, "3 deleted\n")


@pytest.mark.parametrize(
    "words",
    [
        *(("list", "x"), ("show",), ("replay",), ("delete", "x", "--all"), ("show", "a", "b")),
        *(
            ("delete", "x", "--task", "broken"),
            ("delete", "--all", "--args", "[]"),
            ("replay", "--all", "--rate", "-1"),
        ),
        *(("list", "--offset", "-1"), ("replay", "x", "--kwargs", "[]")),
        *(("replay", "x", "--args", "7"), ("replay", "--all", "--args", "[7]")),
    ],
)
def test_misuse_of_dlq(ardiq: Run, words: tuple[str, ...]) -> None:
    code, text = ardiq("dlq", *words)
    assert code == 2
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("list", "--since", "soon"), ("list", "--until", "9999999999999d"), ("replay", "x", "--args", "[7")]
)
def test_what_dlq_cannot_read(ardiq: Run, words: tuple[str, ...]) -> None:
    code, text = ardiq("dlq", *words)
    assert code == 2
    assert words[-1] in text.splitlines()[-1]


def test_doctor_finds_lanes_that_nobody_serves(app: Ardiq, ardiq: Run) -> None:
    join(app)
    code, text = ardiq("doctor")
    assert code == 0
    assert "library: up to date" in text
    enqueue(app, "fine", 1, priority="low")
    code, text = ardiq("doctor")
    assert code == 1
    assert "fail    lane low: 1 task is ready, and no live worker serves it" in text
    told = json.loads(ardiq("doctor", "--json")[1])
    assert not told["ok"]
    assert {check["name"] for check in told["checks"]} >= {"server", "library", "clock", "persistence", "lane low"}


def test_doctor_tells_of_pauses(app: Ardiq, ardiq: Run) -> None:
    async def pause() -> None:
        await app.pause()
        await app.pause("broken", argument={"number": "it's"})

    asyncio.run(pause())
    join(app)
    code, text = ardiq("doctor")
    assert code == 0
    assert re.search("warn    queue: paused since 2.*: none of its tasks start\n +.*`ardiq resume MODULE:ATTR`", text)
    found = re.search("warn    tasks of broken\\(.*\\): paused since 2.*: none of its tasks start\n +.*: `(.*)`", text)
    assert found
    _, command, _, *words = shlex.split(found[1])
    assert ardiq(command, *words) == (0, "resumed task 'broken' with number=\"it's\"\n")
    assert "tasks of broken" not in ardiq("doctor")[1]


def test_doctor_of_a_server_that_evicts(app: Ardiq, ardiq: Run) -> None:
    core = app.context.server.core
    core.command(["CONFIG", "SET", "maxmemory", "1gb"])
    core.command(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
    code, text = ardiq("doctor")
    assert code == 1
    assert "maxmemory-policy: allkeys-lru" in text


def test_doctor_of_a_damaged_queue(app: Ardiq, ardiq: Run) -> None:
    app.context.server.core.command(["SET", "ardiq:{jobs}:scheduled", "mine"])
    code, text = ardiq("doctor")
    assert code == 1
    assert "ardiq fsck" in text


@pytest.mark.parametrize("command", ["status", "doctor", "purge"])
def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: str) -> None:
    (tmp_path / "cli_away.py").write_text(
        "from ardiq import Ardiq\napp = Ardiq('redis://127.0.0.1:1', broker_timeout_ms=100)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([command, "cli_away:app", *(["-y"] if command == "purge" else [])]) == 1
    captured = capsys.readouterr()
    assert "127.0.0.1:1" in captured.out + captured.err


def test_schedules(app: Ardiq, ardiq: Run) -> None:
    asyncio.run(app.schedules.put("nightly", "fine", "0 3 * * *", tz="Europe/Berlin"))
    asyncio.run(app.schedules.put("often", "fine", every=90))
    code, text = ardiq("schedule", "list")
    assert code == 0
    assert "0 3 * * * Europe/Berlin" in text
    assert "every 90 s" in text
    assert "outcome" in text
    asyncio.run(app.schedules.put("often", "broken", every=90, args=[7], jitter=2.5, missed="once"))
    app.context.server.core.command(["ZADD", "ardiq:{jobs}:schedule_due", "1000", "often"])
    asyncio.run(Scheduler(app.context).fire_due())
    drain(app)
    text = ardiq("schedule", "list")[1]
    assert "every 90 s + up to 2.5 s" in text
    assert re.search(r"failed \d{4}-\d\d-\d\d \S+ UTC: ValueError", text)
    listed = {entry["name"]: entry for entry in json.loads(ardiq("schedule", "list", "--json")[1])}
    assert listed["often"]["last_outcome"]["state"] == "failed"
    assert listed["nightly"]["last_outcome"] is None
    assert ardiq("schedule", "pause", "often") == (0, "often: paused\n")
    listed = {entry["name"]: entry for entry in json.loads(ardiq("schedule", "list", "--json")[1])}
    assert (listed["often"]["paused"], listed["nightly"]["paused"]) == (True, False)
    assert ardiq("schedule", "resume", "often") == (0, "often: goes on\n")
    code, text = ardiq("schedule", "run", "often")
    assert code == 0
    assert asyncio.run(app.status(text.split()[1])) == "queued"
    assert ardiq("schedule", "remove", "often") == (0, "often: removed\n")
    assert ardiq("schedule", "remove", "often") == (1, "there is no schedule 'often'; known: nightly\n")
    for words in (("pause",), ("list", "often")):
        assert ardiq("schedule", *words)[0] == 2
