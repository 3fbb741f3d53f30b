"""How commands show things: by rich on a terminal where it is installed, plain elsewhere, as JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from .._values.conversion import to_plain
from ..errors import ArdiqError

_SQUEEZED = 1.2  # how much wider than the terminal a table may be and still be drawn as one


class Styled(str):
    """A text that a terminal shows in a style of rich's, such as "bold red"."""

    __slots__ = ("style",)

    style: str

    def __new__(cls, text: str, style: str) -> "Styled":
        made = super().__new__(cls, text)
        made.style = style
        return made


class Table(NamedTuple):
    """Rows under a header; `title` is for terminals."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


Part: TypeAlias = str | Table


def show(*parts: Part) -> None:
    """Print lines and tables, the way that suits where they go."""
    console = _console()
    if console is None:
        print(_plain(parts))
    else:
        console.print(*(_rich(part, console.width) for part in parts), sep="\n")


def present(
    read: Callable[[], Any], draw: Callable[[Any], Sequence[Part]], *, as_json: bool, every_s: float | None = None
) -> None:
    """Show what `read` answers, as JSON or as `draw` lays it out: once, or every so many seconds until Ctrl-C.

    What is repeated is redrawn in place on a terminal, else printed one after the other, JSON in a line each. A server
    that goes away meanwhile is waited for.
    """
    if every_s is None:
        state = read()
        if as_json:
            print_json(state)
        else:
            show(*draw(state))
        return
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            from ._screen import Screen

            with Screen() as screen:
                screen.show(_now(read, draw))
                while screen.wait(every_s):
                    screen.show(_now(read, draw))
            return
        while True:
            if as_json:
                print(json_text(_now(read, lambda state: state, lambda error: {"error": error})), flush=True)
            else:
                print(_plain(_now(read, draw)), end="\n\n", flush=True)
            time.sleep(every_s)


def _now(
    read: Callable[[], Any],
    draw: Callable[[Any], Any],
    told: Callable[[str], Any] = lambda error: [Styled(error, "red")],
) -> Any:
    """What `read` answers, drawn; of a server that is away, that it is."""
    try:
        return draw(read())
    except ArdiqError as error:
        return told(str(error))


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print(json_text(value, indent=2))


def teller(as_json: bool) -> Callable[[str], None]:
    """What says each line to people as it comes; programs are told once, at the end."""
    return _nothing if as_json else print


def _nothing(line: str) -> None:
    pass


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, what a task returned included: as it travels, NaN as null, the rest as its repr."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_as_it_travels)
    except (TypeError, ValueError):  # a tuple as a key
        plain = repr(value)
    try:
        return json.dumps(plain, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(msgspec.json.decode(msgspec.json.encode(plain)), indent=indent)


def _as_it_travels(value: Any) -> Any:
    plain = to_plain(value)
    return repr(value) if plain is value else plain


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a plain table, its columns aligned."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def printable(text: str) -> str:
    """The text without what would make a terminal do things: ids, names and errors are anybody's."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text)


def short(text: str, most: int = 80) -> str:
    """The text in one line of at most so many letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def many(count: int, what: str, whats: str = "") -> str:
    """So many of something: `1 task`, `1,200 tasks`."""
    return f"{count:,} {what if count == 1 else whats or what + 's'}"


def age(milliseconds: float) -> str:
    """A duration for people: `850 ms`, `12 s`, `3 m 20 s`, `2 h 5 m`, `4 d 3 h`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = int(milliseconds / 1000)
    for size, unit, small, small_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{seconds} s"


def moment(milliseconds: float) -> str:
    """A time in ms since the epoch, for people."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond what a calendar has
        return f"{milliseconds:.0f} ms"


def _plain(parts: Sequence[Part]) -> str:
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            lines += [*([""] if lines and lines[-1] else []), *table(part.header, part.rows), ""]
        else:
            lines.append(printable(part))
    return "\n".join(lines).strip("\n")


def _console() -> Any:
    """A rich console where output goes to a terminal and rich is installed, else None."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False)


def _rich(part: Part, width: int) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    if not isinstance(part, Table):
        return _rich_text(part)
    lines = table(part.header, part.rows)
    if max(map(len, lines)) > _SQUEEZED * width:  # columns of a few letters cannot be read, nor an id copied
        return _rich_text("\n".join(("", *lines, "")))
    shown = RichTable(title=part.title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for at, name in enumerate(part.header):
        numeric = all(row[at][:1].isdigit() for row in part.rows)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in part.rows:
        shown.add_row(*map(_rich_text, row))
    return shown


def _rich_text(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text), style=text.style if isinstance(text, Styled) else "")
