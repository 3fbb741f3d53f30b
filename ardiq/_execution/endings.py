"""How attempts end: what is sent to the server for each, and who hears of its answer."""

import asyncio
import contextvars
import functools
import inspect
import logging
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .._values.encodings import to_json
from ..errors import RateLimited, Suspend
from ..logs import claim_fields
from ..models import ErrorContext
from ..retries import Decision, leaves
from .stacks import traceback_text

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .._client.registry import Registered
    from .worker import Worker

log = logging.getLogger("ardiq")

# id, token, name, args, kwargs, codec, headers, lane, tries, enqueued_at
Claim = tuple[str, int, str, bytes, bytes, str, bytes, str, int, int]
# id, token, outcome, run_ms, value, details
Outcome = tuple[str, int, str, int, bytes, bytes]

COMPLETE, FAILED, RETRY, SNOOZE, ABORTED, RELEASED = "complete", "failed", "retry", "snooze", "aborted", "release"
UNKNOWN, LIMITED, SUSPEND = "unknown", "limited", "suspend"

# A task without a max_age is not snoozed forever.
_LONGEST_SNOOZED_MS = 7 * 86_400_000

_LONGEST_TEXT = 16_384
# How many names of unknown tasks are remembered: there may be any number.
_MOST_UNKNOWN = 1_000

# By what log lines say of an attempt that did not succeed, the word for programs.
EVENT_NAMES = {
    "aborted": "aborted",
    "failed": "failed",
    "rate limited": "limited",
    "retry scheduled": "retried",
    "snoozed": "snoozed",
}
# How log lines name an attempt.
ATTEMPT = "id=%s name=%r worker=%s try=%d"

_STALE = "stale"
_REFUSALS = {_STALE: "another worker has the task", "not_found": "its record was deleted"}


class TimedOut(TimeoutError):
    """The attempt exceeded its time limit; the text becomes the task's error."""


class FromChild(Exception):
    """The cause of an error that was raised in a child process: its traceback there, and the decision of the task's
    retry rules, which saw the original exception; None if they could not decide.
    """

    def __init__(self, text: str, traceback: str, decision: Decision | None) -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback
        self.decision = decision

    def __str__(self) -> str:
        return self.traceback


class Ending(NamedTuple):
    """An attempt that ended and did not succeed.

    Attributes:
        outcome: what is sent to the server.
        wait_s: how long its task had been ready before its first attempt.
        error: what it raised; `text` is its message.
        asked: the task asked for another attempt itself.
        is_traced: whether the traceback of what it raised is of use.
        context: of the attempt, for the hooks.
    """

    claim: Claim
    run_s: float
    outcome: str
    wait_s: float | None
    error: BaseException | None = None
    text: str = ""
    details: dict[str, Any] | None = None
    asked: bool = False
    is_traced: bool = False
    context: contextvars.Context | None = None

    @property
    def keeps_slot(self) -> bool:
        """Whether the hooks may have to hear of it once it is answered; such attempts are limited in number."""
        return self.context is not None and self.outcome != FAILED

    def outcome_record(self) -> Outcome:
        """The record that is sent to the server."""
        value, details = self.text.encode(errors="backslashreplace"), to_json(self.details) if self.details else b""
        return self.claim[0], self.claim[1], self.outcome, int(self.run_s * 1000), value, details


