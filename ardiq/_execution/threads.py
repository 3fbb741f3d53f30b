"""Sync tasks on daemon threads, which take their work from the core without the event loop."""

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from math import inf
from time import monotonic, time
from typing import Any

from .. import _core, context
from .._client.registry import Registered
from .._server.inbox import resolve
from .._values.chunks import CHUNK
from .._values.encodings import to_json
from .._values.inputs import WITH
from ..instruments import Outcome as Judged
from .attempts import Attempts, InThread
from .chunks import chunked
from .endings import COMPLETE, Claim, TimedOut, waited

log = logging.getLogger("ardiq")

_WAIT_MS = 10_000
_JOIN_S = 0.5


class _Pool:
    """A limited number of daemon threads, each started when all others are busy."""

    def __init__(self, limit: int, serve: Callable[[], None], name: str) -> None:
        self._limit = limit
        self._serve = serve
        self._name = name
        self._lock = threading.Lock()
        self._idle = 0
        self._busy: set[threading.Thread] = set()
        self.threads: list[threading.Thread] = []

    def grow(self) -> None:
        """Start one more if none is idle."""
        with self._lock:
            if self._idle > 0 or len(self.threads) >= self._limit:
                return
            self._idle += 1
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self.threads) + 1}", daemon=True)
            self.threads.append(thread)
        thread.start()

    def busy(self) -> None:
        """Said by a thread that has got work."""
        with self._lock:
            self._idle -= 1
            self._busy.add(threading.current_thread())
        self.grow()

    def idle(self) -> None:
        """Said by a thread that looks for work again."""
        with self._lock:
            self._idle += 1
            self._busy.discard(threading.current_thread())

    def join(self, deadline: float) -> None:
        """Wait for the threads that have no work, which were told to end: a moment."""
        with self._lock:
            ending = [thread for thread in self.threads if thread not in self._busy]
        for thread in ending:
            thread.join(max(0.0, deadline - monotonic()))


