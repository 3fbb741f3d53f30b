"""The compiled core by itself: what fork, exit and signals do to it, and how replies and errors arrive."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import Script

from ardiq import _core, errors
from ardiq.embedded import Server

# A prefix of its own: what another test left open would share the connection, and wait for what is cut off here.
BASE = "core:{core}:"

PROGRAM = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads; it is tried here
from ardiq import _core, errors
core = _core.Core(sys.argv[1], "core:{core}:")
"""


@pytest.fixture
def core(server: Server) -> Iterator[_core.Core]:
    core = _core.Core(server.url, BASE)
    yield core
    core.close()


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that does this."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_replies_are_bytes_and_integers(core: _core.Core) -> None:
    answer = core.command(["EVAL", "return {1, 'two', {3, false}, redis.status_reply('FINE')}", 0])
    assert answer == [1, b"two", [3, None], b"FINE"]
    assert core.command(["ECHO", b"\xff"]) == b"\xff"
    assert core.command(["ECHO", -(2**63)]) == b"-9223372036854775808"


def test_an_error_inside_a_reply_is_an_exception(core: _core.Core) -> None:
    (refusal,) = core.command(["EVAL", "return {redis.error_reply('ARDIQ_LEASE_LOST gone')}", 0])
    assert isinstance(refusal, errors.LeaseLost)
    assert str(refusal) == "gone"


def test_calls_that_do_not_fit_are_refused_before_they_are_sent(core: _core.Core) -> None:
    with pytest.raises(ValueError, match="no_such"):
        core.call("no_such", [])
    with pytest.raises(ValueError, match="counts takes 0 arguments, got 1"):
        core.call("counts", [1])
    with pytest.raises(TypeError, match="not float"):
        core.call("task", [1.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="empty"):
        core.command([])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:6379", "not a URL, such as redis://"),
        ("redis://:secret@host?colour=red", "colour"),
        ("rediss://host?ssl_ca_certs=/none.pem", "/none.pem"),
    ],
)
def test_a_wrong_url_is_refused_at_once(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        _core.Core(url, BASE)
    assert "secret" not in str(caught.value)


def test_an_unreachable_server_is_told_in_time() -> None:
    core = _core.Core("unix:///no/such/socket", BASE, broker_timeout_ms=300)
    start = time.monotonic()
    with pytest.raises(errors.BrokerError, match="/no/such/socket") as caught:
        core.command(["PING"])
    assert not caught.value.maybe_enqueued
    assert time.monotonic() - start < 1


def test_an_evicting_server_is_refused(core: _core.Core) -> None:
    core.check_eviction()
    core.command(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
    try:
        with pytest.raises(errors.LibraryError, match="allkeys-lru"):
            core.check_eviction()
    finally:
        core.command(["CONFIG", "SET", "maxmemory-policy", "noeviction"])


def test_it_connects_anew_after_close(core: _core.Core) -> None:
    core.command(["PING"])
    core.close()
    core.close()
    assert core.command(["PING"]) == b"PONG"


def test_a_call_that_close_cuts_off_is_told(core: _core.Core) -> None:
    caught: list[BaseException] = []

    def block() -> None:
        try:
            core.command(["BLPOP", "none", 30])
        except errors.BrokerError as error:
            caught.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    time.sleep(0.2)
    core.close()
    thread.join(5)
    assert isinstance(caught[0], errors.BrokerError)
    assert caught[0].maybe_enqueued


def test_a_forked_child_connects_anew(core: _core.Core) -> None:
    core.command(["PING"])
    before = core.command(["CLIENT", "ID"])
    assert in_child(lambda: core.command(["PING"])) == 0

    def forget_first() -> None:
        core.after_fork()
        core.command(["PING"])

    assert in_child(forget_first) == 0
    assert in_child(core.close) == 0
    assert core.command(["CLIENT", "ID"]) == before, "the parent's connection is still its own"


def listener_at(address: str) -> int:
    """The descriptor of this process that listens there."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as candidate:
            if candidate.getsockname() == (address.rpartition(":")[0], int(address.rpartition(":")[2])):
                return int(entry.name)
    raise AssertionError(f"nothing listens at {address}")


def test_a_forked_child_closes_the_port_of_its_parent_and_nothing_else(core: _core.Core) -> None:
    health = core.health("127.0.0.1", 0)
    descriptor = listener_at(health.address)

    def fork_again() -> None:
        health.after_fork()
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(descriptor)
        with Path(os.devnull).open() as other:
            os.dup2(other.fileno(), descriptor)
        assert in_child(lambda: (health.after_fork(), os.fstat(descriptor))) == 0

    assert in_child(fork_again) == 0
    os.fstat(descriptor)
    health.close()


def test_a_fork_while_others_call_is_harmless(core: _core.Core) -> None:
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            core.command(["PING"])

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(lambda: core.command(["PING"])) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_ctrl_c_ends_a_wait(server: Server, run_script: Callable[..., Script]) -> None:
    source = """
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    core.command(["BLPOP", "none", 30])
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - start < 5)
"""
    assert run_script(PROGRAM + source, server.url).end() == (0, "interrupted True\n", "")


@pytest.mark.parametrize(
    "ending",
    [
        'core.command(["PING"])',
        'core.command(["PING"]); os.fork() or sys.exit()',
        """
def hammer():
    while True: core.command(["PING"])
core.command(["PING"])
for _ in range(3): threading.Thread(target=hammer, daemon=True).start()
""",
        """
for _ in range(3): threading.Thread(target=core.command, args=(["BLPOP", "none", 30],), daemon=True).start()
time.sleep(0.2)
""",
    ],
    ids=["at once", "forked", "calling", "waiting"],
)
def test_a_program_that_ends_ends(server: Server, run_script: Callable[..., Script], ending: str) -> None:
    for _ in range(3):
        assert run_script(PROGRAM + ending, server.url).end() == (0, "", "")