class Endings:
    """The attempts of one worker that ended and did not succeed."""

    def __init__(self, queue: "QueueContext", worker: "Worker", loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._worker = worker
        self._loop = loop
        self._metrics = queue.metrics
        # By token: those that were sent and are not yet answered.
        self._unanswered: dict[int, Ending] = {}
        self._void_up_to = 0
        self._unknown: set[str] = set()
        self._closed = False
        # By task id, its latest one: the hooks hear of a task's attempts one after the other.
        self._telling: dict[str, asyncio.Task[None]] = {}

    def cancelled(self, claim: Claim, run_s: float, why: str) -> Ending:
        """The ending of an attempt that the worker cancelled: aborted or handed back."""
        return Ending(claim, run_s, why, waited(claim, run_s))

    def judge(self, entry: "Registered", claim: Claim, run_s: float, error: BaseException) -> Ending:
        """The ending of an attempt that raised any exception. From any thread."""
        try:
            return self._judge(entry, claim, run_s, error)
        except Exception:
            log.exception(
                "task %r raised an exception that its retry options cannot handle: it fails",
                claim[2],
                extra=self.fields(claim),
            )
            return Ending(claim, run_s, FAILED, waited(claim, run_s), error, error_text(error))

    def _judge(self, entry: "Registered", claim: Claim, run_s: float, error: BaseException) -> Ending:
        raised, waits_for = _without_waits(error)
        if raised is None:
            return Ending(claim, run_s, SUSPEND, None, details={"wait": waits_for})
        error = _mistaken(entry, raised) or raised
        # A child's exception was judged in the child: not all of it can be sent.
        judged = error.__cause__.decision if isinstance(error.__cause__, FromChild) else None
        outcome, delay_ms, asked = judged or entry.retries.decide(claim[8], error)
        details: dict[str, Any] = {}
        max_age_ms = entry.retries.max_age_ms
        if outcome == SNOOZE:
            text = ", ".join(dict.fromkeys(map(str, leaves(error))))
            max_age_ms = max_age_ms or _LONGEST_SNOOZED_MS
            if limit := _used_up(entry, error):
                outcome, details = LIMITED, limit
        else:
            is_unknown = entry.task is None and isinstance(error, LookupError)
            text = str(error) if is_unknown or isinstance(error, TimedOut) else error_text(error)
            if is_unknown and self._queue.settings.unknown_task_wait_ms:
                outcome, max_age_ms = UNKNOWN, self._queue.settings.unknown_task_wait_ms
            elif entry.task is not None and not asked:
                details["traceback"] = error_traceback(error)
        if outcome != FAILED:
            details["delay_ms"] = delay_ms
            if max_age_ms:
                details["max_age_ms"] = max_age_ms
        context = contextvars.copy_context() if self._queue.registry.error_hooks else None
        is_traced = entry.task is not None
        return Ending(
            claim, run_s, outcome, waited(claim, run_s), error, text, details, asked, is_traced, context
        )  # fmt: skip

    def hand_in(self, ending: Ending) -> Outcome:
        """The record to send to the server, whose answer is then awaited. From any thread."""
        token = ending.claim[1]
        if ending.keeps_slot:
            self._worker.occupy(True)
        self._unanswered[token] = ending
        if token <= self._void_up_to:  # its lease was lost in the meantime
            self._loop.call_soon_threadsafe(self.answered, ending.claim[0], token, _STALE, True)
        return ending.outcome_record()

    def answered(self, task_id: str, token: int, what: str, refused: bool) -> None:
        """The server's answer to an outcome: what the attempt became, or why it was refused."""
        ending = self._unanswered.pop(token, None)
        failure = None
        if refused:
            if ending is None or ending.outcome != RELEASED:
                message = "task outcome refused id=%s reason=%s: %s"
                fields = {"event_name": "refused"} if ending is None else self.fields(ending.claim, "refused")
                log.warning(message, task_id, what, _REFUSALS.get(what, "nothing was changed"), extra=fields)
        elif ending is not None:
            failure = self.announce(ending, what)
        if ending is None or not ending.keeps_slot:
            return
        if failure is None:
            self._worker.occupy(False)
            return
        telling = self._loop.create_task(
            self._tell_hooks(failure, ending.claim, self._telling.get(task_id)), context=ending.context
        )
        self._telling[task_id] = telling
        telling.add_done_callback(functools.partial(self._told, task_id))

    def _told(self, task_id: str, telling: "asyncio.Task[None]") -> None:
        if self._telling.get(task_id) is telling:
            del self._telling[task_id]
        self._worker.occupy(False)

    async def tell(self, token: int, became: str) -> None:
        """`answered`, and wait until the hooks have heard of it."""
        ending = self._unanswered.pop(token, None)
        if ending is not None and (failure := self.announce(ending, became)) is not None:
            await self._loop.create_task(self._tell_hooks(failure, ending.claim, None), context=ending.context)

    def void(self, up_to: int) -> None:
        """The lease is lost: the server will refuse outcomes whose token is not above this one."""
        self._void_up_to = up_to
        for token, ending in list(self._unanswered.items()):
            if token <= up_to:
                self.answered(ending.claim[0], token, _STALE, True)

    async def all_told(self) -> None:
        """Wait until the hooks have heard of everything that was answered."""
        while self._telling:
            await asyncio.wait(self._telling.values())

    def close(self) -> None:
        """Stop calling the hooks."""
        self._closed = True
        for telling in self._telling.values():
            telling.cancel()

    def tells_first(self, ending: Ending) -> bool:
        """Whether the hooks hear of it before it is sent, so that they have run when its result can be seen. That is
        possible for a failure, because all that the server may answer is that the attempt no longer counts. From any
        thread.
        """
        is_ours = ending.claim[1] > self._void_up_to
        return (
            ending.outcome == FAILED and is_ours and ending.error is not None and bool(self._queue.registry.error_hooks)
        )

    async def tell_first(self, ending: Ending) -> None:
        """Call the hooks with a failure."""
        assert ending.error is not None
        claim = ending.claim
        # The worker may take the task again before this loop has read the answer to the attempt before.
        while claim[8] > 1 and not self._closed and self._awaits_answer(claim):
            await asyncio.sleep(0)
        failure = ErrorContext(claim[2], claim[0], ending.error, claim[8], False)
        await self._tell_hooks(failure, claim, self._telling.get(claim[0]))

    def _awaits_answer(self, claim: Claim) -> bool:
        """Whether an earlier attempt of the task is unanswered."""
        return any(each.claim[0] == claim[0] and each.claim[1] < claim[1] for each in self._unanswered.values())

    def announce(self, ending: Ending, became: str) -> ErrorContext | None:
        """Count and log what became of an attempt; returns what the `on_error` hooks must hear, if anything."""
        claim, run_s, error = ending.claim, ending.run_s, ending.error
        if became == RELEASED:
            return None
        if became == UNKNOWN:
            self._log_unknown(claim)
            return None
        if became == SUSPEND:
            waits_for = (ending.details or {}).get("wait", "")
            fields = self.fields(claim, "waits")
            log.debug(f"task waits {ATTEMPT} wait=%r", *self.named(claim), waits_for, extra=fields)
            return None
        self.count(claim, run_s, ending.wait_s, became)
        duration_ms, delay_ms = int(run_s * 1000), (ending.details or {}).get("delay_ms", 0)
        if became == ABORTED:
            self._log(logging.WARNING, ending, "aborted", duration_ms=duration_ms)
        elif became in (SNOOZE, LIMITED):
            self._log(logging.INFO, ending, "snoozed" if became == SNOOZE else "rate limited", delay_ms=delay_ms)
        elif became == RETRY:
            level = logging.INFO if ending.asked else logging.WARNING
            self._log(level, ending, "retry scheduled", delay_ms=delay_ms, error=ending.text)
        else:
            text = ending.text
            if ending.outcome != FAILED and (max_age_ms := (ending.details or {}).get("max_age_ms")):
                why = "no worker knew it for" if ending.outcome == UNKNOWN else "older than its max_age of"
                text += f" ({why} {max_age_ms} ms)"
            self._log(logging.ERROR, ending, "failed", duration_ms=duration_ms, error=text)
        is_failure = became == FAILED or (became == RETRY and not ending.asked)
        if error is None or not is_failure or not ending.keeps_slot:
            return None  # those of a failure have run before
        return ErrorContext(claim[2], claim[0], error, claim[8], became == RETRY)

    async def _tell_hooks(self, failure: ErrorContext, claim: Claim, earlier: "asyncio.Task[None] | None") -> None:
        """Run the `on_error` hooks, after those of an earlier attempt; one that raises changes nothing."""
        if earlier is not None:
            await asyncio.wait([earlier])
        for hook in self._queue.registry.error_hooks:
            try:
                answer = hook(failure)
                if inspect.isawaitable(answer):
                    await answer
            except (Exception, asyncio.CancelledError):  # something it awaited was cancelled, not it
                if self._closed:
                    raise
                log.exception("on_error hook failed for task %r", failure.name, extra=self.fields(claim))

    def _log(self, level: int, ending: Ending, what: str, **values: object) -> None:
        """Log what became of an attempt, with what it raised. Handlers get the exception itself; its text is the same
        as in the task's record, bounded and printable.
        """
        if not log.isEnabledFor(level):
            return
        claim, error = ending.claim, ending.error
        shown = error if ending.is_traced and level > logging.INFO and what != "aborted" else None
        raised = None if shown is None else (type(shown), shown, shown.__traceback__ and shown.__traceback__.tb_next)
        texts = "".join(f" {name}=%{'s' if name == 'error' else 'd'}" for name in values)
        message = f"task {what} {ATTEMPT}{texts}"
        path, line, function, _ = log.findCaller(stacklevel=2)
        record = log.makeRecord(
            log.name, level, path, line, message, (*self.named(claim), *values.values()),
            raised, function, self.fields(claim, EVENT_NAMES[what]),
        )  # fmt: skip
        if shown is not None:
            record.exc_text = error_traceback(shown).rstrip() or None
        log.handle(record)

    def _log_unknown(self, claim: Claim) -> None:
        level = logging.DEBUG if claim[2] in self._unknown else logging.WARNING
        if len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.add(claim[2])
        message = f"task unknown {ATTEMPT}: this worker has no task of that name and leaves it for one that does"
        log.log(level, message, *self.named(claim), extra=self.fields(claim, "unknown"))

    def named(self, claim: Claim) -> tuple[str, str, str, int]:
        """The values for `ATTEMPT`."""
        return claim[0], claim[2], self._queue.settings.worker_id, claim[8]

    def fields(self, claim: Claim, event_name: str = "") -> dict[str, Any]:
        """The extra fields of a log record about an attempt; `event_name`: what it tells, for programs."""
        fields = claim_fields(claim, self._queue.name, self._queue.settings.worker_id)
        return fields | {"event_name": event_name} if event_name else fields

    def count(self, claim: Claim, run_s: float, wait_s: float | None, outcome: str) -> None:
        """Count an attempt; from any thread."""
        with self._metrics.lock:
            counters = self._metrics.of(claim[2], claim[7])
            if outcome == COMPLETE:
                counters.succeeded += 1
            elif outcome in (RETRY, SNOOZE, LIMITED):
                counters.retried += 1
            elif outcome == ABORTED:
                counters.aborted += 1
            else:
                counters.failed += 1
            counters.observe(run_s, wait_s)


def _without_waits(error: BaseException) -> tuple[BaseException | None, str]:
    """What an attempt raised beside what ends it because it waits, if anything, and the name of that wait."""
    waits = [each for each in leaves(error) if isinstance(each, Suspend)]
    if not waits:
        return error, ""
    return (error.split(Suspend)[1] if isinstance(error, BaseExceptionGroup) else None), waits[0].name


def _told(error: BaseException) -> RateLimited | None:
    return next((each for each in leaves(error) if isinstance(each, RateLimited)), None)


def _mistaken(entry: "Registered", error: BaseException) -> ValueError | None:
    """What is wrong with a `RateLimited` that names a limit, or the key of one, which its task does not have."""
    told = _told(error)
    if told is None or entry.task is None or entry.task.buckets is None:
        return None
    limits = entry.task.buckets.limits
    if not limits and told.limit is None:
        return None
    named = [limit for limit in limits if limit.name == (told.limit or limits[0].name)]
    if not named:
        has = ", ".join(repr(name) for name in dict.fromkeys(limit.name for limit in limits)) or "none"
        what = f"the limit {told.limit!r}, which the task does not have: it has {has}"
    elif told.key is not None and all(limit.key is None for limit in named):
        what = f"the key {told.key!r} of limit {named[0].name!r}, which has no keys"
    else:
        return None
    return ValueError(f"RateLimited of task {entry.task.name!r} names {what}").with_traceback(error.__traceback__)


def _used_up(entry: "Registered", error: BaseException) -> dict[str, Any]:
    """Which limit the task says is used up, and which key of it; nothing if none, or if the task has none."""
    told = _told(error)
    if told is None:
        return {}
    buckets = None if entry.task is None else entry.task.buckets
    name = told.limit or next((limit.name for limit in buckets.limits), None) if buckets else told.limit
    if name is None:
        return {}
    return {"limit": name} | ({} if told.key is None else {"key": told.key})


def waited(claim: Claim, run_s: float) -> float | None:
    """How long a task that has just run had been ready, in seconds; unknown for further attempts."""
    return time() - run_s - claim[9] / 1000 if claim[8] == 1 else None


def error_text(error: BaseException) -> str:
    """An exception as a bounded text."""
    if isinstance(error.__cause__, FromChild):
        return error.__cause__.text
    try:
        text = repr(error)
    except Exception:
        text = f"{type(error).__name__} (its repr failed)"
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def error_traceback(error: BaseException) -> str:
    """Its traceback as text, without the beginning if that is too long."""
    if isinstance(error.__cause__, FromChild):
        return error.__cause__.traceback
    try:
        text = traceback_text(error)
    except Exception:
        return ""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _LONGEST_TEXT else "…" + text[-_LONGEST_TEXT:]
