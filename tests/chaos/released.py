"""A worker and a producer of a released version of the library, as the server sees those of its package:

    python -m tests.chaos.released work
    python -m tests.chaos.released produce FIRST RATE SEED

They know what lua/releases has of it, its Lua and its protocol, and nothing of Ardiq: they call its functions by name,
load it where it is missing, and end where the data is of a later version. CHAOS_LIBRARY names the file. Their tasks and
ledgers are those of `jobs` and `produce`.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ardiq import _core

from ..python.topologies import Refused
from . import jobs

ROOT = Path(__file__).parents[2]
PRUNED = 3
"""Exit code of one that found data of a later version."""
_AGAIN_S, _PATIENCE_S, _BLOCK_S, _STEP_S = 0.05, 5.0, 1.0, 0.002
_SLOTS, _WATCHED = 16, 0.15
_TRANSIENT = ("LOADING", "READONLY", "MASTERDOWN", "UNBLOCKED", "BUSY", "OOM")
_ADDED = {"queued", "scheduled", "accepted"}
_KEPT = {"result_ttl_ms": -1}
_DELAY_MS = json.dumps({"delay_ms": 50})


class Gone(Exception):
    """The data is of a later version."""


def before_this(directory: Path) -> Path:
    """The library of the version before this one: as released, or, where none was, this build's under that number."""
    version = _core.PROTOCOL_VERSION - 1
    name, this = f"ardiq_v{version}", f"ardiq_v{version + 1}"
    released = ROOT / "lua" / "releases" / f"{name}.lua"
    if version > 0:
        return released
    path = directory / f"{name}.lua"
    path.write_text(_core.composed().replace(this, name))
    path.with_suffix(".json").write_text(
        json.dumps({**json.loads(_core.PROTOCOL), "version": version, "library": name})
    )
    return path


class Wire:
    """One connection, made when needed; one exchange at a time."""

    def __init__(self, url: str) -> None:
        self._url, self._turn = urlsplit(url), asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, *words: object) -> Any:
        """The answer.

        Raises:
            OSError: there is none.
            Refused: it is an error.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    if self._streams is None:
                        self._streams = await asyncio.open_connection(self._url.hostname, self._url.port)
                    reader, writer = self._streams
                    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
                    writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
                    answer = await _read(reader)
            except BaseException as error:
                if self._streams is not None:
                    self._streams[1].close()
                self._streams = None
                if isinstance(error, (EOFError, ValueError)):
                    raise OSError(str(error)) from None
                raise
        if isinstance(answer, Refused):
            raise answer
        return answer


async def _read(reader: asyncio.StreamReader) -> Any:
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:].decode()
    if kind == b"-":
        return Refused(rest)
    if kind in b":+":
        return int(rest) if kind == b":" else rest
    if int(rest) < 0:
        return None
    if kind == b"$":
        return (await reader.readexactly(int(rest) + 2))[:-2].decode()
    return [await _read(reader) for _ in range(int(rest))]


class Library:
    """Calls functions of a library, again until they are answered: every call here may be repeated."""

    def __init__(self, path: Path, url: str) -> None:
        self._payload = path.read_text()
        self._protocol: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        self.version: int = self._protocol["version"]
        self._wire, self._blocking = Wire(url), Wire(url)

    async def call(self, function: str, records: Iterable[object] = (), **named: object) -> Any:
        """The reply; `records` follow the arguments.

        Raises:
            Refused: the function refuses.
            Gone: a later version alone may touch the data.
        """
        args = [*(named[arg["name"]] for arg in self._protocol["functions"][function]["args"]), *records]
        name = f"{self._protocol['library']}_{function}"
        while True:
            try:
                return await self._wire.exchange("FCALL", name, 1, jobs.BASE, *args)
            except OSError:
                await asyncio.sleep(_AGAIN_S)
            except Refused as error:
                if "Function not found" in str(error):
                    await self._load()
                elif not str(error).startswith(_TRANSIENT) or (function == "enqueue" and "OOM" in str(error)):
                    raise

    async def message(self, keys: list[str]) -> list[str] | None:
        """What comes first under one of the keys, within a second."""
        try:
            return await self._blocking.exchange("BLPOP", *keys, _BLOCK_S)
        except (OSError, Refused):
            await asyncio.sleep(_AGAIN_S)
            return None

    async def _load(self) -> None:
        with suppress(OSError):
            for load in (True, False):
                data = int(await self._wire.exchange("HGET", "ardiq:schema", "data") or 0)
                if data > max(self.version, 1):  # there is no data of a version that never was
                    raise Gone
                if load:
                    with suppress(Refused):  # another process was faster, or it takes none now
                        await self._wire.exchange("FUNCTION", "LOAD", self._payload)
        await asyncio.sleep(_AGAIN_S)


class Worker:
    """Runs tasks until it is stopped."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._executions = itertools.count(1)
        self._ended: list[tuple[object, ...]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._wakes = asyncio.Event()
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self._wakes.set()

    async def run(self) -> None:
        while not self._stopped:
            try:
                await self._session(f"released:{uuid.uuid4().hex}")
            except Refused as error:
                if not str(error).startswith("ARDIQ_LEASE_LOST"):
                    raise
                # What it holds is others' now.
                for task in self._running:
                    task.cancel()
                self._running, self._ended = set(), []

    async def _session(self, me: str) -> None:
        info = json.dumps({"protocol": self._library.version, "label": "released"})
        lease: dict[str, object] = {"worker": me, "lease_ms": jobs.LEASE_MS}
        keys = await self._library.call("join", **lease, info=info, lanes='["default"]', generation=1)
        async with _beside(self._heartbeats(lease)) as beats, _beside(self._listen(keys)):
            for seq in itertools.count(1):
                self._wakes.clear()
                if beats.done():
                    await beats
                ended, self._ended = self._ended, []
                want = 0 if self._stopped else max(0, _SLOTS - len(self._running))
                more, wait_ms, refused, *rest = await self._library.call(
                    "step",
                    itertools.chain(*ended),
                    **lease,
                    **_KEPT,
                    seq=seq,
                    lanes='["default"]',
                    want=want,
                    hand_off=0,
                )
                for claim in zip(*[iter(rest[3 * refused :])] * 10, strict=True):
                    task = asyncio.create_task(self._execute(*claim))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                if self._stopped and not self._running and not self._ended:
                    break
                if more and want:
                    await asyncio.sleep(_STEP_S)
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_BLOCK_S if wait_ms < 0 else min(_BLOCK_S, wait_ms / 1000)):
                            await self._wakes.wait()
            while await self._library.call("leave", worker=me, **_KEPT):
                pass

    async def _heartbeats(self, lease: dict[str, object]) -> None:
        while True:
            await asyncio.sleep(jobs.LEASE_MS / 4000)
            await self._library.call(
                "heartbeat", **lease, **_KEPT, generation=1, max_lost=3, abandoned_threads=0, stalled_ms=0
            )

    async def _listen(self, keys: list[str]) -> None:
        while True:
            if await self._library.message(keys):
                self._wakes.set()

    async def _execute(self, id: str, token: str, name: str, args: str, *rest: str) -> None:
        number, *seconds = json.loads(args)
        tries, kind = int(rest[-2]), name.rpartition(".")[2]
        stamp = f"{os.getpid()}.{next(self._executions)}"
        jobs.ledger("runs").write("start", number, tries, stamp)
        await asyncio.sleep(*(seconds or [0]))
        outcome, value, details = "complete", json.dumps(stamp), ""
        if kind == "hopeless" or (kind == "flaky" and tries == 1):
            outcome, value, details = ("retry", "not yet", _DELAY_MS) if tries == 1 else ("failed", stamp, "")
        else:
            jobs.ledger("runs").write("end", number, stamp)
        self._ended.append((id, token, outcome, 1, value, details))
        self._wakes.set()


