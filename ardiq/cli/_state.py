"""What commands read of a queue: bounded, and without keeping the server from its work."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._server import calls, commands
from .._server.replies import ask
from ..pauses import Pause, read_pauses
from ..schedules import Schedule, read_schedule

if TYPE_CHECKING:
    from .. import _core
    from ..app import Ardiq

MINUTES = 5
COUNTS = ("queued", "scheduled", "running", "held", "quarantined", "dead")
_PAGE = 500
_WORKERS_PAGE = 100  # each costs the server two commands
_COUNTERS = ("enqueued", "completed", "failed", "retried", "aborted", "expired", "discarded", "lost")
# In the order in which a task's field of `task_stats:<minute>` has them.
_FIGURES = ("completed", "failed", "retried", "aborted", "run_ms", "waits", "wait_ms")


class State:
    """The state of one app's queue, as plain data."""

    def __init__(self, app: "Ardiq") -> None:
        self.core: _core.Core = app.context.server.core

    def counts(self) -> dict[str, int]:
        """Numbers of tasks: `scheduled`, `queued`, `running`, `quarantined`, `dead`, `ready:<lane>` …"""
        return ask(self.core, calls.counts())

    def lanes(
        self, counts: dict[str, int], workers: list[dict[str, Any]], first: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Each lane, those of the app first: `name`, how many are `waiting`, for how long the next has (`oldest_ms`),
        and how many workers serve it (`workers_alive`).

        `held` by workers, `scheduled` and `next_scheduled` (a moment) are those of the queue where it has one lane,
        else None: there they are not counted by lane.
        """
        waiting = {name.partition(":")[2]: count for name, count in counts.items() if name.startswith("ready:")}
        served = [lane for worker in workers if worker["lease_left_ms"] > 0 for lane in worker["lanes"]]
        ages = self.ages_ms()
        names = list(dict.fromkeys([*first, *sorted({*waiting, *served})]))
        of_queue: dict[str, int | None] = dict.fromkeys(("held", "scheduled", "next_scheduled"))
        if len(names) == 1:
            held = sum(worker["held"] for worker in workers)
            of_queue = {"held": held, "scheduled": counts["scheduled"], "next_scheduled": self._next_due_at()}
        return [
            {
                "name": name,
                "waiting": waiting.get(name, 0),
                "oldest_ms": ages.get(name),
                "workers_alive": served.count(name),
                **of_queue,
            }
            for name in names
        ]

    def ages_ms(self) -> dict[str, int]:
        """For how long the next task of each lane has been ready, since it was enqueued or fell due."""
        ages = ask(self.core, calls.oldest_ready())
        return {age.lane: max(0, ages.now - age.since) for age in ages.rows}

    def next_due_in_ms(self) -> int | None:
        """How long until the next scheduled task falls due; negative when it is overdue, None when there is none."""
        due_at = self._next_due_at()
        return None if due_at is None else due_at - self.now_ms()

    def _next_due_at(self) -> int | None:
        first = ask(self.core, calls.list_(place="scheduled", which="", offset=0, limit=1))
        return first[0].number if first else None

    def workers(self) -> list[dict[str, Any]]:
        """Its workers.

        Returns:
            `id`, `label`, `host`, `pid`, `version`, `started_at`, `concurrency` (slots of its process), `share` (those
            of them that this queue is guaranteed: all, unless it serves other queues beside it), `lanes`, `held` tasks,
            `abandoned_threads` (which run on after their task was settled, and take its slot), `stalled_ms` (for how
            long its event loop has not turned, 0 while it does) and `lease_left_ms` each.
        """
        pages = list(self._worker_pages(_WORKERS_PAGE))
        rows = {row.worker: _worker(row, page.now) for page in pages for row in page.rows}
        return sorted(rows.values(), key=lambda worker: (worker["lease_left_ms"], worker["id"]))

    def workers_alive(self) -> int:
        """How many workers' leases have not run out."""
        return ask(self.core, calls.workers(cursor="0", limit=1)).alive

    def _worker_pages(self, limit: int) -> Iterator[calls.WorkersReply]:
        cursor = "0"
        while True:
            page = ask(self.core, calls.workers(cursor=cursor, limit=limit))
            yield page
            cursor = page.cursor
            if cursor == "0":
                return

    def unknown_tasks(self) -> list[dict[str, Any]]:
        """Tasks that of late were given to a worker that has none of that name, the last one first: `name`, and how
        long ago that was (`seen_ms`)."""
        found = ask(self.core, calls.list_(place="unknown_tasks", which="", offset=0, limit=_PAGE))
        now_ms = self.now_ms()
        return [{"name": entry.id, "seen_ms": max(0, now_ms - entry.number)} for entry in reversed(found)]

    def pauses(self) -> list[Pause]:
        """What is paused, the oldest first."""
        return read_pauses(ask(self.core, calls.pauses()))

    def running(self, workers: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        """What runs, the longest first: `id`, `name`, `lane`, `worker`, `try`, `run_ms`, `progress`.

        Of what a worker holds, as many as it has slots, the oldest claims: the others wait in it. `run_ms` counts from
        the claim.
        """
        found: list[dict[str, Any]] = []
        for worker in workers:
            if worker["held"]:
                slots = min(worker["concurrency"] or most, most, _PAGE)
                claims = ask(self.core, calls.claims(worker=worker["id"], offset=0, limit=slots))
                found += [_held(row, worker, claims.now) for row in claims.rows]
        return sorted(found, key=lambda task: -task["run_ms"])[:most]

    def schedules(self) -> list[dict[str, Any]]:
        """What recurs, the next to fall due first: what `Schedule` has, and `due_in_ms`."""
        found, cursor, now_ms = dict[str, dict[str, Any]](), "0", self.now_ms()
        while True:
            page = ask(self.core, calls.schedules(cursor=cursor, limit=_PAGE))
            for row in page.rows:
                found[row.name] = described(read_schedule(row)) | {"due_in_ms": row.due_at - now_ms}
            cursor = page.cursor
            if cursor == "0":
                return sorted(found.values(), key=lambda schedule: (schedule["due_in_ms"], schedule["name"]))

    def minutes(self) -> list[dict[str, Any]]:
        """What was counted in each of the last five minutes, the newest first; `at` is when it began, in ms."""
        stats = ask(self.core, calls.stats(minutes_ago=0, minutes=MINUTES))
        this_minute = stats.now // 60_000
        return [
            {"at": (this_minute - row.minutes_ago) * 60_000, **{name: getattr(row, name) for name in _COUNTERS}}
            for row in stats.rows
        ]

    def task_stats(self) -> list[dict[str, Any]]:
        """How often each task ran in the last five minutes: `name`, `runs`, by outcome, `run_ms` in all.

        `waits` of the runs were first attempts, and had waited `wait_ms` in all.
        """
        totals: dict[str, dict[str, int]] = {}
        for row in ask(self.core, calls.task_stats(minutes_ago=0, minutes=MINUTES)).rows:
            totals_of = totals.setdefault(row.name, dict.fromkeys(_FIGURES, 0))
            for figure, count in zip(_FIGURES, row.figures, strict=False):
                totals_of[figure] += count
        return [
            {"name": name, "runs": sum(figures[outcome] for outcome in _FIGURES[:4]), **figures}
            for name, figures in totals.items()
        ]

    def now_ms(self) -> int:
        """The server's clock."""
        return commands.now_ms(self.core)


def described(schedule: Schedule) -> dict[str, Any]:
    """A schedule as plain data."""
    outcome = schedule.last_outcome
    return schedule._asdict() | {"last_outcome": None if outcome is None else outcome._asdict()}


def last_minutes(minutes: list[dict[str, Any]]) -> dict[str, int]:
    """What `State.minutes` counted, in all."""
    return {name: sum(minute[name] for minute in minutes) for name in _COUNTERS}


def number(value: Any, otherwise: int = 0) -> int:
    """A number of a reply, or something else where it is none: records can be written by hand."""
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return otherwise


def done(progress: dict[str, Any]) -> str:
    """How far a task is, as it told."""
    fraction = progress.get("fraction")
    told = fraction if isinstance(fraction, int | float) else 0
    return f"{told:.0%} {progress.get('message', '')}".strip()


def _worker(row: calls.WorkerRow, now_ms: int) -> dict[str, Any]:
    slots = number(row.info.get("concurrency")) or None
    return {
        "id": row.worker,
        **{key: row.info.get(key) for key in ("label", "host", "pid")},
        "version": row.info.get("ardiq"),
        "started_at": row.joined_at or None,
        "concurrency": slots,
        "share": number(row.info.get("share")) or slots,
        "lanes": row.lanes,
        "held": row.claimed,
        "abandoned_threads": row.abandoned_threads,
        "stalled_ms": max(0, now_ms - row.stalled_since) if row.stalled_since else 0,
        "lease_left_ms": max(0, row.lease_until - now_ms),
    }


def _held(row: calls.ClaimedTask, worker: dict[str, Any], now_ms: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "lane": row.lane,
        "worker": worker["id"],
        "try": row.tries,
        "run_ms": max(0, now_ms - (row.started_at or now_ms)),
        "progress": row.progress or None,
    }
