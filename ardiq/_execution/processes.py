"""Sync tasks in child processes, which a time limit or an abort can really stop."""

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .. import context
from .._client.registry import Registered
from .._values.chunks import CHUNK, Chunk
from .._values.codec import NOT_SENT, NotSent
from .._values.encodings import from_msgpack, to_msgpack
from ..errors import ProcessDied, Suspend
from ..retries import Decision
from . import logging as _logging
from .attempts import HandBack, within
from .endings import Claim, FromChild
from .instrumented import Carried
from .memory import oom_kills

if TYPE_CHECKING:
    from .._client.queue import QueueContext

_START_S = 60.0
_GRACE_S = 1.0
_LAST_WORDS_S = 0.1
_STOP_ARRIVES_S = 0.5
# The exit codes of a child that got a signal for all processes of the unit before it could leave that to its worker.
_STOPPED = tuple(code for number in (signal.SIGTERM, signal.SIGINT) for code in (-number, 128 + number))


def frame(message: Any) -> bytes:
    """A message, encoded."""
    data = to_msgpack(message)
    return len(data).to_bytes(4, "big") + data


def exit_reason(code: int, oom_kills_before: int | None) -> str:
    """How a process ended, for people; `oom_kills_before`: the result of `oom_kills` while it lived."""
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        now = oom_kills()
        if now is None or oom_kills_before is None:
            return "killed by SIGKILL, perhaps out of memory"
        return "killed by SIGKILL, out of memory" if now > oom_kills_before else "killed by SIGKILL"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def importable_name(fn: Any, name: str) -> tuple[str, str]:
    """Module and path under which a child process finds a function.

    Raises:
        TypeError: it has none.
    """
    module, path = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not module or not path or "<" in path:
        raise TypeError(
            f"task {name!r}: executor='process' needs a function at the top level of a module, because the child "
            f"process imports it; {path or fn!r} cannot be imported"
        )
    return module, path


# Tasks for child processes, by their name and that of their function, which is what a child is told. Also with the
# app's queue in front, because several apps may have the same task; without it, because an app may have another queue
# in a child.
_known: "WeakValueDictionary[tuple[str, ...], Registered]" = WeakValueDictionary()


def remember(entry: Registered) -> None:
    """Remember a task that is being registered for child processes.

    Raises:
        TypeError: a child cannot import its function.
    """
    assert entry.task is not None
    key = (entry.task.name, *importable_name(entry.fn, entry.task.name))
    _known[key] = _known[(entry.task.context.name, *key)] = entry
    frame: Any = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ardiq":
        frame = frame.f_back
    entry.home = "" if frame is None else frame.f_globals.get("__name__", "")


def find(queue: str, name: str, module: str, path: str) -> Registered | None:
    """The task of that name and function, preferably of the app with that queue; None if it is not registered."""
    key = (name, module, path)
    return _known.get((queue, *key)) or _known.get(key)


def program() -> tuple[str, str] | None:
    """How this process's program was started: "module" and its name, or "path"; None: it cannot be imported again."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("path", os.path.realpath(path))


class _Child:
    """One child process; it runs one task at a time."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._oom_kills = oom_kills()
        self._reader = reader
        self._reading = asyncio.Lock()
        self._size: int | None = None  # of the incoming message, once it is known
        self._writer = writer
        # A process that the task forked may keep the socket open, so the end of the child counts.
        loop = asyncio.get_running_loop()
        self._ended = loop.create_task(process.wait())
        self._ended.add_done_callback(lambda _: loop.call_later(_GRACE_S, writer.transport.abort))

    @property
    def lives(self) -> bool:
        """Whether it can take another task."""
        return not self._ended.done() and not self._reader.at_eof()

    async def ask(self, message: Any) -> list[Any]:
        """Send it a message, if any, and return its answer.

        Raises:
            ProcessDied: it ended instead.
        """
        try:
            if message is not None:
                self._writer.write(frame(message))
                await self._writer.drain()
            return await self._read()
        except (ConnectionError, asyncio.IncompleteReadError):
            await asyncio.wait([self._ended], timeout=_GRACE_S)
            if not self._ended.done():
                raise ProcessDied("the task's child process closed its connection to the worker") from None
            code = self._ended.result()
            text = f"the task's child process died: {exit_reason(code, self._oom_kills)}"
            raise ProcessDied(text, code) from None

    async def _read(self) -> list[Any]:
        """Its next message; records that it logs before are logged."""
        async with self._reading:
            while True:
                if self._size is None:
                    self._size = int.from_bytes(await self._reader.readexactly(4), "big")
                message: list[Any] = from_msgpack(await self._reader.readexactly(self._size))
                self._size = None
                if message[0] != "log":
                    return message
                _logging.handle(message[1])

    async def _hear_out(self) -> None:
        """Log what it still has to log."""
        with contextlib.suppress(Exception):  # the signal may have interrupted a message
            while True:
                await self._read()

    async def stop(self) -> None:
        """End it and what it has started: ask first, then kill."""
        last_words = asyncio.get_running_loop().create_task(self._hear_out())
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._ended.done():
                break
            with contextlib.suppress(OSError):  # first, so that the child knows that the signal comes from its worker
                self._writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            await asyncio.wait([self._ended], timeout=_GRACE_S)
        # Processes that it forked may keep the socket open.
        await asyncio.wait([last_words], timeout=_LAST_WORDS_S)
        last_words.cancel()
        self._writer.transport.abort()


