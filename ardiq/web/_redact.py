"""What of arguments, results and notes is not shown."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .._values.signature import MISSING

if TYPE_CHECKING:
    from .._values.signature import Signature

HIDDEN = "●●●●●● redacted"
_NAMES = re.compile(r"pass|secret|token|api_?key|authorization|cookie|card", re.IGNORECASE)
_DEEPEST = 60


class Redactor:
    """Hides values by the names of arguments and keys.

    Args:
        more: whether to hide the values of further names, besides those like `password` or `api_key`.
    """

    def __init__(self, more: Callable[[str], bool] | None = None) -> None:
        self._more = more

    def hides(self, name: str) -> bool:
        """Whether values of that name are hidden."""
        return _NAMES.search(name) is not None or (self._more is not None and bool(self._more(name)))

    def value(self, value: Any, depth: int = 0) -> Any:
        """A value of JSON, with what its keys hide left out at any depth."""
        if depth > _DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            return {str(name): self.named(str(name), inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner, depth + 1) for inner in value]
        return value

    def named(self, name: str, value: Any, depth: int = 0) -> Any:
        """The value of that name."""
        return HIDDEN if self.hides(name) else self.value(value, depth)

    def restored(self, name: str, new: Any, old: Any, depth: int = 0) -> Any:
        """What somebody wrote over a value of that name as it was shown, with what was hidden in its place again.

        Raises:
            ValueError: what is hidden was written elsewhere than it was, or it is nested too deeply to be shown whole.
        """
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply to be written here")
        if new == HIDDEN:
            if old is MISSING or not self.hides(name):
                raise ValueError(f"{HIDDEN!r} can only stay where it was")
            return old
        if isinstance(new, dict):
            inner = old if isinstance(old, dict) else {}
            return {key: self.restored(key, value, inner.get(key, MISSING), depth + 1) for key, value in new.items()}
        if isinstance(new, list):
            items = [*old, *repeat(MISSING, len(new))] if isinstance(old, list) else repeat(MISSING)
            return [self.restored("", value, item, depth + 1) for value, item in zip(new, items, strict=False)]
        return new

    def call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], signature: "Signature | None"
    ) -> list[tuple[str, Any]]:
        """Arguments by name, as far as the task's signature names them; else by position."""
        names = [name for name, _ in signature.positional(len(args))] if signature is not None else []
        rows = []
        for at, value in enumerate(args):
            name = names[at] if at < len(names) else str(at)
            rows.append((name, self.named(name, value)))
        return rows + [(str(name), self.named(str(name), value)) for name, value in kwargs.items()]
