"""The key of a call under a rule of `uniqueness`: the same for equal calls, in every process."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..uniqueness import Debounce, Rule, Throttle, Unique
from .chosen import Chosen
from .encodings import stable
from .signature import Signature

_NAMES = {Unique: "unique", Debounce: "debounce", Throttle: "throttle"}


class Keyed:
    """A rule for the calls of one task.

    Args:
        task: its name.
        signature: of its function; None where that is registered elsewhere, and arguments are known by keyword alone.

    Raises:
        ValueError: the rule's key names a parameter that the task does not have.
        TypeError: the key's function cannot be called with arguments by name.
    """

    __slots__ = ("_chosen", "_fields", "_kind", "_signature", "_task", "delays", "rule")

    def __init__(self, task: str, rule: Rule, signature: Signature | None) -> None:
        self.rule = rule
        # Whether it says itself when a task falls due.
        self.delays = not isinstance(rule, Unique)
        self._task, self._signature = task, signature
        self._kind, self._fields = _NAMES[type(rule)], rule.fields
        key = rule.key
        if key is not None and not isinstance(key, str) and not callable(key):
            key = sorted(set(key))
        self._chosen = None if key is None else Chosen(self._what, key, signature)

    @property
    def _what(self) -> str:
        return f"the key of {type(self.rule).__name__} of task {self._task!r}"

    def options(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The rule as an option of the call.

        Raises:
            TypeError: an argument cannot be encoded.
            ValueError: the call lacks an argument, or the key's function raised.
        """
        chosen = self._same(args, kwargs)
        try:
            data = stable({"f": self._task, "k": chosen})
        except (TypeError, ValueError) as error:
            raise TypeError(f"{self._what} cannot be encoded: {error}") from None
        except RecursionError:
            raise ValueError(f"{self._what} is nested too deeply, or contains itself") from None
        import hashlib  # takes a while

        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        return {self._kind: {"key": f"{self._task}:{digest}", **self._fields}}

    def _same(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What of a call makes it the same as another."""
        if self._chosen is not None:
            return (self._chosen.value if callable(self.rule.key) else self._chosen.arguments)(args, kwargs)
        return [list(args), dict(kwargs)] if self._signature is None else self._signature.named(args, kwargs)
