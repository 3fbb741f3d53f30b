"""What `app.inspect` and `app.limits` return: counts, lanes, workers, running tasks, counters, limits of a queue."""

from typing import NamedTuple

from ._values.objects import as_object
from .limits import Rate
from .models import Progress


@as_object
class QueueCounts(NamedTuple):
    """How many tasks of a queue are in each place.

    Attributes:
        queued: those that are ready to run, `quarantined` ones included.
        limited: those that are ready to run, and wait in a line until their limits let them start.
        scheduled: those that wait for their time, a retry included.
        running: those that workers have taken.
        held: those that a pause holds.
        quarantined: those suspected of killing their worker.
        dead: the dead letters.
        ready: how many are ready in each lane, by its name.
        lines: how many wait in the lines of each lane, by its name.
    """

    queued: int
    scheduled: int
    running: int
    held: int
    quarantined: int
    dead: int
    ready: dict[str, int]
    limited: int = 0
    lines: dict[str, int] = {}  # noqa: RUF012 - nobody changes it


@as_object
class LaneInfo(NamedTuple):
    """A lane of a queue.

    Attributes:
        waiting: how many of its tasks are ready.
        oldest_ms: for how long the oldest one has been ready, in ms, since it was enqueued or fell due, those that wait
            for their limits included (of many lines, 200 are looked at); None: there is none.
        workers_alive: how many workers that are alive serve it.
        claimed: how many tasks workers have taken, where the queue has one lane; else None: by lane, it is not counted.
        scheduled: how many tasks are scheduled, likewise.
        next_due_at: when the next scheduled one falls due, in ms since the epoch, likewise; None also if there is none.
        limited: how many of its tasks are ready, but wait for their limits.
    """

    name: str
    waiting: int
    oldest_ms: int | None
    workers_alive: int
    claimed: int | None = None
    scheduled: int | None = None
    next_due_at: int | None = None
    limited: int = 0


@as_object
class WorkerInfo(NamedTuple):
    """A worker, as it has reported since it joined the queue. A field that cannot be read, because somebody edited the
    record by hand, is None.

    Attributes:
        worker: its identity.
        label: the name for people.
        host: where it runs.
        pid: its process there.
        version: of Ardiq.
        started_at: when it joined, in ms since the epoch.
        concurrency: how many slots its process has.
        share: how many of them this queue is guaranteed: all, unless it serves other queues, too.
        lanes: the names of those that it serves.
        claimed: how many tasks it has taken.
        abandoned_threads: threads that run on after their task was settled, and take its slot.
        stalled_ms: for how long its event loop has not run, in ms; 0 while it does.
        lease_left_ms: until its lease runs out, in ms; 0: it has, and its tasks go to others.
    """

    worker: str
    label: str | None
    host: str | None
    pid: int | None
    version: str | None
    started_at: int | None
    concurrency: int | None
    share: int | None
    lanes: list[str]
    claimed: int
    abandoned_threads: int
    stalled_ms: int
    lease_left_ms: int

    @property
    def is_alive(self) -> bool:
        """Whether its lease has not run out."""
        return self.lease_left_ms > 0


@as_object
class RunningTask(NamedTuple):
    """A task that runs.

    Attributes:
        lane: the lane it came from.
        worker: the identity of its worker.
        tries: the number of the attempt, from 1.
        run_ms: how long ago the worker took it, in ms.
        progress: what it last reported; None: nothing.
    """

    task_id: str
    fn_name: str
    lane: str
    worker: str
    tries: int
    run_ms: int
    progress: Progress | None


@as_object
class UnknownTask(NamedTuple):
    """A task name that a worker was given and does not know.

    Attributes:
        seen_at: when last, in ms since the epoch.
    """

    fn_name: str
    seen_at: int


@as_object
class MinuteCounts(NamedTuple):
    """What was counted in one minute.

    Attributes:
        at: when the minute began, in ms since the epoch.
        enqueued: tasks that were added.
        completed: tasks that returned.
        failed: tasks that became dead letters.
        retried: attempts after which another follows.
        aborted: tasks that were aborted.
        expired: tasks that did not start in time.
        discarded: tasks that were removed.
        lost: attempts whose worker died.
        snoozed: attempts that postponed their task.
        released: tasks that a worker handed back unstarted.
        unknown: tasks that were given to a worker that does not know them.
        held: tasks that a pause set aside.
        requeued: dead letters that were enqueued again.
    """

    at: int
    enqueued: int
    completed: int
    failed: int
    retried: int
    aborted: int
    expired: int
    discarded: int
    lost: int
    snoozed: int
    released: int
    unknown: int
    held: int
    requeued: int


