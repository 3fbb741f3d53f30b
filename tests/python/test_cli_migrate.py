"""`ardiq migrate`: the plan, what it loads, and what it refuses."""

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S

from ardiq import Ardiq as App
from ardiq import LibraryError, _core
from ardiq.cli import main
from ardiq.embedded import Server

Ardiq = Callable[..., tuple[int, str]]
LIBRARY = f"ardiq_v{_core.PROTOCOL_VERSION}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server


@pytest.fixture
def core(server: Server) -> Iterator[_core.Core]:
    core = _core.Core(server.url, "ardiq:{default}:")
    yield core
    core.close()


@pytest.fixture
def functions(core: _core.Core) -> None:
    """Only for servers that have them."""
    if not core.migrate_status()["functions"]:
        pytest.skip("a server without functions")


@pytest.fixture
def migrate(server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    monkeypatch.setattr("ardiq.cli.migrate.DEFAULT_URL", server.url)

    def run(*words: str) -> tuple[int, str]:
        code = main(["migrate", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def libraries(core: _core.Core) -> list[Any]:
    found: list[Any] = core.command(["FUNCTION", "LIST"])
    return found


def another_library() -> str:
    payload, _ = _core.library()
    return payload + "\n-- edited by hand\n"


@pytest.mark.usefixtures("functions")
def test_it_shows_the_plan_and_carries_it_out(migrate: Ardiq, core: _core.Core) -> None:
    code, output = migrate()
    assert code == 0
    assert re.fullmatch(rf"server: \w+ [\d.]+\nplan: load {LIBRARY}\ndone: load {LIBRARY}\n", output)
    assert len(libraries(core)) == 1
    assert migrate()[1].splitlines()[1:] == ["plan: nothing is pending"]


@pytest.mark.usefixtures("functions")
def test_check_and_dry_run_change_nothing(migrate: Ardiq, core: _core.Core) -> None:
    assert migrate("--check")[0] == 1
    code, output = migrate("--dry-run")
    assert code == 0
    assert f"plan: load {LIBRARY}" in output
    assert libraries(core) == []
    migrate()
    assert migrate("--check")[0] == 0


@pytest.mark.usefixtures("functions")
def test_status_tells_what_is_installed(migrate: Ardiq) -> None:
    assert f"plan: load {LIBRARY}" in migrate("status")[1]
    migrate()
    code, output = migrate("status")
    assert code == 0
    assert f"{LIBRARY}: current, SHA1 {_core.library()[1]}, loaded 20" in output
    assert "maxmemory-policy: noeviction" in output
    assert "plan: nothing is pending" in output


@pytest.mark.usefixtures("functions")
def test_another_library_under_this_version(migrate: Ardiq, core: _core.Core) -> None:
    core.command(["FUNCTION", "LOAD", another_library()])
    assert f"{LIBRARY}: different" in migrate("status")[1]
    code, output = migrate("--check")
    assert code == 1
    assert f"plan: replace {LIBRARY}" in output
    # Of a version that was released, only with force.
    assert migrate("--force")[0] == 0
    assert f"{LIBRARY}: current" in migrate("status")[1]


def test_show_prints_the_library(migrate: Ardiq) -> None:
    code, output = migrate("show")
    assert (code, output) == (0, _core.library()[0])


def test_a_server_without_functions_needs_nothing(migrate: Ardiq, core: _core.Core) -> None:
    if core.migrate_status()["functions"]:
        pytest.skip("a server with functions")
    code, output = migrate()
    assert code == 0
    assert output.splitlines()[1] == "plan: nothing is pending; scripts are loaded when first used"
    assert migrate("--check")[0] == 0
    assert "no functions, using scripts" in migrate("status")[1]


def test_a_server_that_evicts_tasks_is_refused(migrate: Ardiq, core: _core.Core) -> None:
    core.command(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
    code, output = migrate()
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("ardiq: the server's maxmemory-policy is allkeys-lru")
    assert "noeviction" in last
    assert migrate("--force")[0] == 0


def test_prune_has_nothing_to_do(migrate: Ardiq) -> None:
    migrate()
    code, output = migrate("--prune")
    assert code == 0
    assert output.splitlines()[-1] == "nothing to prune"


def test_a_version_that_does_not_exist(migrate: Ardiq) -> None:
    newest = _core.PROTOCOL_VERSION
    for version in (newest + 1, 0):
        code, output = migrate("--to", str(version))
        assert code == 2
        assert output == f"ardiq: this Ardiq {_core.VERSION} knows versions 1 to {newest}, not {version}\n"


@pytest.mark.usefixtures("functions")
def test_each_version_is_loaded_as_it_was_released_beside_those_before(migrate: Ardiq, core: _core.Core) -> None:
    newest = _core.PROTOCOL_VERSION
    for version in range(1, newest + 1):
        assert migrate("--to", str(version))[0] == 0
    installed = {library["version"]: library["sha1"] for library in core.migrate_status()["installed"]}
    assert list(installed) == list(range(1, newest + 1))
    sums = Path(__file__).parents[2] / "lua/releases/SHA1SUMS"
    released = dict(reversed(line.split()) for line in sums.read_text().splitlines()) if sums.exists() else {}
    for version in range(1, newest):
        assert installed[version] == released[f"ardiq_v{version}.lua"]


def test_two_servers_at_once_are_refused(migrate: Ardiq) -> None:
    code, output = migrate("redis://a", "redis://b")
    assert code == 2
    assert output == "ardiq: one server or app at a time, not redis://a redis://b\n"


def test_an_unreachable_server_is_one_line(migrate: Ardiq) -> None:
    code, output = migrate("unix:///nowhere/socket")
    assert code == 1
    assert output.startswith("ardiq: ")
    assert output.count("\n") == 1


@pytest.mark.usefixtures("functions")
async def test_who_is_connected_when_its_version_is_pruned_ends(
    server: Server, core: _core.Core, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App(server.url, queue_name="jobs", prefix="shop")
    work = app.task(name="work")(lambda: 1)
    run = asyncio.create_task(app.run())
    assert await work.request(timeout=SOON_S) == 1
    # As a newer Ardiq's `migrate --prune` does, which would have seen this worker.
    core.command(["HSET", "shop:schema", "data", _core.PROTOCOL_VERSION + 1])
    core.command(["FUNCTION", "DELETE", LIBRARY])
    assert main(["migrate", "status", server.url, "--prefix", "shop"]) == 0
    data = _core.PROTOCOL_VERSION + 1
    assert f"plan: none; the data is of version {data}, which this" in capsys.readouterr().out
    with pytest.raises(LibraryError, match="install a newer Ardiq"):
        await work.enqueue()
    async with asyncio.timeout(SOON_S):
        with pytest.raises(LibraryError, match="install a newer Ardiq"):
            await run
    assert libraries(core) == []
    app.context.server.close()
