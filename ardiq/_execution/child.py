"""A worker's child process: runs sync tasks where they can be stopped. Started by `processes` with one end of a socket.

Frames go both ways: four bytes of length, then msgpack. The first one to the child says what to import; each later one
is a claim.
"""

import contextvars
import ctypes
import functools
import importlib
import logging
import os
import queue
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, ModuleType
from typing import Any, BinaryIO, NoReturn

from .. import context, instruments
from .._client import pages
from .._client.registry import Registered
from .._server import server
from .._values.chunks import CHUNK
from .._values.codec import Codec
from .._values.encodings import from_msgpack
from .._values.inputs import WITH
from ..errors import Suspend
from . import processes as _processes
from .chunks import chunked
from .endings import error_text, error_traceback
from .logging import Stderr, ToWorker
from .memos import Waits
from .processes import frame

_LAST_WORDS_S = 1.0
# The worker's program is imported under this name, so that it does not do what it does when started.
_MAIN = "__mp_main__"
_stopping = False
_channel: socket.socket
_program: tuple[str, str]
_modules: list[str]
_memory_limits = resource.getrlimit(resource.RLIMIT_DATA)


def main() -> None:
    global _channel, _program, _modules
    _channel = channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    os.register_at_fork(after_in_child=_stop_as_usual)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, for code that never lets go of the interpreter
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(channel.makefile("rb"), messages), daemon=True)
    # Signals are for the main thread, which lets none through in the end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    listener.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    sys.path[:], sys.argv, _program, _modules, levels, where, worker_id = messages.get()
    reports = _Reports(channel, worker_id)
    # First, so that modules that configure logging on import only if nobody has, do not.
    logging.root.handlers[:] = [ToWorker(reports.log)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for module in _modules:
        with suppress(Exception):  # the task that needs it says what is wrong
            _import(module)
    context.reports.set(reports)
    reports.send(frame(["ready"]))
    while (call := messages.get()) is not None:
        reports.queue = call[0]
        reports.send(contextvars.copy_context().run(_attempt, reports, where, *call[1:]))
    # The signal comes now: it is ending already. Not SIG_IGN: of one that came just before, Python would print that it
    # was ignored due to a race condition.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


class _Held:
    """The attempt that runs here; the worker ends the process when it no longer counts."""

    sleeps_in_place = True

    def __init__(self, holder: list[Any]) -> None:
        self._holder = holder

    def holder(self, _: int) -> tuple[str, int]:
        return self._holder[0], self._holder[1]

    def holds(self, _: int) -> bool:
        return True


class _Reports:
    """Passes the reports of a task on to the worker."""

    codec: Codec
    """Of the task's app, once it is known."""

    def __init__(self, channel: socket.socket, worker_id: str) -> None:
        self.queue = ""
        self.worker_id = worker_id
        self._channel = channel
        self._lock = threading.Lock()
        self._noted: tuple[Any, dict[str, bytes]] = (None, {})

    def send(self, data: bytes) -> None:
        with self._lock:
            self._channel.sendall(data)

    def log(self, record: dict[str, Any]) -> None:
        self.send(frame(["log", {name: value if _travels(value) else repr(value) for name, value in record.items()}]))

    def add(self, claim: tuple[Any, ...], **report: Any) -> None:
        self.send(frame(["report", claim[1], report]))

    def noted(self, claim: tuple[Any, ...], to_add: bool = False) -> dict[str, bytes]:
        if self._noted[0] != claim[1]:
            self._noted = (claim[1], {})
        return self._noted[1]

    def is_current(self, _: tuple[Any, ...]) -> bool:
        return True  # a child whose task no longer counts is ended

    def is_full(self, _: tuple[Any, ...]) -> bool:
        return False  # `add` blocks while the worker takes no more


def _listen(stream: BinaryIO, messages: "queue.SimpleQueue[Any]") -> NoReturn:
    with suppress(OSError):
        while head := stream.read(4):
            messages.put(from_msgpack(stream.read(int.from_bytes(head, "big"))))
    messages.put(None)
    time.sleep(_LAST_WORDS_S)  # an idle child has ended by then; nobody waits for a busy one
    os._exit(1)


def _stop(number: int, _: FrameType | None) -> None:
    """End if the signal comes from the worker. One that was sent to all processes of the unit is for the worker, which
    waits for the task that runs here.
    """
    global _stopping
    if not _is_hung_up():
        return
    _stopping = True
    raise SystemExit(128 + number)  # so that the task's `finally` and `with` run


def _is_hung_up() -> bool:
    """Whether the worker has closed its end, which it does before it sends a signal, or is gone."""
    try:
        return _channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _stop_as_usual() -> None:
    """In a process that the task forks: the worker listens to its child alone."""
    for handler in logging.root.handlers[:]:
        if isinstance(handler, ToWorker):
            logging.root.handlers[:] = [Stderr()]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _attempt(
    reports: "_Reports",
    where: list[str],
    of: str,
    module: str,
    path: str,
    claim: list[Any],
    holder: list[Any],
    max_memory_mb: int | None,
    carried: list[Any],
) -> bytes:
    context.running.set(tuple(claim))
    kind = "error"
    try:
        _limit_memory(max_memory_mb)
        entry = _registered(of, module, path, claim[2])
        instruments.enter(carried)  # after what the module sets up
        assert entry.task is not None
        queue = entry.task.context
        reports.codec = codec = queue.codec
        settings = queue.settings
        if [settings.redis_url, settings.prefix] != where:  # the worker's was redirected, by a test
            queue.move(*where)
        if entry.timeout is not None:
            context.deadline.set(time.time() + entry.timeout)
        args, kwargs = codec.receive_call(claim[3], claim[4], claim[5], entry.signature)
        queue = entry.task.app.queue(reports.queue or queue.name).context
        if claim[5].startswith(WITH):
            pages.bind(queue, args, kwargs)
        waits = Waits(queue, _Held(holder))
        context.waits.set(waits)
        fn = chunked(entry, claim[2], codec) if claim[5] == CHUNK else entry.fn
        returned = fn(*args, **kwargs)
        waits.end(claim[1])
        value = codec.encode_result(claim[2], entry.signature, returned)
        _limit_memory(None)
        return frame(["value", *value])
    except BaseException as error:
        if _stopping:
            raise
        _limit_memory(None)
        if isinstance(error, Suspend):
            return frame(["waits", error.name])
        failure, decision = error, None
        with suppress(Exception):  # if it cannot be judged here, the worker does
            decision = _registered(of, module, path, claim[2]).retries.decide(claim[8], error)
        if max_memory_mb is not None and isinstance(error, MemoryError):
            kind = "spent"  # its memory may never become free again
            text = f"the task needed more than its memory limit of {max_memory_mb} MiB"
            failure = MemoryError(text).with_traceback(error.__traceback__)
        return frame([kind, _described(failure), _printable(error_traceback(failure)), decision])


def _described(error: BaseException) -> list[Any]:
    """An exception for the worker to rebuild: its class, its text, and those of its attributes that can be sent."""
    kind, text = type(error), _printable(error_text(error))
    module = "__main__" if kind.__module__ == _MAIN else kind.__module__
    if isinstance(error, BaseExceptionGroup):
        args: list[Any] = [error.message]
        parts = [_described(each) for each in error.exceptions]
    else:
        # What cannot be sent is in the text.
        args, parts = list(error.args) if _travels(error.args) else [text], []
    held = {name: value for name, value in vars(error).items() if _travels(value)}
    return [module, _printable(kind.__qualname__), text, args, parts, held]


def _travels(value: Any) -> bool:
    try:
        frame(value)
    except Exception:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _limit_memory(max_memory_mb: int | None) -> None:
    """Let all allocations fail beyond this many MiB of heap and private mappings."""
    soft, hard = _memory_limits
    if max_memory_mb is not None:
        soft = max_memory_mb << 20 if hard == resource.RLIM_INFINITY else min(max_memory_mb << 20, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _registered(of: str, module: str, path: str, name: str) -> Registered:
    module = _import(module).__name__
    entry = _processes.find(of, name, module, path)
    for other in () if entry else _modules:
        _import(other)
        entry = entry or _processes.find(of, name, module, path)
    if entry is None:
        raise LookupError(f"importing {', '.join(_modules)} does not register {module}.{path} as task {name!r}")
    return entry


def _import(name: str) -> ModuleType:
    """Import a module; the worker's program under another name."""
    if name != "__main__":
        return importlib.import_module(name)
    if _MAIN not in sys.modules:
        how, where = _program
        server.is_imported_by_child = True
        try:
            run: Any = runpy.run_path if how == "path" else functools.partial(runpy.run_module, alter_sys=True)
            main = ModuleType(_MAIN)
            vars(main).update(run(where, run_name=_MAIN))
        finally:
            server.is_imported_by_child = False
        sys.modules["__main__"] = sys.modules[_MAIN] = main
    return sys.modules[_MAIN]


if __name__ == "__main__":
    main()
