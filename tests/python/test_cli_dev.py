"""`ardiq dev`: a server, a worker and a command in one terminal, and nothing left of them."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from documents import ROOT, examples, files
from projects import eventually, tree

from ardiq.cli import main
from ardiq.embedded import Server

JOBS = """
    from ardiq import Ardiq

    app = Ardiq("redis://127.0.0.1:{port}")

    @app.task
    def greet(name: str) -> None:
        print("Hello,", name)
"""
# Of its own session, deaf to whatever can be ignored.
STUBBORN = """
    trap '' TERM INT HUP
    setsid sleep 600 &
    echo stubborn
    while true; do sleep 600; done
"""
WITHIN_S = 40


class Dev:
    """`ardiq dev jobs:app` in a directory, on a terminal of its own; `read` is what it printed so far."""

    def __init__(self, directory: Path, *words: str, app: str = "jobs:app") -> None:
        self.terminal, theirs = os.openpty()
        os.set_blocking(self.terminal, False)
        self._printed = b""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ARDIQ_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ardiq", "dev", app, *words],
            cwd=directory,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def read(self) -> str:
        with contextlib.suppress(OSError):
            while text := os.read(self.terminal, 1 << 16):
                self._printed += text
        return self._printed.decode().replace("\r\n", "\n")

    def shows(self, pattern: str, times: int = 1) -> None:
        try:
            eventually(lambda: len(re.findall(pattern, self.read())) >= times, WITHIN_S)
        except AssertionError:
            pytest.fail(f"{pattern!r} is not in\n{self.read()}")

    @property
    def url(self) -> str:
        return re.findall(r"redis\+unix://\S+", self.read())[0]

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self.terminal)
        self.terminal = -1

    def ends(self) -> None:
        """It ends, and with it all that it started."""
        eventually(lambda: self.read() and self.process.poll() is not None, WITHIN_S)  # it waits for its reader


def write(directory: Path, port: int, *, greeting: str = "Hello,") -> None:
    text = textwrap.dedent(JOBS.format(port=port)).replace("Hello,", greeting)
    (directory / "jobs.py").write_text(text)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The app's own server, which nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture
def start(tmp_path: Path, listener: socket.socket) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(*words: str) -> Dev:
        started.append(Dev(tmp_path, *words))
        return started[-1]

    write(tmp_path, listener.getsockname()[1])
    yield start
    for dev in started:
        pids = tree(dev.process.pid)
        for pid in pids if dev.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        dev.process.wait(WITHIN_S)
        if dev.terminal >= 0:
            dev.hang_up()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_runs_what_is_edited_and_waits_where_that_is_broken(
    start: Callable[..., Dev], listener: socket.socket, tmp_path: Path
) -> None:
    enqueue = "import jobs; jobs.greet.enqueue_sync('Ada'); print('sent')"
    dev = start("--", sys.executable, "-c", enqueue)
    dev.shows(r"worker  \| Hello, Ada")
    dev.shows(r"ardiq   \| command has ended")
    port = listener.getsockname()[1]
    assert f"`ardiq dev` runs this: its server is used instead of redis://127.0.0.1:{port}" in dev.read()
    (tmp_path / "jobs.py").write_text("app = (\n")
    dev.shows(r"ardiq   \| changed: jobs.py")
    dev.shows(r"worker  \| SyntaxError: '\(' was never closed")
    assert "importlib" not in dev.read()
    dev.shows(r"worker ended with exit code 2: it starts again at the next change of a file")
    write(tmp_path, port, greeting="Welcome,")
    dev.shows("ready: worker", 2)
    assert main(["enqueue", dev.url, "greet", "--args", '["Ada"]']) == 0
    dev.shows(r"worker  \| Welcome, Ada")
    dev.process.send_signal(signal.SIGINT)
    dev.ends()
    assert dev.process.returncode == 0
    assert not Path(dev.url.removeprefix("redis+unix://")).parent.exists()


def test_the_dashboard_shows_it_at_the_next_port_that_is_free(start: Callable[..., Dev]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        dev = start("--port", str(port))
        dev.shows(r"web     \| dashboard at http://\S+/, for everybody on this machine\n")
    dev.shows("ready: worker")
    assert main(["enqueue", dev.url, "greet", "--args", '["Ada"]', "--id", "one", "--delay", "1h"]) == 0
    [address] = re.findall(r"dashboard at (http://\S+/)", dev.read())
    assert not address.endswith(f":{port}/")
    with urllib.request.urlopen(f"{address}q/default/tasks/one", timeout=WITHIN_S) as response:
        assert "greet" in response.read().decode()
    dev.process.send_signal(signal.SIGINT)
    dev.ends()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


@pytest.mark.parametrize("how", ["Ctrl-C twice", "SIGKILL", "a closed terminal"])
def test_nothing_is_left_behind(how: str, start: Callable[..., Dev]) -> None:
    dev = start("--workers", "2", "--", "sh", "-c", textwrap.dedent(STUBBORN))
    dev.shows("ready: worker", 2)
    dev.shows(r"command \| stubborn")
    pids = tree(dev.process.pid)
    assert len(pids) >= 10, (
        "itself, three keepers, the dashboard, a supervisor and its two workers, the shell and what that started"
    )
    if how == "Ctrl-C twice":
        dev.press_ctrl_c()
        dev.shows(r"ardiq   \| stopping")
        eventually(lambda: dev.press_ctrl_c() or dev.process.poll() is not None, WITHIN_S)
    elif how == "SIGKILL":
        dev.process.kill()
    else:
        dev.hang_up()
    dev.ends()
    eventually(lambda: all(is_gone(pid) for pid in pids), WITHIN_S)
    eventually(lambda: not Path(dev.url.removeprefix("redis+unix://")).parent.exists(), WITHIN_S)


def test_the_guide_s_example(tmp_path: Path) -> None:
    """With a free port."""
    document = ROOT / "docs/development.md"
    for name, text in files(document).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    [line] = examples(document, "sh")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, _, app, *words = line.replace("8000", str(port)).split()
    uvicorn = words.index("uvicorn")
    dev = Dev(tmp_path, *words[:uvicorn], sys.executable, "-m", *words[uvicorn:], app=app)
    try:
        dev.shows("Uvicorn running")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/customers/Ada", method="POST")
        with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
            assert list(json.load(response)) == ["job"]
        dev.shows(r"worker  \| Welcome, Ada")
    finally:
        dev.process.send_signal(signal.SIGINT)
        dev.ends()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_command_that_failed_starts_again_after_a_change(start: Callable[..., Dev], tmp_path: Path) -> None:
    dev = start("--", sys.executable, "web.py")
    dev.shows("command ended with exit code 2: it starts again at the next change of a file")
    (tmp_path / "web.py").write_text("print('served', end='')")
    dev.shows(r"command \| served\n")
    dev.process.send_signal(signal.SIGTERM)
    dev.ends()


def test_a_command_that_does_not_exist_is_named(start: Callable[..., Dev]) -> None:
    dev = start("--", "no-such-program")
    dev.shows(r"command \| no-such-program: No such file or directory")
    dev.shows("command ended with exit code 127")


def test_it_ends_when_nobody_reads_it(tmp_path: Path, listener: socket.socket) -> None:
    write(tmp_path, listener.getsockname()[1])
    talks = "while true; do echo again; sleep 0.1; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "ardiq", "dev", "jobs:app", "--", "sh", "-c", talks],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert any(b"again" in line for line in process.stdout)
    pids = tree(process.pid)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(WITHIN_S) == 1
    assert all(is_gone(pid) for pid in pids)


def test_data_may_be_kept(start: Callable[..., Dev], tmp_path: Path) -> None:
    data = tmp_path / "kept"
    dev = start("--data", str(data))
    dev.shows("ready: worker")
    dev.process.send_signal(signal.SIGINT)
    dev.ends()
    assert list(data.glob("appendonlydir/*"))


def test_the_app_s_own_server_is_used_where_one_asks_for_it(tmp_path: Path) -> None:
    with Server() as server:
        (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS).replace("redis://127.0.0.1:{port}", server.url))
        dev = Dev(tmp_path, "--server", "app")
        try:
            dev.shows(f"connecting to {re.escape(server.url)}")
            assert main(["enqueue", server.url, "greet", "--args", '["Ada"]']) == 0
            dev.shows(r"worker  \| Hello, Ada")
        finally:
            dev.process.send_signal(signal.SIGINT)
            dev.ends()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which app?"),
        (["jobs"], "which app?"),
        (
            ["jobs:app", "--server", "app", "--data", "."],
            "--data is for the embedded server, and --server app uses none",
        ),
        (["jobs:app", "--port", "70000"], "--port 70000: ports are numbers from 0 to 65535"),
        (["jobs:app", "--watch", "nowhere"], "--watch nowhere: there is no such directory"),
        (["jobs:app", "--watc"], "unrecognized arguments|expected one argument"),
        (["jobs:app", "flask", "run"], "unrecognized arguments: flask run; a command goes after --"),
    ],
)
def test_what_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARDIQ_APP", raising=False)
    assert main(["dev", *words]) == 2
    assert re.search(message, capsys.readouterr().err)
