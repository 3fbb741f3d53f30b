"""The `ardiq` command: one module a subcommand, each with `configure(parser)` and `run(arguments)`."""

import argparse
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from .. import _core
from .._server.commands import is_there, known_queues
from .._values import imports as _imports
from .._values.urls import unsecret
from ..errors import ArdiqError, Forbidden
from ._arguments import Parser, Refusal, among, did_you_mean, refusing
from ._audit import carry_out, is_done_to

__all__ = ["Refusal", "build_parser", "load_app", "main", "open_app", "program"]

if TYPE_CHECKING:
    from ..app import Ardiq

_INTERRUPTED = 130
_COMMANDS = {
    "run": "run a worker, or several",
    "dev": "develop: a server, a worker that is started again after a change, and your command",
    "migrate": "load the Lua library into the server, or look at what is loaded",
    "queues": "list the queues of a server",
    "status": "show a queue's lanes, workers, running tasks and schedules",
    "top": "show what is running, and which tasks take the most time",
    "task": "look at one task, abort it, or run it again",
    "enqueue": "enqueue a task",
    "pause": "pause a queue, the tasks of one name, or those with a given argument",
    "resume": "end a pause",
    "purge": "remove waiting tasks",
    "dlq": "look at dead letters, run them again, or discard them",
    "schedule": "look at recurring tasks; create, pause, run or remove them",
    "workflow": "look at workflows, stop one, run again what failed in it",
    "limits": "look at limits, or change them at run time",
    "audit": "show what people did to a queue",
    "web": "serve a dashboard for the browser",
    "doctor": "check the server and the queue, and say what to do",
    "fsck": "check a queue's data against its invariants",
    "ops": "print a file for systemd, Docker, Kubernetes, KEDA, Prometheus or Grafana",
    "completion": "print a script that completes `ardiq` in your shell",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code.

    0: done; 1: it failed, or what was asked for is not there, or a check found something; 2: the arguments are invalid,
    and nothing was done; 3: `--wait` ran out; 130: interrupted.
    """
    _open_streams()
    words = sys.argv[1:] if arguments is None else arguments
    tell = partial(_say, as_json="--json" in words)
    try:
        try:
            parsed = build_parser(whole=False).parse_args(words)
            return carry_out(parsed)
        finally:
            sys.stdout.flush()
    except Refusal as refusal:
        return tell(str(refusal), 2, refusal.usage)
    except OSError as error:
        is_reader_gone = isinstance(error, BrokenPipeError)  # `ardiq fsck … | head`
        try:
            sys.stdout.flush()
        except OSError:  # what cannot be written now cannot be at the end, either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if is_reader_gone else tell(_reason(error), 1)
    except ArdiqError as error:
        return tell(str(error), 1)
    except KeyboardInterrupt:
        return _INTERRUPTED


def program() -> NoReturn:
    """The `ardiq` command."""
    code: int | str | None
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))  # nobody catches an exception any more
    if code == _INTERRUPTED:
        # Not `sys.exit`, which waits for threads that may still be trying to reach a server.
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(_INTERRUPTED)
    sys.exit(code)


def build_parser(*, whole: bool = True) -> argparse.ArgumentParser:
    """The parser of all commands; not `whole`: each is imported when it is typed."""
    parser = Parser(prog="ardiq", description="A distributed task queue on Redis or Valkey.")
    version = f"Ardiq {_core.VERSION}, version {_core.PROTOCOL_VERSION} of the library"
    parser.add_argument("--version", action="version", version=version)

    def no_command(_: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return 1

    parser.set_defaults(run=no_command)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, formatter_class=argparse.RawTextHelpFormatter)
        if whole:
            _complete(command, name)
        else:
            command.complete = partial(_complete, command, name)
    return parser


def _complete(command: Parser, name: str) -> None:
    module = importlib.import_module(f".{name}", __name__)
    command.description = module.__doc__
    module.configure(command)
    command.set_defaults(run=module.run)


def load_app(target: str, queue: str | None = None, imports: Iterable[str] = (), *, answers: bool = True) -> "Ardiq":
    """The app that `MODULE:ATTR` names, imported with the working directory on the path; on a queue, or on its own.

    The modules that it names as its `imports` are imported, too, and these. `answers`: whether the command's output is
    for programs to read.

    Raises:
        Refusal: `target` is malformed, there is no such module or attribute, it is not an `Ardiq`, or no queue can have
            that name.
    """
    from ..app import Ardiq

    module_name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise Refusal(f"{unsecret(target)!r} is not MODULE:ATTR, such as 'shop.jobs:app'")
    here = os.getcwd()  # noqa: PTH109 - of all that runs in a worker, it alone would need pathlib
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with _importing(answers):
            app: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            meant = did_you_mean(error.name, _modules_beside(error.name))
            raise Refusal(f"there is no module {error.name!r} in {here} or on the Python path{meant}") from None
        raise _broken(module_name, error) from None
    except Exception as error:
        raise _broken(module_name, error) from None
    for name in attribute.split("."):
        if not hasattr(app, name):
            apps = [other for other, value in vars(app).items() if isinstance(value, Ardiq)]
            meant = did_you_mean(name, apps) or among(apps) if apps else did_you_mean(name, vars(app))
            raise Refusal(f"module {module_name!r} has no {attribute!r}{meant}")
        app = getattr(app, name)
    if not isinstance(app, Ardiq):
        kind = type(app).__name__
        raise Refusal(f"{target!r} is {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}, not an Ardiq app")
    for name in (*app.imports, *imports):
        try:
            with _importing(answers):
                _imports.load([name])
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise Refusal(f"import of {name!r}: {error}") from None
            raise _broken(name, error) from None
        except Exception as error:
            raise _broken(name, error) from None
    with refusing():
        return app if queue is None else app.queue(queue)


@contextmanager
def _importing(answers: bool) -> Iterator[None]:
    """What is imported starts no worker of its own, and what it prints is no part of a command's answer."""
    _imports.is_by_command = True
    try:
        with redirect_stdout(sys.stderr) if answers else nullcontext():
            yield
    finally:
        _imports.is_by_command = False


def open_app(arguments: argparse.Namespace, *, may_be_new: bool = False) -> "Ardiq":
    """The app of `app_argument`, or of its server where a URL was given: one without tasks, of any lane.

    Args:
        arguments: what was typed.
        may_be_new: whether a queue that is named need not exist.

    Raises:
        Refusal: as `load_app`; that is no URL of a server, or no prefix.
        ArdiqError: there is no such queue.
    """
    if not is_url(arguments.app):
        if arguments.prefix is not None:
            raise Refusal(f"--prefix is for URLs; {arguments.app} has its own")
        app = load_app(arguments.app, arguments.queue)
    else:
        app = server_app(arguments.app, arguments.queue, arguments.prefix)
    app.context.server.is_listed = may_be_new  # looking at a queue makes none
    # The app's own one need not have been used yet.
    if (is_url(arguments.app) or arguments.queue is not None) and not may_be_new and (missing := no_such_queue(app)):
        raise ArdiqError(missing)
    is_done_to(app)
    return app


def server_app(url: str, queue: str | None, prefix: str | None) -> "Ardiq":
    """An app on the server at `url` alone: without tasks, of any lane.

    Raises:
        Refusal: that is no URL of a server, or no queue or prefix can have that name.
    """
    from ..app import Ardiq

    with refusing():
        app = Ardiq(url, "default" if queue is None else queue, prefix="ardiq" if prefix is None else prefix)
    app.context.lanes = _EveryLane()
    return app


def no_such_queue(app: "Ardiq") -> str:
    """The message if the server has no sign of the app's queue, else an empty one."""
    core, name = app.context.server.core, app.queue_name
    if is_there(core, app.context.server.base):
        return ""
    try:
        known = known_queues(core, app.context.server.queues_key)
    except Forbidden:
        known = set()
    if name in known:
        return ""
    return f"there is no queue {name!r} on this server{did_you_mean(name, known) or among(known)}"


def note_new_queue(app: "Ardiq", arguments: argparse.Namespace) -> None:
    """Say so if the named queue is about to be created: perhaps you meant another one."""
    if arguments.queue is None:
        return
    with suppress(Forbidden):  # who may only enqueue cannot look
        if missing := no_such_queue(app):
            print(f"note: {missing}", file=sys.stderr)


def is_url(target: str) -> bool:
    """Whether `target` names a server; else it names an app."""
    return "://" in target


def open_core(url: str, queue: str = "default", prefix: str = "ardiq") -> _core.Core:
    """The connection to one queue of the server at `url`, an embedded one included.

    Raises:
        Refusal: that is no URL of a server.
    """
    from .. import embedded

    with refusing():
        if embedded.is_embedded(url):
            url = embedded.url_for(url)
        return _core.Core(url, f"{prefix}:{{{queue}}}:")


class _EveryLane(frozenset[str]):
    """The lanes of an app that is not known."""

    def __contains__(self, lane: object) -> bool:
        return True


def _modules_beside(name: str) -> set[str]:
    """The modules in the place where one of that name was searched for."""
    package, _, _ = name.rpartition(".")
    from pathlib import Path

    folder = Path.cwd().joinpath(*package.split(".")) if package else Path.cwd()
    found = {path.stem for path in (*folder.glob("*.py"), *folder.glob("*/")) if path.stem.isidentifier()}
    return {f"{package}.{module}" if package else module for module in found}


def _broken(module_name: str, error: Exception) -> Refusal:
    """The message for a module that cannot be imported; prints the traceback, unless Ardiq refused an option in it."""
    from pathlib import Path

    frames = _without(error.__traceback__, __file__, _imports.__file__, importlib.__file__, "<frozen importlib")
    steps = traceback.extract_tb(frames)
    ours, loops = str(Path(__file__).parent.parent), str(Path(importlib.__file__).parent.with_name("asyncio"))
    theirs = [step for step in steps if not step.filename.startswith((ours, loops))]
    if isinstance(error, TypeError | ValueError | RuntimeError) and theirs and steps[-1] is not theirs[-1]:
        return Refusal(f"{theirs[-1].filename}, line {theirs[-1].lineno}: {error}")
    traceback.print_exception(type(error), error, frames)
    return Refusal(f"importing {module_name!r} failed: {type(error).__name__}: {error}")


def _without(frames: TracebackType | None, *files: str) -> TracebackType | None:
    """A traceback without its first frames, as long as they are of these files: none of it, of a SyntaxError."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(files):
        frames = frames.tb_next
    return frames


def _open_streams() -> None:
    """Open the streams that the process was started without, as by `>&-`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            from pathlib import Path

            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def _reason(error: OSError) -> str:
    """What the system refused, without the error number."""
    what = error.strerror or str(error)
    return f"{what}: {error.filename}" if error.filename is not None else what


def _say(error: str, code: int, usage: str = "", *, as_json: bool) -> int:
    with suppress(OSError):
        if as_json:
            print(json.dumps({"error": error, "exit_code": code}), file=sys.stderr)
        else:
            print(usage + (error if usage else f"ardiq: {error}"), file=sys.stderr)
    return code