@as_object
class QueueOverview(NamedTuple):
    """A queue at one moment.

    Attributes:
        at: when, in ms since the epoch, by the server's clock.
        counts: how many tasks are in each place.
        overdue: how many of the scheduled tasks are due: they are ready as soon as a worker looks.
        next_due_at: when the next scheduled task falls due, in ms since the epoch; None: none is scheduled.
        workers: how many workers there are.
        lost: how many of these have a lease that has run out.
        oldest_ms: by the name of each lane in which a task is ready, for how long the oldest one has been, in ms.
        held: how many tasks each pause holds, by its id; those of pauses that hold none are left out.
        totals: what was counted since the queue was created, by name; what never happened is left out.
        minutes: what was counted in each of the last minutes, the newest first.
    """

    at: int
    counts: QueueCounts
    overdue: int
    next_due_at: int | None
    workers: int
    lost: int
    oldest_ms: dict[str, int]
    held: dict[str, int]
    totals: dict[str, int]
    minutes: list[MinuteCounts]


@as_object
class TaskTotals(NamedTuple):
    """How often the tasks of one name ran in some minutes, as workers report every five seconds.

    Attributes:
        runs: how many attempts ended; the four that follow say how.
        run_ms: how long they ran in all, in ms.
        waits: how many of them were first attempts.
        wait_ms: how long these had waited in all, in ms.
    """

    fn_name: str
    runs: int
    completed: int
    failed: int
    retried: int
    aborted: int
    run_ms: int
    waits: int
    wait_ms: int


@as_object
class TaskPosition(NamedTuple):
    """Where a task is.

    Attributes:
        place: "queued", "limited", "scheduled", "held", "running", "quarantined" or "dead"; None: it has ended.
        of: the lane of "queued", lane and line of "limited" as `default:customer(42)`, the pause of "held", the worker
            of "running"; else None.
        position: 0 is the next one to run (of "dead": the newest); None: it is beyond the first 10,000 of its lane or
            line, or the place has no order.
        length: how many entries the place has.
        kept_ms: how long its record is still kept, in ms; None: it has no time to live.
    """

    place: str | None
    of: str | None
    position: int | None
    length: int
    kept_ms: int | None


@as_object
class FoundTask(NamedTuple):
    """A task that a search found.

    Attributes:
        number: of a scheduled one when it falls due, of a dead letter when it failed, in ms since the epoch; of others
            its order in the place.
        state: its state, as `job.status()` has it.
        args: its positional arguments as they are stored, up to 500 bytes; empty if that is not JSON.
        kwargs: its keyword arguments, likewise.
        error: of its last attempt, up to 500 bytes; empty: none.
    """

    task_id: str
    fn_name: str
    state: str
    lane: str
    tries: int
    number: int
    args: str
    kwargs: str
    error: str


@as_object
class Found(NamedTuple):
    """What a search found.

    Attributes:
        tasks: in the order of their place.
        looked_at: how many tasks were looked at.
        size: how many entries the place has.
        next_offset: where to go on; None: the end was reached.
    """

    tasks: list[FoundTask]
    looked_at: int
    size: int
    next_offset: int | None


@as_object
class LimitInfo(NamedTuple):
    """A limit of a queue, or one key of it.

    Attributes:
        name: of the limit.
        key: the key; None: it is the limit as such.
        concurrency: how many attempts may run at once; None: any number.
        rate: how many may start in a time; None: any number.
        overridden: whether something was put over what code declares.
        running: how many attempts run; of a limit as such, of all its keys together. One with two keys counts for each.
        waiting: how many tasks wait in lines that have it, likewise.
        exact: False: at least so many run and wait; there are more lines of tasks than the server looks at for one
            answer (2,000).
        declared: whether code declares it.
        opens_at: when it lets the next one start, in ms since the epoch; None: now, or when an attempt ends.
        max_waiting: how many tasks may wait in a line of it; None: any number.
        recovery_ms: in how many ms it recovers, if it is adaptive; None: it is not.
        share: how much of `concurrency` and `rate` is left now: 1.0, or less of an adaptive limit that was slowed.
    """

    name: str
    key: str | None
    concurrency: int | None
    rate: Rate | None
    overridden: bool
    running: int
    waiting: int
    exact: bool
    declared: bool
    opens_at: int | None
    max_waiting: int | None = None
    recovery_ms: int | None = None
    share: float = 1.0
