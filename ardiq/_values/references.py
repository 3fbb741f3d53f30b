"""What stands for a result that is not there yet: an argument of a workflow's task, until that is claimed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from .signature import MISSING

RESULT, RESULTS, PAGES = "result", "results", "pages"
"""What of its source a reference stands for: its result, the list of a map's results, or a `Results`."""

_OPERATIONS = (
    "bool eq ne lt le gt ge hash str format bytes int float complex index len iter next contains getitem setitem "
    "delitem reversed call await aiter anext enter exit aenter aexit add radd sub rsub mul rmul truediv rtruediv "
    "floordiv rfloordiv mod rmod divmod rdivmod pow rpow and rand or ror xor rxor lshift rlshift rshift rrshift matmul "
    "rmatmul iadd isub imul itruediv iand ior ixor neg pos abs invert round trunc floor ceil fspath copy deepcopy "
    "reduce_ex buffer"
)


class Reference:
    """Stands for the result of a node, with its type for type checkers. It can only be an argument of `prepare`."""

    __slots__ = ("_default", "_node", "_what")

    def __init__(self, node: Any, what: str, default: Any = MISSING) -> None:
        self._node, self._what, self._default = node, what, default

    def __repr__(self) -> str:
        return _named(self)

    def __getattr__(self, name: str) -> NoReturn:
        _misused(self)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Reference, *_: Any) -> NoReturn:
        _misused(self)

    refuse.__name__ = name
    return refuse


for _operation in _OPERATIONS.split():
    setattr(Reference, f"__{_operation}__", _refuse(f"__{_operation}__"))


class Source(NamedTuple):
    """What one argument stands for.

    Attributes:
        nodes: of which; several where it is a list of their results.
        is_list: whether it is a list of results.
        what: see `RESULT`.
        default: its value if there is no result; `MISSING` where there is none.
    """

    nodes: tuple[Any, ...]
    is_list: bool
    what: str
    default: Any

    @property
    def has_default(self) -> bool:
        """Whether something was named for the case that there is no result."""
        return self.default is not MISSING


def is_reference(value: Any) -> bool:
    """Whether a value stands for a result."""
    return type(value) is Reference


def source_of(value: Any) -> Source | None:
    """What an argument stands for: it is a reference, or a list of references alone; None for any other.

    Raises:
        TypeError: there is a reference somewhere in it.
    """
    if type(value) is Reference:
        return Source((value._node,), False, value._what, value._default)
    if type(value) is list and value and all(type(each) is Reference and each._what == RESULT for each in value):
        if any(each._default is not MISSING for each in value):
            raise TypeError("a list of results takes no result_or(…): the results that are not there are None")
        return Source(tuple(each._node for each in value), True, RESULT, MISSING)
    if (within := _within(value)) is not None:
        raise TypeError(
            f"{_named(within)} is within an argument, where nothing can take its place: pass it as an argument of its "
            "own, or in a list of results alone"
        )
    return None


def sources_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int | str, Source]:
    """What the arguments of a call stand for, by position and keyword.

    Raises:
        TypeError: there is a reference within one.
    """
    named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    found: dict[int | str, Source] = {}
    for name, value in named:
        source = source_of(value)
        if source is not None:
            found[name] = source
    return found


def _within(value: Any) -> Reference | None:
    """A reference among the parts of a value."""
    if type(value) is Reference:
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    return next((found for part in parts if (found := _within(part)) is not None), None)


def why_not_sent(value: Any) -> str:
    """Why a call that is enqueued by itself cannot have this argument."""
    return f"is {_named(value)}, which is there only in its workflow: flow.add(….prepare(…))"


def _named(reference: Reference) -> str:
    what = {RESULT: "result", RESULTS: "results", PAGES: "result"}[reference._what]
    return f"the {what} of node {reference._node.name!r}"


def _misused(reference: Reference) -> NoReturn:
    raise TypeError(
        f"{_named(reference)} is not there until the workflow runs: it can only be passed as an argument of "
        "task.prepare(…), by itself"
    )
