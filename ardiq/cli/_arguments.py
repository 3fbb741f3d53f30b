"""What may be typed: the parser of commands, the arguments that several have, and what is wrong with a word."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ..app import Ardiq

DEFAULT_URL = os.environ.get("ARDIQ_REDIS_URL") or "redis://localhost:6379"

_UNITS_MS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS = 100 * 366 * _UNITS_MS["d"]


class Refusal(Exception):
    """What was asked for makes no sense, and nothing was done; the message is one line for a person. Exit code 2."""


@contextmanager
def refusing(option: str = "") -> Iterator[None]:
    """What Ardiq finds impossible in here is what was asked for, by an option if it is named.

    Raises:
        Refusal: for a `ValueError` or a `TypeError`.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Refusal(f"{option}: {error}" if option else str(error)) from None


class Parser(argparse.ArgumentParser):
    """A parser that takes options before, between and after the other words."""

    _between = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._between or self._subparsers is not None or args is None:
            return super().parse_known_args(args, namespace)
        self._between = True  # what follows comes back here
        try:
            parse = super().parse_known_args if "--" in args else self.parse_known_intermixed_args
            known, others = parse(args, namespace)
        finally:
            self._between = False
        if others:  # here, where the usage is that of the command
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return known, others

    def error(self, message: str) -> NoReturn:
        super().error(" ".join(map(unsecret, message.split(" "))))

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own hides that nobody could read it.
        print(message, end="", file=file or sys.stderr)


def unsecret(word: str) -> str:
    """A word as it may be shown: a URL without user, password and options, however they are written."""
    return re.sub(r"(://)(?:.*@)?([^?#]*).*", r"\1\2", word, flags=re.DOTALL)


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
    """Add what `load_app` understands: where the app is, and which of its queues is meant."""
    parser.add_argument("app", metavar="MODULE:ATTR", help="where the app is, such as shop.jobs:app")
    parser.add_argument("--queue", metavar="NAME", help="the queue to look at instead of the app's own")


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def watch_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--watch`, whose value is in seconds, or None."""
    parser.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=lambda value: duration_ms(value) / 1000,
        metavar="TIME",
        help="show it anew every so often, until Ctrl-C (default: 2s)",
    )


def duration_ms(value: str) -> int:
    """A duration as typed: seconds, or a number with one of the units ms, s, m, h, d.

    Raises:
        argparse.ArgumentTypeError: it is none, not positive, or longer than a hundred years.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", value.strip(), re.ASCII)
    milliseconds = float(found[1]) * _UNITS_MS[found[2]] if found else 0
    if not 1 <= milliseconds <= _LONGEST_MS:
        raise argparse.ArgumentTypeError(f"{value!r} is not a duration, such as 90, 500ms, 5m or 2h")
    return int(milliseconds)


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


def json_value(value: str, kind: type[list[Any]] | type[dict[str, Any]], option: str) -> Any:
    """The array or object that an option was given as JSON.

    Raises:
        Refusal: it is none.
    """
    from .._codec import from_json

    try:
        found = from_json(value.encode())
    except ValueError as error:
        raise Refusal(f"{option} is not JSON: {error}") from None
    if not isinstance(found, kind):
        raise Refusal(f"{option} must be a JSON {'array' if kind is list else 'object'}, not {value}")
    return found


def check_call(app: "Ardiq", name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse what the task's worker would refuse, as far as this app knows the task.

    Raises:
        Refusal: the arguments do not fit the function, or one its annotation.
    """
    entry = app._registry.get(name)
    if entry is not None and entry.signature is not None:
        with refusing():
            app._codec.encode_fitting(name, entry.signature, args, kwargs)


def unknown_task(target: str, app: "Ardiq", name: str) -> str:
    """What to say of a task that the app does not have."""
    return f"{target} has no task {name!r}, but {', '.join(sorted(app.tasks)) or 'none'}; see --unknown"
