"""The tables of docs/configuration.md, from the signatures, docstrings and help texts that say the same."""

import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any

from ardiq import Ardiq, Task
from ardiq.cli import run

Rows = list[tuple[str, ...]]


def tables() -> dict[str, Rows]:
    """The rows of every table by its name."""
    return {
        "Ardiq": _options(Ardiq, Ardiq.__doc__),
        "task": _options(Ardiq.task, Ardiq.task.__doc__),
        "cron": _options(Ardiq.cron, Ardiq.cron.__doc__),
        "options": _options(Task.options, Task.options.__doc__),
        "run": _of_command(),
    }


def _options(function: Callable[..., Any], doc: str | None) -> Rows:
    about, rows = _about(doc or ""), [("option", "default", "meaning")]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in ("self", "fn"):
            rows.append((f"`{parameter.name}`", f"`{parameter.default!r}`", about[parameter.name]))
    return rows


def _about(doc: str) -> dict[str, str]:
    """What a docstring's `Args` say of each, which may be several in a line."""
    lines = re.split(r"\n\s*\n", doc.split("Args:\n", 1)[1], maxsplit=1)[0].splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    about: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        text = line[indent:]
        if text and not text.startswith(" "):
            first, text = text.split(":", 1)
            names = first.split(", ")
        about |= {name: f"{about.get(name, '')} {text.strip()}".strip() for name in names}
    return about


def _of_command() -> Rows:
    parser = argparse.ArgumentParser(add_help=False)
    run.configure(parser)
    rows = [("option", "meaning")]
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            rows.append((f"`{', '.join(action.option_strings)}`", (action.help or "").replace("%%", "%")))
    return rows