class Producer:
    """Adds tasks until it is stopped, and waits for some of them."""

    def __init__(self, library: Library, first: int, rate: float, seed: int) -> None:
        self._library, self._next, self._rate, self._random = library, first, rate, random.Random(seed)
        self._notes, self._mailbox = jobs.ledger("sent"), f"released:{uuid.uuid4().hex}"
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        loop, sent = asyncio.get_running_loop(), 0
        began = loop.time()
        async with _beside(self._listen()):
            while not self._stopped.is_set():
                if sent < (loop.time() - began) * self._rate:
                    count = self._random.choices([1, 20, 100], [30, 3, 1])[0]
                    await self._enqueue([self._task() for _ in range(count)])
                    sent += count
                else:
                    await asyncio.sleep(0.01)

    def _task(self) -> tuple[int, tuple[str, ...]]:
        self._next += 1
        number, chance = self._next, self._random.random()
        kind = "quick" if chance < 0.88 else "slow" if chance < 0.95 else "flaky" if chance < 0.99 else "hopeless"
        args: list[float] = [number, 0.3] if kind == "slow" else [number]
        options: dict[str, object] = {"idempotency_key": f"k{number}"}
        if self._random.random() < 0.1:
            options["delay_ms"] = self._random.randrange(2000)
        if self._random.random() < _WATCHED:
            options |= {"waiter": self._mailbox, "waiter_ttl_ms": 60_000}
        name = getattr(jobs, kind).name
        return number, (f"r{number}", name, "default", json.dumps(args), "", json.dumps(options))

    async def _enqueue(self, tasks: list[tuple[int, tuple[str, ...]]]) -> None:
        sent = asyncio.get_running_loop().time()
        try:
            answers = await self._library.call("enqueue", itertools.chain(*(record for _, record in tasks)))
        except Refused as error:
            if not str(error).startswith("OOM"):
                raise
            for number, _ in tasks:
                self._notes.write("refused", number)
            return
        for (number, (id, *_)), answer in zip(tasks, answers, strict=True):
            if answer in _ADDED:
                self._notes.write("acked", number, id, f"{sent:.4f}")
            else:
                self._notes.write("error", number, str(answer).replace(" ", "_"))

    async def _listen(self) -> None:
        while True:
            if found := await self._library.message([f"{jobs.BASE}mailbox:{self._mailbox}"]):
                what, id, state, *_, value = _fields(found[1])
                if (what, state) == ("finished", "complete"):
                    self._notes.write("saw", id[1:], json.loads(value))


@asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Have it done until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Refused):
            await task


def _fields(message: str) -> list[str]:
    """Of netstrings."""
    fields = []
    while message:
        size, _, message = message.partition(":")
        fields.append(message[: int(size)])
        message = message[int(size) + 1 :]
    return fields


async def main(what: str, *numbers: str) -> int:
    library = Library(Path(os.environ["CHAOS_LIBRARY"]), os.environ["CHAOS_URL"])
    does = Worker(library) if what == "work" else Producer(library, int(numbers[0]), float(numbers[1]), int(numbers[2]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, does.stop)
    try:
        await does.run()
    except Gone:
        print("the data is of a later version", file=sys.stderr)
        return PRUNED
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
