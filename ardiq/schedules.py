"""Recurring tasks: listing schedules with their next time and last outcome, and changing them at run time."""

from asyncio import CancelledError, current_task
from collections.abc import Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from ._server import calls
from ._server.replies import Ask, Call, R, at_once
from ._values import options as _options
from ._values.encodings import from_json, to_json
from ._values.objects import as_object
from ._values.timing import Timing
from .errors import ArdiqError, BadSignature, NoLimit
from .models import EnqueueContext

if TYPE_CHECKING:
    from ._client.queue import QueueContext
    from .job import Job

_PAGE = 500
# How long a schedule waits for the outcome of its task; the same as in `lua/lib/schedule.lua`.
_OUTCOME_WAIT_MS = 7 * 24 * 3_600_000
MISSED = ("skip", "once", "all")
"""What to do about occurrences that no worker fired within a minute: run none, one for all of them, or each."""


@as_object
class ScheduleOutcome(NamedTuple):
    """The outcome of a schedule's run.

    Attributes:
        id: of its task.
        state: "complete", "failed", "aborted", "expired" or "discarded".
        finished_at: in ms since the epoch.
        error: the beginning of its error; None if it is complete.
        tries: how many attempts were made.
    """

    id: str
    state: str
    finished_at: int
    error: str | None
    tries: int


@as_object
class Schedule(NamedTuple):
    """A schedule as the server stores it.

    Attributes:
        name: of the schedule; its tasks have ids `cron:<name>:<due time in ms>`.
        task: name of the task it enqueues.
        spec: its cron expression; None if it has a period.
        every_ms: its period, aligned to the epoch.
        tz: the IANA name of its zone; None for UTC.
        next_due_at: when it falls due next, in ms since the epoch; its task starts up to `jitter_ms` later.
        last_due_at: when it last fell due, or None.
        last_id: id of the task it enqueued last, or None.
        paused: whether its occurrences are skipped.
        coalesce: whether an occurrence is skipped while the previous one still waits to run.
        missed: what happens to occurrences that no worker fired within a minute: "skip", "once" or "all".
        source: "code" for `@app.cron`, "runtime" for `app.schedules.put`.
        jitter_ms: how much later, at most, its tasks start than they fall due.
        last_outcome: the outcome of the run that ended last, including those of `run_now`, or None.
    """

    name: str
    task: str
    spec: str | None
    every_ms: int | None
    tz: str | None
    next_due_at: int
    last_due_at: int | None
    last_id: str | None
    paused: bool
    coalesce: bool
    missed: str
    source: str
    jitter_ms: int
    last_outcome: ScheduleOutcome | None


