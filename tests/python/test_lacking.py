"""Servers that lack commands, as hosted ones do: what there is is used, what cannot be done without is named."""

import asyncio
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import SOON_S, number_of, result_of, working

from ardiq import Ardiq, LibraryError, OutOfMemory, _core, embedded
from ardiq.cli import main
from ardiq.embedded import Server

LACKS = {
    "functions": ["FUNCTION", "FCALL", "FCALL_RO"],
    "loading of functions": ["FUNCTION"],
    "calls of functions": ["FCALL"],
    "loading of scripts": ["FUNCTION", "FCALL", "SCRIPT"],
    "what it is": ["INFO", "HELLO"],
    "HELLO": ["HELLO"],
    "INFO": ["INFO"],
    "CONFIG": ["CONFIG"],
    "CLIENT": ["CLIENT"],
    "all of them": ["FUNCTION", "FCALL", "FCALL_RO", "SCRIPT", "INFO", "HELLO", "CONFIG", "CLIENT", "WAIT"],
}
HOW = ["renamed", "forbidden"]


@pytest.fixture
def without(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server without some commands: renamed away, or not for its user."""
    servers = []

    def start(commands: list[str], how: str, **settings: str) -> Server:
        real = os.environ.get("ARDIQ_TEST_SERVER") or embedded._binary()
        config, binary = tmp_path / "server.conf", tmp_path / "server"
        probe = Server(binary=real)
        core = _core.Core(probe.url, "ardiq:{q}:")
        # One that it never had cannot be renamed. Asked about none, it would answer about all.
        asked = [*commands, "PING"]
        known = [
            name
            for name, row in zip(asked, core.command(["COMMAND", "INFO", *asked]), strict=True)
            if row and name != "PING"
        ]
        core.close()
        probe.close()
        if how == "renamed":
            config.write_text("".join(f'rename-command {name} ""\n' for name in known))
        else:
            rights = " ".join(f"-{name.lower()}" for name in known)
            config.write_text(f"user default on nopass ~* &* +@all {rights}\n")
        binary.write_text(f'#!/bin/sh\nexec {shlex.quote(real)} {shlex.quote(str(config))} "$@"\n')
        binary.chmod(0o755)
        servers.append(Server(binary=str(binary), settings=settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("commands", LACKS.values(), ids=LACKS)
async def test_it_works_with_what_there_is(
    without: Callable[..., Server],
    make_app: Callable[..., Ardiq],
    commands: list[str],
    how: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = without(commands, how).url
    assert await asyncio.to_thread(main, ["migrate", url]) == 0
    app = make_app(redis_url=url, queue_name="jobs", poll_block_ms=500)
    work = number_of(app)
    async with working(app):
        assert await work.request(1, timeout=SOON_S) == 1
        jobs = await app.enqueue_many(work.prepare(number) for number in range(5))
        assert [(await result_of(job)).value for job in jobs] == list(range(5))
        assert await asyncio.to_thread(main, ["status", url, "--queue", "jobs"]) == 0
        assert await asyncio.to_thread(main, ["doctor", url, "--queue", "jobs"]) == 0
        assert await asyncio.to_thread(main, ["fsck", url, "--queue", "jobs"]) == 0
        assert await asyncio.to_thread(main, ["migrate", "status", url]) == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("how", HOW)
async def test_what_cannot_be_done_without_is_named(
    without: Callable[..., Server], make_app: Callable[..., Ardiq], how: str
) -> None:
    app = make_app(redis_url=without(["FCALL", "EVALSHA", "EVAL", "SCRIPT"], how).url, queue_name="jobs")
    number_of(app)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Exception, match=r"(?i)\bEVALSHA\b|'fcall'") as told:
            await app.run()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("commands", [["CONFIG"], ["INFO"]])
def test_what_one_command_does_not_tell_another_does(
    without: Callable[..., Server], commands: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"maxmemory-policy": "allkeys-lru", "appendonly": "yes"}
    server = without(commands, "renamed", **settings)
    core = _core.Core(server.url, "ardiq:{default}:")
    core.call("enqueue", ["one", "work", "default", "[]", "", ""])
    core.close()
    assert main(["doctor", server.url]) == 1
    said = capsys.readouterr().out
    assert "maxmemory-policy: allkeys-lru: at a memory limit tasks may be evicted" in said
    assert "persistence: append-only file" in said


async def test_a_command_that_only_the_lua_calls_is_named(
    without: Callable[..., Server], make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(redis_url=without(["HINCRBY", "SADD"], "renamed").url, queue_name="jobs")
    with pytest.raises(LibraryError, match=r"the server lacks HINCRBY, SADD, which `enqueue` calls"):
        await app.ref("work").enqueue()


def test_the_commands_of_the_lua_are_commands(server: Server) -> None:
    core = _core.Core(server.url, "ardiq:{q}:")
    words = sorted({word for name in json.loads(_core.PROTOCOL)["functions"] for word in _core.commands(name)})
    assert [word for word, row in zip(words, core.command(["COMMAND", "INFO", *words]), strict=True) if not row] == []
    core.close()


async def test_a_full_server_that_lost_its_functions_is_emptied(
    without: Callable[..., Server], make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(redis_url=without([], "renamed").url, queue_name="jobs")
    work = number_of(app)
    jobs = await app.enqueue_many(work.prepare(number) for number in range(5))
    core = app.context.server.core
    core.command(["CONFIG", "SET", "maxmemory", 1])
    try:
        core.command(["FUNCTION", "FLUSH"])
    except Exception:  # it never had any
        core.command(["SCRIPT", "FLUSH"])
    with pytest.raises(OutOfMemory):
        await work.enqueue(1)
    async with working(app):
        assert [(await result_of(job)).value for job in jobs] == list(range(5))
        with pytest.raises(OutOfMemory):
            await work.enqueue(1)


async def test_a_right_that_comes_back_is_used(without: Callable[..., Server], make_app: Callable[..., Ardiq]) -> None:
    server = without([], "renamed")
    admin = _core.Core(server.url, "ardiq:{q}:")
    admin.command(shlex.split("ACL SETUSER me on >secret ~* &* +@all"))
    app = make_app(redis_url=f"{server.url}?username=me&password=secret", queue_name="jobs")
    work = app.ref("work")
    await work.enqueue()
    has_functions = bool(admin.command(["COMMAND", "INFO", "FCALL"])[0])
    for right in ["fcall", "evalsha"][not has_functions :]:
        admin.command(["ACL", "SETUSER", "me", f"-{right}"])
    with pytest.raises(Exception, match="fcall" if has_functions else "evalsha"):
        await work.enqueue()
    admin.command(["ACL", "SETUSER", "me", "+fcall" if has_functions else "+evalsha"])
    await work.enqueue()
    admin.close()


def test_a_library_that_may_not_be_seen_is_not_taken_for_none(
    without: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = without(["FUNCTION"], "renamed")
    assert main(["migrate", "status", server.url]) == 0
    said = capsys.readouterr().out
    assert "no functions, using scripts: ERR unknown command" in said
    assert "FUNCTION" in said
