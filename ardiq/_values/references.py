"""What stands for a result that is not there yet: an argument of a workflow's task, until that is claimed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Leaf(NamedTuple):
    """One place in an argument that results take.

    Attributes:
        path: where it is in the argument, an index for each list around it; empty: it is the argument.
        nodes: whose result it is; several where it is a list of their results.
        is_list: whether it is such a list.
    """

    path: tuple[int, ...]
    nodes: tuple[Any, ...]
    is_list: bool


class Source(NamedTuple):
    """What one argument stands for.

    Attributes:
        leaves: the places in it that results take.
        what: see `RESULT`; of lists `RESULT`.
        default: what stands in its place until then: `MISSING` if nothing was named for it; of lists within a list,
            these lists.
    """

    leaves: tuple[Leaf, ...]
    what: str
    default: Any

    @property
    def nodes(self) -> list[Any]:
        """All that it takes results of."""
        return [node for leaf in self.leaves for node in leaf.nodes]

    @property
    def has_default(self) -> bool:
        """Whether something was named for the case that there is no result."""
        return self.default is not MISSING and not self.leaves[0].path


def is_reference(value: Any) -> bool:
    """Whether a value stands for a result."""
    return type(value) is Reference


def source_of(value: Any) -> Source | None:
    """What an argument stands for: it is a reference, or a list of references alone, or of such lists; None for any
    other.

    Raises:
        TypeError: there is a reference somewhere else in it.
    """
    if type(value) is Reference:
        return Source((Leaf((), (value._node,), False),), value._what, value._default)
    if type(value) is list and _is_of_references(value) and (leaves := tuple(_leaves(value, ()))):
        return Source(leaves, RESULT, _emptied(value) if leaves[0].path else MISSING)
    if (within := _within(value)) is not None:
        raise TypeError(
            f"{_named(within)} is within an argument, where nothing can take its place: pass it as an argument of its "
            "own, or in a list of results alone"
        )
    return None


def _is_of_references(value: list[Any]) -> bool:
    """Whether it holds references, and lists of them, and nothing else."""
    return all(_is_of_references(each) if type(each) is list else type(each) is Reference for each in value)


def _leaves(value: list[Any], path: tuple[int, ...]) -> Iterator[Leaf]:
    for each in value:
        if type(each) is Reference and each._default is not MISSING:
            raise TypeError("a list of results takes no result_or(…): the results that are not there are None")
        if type(each) is Reference and each._what == PAGES:
            raise TypeError(f"{_named(each)} is in a list, where only a list can take its place: pass its `results`")
    if all(type(each) is Reference and each._what == RESULT for each in value):
        if value:
            yield Leaf(path, tuple(each._node for each in value), True)
        return
    for at, each in enumerate(value):
        if type(each) is list:
            yield from _leaves(each, (*path, at))
        else:
            yield Leaf((*path, at), (each._node,), False)


def _emptied(value: list[Any]) -> Any:
    """The lists, without what results take the place of."""
    if value and all(type(each) is Reference for each in value):
        return None if all(each._what == RESULT for each in value) else [None] * len(value)
    return [_emptied(each) if type(each) is list else None for each in value]


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
