"""What of a call a key, a cost or a weight is made of: some of its arguments, or what a function makes of them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .items import ItemSignature
from .signature import MISSING, Signature


class Chosen:
    """Some of the arguments of a task's calls, as `key=` and the like choose them.

    Args:
        what: that is made of them, for messages.
        source: the name of a parameter of the task, several, or a function whose parameters are named as the task's; of
            a task that gathers, a function of the item.
        signature: of the task's function; None where that is registered elsewhere, and arguments are known by keyword
            alone.

    Raises:
        ValueError: it names a parameter that the task does not have.
        TypeError: it is a function that cannot be called with arguments by name.
    """

    __slots__ = ("_function", "_of_item", "_places", "_single", "_what")

    def __init__(
        self, what: str, source: str | Sequence[str] | Callable[..., Any], signature: Signature | None
    ) -> None:
        self._what = what
        self._function = source if callable(source) else None
        self._single = isinstance(source, str)
        self._of_item = self._function is not None and isinstance(signature, ItemSignature)
        names = [source] if isinstance(source, str) else source
        if self._of_item:
            _check_takes_one(what, source)
            names = []
        elif callable(names):
            names = list(_parameters(what, names, signature))
        # By name: at which position it is passed, and its default.
        self._places: dict[str, tuple[int | None, Any]] = {}
        for name in names:
            if signature is None:
                self._places[name] = None, MISSING
            elif signature.accepts(name):
                self._places[name] = signature.position(name), signature.default(name)
            else:
                raise ValueError(f"{what} names the parameter {name!r}, which the task does not have")

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The chosen arguments of a call that fits the task, by name, defaults included.

        Raises:
            ValueError: the call lacks one.
        """
        found = {}
        for name, (position, default) in self._places.items():
            value = args[position] if position is not None and position < len(args) else kwargs.get(name, default)
            if value is MISSING:
                raise ValueError(f"{self._what} cannot be computed: the call has no argument named {name!r}")
            found[name] = value
        return found

    def value(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the function makes of them; without one the argument itself, or a tuple of them.

        Raises:
            ValueError: the call lacks one, or the function raised.
        """
        found = self.arguments(args, kwargs)
        if self._function is None:
            return next(iter(found.values())) if self._single else tuple(found.values())
        try:
            return self._function(args[0]) if self._of_item else self._function(**found)
        except Exception as error:
            raise ValueError(f"{self._what} cannot be computed: {error!r}") from error


def _parameters(what: str, function: Callable[..., Any], signature: Signature | None) -> Iterator[str]:
    """Which of its parameters are those of the task: all but some that have defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a function whose parameters are known, not {function!r}") from None
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{what} must be a plain function, not async: nobody could await {function!r}")
    for each in parameters:
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            raise TypeError(f"{what} must be a function of parameters that the task has, not of {str(each)!r}")
        if each.default is each.empty or (signature is not None and signature.accepts(each.name)):
            yield each.name


def _check_takes_one(what: str, function: Any) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # as some builtins: the first call says what is wrong
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"{what} must be a function of one parameter, the item: {error}") from None
