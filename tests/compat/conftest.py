"""Programs run on ArdiQ 1.2 and on this tree, each on a server of its own; what differs is deliberate, or a fault."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deliberate import DELIBERATE, OPEN

from ardiq._core import Core
from ardiq.embedded import Server

HERE = Path(__file__).parent
OLD = Path(sys.prefix, "ardiq-1.2", "bin", "python")
Run = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Server, Server]]:
    if not OLD.exists():
        pytest.skip("ArdiQ 1.2 is not installed here: make compat")
    binary = os.environ.get("ARDIQ_TEST_SERVER")
    with Server(binary=binary) as old, Server(binary=binary) as new:
        yield old, new


@pytest.fixture
def both(servers: tuple[Server, Server], tmp_path: Path) -> Run:
    """Runs a program of `programs/` on both; gives what each saw."""

    def run(*command: str) -> tuple[Any, Any]:
        for server in servers:
            Core(server.url, "ardiq:{flush}:").command(["FLUSHALL"])
        return _seen(OLD, servers[0], tmp_path, command), _seen(Path(sys.executable), servers[1], tmp_path, command)

    return run


def _seen(python: Path, server: Server, folder: Path, command: tuple[str, ...]) -> Any:
    environment = {**os.environ, "ARDIQ_REDIS_URL": server.url, "PYTHONPATH": str(HERE / "programs"), "TERM": "dumb"}
    ended = subprocess.run(
        [python, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    # 1.2 may crash when the interpreter ends: by then everything is seen.
    crashed_at_exit = python == OLD and ended.returncode == -signal.SIGSEGV
    assert ended.returncode == 0 or crashed_at_exit, (
        f"{python} {command}: {ended.stdout[-1000:]}\n{ended.stderr[-4000:]}"
    )
    return json.loads(ended.stdout.splitlines()[-1])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for title, found in (
        ("deliberate differences from ArdiQ 1.2", DELIBERATE),
        ("still to be mended", OPEN),
    ):
        terminalreporter.section(title)
        for program, differences in found.items():
            for name, why in differences.items():
                terminalreporter.write_line(f"{program}: {name}: {why}")
