"""Pushing what changes: of a queue by one question a second, however many browsers listen; of a task as it reports."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._server.calls import Outcome
from ..errors import ArdiqError
from ..watching import shown
from . import _pages
from ._samples import Samples
from .views import overview
from .views.task import told_progress

if TYPE_CHECKING:
    from ..app import Ardiq

MOST_STREAMS = 200
FRAGMENTS = ("attention", "tiles", "lanes")
_EVERY_S = 1.0
_COMMENT_S = 15.0
_LONGEST_S = 600.0  # then the browser comes back, and is asked again who it is
_LEAST_SHARE = 20  # a question is at most this part of the time


class Live:
    """The stream of one queue, under one root; it asks as long as somebody listens."""

    def __init__(self, queue: str, samples: Samples, links: _pages.Links) -> None:
        self._queue, self._samples, self._links = queue, samples, links
        self._listeners: set[asyncio.Queue[str]] = set()
        self._latest: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def events(self, is_gone: Callable[[], Any]) -> AsyncGenerator[str, None]:
        """Server-sent events for one browser: the latest of each fragment, then what changes."""
        inbox: asyncio.Queue[str] = asyncio.Queue(maxsize=64)
        self._listeners.add(inbox)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())
        try:
            yield "retry: 3000\n\n"
            for event in self._latest.values():
                yield event
            until = monotonic() + _LONGEST_S
            while monotonic() < until and not await is_gone():
                try:
                    yield await asyncio.wait_for(inbox.get(), _COMMENT_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(inbox)
            if not self._listeners:
                self._task.cancel()

    @property
    def listeners(self) -> int:
        """How many browsers listen."""
        return len(self._listeners)

    async def _ask(self) -> None:
        while True:
            began = monotonic()
            with suppress(ArdiqError):  # the server is away: the next question may be answered
                state = overview.shown(
                    self._queue, await self._samples.overview.get(), await self._samples.failures.get()
                )
                for name in FRAGMENTS:
                    self._tell(name, _pages.text(f"_{name}", data=state, links=self._links))
            await asyncio.sleep(max(_EVERY_S, _LEAST_SHARE * (monotonic() - began)))

    def _tell(self, name: str, html: str) -> None:
        """To everybody, if it has changed."""
        event = _event("fragment", {"id": name, "html": html})
        if self._latest.get(name) == event:
            return
        self._latest[name] = event
        for inbox in self._listeners:
            if inbox.full():  # a browser that does not read gets the newest
                inbox.get_nowait()
            inbox.put_nowait(event)


async def follow(app: "Ardiq", task_id: str, with_payloads: bool) -> AsyncGenerator[str, None]:
    """Server-sent events of one task: its state and progress, new lines of its log, and that it has ended."""
    yield "retry: 3000\n\n"
    async with aclosing(_reports(app, task_id, with_payloads)) as reports:
        until, report = monotonic() + _LONGEST_S, None
        try:
            while monotonic() < until:
                report = report or asyncio.ensure_future(anext(reports, None))
                done, _ = await asyncio.wait([report], timeout=_COMMENT_S)
                if not done:
                    yield ": still here\n\n"  # a browser that has gone is noticed by this
                    continue
                finished, report = report, None
                try:
                    event = finished.result()
                except ArdiqError:  # the server is away: the browser comes back
                    return
                if event is None:
                    return
                yield event
        finally:
            if report is not None:
                report.cancel()
                with suppress(asyncio.CancelledError):
                    await report


async def _reports(app: "Ardiq", task_id: str, with_payloads: bool) -> AsyncGenerator[str, None]:
    last = ""
    async with aclosing(app.context.channel().watch(task_id, None)) as changes:
        async for seen in changes:
            if seen is None or isinstance(seen, Outcome):
                yield _event("end", {})
                return
            progress = told_progress(seen.progress, with_payloads)
            html = _pages.text("_now", state=shown(task_id, seen.state), progress=progress)
            now = _event("fragment", {"id": "now", "html": html})
            if now != last:
                last = now
                yield now
            lines = [text.decode(errors="replace") for name, text in seen.told if not name]
            if lines and with_payloads:
                yield _event("lines", lines)


def _event(kind: str, told: Any) -> str:
    """JSON has no line ends, which would end the event."""
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n"
