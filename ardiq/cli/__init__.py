"""The `ardiq` command: one module a subcommand, each with `configure(parser)` and `run(arguments)`."""

import argparse
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArdiqError
from ._output import table

__all__ = ["build_parser", "load_app", "main", "table"]

if TYPE_CHECKING:
    from .. import _core
    from ..app import Ardiq

_COMMANDS = {
    "run": "run a worker, or several",
    "migrate": "load the Lua library into the server, or look at what is loaded",
    "status": "show what is where in a queue",
    "top": "show what runs, and which tasks take most",
    "task": "look at one task, stop it, or run it again",
    "enqueue": "enqueue a call of a task",
    "pause": "let no more tasks start: of a queue, of a name, or with an argument of a value",
    "resume": "end a pause",
    "purge": "remove the tasks that wait",
    "dlq": "look at dead letters, run them again, or delete them",
    "schedule": "look at recurring tasks, pause, run or remove them",
    "doctor": "check the server and the queue, and say what to do",
    "fsck": "check a queue's data against its invariants",
    "completion": "print a script that completes `ardiq` in your shell",
}

_UNITS_MS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DEFAULT_URL = os.environ.get("ARDIQ_REDIS_URL", "redis://localhost:6379")


class Refusal(Exception):
    """What was asked for cannot be done; the message is one line for a person. Exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code.

    0: done; 1: it failed, or what was asked for is not there, or a check found something; 2: it was asked for in a
    wrong way; 3: `--wait` ran out; 130: interrupted.
    """
    parsed = build_parser().parse_args(arguments)
    try:
        code = int(parsed.run(parsed))
        sys.stdout.flush()
        return code
    except Refusal as refusal:
        return _say(refusal, 2)
    except (ArdiqError, ValueError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ardiq fsck … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="ardiq", description="A distributed task queue on Redis or Valkey.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        module = importlib.import_module(f".{name}", __name__)
        command = commands.add_parser(
            name,
            help=text,
            description=module.__doc__,
            formatter_class=argparse.RawTextHelpFormatter,
        )
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


def load_app(target: str) -> "Ardiq":
    """The app that `MODULE:ATTR` names, imported with the working directory on the path.

    Raises:
        Refusal: `target` is malformed, there is no such module or attribute, or it is not an `Ardiq`.
    """
    from ..app import Ardiq

    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise Refusal(f"{target!r} is not MODULE:ATTR, such as 'shop.jobs:app'")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        app: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise Refusal(f"there is no module {error.name!r} in {here} or on the Python path") from None
        raise _broken(module_name, error) from None
    except Exception as error:
        raise _broken(module_name, error) from None
    for name in attribute.split("."):
        if not hasattr(app, name):
            raise Refusal(f"module {module_name!r} has no {attribute!r}")
        app = getattr(app, name)
    if not isinstance(app, Ardiq):
        raise Refusal(f"{target!r} is a {type(app).__name__}, not an Ardiq app")
    return app


def target_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument that `server_url` and `load_app` understand."""
    parser.add_argument(
        "target",
        metavar="URL|MODULE:ATTR",
        nargs="?",
        default=DEFAULT_URL,
        help="the server, or the app that uses it (default: ARDIQ_REDIS_URL or redis://localhost:6379)",
    )


def app_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument that `load_app` understands."""
    parser.add_argument("app", metavar="MODULE:ATTR", help="where the app is, such as shop.jobs:app")


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
        argparse.ArgumentTypeError: it is none, or not positive.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", value.strip())
    milliseconds = int(float(found[1]) * _UNITS_MS[found[2]]) if found else 0
    if milliseconds <= 0:
        raise argparse.ArgumentTypeError(f"{value!r} is not a duration, such as 90, 500ms, 5m or 2h")
    return milliseconds


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


def is_url(target: str) -> bool:
    """Whether `target` names a server; else it names an app."""
    return "://" in target


def open_core(url: str, queue: str = "default", prefix: str = "ardiq") -> "_core.Core":
    """The connection to one queue of the server at `url`, an embedded one included."""
    from .. import _core, embedded

    if embedded.is_embedded(url):
        url = embedded.url_for(url)
    return _core.Core(url, f"{prefix}:{{{queue}}}:")


def _broken(module_name: str, error: Exception) -> Refusal:
    traceback.print_exception(error)
    return Refusal(f"importing {module_name!r} failed: {type(error).__name__}: {error}")


def _say(error: Exception, code: int) -> int:
    print(f"ardiq: {error}", file=sys.stderr)
    return code
