"""What is redrawn on a terminal fits it, is scrolled by keys, and gives the terminal back as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S

from ardiq import Ardiq
from ardiq.cli._output import Styled, Table
from ardiq.cli._screen import laid_out


class Terminal:
    """A program on a terminal of 80 by 24."""

    def __init__(self, directory: Path, words: list[str], size: tuple[int, int] = (80, 24)) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ardiq", *words],
            cwd=directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm"},
            start_new_session=True,
        )
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def screen(self) -> list[str]:
        """The lines of what was drawn last, without colours."""
        frames = self.written.split("\x1b[H")
        whole = [frame for frame in frames[1:] if "\x1b[J" in frame]
        last = whole[-1].partition("\x1b[J")[0] if whole else ""
        return [re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", line).rstrip("\r") for line in last.split("\n")]

    def until(self, condition: Callable[[list[str]], object]) -> list[str]:
        """The screen, when it is so."""
        deadline = time.monotonic() + SOON_S
        while not condition(self.screen()):
            assert time.monotonic() < deadline, self.screen()
            if select.select([self._ours], [], [], 0.1)[0]:
                self.written += os.read(self._ours, 65536).decode(errors="replace")
        return self.screen()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def is_as_before(self) -> bool:
        """Whether keys are echoed and lines wait for Enter again, and the other screen is gone."""
        while select.select([self._ours], [], [], 0.1)[0]:
            self.written += os.read(self._ours, 65536).decode(errors="replace")
        return termios.tcgetattr(self._theirs) == self.before and self.written.rstrip().endswith("\x1b[?1049l")


@pytest.fixture
def open_terminal(app: Ardiq, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Runs a command on an app whose worker holds forty tasks with long names."""
    (tmp_path / "seen.py").write_text(
        f"from ardiq import Ardiq\napp = Ardiq({app.redis_url!r}, {app.queue_name!r}, broker_timeout_ms=1000)\n"
    )
    core = app.context.server.core
    core.call("join", ["a-host-with-a-long-name:1", 3_600_000, '{"concurrency": 40}', '["default"]', 1])
    for number in range(40):
        app.ref("charge_the_customer_of_the_month").options(task_id=f"task-{number:02}").enqueue_sync()
    core.call("claim", ["a-host-with-a-long-name:1", '["default"]', 40, 60_000])
    terminals: list[Terminal] = []

    def run(*words: str, **options: Any) -> Terminal:
        terminals.append(Terminal(tmp_path, list(words), **options))
        return terminals[-1]

    yield run
    for terminal in terminals:
        terminal.close()


def names(screen: list[str]) -> list[str]:
    return [line[:7] for line in screen if line.startswith("task-")]


def test_top_fits_and_scrolls(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("top", "seen:app", "-n", "50", "--every", "100ms")
    screen = terminal.until(names)
    assert len(screen) == 24
    assert max(map(len, screen)) <= 80
    assert names(screen)[0] == "task-00"
    assert "…" in "".join(screen)
    assert "40 running" in screen[1]
    assert "more below, arrows, PgUp, PgDn scroll, q quits" in screen[-1]
    terminal.press("\x1b[B")
    assert names(terminal.until(lambda screen: "1 above" in screen[-1]))[0] == "task-00"  # a blank line went
    terminal.press("jj")
    assert names(terminal.until(lambda screen: "3 above" in screen[-1]))[0] == "task-01"
    terminal.press("\x1b[6~")
    screen = terminal.until(lambda screen: "22 above" in screen[-1])
    assert names(screen)[0] == "task-20"
    assert "40 running" in screen[1]
    terminal.press("\x1b[5~k")
    terminal.until(lambda screen: "1 above" in screen[-1])
    terminal.press("G")
    screen = terminal.until(lambda screen: "below" not in screen[-1] and "above" in screen[-1])
    assert "nothing ran in the last 5 minutes" in screen[-2]
    terminal.resize(60, 12)
    screen = terminal.until(lambda screen: len(screen) == 12)
    assert max(map(len, screen)) <= 60
    terminal.press("g")
    screen = terminal.until(lambda screen: "above" not in screen[-1])
    assert names(screen)[0] == "task-00"
    terminal.press("q")
    assert terminal.process.wait(SOON_S) == 0
    assert terminal.is_as_before()


@pytest.mark.parametrize("words", [("top", "seen:app"), ("status", "seen:app", "--watch")])
def test_ctrl_c_gives_the_terminal_back(open_terminal: Callable[..., Terminal], words: tuple[str, ...]) -> None:
    terminal = open_terminal(*words)
    assert len(terminal.until(names)) == 24
    terminal.process.send_signal(2)
    assert terminal.process.wait(SOON_S) == 0
    assert terminal.is_as_before()


def test_sigterm_gives_the_terminal_back(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("top", "seen:app")
    terminal.until(names)
    terminal.process.terminate()
    assert terminal.process.wait(SOON_S) == 128 + 15
    assert terminal.is_as_before()


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("top", "seen:app")
    terminal.until(names)
    # A process group of its own that no shell controls is not stopped: it comes back at once.
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.until(lambda _: terminal.written.count("\x1b[?1049h") == 2 and names(terminal.screen()))
    assert terminal.written.count("\x1b[?1049l") == 1
    terminal.press("q")
    assert terminal.process.wait(SOON_S) == 0
    assert terminal.is_as_before()


def test_what_is_too_wide_is_cut_and_the_first_column_last() -> None:
    table = Table(["id", "error", "n"], [["a" * 20, Styled("b" * 100, "red"), "7"], ["c", "\x1b[31m", "1,000"]])
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in laid_out([table, "x" * 90], 60)]
    assert lines[2] == f"{'a' * 20}  {'b' * 30}…  7"
    assert "\\x1b[31m" in lines[3]  # a name does not drive the terminal
    assert lines[-1] == "x" * 59 + "…"
    narrow = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in laid_out([table], 20)]
    assert max(map(len, narrow)) <= 20
    error = laid_out([Styled("cannot reach the server " * 5, "red")], 40)
    assert len(error) > 2  # it is to be read
