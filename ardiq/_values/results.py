"""All results of a map, read page by page."""

import types
import typing
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol

import msgspec

from . import conversion as _conversion
from .typing import R_co


class Page(NamedTuple):
    """Some results, decoded: each with whether JSON carried it, None where it is no plain data; and where the next ones
    begin, None after the last.
    """

    results: Sequence[tuple[Any, bool | None]]
    next: int | None


class Pages(Protocol):
    """Who reads pages."""

    async def page(self, map_id: str, offset: int) -> Page:
        """The results from that index on."""

    def page_sync(self, map_id: str, offset: int) -> Page:
        """Likewise; blocks this thread."""


class Results(Generic[R_co]):
    """The results of all calls of a map, in order, as `flow.map(…).result` passes them to a task.

    It holds one page at a time, so that a million results need no memory: `async for result in results`, or `for` in a
    `def` task. Calls that did not complete have none.
    """

    __slots__ = ("_hint", "_label", "_pages", "id", "queue")

    id: str
    """The map's id."""
    queue: str
    """The queue that has it; empty: that of the task."""

    def __init__(self, id: str, pages: Pages | None = None, hint: Any = None, label: str = "", queue: str = "") -> None:
        self.id = id
        self.queue = queue
        self._pages = pages
        self._hint = hint
        self._label = label

    def __repr__(self) -> str:
        return f"<Results of {self.id!r}>"

    async def __aiter__(self) -> AsyncIterator[R_co]:
        at: int | None = 0
        while at is not None:
            found = await self._reader().page(self.id, at)
            for result in found.results:
                yield self._converted(*result)
            at = found.next

    def __iter__(self) -> Iterator[R_co]:
        at: int | None = 0
        while at is not None:
            found = self._reader().page_sync(self.id, at)
            for result in found.results:
                yield self._converted(*result)
            at = found.next

    @classmethod
    def item_of(cls, annotation: Any) -> Any:
        """The annotation of one result of an annotation as `Results`; None for any other."""
        if annotation is cls:
            return Any
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is cls:
            return parts[0]
        if origin in (typing.Union, types.UnionType, typing.Annotated):
            return next((found for part in parts if (found := cls.item_of(part)) is not None), None)
        return None

    def typed(self, annotation: Any, label: str) -> "Results[Any]":
        """Converted to what the annotation of its parameter says of one; `label`: what it is in messages."""
        item = self.item_of(annotation)
        return Results(self.id, self._pages, None if item is None else _conversion.convertible(item), label, self.queue)

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return self._label or "an argument"

    def read_by(self, pages: Pages) -> None:
        """Who reads its pages."""
        self._pages = pages

    def _reader(self) -> Pages:
        if self._pages is None:
            raise RuntimeError("these results belong to no task that runs here")
        return self._pages

    def _converted(self, value: Any, from_json: bool | None) -> Any:
        if self._hint is None or from_json is None:
            return value
        try:
            return _conversion.convert(value, self._hint, from_json)
        except msgspec.ValidationError as error:
            name = self.id.rpartition("~")[2]
            raise TypeError(f"{self._label}: a result of {name!r} does not fit: {_conversion.why_not(error)}") from None