class Schedules:
    """The recurring tasks of a queue: `app.schedules`."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue

    def list_sync(self) -> list[Schedule]:
        """`list` for code without an event loop; blocks this thread until the server has answered."""
        return at_once(self._queue.server.core, _listed)

    async def list(self) -> list[Schedule]:
        """All schedules, the next one due first.

        They are read in batches of about 500. A schedule that exists the whole time is in the list exactly once; one
        that is put or removed meanwhile may be missing.
        """
        return await _listed(self._ask)

    async def get(self, name: str) -> Schedule | None:
        """The schedule of that name; None if there is none."""
        row = await self._ask(calls.schedule(name=name))
        return None if row is None else read_schedule(row)

    async def put(
        self,
        name: str,
        task: str,
        spec: str | None = None,
        *,
        every: _options.Duration | None = None,
        tz: str | tzinfo | None = None,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: str | None = None,
        coalesce: bool = False,
        missed: str = "skip",
        jitter: _options.Duration = 0,
    ) -> None:
        """Create a schedule, or change the one with that name. Workers notice within ten seconds.

        Args:
            name: of the schedule.
            task: name of the task to enqueue.
            spec: cron expression of five fields, of six with seconds first, or a nickname such as "@daily".
            every: a period instead, a timedelta or seconds, at least 1 ms.
            tz: time zone of `spec`; None for UTC.
            args: positional arguments for the task: values that JSON can carry, or that the task's annotations restore
                if this app has the task.
            kwargs: keyword arguments, likewise.
            priority: its lane.
            coalesce: skip an occurrence while the previous one still waits to run.
            missed: what to do about occurrences that no worker fired within a minute: "skip" them, run "once" for all
                of them, or run "all", the oldest hundred at most.
            jitter: start each occurrence up to this much after its time, a timedelta or seconds.

        Raises:
            ValueError: an invalid timing or jitter, or an unknown zone, lane or policy.
            TypeError: an argument that JSON cannot carry, or that does not fit a task of this app.

        Example:
            ```python
            await app.schedules.put("report-7", "report", "0 6 * * mon", tz="Europe/Berlin", args=[7])
            ```
        """
        signature = self._queue.registry.signature_of(task)
        by_position, by_name = self._queue.codec.encode_readable(task, signature, list(args), kwargs or {})
        call = {"args": by_position.decode()} | ({"kwargs": by_name.decode()} if by_name else {})
        timing = Timing(spec, every, tz)
        definition = define(self._queue, task, timing, priority, coalesce, missed, jitter, "runtime") | call
        definition |= kept_as_task(self._queue, task, args, kwargs)
        now = (await self.due(0, 1)).now
        text = to_json(self._signed(definition))
        await self._ask_limited(calls.schedule_put(name=name, definition=text, next_due_at=timing.after(now)))

    async def pause(self, name: str) -> bool:
        """Skip its occurrences until `resume`; False if there is no such schedule."""
        return await self._ask(calls.schedule_pause(name=name, paused=1)) == "ok"

    async def resume(self, name: str) -> bool:
        """End its pause; False if there is no such schedule."""
        return await self._ask(calls.schedule_pause(name=name, paused=0)) == "ok"

    async def remove(self, name: str) -> bool:
        """Remove it; False if there is no such schedule. One declared in code returns with the next worker."""
        return await self._ask(calls.schedule_remove(name=name)) == "removed"

    async def run_now(self, name: str) -> "Job | None":
        """Enqueue its task now, in addition to its times; None if there is no such schedule.

        Its outcome becomes the schedule's `last_outcome`; `last_id` and `last_due_at` do not change.

        Raises:
            ArdiqError: its definition was edited by hand and is invalid.
            BadSignature: the app has a `signing_key`, and the schedule was not put with it.
        """
        row = await self._ask(calls.schedule(name=name))
        if row is None:
            return None
        more: dict[str, Any] = {"waiter": f"schedule:{name}", "waiter_ttl_ms": _OUTCOME_WAIT_MS}
        task_name, args, kwargs = self._call_of(name, row.definition)
        try:
            task = self._queue.app.ref(task_name, priority=row.definition["lane"])
        except (KeyError, ValueError, TypeError):
            raise _senseless(name) from None
        if self._queue.signer is None and (headers := row.definition.get("headers")):  # its signature
            more["headers"] = headers
        return await self._queue.producer.enqueue_later(task, args, kwargs, task.call_options, more)

    async def due(self, offset: int, limit: int) -> calls.SchedulesDueReply:
        """The server's time, when the next schedule falls due (-1: never), and up to `limit` schedules that are due,
        from `offset` on.
        """
        return await self._ask(calls.schedules_due(offset=offset, limit=limit))

    async def declare(self, definitions: dict[str, dict[str, Any]], is_start: bool) -> calls.ScheduleDeclareReply:
        """Declare what recurs by this code; the reply has the names of the schedules that were removed."""
        definitions = {name: self._signed(definition) for name, definition in definitions.items()}
        now = (await self.due(0, 1)).now
        declared = [
            calls.Declared(name, to_json(definitions[name]), Timing.of(definitions[name]).after(now))
            for name in sorted(definitions)
        ]
        version = "none"
        if definitions:
            import hashlib  # OpenSSL: not for a worker without schedules

            version = hashlib.sha256(to_json(sorted(definitions.items()))).hexdigest()[:16]
        return await self._ask_limited(calls.schedule_declare(version=version, starting=is_start, schedules=declared))

    async def fire(
        self, name: str, due_at: int, following_at: int, next_due_at: int, definition: dict[str, Any]
    ) -> calls.ScheduleFireReply:
        """Ask for one occurrence; the reply says whether it was enqueued, and when the schedule falls due next.

        Args:
            following_at: when the occurrence after it falls due, in milliseconds since the epoch.
            next_due_at: when the first one in the future does, likewise.

        Raises:
            ArdiqError: an `on_enqueue` hook raised, its cause.
        """
        headers = ""
        if self._queue.registry.enqueue_hooks and not definition.get("paused"):
            headers = await self._headers(name, due_at, definition)
        return await self._ask_limited(
            calls.schedule_fire(
                name=name, due_at=due_at, following_at=following_at, next_due_at=next_due_at, headers=headers
            )
        )

    async def _headers(self, name: str, due_at: int, definition: dict[str, Any]) -> str:
        """The headers that the `on_enqueue` hooks set for an occurrence, in case this worker fires it."""
        call = EnqueueContext(f"cron:{name}:{due_at}", *self._call_of(name, definition), {})
        try:
            headers = await self._queue.producer.telling.headers_by_hooks(call)
        except (Exception, CancelledError) as error:
            task = current_task()
            if isinstance(error, CancelledError) and task is not None and task.cancelling():
                raise
            raise ArdiqError(f"an on_enqueue hook raised {error!r}") from error
        if headers and self._queue.signer is not None:
            return self._sign(definition, from_json(headers.encode()))
        # The headers of a schedule are its signature, which more headers would break.
        return "" if "headers" in definition else headers

    def _signed(self, definition: dict[str, Any]) -> dict[str, Any]:
        """The definition with a signature, if the app signs its calls."""
        return definition if self._queue.signer is None else definition | {"headers": self._sign(definition, {})}

    def _sign(self, definition: dict[str, Any], headers: dict[str, Any]) -> str:
        assert self._queue.signer is not None
        args, kwargs = (definition.get(field, "").encode() for field in ("args", "kwargs"))
        return self._queue.signer.sign(self._queue.name, definition["task"], args, kwargs, "", headers)

    def _call_of(self, name: str, definition: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Task and arguments of a schedule.

        Raises:
            ArdiqError: they are invalid.
            BadSignature: the schedule was not put with the key.
        """
        try:
            self._check(name, definition)
            args, kwargs = definition.get("args") or b"[]", definition.get("kwargs") or b"{}"
            return definition["task"], tuple(from_json(args)), dict(from_json(kwargs))
        except (KeyError, ValueError, TypeError, AttributeError):
            raise _senseless(name) from None

    def _check(self, name: str, definition: dict[str, Any]) -> None:
        """Refuse a schedule that was not put with the key: its tasks would be signed with it."""
        if self._queue.signer is None:
            return
        args, kwargs, headers = (definition.get(field, "").encode() for field in ("args", "kwargs", "headers"))
        try:
            self._queue.signer.check(self._queue.name, definition["task"], args, kwargs, "", headers)
        except BadSignature as error:
            raise BadSignature(f"schedule {name!r}: {error}; put it again") from None

    async def _ask(self, call: Call[R]) -> R:
        return await self._queue.channel().ask(call)

    async def _ask_limited(self, call: Call[R]) -> R:
        """`_ask`, again if the server has to be told the limits of the task first."""
        try:
            return await self._ask(call)
        except NoLimit:
            await self._ask(self._queue.producer.declaration())
        return await self._ask(call)


