"""Workflows: tasks that begin when others have ended, with their results as arguments."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._client.nodes import Filler, Join, Map, Member, Node, OnFailure, Part, Piece, Subflow
from ._client.producer import held_back
from ._values import options as _options
from ._values.filled import Filled
from ._values.items import ItemSignature
from ._values.options import Duration
from ._values.references import Source, is_reference, source_of, sources_of
from .task import BoundTask, PreparedTask, Task

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVarTuple

    from .task import _Enqueueable

    Ts = TypeVarTuple("Ts")

R = TypeVar("R")
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LONGEST = 100
_LONGEST_OF_TASK = 90


class Flow:
    """A graph of calls, to be started with `app.start(flow)`.

    Args:
        name: what people see.
        id: the workflow's id: while one with it runs or is kept, a start adds nothing. None: a new one for each start.
        result_ttl: for how long it is kept after its end, with all its tasks, a timedelta or seconds; None: as long as
            the app keeps results.
        timeout: after how long all of it that has not ended is aborted, a timedelta or seconds; None: never.

    Example:
        ```python
        flow = Flow("site")
        page = flow.add(fetch.prepare("https://example.com"))
        links = flow.add(parse.prepare(page.result))
        job = await app.start(flow, output=links)
        print(await job.value(timeout=60))
        ```
    """

    def __init__(
        self,
        name: str = "workflow",
        *,
        id: str | None = None,
        result_ttl: Duration | None = None,
        timeout: Duration | None = None,
    ) -> None:
        self.name = _options.text("name", name)
        self.id = None if id is None else workflow_id(id)
        self.result_ttl_ms = _options.result_ttl(result_ttl)
        self.timeout_ms = None if timeout is None else _options.milliseconds("timeout", timeout, least=1)
        self.members: dict[str, Member] = {}
        self.outer: Flow | None = None
        self.prefix = ""
        # Prefixes of names, of a whole workflow and all within it.
        self._taken: set[str] = set()

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"

    @property
    def root(self) -> "Flow":
        """The flow that is started: itself, or what it is a part of."""
        flow = self
        while flow.outer is not None:
            flow = flow.outer
        return flow

    @overload
    def add(self, call: PreparedTask[R], *, name: str | None = ...) -> Node[R]: ...
    @overload
    def add(self, call: Piece[R], *, name: str | None = ...) -> Subflow[R]: ...
    def add(self, call: Any, *, name: str | None = None) -> Any:
        """Add a call, or a whole workflow.

        Args:
            call: from `task.prepare(…)`, or `workflow.prepare(…)`, a chain, a group or a chord; results of other nodes
                may be among its arguments.
            name: what it is called in the flow: up to 100 letters, digits, `_`, `.` and `-`; None: after its task or
                workflow. Of a workflow it stands before the names of its nodes: `name.fetch`.

        Raises:
            TypeError: it is no call, or a result is within one of its arguments.
            ValueError: the name is invalid or taken, or a result is of another flow.
        """
        if isinstance(call, Piece):
            return call.put(self, name)
        node = self._new_node(held_back(call, "flow.add"), name)
        self._follow(node)
        self._put(node)
        return node

    def add_compensation(self, member: Member, call: PreparedTask[Any], name: str | None) -> Node[Any]:
        """What `member.compensate` adds."""
        node = self._new_node(held_back(call, "compensate"), name)
        for source in node.sources.values():
            for other in source.nodes:
                self.check(node.name, other)
        node.edges[member] = "undo"
        self._put(node)
        return node

    def _new_node(self, held: PreparedTask[Any], name: str | None) -> Node[Any]:
        name = self._name(name, held.task.name)
        try:
            sources = sources_of(held.args, held.kwargs)
        except TypeError as error:
            raise TypeError(f"node {name!r}: {error}") from None
        node: Node[Any] = Node(self, name, held)
        node.sources = sources
        return node

    def _follow(self, node: Member) -> None:
        """It comes after those whose results it takes."""
        for source in node.sources.values():
            for other in source.nodes:
                self.check(node.name, other)
                policy: OnFailure | None = "ignore" if source.has_default else None
                node.edges[other] = node.edges.get(other) or policy

    @overload
    def map(
        self,
        task: "_Enqueueable[[T], Coroutine[Any, Any, R]]",
        items: Iterable[T],
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    @overload
    def map(
        self,
        task: "_Enqueueable[[T], R]",
        items: Iterable[T],
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    def map(
        self,
        task: Any,
        items: Iterable[Any],
        *,
        max_concurrent: int | None = None,
        tolerate: float = 0,
        keep_results: bool = True,
        chunk: int = 1,
        name: str | None = None,
    ) -> Map[Any]:
        """Add a call for each item: as many tasks as there are items, but only some of them at once.

        Args:
            task: the task, or one with options.
            items: the only argument of each call; or the result of a node that returns a list, the results of another
                map, or a list of results: then it has as many tasks as that has items, up to a million.
            max_concurrent: how many of its calls are tasks at once; None: up to 2,000.
            tolerate: how many calls may fail without failing the map: a number, or a part of them as 0.01.
            keep_results: whether the calls' results are kept, to be passed on.
            chunk: for how many items one task calls the function, one after the other; of these tasks there are
                `max_concurrent` at once, and `tolerate` may fail. If an item fails, the task is tried again with all
                of its items.
            name: as of `add`.

        Raises:
            TypeError, ValueError: an argument is invalid.
        """
        source = _source_of(items)
        rows = [] if source else [(item,) for item in _each("items", items)]
        return self._map(task, rows, source, False, max_concurrent, tolerate, keep_results, chunk, name)

    @overload
    def starmap(
        self,
        task: "BoundTask[..., Coroutine[Any, Any, R]]",
        items: Iterable[tuple[Any, ...]],
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    @overload
    def starmap(
        self,
        task: BoundTask[..., R],
        items: Iterable[tuple[Any, ...]],
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    @overload
    def starmap(
        self,
        task: "Callable[[*Ts], Coroutine[Any, Any, R]]",
        items: "Iterable[tuple[*Ts]]",
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    @overload
    def starmap(
        self,
        task: "Callable[[*Ts], R]",
        items: "Iterable[tuple[*Ts]]",
        *,
        max_concurrent: int | None = ...,
        tolerate: float = ...,
        keep_results: bool = ...,
        chunk: int = ...,
        name: str | None = ...,
    ) -> Map[R]: ...
    def starmap(
        self,
        task: Any,
        items: Iterable[tuple[Any, ...]],
        *,
        max_concurrent: int | None = None,
        tolerate: float = 0,
        keep_results: bool = True,
        chunk: int = 1,
        name: str | None = None,
    ) -> Map[Any]:
        """As `map`, of items that are tuples, each with all positional arguments of a call."""
        source = _source_of(items)
        rows = [] if source else [tuple(_each("each of items", item)) for item in _each("items", items)]
        return self._map(task, rows, source, True, max_concurrent, tolerate, keep_results, chunk, name)

    def within(self, name: str, prefix: str | None) -> "Flow":
        """A flow that is a part of it; `prefix`: what its names begin with, before a dot; None: as here.

        Raises:
            ValueError: the name is invalid or taken.
        """
        inner = Flow(name)
        inner.outer, inner.prefix = self, self.prefix
        if prefix is not None:
            inner.prefix = f"{prefix}."
            self.root._taken.add(prefix)
        return inner

    def prefix_of(self, name: str | None, like: str) -> str:
        """The whole name of a workflow within it; `like`: its own."""
        return self._name(name, like)

    def join(self, ends: Sequence[Member]) -> Member:
        """A member that ends when these have."""
        made = Join(self, self._name(None, "join"), ends)
        self._put(made)
        return made

    def open_map(self, made: Map[Any]) -> Map[Any]:
        """Add a map of calls that come while it runs."""
        self._put(made)
        return made

    def _put(self, member: Member) -> None:
        flow: Flow | None = self
        while flow is not None:
            flow.members[member.name] = member
            flow = flow.outer

    def check(self, name: str, other: Part) -> None:
        """Refuse an edge to a node that is not of this flow.

        Raises:
            ValueError: it is of another one.
        """
        if other.flow.root is not self.root:
            raise ValueError(f"node {name!r} cannot be after {other.name!r}, which is of another flow")
        if other.name == name:
            raise ValueError(f"node {name!r} cannot be after itself")

    def _map(
        self,
        task: Any,
        items: list[tuple[Any, ...]],
        source: Source | None,
        spreads: bool,
        max_concurrent: int | None,
        tolerate: float,
        keep_results: bool,
        chunk: int,
        name: str | None,
    ) -> Map[Any]:
        if not isinstance(task, Task | BoundTask):
            raise TypeError(f"flow.map takes a task, not {type(task).__name__}")
        like: PreparedTask[Any] = task.prepare()
        name = self._name(name, like.task.name)
        if max_concurrent is not None:
            _options.integer("max_concurrent", max_concurrent, least=1)
        _options.tolerated(tolerate)
        _options.boolean("keep_results", keep_results)
        _options.integer("chunk", chunk, least=1)
        if chunk > 1 and isinstance(like.task.signature, ItemSignature):
            raise ValueError(f"map {name!r} cannot have chunks: its task has a batch, which gathers items itself")
        for number, row in enumerate(items):
            if any(map(is_reference, row)):
                raise TypeError(f"map {name!r}: item {number} is a result of this workflow, and they are not there yet")
        made: Map[Any] = Map(self, name, like, items, max_concurrent, tolerate, keep_results, chunk)
        if source is not None:
            filled = Filled(name, like.task.name, chunk, spreads)
            default = source.default if source.has_default else None
            call = PreparedTask.of(like.task, (default, filled._asdict()), {}, like.call_options)
            made.filler = Filler(self, self._free(f"{name}.items"), call, source)
            self._follow(made.filler)
            made.edges[made.filler] = None
            self._put(made.filler)
        self._put(made)
        return made

    def _name(self, name: str | None, task: str) -> str:
        """The whole name of a new member."""
        members, taken = self.root.members, self.root._taken
        if name is None:
            short = re.sub(r"[^A-Za-z0-9_-]", "_", re.split(r"[.:/]", task)[-1])[:_LONGEST_OF_TASK]
            start = self.prefix + (f"task_{short}" if short.isdigit() or not short else short)
            number, name = 1, start
            while name in members or name in taken:
                number += 1
                name = f"{start}_{number}"
        else:
            if not isinstance(name, str):
                raise TypeError(f"name must be a str, not {type(name).__name__}")
            if not _NAME.fullmatch(name) or name.isdigit():
                raise ValueError(
                    f"node name {name!r} must be 1 to 100 of A-Z, a-z, 0-9, '_', '.' and '-', and not a number"
                )
            name = self.prefix + name
        return self._free(name)

    def _free(self, name: str) -> str:
        """The whole name of a new member, which nothing has.

        Raises:
            ValueError: something has it, or it is too long.
        """
        if len(name) > _LONGEST:
            raise ValueError(
                f"node name {name!r} has more than {_LONGEST} characters: give the workflows that it is within shorter "
                "names"
            )
        if name in self.root.members or name in self.root._taken:
            raise ValueError(f"there is a node {name!r} in this flow already")
        return name


def workflow_id(id: str) -> str:
    """The id of a workflow, if it can be one."""
    if "~" in _options.text("id", id):
        raise ValueError(f"the id {id!r} of a workflow must not contain '~', which is between it and its nodes' names")
    if len(id.encode()) > 400:
        raise ValueError("the id of a workflow must have at most 400 bytes")
    return id


def _source_of(items: Any) -> Source | None:
    """What the items of a map are a result of; None: they are there."""
    is_list = type(items) is list and bool(items) and is_reference(items[0])
    source = source_of(items) if is_list or is_reference(items) else None
    if source is not None and source.leaves[0].path:
        raise TypeError("the items of a map can be a list of results of nodes, but not of maps or lists of such")
    return source


def _each(what: str, items: Any) -> Iterable[Any]:
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"{what} must be a list or another iterable, not {type(items).__name__}")
    return items