class SyncTasks:
    """The threads of one worker."""

    def __init__(self, attempts: Attempts, link: _core.Worker, base: contextvars.Context, concurrency: int) -> None:
        self._attempts = attempts
        self._link = link
        self._base = base
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._next_look = inf
        self._timer: asyncio.TimerHandle | None = None
        self._entries: dict[str, Registered] = {}
        self._direct = _Pool(concurrency, self._serve, "ardiq-task")
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._called = _Pool(concurrency, self._serve_calls, "ardiq-call")

    def start(self) -> None:
        """Take sync tasks from the core from now on."""
        self._direct.grow()

    def close(self) -> None:
        """End the threads; one that is busy ends when its task does."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for _ in self._called.threads:
            self._calls.put(None)
        deadline = monotonic() + _JOIN_S
        for pool in (self._direct, self._called):
            pool.join(deadline)

    async def call(self, fn: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function on a thread, in the caller's context. If cancelled, the thread runs on, and its result is
        ignored.
        """
        answer: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        call = contextvars.copy_context().run
        claim = context.running.get()

        # The claim is a variable of the frame that stacks show to be the task's.
        def work(claim: Claim | None = claim) -> None:
            value, error = None, None
            try:
                if not answer.cancelled():  # or nobody has waited long enough for a thread to be free
                    value = call(fn, *args, **kwargs)
            except BaseException as raised:
                error = raised
            try:
                self._loop.call_soon_threadsafe(end, (value, error))
            except RuntimeError:  # the loop is closed
                return

        def end(outcome: tuple[Any, BaseException | None]) -> None:
            resolve(answer, outcome)
            if answer.cancelled() and claim is not None:
                self._attempts.abandon(claim, -1)

        self._calls.put(work)
        self._called.grow()
        try:
            value, error = await answer
        except asyncio.CancelledError:
            if answer.cancelled() and claim is not None:
                self._attempts.abandon(claim, 1)
            raise
        if error is not None:
            raise error
        return value

    def _serve_calls(self) -> None:
        while (work := self._calls.get()) is not None:
            self._called.busy()
            work()
            self._called.idle()

    def _serve(self) -> None:
        while not self._closed:
            claim = self._link.take_thread(_WAIT_MS)
            if claim is None:
                continue
            self._direct.busy()
            self._base.copy().run(self._run, claim)
            self._direct.idle()

    def _run(self, claim: Claim) -> None:
        attempts = self._attempts
        entry = self._entries.get(claim[2])
        if entry is None:
            entry = self._entries[claim[2]] = attempts.registered(claim[2])
        signature = entry.signature
        context.running.set(claim)
        is_debug = log.isEnabledFor(logging.DEBUG)
        started = monotonic()
        deadline = inf
        if entry.timeout is not None:
            deadline = started + entry.timeout
            context.deadline.set(time() + entry.timeout)
        if attempts.instrumented is not None:
            attempts.instrumented.started(entry, claim, waited(claim, 0.0))
        attempts.threads[claim[1]] = InThread(entry, claim, started, deadline)
        if deadline < self._next_look:
            self._loop.call_soon_threadsafe(self._look)
        try:
            claim = attempts.checked(claim)
            if is_debug:
                attempts.log_start(claim)
            if claim[5].startswith(WITH):
                completed = self._with_results(claim)
                if completed is None:
                    attempts.threads.pop(claim[1], None)
                    return
                claim = completed
                args, kwargs = attempts.received(claim, signature)
            else:
                args, kwargs = attempts.codec.receive_call(claim[3], claim[4], claim[5], signature)
            fn = chunked(entry, claim[2], attempts.codec) if claim[5] == CHUNK else entry.fn
            value = fn(*args, **kwargs)
            attempts.waits.end(claim[1])
            data, codec = attempts.signed(claim, attempts.codec.encode_result(claim[2], signature, value))
        except BaseException as error:
            attempts.waits.open.pop(claim[1], None)
            if attempts.threads.pop(claim[1], None) is not None:
                self._failed(entry, claim, started, error)
            else:
                attempts.abandon(claim, -1)
            return
        if attempts.threads.pop(claim[1], None) is None:
            attempts.abandon(claim, -1)
            return
        run_s = monotonic() - started
        if attempts.must_tell(claim, COMPLETE) and not self._wait(attempts.worker.reports_arrive(claim[1])):
            return
        if attempts.instrumented is not None:
            attempts.instrumented.ended(claim, Judged(COMPLETE, run_s))
        details = to_json({"codec": codec}) if codec else b""
        self._link.settle([(claim[0], claim[1], COMPLETE, int(run_s * 1000), data, details)])
        attempts.endings.count(claim, run_s, waited(claim, run_s), COMPLETE)
        if is_debug:
            attempts.log_success(claim, run_s)

    def _with_results(self, claim: Claim) -> Claim | None:
        """Let the loop read the results that a claim refers to; None if the loop is closed."""
        work = self._attempts.with_results(claim)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError:
            return None  # the loop is about to be closed, and with it the worker
        except RuntimeError:  # as is an error of the server
            work.close()
            if self._loop.is_closed():
                return None
            raise

    def _failed(self, entry: Registered, claim: Claim, started: float, error: BaseException) -> None:
        run_s = monotonic() - started
        attempts = self._attempts
        ending = attempts.judged(entry, claim, run_s, error)
        if attempts.has_last_words(ending) and not self._wait(attempts.last_words(ending)):
            return
        self._link.settle([attempts.endings.hand_in(ending)])

    def _wait(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let the loop do it; False if the loop is closed."""
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except (RuntimeError, CancelledError):
            work.close()  # the loop is closed or about to be, and with it the worker
            return False
        return True

    def _look(self) -> None:
        """Settle what is over its time limit, and look again at the next deadline."""
        # Before looking: a thread that is missed below sees it and asks for another look.
        self._next_look = inf
        now = monotonic()
        for token, held in list(self._attempts.threads.items()):
            if held.deadline <= now and self._attempts.threads.pop(token, None) is not None:
                self._time_out(held)
            elif held.deadline < self._next_look:
                self._next_look = held.deadline
        if self._next_look < inf:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, self._next_look - now), self._look)

    def _time_out(self, held: InThread) -> None:
        limit = held.entry.timeout
        self._attempts.abandon(held.claim, 1)
        error = TimedOut(f"timed out after {limit}s")
        # Hooks may await: not in a timer.
        self._attempts.settle_soon(self._attempts.failed(held.entry, held.claim, held.started, error))
