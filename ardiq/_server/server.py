"""The connections of one queue: the compiled core, and a channel for each event loop."""

import asyncio
import logging
import os
import threading
import weakref
from contextlib import suppress
from typing import Any, Protocol

from .. import _core, errors
from .._values.settings import Settings
from .channel import Channel
from .commands import ping
from .inbox import forget_inboxes, resolve

log = logging.getLogger("ardiq")

_SHORTEST_RESPONSE_MS, _LONGEST_RESPONSE_MS = 2_000, 10_000
_CLOSE_MS = 1000

_servers: "weakref.WeakSet[Server]" = weakref.WeakSet()
_of_parent: list[Any] = []

is_imported_by_child = False
"""Whether this child process is importing its worker's program, which must not use a server meanwhile."""


class Place(Protocol):
    """What a `Server` needs to know of its queue."""

    settings: Settings
    name: str


class Server:
    """The core of one queue and its channels, one for each live event loop."""

    def __init__(self, settings: Settings, queue: str) -> None:
        self.url = settings.redis_url
        self.queue = queue
        self.base = f"{settings.prefix}:{{{queue}}}:"
        self.queues_key = f"{settings.prefix}:queues"
        self._result_ttl_ms = settings.result_ttl_ms
        self._timeout_ms = settings.broker_timeout_ms
        self._is_replicated = settings.durability == "replicated"
        self._lease_ms = settings.idle_timeout_ms
        self._lock = threading.Lock()
        self._core: _core.Core | None = None
        self._channels: dict[asyncio.AbstractEventLoop, Channel] = {}
        self._known = False
        self.is_listed = True  # whether the queue is put into the list of queues
        self.is_lent = False  # whether it is the server of a test
        # A wrong URL is refused now; connections are opened later.
        if not _is_embedded(self.url):
            self._core = self._open(self.url)
        else:
            from ..embedded import data_path

            data_path(self.url)
        _servers.add(self)

    def sibling(self, queue: Place) -> "Server":
        """One for another queue, or another server."""
        other = Server(queue.settings, queue.name)
        other.is_listed, other.is_lent = self.is_listed, self.is_lent
        return other

    @property
    def core(self) -> _core.Core:
        """The core; if needed, an embedded server is started.

        Raises:
            RuntimeError: a child process is importing the program, which would enqueue or run a worker once more.
        """
        if is_imported_by_child:
            raise RuntimeError(
                "this program enqueues or starts a worker when a child process imports it: do that under "
                "if __name__ == '__main__'"
            )
        with self._lock:
            if self._core is None:
                url = self.url
                if _is_embedded(url):
                    from ..embedded import url_for

                    url = url_for(url)
                self._core = self._open(url)
            return self._core

    def channel(self, loop: asyncio.AbstractEventLoop) -> Channel:
        """The channel of this loop, which is the running one."""
        try:
            return self._channels[loop]
        except KeyError:
            pass
        core = self.core
        with self._lock:
            for other in [other for other in self._channels if other.is_closed()]:
                self._channels.pop(other).close()
            channel = self._channels[loop] = Channel(loop, core, self._timeout_ms / 1000, self._result_ttl_ms)
        self.register(channel)
        return channel

    @property
    def shown_url(self) -> str:
        """The server's URL, without its password."""
        return self.url if self._core is None else self._core.url

    def register(self, way: _core.Core | Channel) -> None:
        """Put the queue into the server's list, once per process, without waiting."""
        if self.is_listed and not self._known:
            self._known = True
            way.register()

    def register_again(self) -> None:
        """`register` again, because the server may have lost its data."""
        self._known = False
        self.register(self.core)

    def may_wait(self) -> None:
        """A thread may block until a task has ended: the worker is elsewhere."""

    async def refuse_eviction(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse a server that may evict tasks; one that cannot be reached is not checked.

        Raises:
            LibraryError: its eviction policy removes keys without a time to live.
            Forbidden: it does not know the user.
        """
        core, answer = self.core, loop.create_future()

        def ask() -> None:
            error: Exception | None = None
            try:
                core.check_eviction()
            except Exception as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolve, answer, error)

        # The core blocks, the loop must not. Not a daemon: it must not return into an interpreter that is shutting
        # down.
        threading.Thread(target=ask, name="ardiq-check").start()
        error = await answer
        if error is not None:
            if not errors.is_away(error):
                raise error
            log.warning("%s; trying again", error)

    def trouble(self, patience_s: float) -> Exception | None:
        """Why the server does not answer within that time, if so; blocks for no longer."""
        if _is_embedded(self.url):
            return None
        core = self._open(self.url, int(patience_s * 1000))
        try:
            ping(core)
        except Exception as error:
            return error
        finally:
            core.close(_CLOSE_MS)
        return None

    def close(self) -> None:
        """Close all channels and the core; calls in progress are lost."""
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
            core, self._core = self._core, None
        if core is not None:
            core.close(_CLOSE_MS)
        # Last: each loop takes a turn for it, in which the calls that the core gave up are answered.
        for channel in channels:
            channel.close()

    def after_fork(self) -> None:
        """In the child of a fork: start again without touching the parent's loops and connections."""
        _of_parent.append(self._channels)
        self._channels = {}
        self._lock = threading.Lock()
        self._known = False
        if self._core is not None:
            self._core.after_fork()

    def _open(self, url: str, timeout_ms: int | None = None) -> _core.Core:
        # An answer that takes longer than the lease is too late; the connection may be half-open.
        response_ms = min(_LONGEST_RESPONSE_MS, max(_SHORTEST_RESPONSE_MS, self._lease_ms))
        return _core.Core(
            url,
            self.base,
            broker_timeout_ms=self._timeout_ms if timeout_ms is None else timeout_ms,
            response_timeout_ms=response_ms,
            replicated=self._is_replicated,
        )


def _after_fork_in_child() -> None:
    _of_parent.append(forget_inboxes())
    for server in list(_servers):
        server.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_embedded(url: str) -> bool:
    return url.startswith("embedded:")
