"""Whatever the docs tell a reader to type is typed here: every Python example as it stands. test_docs_shell.py does the
shell's.
"""

import ast
import itertools
import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from documents import DOCUMENTS, ROOT, by_name, files

import ardiq
from ardiq import Ardiq, _core
from ardiq.cli import main
from ardiq.embedded import Server

PROGRAMS = by_name("python")
# What comments beside `print` promise.
PRINTED = {
    "README.md-1": ["value=3"],
    "docs/workflows.md-1": ["total=6, done=0"],
    "docs/workflows.md-2": ["False True"],
    "docs/durable.md-4": ["0 All\n1 about\n2 tea\n3 Is that good?\n0 Is that good?\nAll about tea\n"],
}


def run(command: list[str], directory: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_python_example_is_a_program(name: str, tmp_path: Path) -> None:
    """Pasted into a file, it runs, and so does its worker, which imports it: that alone does nothing at the server."""
    with Server() as server:
        environment = {**os.environ, "ARDIQ_REDIS_URL": server.url}
        (tmp_path / "jobs.py").write_text(PROGRAMS[name].replace("redis://localhost:6379", server.url))
        for arguments in (["-c", "import jobs"], ["jobs.py"]):
            core = _core.Core(server.url, "ardiq:{default}:")
            assert core.command(["DBSIZE"]) == 0
            core.close()
            done = run([sys.executable, "-W", "error", *arguments], tmp_path, environment)
        is_for_workers = "@app.task" in PROGRAMS[name] and "embedded:" not in PROGRAMS[name]
        if is_for_workers:
            run([sys.executable, "-m", "ardiq", "run", "jobs:app", "--burst"], tmp_path, environment)
    for line in PRINTED.get(name, []):
        assert line in done.stdout


def test_a_type_checker_accepts_the_examples(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    for number, text in enumerate(PROGRAMS.values()):
        (tmp_path / f"example_{number}.py").write_text(text)
    run([sys.executable, "-m", "mypy", "--disable-error-code=import-untyped", "."], tmp_path, {**os.environ})


def test_files_of_a_project(tmp_path: Path, ardiq_server: str) -> None:
    for name, text in files(ROOT / "docs/testing.md").items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:asyncio"]
    environment = {**os.environ, "ARDIQ_TEST_SERVER": ardiq_server}
    run(command, tmp_path, environment)


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
            return int(app.context.server.core.command(["INFO", "memory"]).decode().split("used_memory:")[1].split()[0])

        async def grown(size: int) -> float:
            before = used()
            await app.enqueue_many(echo.prepare("x" * size) for _ in range(3000))
            await app.run()
            return (used() - before) / 3000

        await grown(2000)  # with the buffers of the connections
        for size, *told in [[int(cell.replace(",", "")) for cell in row] for row in rows]:
            assert abs(await grown(size) / told[column] - 1) < 0.25, size
        app.context.server.close()


ROWS = sorted({
    code
    for line in (ROOT / "docs/coming-from.md").read_text().partition("## Unique, debounced")[2].splitlines()
    if len(cells := line.split(" | ")) == 2
    for code in re.findall(r"`([^`]*[(=][^`]*)`", cells[1])
})  # fmt: skip


def workflow(app: Ardiq) -> dict[str, Any]:
    """What rows of workflows name."""
    flow = ardiq.Flow()

    async def one(value: Any) -> Any: ...
    async def add(x: int, y: int) -> int: ...
    async def report() -> None: ...

    taking = {name: app.task(name=name)(one) for name in ("fetch", "parse", "store", "resize", "montage", "refund")}
    names = {"add": app.task(add), "report": app.task(report), "flow": flow, "url": "a", "paths": ["a", "b"], **taking}
    nodes = {name: flow.add(taking["fetch"].prepare(name), name=name) for name in ("a", "b", "node", "paid")}
    return {**names, **nodes, "small": flow.map(taking["resize"], ["a"])}


@pytest.mark.parametrize("code", ROWS)
def test_what_replaces_a_feature_of_others_can_be_pasted(code: str) -> None:
    app = Ardiq("redis://localhost:6379")
    app.limit("all", concurrency=1)
    names = {**vars(ardiq), "app": app, "timedelta": timedelta, "ms": 1000, **workflow(app)}
    program = f"app.task({code})(sync)" if re.match(r"\w+=", code) else code
    compile(program, "coming-from.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def sync(user_id: int = 0, account_id: int = 0) -> None: ...
    async def gather(items: list[int]) -> None: ...

    if "batch=" in code:
        program = program.replace("(sync)", "(gather)")
    if not program.startswith(("raise ", "await ", "app.limits.", "sync.")):
        exec(program, {**names, "sync": sync, "gather": gather})


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
    for words in (
        "$ ardiq migrate",
        "dashboard at http://127.0.0.1:",
        "largest modules",
        "throughput",
        "redis-cli",
        f"FCALL_RO ardiq_v{_core.PROTOCOL_VERSION}_counts",
    ):
        assert words in done.stdout, words
    assert time.monotonic() - started < 300
