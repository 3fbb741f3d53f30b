"""A TCP proxy that does to connections what networks do: cuts, delays, swallows and truncates."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Pair:
    """One client's connection and its counterpart to the server."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    swallows: bool = False
    reply_left: int | None = None
    """Bytes of replies that still pass before the pair is cut, or silent; None: all."""
    is_cut: bool = True

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Listens on a port of its own, on a thread of its own, and passes on to `target` on loopback."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.replied = 0
        self._pairs: set[_Pair] = set()
        self._delay_s = 0.0
        self._swallows_new = False
        self._hushed_after: int | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop)
        self._server = server.result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection."""
        self._do(lambda: [pair.cut() for pair in self._pairs])

    def delay(self, seconds: float) -> None:
        """Hold back everything, both ways, for so long; 0: no more."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def swallow(self) -> None:
        """From now on nothing passes, and nobody is told: what is open stays half-open for ever."""

        def swallow() -> None:
            self._swallows_new = True
            for pair in self._pairs:
                pair.swallows = True

        self._do(swallow)

    def heal(self) -> None:
        """New connections pass again. Those that were swallowed never do."""
        self._do(lambda: setattr(self, "_swallows_new", False))

    def truncate(self, length: int) -> None:
        """Let `length` bytes of replies pass on each connection, and cut it in the middle of what follows."""

        def truncate() -> None:
            for pair in self._pairs:
                pair.reply_left = length

        self._do(truncate)

    def hush(self, length: int) -> None:
        """Let `length` bytes of replies pass on each new connection, and nothing more."""
        self._do(lambda: setattr(self, "_hushed_after", length))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        self._server.close()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _do(self, action: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (action(), done.set()))
        done.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair([writer], self._swallows_new, self._hushed_after, self._hushed_after is None)
        self._pairs.add(pair)
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            pair.writers.append(forth)
            pumps = [self._pump(pair, reader, forth, False), self._pump(pair, back, writer, True)]
            tasks = [asyncio.ensure_future(pump) for pump in pumps]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, or the proxy is closed
        finally:
            pair.cut()
            self._pairs.discard(pair)

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                    # What came meanwhile has waited, too: one message is delayed once, whatever its parts.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            while more := await reader.read(1 << 16):
                                data += more
                if pair.swallows:
                    continue
                if replies and pair.reply_left is not None:
                    data, pair.reply_left = data[: pair.reply_left], max(0, pair.reply_left - len(data))
                self.replied += len(data) if replies else 0
                writer.write(data)
                await writer.drain()
                if replies and pair.reply_left == 0 and pair.is_cut:
                    return
