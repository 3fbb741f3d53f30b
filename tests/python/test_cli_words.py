"""What is typed: words in any order, words that make no sense (exit code 2), answers that are no (1), `--json`."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import drain

from ardiq import Ardiq, BrokerError, _core
from ardiq.cli import _output

MODULE = f"{__name__}:words_app"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app(priorities=["low", "default"])

    @app.task(max_retries=0)
    async def add(a: int, b: int = 0) -> int:
        raise ValueError(a + b)

    @app.task
    async def nothing() -> None: ...

    monkeypatch.setattr(sys.modules[__name__], "words_app", app, raising=False)
    return app


@pytest.fixture
def ardiq(app: Ardiq, ardiq: Run) -> Run:
    return ardiq


def dead_letter(app: Ardiq, task_id: str) -> None:
    async def work() -> None:
        await app.ref("add").options(task_id=task_id).enqueue(1)
        await drain(app)

    asyncio.run(work())


@pytest.mark.parametrize("url", ["redis://me:geheim@h:1", "redis://me:1/geheim@h", "redis://h?password=geheim"])
@pytest.mark.parametrize(
    "command",
    ["URL", "run URL", "status URL --none", "migrate URL URL", "dlq list APP URL", "fsck URL x", "status URL"],
)
def test_a_password_is_never_shown(ardiq: Run, command: str, url: str) -> None:
    code, text = ardiq(*command.replace("URL", url).replace("APP", MODULE).split())
    assert code == 2 or (code == 1 and "cannot reach" in text)
    assert "geheim" not in text


@pytest.mark.parametrize(
    "url", ["redis://:1#geheim@h", "unix:///s?password=1#geheim", "redis+cluster://me:1/geheim@h,i"]
)
def test_a_password_that_ends_too_early_is_refused(url: str, ardiq: Run) -> None:
    with pytest.raises(ValueError, match="percent-encode the password") as refused:
        Ardiq(url)
    assert "geheim" not in str(refused.value)
    for command in ("migrate", "fsck"):
        code, text = ardiq(command, url)
        assert (code, text.count("\n")) == (2, 1)
        assert "percent-encode the password" in text
        assert "geheim" not in text


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("migrate http://x", 'unknown scheme "http"'),
        ("migrate redis://localhost:99999", "invalid port number"),
        ("migrate embedded://x", "expected 'embedded://' or 'embedded:///absolute/path'"),
        ("migrate --to 9", "knows versions 1 to"),
        ("migrate --to 0", "knows versions 1 to"),
        ("migrate status --prune", "--prune cannot be combined with status"),
        ("migrate show --json", "--json cannot be combined with show"),
        ("migrate show APP", "it takes no server"),
        ("fsck foo://x", 'unknown scheme "foo"'),
        ("fsck APP --queue a}b", "--queue 'a}b' must not contain braces"),
        ("fsck APP --queue ", "--queue must not be empty"),
        ("dlq replay APP --all --rate nan", "--rate must be 0 or more, not nan"),
        ("dlq replay APP --all --rate inf", "--rate must be 0 or more, not inf"),
        ("dlq list APP --task ", "--task: it must not be empty"),
        ("dlq list APP --error \n", "--error: '\\n' has control characters"),
        ("dlq show APP ", "ID: it must not be empty"),
        ("pause APP --arg a=1.5", "only a string, an integer or a boolean can be matched, not 1.5"),
        ("pause APP --task add --arg zz=42", "task 'add' does not have a parameter 'zz'"),
        ("pause APP --task ", "--task: it must not be empty"),
        ("resume APP --arg a=1.5", "only a string, an integer or a boolean can be matched, not 1.5"),
        ("enqueue APP nosuch", "has no task 'nosuch' (--unknown allows any); known: add, nothing"),
        ("enqueue APP add", "task 'add': missing a required argument: 'a'"),
        ("enqueue APP add --args [1,2,3]", "task 'add': too many positional arguments"),
        ('enqueue APP add --args ["x"]', "argument 'a' does not fit its annotation: Expected `int`, got `str`"),
        ('enqueue APP add --kwargs {"a":1,"b":[]}', "argument 'b' does not fit its annotation"),
        ("enqueue APP nothing --id ", "--id: it must not be empty"),
        ("enqueue APP nothing --id a\nb", "--id: 'a\\nb' has control characters"),
        ("enqueue APP nothing --wait nan", "'nan' is not a duration"),
        ("enqueue APP nothing --wait -1", "--wait: it must not be negative, not -1"),
        ("enqueue APP nothing --delay 99999999999d", "--delay: it must be at most a hundred years, not 99999999999d"),
        ("schedule put APP s add --jitter=-5ms", "--jitter: it must not be negative, not -5ms"),
        ("schedule put APP s add --every 0", "--every: it must be at least 1 ms, not 0"),
        (
            "dlq list APP --since=-2h",
            "--since: '-2h' is not a time, such as 2h or 2026-03-01T09:00: it must be at least",
        ),
        ("dlq list APP --until nan", "--until: 'nan' is not a time, such as 2h or 2026-03-01T09:00"),
        ("dlq list APP -n 0", "-n/--limit: expected a whole number, at least 1, got '0'"),
        ("schedule put APP s nosuch --every 5m", "has no task 'nosuch' (--unknown allows any); known: add, nothing"),
        ("schedule put APP s add --every 5m", "task 'add': missing a required argument: 'a'"),
        ('schedule put APP s add --every 5m --args ["x"]', "argument 'a' does not fit its annotation"),
        ("schedule put APP s nothing", "give either a cron expression or every="),
        ("schedule pause APP ", "NAME: it must not be empty"),
        ("task show APP ", "ID: it must not be empty"),
        ("top APP -n 0", "expected a whole number, at least 1, got '0'"),
    ],
)
def test_what_makes_no_sense(app: Ardiq, ardiq: Run, command: str, says: str) -> None:
    code, text = ardiq(*(MODULE if word == "APP" else word for word in command.split(" ")))
    assert code == 2
    assert says in text.splitlines()[-1]
    assert "Traceback" not in text
    assert "not a duration" not in text or "duration" in says
    assert asyncio.run(app.queue_size()) == 0


@pytest.mark.parametrize("command", ["enqueue APP mail", "pause APP --task mail", "schedule put APP s mail --every 5m"])
def test_an_app_whose_tasks_are_in_other_modules(
    make_app: Callable[..., Ardiq], ardiq: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "app_alone", make_app(), raising=False)
    code, text = ardiq(*(f"{__name__}:app_alone" if word == "APP" else word for word in command.split(" ")))
    assert (code, text.count("\n")) == (2, 1)
    assert "has no tasks (--unknown allows any). If they are in other modules" in text


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("task show APP none", "there is no such task"),
        ("dlq show APP none", "none: there is no such dead letter"),
        ("schedule show APP none", "there is no schedule 'none'"),
        ("resume APP --task none", "no such pause: task 'none'"),
        ("purge APP -y --lane none", "there is no lane 'none'; known: default, low"),
        ("fsck APP --queue none", "there is no queue 'none' on this server"),
        ("fsck embedded:///dev/null/x", "cannot keep its data in /dev/null/x: Not a directory"),
        ("dlq replay APP none other", "none: there is no such dead letter\nother: there is no such dead letter"),
        ("dlq replay APP none other --args [7]", "none: there is no such dead letter\nother: there is no such dead"),
    ],
)
def test_what_is_not_there(ardiq: Run, command: str, says: str) -> None:
    code, text = ardiq(*(MODULE if word == "APP" else word for word in command.split(" ")))
    assert code == 1
    assert says in text


def test_options_stand_anywhere(ardiq: Run, server: Any) -> None:
    assert ardiq("enqueue", "--id", "mine", MODULE, "--args", "[1]", "add", "--kwargs", '{"b": 2}') == (0, "mine\n")
    assert ardiq("schedule", "put", MODULE, "s", "nothing", "--tz", "Europe/Berlin", "0 6 * * *")[0] == 0
    assert ardiq("migrate", "--check", "status", server.url)[0] == 2
    assert ardiq("migrate", "--dry-run", MODULE)[0] == 0
    assert json.loads(ardiq("migrate", "status", "--json", server.url)[1])["server"]
    code, text = ardiq("dlq", "delete", MODULE, "--json", "a", "b")
    assert (code, sorted(json.loads(text)["left"])) == (1, ["a", "b"])
    assert ardiq("task", "show", MODULE, "--", "-x")[0] == 1
    assert ardiq("task", "show", MODULE, "a", "b")[0] == 2


def test_new_arguments_are_those_of_the_task(app: Ardiq, ardiq: Run) -> None:
    dead_letter(app, "first")
    dead_letter(app, "second")
    for args in ('["x"]', "[1, 2, 3]"):
        code, text = ardiq("dlq", "replay", MODULE, "first", "second", "--args", args)
        assert (code, text.count("\n")) == (2, 1)
        code, text = ardiq("dlq", "replay", MODULE, "--all", "--task", "add", "--args", args)
        assert (code, text.count("\n")) == (2, 1)
    assert asyncio.run(app.dead_count()) == 2
    code, text = ardiq("dlq", "replay", MODULE, "first", "none", "--args", "[7]", "--json")
    assert code == 1
    assert json.loads(text) == {"replayed": 1, "left": {"none": "there is no such dead letter"}}


def test_pauses_for_programs(app: Ardiq, ardiq: Run) -> None:
    told = {"queue": app.queue_name, "task": "add", "argument": "a", "value": 4, "changed": True}
    words = (MODULE, "--task", "add", "--arg", "a=4", "--json")
    assert (code_and_json := ardiq("pause", *words))[0] == 0
    assert json.loads(code_and_json[1]) == told
    assert json.loads(ardiq("resume", *words)[1]) == told
    code, text = ardiq("resume", *words)
    assert (code, json.loads(text)) == (1, told | {"changed": False})
    assert json.loads(ardiq("pause", MODULE, "--json")[1]) == told | {"task": None, "argument": None, "value": None}
    assert ardiq("resume", MODULE)[0] == 0


def test_migrate_for_programs(ardiq: Run, server: Any) -> None:
    status = json.loads(ardiq("migrate", "status", server.url, "--json")[1])
    assert {"installed", "pending", "data_version", "maxmemory_policy"} <= set(status)
    ardiq("migrate", server.url, "--prune")
    told = json.loads(ardiq("migrate", server.url, "--json")[1])
    assert told == {"server": status["server"], "pending": [], "done": []}
    assert json.loads(ardiq("migrate", server.url, "--prune", "--json")[1])["done"] == []


def test_a_lane_of_the_queue_that_the_app_does_not_have(app: Ardiq, make_app: Any, ardiq: Run) -> None:
    other: Ardiq = make_app(queue_name=app.queue_name, priorities=["bulk"])
    asyncio.run(other.send("nothing"))
    assert "bulk" in ardiq("status", MODULE)[1]
    assert ardiq("purge", MODULE, "--lane", "bulk", "-y") == (0, "1 removed\n")


def test_another_queue_of_the_app(app: Ardiq, make_app: Any, ardiq: Run) -> None:
    other: Ardiq = make_app(priorities=["low", "default"])
    words = (MODULE, "--queue", other.queue_name)
    code, text = ardiq("enqueue", *words, "nothing", "--id", "there")
    assert (code, text.splitlines()[0]) == (0, "there")
    assert asyncio.run(other.status("there")) == "queued"
    assert asyncio.run(app.queue_size()) == 0
    assert json.loads(ardiq("status", *words, "--json")[1])["counts"]["queued"] == 1
    assert ardiq("task", "show", *words, "there")[0] == 0
    assert ardiq("pause", *words) == (0, f"paused queue {other.queue_name!r}\n")
    assert f"`ardiq resume MODULE:ATTR --queue {other.queue_name}`" in ardiq("doctor", *words)[1]
    assert ardiq("resume", *words)[0] == 0
    assert ardiq("purge", *words, "-y") == (0, "1 removed\n")
    for queue in ("", "a}b"):
        code, text = ardiq("status", MODULE, "--queue", queue)
        assert (code, text.count("\n")) == (2, 1)


def test_tables_have_one_blank_line_between_them(app: Ardiq, ardiq: Run) -> None:
    ardiq("pause", MODULE)
    ardiq("enqueue", MODULE, "nothing")
    ardiq("schedule", "put", MODULE, "s", "nothing", "--every", "5m")
    text = ardiq("status", MODULE)[1]
    assert "\n\n" in text
    assert "\n\n\n" not in text
    ardiq("resume", MODULE)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://x", 'shop.py, line 2: redis_url: http://x/: unknown scheme "http"'),
        ("embedded://x", "shop.py, line 2: 'embedded://x': expected 'embedded://'"),
        ("embedded:x", "shop.py, line 2: 'embedded:x': expected 'embedded://'"),
    ],
)
def test_what_ardiq_refuses_in_a_module_is_one_line(tmp_path: Path, url: str, says: str) -> None:
    (tmp_path / "shop.py").write_text(f"from ardiq import Ardiq\napp = Ardiq({url!r})\n")
    command = [sys.executable, "-m", "ardiq", "status", "shop:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_a_module_gets_wrong_is_shown_from_its_first_line_on(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def price():\n    return int('x')\nprice()\n")
    command = [sys.executable, "-m", "ardiq", "status", "shop:app"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert 'shop.py", line 3' in ended.stderr.splitlines()[1]
    assert ended.stderr.splitlines()[-1].startswith("ardiq: importing 'shop' failed: ValueError: invalid literal")


@pytest.mark.parametrize("program", ["census.py", "limits.py", "workflow.py"])
def test_ctrl_c_while_a_demonstration_is_imported(program: str, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    demonstration = Path(__file__).parents[2] / "docs" / "demo" / program
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(demonstration)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_narrow_terminal_gets_ids_in_one_piece(
    ardiq: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich import console

    table = _output.Table(["id", "task", "error"], [["a" * 20, "send", "ValueError('no good')"]])
    for width, is_table in ((120, True), (45, True), (38, False)):
        monkeypatch.setattr(_output, "_console", lambda width=width: console.Console(width=width, highlight=False))
        _output.show(table)
        shown = capsys.readouterr().out
        assert ("──" in shown) is is_table
        assert "a" * 20 in shown or is_table


def test_without_streams(app: Ardiq, server: Any, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(f"from ardiq import Ardiq\napp = Ardiq({server.url!r})\n")
    for words in ("status shop:app", "top shop:app", "dlq list shop:app", "purge shop:app -y", "task show shop:app x"):
        script = f"exec {sys.executable} -m ardiq {words} <&- >&- 2>&-"
        ended = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False)
        assert ended.returncode == int(words.startswith("task"))


PROGRAM = str(Path(sys.executable).with_name("ardiq"))
INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
AT_THE_END = "import atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGINT) or 1)\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"shop.py": INTERRUPT}, "status shop:app"),
        ({"shop.py": INTERRUPT}, "dlq list shop:app"),
        ({"shop.py": INTERRUPT}, "run shop:app"),
        ({"shop.py": AT_THE_END}, "status shop:app"),
        ({"msgspec.py": INTERRUPT}, "run shop:app"),  # while Ardiq itself is imported
    ],
)
def test_ctrl_c_at_any_time(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [PROGRAM, *words.split()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert "KeyboardInterrupt" not in ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_takes_nothing(server: Any, tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "shop.py").write_text(f"from ardiq import Ardiq\napp = Ardiq({server.url!r})\n")
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    for words in ("status shop:app", "dlq list shop:app --json", "--help"):
        for output, told in (("/dev/full", "No space left on device"), ("closed", "")):
            if output == "closed":
                reader, writer = os.pipe()
                os.close(reader)
            else:
                writer = os.open(output, os.O_WRONLY)
            command = [PROGRAM, *words.split()]
            ended = subprocess.run(
                command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
            )
            os.close(writer)
            if told:
                as_json = json.dumps({"error": told, "exit_code": 1})
                told = f"{as_json if '--json' in words else f'ardiq: {told}'}\n"
            assert (words, output, ended.returncode, ended.stderr) == (words, output, 1, told)


def test_what_is_too_much_is_told_with_the_usage_of_the_command(ardiq: Run) -> None:
    for words in (("enqueue", MODULE, "add", "1"), ("task", "show", MODULE, "a", "b"), ("status", MODULE, "--none")):
        code, text = ardiq(*words)
        command = " ".join(words[:2] if words[0] == "task" else words[:1])
        assert code == 2
        assert text.startswith(f"usage: ardiq {command} [-h]")
        assert text.splitlines()[-1] == f"ardiq {command}: error: unrecognized arguments: {words[-1]}"


def test_a_dead_letter_that_is_left_is_named_once(app: Ardiq, make_app: Any, ardiq: Run) -> None:
    dead_letter(app, "unsigned")
    signing: Ardiq = make_app(queue_name=app.queue_name, priorities=["low", "default"], signing_key="k" * 32)
    sys.modules[__name__].words_app = signing  # type: ignore[attr-defined]
    code, text = ardiq("dlq", "replay", MODULE, "unsigned", "--args", "[7]")
    assert code == 1
    assert text.count("unsigned") == 1
    assert text.startswith("dead letter 'unsigned': ")
    # A word of the reason is not yet its name.
    assert ardiq("dlq", "replay", MODULE, "dead") == (1, "dead: there is no such dead letter\n0 replayed\n")


def test_ctrl_c_while_waiting_tells_of_which_task(ardiq: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ardiq.job.Job.result_sync", lambda *_, **__: interrupted())
    assert ardiq("enqueue", MODULE, "nothing", "--id", "mine", "--wait", "5m") == (130, "mine continues\n")


def test_a_server_that_goes_away_while_waiting(ardiq: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise BrokerError("cannot reach it")

    monkeypatch.setattr("ardiq.job.Job.result_sync", away)
    code, text = ardiq("enqueue", MODULE, "nothing", "--id", "mine", "--wait", "5m")
    assert (code, text) == (1, "ardiq: mine is enqueued, but waiting for it failed: cannot reach it\n")


def test_ctrl_c_does_not_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        module = f"from ardiq import Ardiq\napp = Ardiq({url!r}, broker_timeout_ms=600_000)\n"
        (tmp_path / "shop.py").write_text(module)
        command = [sys.executable, "-m", "ardiq", "dlq", "list", "shop:app"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            silent.accept()[0].close()
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == (None, "")
            assert process.returncode == 130
        finally:
            process.kill()
            process.wait()


@pytest.mark.damages_keys
def test_what_somebody_wrote_by_hand_is_shown_as_well_as_it_goes(app: Ardiq, ardiq: Run) -> None:
    core, base = app.context.server.core, f"ardiq:{{{app.queue_name}}}:"

    def write(key: str, *fields: str) -> None:
        core.command(["HSET", base + key, *(part for field in fields for part in (field, 'x{"'))])

    dead_letter(app, "dead")
    asyncio.run(app.ref("add").options(task_id="held").enqueue(1))
    asyncio.run(app.ref("nothing").options(task_id="later", delay_ms=60_000).enqueue())
    asyncio.run(app.pause("nothing"))
    asyncio.run(app.schedules.put("s", "nothing", every=60))
    core.call("join", ["w:1", 60_000, "{}", '["default"]', 1])
    core.call("claim", ["w:1", '["default"]', 1, 60_000])
    numbers = ("tries", "lost", "enqueued_at", "due_at", "started_at", "finished_at", "expires_at")
    for task_id in ("dead", "held", "later"):
        write(f"task:{task_id}", *numbers, "args", "kwargs", "result", "progress", "history", "meta", "headers")
    core.command(["HSET", f"{base}task:held", "progress", '{"fraction": "x", "message": []}', "history", "[7]"])
    write("worker:w:1", "info", "lanes", "abandoned_threads")
    write("pauses", "nothing()")
    write("schedules", "s")
    minute = int(core.command(["TIME"])[0]) // 60
    write(f"stats:{minute}", "completed")
    write(f"task_stats:{minute}", "add")
    core.command(["HSET", f"{base}task_stats:{minute}", "nothing", '[[], "x", null]', "other", "7"])
    for command in ("status", "top", "doctor", "fsck", "schedule list", "schedule show s", "dlq list", "dlq show dead"):
        for words in ((), ("--json",)):
            first, *rest = command.split()
            action = [rest.pop(0)] if first in ("schedule", "dlq") else []
            code, text = ardiq(first, *action, MODULE, *rest, *words)
            assert code in (0, 1), text
    for task_id in ("dead", "held", "later"):
        for words in ((), ("--json",)):
            code, text = ardiq("task", "show", MODULE, task_id, *words)
            assert (code, task_id in text) == (0, True)
    assert ardiq("schedule", "run", MODULE, "s") == (
        1,
        "ardiq: schedule 's' is invalid: put it again, or remove it\n",
    )
    assert ardiq("task", "abort", MODULE, "later")[0] == 0


def test_the_version(ardiq: Run) -> None:
    assert ardiq("--version") == (0, f"Ardiq {_core.VERSION}, version {_core.PROTOCOL_VERSION} of the library\n")
