"""What the command line does about names: of what is not there, of what was meant, of queues without the app's code."""

import asyncio
import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import drain

from ardiq import Ardiq
from ardiq.cli import main

Run = Callable[..., tuple[int, str]]
MODULE = f"{__name__}:names_app"


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app(priorities=["low", "default", "high"])

    @app.task
    async def send_mail(to: int = 0) -> None: ...

    @app.task(max_retries=0)
    async def broken() -> None:
        raise ValueError("no good")

    monkeypatch.setattr(sys.modules[__name__], "names_app", app, raising=False)
    return app


@pytest.fixture
def ardiq(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: APP in it is the app, URL its server, QUEUE its queue."""

    def run(command: str) -> tuple[int, str]:
        names = {"APP": MODULE, "URL": app.redis_url, "QUEUE": app.queue_name}
        code = main([names.get(word, word) for word in command.split()])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def join(app: Ardiq) -> None:
    app.context.server.core.call("join", ["w:1", 3_600_000, "{}", '["low", "default", "high"]', 1])


def make_dead(app: Ardiq, count: int) -> None:
    async def fail() -> None:
        for number in range(count):
            await app.ref("broken").options(task_id=f"dead{number}").enqueue()
        await drain(app)

    asyncio.run(fail())


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("enqueue APP sendmail", "send_mail"),
        ("enqueue APP send_mail --priority hihg", "high"),
        ("schedule put APP s send_mial --every 5m", "send_mail"),
        ("schedule put APP s send_mail --every 5m --priority Low", "low"),
        ("schedule show APP nihgtly", "nightly"),
        ("schedule pause APP nightyl", "nightly"),
        ("pause APP --task send_mal", "send_mail"),
        ("purge APP -y --lane defualt", "default"),
        ("dlq list APP --task brokn", "broken"),
        ("status APP --wacth", "--watch"),
        ("statsu APP", "status"),
        ("dlq lsit APP", "list"),
        ("top APP --sort tiem", "time"),
        ("task shwo APP x", "show"),
        ("status test_cli_names:names_ap", "names_app"),
        ("status test_cli_nmes:names_app", "test_cli_names"),
    ],
)
def test_a_typo_is_told_what_was_meant(
    app: Ardiq, ardiq: Run, monkeypatch: pytest.MonkeyPatch, command: str, meant: str
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    asyncio.run(app.schedules.put("nightly", "send_mail", "@daily"))
    join(app)
    code, text = ardiq(command)
    # What the queue does not have is an answer; what the app does not have makes no sense.
    is_answer = command.startswith(("schedule show", "schedule pause", "purge"))
    assert code == (0 if command.startswith("dlq list") else 1 if is_answer else 2)
    assert f"did you mean {meant!r}" in text.splitlines()[-1]
    assert asyncio.run(app.queue_size()) == 0
    assert asyncio.run(app.pauses()) == []


@pytest.mark.parametrize(
    "command", ["status", "top", "dlq list", "task show x", "schedule list", "purge -y", "resume", "doctor", "fsck"]
)
def test_a_queue_that_is_not_there(app: Ardiq, make_app: Any, ardiq: Run, command: str) -> None:
    make_app(queue_name=f"emails_{app.queue_name}").send_sync("send_mail")
    first, *rest = command.split()
    action = [rest.pop(0)] if first in ("dlq", "task", "schedule") else []
    for target in ("APP", "URL"):
        words = [first, *action, target, *rest, "--queue", f"emials_{app.queue_name}"]
        code, text = ardiq(" ".join(words))
        assert (code, f"there is no queue 'emials_{app.queue_name}'" in text) == (1, True)
        assert f"did you mean 'emails_{app.queue_name}'" in text


def test_the_apps_own_queue_may_be_new(ardiq: Run) -> None:
    for command in ("status APP", "top APP", "dlq list APP", "schedule list APP"):
        assert ardiq(command)[0] == 0  # and looking makes none
    for command in ("doctor APP", "fsck APP"):
        code, text = ardiq(command)
        assert (code, "there is no queue" in text) == (1, True)


def test_doctor_wants_a_worker(app: Ardiq, ardiq: Run) -> None:
    app.send_sync("send_mail")
    code, text = ardiq("doctor APP")
    assert code == 1
    assert "fail    workers: none is alive" in text
    join(app)
    assert ardiq("doctor APP")[0] == 0


def test_doctor_tells_of_an_overdue_schedule(app: Ardiq, ardiq: Run) -> None:
    join(app)
    asyncio.run(app.schedules.put("nightly", "send_mail", "@daily"))
    asyncio.run(app.schedules.put("weekly", "send_mail", "@weekly"))
    assert ardiq("doctor APP")[0] == 0
    due_at = int((time.time() - 3600) * 1000)
    app.context.server.core.command(["ZADD", f"{app.context.server.base}schedule_due", str(due_at), "nightly"])
    code, text = ardiq("doctor APP")
    assert code == 1
    assert "fail    schedule nightly: it is overdue by 1 h" in text
    assert "weekly" not in text
    asyncio.run(app.schedules.pause("nightly"))
    assert ardiq("doctor APP")[0] == 0


def test_all_dead_letters_are_changed_only_when_somebody_agrees(
    app: Ardiq, ardiq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dead(app, 3)
    for action in ("delete", "replay"):
        code, text = ardiq(f"dlq {action} APP --all")
        assert (code, "--yes" in text) == (2, True)
    answers = io.StringIO("n\ny\ny\n")
    monkeypatch.setattr("sys.stdin", answers)
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    code, text = ardiq("dlq delete APP --all")
    assert (code, text) == (1, f"0 deleted\ndelete 3 dead letters of queue {app.queue_name!r}? [y/N] ")
    assert ardiq("dlq replay APP --all --task broken") == (
        0,
        f"3 replayed\nreplay 3 dead letters of queue {app.queue_name!r}? [y/N] ",
    )
    asyncio.run(drain(app))
    assert "3 dead letters" in ardiq("dlq delete APP --all --since 1h")[1]
    make_dead(app, 2)
    assert ardiq("dlq delete APP --all -y") == (0, "2 deleted\n")
    assert ardiq("dlq delete APP --all") == (0, "0 deleted\n")  # there is nothing to ask about


def test_a_task_that_is_not_in_the_code_is_paused_on_purpose(app: Ardiq, ardiq: Run) -> None:
    assert ardiq("pause APP --task old_name")[0] == 2
    assert ardiq("pause APP --task old_name --unknown") == (0, "paused task 'old_name'\n")
    assert ardiq("resume APP --task old_name")[0] == 0


def test_queues_are_looked_after_without_the_apps_code(app: Ardiq, ardiq: Run) -> None:
    app.ref("send_mail", priority="low").options(task_id="one").enqueue_sync(7)
    make_dead(app, 0)
    assert "send_mail(7)" not in ardiq("status URL --queue QUEUE")[1]
    make_dead(app, 1)
    app.ref("send_mail", priority="low").options(task_id="one").enqueue_sync(7)
    at = "URL --queue QUEUE"
    for command, says in (
        (f"status {at}", "1 queued, 0 scheduled, 0 running, 1 dead"),
        (f"top {at}", "1 queued, 0 scheduled, 0 running, 1 dead"),
        (f"task show {at} one", "send_mail(7)"),
        (f"task retry {at} dead0", "queued again"),
        (f"task abort {at} dead0", "aborted"),
        (f"schedule put {at} s send_mail --every 5m --priority low", "send_mail"),
        (f"schedule list {at}", "send_mail"),
        (f"schedule run {at} s", "enqueued"),
        (f"schedule remove {at} s", "removed"),
        (f"enqueue {at} send_mail --priority high --id two", "two"),
        (f"pause {at} --task send_mail", "paused task 'send_mail'"),
        (f"resume {at} --task send_mail", "resumed task 'send_mail'"),
        (f"purge {at} -y --lane low", "2 removed"),
    ):
        code, text = ardiq(command)
        assert (command, code, says in text) == (command, 0, True)
    assert ardiq(f"doctor {at}")[0] == 1  # nobody serves a lane
    assert ardiq(f"purge {at} -y") == (0, "1 removed\n")
    join(app)
    assert ardiq(f"doctor {at}")[0] == 0
    make_dead(app, 1)
    assert "dead0  broken  20" in ardiq(f"dlq list {at}")[1]
    assert ardiq(f"dlq replay {at} dead0") == (0, "1 replayed\n")
    asyncio.run(drain(app))
    assert ardiq(f"dlq delete {at} --all -y") == (0, "1 deleted\n")
    assert "at which position" in ardiq(f"pause {at} --arg to=7")[1]
    assert ardiq("status URL --queue a}b")[0] == 2
    assert ardiq("status http://x")[0] == 2
    assert ardiq("status APP --prefix x")[0] == 2


def test_queues_of_a_server(app: Ardiq, make_app: Any, ardiq: Run, capsys: pytest.CaptureFixture[str]) -> None:
    other: Ardiq = make_app(queue_name=f"{app.queue_name}_b", prefix="mine")
    other.send_sync("send_mail")
    app.send_sync("send_mail")
    join(app)
    assert other.queue_name in ardiq("queues URL --prefix mine")[1]
    for command in ("queues APP --json", "queues URL --json"):
        told = {queue["queue"]: queue for queue in json.loads(ardiq(command)[1])}
        mine = told[app.queue_name]
        assert (mine["counts"]["queued"], mine["workers_alive"], mine["paused"]) == (1, 1, False)
        assert other.queue_name not in told
    assert f"\n{app.queue_name} " in ardiq("queues URL")[1]
    assert ardiq("status URL --prefix mine --queue QUEUE_")[0] == 1
    assert ardiq(f"status URL --prefix mine --queue {other.queue_name}")[0] == 0
    assert ardiq("purge APP -y")[0] == 0


def test_queues_are_looked_at_on_one_connection(app: Ardiq, make_app: Any, ardiq: Run) -> None:
    def connections() -> int:
        told = app.context.server.core.command(["INFO", "stats"])
        return int(re.findall(rb"total_connections_received:(\d+)", told)[0])

    for name in ["default", *(f"{app.queue_name}-{number}" for number in range(10))]:
        make_app(queue_name=name).send_sync("send_mail")  # the command's own queue is "default"
    before = connections()
    assert f"{app.queue_name}-9" in ardiq("queues URL")[1]
    assert connections() - before < 5


@pytest.mark.damages_keys
def test_a_damaged_queue_does_not_hide_the_others(app: Ardiq, make_app: Any, ardiq: Run) -> None:
    app.send_sync("send_mail")
    damaged: Ardiq = make_app()
    damaged.send_sync("send_mail")
    damaged.context.server.core.command(["SET", f"{damaged.context.server.base}scheduled", "mine"])
    code, text = ardiq("queues URL")
    assert code == 1
    assert f"\n{app.queue_name} " in f"\n{text}"
    told = {queue["queue"]: queue for queue in json.loads(ardiq("queues URL --json")[1])}
    assert "something else wrote it" in told[damaged.queue_name]["error"]
    assert told[app.queue_name]["counts"]["queued"] == 1
    assert list(app.context.family) == [app.queue_name]


def test_dead_letters_in_a_pipe_are_a_line_each(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> None:
    """As ArdiQ 1.2 prints them, for `cut` and `grep`."""
    make_dead(app, 2)
    capsys.readouterr()
    assert main(["dlq", "list", MODULE]) == 0
    captured = capsys.readouterr()
    first, second = captured.out.splitlines()
    task_id, name, at, tries, error = first.split("  ")
    assert (task_id, name, tries, error) == ("dead1", "broken", "tries=1", "ValueError('no good')")
    assert time.strptime(at, "%Y-%m-%d %H:%M:%SZ")
    assert second.startswith("dead0  ")
    assert captured.err.splitlines()[-1] == "2 of 2 dead letters"


def test_a_queue_that_is_not_there_is_paused_on_purpose(app: Ardiq, ardiq: Run) -> None:
    app.send_sync("send_mail")
    name = app.queue_name
    for at in ("APP", "URL"):
        code, text = ardiq(f"pause {at} --queue {name}x")
        assert (code, f"there is no queue '{name}x'" in text) == (1, True)
    assert ardiq(f"pause APP --queue {name}") == (0, f"paused queue {name!r}\n")
    assert ardiq(f"resume APP --queue {name}")[0] == 0
    assert ardiq(f"pause APP --queue {name}_new --unknown") == (0, f"paused queue '{name}_new'\n")
    assert ardiq(f"resume APP --queue {name}_new")[0] == 0


def test_a_queue_that_is_made_by_a_name_is_noted(app: Ardiq, ardiq: Run) -> None:
    app.send_sync("send_mail")
    for command in ("enqueue APP send_mail", "schedule put APP s send_mail --every 5m"):
        assert (
            f"note: there is no queue '{app.queue_name}_{command[:3]}'"
            in ardiq(f"{command} --queue {app.queue_name}_{command[:3]}")[1]
        )
        assert "note" not in ardiq(f"{command} --queue {app.queue_name}_{command[:3]}")[1]
        assert "note" not in ardiq(command)[1]
    asyncio.run(app.queue(f"{app.queue_name}_sch").schedules.remove("s"))
    asyncio.run(app.schedules.remove("s"))


def test_all_dead_letters_of_a_task_that_is_misspelt(app: Ardiq, ardiq: Run) -> None:
    make_dead(app, 1)
    for action in ("delete", "replay"):
        code, text = ardiq(f"dlq {action} APP --all --task brokn -y")
        assert (code, text.splitlines()[-1]) == (0, "there is no task 'brokn'; did you mean 'broken'?")
