"""A flow as the server takes it: checked as a whole, each node behind those that it is after."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._server import calls
from .._server.replies import Call
from .._values import chunks
from .._values.chunks import CHUNK
from .._values.encodings import from_json, netstring, to_json
from .._values.filled import FILL
from .._values.ids import new_id
from .._values.inputs import encode_open, parameter_of, wiring
from .._values.references import Leaf
from .._values.signature import MISSING
from .._values.signing import Place
from ..models import EnqueueContext
from ..workflows import Flow
from .nodes import Filler, Join, Map, Member, Node, OpenMap, Subflow

if TYPE_CHECKING:
    from .queue import QueueContext

MOST_NODES = 1000
_MOST_EDGES = 10_000
_MOST_BYTES = 64 * 1024 * 1024
_PAGE_BYTES = 1024 * 1024
_ALL_OF_THEM = 2**53 - 1


class Graph:
    """A flow that is about to be started on a queue.

    Raises:
        TypeError, ValueError: something is wrong with it; the text names the node or the edge.
    """

    def __init__(self, queue: "QueueContext", flow: Flow, output: Any, id: str | None = None) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"start takes a Flow, not {type(flow).__name__}")
        if flow.outer is not None:
            raise ValueError(f"flow {flow.name!r} is a part of another one, which starts it")
        self._queue = queue
        self._flow = flow
        self.id = id or flow.id or new_id()
        self.output = self._output(output)
        members = list(flow.members.values())
        if not members:
            raise ValueError(f"flow {flow.name!r} has no nodes")
        if len(members) > MOST_NODES:
            raise ValueError(
                f"flow {flow.name!r} has {len(members):,} nodes; it may have {MOST_NODES:,}: make one map of calls of "
                "the same task"
            )
        edges = sum(len(member.edges) for member in members)
        if edges > _MOST_EDGES:
            raise ValueError(f"flow {flow.name!r} has {edges:,} edges; it may have {_MOST_EDGES:,}")
        for member in members:
            self._check(member)
        self._made = [(member, self._node(member)) for member in sorted_by_edges(flow, members)]
        self._headers: dict[Member, str] = {}
        size = sum(len(made.args) + len(made.kwargs) for _, made in self._made)
        items = [len(item.args) for _, made in self._made for item in made.items]
        # Whether the calls of its maps are sent in pages, each a call of its own.
        self.has_pages = len(items) > calls.WORKFLOW_ITEMS_MOST or sum(items) > _PAGE_BYTES
        if size > _MOST_BYTES:
            raise ValueError(
                f"the arguments of flow {flow.name!r} have {size:,} bytes; it may have {_MOST_BYTES:,}: store large "
                "data elsewhere and pass its address"
            )

    @property
    def _result_ttl_ms(self) -> int:
        ttl_ms = self._flow.result_ttl_ms
        return self._queue.settings.result_ttl_ms if ttl_ms is None else ttl_ms

    @property
    def _may_repeat(self) -> bool:
        """Whether a call whose answer is lost may be sent again: not if nothing is kept, as it may be over by then."""
        return self._result_ttl_ms != 0

    def contexts(self) -> Iterator[EnqueueContext]:
        """What the hooks of an enqueue are asked with, one node after the other. Of a map it is the whole map; a result
        that is not there yet is None, or its default.
        """
        for member, _ in self._asked():
            args, kwargs = ((), {}) if isinstance(member, Map) else _with_defaults(member)
            yield EnqueueContext(f"{self.id}~{member.name}", member.call.name, tuple(args), kwargs, {})

    def _asked(self) -> "list[tuple[Member, _Made]]":
        return [each for each in self._made if not isinstance(each[0], _OWN)]

    def call(self, headers: Iterable[str], more: Mapping[str, Any] | None = None) -> Call[str]:
        """What creates it, with the headers that the hooks gave each node; `more`: further options."""
        options: dict[str, Any] = {
            "name": self._flow.name,
            "idempotency_key": new_id(),
            "result_ttl_ms": self._result_ttl_ms,
            **(more or {}),
        }
        if self.output is not None:
            options["output"] = self.output.name
        if self._flow.timeout_ms is not None:
            options["timeout_ms"] = self._flow.timeout_ms
        if self.has_pages:
            options["is_open"] = True
        self._headers = dict(zip([member for member, _ in self._asked()], headers, strict=True))
        if self._queue.signer is not None:
            # What fills a map signs its calls, and these have the headers of the map.
            for member, _ in self._asked():
                if isinstance(member, Map) and member.filler is not None:
                    self._headers[member.filler] = self._headers[member]
        nodes = [
            calls.NewNode(
                member.name,
                made.task,
                made.lane,
                *self._arguments(member, made),
                self._options(member.name, made, self._headers.get(member, "")),
            )
            for member, made in self._made
        ]
        call = calls.workflow_create(id=self.id, options=to_json(options), nodes=nodes)
        return call._replace(repeat=self._may_repeat)

    def start(self) -> Call[str]:
        """What lets it begin once the calls of its maps are there."""
        return calls.workflow_start(id=self.id)._replace(repeat=self._may_repeat)

    def added(self, headers: Iterable[str]) -> "list[calls.AddedCall]":
        """Its nodes as calls of a map, with the headers that the hooks gave each."""
        return [
            calls.AddedCall(made.task, made.lane, made.args, made.kwargs, self._options(member.name, made, header))
            for (member, made), header in zip(self._made, headers, strict=True)
        ]

    def pages(self) -> Iterator[Call[calls.WorkflowItemsReply]]:
        """What adds the calls of its maps, in order."""
        for member, made in self._made:
            offset, page, size = 0, list[calls.NewItem](), 0
            for item in self._signed_items(member, made):
                if page and (len(page) >= calls.WORKFLOW_ITEMS_MOST or size + len(item.args) > _PAGE_BYTES):
                    yield calls.workflow_items(id=self.id, map=member.name, offset=offset, items=page)
                    offset, page, size = offset + len(page), [], 0
                page.append(calls.NewItem(*item))
                size += len(item.args)
            if page:
                yield calls.workflow_items(id=self.id, map=member.name, offset=offset, items=page)

    def _arguments(self, member: Member, made: "_Made") -> tuple[bytes, bytes]:
        """The arguments of a node; of a map its items, unless they are sent later."""
        if "map" not in made.fields:
            return made.args, made.kwargs
        items = () if self.has_pages else self._signed_items(member, made)
        return b"".join(netstring(b"%b %b" % (item.codec.encode(), item.args)) for item in items), b""

    def _output(self, output: Any) -> Node[Any] | None:
        if output is None:
            return None
        if isinstance(output, Map):
            raise TypeError(
                f"output {output.name!r} is a map, whose results stay with its calls: add a node that takes "
                "map.results, and let that be the output"
            )
        if isinstance(output, Subflow):
            if output.output is None:
                raise TypeError(
                    f"output {output.name!r} has no result of a single node: add a node that takes its result, and let "
                    "that be the output"
                )
            output = output.output
        if not isinstance(output, Node):
            raise TypeError(f"output must be a node of the flow, not {type(output).__name__}")
        if output.flow.root is not self._flow:
            raise ValueError(f"output {output.name!r} is a node of another flow")
        return output

    def _check(self, member: Member) -> None:
        """Refuse what a node cannot have."""
        if isinstance(member, _OWN):
            return
        what, task, options = f"node {member.name!r}", member.call.task, member.call.call_options
        rule = options.rule_of(task)
        theirs = task.context.name
        if task.context.family is not self._queue.family and not task.is_moved and theirs != self._queue.name:
            raise ValueError(
                f"{what} is of another app, with the queue {theirs!r}, and its workflow is for {self._queue.name!r}: "
                f"for it to run there, add it as {task.name}.options(queue={theirs!r})"
            )
        if isinstance(member, Map) and (other := self._other_queue(member)) is not None:
            raise ValueError(
                f"map {member.name!r} is for queue {other!r}, and its workflow for {self._queue.name!r}: the calls of "
                "a map are in the queue of their workflow. Start the workflow there, or add a node for each call"
            )
        for given, why in (
            (options.task_id, "a task_id: its id is its place in the workflow"),
            (task.unique if options.unique is None else options.unique, _NOT_UNIQUE),
            (rule, f"a {type(rule and rule.rule).__name__}: {_UNIQUE_BY}"),
            (options.schedule_ms, "a time: give it a delay, which begins when the nodes before it have ended"),
            (options.wait_s, "wait_for_room: a workflow's tasks are not refused where many wait"),
        ):
            if given:
                raise ValueError(f"{what} cannot have {why}")
        self._check_edges(member)
        if isinstance(member, Map) and (options.delay_ms or options.expire_ms):
            raise ValueError(f"map {member.name!r} cannot have a delay or an expiry")

    def _check_edges(self, member: Member) -> None:
        """Refuse a compensation that takes what is not there by then, or does not run in any case."""
        undone = next((other for other, policy in member.edges.items() if policy == "undo"), None)
        if undone is None:
            return
        if len(member.edges) > 1:
            raise ValueError(f"compensation {member.name!r} cannot be after other nodes: it runs when it is its turn")
        for source in member.sources.values():
            for other in source.nodes:
                if other is not undone and other not in undone.edges:
                    raise ValueError(
                        f"compensation {member.name!r} takes the result of {other.name!r}: it may take that of "
                        f"{undone.name!r}, and of what that is after"
                    )
        if member.call.call_options.expire_ms:
            raise ValueError(f"compensation {member.name!r} cannot have an expiry: it has to run")

    def _other_queue(self, member: Member) -> str | None:
        """The queue of a node, if that is not the workflow's."""
        if isinstance(member, Join | Filler):
            return None
        task = member.call.task
        is_told = task.is_moved or not task.context.is_own
        return task.context.name if is_told and task.context.name != self._queue.name else None

    def _node(self, member: Member) -> "_Made":
        call, producer, codec = member.call, self._queue.producer, self._queue.codec
        task, options = call.task, call.call_options
        is_filler = isinstance(member, Filler)
        name = FILL if is_filler else task.name
        signature = None if is_filler else task.signature or self._queue.registry.signature_of(name)
        fields: dict[str, Any] = {
            name: options.fields[name] for name in ("delay_ms", "expire_ms") if name in options.fields
        }
        args, kwargs, how, items = b"", b"", "", list[_Item]()
        try:
            lane = producer.check_lane(options.priority or task.priority)
            if isinstance(member, Map):
                items = self._items(member)
                fields["map"] = {
                    "size": len(items),
                    "max_concurrent": member.max_concurrent or 0,
                    "tolerate": number_of(member.tolerate, len(items)),
                    "keep_results": member.keep_results,
                }
                if isinstance(member, OpenMap):
                    fields["map"]["is_open"] = True
                if member.filler is not None:
                    fields["map"] |= {"filled_by": member.filler.name, "tolerate": _part_of(member.tolerate)}
            elif member.sources:
                given, named = _with_defaults(member)
                args, kwargs, how = encode_open(codec, name, signature, given, named, member.sources)
                fields["inputs"] = [
                    [parameter_of(place, leaf.path), _names(leaf)]
                    for place, source in member.sources.items()
                    for leaf in source.leaves
                ]
            else:
                args, kwargs, how = codec.encode_fitting(name, signature, call.args, call.kwargs)
            if not is_filler and task.buckets is not None and (limits := self._limits(member)) is not None:
                fields["limits"] = limits
        except (TypeError, ValueError) as error:
            raise type(error)(f"node {member.name!r}: {error}") from None
        if how:
            fields["codec"] = how
        if (queue := self._other_queue(member)) is not None:
            fields["queue"] = queue
        if member.edges:
            fields["after"] = [
                other.name if policy in (None, "fail") else f"{other.name}?{policy}"
                for other, policy in member.edges.items()
            ]
        return _Made(name, lane, args, kwargs, how, fields, items)

    def _items(self, member: Map[Any]) -> "list[_Item]":
        """The arguments of a map's tasks."""
        items, most = [self._item(member, number) for number in range(len(member.items))], member.chunk
        if most == 1:
            return items
        codec = self._queue.codec
        packed = [_Item(CHUNK, chunks.pack(items[at : at + most])) for at in range(0, len(items), most)]
        if (size := max((len(item.args) for item in packed), default=0)) > codec.limit:
            raise codec.too_large(f"the arguments of a chunk of {most:,} items are", size)
        return packed

    def _item(self, member: Map[Any], number: int) -> "_Item":
        """An item of a map."""
        task = member.call.task
        signature = task.signature or self._queue.registry.signature_of(task.name)
        try:
            args, _, codec = self._queue.codec.encode_fitting(task.name, signature, member.items[number], {})
        except (TypeError, ValueError) as error:
            raise type(error)(f"item {number}: {error}") from None
        return _Item(codec, args)

    def _limits(self, member: Member) -> Any:
        of: Callable[..., Any] = member.call.task.buckets.of  # type: ignore[union-attr]
        if not isinstance(member, Map):
            return of(member.call.args, member.call.kwargs)
        found = [of(item, {}) for item in member.items]
        if any(each != found[0] for each in found):
            raise ValueError(
                "the calls of a map must have the same limits, and here their keys, costs or weights differ"
            )
        return found[0] if found else None

    def _options(self, name: str, made: "_Made", headers: str) -> bytes:
        fields = dict(made.fields)
        if self.has_pages and "map" in fields:
            fields["map"] = {**fields["map"], "size": 0}  # each page adds to it
        if headers:
            fields["headers"] = headers
        signer = self._queue.signer
        if signer is not None and "map" not in fields:
            call = (made.task, made.args, made.kwargs, made.codec)
            place = Place(f"{self.id}~{name}", wiring(fields["inputs"])) if "inputs" in fields else None
            fields["headers"] = signer.sign(fields.get("queue", self._queue.name), *call, _read(headers), place)
        return to_json(fields) if fields else b""

    def _signed_items(self, member: Member, made: "_Made") -> "Iterable[_Item]":
        """The calls of a map, each of them signed if the app signs: they have the headers of the map."""
        signer, headers = self._queue.signer, _read(self._headers.get(member, ""))
        if signer is None:
            return made.items
        queue, task = self._queue.name, made.task
        return (_Item(signer.sign_item(queue, task, args, codec, headers), args) for codec, args in made.items)


