"""What all pages of a queue share, so that any number of browsers costs the server what one does."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._server.calls import FAILURES_LIMIT_MOST
from ..errors import ArdiqError

if TYPE_CHECKING:
    from ..app import Ardiq
    from ..inspection import QueueOverview
    from ..models import DeadGroups

Value = TypeVar("Value")

MINUTES = 60
_OVERVIEW_S, _FAILURES_S = 1.0, 10.0


class Sample(Generic[Value]):
    """The latest answer to one question, asked again when it is too old; those who ask meanwhile wait for the same."""

    def __init__(self, read: Callable[[], Awaitable[Value]], fresh_s: float) -> None:
        self._read, self._fresh_s = read, fresh_s
        self._value: Value | None = None
        self._asked_at = self._since = 0.0
        self._reading: asyncio.Task[Value] | None = None

    @property
    def last(self) -> Value | None:
        """What was answered last, if anything was."""
        return self._value

    async def get(self) -> Value:
        """The answer, at most so old."""
        if self._value is not None and self._asked_at > max(self._since, monotonic() - self._fresh_s):
            return self._value
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._ask())
            self._reading.add_done_callback(_seen)
        return await asyncio.shield(self._reading)

    def forget(self) -> None:
        """What was answered so far no longer holds: somebody has changed something."""
        self._since, self._reading = monotonic(), None

    async def _ask(self) -> Value:
        asked_at = monotonic()
        value = await self._read()
        if asked_at > self._asked_at:
            self._value, self._asked_at = value, asked_at
        return value


def _seen(reading: "asyncio.Task[Any]") -> None:
    """Browsers may have gone before they were told of an error."""
    if not reading.cancelled():
        reading.exception()


class Samples:
    """The samples of one queue."""

    def __init__(self, app: "Ardiq") -> None:
        async def overview() -> "QueueOverview":
            return await app.inspect.overview(MINUTES)

        async def failures() -> "DeadGroups":
            return await app.dead.groups(FAILURES_LIMIT_MOST)

        self.overview: Sample[QueueOverview] = Sample(overview, _OVERVIEW_S)
        self.failures: Sample[Any] = Sample(failures, _FAILURES_S)

    async def renew(self) -> None:
        """Somebody has changed something: the next page shows it, and the navigation counts it."""
        self.failures.forget()
        self.overview.forget()
        with suppress(ArdiqError):  # the next page asks again
            await self.overview.get()