async def _listed(ask: Ask) -> list[Schedule]:
    rows, cursor = dict[str, Schedule](), "0"
    while True:
        page = await ask(calls.schedules(cursor=cursor, limit=_PAGE))
        rows |= {row.name: read_schedule(row) for row in page.rows}
        cursor = page.cursor
        if cursor == "0":
            return sorted(rows.values(), key=lambda schedule: (schedule.next_due_at, schedule.name))


def define(
    queue: "QueueContext",
    task: str,
    timing: Timing,
    priority: str | None,
    coalesce: bool,
    missed: str,
    jitter: _options.Duration,
    source: str,
) -> dict[str, Any]:
    """A definition as the server stores it."""
    if missed not in MISSED:
        raise ValueError(f"missed must be one of {', '.join(MISSED)}, not {missed!r}")
    lane = queue.producer.check_lane(priority or None)
    definition = {"task": task, "lane": lane, "source": source, "missed": missed, **timing.describe()}
    jitter_ms = _options.milliseconds("jitter", jitter)
    return definition | ({"coalesce": True} if coalesce else {}) | ({"jitter_ms": jitter_ms} if jitter_ms else {})


def kept_as_task(
    queue: "QueueContext", name: str, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The part of a definition that the task says: how long results are kept, and the limits of its call."""
    ttl_ms, buckets = queue.registry.result_ttl_ms_of(name), queue.registry.buckets_of(name)
    kept: dict[str, Any] = {} if ttl_ms is None else {"result_ttl_ms": ttl_ms}
    return kept if buckets is None else kept | {"limits": buckets.of(args, kwargs or {})}


def _senseless(name: str) -> ArdiqError:
    return ArdiqError(f"schedule {name!r} is invalid: put it again, or remove it")


def read_schedule(row: calls.ScheduleRow) -> Schedule:
    """A schedule from its row; a definition that somebody edited by hand is shown as far as it can be read."""
    definition = row.definition
    outcome = definition.get("last_outcome")
    return Schedule(
        row.name,
        definition.get("task", ""),
        definition.get("spec"),
        definition.get("every_ms"),
        definition.get("tz"),
        row.due_at,
        definition.get("last_due_at"),
        definition.get("last_id"),
        bool(definition.get("paused")),
        bool(definition.get("coalesce")),
        definition.get("missed", "skip"),
        definition.get("source", "runtime"),
        definition.get("jitter_ms", 0),
        ScheduleOutcome._make(map(outcome.get, ScheduleOutcome._fields)) if isinstance(outcome, dict) else None,
    )
