"""Chunks: tasks of a map that call their function for several items, one after the other.

The arguments of one are netstrings, for each item its codec, a space and its arguments; so are its results.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from .encodings import netstring, netstrings
from .signature import invalid

if TYPE_CHECKING:
    from .codec import Codec
    from .signature import Signature

CHUNK = "chunk"
"""The codec of the arguments of a chunk, and of its results."""


class Chunk(NamedTuple):
    """The results of a chunk, encoded."""

    data: bytes


def pack(parts: Iterable[tuple[str, bytes]]) -> bytes:
    """Codecs and bytes as one."""
    return b"".join(netstring(b"%b %b" % (codec.encode(), data)) for codec, data in parts)


def unpack(codec: str, data: bytes) -> list[tuple[str, bytes]]:
    """The codecs and bytes of several; what is no chunk is one.

    Raises:
        ValueError: they are not laid out so.
    """
    if codec != CHUNK:
        return [(codec, data)]
    parts = [part.partition(b" ") for part in netstrings(data)]
    return [(name.decode(errors="replace"), rest) for name, _, rest in parts]


def receive(codec: "Codec", args: bytes, signature: "Signature | None") -> list[Any]:
    """The argument that a chunk's function is called with: for each item what `Codec.receive_call` has.

    Raises:
        InvalidArguments: they cannot be read, or do not fit; the text says of which item.
    """
    from .items import ItemSignature

    if isinstance(signature, ItemSignature):
        raise invalid(f"task {signature.name!r} has a batch, which gathers items: it takes no chunks of them")
    try:
        parts = unpack(CHUNK, args)
    except ValueError as error:
        raise invalid("the stored arguments of a chunk cannot be read: written by a newer version?") from error
    rows = []
    for number, (how, data) in enumerate(parts):
        try:
            rows.append(codec.receive_call(data, b"", how, signature)[0])
        except TypeError as error:
            raise invalid(f"{item_of(number, len(parts))}: {error}") from None
    return [rows]


def item_of(number: int, count: int) -> str:
    """An item for people."""
    return f"item {number + 1:,} of {count:,} of its chunk"
