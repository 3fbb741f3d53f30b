"""`ardiq task`, `enqueue`, `top`, `schedule put` and `completion`, and how commands show things."""

import argparse
import asyncio
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_state, working

from ardiq import Ardiq, Unique, current_task
from ardiq.cli import _output, main
from ardiq.cli._arguments import duration_ms


class Cli:
    """Runs commands on an app that is an attribute of this module."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code))
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err

    def json(self, *words: str) -> tuple[int, Any]:
        code, text = self(*words, "--json")
        return code, json.loads(text)


MODULE = f"{__name__}:cli_app"
cli_app: Ardiq


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app(priorities=["low", "default"])

    @app.task
    async def add(a: int, b: int = 0) -> int:
        return a + b

    @app.task(max_retries=0)
    async def broken() -> None:
        task = current_task()
        assert task is not None
        task.log("about to break")
        raise ValueError("no \x1b[31mgood")

    @app.task
    async def long() -> None:
        await asyncio.sleep(SOON_S)

    monkeypatch.setattr(sys.modules[__name__], "cli_app", app, raising=False)
    return app


@pytest.fixture
def cli(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_a_queued_task_is_shown_with_its_position(app: Ardiq, cli: Cli) -> None:
    assert cli("enqueue", MODULE, "add", "--args", "[1]", "--id", "first")[0] == 0
    assert cli("enqueue", MODULE, "add", "--args", "[1]", "--kwargs", '{"b": 2}', "--id", "second") == (0, "second\n")
    code, text = cli("task", "show", MODULE, "second")
    assert code == 0
    assert "queued, number 2 of 2 in its lane" in text
    assert "add(1, b=2)" in text
    task = cli.json("task", "show", MODULE, "second")[1]
    assert (task["place"]["position"], task["args"], task["kwargs"]) == (1, [1], {"b": 2})


def test_a_scheduled_task_is_shown_and_aborted(app: Ardiq, cli: Cli) -> None:
    cli("enqueue", MODULE, "add", "--args", "[1]", "--id", "later", "--delay", "2h", "--priority", "low")
    text = cli("task", "show", MODULE, "later")[1]
    assert "scheduled, due in 1 h 59 m" in text
    assert "lane low" in text
    assert cli("task", "abort", MODULE, "later") == (0, "later: aborted\n")
    assert cli("task", "abort", MODULE, "later") == (0, "later: aborted\n")
    assert "aborted, kept for" in cli("task", "show", MODULE, "later")[1]
    assert cli.json("task", "abort", MODULE, "none") == (1, {"id": "none", "answer": "not_found"})


def test_tasks_are_listed(app: Ardiq, cli: Cli) -> None:
    for number in range(3):
        cli("enqueue", MODULE, "add", "--args", f"[{number}]", "--id", f"later{number}", "--delay", "2h")
    cli("enqueue", MODULE, "add", "--args", "[1]", "--id", "now")
    code, text = cli("task", "list", MODULE)
    assert (code, "now" in text, "later" in text) == (0, True, False)
    assert "1 task; looked at 1 of 1 that are queued" in text
    _, found = cli.json("task", "list", MODULE, "--place", "scheduled", "--arg", "0=1")
    assert ([task["id"] for task in found["tasks"]], found["looked_at"], found["size"]) == (["later1"], 3, 3)
    _, found = cli.json("task", "list", MODULE, "--place", "scheduled", "--text", "LATER", "-n", "2")
    assert [task["args"] for task in found["tasks"]] == ["[0]", "[1]"]
    assert cli.json("task", "list", MODULE, "--place", "running")[1] == {"tasks": [], "looked_at": 0, "size": 0}


def test_a_scheduled_task_is_hurried(app: Ardiq, cli: Cli) -> None:
    cli("enqueue", MODULE, "add", "--args", "[1]", "--id", "later", "--delay", "2h")
    assert cli("task", "hurry", MODULE, "later") == (0, "later: ready: it runs when it has its turn\n")
    assert cli.json("task", "hurry", MODULE, "later") == (0, {"id": "later", "answer": "queued"})
    assert "queued, number 1 of 1 in its lane" in cli("task", "show", MODULE, "later")[1]
    asyncio.run(drain(app))
    assert cli("task", "hurry", MODULE, "later") == (1, "later: it has ended already\n")
    code, text = cli("task", "hurry", MODULE, "none")
    assert (code, "there is no such task" in text) == (1, True)
    assert cli.json("task", "hurry", MODULE, "none") == (1, {"id": "none", "answer": "not_found"})


def test_a_dead_letter_is_shown_and_run_again(app: Ardiq, cli: Cli) -> None:
    cli("enqueue", MODULE, "broken", "--id", "bad")
    asyncio.run(drain(app))
    assert cli("task", "abort", MODULE, "bad") == (1, "bad: it has ended already\n")
    code, text = cli("task", "show", MODULE, "bad")
    assert code == 0
    for words in ("failed, a dead letter", "Traceback", "about to break", "error ValueError"):
        assert words in text
    assert "\x1b" not in text  # what an error says does not drive the terminal
    assert cli.json("task", "retry", MODULE, "bad") == (0, {"id": "bad", "answer": "queued", "state": "queued"})
    assert asyncio.run(app.status("bad")) == "queued"
    code, text = cli("task", "retry", MODULE, "bad")
    assert code == 1
    assert "only dead letters" in text


def test_a_task_that_is_not_there(cli: Cli) -> None:
    for action in ("show", "abort", "retry"):
        code, text = cli("task", action, MODULE, "none")
        assert code == 1
        assert "none: there is no such task" in text


async def test_what_runs_is_shown_and_aborted(app: Ardiq, cli: Cli) -> None:
    async with working(app):
        job = await app.ref("long").enqueue()
        await eventually(lambda: is_state(app, job.id, "running"))
        # In a thread: the worker goes on beside it.
        code, text = await asyncio.to_thread(cli, "task", "show", MODULE, job.id)
        assert code == 0
        assert "on worker" in text
        top = (await asyncio.to_thread(cli.json, "top", MODULE))[1]
        assert [(task["id"], task["name"]) for task in top["running"]] == [(job.id, "long")]
        status = (await asyncio.to_thread(cli.json, "status", MODULE))[1]
        assert status["running"][0]["worker"] == status["workers"][0]["id"]
        assert "abort it" in (await asyncio.to_thread(cli, "task", "abort", MODULE, job.id))[1]
        result = await job.result(timeout=SOON_S)
        assert result is not None
        assert result.aborted


def test_top_tells_which_tasks_ran(app: Ardiq, cli: Cli) -> None:
    for number in range(3):
        cli("enqueue", MODULE, "add", "--args", f"[{number}]")
    cli("enqueue", MODULE, "broken")
    cli("enqueue", MODULE, "nobody_knows", "--unknown")
    asyncio.run(drain(app))
    top = cli.json("top", MODULE, "--sort", "runs")[1]
    assert [(task["name"], task["runs"], task["failed"]) for task in top["tasks"]] == [("add", 3, 0), ("broken", 1, 1)]
    assert top["tasks"][0]["waits"] == 3
    assert [task["name"] for task in cli.json("top", MODULE, "--sort", "failed", "-n", "1")[1]["tasks"]] == ["broken"]
    code, text = cli("top", MODULE, "--once")
    assert code == 0
    assert "nothing runs" in text
    # Told once, though the app runs again.
    asyncio.run(drain(app))
    assert [task.runs for task in app.inspect.task_totals_sync() if task.fn_name == "add"] == [3]


async def test_enqueue_and_wait(app: Ardiq, cli: Cli) -> None:
    async with working(app):
        wait = ("--wait", str(SOON_S))
        for words in (wait, ("--wait",)):
            assert await asyncio.to_thread(cli, "enqueue", MODULE, "add", "--args", "[1, 2]", *words) == (0, "3\n")
        code, told = await asyncio.to_thread(cli.json, "enqueue", MODULE, "broken", *wait)
        assert (code, told["state"], told["error"]) == (1, "failed", "ValueError('no \\x1b[31mgood')")


def test_a_task_that_is_there_already_is_said(cli: Cli) -> None:
    words = ("enqueue", MODULE, "add", "--args", "[1]", "--id", "mine")
    assert cli(*words) == (0, "mine\n")
    assert cli(*words) == (0, "mine\nmine is there already: nothing was added\n")
    assert cli.json(*words) == (0, {"id": "mine", "existed": True})
    assert cli.json(*words, "--wait", "0") == (3, {"id": "mine", "existed": True, "state": "queued"})


def test_the_rule_of_a_task(cli: Cli, app: Ardiq) -> None:
    @app.task(unique=Unique(key="user", on_conflict="replace"))
    async def replaced(user: int, text: str = "") -> None: ...

    @app.task(unique=Unique(on_conflict="reject"))
    async def rejected() -> None: ...

    task_id = cli.json("enqueue", MODULE, "replaced", "--args", "[1]")[1]["id"]
    assert cli.json("enqueue", MODULE, "replaced", "--args", '[1, "b"]') == (0, {"id": task_id, "existed": True})
    told = cli.json("task", "show", MODULE, task_id)[1]
    assert (told["args"], told["unique"].partition(":")[0]) == ([1, "b"], "replaced")
    assert f"\nkey {told['unique']}\n" in cli("task", "show", MODULE, task_id)[1]
    task_id = cli.json("enqueue", MODULE, "rejected")[1]["id"]
    code, text = cli("enqueue", MODULE, "rejected")
    assert (code, text.split(":")[:2]) == (1, ["ardiq", " not enqueued"])
    assert text.endswith(f" belongs to the task {task_id}\n")


def test_waiting_too_long(cli: Cli) -> None:
    code, text = cli("enqueue", MODULE, "add", "--args", "[1]", "--wait", "0.01")
    assert code == 3
    assert "it continues" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ad",), "no task 'ad' (--unknown allows any); did you mean 'add'?"),
        (("add", "--args", "[1"), "--args is not JSON"),
        (("add", "--args", '{"a": 1}'), "must be a JSON array"),
        (("add", "--kwargs", "[1]"), "must be a JSON object"),
        (("add", "--priority", "none"), "known: default, low"),
        (("add", "--delay", "soon"), "not a duration"),
    ],
)
def test_misuse_of_enqueue(app: Ardiq, cli: Cli, words: tuple[str, ...], says: str) -> None:
    code, text = cli("enqueue", MODULE, *words)
    assert code == 2
    assert says in text
    assert asyncio.run(app.queue_size()) == 0


def test_a_schedule_is_put_changed_and_shown(cli: Cli) -> None:
    assert cli("schedule", "put", MODULE, "s", "add", "0 6 * * *", "--tz", "Europe/Berlin", "--args", "[1]")[0] == 0
    code, text = cli("schedule", "show", MODULE, "s")
    assert code == 0
    assert "task add, 0 6 * * * Europe/Berlin, 20" in text
    assert "last outcome none yet" in text
    code, shown = cli.json("schedule", "put", MODULE, "s", "add", "--every", "5m", "--missed", "once", "--args", "[1]")
    assert (code, shown["every_ms"], shown["missed"], shown["spec"]) == (0, 300_000, "once", None)
    assert cli.json("status", MODULE)[1]["schedules"][0]["name"] == "s"
    code, text = cli("schedule", "put", MODULE, "s", "add", "0 6 * *", "--args", "[1]")
    assert code == 2
    assert len(text.splitlines()) == 1
    assert cli.json("schedule", "remove", MODULE, "s") == (0, {"name": "s", "changed": True})
    assert cli("schedule", "show", MODULE, "s") == (1, "there is no schedule 's'\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Cli, shell: str, tmp_path: Path) -> None:
    code, script = cli("completion", shell)
    assert code == 0
    for word in ("status", "abort", "purge"):
        assert word in script
    (tmp_path / "script").write_text(script)
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=SOON_S)


def test_bash_completes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(cli("completion", "bash")[1])
    for words, answer in (
        ("sta", "status"),
        ("migrate s", "status show"),
        ("dlq re", "requeue replay"),
        ("task s", "show stream"),
        ("schedule pu", "put"),
        ("top --sort f", "failed"),
    ):
        before, _, typed = f"ardiq {words}".rpartition(" ")
        count = len(before.split())
        ask = f"source ./script; COMP_WORDS=(ardiq {words}); COMP_CWORD={count}; _shtab_ardiq ardiq {typed} "
        done = subprocess.run(
            ["bash", "-c", f"{ask}{before.split()[-1]}; echo ${{COMPREPLY[@]}}"],
            cwd=tmp_path, check=False, capture_output=True, text=True, timeout=SOON_S,
        )  # fmt: skip
        assert done.stdout.strip() == answer, done.stderr


def test_completion_without_shtab(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, text = cli("completion", "bash")
    assert code == 1
    assert "ardiq[cli]" in text


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        *[("90", 90_000), ("1.5s", 1500), ("500ms", 500), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)],
        *[("0.0006", 1), ("1.6ms", 2)],  # rounded, as elsewhere
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds
    assert duration_ms("0", least=0) == duration_ms("0s", least=0) == 0


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "5 minutes", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration_ms(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(850, "850 ms"), (12_300, "12 s"), (200_000, "3 m 20 s"), (3_600_000, "1 h"), (356_400_000, "4 d 3 h")],
)
def test_ages(milliseconds: int, text: str) -> None:
    assert _output.age(milliseconds) == text


@pytest.mark.parametrize("rich", [True, False])
def test_on_a_terminal(app: Ardiq, tmp_path: Path, rich: bool) -> None:
    """`top` draws on the other screen and gives the terminal back; a pipe gets plain text."""
    (tmp_path / "seen.py").write_text(
        f"from ardiq import Ardiq\napp = Ardiq({app.context.server.url!r}, {app.queue_name!r})\n"
    )
    without = "" if rich else "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None; "
    program = f"{without}from ardiq.cli import main; raise SystemExit(main(['top', 'seen:app', '--every', '50ms']))"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(theirs)
    shown = b""
    try:
        while shown.count(b"nothing runs") < 2:
            shown += os.read(ours, 65536)
        process.send_signal(2)
        while b"\x1b[?1049l" not in shown:
            shown += os.read(ours, 65536)
        assert process.wait(SOON_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in shown


def test_watching_in_a_pipe(app: Ardiq, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([None, None])

    def pause(seconds: float) -> None:
        assert seconds == 0.25
        if next(rounds, 0) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("ardiq.cli._output.time.sleep", pause)
    code, text = cli("status", MODULE, "--watch", "250ms", "--json")
    assert code == 0
    assert [json.loads(line)["queue"] for line in text.splitlines()] == [app.queue_name] * 3
