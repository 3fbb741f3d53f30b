"""Running the items of a chunk, one after the other."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import context
from .._client.registry import Registered
from .._values.chunks import Chunk, item_of, pack
from .._values.codec import Codec


def chunked(entry: Registered, name: str, codec: Codec) -> Callable[..., Any]:
    """The task's function for all items of a chunk: it takes the arguments of each, and returns their results.

    It stops at the first item that fails, whose error says which it is, and the whole chunk fails with it.
    """
    fn, signature = entry.fn, entry.signature

    def encoded(value: Any) -> tuple[str, bytes]:
        data, how = codec.encode_result(name, signature, value)
        return how, data

    if entry.is_async:

        @functools.wraps(fn)
        async def run(rows: list[list[Any]]) -> Chunk:
            done = []
            for number, row in enumerate(rows):
                with _named(number, len(rows)):
                    done.append(encoded(await fn(*row)))
            return Chunk(pack(done))

        return run

    @functools.wraps(fn)
    def run_sync(rows: list[list[Any]]) -> Chunk:
        done = []
        for number, row in enumerate(rows):
            task = context.current_task()
            if task is not None and task.cancelled():
                raise RuntimeError(f"stopped before {item_of(number, len(rows))}: its outcome no longer counts")
            with _named(number, len(rows)):
                done.append(encoded(fn(*row)))
        return Chunk(pack(done))

    return run_sync


@contextmanager
def _named(number: int, count: int) -> Iterator[None]:
    """Note in an error of which item it is."""
    try:
        yield
    except Exception as error:
        error.add_note(item_of(number, count))
        raise
