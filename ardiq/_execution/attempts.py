"""Attempts: one run of a task's function, from the claim to its outcome."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from threading import get_ident
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import context, instruments
from .._client import pages as _pages
from .._client.registry import Registered
from .._values import headers as _headers
from .._values.chunks import CHUNK
from .._values.encodings import from_json, to_json
from .._values.filled import FILL
from .._values.inputs import WITH, unpack, wired
from .._values.signing import RESULT, SIGNED, Place, Signer, at_home, bare, without_signature
from ..instruments import Outcome as Judged
from ..models import ExecutionContext
from ..retries import DEFAULT_MAX_RETRIES, RetryRules
from .batches import Call, Execution, starter
from .chunks import chunked
from .endings import (
    ABORTED,
    ATTEMPT,
    COMPLETE,
    LIMITED,
    RELEASED,
    RETRY,
    SNOOZE,
    SUSPEND,
    UNKNOWN,
    Claim,
    Ending,
    Endings,
    Outcome,
    TimedOut,
)
from .filling import fill
from .instrumented import Carried, Instrumented
from .memos import Waits
from .stacks import stack_of

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .._values.signature import Signature
    from .worker import Worker

log = logging.getLogger("ardiq")

# The task runs again.
# As many outcomes as a step waits for.
_MANY = 100
_GOES_ON = frozenset((RETRY, SNOOZE, LIMITED, RELEASED, SUSPEND, UNKNOWN))


class HandBack(asyncio.CancelledError):
    """The attempt could not continue because its worker stops: it is handed back."""


async def within(timeout: float | None, work: Awaitable[Any]) -> Any:
    """Await it, with a time limit in seconds or none.

    Raises:
        TimedOut: it took longer.
    """
    if timeout is None:
        return await work
    context.deadline.set(time() + timeout)
    try:
        async with asyncio.timeout(timeout) as limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            # The cause is the cancellation, whose traceback says where the task waited.
            raise TimedOut(f"timed out after {timeout}s") from error.__cause__
        raise


class InThread(NamedTuple):
    """An attempt on a thread. The code that takes it out of `Attempts.threads` settles it."""

    entry: Registered
    claim: Claim
    started: float
    deadline: float


class Attempts:
    """The attempts of one worker: those that run, and the outcomes of those that have ended."""

    def __init__(self, queue: "QueueContext", worker: "Worker") -> None:
        self._queue = queue
        self.worker = worker
        self.codec = queue.codec
        self._signer = queue.signer
        self._metrics = queue.metrics
        self._counters = queue.metrics.counters
        self.endings = Endings(queue, worker, asyncio.get_running_loop())
        # None without instruments.
        self.instrumented = Instrumented(queue) if instruments.active else None
        self.waits = Waits(queue, worker, lambda fn, args, kwargs: self.in_thread(fn, args, kwargs))
        self.over = False
        # Set by the worker each time it takes tasks: once per turn, not once per task.
        self.taken_at = 0.0
        self.is_debug = False
        self.outcomes: list[Outcome] = []
        # By token: an attempt that lost its lease may still run when the same task comes again.
        self.running: dict[int, asyncio.Task[None]] = {}
        # Those that emitted chunks which may not have arrived yet.
        self.unsent: set[int] = set()
        self.threads: dict[int, InThread] = {}
        # By the tokens of all their items.
        self.executions: dict[int, Execution] = {}
        self.runners: dict[str, Callable[[Claim], Coroutine[Any, Any, None]]] = {}
        self.in_thread: Callable[..., Awaitable[Any]]
        self.in_process: Callable[[Registered, Claim, Carried], Awaitable[Any]]
        self._why_cancelled: dict[int, str] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._loop_thread = get_ident()

    def registered(self, name: str) -> Registered:
        """The task of that name; an unknown one raises `LookupError`."""
        known = self._queue.registry.tasks.get(name)
        if known is None:

            async def unknown(*args: Any, **kwargs: Any) -> None:
                raise LookupError(f"unknown task {name!r}")

            known = Registered(None, unknown, RetryRules(0))
        return known

    def runner(self, name: str) -> Callable[[Claim], Coroutine[Any, Any, None]]:
        """The function that makes an attempt of a claim; made once for each task."""
        entry = self.registered(name)
        if name == FILL:
            entry = Registered(None, entry.fn, RetryRules(DEFAULT_MAX_RETRIES))
            runner = self.runners[name] = self._runner_with(entry, self._fill)
        elif entry.task is None:
            runner = self._unknown_runner(entry)
        elif entry.gathers:
            runner = starter(self, entry, self._call(entry), self._runner_with(entry, self._item))
        elif entry.is_async and entry.timeout is None and self._is_plain():
            runner = self._plain_runner(entry)
        else:
            runner = self._runner_with(entry, self._reader(entry, self._call(entry)))
        if entry.task is not None:
            self.runners[name] = runner
        return runner

    def _is_plain(self) -> bool:
        """Whether nothing surrounds the functions."""
        return not self._queue.registry.middleware and self._signer is None and self.instrumented is None

    def _plain_runner(self, entry: Registered) -> Callable[[Claim], Coroutine[Any, Any, None]]:
        # The hot path: the same as `_runner_with`, with fewer calls.
        fn, signature, running, unsent = entry.fn, entry.signature, self.running, self.unsent
        set_context, succeeded = context.running.set, self._succeeded
        codec = self.codec
        decode, receive, encode = codec.receive_call, codec.receiver(signature), codec.encode_result
        takes_none = signature is None or signature.takes(())
        waiting = self.waits.open
        # If the record is deleted when its task ends, nothing can be reported after that.
        ends_at_once = entry.task is not None and not codec.keeps(entry.task.name)

        async def attempt(claim: Claim) -> None:
            started = monotonic()
            wait_s = self.taken_at - claim[9] / 1000 if claim[8] == 1 else None
            set_context(claim)
            try:
                if self.is_debug:
                    self.log_start(claim)
                if claim[5] or claim[4]:
                    claim = self.checked(claim)
                    if claim[5].startswith(WITH):
                        claim = await self.with_results(claim)
                        args, kwargs = self.received(claim, signature)
                    else:
                        args, kwargs = decode(claim[3], claim[4], claim[5], signature)
                    value = await (chunked(entry, claim[2], codec) if claim[5] == CHUNK else fn)(*args, **kwargs)
                elif claim[3] == b"[]" and takes_none:
                    value = await fn()
                else:
                    value = await fn(*receive(claim[3]))
                if waiting:
                    self.waits.end(claim[1])
                result = encode(claim[2], signature, value)
                if (ends_at_once or claim[1] in unsent) and self.must_tell(claim, COMPLETE):
                    await self.worker.reports_arrive(claim[1])
            except BaseException as error:
                await self.failed(entry, claim, started, error)
                return
            running.pop(claim[1], None)
            succeeded(claim, started, wait_s, result)

        return attempt

    def _unknown_runner(self, entry: Registered) -> Callable[[Claim], Coroutine[Any, Any, None]]:
        # The call is not decoded: only workers that know the task can read its arguments.
        async def attempt(claim: Claim) -> None:
            started = monotonic()
            try:
                self.checked(claim)
                await entry.fn()
            except BaseException as error:
                await self.failed(entry, claim, started, error)

        return attempt

    def _runner_with(
        self, entry: Registered, run: Callable[[Claim], Awaitable[Any]]
    ) -> Callable[[Claim], Coroutine[Any, Any, None]]:
        signature, instrumented = entry.signature, self.instrumented

        async def attempt(claim: Claim) -> None:
            started = monotonic()
            wait_s = self.taken_at - claim[9] / 1000 if claim[8] == 1 else None
            context.running.set(claim)
            if instrumented is not None:
                instrumented.started(entry, claim, wait_s)
            try:
                value = await run(claim)
                self.waits.end(claim[1])
                result = self.signed(claim, self.codec.encode_result(claim[2], signature, value))
                if self.must_tell(claim, COMPLETE):
                    await self.worker.reports_arrive(claim[1])
            except BaseException as error:
                await self.failed(entry, claim, started, error)
                return
            self.running.pop(claim[1], None)
            self._succeeded(claim, started, wait_s, result)

        return attempt

    def _reader(self, entry: Registered, call: Call) -> Callable[[Claim], Awaitable[Any]]:
        """What runs a claim by itself."""

        def run(claim: Claim) -> Awaitable[Any]:
            claim = self.checked(claim)
            if self.is_debug:
                self.log_start(claim)
            if claim[5].startswith(WITH):
                return with_results(claim)
            args, kwargs = self.codec.receive_call(claim[3], claim[4], claim[5], entry.signature)
            if claim[5] == CHUNK:
                return self._call(entry, chunked(entry, claim[2], self.codec))(claim, args, kwargs)
            return call(claim, args, kwargs)

        async def with_results(claim: Claim) -> Any:
            claim = await self.with_results(claim)
            return await call(claim, *self.received(claim, entry.signature))

        return run

    async def with_results(self, claim: Claim) -> Claim:
        """A claim of a workflow's task with all results that it only refers to.

        Raises:
            BadSignature: one was not signed with the app's key.
        """
        signature = self._queue.registry.signature_of(claim[2])
        first: Any = claim
        return (*first[:3], await _pages.completed(self._queue, claim[0], claim[3], signature), *first[4:])

    def received(self, claim: Claim, signature: "Signature | None") -> tuple[list[Any], dict[str, Any]]:
        """The arguments of such a claim; from any thread.

        Raises:
            InvalidArguments: they do not fit.
        """
        args, kwargs = self.codec.receive_call(claim[3], claim[4], claim[5], signature)
        _pages.bind(self._queue, args, kwargs)
        return args, kwargs

    def _fill(self, claim: Claim) -> Awaitable[Any]:
        """What runs a claim that fills a map."""
        return fill(self._queue, self.worker.holder, self.checked(claim))

    def _item(self, claim: Claim) -> Awaitable[Any]:
        """What runs a claim together with others."""
        if self.is_debug:
            self.log_start(claim)
        return self.executions[claim[1]].result_of(claim[1])

    def checked(self, claim: Claim) -> Claim:
        """A claim whose call was signed with the app's key, if it has one, without a signature behind its codec; from
        any thread.

        Raises:
            BadSignature: it was not.
        """
        if self._signer is not None:
            self._check(self._signer, claim)
        if SIGNED not in claim[5]:
            return claim
        first: Any = claim
        return (*first[:5], bare(claim[5]), *first[6:])

    def _check(self, signer: Signer, claim: Claim) -> None:
        args, codec, place = claim[3], claim[5], None
        if codec.startswith(WITH):
            args, inputs = unpack(args)
            codec, place = codec.removeprefix(WITH), Place(at_home("", claim[0])[1], wired(inputs))
        signer.check(self._queue.name, claim[2], args, claim[4], codec, claim[6], place)

    def signed(self, claim: Claim, result: tuple[bytes, str]) -> tuple[bytes, str]:
        """An encoded result with a signature behind its codec, if it may be an argument of another task: its id looks
        as in a workflow.
        """
        if self._signer is None or "~" not in claim[0]:
            return result
        data, codec = result
        return data, self._signer.sign_value(self._queue.name, claim[0], RESULT, codec, data)

    def _call(self, entry: Registered, fn: Callable[..., Any] | None = None) -> Call:
        """How the function, or another in its place, is called: on a thread or in a process, with a time limit, within
        the middleware.
        """
        fn, timeout, middleware = fn or entry.fn, entry.timeout, list(self._queue.registry.middleware)

        def run(args: list[Any], kwargs: dict[str, Any]) -> Awaitable[Any]:
            return fn(*args, **kwargs) if entry.is_async else self.in_thread(fn, args, kwargs)

        def limited(claim: Claim, args: list[Any], kwargs: dict[str, Any]) -> Awaitable[Any]:
            if entry.process:
                return self.in_process(entry, claim, self.carried(claim))
            return within(timeout, run(args, kwargs))

        def call(claim: Claim, args: list[Any], kwargs: dict[str, Any]) -> Awaitable[Any]:
            if not middleware:
                return limited(claim, args, kwargs)
            headers = _headers.unpack(self.codec, without_signature(from_json(claim[6]))) if claim[6] else {}
            execution = ExecutionContext(claim[0], claim[2], claim[8], tuple(args), kwargs, headers)
            call_next: Callable[[], Awaitable[Any]] = functools.partial(limited, claim, args, kwargs)
            for wrap in reversed(middleware):
                call_next = functools.partial(wrap, execution, call_next)
            return call_next()

        return call

    def _succeeded(self, claim: Claim, started: float, wait_s: float | None, result: tuple[bytes, str]) -> None:
        run_s = monotonic() - started
        data, codec = result
        details = to_json({"codec": codec}) if codec else b""
        self.outcomes.append((claim[0], claim[1], COMPLETE, int(run_s * 1000), data, details))
        key = (claim[2], claim[7])
        counters = self._counters.get(key) or self._metrics.of(*key)
        counters.succeeded += 1
        counters.observe(run_s, wait_s)
        if self.instrumented is not None:
            self.instrumented.ended(claim, Judged(COMPLETE, run_s))
        if self._why_cancelled:  # a cancellation that the task swallowed
            self._why_cancelled.pop(claim[1], None)
        if not self.worker.turn_due:
            self.worker.turn_soon()
        elif len(self.outcomes) >= _MANY and not self.over:
            self.worker.settle()  # many end at once: the server takes these while the others end
        if self.is_debug:
            self.log_success(claim, run_s)

    def never_began(self, claim: Claim) -> None:
        """Settle an attempt that was cancelled before its first step, and so cannot settle itself."""
        self.was_cancelled(claim)
        self.settle_soon(self.failed(self.registered(claim[2]), claim, monotonic(), asyncio.CancelledError()))

    def was_cancelled(self, claim: Claim) -> None:
        """Not the worker has cancelled the attempt, but its task or another one, which aborts it."""
        if not self.worker.is_cancelled():
            self._why_cancelled.setdefault(claim[1], ABORTED)

    def settle_soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Settle it in an asyncio task."""
        settling = asyncio.get_running_loop().create_task(work)
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def failed(self, entry: Registered, claim: Claim, started: float, error: BaseException) -> None:
        """Settle an attempt that raised, after `last_words`."""
        run_s = monotonic() - started
        # From here on it cannot be cancelled: hooks may await.
        self.running.pop(claim[1], None)
        self.waits.open.pop(claim[1], None)
        if (execution := self.executions.get(claim[1])) is not None:
            await execution.without(claim[1])
        if self.over:
            if isinstance(error, asyncio.CancelledError | GeneratorExit):
                raise error
            return
        if isinstance(error, asyncio.CancelledError):
            why = self._why_cancelled.pop(claim[1], None)
            if why is None and (isinstance(error, HandBack) or self.worker.is_cancelled()):
                why = RELEASED
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                task.uncancel()
                # Not by the worker, but by the task itself or by another one. If something that it awaited was
                # cancelled, that is a failure like any other.
                why = why or ABORTED
            if why is not None:
                if self.must_tell(claim, why):
                    await self.worker.reports_arrive(claim[1])
                self.settle_cancelled(claim, run_s, why)
                return
        ending = self.judged(entry, claim, run_s, error)
        if self.has_last_words(ending):
            await self.last_words(ending)
        self._why_cancelled.pop(claim[1], None)
        self.outcomes.append(self.endings.hand_in(ending))
        self.worker.turn_soon()

    def judged(self, entry: Registered, claim: Claim, run_s: float, error: BaseException) -> Ending:
        """The ending of an attempt that raised; from any thread."""
        ending = self.endings.judge(entry, claim, run_s, error)
        if self.instrumented is not None:
            self.instrumented.judged(ending)
        return ending

    def carried(self, claim: Claim) -> Carried:
        """What instruments let an attempt have that runs elsewhere."""
        return () if self.instrumented is None else self.instrumented.carried(claim[1])

    def has_last_words(self, ending: Ending) -> bool:
        """Whether `last_words` has anything to do; from any thread."""
        return self.endings.tells_first(ending) or self.must_tell(ending.claim, ending.outcome)

    async def last_words(self, ending: Ending) -> None:
        """Before the outcome is sent: run the hooks of a failure, and send what the task reported."""
        if self.endings.tells_first(ending):
            await self.endings.tell_first(ending)
        if self.must_tell(ending.claim, ending.outcome):
            await self.worker.reports_arrive(ending.claim[1])

    def must_tell(self, claim: Claim, outcome: str) -> bool:
        """Whether the attempt's reports must arrive before it is settled: the server refuses those of an attempt that
        is no longer the current one, and of a record that is gone; and a stream ends with its task. From any thread.
        """
        is_last_chance = outcome in _GOES_ON or not self.codec.keeps(claim[2])
        return claim[1] in self.unsent or (is_last_chance and self.worker.has_told(claim[1]))

    def settle_cancelled(self, claim: Claim, run_s: float, why: str) -> None:
        """Settle an attempt that was cancelled by the worker: aborted or handed back."""
        ending = self.endings.cancelled(claim, run_s, why)
        if self.instrumented is not None:
            self.instrumented.judged(ending)
        self.outcomes.append(self.endings.hand_in(ending))
        self.worker.turn_soon()

    def holds(self, token: int) -> bool:
        """Whether an attempt is still to be settled; not yet, while it is being started."""
        return token in self.running or token in self.threads

    def is_current(self, token: int) -> bool:
        """Whether an attempt runs and was not cancelled; asked by the attempt itself, on the loop or on its thread."""
        if token in self._why_cancelled:
            return False
        # One that was started eagerly runs before it is in `running`.
        return self.holds(token) or get_ident() == self._loop_thread

    def abort(self, token: int) -> bool:
        """Cancel the attempt of that token as aborted; False if there is none."""
        if not self.holds(token):
            return False
        self._cancel(token, ABORTED)
        return True

    def hand_back(self, up_to: float = inf) -> None:
        """Cancel every attempt whose token is not above this one; others will run those tasks."""
        for token in [*self.running, *self.threads]:
            if token <= up_to:
                self._cancel(token, RELEASED)

    def _cancel(self, token: int, why: str) -> None:
        if token in self.running:
            # The request is repeated until the task is settled, and a second cancellation would interrupt its clean-up.
            if token not in self._why_cancelled:
                self._why_cancelled[token] = why
                self.running[token].cancel()
        elif (held := self.threads.pop(token, None)) is not None:
            # A thread cannot be stopped: it is settled now, and what it returns is ignored.
            self.abandon(held.claim, 1)
            run_s = monotonic() - held.started
            if self.over or not self.must_tell(held.claim, why):
                self.settle_cancelled(held.claim, run_s, why)
                return
            self.settle_soon(self._settle_told(held.claim, run_s, why))

    async def _settle_told(self, claim: Claim, run_s: float, why: str) -> None:
        await self.worker.reports_arrive(claim[1])
        self.settle_cancelled(claim, run_s, why)

    def log_start(self, claim: Claim) -> None:
        """Log the start at debug level."""
        fields = self.endings.fields(claim, "started")
        log.debug(f"task started {ATTEMPT}", *self.endings.named(claim), extra=fields)

    def log_success(self, claim: Claim, run_s: float) -> None:
        """Likewise."""
        values = *self.endings.named(claim), int(run_s * 1000)
        log.debug(f"task succeeded {ATTEMPT} duration_ms=%d", *values, extra=self.endings.fields(claim, "succeeded"))

    def abandon(self, claim: Claim, change: int) -> None:
        """Count a thread that still runs after its attempt was settled, or with -1 one that has ended: until then it
        occupies a slot. From any thread.
        """
        self.worker.link.thread_runs_on(claim[1], change > 0)
        if change > 0 and (stack := stack_of(claim)):
            log.warning(
                "the thread of task %r (id %s) cannot be stopped, and runs on until it returns; it is here:\n%s",
                claim[2], claim[0], stack,
                extra=self.endings.fields(claim),
            )  # fmt: skip
        with self._metrics.lock:
            self._metrics.of(claim[2], claim[7]).abandoned_threads += change
