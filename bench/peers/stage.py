"""Where one figure of one library is taken: a fresh server, a file for the stamps, and the programs beside them."""

import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers.libraries import Library
from bench.peers.processes import Failed, Program, last_line
from bench.server import Server

_RECORD = struct.Struct("<QQ")
_ENDED = 1 << 63
PATIENCE_S = 60.0
"""How long a producer's step may take; a worker may go for half of it without any progress."""
LIMIT_S = 60.0
"""How long a queue may take to drain."""


class Stamps:
    """What the bodies wrote."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path

    def count(self) -> int:
        """How many stamps there are."""
        return self.path.stat().st_size // _RECORD.size

    def read(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """When each task's body began, and when it ended, in nanoseconds of the monotonic clock."""
        began: dict[int, list[int]] = {}
        ended: dict[int, list[int]] = {}
        data = self.path.read_bytes()
        for number, at in _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size]):
            (ended if number & _ENDED else began).setdefault(number & ~_ENDED, []).append(at)
        return began, ended

    def check(self, total: int) -> dict[str, int]:
        """How many of the tasks with numbers below `total` never began, and how many began more than once."""
        counts = Counter({number: len(times) for number, times in self.read()[0].items()})
        if strange := [number for number in counts if number >= total]:
            raise Failed(f"tasks ran that nobody sent: {strange[:3]}")
        return {"lost": total - len(counts), "twice": sum(times > 1 for times in counts.values())}


class Stage:
    """One run. What it starts ends with the block."""

    def __init__(self, library: Library, server: tuple[str, dict[str, str]], **environment: str) -> None:
        self.library = library
        self._binary, self._settings = server
        self._environment = environment
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", dir=_memory())))
            self.stamps = Stamps(home / "stamps")
            self.server = stack.enter_context(Server(self._binary, self._settings, tcp=True))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exit.close()

    def _started(self, words: list[str], *, talks: bool, concurrency: int | None = None) -> Program:
        environment = {
            **self.library.environment(),
            **self._environment,
            "PEERS_URL": self.server.url,
            "PEERS_STAMPS": str(self.stamps.path),
            "PEERS_CONCURRENCY": "" if concurrency is None else str(concurrency),
        }
        return self._exit.enter_context(Program(self.library.command(*words), environment, talks=talks))

    def producer(self) -> Program:
        """A program that enqueues, connected."""
        producer = self._started(["produce"], talks=True)
        producer.ask({"do": "connect"}, PATIENCE_S)
        return producer

    def worker(self, body: str, concurrency: int | None) -> Program:
        """A worker as its library's documentation starts it; it may be at work before this returns."""
        return self._started(["worker", body], talks=False, concurrency=concurrency)

    def until(self, worker: Program, done: Callable[[], bool], pause_s: float = 0.002) -> None:
        """Wait; a worker that stops before `done`, or is too slow, has no figure."""
        seen, moved = -1, time.monotonic()
        limit = moved + LIMIT_S
        while not done():
            if time.monotonic() > limit:
                raise Failed(f"not done within {LIMIT_S:g} s, after {self.stamps.count()} stamps")
            if (count := self.stamps.count()) != seen:
                seen, moved = count, time.monotonic()
            if not worker.alive():
                raise Failed(f"the worker ended: {last_line(worker.log())}")
            if time.monotonic() - moved > PATIENCE_S / 2:
                if not seen:
                    raise Failed(f"no task ran within {PATIENCE_S / 2:g} s: {last_line(worker.log())}")
                raise Failed(f"after {seen} stamps none came for {PATIENCE_S / 2:g} s, though tasks were waiting")
            time.sleep(pause_s)


def _memory() -> str | None:
    """Where writing a stamp waits for no disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


Figures = dict[str, Any]
