"""Importing the modules with a worker's tasks."""

import importlib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from . import options as _options

is_by_command = False
"""Whether a command imports a program, which must not run a worker meanwhile."""


def patterns(name: str, value: object) -> list[str]:
    """Names of modules, in which `*` stands for anything within one part: `proj.mail`, `proj.*.tasks`.

    Raises:
        TypeError: not a list of strings.
        ValueError: one is not the name of a module.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of module names, not {type(value).__name__}")
    found = [_options.text(f"each of {name}", each) for each in value]
    for each in found:
        first, *rest = each.split(".")
        if not first.isidentifier() or not all(part.replace("*", "x").isidentifier() for part in rest):
            raise ValueError(f"{name}: {each!r} is not the name of a module, such as 'proj.mail' or 'proj.*.tasks'")
    return found


def load(names: Iterable[str]) -> list[str]:
    """Import all modules of these names and patterns.

    Raises:
        ModuleNotFoundError: there is no module of that name, or none that matches the pattern.
        Exception: whatever a module raises.
    """
    loaded = []
    for name in names:
        modules = _matching(name) if "*" in name else [name]
        if not modules:
            raise ModuleNotFoundError(f"no module matches {name!r}", name=name)
        for module in modules:
            importlib.import_module(module)
        loaded += modules
    return loaded


def _matching(pattern: str) -> list[str]:
    """Names of the modules that match a pattern, in order."""
    import pkgutil

    first, *rest = pattern.split(".")
    found = [first]
    for at, part in enumerate(rest, 1):
        found = [
            f"{parent}.{child.name}"
            for parent in found
            for child in pkgutil.iter_modules(getattr(importlib.import_module(parent), "__path__", ()))
            if fnmatchcase(child.name, part) and (child.ispkg or at == len(rest))
        ]
    return sorted(found)
