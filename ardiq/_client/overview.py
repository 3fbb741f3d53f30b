"""Inspecting a queue: its lanes, workers, running tasks and counters."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .._server import calls
from .._server.replies import Ask, Call, R, at_once, number
from .._values import options as _options
from .._values.encodings import to_json
from ..inspection import (
    Found,
    FoundTask,
    LaneInfo,
    MinuteCounts,
    QueueCounts,
    QueueOverview,
    RunningTask,
    TaskPosition,
    TaskTotals,
    UnknownTask,
    WorkerInfo,
)
from ..watching import progress_of
from .rules import Argument, rule_of

if TYPE_CHECKING:
    from .queue import QueueContext

_Which: TypeAlias = tuple[str, str, str | None, str | None, Argument | None]
_PAGE = 500
_MINUTES = 5
_FIGURES = TaskTotals._fields[2:]  # as a task's field of `task_stats:<minute>` has them
_NO_RECORD = -2


class Inspect:
    """The lanes, workers, running tasks and counters of a queue: `app.inspect`.

    Each method has a `_sync` twin for code without an event loop, which blocks its thread until the server has
    answered. None of them changes anything or blocks the server for long: whatever can grow is read in batches. Times
    and durations are by the server's clock. Each raises a `BrokerError` if the server cannot be reached, `WrongType` if
    something else wrote a key of the queue; most raise `Forbidden` if the server's user is not an operator.
    """

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue

    async def overview(self, minutes: int = _MINUTES) -> QueueOverview:
        """The queue at one moment: one call, which costs the same however many tasks and workers there are.

        Args:
            minutes: of how many of the last minutes to tell what was counted, this one included: from 0 to 120.

        Raises:
            BadArgument: `minutes` is out of that range.
        """
        return await _overview(self._ask, minutes)

    def overview_sync(self, minutes: int = _MINUTES) -> QueueOverview:
        """`overview`, blocking."""
        return self._blocking(lambda ask: _overview(ask, minutes))

    async def counts(self) -> QueueCounts:
        """How many tasks are in each place; it costs the same however many there are."""
        return await _counts(self._ask)

    def counts_sync(self) -> QueueCounts:
        """`counts`, blocking."""
        return self._blocking(_counts)

    async def lanes(
        self, workers: Sequence[WorkerInfo] | None = None, overview: QueueOverview | None = None
    ) -> list[LaneInfo]:
        """The lanes: those of the app, the highest first, then others that have tasks or workers, by name.

        Args:
            workers: what `workers` has just returned; None: ask for it.
            overview: what `overview` has just returned; None: ask for it.
        """
        return await self._lanes(self._ask, workers, overview)

    def lanes_sync(
        self, workers: Sequence[WorkerInfo] | None = None, overview: QueueOverview | None = None
    ) -> list[LaneInfo]:
        """`lanes`, blocking."""
        return self._blocking(lambda ask: self._lanes(ask, workers, overview))

    async def workers(self) -> list[WorkerInfo]:
        """Its workers, in the order in which their leases expire, expired ones first. It takes one call per hundred."""
        return await _workers(self._ask)

    def workers_sync(self) -> list[WorkerInfo]:
        """`workers`, blocking."""
        return self._blocking(_workers)

    async def workers_alive(self) -> int:
        """How many workers have a lease that has not expired; one call, however many there are."""
        return await _workers_alive(self._ask)

    def workers_alive_sync(self) -> int:
        """`workers_alive`, blocking."""
        return self._blocking(_workers_alive)

    async def running(self, limit: int = 100, workers: Sequence[WorkerInfo] | None = None) -> list[RunningTask]:
        """The running tasks, the longest first. It takes one call per hundred workers that have tasks, or per thousand
        tasks that these have taken.

        Of the tasks that a worker has taken, the oldest count as running, as many as it has slots; the others still
        wait in it.

        Args:
            limit: the largest number to return; of one worker, 500 at most.
            workers: whose tasks, as `workers` returned them; None: all.

        Raises:
            ValueError: `limit` is negative.
        """
        return await _running(self._ask, limit, workers)

    def running_sync(self, limit: int = 100, workers: Sequence[WorkerInfo] | None = None) -> list[RunningTask]:
        """`running`, blocking."""
        return self._blocking(lambda ask: _running(ask, limit, workers))

    async def unknown_tasks(self) -> list[UnknownTask]:
        """Names of tasks that were recently given to a worker that does not know them, the latest first, at most a
        hundred.
        """
        return await _unknown_tasks(self._ask)

    def unknown_tasks_sync(self) -> list[UnknownTask]:
        """`unknown_tasks`, blocking."""
        return self._blocking(_unknown_tasks)

    async def minutes(self, minutes: int = _MINUTES) -> list[MinuteCounts]:
        """What was counted in each of the last minutes, the newest first.

        Args:
            minutes: how many, this one included: from 1 to 120.

        Raises:
            BadArgument: `minutes` is out of that range.
        """
        return await _minutes(self._ask, minutes)

    def minutes_sync(self, minutes: int = _MINUTES) -> list[MinuteCounts]:
        """`minutes`, blocking."""
        return self._blocking(lambda ask: _minutes(ask, minutes))

    async def task_totals(self, minutes: int = _MINUTES) -> list[TaskTotals]:
        """For each task name, how often tasks ran in the last minutes, by outcome, and for how long.

        Args:
            minutes: how many, this one included: from 1 to 120.

        Raises:
            BadArgument: `minutes` is out of that range.
        """
        return await _task_totals(self._ask, minutes)

    def task_totals_sync(self, minutes: int = _MINUTES) -> list[TaskTotals]:
        """`task_totals`, blocking."""
        return self._blocking(lambda ask: _task_totals(ask, minutes))

    async def next_due_at(self) -> int | None:
        """When the next scheduled task falls due, in ms since the epoch; in the past if it is overdue; None if there is
        none.
        """
        return await _next_due_at(self._ask)

    def next_due_at_sync(self) -> int | None:
        """`next_due_at`, blocking."""
        return self._blocking(_next_due_at)

    async def position(self, task_id: str) -> TaskPosition | None:
        """Where a task is, and how many are ahead of it; None if there is no such task."""
        return await _position(self._ask, task_id)

    def position_sync(self, task_id: str) -> TaskPosition | None:
        """`position`, blocking."""
        return self._blocking(lambda ask: _position(ask, task_id))

    async def find(
        self,
        place: str,
        of: str = "",
        *,
        task: str | None = None,
        text: str | None = None,
        argument: Argument | None = None,
        limit: int = 100,
        look_at: int = 10_000,
        offset: int = 0,
    ) -> Found:
        """The tasks in a place that match all that is given; there is no index, so it looks at one after the other, up
        to two hundred a call. What starts or ends meanwhile may be missed.

        Args:
            place: "queued", "limited", "scheduled", "held", "running", "dead" or "quarantined".
            of: the lane of "queued", the pause of "held", the worker of "running", lane and line of "limited" as
                `default:customer(42)`.
            task: their name.
            text: a part of their id, name, error or arguments, in upper or lower case.
            argument: an argument's name or position, and its value, such as `{"customer_id": 42}`.
            limit: enough of them: no more calls are made; the last one may add up to two hundred.
            look_at: the largest number of tasks to look at.
            offset: where to begin: 0, then what the last search returned as `next_offset`.

        Raises:
            ValueError: a number is negative, or the argument is one that `Ardiq.pause` would refuse.
            BadArgument: there is no such place.

        Example:
            ```python
            found = await app.inspect.find("scheduled", argument={"customer_id": 42})
            print(len(found.tasks), "of", found.looked_at, "that were looked at, of", found.size)
            ```
        """
        return await self._find(self._ask, (place, of, task, text, argument), limit, look_at, offset)

    def find_sync(
        self,
        place: str,
        of: str = "",
        *,
        task: str | None = None,
        text: str | None = None,
        argument: Argument | None = None,
        limit: int = 100,
        look_at: int = 10_000,
        offset: int = 0,
    ) -> Found:
        """`find`, blocking."""
        which = (place, of, task, text, argument)
        return self._blocking(lambda ask: self._find(ask, which, limit, look_at, offset))

    async def _find(self, ask: Ask, which: _Which, limit: int, look_at: int, offset: int) -> Found:
        place, of, task, text, argument = which
        for option, count in (("limit", limit), ("look_at", look_at), ("offset", offset)):
            _options.integer(option, count, least=0)
        (name, key, value), positions = rule_of(self._queue, task or "", argument, lenient=True)
        at_once = calls.FIND_LIMIT_MOST if task or text or argument else min(calls.FIND_LIMIT_MOST, limit)
        found, next_offset = Found([], 0, 0, offset), offset
        while len(found.tasks) < limit and found.looked_at < look_at:
            page = await ask(
                calls.find(
                    place=place,
                    which=of,
                    offset=next_offset,
                    limit=min(at_once, look_at - found.looked_at),
                    task=name,
                    text=text or "",
                    argument=key,
                    value=value,
                    positions=to_json(positions),
                )
            )
            tasks = [*found.tasks, *map(_found, page.rows)]
            found = Found(tasks, found.looked_at + page.looked, page.size, page.next_offset or None)
            next_offset = page.next_offset
            if not next_offset:
                break
        return found

    async def _ask(self, call: Call[R]) -> R:
        return await self._queue.channel().ask(call)

    def _blocking(self, work: Callable[[Ask], Coroutine[Any, Any, R]]) -> R:
        return at_once(self._queue.server.core, work)

    async def _lanes(
        self, ask: Ask, workers: Sequence[WorkerInfo] | None, overview: QueueOverview | None
    ) -> list[LaneInfo]:
        workers = await _workers(ask) if workers is None else workers
        overview = await _overview(ask, 0) if overview is None else overview
        return _lanes_of(overview, self._queue.settings.priorities[::-1], workers)


async def _overview(ask: Ask, minutes: int) -> QueueOverview:
    reply = await ask(calls.overview(minutes=minutes))
    found = {row.name: row.number for row in reply.rows}
    minute = reply.now // 60_000
    return QueueOverview(
        reply.now,
        _counts_in(found),
        found["overdue"],
        reply.next_due_at or None,
        found["workers"],
        reply.lost,
        {lane: max(0, reply.now - since) for lane, since in _under("since:", found).items()},
        _under("held:", found),
        _under("total:", found),
        [_minute((minute - ago) * 60_000, _under(f"minute:{ago}:", found)) for ago in range(minutes)],
    )


def _under(prefix: str, found: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(prefix): number for name, number in found.items() if name.startswith(prefix)}


def _minute(at: int, counted: Mapping[str, int]) -> MinuteCounts:
    return MinuteCounts(at, *(counted.get(name, 0) for name in MinuteCounts._fields[1:]))


async def _counts(ask: Ask) -> QueueCounts:
    return _counts_in(await ask(calls.counts()))


def _counts_in(found: Mapping[str, int]) -> QueueCounts:
    places = ("queued", "scheduled", "running", "held", "quarantined", "dead")
    ready, lines = _under("ready:", found), _under("limited:", found)
    return QueueCounts._make((*(found[name] for name in places), ready, found["limited"], lines))


def _lanes_of(overview: QueueOverview, first: Sequence[str], workers: Sequence[WorkerInfo]) -> list[LaneInfo]:
    counts = overview.counts
    served = [lane for worker in workers if worker.is_alive for lane in worker.lanes]
    names = list(dict.fromkeys([*first, *sorted({*counts.ready, *counts.lines, *served})]))
    of_queue: tuple[int | None, int | None, int | None] = (None, None, None)
    if len(names) == 1:
        of_queue = (sum(worker.claimed for worker in workers), counts.scheduled, overview.next_due_at)
    return [
        LaneInfo(
            name,
            counts.ready.get(name, 0),
            overview.oldest_ms.get(name),
            served.count(name),
            *of_queue,
            counts.lines.get(name, 0),
        )
        for name in names
    ]


async def _workers(ask: Ask) -> list[WorkerInfo]:
    found, cursor = dict[str, WorkerInfo](), "0"
    while True:
        page = await ask(calls.workers(cursor=cursor, limit=calls.WORKERS_LIMIT_MOST))
        found |= {row.worker: worker_of(row, page.now) for row in page.rows}
        cursor = page.cursor
        if cursor == "0":
            return sorted(found.values(), key=lambda worker: (worker.lease_left_ms, worker.worker))


def worker_of(row: calls.WorkerRow, now_ms: int) -> WorkerInfo:
    info = row.info
    slots = _number(info.get("concurrency"))
    return WorkerInfo(
        row.worker,
        _text(info.get("label")),
        _text(info.get("host")),
        _number(info.get("pid")),
        _text(info.get("ardiq")),
        row.joined_at or None,
        slots,
        _number(info.get("share")) or slots,
        row.lanes,
        row.claimed,
        row.abandoned_threads,
        max(0, now_ms - row.stalled_since) if row.stalled_since else 0,
        max(0, row.lease_until - now_ms),
    )


async def _workers_alive(ask: Ask) -> int:
    return (await ask(calls.workers(cursor="0", limit=1))).alive


async def _running(ask: Ask, limit: int, workers: Sequence[WorkerInfo] | None) -> list[RunningTask]:
    _options.integer("limit", limit, least=0)
    if limit == 0:
        return []
    found: list[RunningTask] = []
    left = [
        calls.WorkerSlots(worker.worker, min(worker.concurrency or limit, limit))
        for worker in (await _workers(ask) if workers is None else workers)
        if worker.claimed
    ]
    most = calls.LONGEST_RUNNING_LIMIT_MOST
    at_once = calls.LONGEST_RUNNING_MOST if limit <= most else 1  # of one worker that is all it gives
    while left:
        page = await ask(calls.longest_running(limit=min(limit, most), workers=left[:at_once]))
        found += [_task(row, page.now) for row in page.rows]
        left = left[page.looked :]
    return sorted(found, key=lambda task: -task.run_ms)[:limit]


def _task(row: calls.LongestRunning, now_ms: int) -> RunningTask:
    run_ms = max(0, now_ms - (row.started_at or now_ms))
    progress = progress_of(row.progress) if row.progress else None
    return RunningTask(row.id, row.name, row.lane, row.worker, row.tries, run_ms, progress)


def _found(row: calls.FoundRow) -> FoundTask:
    is_json = row.codec in ("", "json")
    args, kwargs = (value.decode(errors="replace") if is_json else "" for value in (row.args, row.kwargs))
    return FoundTask(row.id, row.name, row.state, row.lane, row.tries, row.number, args, kwargs, row.error)


async def _unknown_tasks(ask: Ask) -> list[UnknownTask]:
    found = await ask(calls.list_(place="unknown_tasks", which="", offset=0, limit=_PAGE))
    return [UnknownTask(entry.id, entry.number) for entry in reversed(found)]


async def _minutes(ask: Ask, minutes: int) -> list[MinuteCounts]:
    stats = await ask(calls.stats(minutes_ago=0, minutes=minutes))
    this_minute = stats.now // 60_000
    return [_minute((this_minute - row.minutes_ago) * 60_000, row._asdict()) for row in stats.rows]


async def _task_totals(ask: Ask, minutes: int) -> list[TaskTotals]:
    totals: dict[str, list[int]] = {}
    for row in (await ask(calls.task_stats(minutes_ago=0, minutes=minutes))).rows:
        figures = totals.setdefault(row.name, [0] * len(_FIGURES))
        for at, figure in enumerate(row.figures[: len(_FIGURES)]):
            figures[at] += figure
    return [TaskTotals(name, sum(figures[:4]), *figures) for name, figures in totals.items()]


async def _next_due_at(ask: Ask) -> int | None:
    first = await ask(calls.list_(place="scheduled", which="", offset=0, limit=1))
    return first[0].number if first else None


async def _position(ask: Ask, task_id: str) -> TaskPosition | None:
    found = await ask(calls.position(id=task_id, limit=calls.POSITION_LIMIT_MOST))
    if found.kept_ms == _NO_RECORD:
        return None
    return TaskPosition(
        found.place or None,
        found.which or None,
        found.position if found.position >= 0 else None,
        found.length,
        found.kept_ms if found.kept_ms >= 0 else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return number(str(value)) or None
