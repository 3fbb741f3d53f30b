"""Every test talks to a real server: the embedded one, or the binary that ARDIQ_TEST_SERVER names."""

import asyncio
import inspect
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Script, leftovers
from projects import project as project

from ardiq import Ardiq
from ardiq.cli import main
from ardiq.embedded import Server

LONGEST_TEST_S = 120
# A run in the background ignores Ctrl-C, and so would the programs that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def bounded() -> None:
        async with asyncio.timeout(LONGEST_TEST_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server


@pytest.fixture
def make_app(server: Server, request: pytest.FixtureRequest) -> Iterator[Callable[..., Ardiq]]:
    """Makes apps with a queue of their own, unless told which. After the test no key may be without an owner."""
    apps: list[Ardiq] = []

    def make(**options: Any) -> Ardiq:
        options = {"redis_url": server.url, "queue_name": f"q{next(_numbers)}", **options}
        apps.append(Ardiq(**options))
        return apps[-1]

    yield make
    apps = [queue.app for app in apps for queue in app.context.family.values()]
    for app in apps:
        app.context.server.close()
    if request.node.get_closest_marker("damages_keys") is None:
        queues = {app.context.server.base: app.result_ttl_ms < 0 for app in apps if app.redis_url == server.url}
        left = [key for base, for_ever in queues.items() for key in leftovers(server, base, for_ever)]
        assert left == [], "keys that nobody would ever take away"


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    return make_app()


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """Starts Python programs, which are gone when the test ends."""
    scripts: list[Script] = []

    def start(source: str, *arguments: str) -> Script:
        scripts.append(Script(tmp_path, source, *arguments, name=f"script{len(scripts)}.py"))
        return scripts[-1]

    yield start
    for script in scripts:
        script.kill()


@pytest.fixture
def ardiq(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command; its exit code and what it printed, errors last."""

    def run(*words: str) -> tuple[int, str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run