_OWN = (Filler, Join, OpenMap)
"""Members that are no calls of a user's."""

_UNIQUE_BY = "make the workflow unique by its id, or pass task.options(unique=False)"
_NOT_UNIQUE = f"unique: a node's id is its place in the workflow; {_UNIQUE_BY}"


class _Item(NamedTuple):
    """The arguments of one call of a map."""

    codec: str
    args: bytes


class _Made(NamedTuple):
    """A node as the server takes it, without headers."""

    task: str
    lane: str
    args: bytes
    kwargs: bytes
    codec: str
    fields: dict[str, Any]
    items: list[_Item]


def _read(headers: str) -> dict[str, Any]:
    found: dict[str, Any] = from_json(headers.encode()) if headers else {}
    return found


def sorted_by_edges(flow: Flow, members: list[Member]) -> list[Member]:
    """The members, each after those that it is after; otherwise in the order in which they were added.

    Raises:
        ValueError: some are after each other.
    """
    done: dict[Member, bool] = {}
    order: list[Member] = []
    for start in members:
        path: list[tuple[Member, Iterator[Member]]] = [] if start in done else [(start, iter(start.edges))]
        if path:
            done[start] = False
        while path:
            member, others = path[-1]
            other = next(others, None)
            if other is None:
                done[member] = True
                order.append(member)
                path.pop()
            elif other not in done:
                done[other] = False
                path.append((other, iter(other.edges)))
            elif not done[other]:
                names = [each.name for each, _ in path]
                circle = [*names[names.index(other.name) :], other.name]
                raise ValueError(f"flow {flow.name!r} goes round in a circle: {' is after '.join(map(repr, circle))}")
    return order


def _with_defaults(member: Member) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, with None or a default in the place of what is not there yet."""

    def known(place: int | str, value: Any) -> Any:
        source = member.sources.get(place)
        return value if source is None else None if source.default is MISSING else source.default

    call = member.call
    return [known(at, value) for at, value in enumerate(call.args)], {n: known(n, v) for n, v in call.kwargs.items()}


def _names(leaf: Leaf) -> Any:
    if leaf.is_list:
        return [node.name for node in leaf.nodes]
    [node] = leaf.nodes
    return f"*{node.name}" if isinstance(node, Map) else node.name


def _part_of(tolerate: float) -> float:
    """Of a map of which nobody knows yet how many calls it has: a number, or a part below 1."""
    return tolerate if isinstance(tolerate, int) or tolerate < 1 else _ALL_OF_THEM


def number_of(tolerate: float, count: int) -> int:
    """How many of so many calls may fail."""
    return tolerate if isinstance(tolerate, int) else int(tolerate * count)
