"""What somebody does to a queue on the command line, noted in its audit log."""

import argparse
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..errors import ArdiqError, BrokerError
from ._arguments import Refusal

if TYPE_CHECKING:
    from ..app import Ardiq

# By command, those of its words that change something; none: it always does.
_CHANGES: dict[str, tuple[str, ...]] = {
    "pause": (),
    "resume": (),
    "purge": (),
    "task": ("abort", "hurry", "requeue"),
    "dlq": ("requeue", "replay", "discard", "delete"),
    "schedule": ("put", "pause", "resume", "run", "remove"),
    "limits": ("put", "remove"),
    "workflow": ("abort", "pause", "resume", "retry", "signal"),
}
_OPTIONS = ("task", "lane", "error")


class Deed:
    """What is being done.

    Attributes:
        app: the queue it is done to; None: it is not known yet, or nothing is to be noted.
        number: to how many tasks, pauses or others; None: to those that were named.
        outcome: what came of it so far.
    """

    def __init__(self) -> None:
        self.app: Ardiq | None = None
        self.number: int | None = None
        self.outcome = ""


_deed: ContextVar[Deed | None] = ContextVar("deed", default=None)


def is_done_to(app: "Ardiq") -> None:
    """What is being done is done to this queue."""
    if deed := _deed.get():
        deed.app = app


def came(number: int, outcome: str) -> None:
    """What came of what is being done."""
    if deed := _deed.get():
        deed.number, deed.outcome = number, outcome


def carry_out(arguments: argparse.Namespace) -> int:
    """Run a command; if it changes a queue, note in the queue who did what, and what came of it."""
    action = _action(arguments)
    if not action:
        return int(arguments.run(arguments))
    deed = Deed()
    token = _deed.set(deed)
    try:
        code = int(arguments.run(arguments))
    except (Refusal, BrokerError):  # nothing was done, or nothing can be noted
        raise
    except BaseException as error:
        _note(deed, action, arguments, f"{deed.outcome} {type(error).__name__}: {error}".strip(), 0)
        raise
    finally:
        _deed.reset(token)
    _note(deed, action, arguments, deed.outcome or ("not done" if code else "done"), 0 if code else None)
    return code


def _action(arguments: argparse.Namespace) -> str:
    command = arguments.run.__module__.rpartition(".")[2]
    if command not in _CHANGES:
        return ""
    word = getattr(arguments, "action", "")
    return f"{command} {word}".strip() if word in (_CHANGES[command] or ("",)) else ""


def _note(deed: Deed, action: str, arguments: argparse.Namespace, outcome: str, otherwise: int | None) -> None:
    """Note it: what was done stays done, also if that fails."""
    if deed.app is None:
        return
    import getpass
    import socket

    from .._server import calls
    from .._server.replies import ask

    named = _named(arguments)
    number = deed.number if deed.number is not None else len(named) or 1 if otherwise is None else otherwise
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "?"
    call = calls.audit_add(
        user=f"{user}@{socket.gethostname()}",
        client="ardiq",
        action=action,
        subject=" ".join([*named, *_chosen(arguments)]),
        number=number,
        outcome=outcome,
    )
    try:
        ask(deed.app.context.server.core, call)
    except ArdiqError as error:
        print(f"note: this is not in the audit log: {error}", file=sys.stderr)


def _named(arguments: argparse.Namespace) -> list[str]:
    """The ids or the name that were typed."""
    given = vars(arguments)
    return list(given.get("ids") or [given[each] for each in ("id", "name") if given.get(each)])


def _chosen(arguments: argparse.Namespace) -> list[str]:
    """The options that choose something; of an argument its name alone, as its value may be secret."""
    given = vars(arguments)
    told = [f"--{name} {given[name]}" for name in _OPTIONS if given.get(name)]
    argument = str(given.get("arg") or "").partition("=")[0]
    return [*told, *([f"--arg {argument}=…"] if argument else []), *(["--all"] if given.get("all") else [])]
