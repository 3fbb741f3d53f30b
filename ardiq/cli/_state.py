"""What commands read of a queue: bounded, and without keeping the server from its work."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..pauses import Pause, read_pauses
from ..schedules import Schedule, read_schedule

if TYPE_CHECKING:
    from .. import _core
    from ..app import Ardiq

MINUTES = 5
COUNTS = ("queued", "scheduled", "running", "held", "suspects", "dead")
_PAGE = 500
_COUNTERS = ("enqueued", "completed", "failed", "retried", "aborted", "expired", "discarded", "lost")
# In the order in which a task's field of `task_stats:<minute>` has them.
_FIGURES = ("completed", "failed", "retried", "aborted", "run_ms", "waits", "wait_ms")


class State:
    """The state of one app's queue, as plain data."""

    def __init__(self, app: "Ardiq") -> None:
        self.core: _core.Core = app._broker.core
        self.base = app._broker._base

    def counts(self) -> dict[str, int]:
        """Numbers of tasks: `scheduled`, `queued`, `running`, `suspects`, `dead`, `ready:<lane>` …"""
        return {name: number(count) for name, count in pairs(self.core.call("counts", [])).items()}

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
        now, *rest = map(text, self.core.call("ages", []))
        return {lane: max(0, number(now) - number(since)) for lane, since in zip(rest[::2], rest[1::2], strict=True)}

    def next_due_in_ms(self) -> int | None:
        """How long until the next scheduled task falls due; negative when it is overdue, None when there is none."""
        due_at = self._next_due_at()
        return None if due_at is None else due_at - self.now_ms()

    def _next_due_at(self) -> int | None:
        first = self.core.call("list", ["scheduled", "", 0, 1])
        return number(first[1]) if first else None

    def workers(self) -> list[dict[str, Any]]:
        """Its workers.

        Returns:
            `id`, `label`, `host`, `pid`, `version`, `started_at`, `concurrency` (slots of its process), `share` (those
            of them that this queue is sure of: all, unless it serves other queues beside it), `lanes`, `held` tasks,
            `left_threads` (which run on after their task was settled, and take its slot), `stalled_ms` (for how long
            its event loop has not turned, 0 while it does) and `lease_left_ms` each.
        """
        now_ms = self.now_ms()
        workers: list[dict[str, Any]] = []
        while page := self.core.call("list", ["workers", "", len(workers), _PAGE]):
            for identity, expiry in zip(page[::2], page[1::2], strict=True):
                name = text(identity)
                row = pairs(self.core.command(["HGETALL", f"{self.base}worker:{name}"]))
                info = parsed(row.get("info", ""), {})
                workers.append(
                    {
                        "id": name,
                        **{key: info.get(key) for key in ("label", "host", "pid")},
                        "version": info.get("ardiq"),
                        "started_at": number(row.get("joined_at")) or None,
                        "concurrency": (slots := number(info.get("concurrency")) or None),
                        "share": number(info.get("share")) or slots,
                        "lanes": list(map(str, parsed(row.get("lanes", ""), []))),
                        "held": int(self.core.command(["HLEN", f"{self.base}running:{name}"])),
                        "left_threads": number(row.get("left_threads")),
                        "stalled_ms": max(0, now_ms - since) if (since := number(row.get("stalled_since"))) else 0,
                        "lease_left_ms": max(0, number(expiry) - now_ms),
                    }
                )
        return workers

    def workers_alive(self) -> int:
        """How many workers' leases have not run out."""
        return int(self.core.command(["ZCOUNT", f"{self.base}workers", str(self.now_ms()), "+inf"]))

    def unknown_tasks(self) -> list[dict[str, Any]]:
        """Tasks that of late were given to a worker that has none of that name, the last one first: `name`, and how
        long ago that was (`seen_ms`)."""
        reply, now_ms = self.core.call("list", ["unknown", "", 0, _PAGE]), self.now_ms()
        pairs = zip(map(text, reply[::2]), map(number, reply[1::2]), strict=True)
        return [{"name": name, "seen_ms": max(0, now_ms - at)} for name, at in pairs][::-1]

    def pauses(self) -> list[Pause]:
        """What is paused, the oldest first."""
        return read_pauses(self.core.call("pauses", []))

    def running(self, workers: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
        """What runs, the longest first: `id`, `name`, `lane`, `worker`, `try`, `run_ms`, `progress`.

        Of what a worker holds, as many as it has slots, the oldest claims: the others wait in it. `run_ms` counts from
        the claim.
        """
        found: list[dict[str, Any]] = []
        for worker in workers:
            if worker["held"]:
                slots = min(worker["concurrency"] or most, most, _PAGE)
                reply = [text(value) for value in self.core.call("claims", [worker["id"], 0, slots])]
                found += [_held(reply[at : at + 6], worker, int(reply[0])) for at in range(1, len(reply), 6)]
        return sorted(found, key=lambda task: -task["run_ms"])[:most]

    def schedules(self) -> list[dict[str, Any]]:
        """What recurs, the next to fall due first: what `Schedule` has, and `due_in_ms`."""
        found, cursor, now_ms = dict[str, dict[str, Any]](), "0", self.now_ms()
        while True:
            cursor, *fields = map(text, self.core.call("schedules", [cursor, _PAGE]))
            for name, due_at, definition in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
                schedule = read_schedule(name, number(due_at), parsed(definition, {}))
                found[name] = described(schedule) | {"due_in_ms": number(due_at) - now_ms}
            if cursor == "0":
                return sorted(found.values(), key=lambda schedule: (schedule["due_in_ms"], schedule["name"]))

    def minutes(self) -> list[dict[str, Any]]:
        """What was counted in each of the last five minutes, the newest first; `at` is when it began, in ms."""
        last = self.now_ms() // 60_000
        found = []
        for minute in range(last, last - MINUTES, -1):
            counted = pairs(self.core.command(["HGETALL", f"{self.base}stats:{minute}"]))
            found.append({"at": minute * 60_000, **{name: number(counted.get(name)) for name in _COUNTERS}})
        return found

    def task_stats(self) -> list[dict[str, Any]]:
        """How often each task ran in the last five minutes: `name`, `runs`, by outcome, `run_ms` in all.

        `waits` of the runs were first attempts, and had waited `wait_ms` in all.
        """
        totals: dict[str, dict[str, int]] = {}
        for minutes_ago in range(MINUTES):
            for name, packed in pairs(self.core.call("task_stats", [minutes_ago])).items():
                totals_of = totals.setdefault(name, dict.fromkeys(_FIGURES, 0))
                for figure, count in zip(_FIGURES, parsed(packed, []), strict=False):
                    totals_of[figure] += number(count)
        return [
            {"name": name, "runs": sum(figures[outcome] for outcome in _FIGURES[:4]), **figures}
            for name, figures in totals.items()
        ]

    def now_ms(self) -> int:
        """The server's clock."""
        return server_now_ms(self.core)


def described(schedule: Schedule) -> dict[str, Any]:
    """A schedule as plain data."""
    outcome = schedule.last_outcome
    return schedule._asdict() | {"last_outcome": None if outcome is None else outcome._asdict()}


def last_minutes(minutes: list[dict[str, Any]]) -> dict[str, int]:
    """What `State.minutes` counted, in all."""
    return {name: sum(minute[name] for minute in minutes) for name in _COUNTERS}


def server_now_ms(core: "_core.Core") -> int:
    """The server's clock."""
    seconds, microseconds = core.command(["TIME"])
    return int(seconds) * 1000 + int(microseconds) // 1000


def pairs(answer: list[Any]) -> dict[str, str]:
    """A flat reply of names and values."""
    texts = [text(value) for value in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def text(value: Any) -> str:
    """A value of a reply as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


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


def parsed(value: str, otherwise: Any) -> Any:
    """What a JSON text says, or something else where it is none of that type."""
    try:
        found = json.loads(value)
    except ValueError:
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _held(row: list[str], worker: dict[str, Any], now_ms: int) -> dict[str, Any]:
    task_id, name, lane, tries, started_at, progress = row
    return {
        "id": task_id,
        "name": name,
        "lane": lane,
        "worker": worker["id"],
        "try": number(tries),
        "run_ms": max(0, now_ms - number(started_at, now_ms)),
        "progress": parsed(progress, {}) or None,
    }
