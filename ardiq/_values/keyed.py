"""The key of a call under a rule of `uniqueness`: the same for equal calls, in every process."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ..uniqueness import Debounce, Rule, Throttle, Unique
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

    __slots__ = ("_fields", "_kind", "_names", "_signature", "_task", "delays", "rule")

    def __init__(self, task: str, rule: Rule, signature: Signature | None) -> None:
        self.rule = rule
        # Whether it says itself when a task falls due.
        self.delays = not isinstance(rule, Unique)
        self._task, self._signature = task, signature
        self._kind, self._fields = _NAMES[type(rule)], rule.fields
        self._names = _names(self._what, rule.key)
        for name in self._names or ():
            if signature is not None and not signature.accepts(name):
                raise ValueError(f"{self._what} names the parameter {name!r}, which the task does not have")

    @property
    def _what(self) -> str:
        return f"the key of {type(self.rule).__name__} of task {self._task!r}"

    def options(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The rule as an option of the call.

        Raises:
            TypeError: an argument cannot be encoded.
            ValueError: the call lacks an argument, or the key's function raised.
        """
        chosen = self._chosen(args, kwargs)
        try:
            data = stable({"f": self._task, "k": chosen})
        except (TypeError, ValueError) as error:
            raise TypeError(f"{self._what} cannot be encoded: {error}") from None
        except RecursionError:
            raise ValueError(f"{self._what} is nested too deeply, or contains itself") from None
        import hashlib  # takes a while

        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        return {self._kind: {"key": f"{self._task}:{digest}", **self._fields}}

    def _chosen(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What of a call makes it the same as another."""
        named = dict(kwargs) if self._signature is None else self._signature.named(args, kwargs)
        if self._names is None:
            return [list(args), named] if self._signature is None else named
        try:
            found = {name: named[name] for name in self._names}
        except KeyError as error:
            raise ValueError(
                f"{self._what} cannot be computed: the call has no argument named {error.args[0]!r}"
            ) from None
        if not callable(self.rule.key):
            return found
        try:
            return self.rule.key(**found)
        except Exception as error:
            raise ValueError(f"{self._what} cannot be computed: {error!r}") from error


def _names(what: str, key: Any) -> list[str] | None:
    """The parameters that a key is made of; None: all."""
    if key is None:
        return None
    if isinstance(key, str):
        return [key]
    if not callable(key):
        return sorted(set(key))
    try:
        parameters = inspect.signature(key).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a function whose parameters are known, not {key!r}") from None
    for each in parameters:
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            raise TypeError(f"{what} must be a function of parameters that the task has, not of {str(each)!r}")
    return [each.name for each in parameters if each.default is each.empty]