class Processes:
    """The child processes of one worker, started when needed and kept for later tasks."""

    def __init__(self, queue: "QueueContext", is_stopping: Callable[[], bool]) -> None:
        self._queue = queue
        self._is_stop_asked = is_stopping
        self._modules: set[str] = set()
        for name, entry in queue.registry.tasks.items():
            if entry.process is not None:
                module, path = importable_name(entry.fn, name)
                self._modules |= {module, entry.home or module}
                if "__main__" in self._modules and program() is None:
                    raise ValueError(
                        f"task {name!r}: executor='process' cannot import {path!r} from a program without a file: "
                        "put the task and its app into a module, and import that"
                    )
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._stops: set[asyncio.Task[None]] = set()

    async def call(self, entry: Registered, claim: Claim, carried: Carried) -> Any:
        """Run an attempt in a child; its time limit begins when the child is ready. `carried`: for its instruments.

        Raises:
            HandBack: the child died of the signal that is stopping the worker.
        """
        try:
            return await self._call(entry, claim, carried)
        except ProcessDied as error:
            if error.exit_code in _STOPPED and await self._is_stopping():
                raise HandBack from error
            raise

    async def _is_stopping(self) -> bool:
        """Whether the worker is asked to stop; its child may hear of that a moment earlier."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_ARRIVES_S):
                while not self._is_stop_asked():
                    await asyncio.sleep(_STOP_ARRIVES_S / 10)
        return self._is_stop_asked()

    async def _call(self, entry: Registered, claim: Claim, carried: Carried) -> Any:
        assert entry.process is not None
        assert entry.task is not None
        max_memory_mb, fresh = entry.process.max_memory_mb, entry.process.fresh
        child = await (self._start() if fresh else self._take())
        try:
            reports = context.reports.get()
            queue = "" if reports is None else reports.queue
            where = [entry.task.context.name, *importable_name(entry.fn, claim[2])]
            waits = context.waits.get()
            holder = None if waits is None else waits.holder.holder(claim[1])
            request = [queue, *where, claim, holder, max_memory_mb, carried]
            kind, *rest = await within(entry.timeout, self._answer(child, request, claim))
        except ProcessDied as error:
            await self._stop(child)
            if max_memory_mb is None:
                raise
            text = f"{error}, perhaps at its memory limit of {max_memory_mb} MiB"
            raise ProcessDied(text, error.exit_code) from None
        except BaseException:
            await self._stop(child)
            raise
        if fresh or kind == "spent":
            await self._stop(child)
        else:
            self._idle.append(child)
        if kind == "waits":
            raise Suspend(*rest)
        if kind != "value":
            described, traceback, decision = rest
            raised = _rebuilt(*described)
            raised.__cause__ = FromChild(described[2], traceback, decision and Decision(*decision))
            raise raised
        data, codec = rest
        if codec == NOT_SENT:
            return NotSent(data.decode())
        if codec == CHUNK:
            return Chunk(data)
        return self._queue.codec.decode_result(data, codec, lambda _: entry.signature)

    async def _answer(self, child: _Child, request: Any, claim: Claim) -> list[Any]:
        reports = context.reports.get()
        answer = await child.ask(request)
        while answer[0] == "report":
            if reports is not None and answer[1] == claim[1]:  # and not from a thread of an earlier task
                reports.add(claim, **answer[2])
                while reports.is_full(claim):
                    await asyncio.sleep(context.FULL_S)
            answer = await child.ask(None)
        return answer

    async def close(self) -> None:
        """End all children, busy or not."""
        await asyncio.gather(*(self._stop(child) for child in list(self._children)), *self._stops)

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.lives:
                return child
            await self._stop(child)
        return await self._start()

    async def _start(self) -> _Child:
        # No more children than tasks run at once: an idle one makes room for a fresh one.
        if self._idle and len(self._children) >= self._queue.settings.concurrency:
            await self._stop(self._idle.pop(0))
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                # A session of its own: Ctrl-C in the terminal reaches the worker alone, and processes that a task
                # starts end with the child.
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "ardiq._execution.child", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                writer.transport.abort()
                raise
        child = _Child(process, reader, writer)
        self._children.add(child)
        settings = self._queue.settings
        where = [settings.redis_url, settings.prefix]
        try:
            async with asyncio.timeout(_START_S):
                start = [sys.path, sys.argv, program(), sorted(self._modules), _logging.levels(), where]
                await child.ask([*start, settings.worker_id])
        except BaseException as error:
            await self._stop(child)
            if isinstance(error, TimeoutError):
                raise ProcessDied(f"the task's child process was not ready within {_START_S:g} s") from None
            raise
        return child

    async def _stop(self, child: _Child) -> None:
        # The caller may be cancelled in the meantime; the child must end nevertheless.
        self._children.discard(child)
        stop = asyncio.get_running_loop().create_task(child.stop())
        self._stops.add(stop)
        stop.add_done_callback(self._stops.discard)
        await asyncio.shield(stop)


def _rebuilt(module: str, path: str, text: str, args: list[Any], parts: list[Any], held: dict[str, Any]) -> Exception:
    """An exception like the one in the child, for middleware and hooks to look at."""
    try:
        kind: Any = reduce(getattr, path.split("."), importlib.import_module(module))
        error = kind.__new__(kind, *args, *([[_rebuilt(*part) for part in parts]] if parts else []))
        if not isinstance(error, Exception):
            raise TypeError(f"{path} would end more than the task")
        vars(error).update(held)
    except Exception:
        return RuntimeError(text)
    return error
