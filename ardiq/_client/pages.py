"""Reading the results that a workflow's tasks are called with, where a claim only says which."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._server import calls
from .._server.replies import Call, R, ask
from .._values.chunks import unpack as unpack_chunk
from .._values.codec import CUSTOM
from .._values.encodings import encoding_of
from .._values.inputs import COMPLETE, MAP, REFERENCE, Input, Value, pack, takes_pages, unpack
from .._values.results import Page, Results
from .._values.signature import Signature, invalid
from .._values.signing import RESULT, SIGNED, at_home, bare
from ..errors import ArdiqError, is_away

if TYPE_CHECKING:
    from .queue import QueueContext

_PAGE = 1000
_ASK_AGAIN_S = 1.0


class MapPages:
    """Reads the results of maps of one queue.

    Args:
        restores: whether they are converted as their task says, where it is known; else they are plain data.
        label: the argument that they are of, for messages.
    """

    def __init__(self, queue: "QueueContext", restores: bool = False, label: str = "") -> None:
        self._queue = queue
        self._restores = restores
        self._label = label

    async def page(self, map_id: str, offset: int) -> Page:
        """The results from that index on.

        Raises:
            LookupError: there is no such map, or not any more, or it keeps none.
        """
        reply = await patiently(self._queue, _page(map_id, offset))
        if _may_keep_none(reply, offset):
            _check_kept(map_id, await patiently(self._queue, calls.task(id=map_id)))
        return self._read(map_id, reply)

    def page_sync(self, map_id: str, offset: int) -> Page:
        """Likewise; blocks this thread."""
        core = self._queue.server.core
        reply = ask(core, _page(map_id, offset), repeat=True)
        if _may_keep_none(reply, offset):
            _check_kept(map_id, ask(core, calls.task(id=map_id), repeat=True))
        return self._read(map_id, reply)

    def _read(self, map_id: str, reply: calls.ResultsReply) -> Page:
        if reply.size < 0:
            raise LookupError(_gone(map_id))
        codec, found = self._queue.codec, list[tuple[Any, bool | None]]()
        for how, data in (part for row in reply.rows for part in unpack_chunk(self._codec(map_id, row), row.value)):
            if self._restores:
                found.append((codec.decode_result(data, how, self._queue.registry.signature_of), None))
                continue
            how = how.partition(":")[0]
            is_own = how == CUSTOM
            found.append((codec.decode_packed(data, how), None if is_own else encoding_of(how).str_keys))
        return Page(found, reply.next_offset if reply.next_offset < reply.size else None)

    def _codec(self, map_id: str, row: calls.MapResult) -> str:
        """That of a result; an argument is signed."""
        if self._restores:
            return bare(row.codec)
        what = f"{self._label}: result {row.number} of {map_id.rpartition('~')[2]!r}"
        return _codec(self._queue, f"{map_id}~{row.number}", row.codec, row.value, what)


def _codec(queue: "QueueContext", id: str, codec: str, data: bytes, what: str) -> str:
    """The codec of a result that is an argument, without its signature.

    Raises:
        BadSignature: the app has a `signing_key`, and it was not signed with that.
    """
    signer = queue.signer
    return bare(codec) if signer is None else signer.check_value(queue.name, id, RESULT, codec, data, what)


def bind(queue: "QueueContext", args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Let the results among the arguments of a call be read from that queue."""
    for value in (*args, *kwargs.values()):
        if type(value) is Results:
            at = queue.app.queue(value.queue).context if value.queue else queue
            value.read_by(MapPages(at, label=value.label))


async def results_of(queue: "QueueContext", map_id: str, label: str) -> AsyncIterator[tuple[str, bytes]]:
    """The results of a map, each its codec and its bytes, however long the server is away. `label`: the argument that
    they are of, for messages.

    Raises:
        InvalidArguments: it is gone.
        BadSignature: the app has a `signing_key`, and one was not signed with that.
    """
    offset: int | None = 0
    while offset is not None:
        reply = await patiently(queue, _page(map_id, offset))
        if reply.size < 0:
            raise invalid(_gone(map_id))
        for row in reply.rows:
            what = f"{label}: result {row.number} of {map_id.rpartition('~')[2]!r}"
            for part in unpack_chunk(_codec(queue, f"{map_id}~{row.number}", row.codec, row.value, what), row.value):
                yield part
        offset = reply.next_offset if reply.next_offset < reply.size else None


