"""Filling a map with items that another task of its workflow returned: a task that each worker knows."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from .._client import pages
from .._server import calls
from .._values import chunks
from .._values.codec import CUSTOM, Codec
from .._values.encodings import encoding_of, from_json
from .._values.filled import MOST_ITEMS, Filled
from .._values.inputs import COMPLETE, LIST, MAP, WITH, Input, unpack
from .._values.signature import invalid
from .._values.signing import without_signature
from ..errors import ArdiqError

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .endings import Claim

Holder = Callable[[int], tuple[str, int]]
"""Under which identity the worker holds a claim, and under which lease token."""

_Args = tuple[str, bytes]
"""The codec and the arguments of one call."""

_PAGE_BYTES = 1024 * 1024


async def fill(queue: "QueueContext", holder: Holder, claim: "Claim") -> int:
    """Add a call for each item to the map, a page at a time, and return how many items there were. What an earlier
    attempt has added stays, and it goes on behind that.

    Raises:
        InvalidArguments: the items are no list, or too many.
        BadSignature: the app has a `signing_key`, and one was not signed with that.
        ArdiqError: another worker has the task.
    """
    args, [given] = unpack(claim[3])
    (default, told), _ = queue.codec.decode_call(args, b"", claim[5].removeprefix(WITH), None)
    filled = Filled(**told)
    map_id = f"{claim[0].rpartition('~')[0]}~{filled.map}"
    signer, headers = queue.signer, without_signature(from_json(claim[6])) if claim[6] else {}

    def signed(how: str, args: bytes) -> _Args:
        return (how if signer is None else signer.sign_item(queue.name, filled.task, args, how, headers)), args

    async def send(offset: int, page: list[_Args]) -> calls.WorkflowFillReply:
        worker, token = holder(claim[1])
        call = calls.workflow_fill(
            worker=worker, id=claim[0], token=str(token), map=filled.map, offset=offset,
            items=[calls.NewItem(*signed(*each)) for each in page],
        )  # fmt: skip
        reply = await pages.patiently(queue, call)
        if reply.answer == "stale":
            raise ArdiqError(f"another worker fills map {map_id!r} by now")
        return reply

    count = 0

    async def counted() -> AsyncIterator[_Args]:
        nonlocal count
        async for each in _items(queue, given, default, claim, filled):
            count += 1
            if count > MOST_ITEMS:
                raise invalid(f"there are more than {MOST_ITEMS:,} items for map {filled.map!r}")
            yield each

    at, there, page, size = 0, (await send(0, [])).size, list[_Args](), 0
    async for each in _chunked(counted(), filled.chunk):
        at += 1
        if at <= there:
            continue
        if page and (len(page) >= calls.WORKFLOW_FILL_MOST or size + len(each[1]) > _PAGE_BYTES):
            reply = await send(there, page)
            if reply.answer in ("ended", "not_found"):
                return count
            there, page, size = there + len(page), [], 0
        page.append(each)
        size += len(each[1])
    if page:
        await send(there, page)
    return count


async def _chunked(items: AsyncIterator[_Args], most: int) -> AsyncIterator[_Args]:
    """The arguments of tasks that have so many items each."""
    part: list[_Args] = []
    async for each in items:
        if most == 1:
            yield each
            continue
        part.append(each)
        if len(part) == most:
            yield chunks.CHUNK, chunks.pack(part)
            part = []
    if part:
        yield chunks.CHUNK, chunks.pack(part)


async def _items(
    queue: "QueueContext", given: Input, default: Any, claim: "Claim", filled: Filled
) -> AsyncIterator[_Args]:
    """The arguments of the call of each item."""
    codec, called = queue.codec, _Caller(filled)
    if given.shape == MAP:
        map_id, label = f"{claim[0].rpartition('~')[0]}~{given.values[0].source}", f"the items of map {filled.map!r}"
        async for how, data in pages.results_of(queue, map_id, label):
            yield called.with_value(codec, how, data)
        return
    _, [given] = unpack(await pages.completed(queue, claim[0], claim[3], None))
    if given.shape == LIST:
        for value in given.values:
            is_there = value.state == COMPLETE
            yield called.with_value(codec, value.codec if is_there else "", value.data if is_there else b"null")
        return
    [value] = given.values
    if value.state == COMPLETE:
        for each in called.of_list(codec, value.codec, value.data):
            yield each
        return
    if not isinstance(default, list | tuple):
        raise invalid(f"map {filled.map!r} has no items: {value.source!r} is {value.state}; name some by result_or([])")
    signature = queue.registry.signature_of(filled.task)
    for item in default:
        args, _, how = codec.encode_call(filled.task, signature, item if filled.spreads else (item,), {})
        yield how, args


class _Caller:
    """Makes arguments of values as they are stored, without looking into them."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled

    def with_value(self, codec: Codec, how: str, data: bytes) -> _Args:
        """The arguments of a call with one value."""
        how = how.partition(":")[0]
        if how == CUSTOM:
            value = codec.decode_packed(data, how)
            return how, codec.serialize(self._checked(value) if self._filled.spreads else [value], self._filled.task)
        encoding = encoding_of(how)
        if self._filled.spreads:
            self._checked(encoding.decode(data))
            return how, data
        return how, b"[%b]" % data if encoding.str_keys else b"\x91" + data

    def of_list(self, codec: Codec, how: str, data: bytes) -> Iterator[_Args]:
        """Those of the calls with each value of a list."""
        how = how.partition(":")[0]
        if how == CUSTOM:
            for value in self._listed(codec.decode_packed(data, how)):
                args = self._checked(value) if self._filled.spreads else [value]
                yield how, codec.serialize(list(args), self._filled.task)
            return
        encoding = encoding_of(how)
        decode = msgspec.json.decode if encoding.str_keys else msgspec.msgpack.decode
        try:
            parts: list[bytes] = [bytes(raw) for raw in decode(data, type=list[msgspec.Raw])]
        except msgspec.DecodeError:
            parts = [encoding.encode(value) for value in self._listed(encoding.decode(data))]
        for part in parts:
            yield self.with_value(codec, how, part)

    def _listed(self, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise invalid(f"the items of map {self._filled.map!r} are no list, but of type {type(value).__name__}")
        return value

    def _checked(self, item: Any) -> Any:
        if not isinstance(item, list | tuple):
            raise invalid(
                f"an item of map {self._filled.map!r} is no tuple of arguments, but of type {type(item).__name__}"
            )
        return item
