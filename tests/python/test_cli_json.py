"""What `--json` prints: one vocabulary in all commands, as `docs/json.md` has it, and nothing else beside it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, working

from ardiq import Ardiq, current_task
from ardiq.cli import main

ROOT = Path(__file__).parents[2]
MODULE = f"{__name__}:json_app"
Run = Callable[..., tuple[int, Any]]

# What is of the user, not of a command.
OF_USERS = {"args", "kwargs", "result", "notes", "headers", "looked_at", "left"}
# Names of the task's record that are for the library.
INTERNAL = {
    *("idempotency_key", "codec", "result_codec", "pause", "abort_requested", "result_ttl_ms"),
    *("waiter", "waiter_ttl_ms"),
}
# Of ArdiQ 1.2: `ardiq status --json`, `ardiq doctor --json`.
OF_1_2 = {
    "queue": None,
    "lanes": {"name", "waiting", "scheduled", "held", "next_scheduled"},
    "running": {"id", "name", "try"},
    "crons": {"name", "next", "last"},
    "workers": {"id", "host", "pid", "version", "started", "concurrency", "held"},
    "gone": {"id", "held"},
    "dead": None,
    "now": None,
}


@dataclass
class Price:
    euros: int
    since: date


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app()

    @app.task
    async def price() -> Price:
        return Price(7, date(2026, 3, 1))

    @app.task
    async def odd() -> Any:
        return {"nan": float("nan"), "raw": b"ab"}

    @app.task(max_retries=0)
    async def broken() -> None:
        raise ValueError("no good")

    @app.task(retry=[0.001])
    async def second_time() -> int:
        task = current_task()
        assert task is not None
        task.progress(0.5, "half")
        task.notes["rows"] = 1
        if task.tries == 1:
            raise ValueError("the first time")
        return 7

    @app.cron(every=3600)
    async def hourly() -> None: ...

    monkeypatch.setattr(sys.modules[__name__], "json_app", app, raising=False)
    return app


@pytest.fixture
def ardiq(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command, APP in it the app; its code and what it printed, errors last."""

    def run(command: str, *words: str) -> tuple[int, Any]:
        code = main([*(MODULE if word == "APP" else word for word in command.split()), *words, "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out or captured.err)

    return run


def names(value: Any) -> Iterator[str]:
    """Every name in what was printed, but those of users."""
    if isinstance(value, list):
        for item in value:
            yield from names(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            if name not in OF_USERS:
                yield from names(item)


def test_one_vocabulary_as_documented(app: Ardiq, ardiq: Run) -> None:
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/json.md").read_text()))

    async def run() -> None:
        app.burst = False
        async with working(app):
            job = await app.ref("second_time").options(task_id="again").enqueue()
            await job.result(timeout=SOON_S)
            await (await app.ref("broken").options(task_id="bad").enqueue()).result(timeout=SOON_S)

    asyncio.run(run())
    commands = [
        *("queues APP", "status APP", "top APP", "doctor APP", "fsck APP", "doctor APP --repair"),
        *("enqueue APP price --id waits", "task show APP waits", "task show APP again", "task show APP bad"),
        *("schedule list APP", "schedule put APP s price --every 5m", "schedule show APP s", "schedule pause APP s"),
        *("schedule run APP s", "schedule resume APP s", "schedule remove APP s", "schedule remove APP s"),
        *(
            "pause APP --task price",
            "status APP",
            "resume APP --task price",
            "dlq list APP",
            "dlq groups APP",
            "dlq show APP bad",
        ),
        *(
            "dlq replay APP bad none",
            "task hurry APP bad",
            "task list APP --place dead",
            "task abort APP bad",
            "task requeue APP bad",
            "purge APP -y",
            "task show APP none",
        ),
        *("dlq discard APP --all -y", "enqueue APP price --wait 0.01", "status APP --queue none", "status APP --none"),
        *("migrate APP --dry-run", "migrate status APP", "nosuch APP"),
    ]
    for command in commands:
        code, told = ardiq(command)
        found = set(names(told))
        unknown = found - documented - INTERNAL
        assert (command, unknown) == (command, set())
        assert code in (0, 1, 2, 3)


async def test_nothing_that_is_documented_goes(app: Ardiq, ardiq: Run) -> None:
    rows = re.findall(r"^\| (.*) \| (.*) \|$", (ROOT / "docs/json.md").read_text(), re.MULTILINE)
    documented = {first.partition("`,")[0].strip("`"): set(re.findall(r"`(\w+)`", rest)) for first, rest in rows}
    await app.ref("broken").enqueue()
    async with working(app):
        await app.ref("price").request(timeout=SOON_S)
        await eventually(app.dead_count)
        _, status = await asyncio.to_thread(ardiq, "status APP")
        _, top = await asyncio.to_thread(ardiq, "top APP")
        _, (letter,) = await asyncio.to_thread(ardiq, "dlq list APP")
    assert set(status) == documented["status"]
    assert set(top) == documented["top"]
    assert set(letter) == documented["dlq list"]
    assert set(status["lanes"][0]) == documented["lanes"]
    assert set(status["workers"][0]) == documented["workers"]
    assert set(status["minutes"][0]) == {"at", *status["last_minutes"]}


async def test_what_programs_of_1_2_read_is_there(app: Ardiq, ardiq: Run) -> None:
    async with working(app):
        await app.ref("price").request(timeout=SOON_S)
        _, told = await asyncio.to_thread(ardiq, "status APP")
        assert set(told) >= set(OF_1_2)
        for name, of_each in OF_1_2.items():
            for item in told[name] if of_each else ():
                assert set(item) >= of_each, name
        assert (told["crons"][0]["name"], len(told["workers"]), told["dead"]) == ("hourly", 1, 0)
        code, told = await asyncio.to_thread(ardiq, "doctor APP")
        assert (code, told["ok"]) == (0, True)
        assert all({"name", "status", "detail"} <= set(check) for check in told["checks"])


async def test_a_result_is_json_too(app: Ardiq, ardiq: Run) -> None:
    async with working(app):
        wait = ("--wait", str(SOON_S))
        code, told = await asyncio.to_thread(ardiq, "enqueue APP price", *wait)
        assert (code, told["state"], told["result"]) == (0, "complete", {"euros": 7, "since": "2026-03-01"})
        assert (await asyncio.to_thread(ardiq, f"task show APP {told['id']}"))[1]["result"] == told["result"]
        code, told = await asyncio.to_thread(ardiq, "enqueue APP odd", *wait)
        assert told["result"] == {"nan": None, "raw": "YWI="}
        code, told = await asyncio.to_thread(ardiq, "enqueue APP broken", *wait)
        assert (code, told["state"], told["error"], "result" in told) == (1, "failed", "ValueError('no good')", False)
    # Without --json, too.
    ended = asyncio.create_task(drain(app))
    job = await app.ref("price").enqueue()
    await ended
    assert main(["task", "show", MODULE, job.id]) == 0


def test_a_success_shows_its_result_and_what_failed_before(
    app: Ardiq, ardiq: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with working(app):
            await (await app.ref("second_time").options(task_id="again").enqueue()).result(timeout=SOON_S)

    asyncio.run(run())
    _, told = ardiq("task show APP again")
    assert (told["state"], told["result"], told["tries"]) == ("complete", 7, 2)
    assert not {"error", "traceback"} & set(told)
    (failed,) = told["history"]
    assert (failed["try"], failed["error"]) == (1, "ValueError('the first time')")
    assert "Traceback" in failed["traceback"]
    main(["task", "show", MODULE, "again"])
    text = capsys.readouterr().out
    assert "result 7\n" in text
    assert "\nerror" not in text
    assert text.index("attempt") < text.index("ValueError('the first time')")


def test_what_a_module_prints_is_not_in_the_output(server: Any, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        f"""
from ardiq import Ardiq
print("imported")
app = Ardiq({server.url!r}, "prints")

@app.task
async def add(a: int) -> int: ...

@app.on_enqueue
def tell(ctx):
    print("hooked")
"""
    )
    for words in ("enqueue shop:app add --args [1] --json", "status shop:app --json", "dlq list shop:app --json"):
        command = [sys.executable, "-m", "ardiq", *words.split()]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        json.loads(ended.stdout)
        assert ended.stderr.splitlines()[0] == "imported"
    ended = subprocess.run(
        [sys.executable, "-m", "ardiq", "enqueue", "shop:app", "add", "--args", "[1]", "--id", "mine"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("mine\n", "imported\nhooked\n")
    asyncio.run(Ardiq(server.url, "prints").abort("mine"))


@pytest.mark.parametrize(
    ("command", "code"),
    [("status APP --queue none", 1), ("enqueue APP nosuch", 2), ("status nosuch:app", 2), ("status APP --wtach", 2)],
)
def test_errors_are_json_too(ardiq: Run, command: str, code: int) -> None:
    ended, told = ardiq(command)
    assert (ended, told["exit_code"], set(told)) == (code, code, {"error", "exit_code"})
