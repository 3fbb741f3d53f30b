"""One worker in this process: how it is stopped, when it is spent, how it ends."""

import argparse
import asyncio
import contextlib
import logging
import os
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING

from .. import _core
from .._execution.memory import resident_mb
from .._serving.serve import read_shares
from ..errors import BrokerError, Forbidden, LibraryError, is_away
from . import Refusal
from ._arguments import refusing
from ._health import listen
from ._lifeline import Lifeline, Requests
from ._supervisor import GAVE_UP, RECYCLED, REFUSED, SIGNALS, STUBBORN_S

if TYPE_CHECKING:
    from ..app import Ardiq

_log = logging.getLogger("ardiq")

_LOOK_S = 0.5
_LAST_WORDS_S = 1.0
_SAY_S = 1.0


class Work:
    """One worker in this process, made as `ardiq run` was told."""

    def __init__(self, app: "Ardiq", arguments: argparse.Namespace, lifeline: Lifeline | None) -> None:
        app.burst = app.burst or bool(arguments.burst)
        app.allow_eviction = app.allow_eviction or bool(arguments.allow_eviction)
        app.run_state.give_up_after_s = arguments.give_up_after
        app.run_state.replace_stalled_s = arguments.replace_stalled
        app.run_state.on_cancelled = self._cancelled
        self._app = app
        self._queues = read_queues(app, arguments.queues)
        self._arguments = arguments
        self._lifeline = lifeline
        self._requests = Requests()
        self._started = time.monotonic()
        self._is_draining = False
        self._is_over = False  # the time for it
        self._is_recycled = False
        self._is_asked = False  # to stop, from outside
        self._has_ended = False
        self._drains: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal may interrupt whoever puts into it

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in SIGNALS:
            # Not the loop's own handlers: a task may hold up the loop.
            signal.signal(number, lambda *_: self._signalled(loop))
        os.register_at_fork(after_in_child=_answer_no_signals)
        if self._arguments.drain_timeout is not None:
            threading.Thread(target=self._end_in_time, daemon=True).start()
        if self._lifeline is not None:
            self._lifeline.stop = lambda: self._ask(loop)
            self._lifeline.stop_now = self._end_now
        watch = loop.create_task(self._watch())
        code = 1
        try:
            if self._arguments.health is not None:
                self._app.run_state.health = health = listen(self._app, self._arguments.health)
                _log.info("health: http://%s/live, /ready and /metrics", health.address)
            _log.info(
                "worker starting worker_id=%s, connecting to %s", self._app.worker_id, self._app.context.server.core.url
            )
            # Not a daemon: it must not come back into an interpreter that ends.
            threading.Thread(target=self._say_if_away, name="ardiq-probe").start()
            try:
                await self._app.run(self._queues)
            except asyncio.CancelledError:
                if not self._is_over:
                    raise
            code = RECYCLED if self._is_recycled and self._lifeline is not None and not self._is_asked else 0
        except (LibraryError, Forbidden) as error:
            code = REFUSED
            raise Refusal(str(error)) from None
        except BrokerError as error:
            code = GAVE_UP
            _log.error("%s", error)
        finally:
            watch.cancel()
            _log.info("worker stopped worker_id=%s reason=%s", self._app.worker_id, self._reason())
            self._has_ended = True
            for queue in list(self._app.context.family.values()):
                queue.server.close()  # the interpreter waits for calls that still try to reach the server
            threading.Thread(target=self._end_after_all, args=(code,), daemon=True).start()
        return code

    def _reason(self) -> str:
        """Why it has ended, in a word."""
        if self._is_asked:
            return "signal"
        return "limit" if self._is_recycled else "burst" if self._app.burst else "unknown"

    def _say_if_away(self) -> None:
        """On a thread: say soon what calls to the server find after they have tried for `broker_timeout_ms`."""
        error = self._app.context.server.trouble(_SAY_S)
        if error is not None and is_away(error) and not self._is_asked:
            _log.warning("%s; trying again", error)

    def _signalled(self, loop: asyncio.AbstractEventLoop) -> None:
        request = self._requests.count()
        if request == "first" and not self._has_ended:
            self._ask(loop)
        elif request != "same":
            self._end_now()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop when the running tasks have ended; from any thread, however often."""
        if not self._is_asked:
            self._is_asked = True
            self._drains.put(None)
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                loop.call_soon_threadsafe(self._stop)

    def _end_now(self) -> None:
        if self._has_ended:
            self._end_at_once("stopped without waiting for what tasks left behind", 0)
        forced = f"worker forced to exit worker_id={self._app.worker_id}"
        self._end_at_once(f"{forced}: stopped at once; running tasks run again when the lease is over")

    def _stop(self) -> None:
        told = "worker stopping worker_id=%s, finishing running tasks (another signal stops at once)"
        _log.info(told, self._app.worker_id)
        self._drain()

    def _drain(self) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        self._drains.put(None)
        self._app.stop()
        if self._arguments.drain_timeout is not None:
            asyncio.get_running_loop().call_later(self._arguments.drain_timeout, self._hand_back)

    def _hand_back(self) -> None:
        _log.warning("tasks still running after %g s are handed back", self._arguments.drain_timeout)
        self._is_over = True
        self._app.run_state.on_cancelled = None
        if self._main is not None:
            self._main.cancel()

    def _cancelled(self) -> None:
        # A task that cancels whatever there is: were it handed back, it would end one worker after another.
        self._end_at_once("a task cancelled the worker; running tasks run again when the lease is over")

    def _end_in_time(self) -> None:
        """On a thread: end even if the loop is held up or a task ignores that it is cancelled."""
        self._drains.get()
        time.sleep(self._arguments.drain_timeout + STUBBORN_S)
        if not self._has_ended:
            self._end_at_once("a task blocks the event loop; running tasks run again when the lease is over")

    def _end_after_all(self, code: int) -> None:
        """On a thread: end even if Python waits for what tasks left, such as threads of `asyncio.to_thread`."""
        time.sleep(STUBBORN_S)
        main = threading.main_thread()
        left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread is not main]
        if not left:
            self._end_at_once("a task ignores its cancellation")
        if self._lifeline is not None:
            self._lifeline.say_in_order()
        self._end_at_once(f"ended without waiting for threads that tasks left behind: {', '.join(left)}", code)

    def _end_at_once(self, why: str, code: int = 1) -> None:
        # On a thread: nobody may read what is said, and a full pipe must not keep the process.
        words = threading.Thread(target=_last_words, args=(why,), daemon=True)
        with contextlib.suppress(RuntimeError):  # it is too late for threads
            words.start()
            words.join(_LAST_WORDS_S)
        os._exit(code)

    async def _watch(self) -> None:
        await asyncio.sleep(_LOOK_S)
        _core.trim_memory()  # the start freed half a megabyte that nobody would use again
        while (reason := self._is_spent()) is None:
            await asyncio.sleep(_LOOK_S)
        self._is_recycled = True
        _log.info("worker stopping worker_id=%s: %s", self._app.worker_id, reason)
        self._drain()

    def _is_spent(self) -> str | None:
        limits = self._arguments
        rows = self._app.metrics()
        attempts = sum(row.succeeded + row.retried + row.failed + row.aborted for row in rows)
        if limits.max_tasks is not None and attempts >= limits.max_tasks:
            return f"{attempts} attempts (--max-tasks {limits.max_tasks})"
        if limits.max_age is not None and time.monotonic() - self._started >= limits.max_age:
            return f"{limits.max_age:g} s old (--max-age)"
        # Not before it has run a task: a limit below what a worker starts with would replace it for ever.
        if limits.max_memory_mb is not None and attempts and (held := resident_mb()) > limits.max_memory_mb:
            return f"holds {held} MiB (--max-memory-mb {limits.max_memory_mb})"
        return None


def _last_words(why: str) -> None:
    _log.warning(why)
    logging.shutdown()


def _answer_no_signals() -> None:
    """In a process that a task forks, the handlers would do nothing but hinder `terminate()`."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read_queues(app: "Ardiq", queues: list[tuple[str, int]] | None) -> dict[str, int] | None:
    """What `run` is told of queues, checked before anything is started."""
    if queues is None:
        return None
    names = [name for name, _ in queues]
    for name in names:
        if names.count(name) > 1:
            raise Refusal(f"--queue names {name!r} twice")
    with refusing("--queue"):
        return read_shares(app.context.settings, dict(queues))
