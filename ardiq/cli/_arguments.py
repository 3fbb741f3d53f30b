"""The command line's parser, arguments that several commands have, and messages about wrong ones."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from .._values.urls import unsecret

if TYPE_CHECKING:
    from ..app import Ardiq

DEFAULT_PREFIX = "ardiq"
DEFAULT_URL = os.environ.get("ARDIQ_REDIS_URL") or "redis://localhost:6379"

_UNITS_MS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_MS = 100 * 366 * _UNITS_MS["d"]

_COLUMNS = 80
_MOST_LISTED = 4
_LIKE = 0.7  # how similar a word must be to be suggested


class Refusal(Exception):
    """The arguments are invalid, and nothing was done; the message is one line for people. Exit code 2.

    `usage`: the command's usage, if that helps.
    """

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


@contextmanager
def refusing(option: str = "") -> Iterator[None]:
    """Blame the arguments, or the option that is named, for what Ardiq refuses within this block.

    Raises:
        Refusal: for a `ValueError` or a `TypeError`.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Refusal(f"{option}: {error}" if option else str(error)) from None


class Parser(argparse.ArgumentParser):
    """A parser that takes options before, between and after the other words."""

    def __init__(self, *, formatter_class: Any = argparse.HelpFormatter, **settings: Any) -> None:
        super().__init__(formatter_class=partial(formatter_class, width=_columns() - 2), **settings)

    _between = False
    complete: Callable[[], None] | None = None
    """Adds what it takes, when it is first asked to parse."""
    takes_command = False
    """Whether what follows `--` is a command, for it to run."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.complete is not None:
            complete, self.complete = self.complete, None
            complete()
        if not self.takes_command:
            return self._parse(args, namespace)
        own, command = _split(args or ())
        known, others = self._parse(own, namespace)
        known.command = command
        return known, others

    def _parse(self, args: Any, namespace: Any) -> Any:
        if self._between or self._subparsers is not None or args is None:
            return super().parse_known_args(args, namespace)
        self._between = True  # what follows comes back here
        try:
            parse = super().parse_known_args if "--" in args else self.parse_known_intermixed_args
            known, others = parse(args, namespace)
        finally:
            self._between = False
        if others:  # here, where the usage is that of the command
            meant = [
                guess for word in others if word[:2] == "--" and (guess := did_you_mean(word, self._long_options()))
            ]
            if self.takes_command and not others[0].startswith("-"):
                meant = ["; a command goes after --"]
            self.error(f"unrecognized arguments: {' '.join(others)}{''.join(meant[:1])}")
        return known, others

    def error(self, message: str) -> NoReturn:
        unsecret_words = " ".join(map(unsecret, message.split(" ")))
        raise Refusal(f"{self.prog}: error: {unsecret_words}", self.format_usage())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own lists every choice, and quotes them in another way in each version of Python.
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            meant = did_you_mean(str(value), known) or f" (choose from {', '.join(known)})"
            raise argparse.ArgumentError(action, f"invalid choice: {str(value)!r}{meant}")

    def _long_options(self) -> list[str]:
        return [word for word in self._option_string_actions if word.startswith("--")]

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own hides that nobody could read it.
        print(message, end="", file=file or sys.stderr)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is before the first `--`, and what is after it."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _columns() -> int:
    """How wide the terminal is. `shutil.get_terminal_size` would bring three compressors into each worker."""
    try:
        return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(1).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


class Suggestions(tuple[str, ...]):
    """The choices of an argument that takes other words, too; a shell completes them."""

    def __contains__(self, word: object) -> bool:
        return True


def target_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument that names a server or an app."""
    parser.add_argument(
        "target",
        metavar="URL|MODULE:ATTR",
        nargs="?",
        default=DEFAULT_URL,
        help="the server, or the app that uses it (default: ARDIQ_REDIS_URL or redis://localhost:6379)",
    )


def app_argument(parser: argparse.ArgumentParser) -> None:
    """Add what `open_app` understands: where the app or its server is, and which of the queues is meant."""
    app = "the app, such as shop.jobs:app, or the URL of its server"
    parser.add_argument("app", metavar="MODULE:ATTR|URL", help=app)
    parser.add_argument("--queue", metavar="NAME", help="the queue (default: the app's own; with a URL: default)")
    prefix_argument(parser)


