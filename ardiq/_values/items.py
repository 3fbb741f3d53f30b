"""Tasks that gather: their functions take a list of items, and each of their calls passes one."""

import functools
import inspect
import types
import typing
from collections import abc
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import ItemErrors
from .signature import MISSING, Signature, hints_of, parameters_of

ITEM = "item"
"""The one parameter of a call."""

_CALL = inspect.Signature([inspect.Parameter(ITEM, inspect.Parameter.POSITIONAL_ONLY)])
# Of which a list is one.
_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_UNKNOWN = (MISSING, Any, object)


class ItemSignature(Signature):
    """Of the calls of a task that gathers: the annotations of one item, and of its result."""

    __slots__ = ()

    @classmethod
    def unknown(cls, name: str) -> "ItemSignature":
        """Of a task that is registered elsewhere."""

        def gather(items: Any) -> None: ...

        return cls(name, gather)

    def _inspected(self) -> inspect.Signature:
        return _CALL

    def _written(self) -> dict[str, Any]:
        item, result = _hints(self.fn)
        return {name: hint for name, hint in ((ITEM, item), ("return", result)) if hint not in (MISSING, None)}


def check_function(task: str, function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with a list of items.

    Raises:
        TypeError: it has another number of parameters, or its annotations say something else.
    """
    parameters = parameters_of(function)
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        named = ", ".join(map(str, parameters)) or "none"
        raise TypeError(f"task {task!r} has a batch, so its function takes one parameter, a list of items, not {named}")
    item, result = _hints(function)
    name = parameters[0].name
    if item is None:
        raise TypeError(
            f"task {task!r} has a batch, so {name!r} is a list of items: annotate it as a list, such as list[str], not "
            f"as {_shown(hints_of(function)[name])}"
        )
    if result is None:
        raise TypeError(
            f"task {task!r} has a batch, so it returns a list of results or None, not "
            f"{_shown(hints_of(function)['return'])}"
        )


def results_of(count: int, returned: Any) -> list[Any]:
    """The results of the items of a batch, by what its execution returned.

    Raises:
        TypeError: it returned something else.
    """
    if returned is None:
        return [None] * count
    said = (
        f"a batch of {count} returns {'a list of one result' if count == 1 else f'a list of {count} results'} or None"
    )
    if not isinstance(returned, list):
        raise TypeError(f"{said}, not {type(returned).__name__}")
    if len(returned) != count:
        raise TypeError(f"{said}, not a list of {len(returned)}")
    return returned


def errors_of(count: int, raised: ItemErrors) -> tuple[list[Any], dict[int, BaseException]]:
    """The results of the items of a batch, and the errors by the numbers of the items, by what its execution raised.

    Raises:
        TypeError: there is another number of results, or no such item.
    """
    for number in raised.errors:
        if number >= count:
            items = "the item 0" if count == 1 else f"the items 0 to {count - 1}"
            raise TypeError(f"ItemErrors has an error for item {number}, but this batch has {items}") from raised
    return results_of(count, raised.results), raised.errors


def of_one(function: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    """What calls a function of a list with one item, and gives that item's result."""

    def call(item: Any) -> Any:
        try:
            returned = function([item])
        except ItemErrors as raised:
            return _only(raised)
        return later(returned) if inspect.isawaitable(returned) else results_of(1, returned)[0]

    async def later(returning: Awaitable[Any]) -> Any:
        try:
            returned = await returning
        except ItemErrors as raised:
            return _only(raised)
        return results_of(1, returned)[0]

    functools.update_wrapper(call, function)
    return call


def _only(raised: ItemErrors) -> Any:
    results, errors = errors_of(1, raised)
    if errors:
        raise errors[0]
    return results[0]


def _hints(function: Callable[..., Any]) -> tuple[Any, Any]:
    """The annotation of an item and of its result; `MISSING` where nothing is known, None where it can be neither."""
    hints, parameters = hints_of(function), parameters_of(function)
    return _of_items(hints.get(parameters[0].name, MISSING)), _of_results(hints.get("return", MISSING))


def _of_items(hint: Any) -> Any:
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if hint in _UNKNOWN or isinstance(hint, typing.TypeVar) or hint in _LISTS:
        return MISSING
    if typing.get_origin(hint) not in _LISTS:
        return None
    return next(iter(typing.get_args(hint)), MISSING)


def _of_results(hint: Any) -> Any:
    if hint is types.NoneType:
        return MISSING
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return _of_items(hint)
    lists = [_of_items(part) for part in typing.get_args(hint) if part is not types.NoneType]
    if MISSING in lists or None in lists:
        return MISSING if None not in lists else None
    has_none = types.NoneType in typing.get_args(hint)
    return typing.Union[tuple([*lists, None] if has_none else lists)]  # noqa: UP007


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
