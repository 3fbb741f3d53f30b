"""What is redrawn on a terminal: cut to its size, scrolled by keys, and the terminal given back as it was."""

import os
import select
import shutil
import signal
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any

from ._output import Part, Styled, Table, printable

_PINNED = 2  # the first lines, which say what is looked at, do not scroll
_NARROW = 4  # letters of a column that is not cut any more, while another can be
_GAP = "  "
_LOOK_S = 0.2  # how soon another size of the terminal is noticed
_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_KEYS = {
    "\x1b[A": "up", "k": "up", "\x1b[B": "down", "j": "down", "\r": "down", "\n": "down",
    "\x1b[5~": "page up", "b": "page up", "\x1b[6~": "page down", " ": "page down",
    "\x1b[H": "top", "\x1b[1~": "top", "\x1bOH": "top", "g": "top",
    "\x1b[F": "end", "\x1b[4~": "end", "\x1bOF": "end", "G": "end",
    "\x1bOA": "up", "\x1bOB": "down", "q": "quit", "Q": "quit",
}  # fmt: skip
# Lines come from names that anybody chose: what is too wide after all is cut by the terminal.
_OPEN, _CLOSE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """A terminal within a `with` block, in which `show` draws; `wait` serves keys until it is time to draw anew."""

    def __init__(self) -> None:
        self._parts: Sequence[Part] = ()
        self._first = 0
        self._drawn = ""
        self._stack = ExitStack()
        self._terminal: list[Any] = []
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None

    def __enter__(self) -> "Screen":
        for number, handle in ((signal.SIGTERM, _end), (signal.SIGTSTP, self._suspend)):
            self._stack.callback(signal.signal, number, signal.signal(number, handle))
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._stack.close()

    def _open(self) -> None:
        if self._keys is not None:
            self._terminal = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)  # keys as they are typed, unseen; Ctrl-C stays what it is
        self._drawn = ""
        _write(_OPEN)

    def _close(self) -> None:
        with suppress(OSError):
            _write(_CLOSE)
        if self._keys is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._terminal)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal, until `fg`."""
        self._close()
        handle = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, handle)  # it goes on here
        self._open()

    def show(self, parts: Sequence[Part]) -> None:
        """Draw this from now on."""
        self._parts = parts
        self._draw()

    def wait(self, seconds: float) -> bool:
        """Serve keys for so long; False when somebody asked for the end."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            if self._keys is None:
                time.sleep(min(left_s, _LOOK_S))
            elif select.select([self._keys], [], [], min(left_s, _LOOK_S))[0]:
                typed = os.read(self._keys, 64).decode(errors="replace")
                if not typed or not self._serve(typed):  # none: the terminal is gone
                    return False
            self._draw()
        return True

    def _serve(self, typed: str) -> bool:
        while typed:
            key = next((key for key in sorted(_KEYS, key=len, reverse=True) if typed.startswith(key)), typed[0])
            typed = typed[len(key) :]
            page = max(1, _size()[1] - _PINNED - 2)
            match _KEYS.get(key):
                case "quit":
                    return False
                case "up" | "down" as way:
                    self._first += 1 if way == "down" else -1
                case "page up" | "page down" as way:
                    self._first += page if way == "page down" else -page
                case "top":
                    self._first = 0
                case "end":
                    self._first = sys.maxsize
        return True

    def _draw(self) -> None:
        width, height = _size()
        lines = laid_out(self._parts, width)
        pinned, rest = lines[:_PINNED], lines[_PINNED:]
        room = max(1, height - len(pinned) - 1)
        self._first = max(0, min(self._first, len(rest) - room))
        seen = rest[self._first : self._first + room]
        below = len(rest) - self._first - len(seen)
        bar = f"{f'{below} more below, ' if below else ''}{f'{self._first} above, ' if self._first else ''}"
        keys = "q quits" if len(rest) <= room else "arrows, PgUp, PgDn scroll, q quits"
        foot = [] if self._keys is None else [_styled(f"{bar}{keys}"[:width], "cyan")]
        shown = [*pinned, *seen, *[""] * (room - len(seen)), *foot]
        drawn = "\x1b[H" + "\n".join(f"\x1b[2K{line}" for line in shown[:height]) + "\x1b[J"
        if drawn != self._drawn:
            self._drawn = drawn
            _write(drawn)


def laid_out(parts: Sequence[Part], width: int) -> list[str]:
    """The parts as lines of a terminal of that width: tables and lines are cut, an error is folded."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            lines += ["", *_table(part, width)]
        elif isinstance(part, Styled) and part.style == "red":
            lines += [_styled(line, part.style) for line in textwrap.wrap(printable(part), width)]
        else:
            lines += [_styled(_cut(printable(line), width), getattr(part, "style", "")) for line in part.splitlines()]
    return lines


def _table(table: Table, width: int) -> list[str]:
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in (table.header, *table.rows)]
    widths = _fitting([max(map(len, column)) for column in zip(*rows, strict=True)], width)
    lines = [_styled(_line(rows[0], widths), "bold")]
    for row, cells in zip(table.rows, rows[1:], strict=True):
        styles = [getattr(cell, "style", "") for cell in row]
        lines.append(_line(cells, widths, styles))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int], styles: Sequence[str] = ()) -> str:
    padded = [_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if not styles:
        return _GAP.join(padded).rstrip()
    return _GAP.join(map(_styled, padded, styles)).rstrip()


def _fitting(widths: list[int], width: int) -> list[int]:
    """Widths of columns that fit: the widest is cut first, the first column, which names the row, last."""
    fitting = list(widths)
    while sum(fitting) + len(_GAP) * (len(fitting) - 1) > width:
        widest = max(range(len(fitting)), key=lambda at: (fitting[at] if at else 0, -at))
        if fitting[widest] <= _NARROW:
            widest = 0
        if fitting[widest] <= 1:
            break
        fitting[widest] -= 1
    return fitting


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _styled(text: str, style: str) -> str:
    if not style or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{';'.join(_CODES[word] for word in style.split())}m{text}\x1b[0m"


def _size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return max(1, size.columns), max(2, size.lines)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