def add_actions(
    parser: argparse.ArgumentParser, actions: dict[str, str], *, aliases: Mapping[str, Sequence[str]] = {}
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Add the actions of a command, each of an app: their names, and what each does. `action` is the chosen one."""
    parsers = parser.add_subparsers(metavar="ACTION", required=True)
    for action, what in actions.items():
        described = f"{what[0].upper()}{what[1:]}."
        chosen = parsers.add_parser(action, aliases=aliases.get(action, ()), help=what, description=described)
        app_argument(chosen)
        chosen.set_defaults(action=action)
        yield action, chosen


def prefix_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--prefix`."""
    parser.add_argument("--prefix", metavar="NAME", help="with a URL: the prefix of its keys (default: ardiq)")


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def watch_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--watch`, whose value is in seconds, or None."""
    parser.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=duration_s,
        metavar="TIME",
        help="refresh this often, until Ctrl-C (default: 2s)",
    )


def duration_ms(value: str, *, least: int = 1) -> int:
    """A duration as typed: seconds, or a number with one of the units ms, s, m, h, d; in whole milliseconds.

    Raises:
        argparse.ArgumentTypeError: it is none, shorter than `least` milliseconds, or longer than a hundred years.
    """
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|[smhd]?)", value.strip(), re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{value!r} is not a duration, such as 90, 500ms, 5m or 2h")
    milliseconds = float(found[1]) * _UNITS_MS[found[2]]
    if milliseconds > LONGEST_MS:
        raise argparse.ArgumentTypeError(f"it must be at most a hundred years, not {value}")
    if round(milliseconds) < least:
        bound = f"be at least {least} ms" if least else "not be negative"
        raise argparse.ArgumentTypeError(f"it must {bound}, not {value}")
    return round(milliseconds)


def duration_s(value: str, *, least: int = 1) -> float:
    """Likewise, in seconds."""
    return duration_ms(value, least=least) / 1000


def positive(value: str) -> int:
    """A whole number, at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (value.isascii() and value.isdecimal() and int(value) >= 1):
        raise argparse.ArgumentTypeError(f"expected a whole number, at least 1, got {value!r}")
    return int(value)


def word(value: str) -> str:
    """A name or an id.

    Raises:
        argparse.ArgumentTypeError: it is empty or has control characters.
    """
    if not value:
        raise argparse.ArgumentTypeError("it must not be empty")
    if not value.isprintable():
        raise argparse.ArgumentTypeError(f"{value!r} has control characters")
    return value


def json_value(value: str, kind: type[Any], option: str) -> Any:
    """What an option was given as JSON: an array, an object, or anything for `object`.

    Raises:
        Refusal: it is none.
    """
    from .._values.encodings import from_json

    try:
        found = from_json(value.encode())
    except ValueError as error:
        raise Refusal(f"{option} is not JSON: {error}") from None
    if not isinstance(found, kind):
        raise Refusal(f"{option} must be a JSON {'array' if kind is list else 'object'}, not {value}")
    return found


def check_call(app: "Ardiq", name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that the task's worker would refuse, if this app knows the task.

    Raises:
        Refusal: the arguments do not fit the function, or one its annotation; or the key of a limit cannot be computed.
    """
    entry = app.context.registry.tasks.get(name)
    if entry is not None and entry.signature is not None:
        with refusing():
            app.context.codec.encode_fitting(name, entry.signature, args, kwargs)
            if (buckets := app.context.registry.buckets_of(name)) is not None:
                buckets.of(args, kwargs)


def check_task(app: "Ardiq", arguments: argparse.Namespace, name: str) -> None:
    """Refuse a task that the app does not have, if the app is known and `--unknown` is not given.

    Raises:
        Refusal: it is none of the app's.
    """
    if not (name in app.tasks or arguments.unknown or "://" in arguments.app):
        if not app.tasks:
            raise Refusal(
                f"{arguments.app} has no tasks (--unknown allows any). If they are in other modules, name one that "
                "imports the app, such as proj.mail:app, or write Ardiq(imports=['proj.mail'])"
            )
        meant = did_you_mean(name, app.tasks) or among(app.tasks)
        raise Refusal(f"{arguments.app} has no task {name!r} (--unknown allows any){meant}")


def check_lane(app: "Ardiq", lane: str | None) -> None:
    """Refuse a lane that the app does not have.

    Raises:
        Refusal: it is none of the app's.
    """
    if lane is not None and lane not in app.context.lanes:
        raise Refusal(f"there is no lane {lane!r}{did_you_mean(lane, app.priorities) or among(app.priorities)}")


def unknown_argument(parser: argparse.ArgumentParser, about: str = "even if the app has no task of that name") -> None:
    """Add `--unknown`, for `check_task`."""
    parser.add_argument("--unknown", action="store_true", help=about)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word; empty if no known one is similar."""
    from difflib import get_close_matches

    names = list(known)
    by_letters = {name.casefold(): name for name in names}
    like = [by_letters[name] for name in get_close_matches(word.casefold(), by_letters, n=2, cutoff=_LIKE)]
    return f"; did you mean {' or '.join(map(repr, like))}?" if like else ""


def among(known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word that is similar to none: all known ones, if they are few."""
    names = sorted(known)
    if len(names) > _MOST_LISTED:
        return f"; there are {len(names):,} others"
    return f"; known: {', '.join(names)}" if names else ""


def agreed(question: str, yes: bool) -> bool:
    """Whether the user agrees to what cannot be undone, now or by `--yes`.

    Raises:
        Refusal: there is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refusal(f"{question} There is no terminal to ask on: use --yes")
    # Not `input`: what is asked is no part of the output, and an end of file is a no.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