async def completed(queue: "QueueContext", id: str, packed: bytes, signature: Signature | None) -> bytes:
    """The packed arguments of a claim, of the task with that id, with all results that it only refers to, but those
    that are read page by page. The queue of its workflow has them.

    Raises:
        InvalidArguments: one is gone, or they are more than the app's `payload_limit`.
        BadSignature: the app has a `signing_key`, and one was not signed with that.
    """
    args, inputs = unpack(packed)
    values = [value for each in inputs for value in each.values]
    if queue.signer is None and not any(value.state in (REFERENCE, MAP) or SIGNED in value.codec for value in values):
        return packed
    home, id = at_home(queue.name, id)
    if home != queue.name:
        queue = queue.app.queue(home).context
    workflow = id.rpartition("~")[0]
    return pack(args, [await _completed(queue, workflow, each, signature) for each in inputs])


async def _completed(queue: "QueueContext", workflow: str, given: Input, signature: Signature | None) -> Input:
    if given.shape == MAP:
        [value] = given.values
        value = value._replace(data=f"{workflow}~{value.source}".encode())
        if takes_pages(signature, given.parameter):
            return given._replace(values=[value])
        return given._replace(values=await _all_of(queue, given, value))
    values: list[Value] = []
    size = 0
    for value in given.values:
        id = f"{workflow}~{value.source}"
        if value.state == REFERENCE:
            value = await _fetched(queue, id, given, value)
        if value.state == COMPLETE:
            what = f"{given.label}: the result of {value.source!r}"
            value = value._replace(codec=_codec(queue, id, value.codec, value.data, what))
        values.append(value)
        size += len(value.data)
        _check_size(queue, given, size if len(given.values) > 1 else 0)
    return given._replace(values=values)


def _check_size(queue: "QueueContext", given: Input, size: int, remedy: str = "") -> None:
    if size > queue.codec.limit:
        raise invalid(f"{given.label}: its results have more than {queue.codec.limit:,} bytes (payload_limit){remedy}")


async def patiently(queue: "QueueContext", call: Call[R]) -> R:
    """The reply of a query, however long the server is away."""
    while True:
        try:
            return await queue.channel().ask(call)
        except ArdiqError as error:
            if not is_away(error):
                raise
        await asyncio.sleep(_ASK_AGAIN_S)


async def _fetched(queue: "QueueContext", id: str, given: Input, value: Value) -> Value:
    record = await patiently(queue, calls.task(id=id))
    if record.get("state") != b"complete" or "result" not in record:
        raise invalid(f"{given.label}: the result of {value.source!r} is gone")
    return Value(value.source, COMPLETE, record.get("result_codec", b"").decode(errors="replace"), record["result"])


async def _all_of(queue: "QueueContext", given: Input, value: Value) -> list[Value]:
    map_id = value.data.decode(errors="replace")
    values: list[Value] = []
    offset: int | None = 0
    size = 0
    while offset is not None:
        reply = await patiently(queue, _page(map_id, offset))
        if reply.size < 0:
            raise invalid(f"{given.label}: {_gone(map_id)}")
        for row in reply.rows:
            source = f"{value.source}~{row.number}"
            what = f"{given.label}: result {row.number} of {value.source!r}"
            codec = _codec(queue, f"{map_id}~{row.number}", row.codec, row.value, what)
            values += [Value(source, COMPLETE, how, data) for how, data in unpack_chunk(codec, row.value)]
            size += len(row.value)
        _check_size(queue, given, size, ": annotate the parameter as Results[…], which reads them page by page")
        offset = reply.next_offset if reply.next_offset < reply.size else None
    return values


def _page(map_id: str, offset: int) -> Call[calls.ResultsReply]:
    return calls.results(map=map_id, offset=offset, limit=_PAGE)


def _gone(map_id: str) -> str:
    return f"there is no map {map_id!r}: it is unknown, or no longer kept"


def _may_keep_none(reply: calls.ResultsReply, offset: int) -> bool:
    return offset == 0 and reply.size > 0 and not reply.rows


def _check_kept(map_id: str, record: Mapping[str, bytes]) -> None:
    if record.get("keep_results") == b"0":
        raise LookupError(f"map {map_id!r} has keep_results=False: it keeps no results")
