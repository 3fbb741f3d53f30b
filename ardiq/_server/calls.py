"""The functions of the library as typed calls, generated from `lua/protocol.json` by `make render`.

Each function here makes a `Call`, which is sent by `ask` (blocking) or by `ask` and `tell` of a channel, and knows how
its reply is read. What is paid for each task does not come this way: enqueues travel as records of `Channel.submit` and
`submit_many`, claims and outcomes in the steps of the compiled core.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

from .replies import (
    Call,
    Record,
    Text,
    answers,
    flag,
    json_numbers,
    json_object,
    json_texts,
    number,
    page,
    raw,
    table,
    text,
    texts,
    word,
)

ENQUEUE_MOST: Final = 1000
"""How many records one call of `enqueue` takes."""

STEP_MOST: Final = 1000
"""How many records one call of `step` takes."""

HURRY_MOST: Final = 1000
"""How many records one call of `hurry` takes."""

PROGRESS_MOST: Final = 1000
"""How many records one call of `progress` takes."""

EMIT_MOST: Final = 1000
"""How many records one call of `emit` takes."""

REQUEUE_MOST: Final = 1000
"""How many records one call of `requeue` takes."""

DISCARD_MOST: Final = 1000
"""How many records one call of `discard` takes."""

LIMITS_DECLARE_MOST: Final = 1000
"""How many records one call of `limits_declare` takes."""

SCHEDULE_DECLARE_MOST: Final = 1000
"""How many records one call of `schedule_declare` takes."""

REPORT_STATS_MOST: Final = 100
"""How many records one call of `report_stats` takes."""

REPAIR_MOST: Final = 20
"""How many records one call of `repair` takes."""

LONGEST_RUNNING_MOST: Final = 100
"""How many records one call of `longest_running` takes."""

WORKFLOW_CREATE_MOST: Final = 1000
"""How many records one call of `workflow_create` takes."""

WORKFLOW_ITEMS_MOST: Final = 1000
"""How many records one call of `workflow_items` takes."""

WORKFLOW_FILL_MOST: Final = 1000
"""How many records one call of `workflow_fill` takes."""

WORKFLOW_ADD_MOST: Final = 1000
"""How many records one call of `workflow_add` takes."""

OUTBOX_DONE_MOST: Final = 1000
"""How many records one call of `outbox_done` takes."""

PURGE_LIMIT_MOST: Final = 1000
"""The largest `limit` of `purge`."""

DISCARD_OLD_LIMIT_MOST: Final = 1000
"""The largest `limit` of `discard_old`."""

RESUME_LIMIT_MOST: Final = 1000
"""The largest `limit` of `resume`."""

POSITION_LIMIT_MOST: Final = 10000
"""The largest `limit` of `position`."""

LIST_LIMIT_MOST: Final = 1000
"""The largest `limit` of `list`."""

DEAD_LETTERS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `dead_letters`."""

FIND_LIMIT_MOST: Final = 200
"""The largest `limit` of `find`."""

AUDIT_OFFSET_MOST: Final = 1000
"""The largest `offset` of `audit`."""

AUDIT_LIMIT_MOST: Final = 200
"""The largest `limit` of `audit`."""

AUDIT_ADD_NUMBER_MOST: Final = 1000000000000
"""The largest `number` of `audit_add`."""

FAILURES_LIMIT_MOST: Final = 500
"""The largest `limit` of `failures`."""

STREAM_LIMIT_MOST: Final = 1000
"""The largest `limit` of `stream`."""

LOG_LIMIT_MOST: Final = 1000
"""The largest `limit` of `log`."""

SCHEDULES_LIMIT_MOST: Final = 1000
"""The largest `limit` of `schedules`."""

SCHEDULES_DUE_LIMIT_MOST: Final = 1000
"""The largest `limit` of `schedules_due`."""

LIMITS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `limits`."""

BUCKETS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `buckets`."""

WORKERS_LIMIT_MOST: Final = 100
"""The largest `limit` of `workers`."""

CLAIMS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `claims`."""

LONGEST_RUNNING_LIMIT_MOST: Final = 500
"""The largest `limit` of `longest_running`."""

STATS_MINUTES_MOST: Final = 120
"""The largest `minutes` of `stats`."""

TASK_STATS_MINUTES_MOST: Final = 120
"""The largest `minutes` of `task_stats`."""

OVERVIEW_MINUTES_MOST: Final = 120
"""The largest `minutes` of `overview`."""

FSCK_PAGE_LIMIT_MOST: Final = 1000
"""The largest `limit` of `fsck_page`."""

WAIT_WAIT_MS_MOST: Final = 31536000000
"""The largest `wait_ms` of `wait`."""

WORKFLOW_RESUME_LIMIT_MOST: Final = 1000
"""The largest `limit` of `workflow_resume`."""

WORKFLOW_LIMIT_MOST: Final = 1000
"""The largest `limit` of `workflow`."""

OUTBOX_LIMIT_MOST: Final = 1000
"""The largest `limit` of `outbox`."""

WORKFLOW_DEAD_LIMIT_MOST: Final = 1000
"""The largest `limit` of `workflow_dead`."""

WORKFLOWS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `workflows`."""

RESULTS_LIMIT_MOST: Final = 1000
"""The largest `limit` of `results`."""


class NewTask(NamedTuple):
    """A record of `enqueue`."""

    id: Text
    name: Text
    lane: Text
    args: Text
    kwargs: Text
    options: Text


class Settled(NamedTuple):
    """A record of `step`."""

    id: Text
    token: Text
    outcome: Text
    run_ms: int
    value: Text
    details: Text


class Claim(NamedTuple):
    """A record of the reply of `claim`."""

    id: str
    token: str
    name: str
    args: bytes
    kwargs: bytes
    codec: str
    headers: bytes
    lane: str
    tries: int
    enqueued_at: int


CLAIM = Record(Claim._make, (text, text, text, raw, raw, text, raw, text, number, number))


class StepRefusal(NamedTuple):
    """A record of the reply of `step`."""

    id: str
    token: str
    reason: str


STEP_REFUSAL = Record(StepRefusal._make, (text, text, text))


class StepReply(NamedTuple):
    """What `step` replies."""

    more: bool
    wait_ms: int
    refusals: list[StepRefusal]
    rows: list[Claim]


STEP_REPLY = page(StepReply._make, (flag, number, number), CLAIM.rows, STEP_REFUSAL)


class ClaimReply(NamedTuple):
    """What `claim` replies."""

    more: bool
    rows: list[Claim]


CLAIM_REPLY = page(ClaimReply._make, (flag,), CLAIM.rows)


class AbortWish(NamedTuple):
    """A record of the reply of `heartbeat`."""

    id: str
    token: str


ABORT_WISH = Record(AbortWish._make, (text, text))


class HeartbeatReply(NamedTuple):
    """What `heartbeat` replies."""

    mailbox: str
    more: bool
    rows: list[AbortWish]


HEARTBEAT_REPLY = page(HeartbeatReply._make, (text, flag), ABORT_WISH.rows)


class Outcome(NamedTuple):
    """A record of the reply of `watch`."""

    state: str
    tries: int
    enqueued_at: int
    started_at: int
    finished_at: int
    codec: str
    value: bytes


OUTCOME = Record(Outcome._make, (text, number, number, number, number, text, raw))


class AwaitReply(NamedTuple):
    """What `await` replies."""

    answer: Literal["finished", "unfinished", "not_found"]
    row: Outcome | None


AWAIT_REPLY = page(AwaitReply._make, (word,), OUTCOME.optional)


class WatchReply(NamedTuple):
    """What `watch` replies."""

    answer: Literal["finished", "unfinished", "not_found"]
    row: Outcome | None


WATCH_REPLY = page(WatchReply._make, (word,), OUTCOME.optional)


class Told(NamedTuple):
    """A record of `progress`."""

    note: Text
    text: Text


class NewChunk(NamedTuple):
    """A record of `emit`."""

    codec: Text
    chunk: Text


class PurgeReply(NamedTuple):
    """What `purge` replies."""

    discarded: int
    more: bool
    passed: int


PURGE_REPLY = page(PurgeReply._make, (number, flag, number))


class DiscardOldReply(NamedTuple):
    """What `discard_old` replies."""

    discarded: int
    more: bool


DISCARD_OLD_REPLY = page(DiscardOldReply._make, (number, flag))


class ResumeReply(NamedTuple):
    """What `resume` replies."""

    answer: Literal["resumed", "not_paused"]
    moved: int
    more: bool


RESUME_REPLY = page(ResumeReply._make, (word, number, flag))


class NewLimit(NamedTuple):
    """A record of `limits_declare`."""

    name: Text
    definition: Text


class ScheduleFireReply(NamedTuple):
    """What `schedule_fire` replies."""

    answer: Literal["fired", "exists", "coalesced", "paused", "skipped", "moved", "early", "gone"]
    next_due_at: int
    id: str


SCHEDULE_FIRE_REPLY = page(ScheduleFireReply._make, (word, number, text))


class Declared(NamedTuple):
    """A record of `schedule_declare`."""

    name: Text
    definition: Text
    next_due_at: int


class ScheduleDeclareReply(NamedTuple):
    """What `schedule_declare` replies."""

    answer: Literal["declared", "kept", "superseded", "nothing"]
    rows: list[str]


SCHEDULE_DECLARE_REPLY = page(ScheduleDeclareReply._make, (word,), texts)


class TaskFigures(NamedTuple):
    """A record of `report_stats`."""

    name: Text
    completed: int
    failed: int
    retried: int
    aborted: int
    run_ms: int
    waits: int
    wait_ms: int


class Finding(NamedTuple):
    """A record of the reply of `fsck_page`."""

    kind: str
    id: str
    detail: str


FINDING = Record(Finding._make, (text, text, text))


class PositionReply(NamedTuple):
    """What `position` replies."""

    place: str
    which: str
    position: int
    length: int
    kept_ms: int


POSITION_REPLY = page(PositionReply._make, (text, text, number, number, number))


class Entry(NamedTuple):
    """A record of the reply of `list`."""

    id: str
    number: int


ENTRY = Record(Entry._make, (text, number))


class DeadRow(NamedTuple):
    """A record of the reply of `dead_letters`."""

    id: str
    failed_at: int
    name: str
    lane: str


DEAD_ROW = Record(DeadRow._make, (text, number, text, text))


class DeadLettersReply(NamedTuple):
    """What `dead_letters` replies."""

    next_before_at: int
    rows: list[DeadRow]


DEAD_LETTERS_REPLY = page(DeadLettersReply._make, (number,), DEAD_ROW.rows)


class FoundRow(NamedTuple):
    """A record of the reply of `find`."""

    id: str
    number: int
    state: str
    name: str
    lane: str
    tries: int
    args: bytes
    kwargs: bytes
    codec: str
    error: str


FOUND_ROW = Record(FoundRow._make, (text, number, text, text, text, number, raw, raw, text, text))


class FindReply(NamedTuple):
    """What `find` replies."""

    next_offset: int
    looked: int
    size: int
    rows: list[FoundRow]


FIND_REPLY = page(FindReply._make, (number, number, number), FOUND_ROW.rows)


class AuditRow(NamedTuple):
    """A record of the reply of `audit`."""

    acted_at: int
    user: str
    client: str
    action: str
    subject: str
    number: int
    outcome: str


AUDIT_ROW = Record(AuditRow._make, (number, text, text, text, text, number, text))


class AuditReply(NamedTuple):
    """What `audit` replies."""

    size: int
    rows: list[AuditRow]


AUDIT_REPLY = page(AuditReply._make, (number,), AUDIT_ROW.rows)


class Failures(NamedTuple):
    """A record of the reply of `failures`."""

    name: str
    kind: str
    number: int
    newest_at: int
    oldest_at: int
    id: str
    error: str


FAILURES = Record(Failures._make, (text, text, number, number, number, text, text))


class FailuresReply(NamedTuple):
    """What `failures` replies."""

    looked: int
    size: int
    rows: list[Failures]


FAILURES_REPLY = page(FailuresReply._make, (number, number), FAILURES.rows)


class ChunkRow(NamedTuple):
    """A record of the reply of `stream`."""

    token: str
    number: int
    tries: int
    codec: str
    chunk: bytes


CHUNK_ROW = Record(ChunkRow._make, (text, number, number, text, raw))


class StreamReply(NamedTuple):
    """What `stream` replies."""

    more: bool
    rows: list[ChunkRow]


STREAM_REPLY = page(StreamReply._make, (flag,), CHUNK_ROW.rows)


class ScheduleRow(NamedTuple):
    """A record of the reply of `schedules_due`."""

    name: str
    due_at: int
    definition: dict[str, Any]


SCHEDULE_ROW = Record(ScheduleRow._make, (text, number, json_object))


class SchedulesReply(NamedTuple):
    """What `schedules` replies."""

    cursor: str
    rows: list[ScheduleRow]


SCHEDULES_REPLY = page(SchedulesReply._make, (text,), SCHEDULE_ROW.rows)


class SchedulesDueReply(NamedTuple):
    """What `schedules_due` replies."""

    now: int
    next_due_at: int
    rows: list[ScheduleRow]


SCHEDULES_DUE_REPLY = page(SchedulesDueReply._make, (number, number), SCHEDULE_ROW.rows)


class PauseRow(NamedTuple):
    """A record of the reply of `pauses`."""

    pause: str
    definition: dict[str, Any]
    held: int


PAUSE_ROW = Record(PauseRow._make, (text, json_object, number))


class LimitRow(NamedTuple):
    """A record of the reply of `buckets`."""

    bucket: str
    definition: dict[str, Any]
    is_declared: bool
    is_put: bool
    running: int
    waiting: int
    is_exact: bool
    opens_at: int
    share: str


LIMIT_ROW = Record(LimitRow._make, (text, json_object, flag, flag, number, number, flag, number, text))


class LimitsReply(NamedTuple):
    """What `limits` replies."""

    cursor: str
    rows: list[LimitRow]


LIMITS_REPLY = page(LimitsReply._make, (text,), LIMIT_ROW.rows)


class BucketsReply(NamedTuple):
    """What `buckets` replies."""

    cursor: str
    rows: list[LimitRow]


BUCKETS_REPLY = page(BucketsReply._make, (text,), LIMIT_ROW.rows)


class WorkerRow(NamedTuple):
    """A record of the reply of `workers`."""

    worker: str
    lease_until: int
    claimed: int
    joined_at: int
    abandoned_threads: int
    stalled_since: int
    info: dict[str, Any]
    lanes: list[str]


WORKER_ROW = Record(WorkerRow._make, (text, number, number, number, number, number, json_object, json_texts))


class WorkersReply(NamedTuple):
    """What `workers` replies."""

    cursor: str
    now: int
    alive: int
    rows: list[WorkerRow]


WORKERS_REPLY = page(WorkersReply._make, (text, number, number), WORKER_ROW.rows)


class ClaimedTask(NamedTuple):
    """A record of the reply of `claims`."""

    id: str
    name: str
    lane: str
    tries: int
    started_at: int
    progress: dict[str, Any]


CLAIMED_TASK = Record(ClaimedTask._make, (text, text, text, number, number, json_object))


class ClaimsReply(NamedTuple):
    """What `claims` replies."""

    now: int
    rows: list[ClaimedTask]


CLAIMS_REPLY = page(ClaimsReply._make, (number,), CLAIMED_TASK.rows)


class WorkerSlots(NamedTuple):
    """A record of `longest_running`."""

    worker: Text
    slots: int


class LongestRunning(NamedTuple):
    """A record of the reply of `longest_running`."""

    worker: str
    id: str
    name: str
    lane: str
    tries: int
    started_at: int
    progress: dict[str, Any]


LONGEST_RUNNING = Record(LongestRunning._make, (text, text, text, text, number, number, json_object))


class LongestRunningReply(NamedTuple):
    """What `longest_running` replies."""

    now: int
    looked: int
    rows: list[LongestRunning]


LONGEST_RUNNING_REPLY = page(LongestRunningReply._make, (number, number), LONGEST_RUNNING.rows)


class ReadySince(NamedTuple):
    """A record of the reply of `oldest_ready`."""

    lane: str
    since: int


READY_SINCE = Record(ReadySince._make, (text, number))


class OldestReadyReply(NamedTuple):
    """What `oldest_ready` replies."""

    now: int
    rows: list[ReadySince]


OLDEST_READY_REPLY = page(OldestReadyReply._make, (number,), READY_SINCE.rows)


class MinuteStats(NamedTuple):
    """A record of the reply of `stats`."""

    minutes_ago: int
    enqueued: int
    completed: int
    failed: int
    retried: int
    snoozed: int
    unknown: int
    aborted: int
    expired: int
    released: int
    held: int
    lost: int
    requeued: int
    discarded: int
    unreadable: int
    ghosts: int


MINUTE_STATS = Record(
    MinuteStats._make,
    (
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
        number,
    ),
)


class StatsReply(NamedTuple):
    """What `stats` replies."""

    now: int
    rows: list[MinuteStats]


STATS_REPLY = page(StatsReply._make, (number,), MINUTE_STATS.rows)


class TaskStats(NamedTuple):
    """A record of the reply of `task_stats`."""

    minutes_ago: int
    name: str
    figures: list[int]


TASK_STATS = Record(TaskStats._make, (number, text, json_numbers))


class TaskStatsReply(NamedTuple):
    """What `task_stats` replies."""

    now: int
    rows: list[TaskStats]


TASK_STATS_REPLY = page(TaskStatsReply._make, (number,), TASK_STATS.rows)


class Gauge(NamedTuple):
    """A record of the reply of `overview`."""

    name: str
    number: int


GAUGE = Record(Gauge._make, (text, number))


class OverviewReply(NamedTuple):
    """What `overview` replies."""

    now: int
    next_due_at: int
    lost: int
    rows: list[Gauge]


OVERVIEW_REPLY = page(OverviewReply._make, (number, number, number), GAUGE.rows)


class FsckPageReply(NamedTuple):
    """What `fsck_page` replies."""

    cursor: str
    seen: int
    rows: list[Finding]


FSCK_PAGE_REPLY = page(FsckPageReply._make, (text, number), FINDING.rows)


class CheckpointReply(NamedTuple):
    """What `checkpoint` replies."""

    answer: Literal["stored", "kept", "stale"]
    codec: str
    value: bytes


CHECKPOINT_REPLY = page(CheckpointReply._make, (word, text, raw))


class WaitReply(NamedTuple):
    """What `wait` replies."""

    answer: Literal["signal", "timeout", "waits", "stale"]
    wait_ms: int
    signal: str
    codec: str
    value: bytes


WAIT_REPLY = page(WaitReply._make, (word, number, text, text, raw))


class MemoRow(NamedTuple):
    """A record of the reply of `steps`."""

    name: str
    is_here: bool
    memo: bytes


MEMO_ROW = Record(MemoRow._make, (text, flag, raw))


class NewNode(NamedTuple):
    """A record of `workflow_create`."""

    name: Text
    task: Text
    lane: Text
    args: Text
    kwargs: Text
    options: Text


class NewItem(NamedTuple):
    """A record of `workflow_items`."""

    codec: Text
    args: Text


class WorkflowItemsReply(NamedTuple):
    """What `workflow_items` replies."""

    answer: str
    size: int


WORKFLOW_ITEMS_REPLY = page(WorkflowItemsReply._make, (text, number))


class WorkflowFillReply(NamedTuple):
    """What `workflow_fill` replies."""

    answer: str
    size: int


WORKFLOW_FILL_REPLY = page(WorkflowFillReply._make, (text, number))


class AddedCall(NamedTuple):
    """A record of `workflow_add`."""

    task: Text
    lane: Text
    args: Text
    kwargs: Text
    options: Text


class WorkflowAddReply(NamedTuple):
    """What `workflow_add` replies."""

    answer: str
    size: int


WORKFLOW_ADD_REPLY = page(WorkflowAddReply._make, (text, number))


class WorkflowResumeReply(NamedTuple):
    """What `workflow_resume` replies."""

    answer: Literal["resumed", "not_paused"]
    moved: int
    more: bool


WORKFLOW_RESUME_REPLY = page(WorkflowResumeReply._make, (word, number, flag))


class NodeRow(NamedTuple):
    """A record of the reply of `workflow`."""

    name: str
    kind: str
    task: str
    state: str
    after: str
    size: int
    complete: int
    failed: int
    skipped: int
    aborted: int
    error: str
    queue: str


NODE_ROW = Record(NodeRow._make, (text, text, text, text, text, number, number, number, number, number, text, text))


class WorkflowReply(NamedTuple):
    """What `workflow` replies."""

    state: str
    kind: str
    rows: list[NodeRow]


WORKFLOW_REPLY = page(WorkflowReply._make, (text, text), NODE_ROW.rows)


class OutboxRow(NamedTuple):
    """A record of the reply of `outbox`."""

    entry: str
    life: str
    queue: str
    function: str
    arguments: bytes


OUTBOX_ROW = Record(OutboxRow._make, (text, text, text, text, raw))


class OutboxEntry(NamedTuple):
    """A record of `outbox_done`."""

    entry: Text
    life: Text
    answer: Text


class WorkflowRow(NamedTuple):
    """A record of the reply of `workflows`."""

    id: str
    created_at: int


WORKFLOW_ROW = Record(WorkflowRow._make, (text, number))


class MapResult(NamedTuple):
    """A record of the reply of `results`."""

    number: int
    codec: str
    value: bytes


MAP_RESULT = Record(MapResult._make, (number, text, raw))


class ResultsReply(NamedTuple):
    """What `results` replies."""

    size: int
    next_offset: int
    rows: list[MapResult]


RESULTS_REPLY = page(ResultsReply._make, (number, number), MAP_RESULT.rows)


def enqueue(
    *, tasks: Iterable[NewTask]
) -> Call[list[Literal["queued", "scheduled", "limited", "exists", "accepted"] | Exception]]:
    """A client adds tasks; an id already waiting or running is left as it is, and what has the key of another adds
    nothing, or replaces its arguments, which aborts children of the old ones. A few tasks in empty lanes are
    claimed at once for workers that have nothing to do, and put into their mailboxes.

    Replies one string per task, in order: `queued`, `scheduled`, `limited`, `exists` (unfinished under this id,
    nothing added), `accepted` (this very call was already carried out), `exists <id>` (the task of that id has the
    key), `replaced <id>` (that task, which waits, has these arguments now), or an error.
    """
    return Call("enqueue", (*(value for record in tasks for value in record),), answers)


def join(*, worker: Text, lease_ms: int, info: Text, lanes: Text, generation: int) -> Call[list[str]]:
    """A worker process joins under a new identity and gets the keys to block on.

    Replies the keys to block on, in this order: its mailbox, then the wake list of each lane.
    """
    return Call("join", (worker, lease_ms, info, lanes, generation), texts)


def leave(*, worker: Text, result_ttl_ms: int) -> Call[bool]:
    """A worker leaves and hands back what it has claimed; no try is charged.

    Replies 1 when more is left to hand back (call again), else 0.
    """
    return Call("leave", (worker, result_ttl_ms), flag)


def step(
    *,
    worker: Text,
    seq: int,
    lease_ms: int,
    result_ttl_ms: int,
    lanes: Text,
    want: int,
    hand_off: int,
    outcomes: Iterable[Settled],
) -> Call[StepReply]:
    """A worker's round trip: renew the lease, settle, promote up to 100 due tasks, claim.

    Replies `more` (1: ready work was left behind, step again), `wait_ms` (-1, or when to step again because a task
    falls due), number of answers; then an answer for each outcome that was refused or became another: id, token,
    the reason or the new state; then each claim: a `+` before its token says that it belongs to the batch of the
    claim before it; `enqueued_at` of one that was put off is when it was due.
    """
    return Call(
        "step",
        (
            worker,
            seq,
            lease_ms,
            result_ttl_ms,
            lanes,
            want,
            hand_off,
            *(value for record in outcomes for value in record),
        ),
        STEP_REPLY,
    )


def claim(*, worker: Text, lanes: Text, want: int, result_ttl_ms: int) -> Call[ClaimReply]:
    """A worker takes tasks that are ready; each comes with a lease token.

    Replies `more`, then each claim; `enqueued_at` of one that was put off is when it was due.
    """
    return Call("claim", (worker, lanes, want, result_ttl_ms), CLAIM_REPLY)


def complete(
    *, worker: Text, id: Text, token: Text, run_ms: int, result: Text, codec: Text, result_ttl_ms: int
) -> Call[str]:
    """The attempt's worker finishes the task with a result; a stale attempt changes nothing.

    Replies `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead.
    """
    return Call("complete", (worker, id, token, run_ms, result, codec, result_ttl_ms), text)


def retry(
    *,
    worker: Text,
    id: Text,
    token: Text,
    run_ms: int,
    delay_ms: int,
    max_age_ms: int,
    error: Text,
    traceback: Text,
    result_ttl_ms: int,
) -> Call[str]:
    """The attempt's worker asks for another try after delay_ms; a stale attempt changes nothing.

    Replies `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead.
    """
    return Call("retry", (worker, id, token, run_ms, delay_ms, max_age_ms, error, traceback, result_ttl_ms), text)


def snooze(
    *,
    worker: Text,
    id: Text,
    token: Text,
    run_ms: int,
    delay_ms: int,
    max_age_ms: int,
    reason: Text,
    result_ttl_ms: int,
) -> Call[str]:
    """The attempt's worker puts the task off for delay_ms; no try is charged.

    Replies `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead.
    """
    return Call("snooze", (worker, id, token, run_ms, delay_ms, max_age_ms, reason, result_ttl_ms), text)


def fail(
    *, worker: Text, id: Text, token: Text, run_ms: int, error: Text, traceback: Text, result_ttl_ms: int
) -> Call[str]:
    """The attempt's worker gives up: the task fails and is kept as a dead letter.

    Replies `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead.
    """
    return Call("fail", (worker, id, token, run_ms, error, traceback, result_ttl_ms), text)


def release(*, worker: Text, id: Text, token: Text, result_ttl_ms: int) -> Call[str]:
    """The attempt's worker hands a task back unstarted, to the front of its lane; no try is charged.

    Replies `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead.
    """
    return Call("release", (worker, id, token, result_ttl_ms), text)


def heartbeat(
    *,
    worker: Text,
    lease_ms: int,
    result_ttl_ms: int,
    generation: int,
    max_lost: int,
    abandoned_threads: int,
    stalled_ms: int,
) -> Call[HeartbeatReply]:
    """A worker renews its lease; promotes due tasks, gives back held ones and reaps dead workers, a bounded number per
    call.

    Replies its mailbox; 1 when more is left to promote, give back or reap, else 0; then id and token of each task
    it is asked to abort.
    """
    return Call(
        "heartbeat",
        (worker, lease_ms, result_ttl_ms, generation, max_lost, abandoned_threads, stalled_ms),
        HEARTBEAT_REPLY,
    )


def abort(*, id: Text, result_ttl_ms: int) -> Call[Literal["aborted", "requested", "finished", "not_found"]]:
    """Stops a task: at once if it waits, by request if it runs.

    Replies `aborted` (now or before), `requested` (its worker is told; in a state of a later version, the record
    says so), `finished` (another way) or `not_found`.
    """
    return Call("abort", (id, result_ttl_ms), word)


def hurry(
    *, tasks: Iterable[Text]
) -> Call[
    list[Literal["queued", "limited", "running", "held", "blocked", "waits", "finished", "not_found"] | Exception]
]:
    """Scheduled tasks are ready now, as if their time had come: they wait for nothing but their turn.

    Replies one string per id: `queued` or `limited` (now, or before); or why nothing was changed: `running`, `held`
    (by a pause), `blocked` (it waits for other tasks), `waits` (for a signal, or in a sleep of its own),
    `finished`, `not_found`; or an error.
    """
    return Call("hurry", (*tasks,), answers)


def await_(*, id: Text, mailbox: Text, waiter_ttl_ms: int, result_ttl_ms: int) -> Call[AwaitReply]:
    """A client asks for a task's outcome, or to be told when it ends. A task that was not started in time expires.

    Replies `finished` and the outcome, `unfinished` and the state, or `not_found`.
    """
    return Call("await", (id, mailbox, waiter_ttl_ms, result_ttl_ms), AWAIT_REPLY)


def watch(*, id: Text, mailbox: Text, waiter_ttl_ms: int, result_ttl_ms: int) -> Call[WatchReply]:
    """A client asks for a task's outcome, or to be told of each change until it ends. A task that was not started in
    time expires.

    Replies as `await`; its current state also comes to the mailbox as `changed`, in order with what follows.
    """
    return Call("watch", (id, mailbox, waiter_ttl_ms, result_ttl_ms), WATCH_REPLY)


def stop_waiting(*, id: Text, mailbox: Text) -> Call[bool]:
    """A client stops waiting for a task.

    Replies 1 if it was registered, else 0.
    """
    return Call("stop_waiting", (id, mailbox), flag)


def progress(
    *, worker: Text, id: Text, token: Text, progress: Text, result_ttl_ms: int, told: Iterable[Told]
) -> Call[Literal["ok", "stale"]]:
    """The attempt's worker reports its progress: a fraction and a message, notes, lines of its log.

    Replies `ok`, or `stale`: another attempt has the task now, nothing changed.
    """
    return Call(
        "progress", (worker, id, token, progress, result_ttl_ms, *(value for record in told for value in record)), word
    )


def emit(
    *, worker: Text, id: Text, token: Text, number: int, result_ttl_ms: int, chunks: Iterable[NewChunk]
) -> Call[Literal["ok", "stale"]]:
    """The attempt's worker adds chunks to the task's stream.

    Replies `ok`, or `stale`: another attempt has the task now, nothing changed.
    """
    return Call(
        "emit", (worker, id, token, number, result_ttl_ms, *(value for record in chunks for value in record)), word
    )


def requeue(*, tasks: Iterable[Text]) -> Call[list[Literal["queued", "not_dead"] | Exception]]:
    """Dead letters run again: same id and arguments, a fresh retry budget.

    Replies one string per id: `queued` or `not_dead`, or an error.
    """
    return Call("requeue", (*tasks,), answers)


def requeue_with(
    *, id: Text, args: Text, kwargs: Text, codec: Text, headers: Text
) -> Call[Literal["queued", "not_dead"]]:
    """A dead letter runs again with other arguments: same id, a fresh retry budget.

    Replies `queued` or `not_dead`.
    """
    return Call("requeue_with", (id, args, kwargs, codec, headers), word)


def discard(*, result_ttl_ms: int, tasks: Iterable[Text]) -> Call[list[Literal["discarded", "not_dead"] | Exception]]:
    """Dead letters are discarded: their errors are kept as long as results are.

    Replies one string per id: `discarded` or `not_dead`, or an error.
    """
    return Call("discard", (result_ttl_ms, *tasks), answers)


def purge(*, place: Text, which: Text, offset: int, limit: int, result_ttl_ms: int) -> Call[PurgeReply]:
    """Discards waiting tasks or dead letters, a bounded number per call.

    Replies how many were discarded; 1 when more is left, else 0; how many of other lanes were skipped.
    """
    return Call("purge", (place, which, offset, limit, result_ttl_ms), PURGE_REPLY)


def discard_old(*, dead_ttl_ms: int, dead_limit: int, limit: int, result_ttl_ms: int) -> Call[DiscardOldReply]:
    """Dead letters beyond an age or a number are discarded, the oldest first, a bounded number per call.

    Replies how many were discarded; 1 when more is left to discard, else 0.
    """
    return Call("discard_old", (dead_ttl_ms, dead_limit, limit, result_ttl_ms), DISCARD_OLD_REPLY)


def pause(*, task: Text, argument: Text, value: Text, positions: Text) -> Call[Literal["paused"]]:
    """Keeps tasks from starting: all in the queue, those of a name, or those with a given argument.

    Replies `paused`.
    """
    return Call("pause", (task, argument, value, positions), word)


def resume(*, task: Text, argument: Text, value: Text, limit: int, resuming: int) -> Call[ResumeReply]:
    """A pause ends; what was held under it goes back to the front of its lane, a bounded number per call.

    Replies `resumed` or `not_paused`; how many went back; 1 when more is left (call again with `resuming`;
    otherwise heartbeats do it), else 0.
    """
    return Call("resume", (task, argument, value, limit, resuming), RESUME_REPLY)


def limits_declare(*, limits: Iterable[NewLimit]) -> Call[int]:
    """What code says of its limits. The last to declare one counts.

    Replies how many are new or have changed.
    """
    return Call("limits_declare", (*(value for record in limits for value in record),), number)


def limit_put(*, name: Text, key: Text, definition: Text) -> Call[Literal["put", "same"]]:
    """An operator changes a limit, or one key of it, over what code declared; or puts one that no code declares.

    Replies `put`, or `same`.
    """
    return Call("limit_put", (name, key, definition), word)


def limit_remove(*, name: Text, key: Text) -> Call[Literal["removed", "not_found"]]:
    """Takes back what was put over a limit or one key of it; without that, the limit that code declared, until that
    code declares it again.

    Replies `removed`, or `not_found`.
    """
    return Call("limit_remove", (name, key), word)


def schedule_put(*, name: Text, definition: Text, next_due_at: int) -> Call[int]:
    """A client creates or changes a schedule; its next due time stays unless its timing changed.

    Replies when it falls due next.
    """
    return Call("schedule_put", (name, definition, next_due_at), number)


def schedule_fire(
    *, name: Text, due_at: int, following_at: int, next_due_at: int, headers: Text
) -> Call[ScheduleFireReply]:
    """A worker says that an occurrence is due: it is enqueued once, and the schedule moves on to the next.

    Replies `fired`, `exists` (a task of its id waits or runs), `coalesced` (the previous one still waits),
    `paused`, `skipped` (it was missed, by a minute: the definition's `missed` says whether it runs, with `all` a
    hundred in a row); `moved` (another worker was faster), `early` (by the server's clock), `gone`; when it falls
    due next; the task's id.
    """
    return Call("schedule_fire", (name, due_at, following_at, next_due_at, headers), SCHEDULE_FIRE_REPLY)


def schedule_declare(*, version: Text, starting: int, schedules: Iterable[Declared]) -> Call[ScheduleDeclareReply]:
    """A worker declares the schedules of its code. Of the versions that run, the last to appear counts: its schedules
    are put, those of the previous one removed.

    Replies `declared` and the names of those removed, `kept` (they already count), `superseded` (those of another
    version count), or `nothing` (there are none, and were none).
    """
    return Call(
        "schedule_declare",
        (version, starting, *(value for record in schedules for value in record)),
        SCHEDULE_DECLARE_REPLY,
    )


def schedule_pause(*, name: Text, paused: int) -> Call[Literal["ok", "not_found"]]:
    """Pauses or resumes a schedule; while it is paused, its occurrences are skipped.

    Replies `ok` or `not_found`.
    """
    return Call("schedule_pause", (name, paused), word)


def schedule_remove(*, name: Text) -> Call[Literal["removed", "not_found"]]:
    """Removes a schedule. The tasks it has enqueued still run.

    Replies `removed` or `not_found`.
    """
    return Call("schedule_remove", (name,), word)


def report_stats(*, tasks: Iterable[TaskFigures]) -> Call[Literal["ok"]]:
    """A worker reports how often its tasks ran since its last report, and for how long.

    Replies `ok`.
    """
    return Call("report_stats", (*(value for record in tasks for value in record),), word)


def repair(
    *, result_ttl_ms: int, findings: Iterable[Finding]
) -> Call[list[Literal["mended", "sound", "by_hand"] | Exception]]:
    """Repairs what fsck found; each finding is checked again first, and what is sound by now is left alone.

    Replies one string per finding: `mended`, `sound` (nothing is wrong by now) or `by_hand` (left to a person).
    """
    return Call("repair", (result_ttl_ms, *(value for record in findings for value in record)), answers)


def task(*, id: Text) -> Call[dict[str, bytes]]:
    """A task's record.

    Replies field and value in turn; empty if it does not exist.
    """
    return Call("task", (id,), table(raw))


def position(*, id: Text, limit: int) -> Call[PositionReply]:
    """Which place a task is in, its position there (as in `list`), and how long its record is kept.

    Replies the place, empty if it is in none; the lane of `queued`, the pause of `held`, the worker of `running`;
    its position, 0 the next to run (dead: the newest), or -1: not among those looked at, or unordered; how many
    entries the place has; how long the record is kept (ms), -1: forever, -2: no record.
    """
    return Call("position", (id, limit), POSITION_REPLY)


def list_(*, place: Text, which: Text, offset: int, limit: int) -> Call[list[Entry]]:
    """A page of the ids in one place.

    Replies id and number in turn: due time, lease token, time of death, when last given to a worker that does not
    know it; for `queued` the position, for `held` the order.
    """
    return Call("list", (place, which, offset, limit), ENTRY.rows)


def dead_letters(*, task: Text, error: Text, since_at: int, before_at: int, limit: int) -> Call[DeadLettersReply]:
    """A page of dead letters by task, error and time, the newest first.

    Replies `before_at` of the next page (0: this is the last), then each dead letter.
    """
    return Call("dead_letters", (task, error, since_at, before_at, limit), DEAD_LETTERS_REPLY)


def find(
    *,
    place: Text,
    which: Text,
    offset: int,
    limit: int,
    task: Text,
    text: Text,
    argument: Text,
    value: Text,
    positions: Text,
) -> Call[FindReply]:
    """A page of one place: the tasks of a name, with a text, or with an argument.

    Replies the `offset` of the next page (0: this is the last), how many were looked at, how many entries the place
    has; then each task that fits: id, number (as in `list`), state, name, lane, tries, and up to 500 bytes each of
    its arguments, in its codec, and of its error. What moves between two pages may be in both, or in neither.
    """
    return Call("find", (place, which, offset, limit, task, text, argument, value, positions), FIND_REPLY)


def audit(*, offset: int, limit: int) -> Call[AuditReply]:
    """What people did to the queue, the newest first.

    Replies how many there are; then of each when it was done (ms), by whom, from where, what, to which, to how
    many, and what came of it; one that is no entry is left out.
    """
    return Call("audit", (offset, limit), AUDIT_REPLY)


def audit_add(
    *, user: Text, client: Text, action: Text, subject: Text, number: int, outcome: Text
) -> Call[Literal["added"]]:
    """Notes what somebody has done to the queue; of each text 500 bytes are kept.

    Replies `added`.
    """
    return Call("audit_add", (user, client, action, subject, number, outcome), word)


def failures(*, limit: int) -> Call[FailuresReply]:
    """The newest dead letters by task and kind of error, the most frequent first.

    Replies how many were looked at, and how many there are; then of each task and kind of error (its text up to the
    first colon, space or parenthesis) how many of those have it, when the newest and the oldest of them failed
    (ms), and id and error of the newest, its text up to 500 bytes.
    """
    return Call("failures", (limit,), FAILURES_REPLY)


def stream(*, id: Text, after_token: int, after_number: int, limit: int) -> Call[StreamReply]:
    """A page of the chunks that a task emitted.

    Replies 1 if more follow by now; then each chunk: the lease token of its attempt, its number there, from 0, and
    the try; a page ends early beyond 1 MiB.
    """
    return Call("stream", (id, after_token, after_number, limit), STREAM_REPLY)


def log(*, id: Text, limit: int) -> Call[list[str]]:
    """The last lines that a task wrote.

    Replies the lines, oldest first.
    """
    return Call("log", (id, limit), texts)


def schedules(*, cursor: Text, limit: int) -> Call[SchedulesReply]:
    """A page of the schedules, unordered. One that is there throughout is on at least one page.

    Replies where to continue, 0 at the end; then each schedule's name, next due time and definition.
    """
    return Call("schedules", (cursor, limit), SCHEDULES_REPLY)


def schedule(*, name: Text) -> Call[ScheduleRow | None]:
    """One schedule.

    Replies name, next due time and definition; nothing if it does not exist.
    """
    return Call("schedule", (name,), SCHEDULE_ROW.optional)


def schedules_due(*, offset: int, limit: int) -> Call[SchedulesDueReply]:
    """The schedules that are due, the longest overdue first, and when the next one will be.

    Replies the server's time in ms; when the next one will be due, or -1; then each schedule's name, due time and
    definition.
    """
    return Call("schedules_due", (offset, limit), SCHEDULES_DUE_REPLY)


def pauses() -> Call[list[PauseRow]]:
    """What is paused, and how much is held.

    Replies each pause, its definition (JSON) and the number of tasks held under it.
    """
    return Call("pauses", (), PAUSE_ROW.rows)


def limits(*, cursor: Text, limit: int) -> Call[LimitsReply]:
    """The limits that are declared, and those that operators put something for, or for one of their keys.

    Replies where to continue, 0 at the end; then each limit or bucket, its definition (JSON), whether code declares
    it, whether something was put over that, how many run and wait, whether these figures are exact (0: at least so
    many), when it has room by time (ms, or 0), and what share of its definition is left (1: all).
    """
    return Call("limits", (cursor, limit), LIMITS_REPLY)


def limit(*, name: Text, key: Text) -> Call[LimitRow | None]:
    """One limit, or one key of it.

    Replies its bucket, its definition (JSON), whether code declares it, whether something was put over that, how
    many run and wait, whether these figures are exact (0: at least so many), when it has room by time (ms, or 0),
    and what share of its definition is left (1: all); nothing if there is no such limit.
    """
    return Call("limit", (name, key), LIMIT_ROW.optional)


def buckets(*, name: Text, cursor: Text, limit: int) -> Call[BucketsReply]:
    """The buckets that are in use: of which attempts run, or tasks wait.

    Replies where to continue, 0 at the end; then each bucket, its definition (JSON), whether code declares it,
    whether something was put over that, how many run and wait, whether these figures are exact (0: at least so
    many), when it has room by time (ms, or 0), and what share of its definition is left (1: all).
    """
    return Call("buckets", (name, cursor, limit), BUCKETS_REPLY)


def workers(*, cursor: Text, limit: int) -> Call[WorkersReply]:
    """A page of the queue's workers, unordered. One that is there throughout is on at least one page.

    Replies where to continue, 0 at the end; the server's time in ms; how many workers in all have a valid lease;
    then of each worker when its lease runs out (0 or less: it is lost), how many tasks it has claimed, and what is
    in `worker:<worker>`.
    """
    return Call("workers", (cursor, limit), WORKERS_REPLY)


def claims(*, worker: Text, offset: int, limit: int) -> Call[ClaimsReply]:
    """A page of what a worker has claimed, the oldest claim first.

    Replies the server's time in ms; then each task's id, name, lane, number of the attempt, when it was claimed
    (ms) and progress.
    """
    return Call("claims", (worker, offset, limit), CLAIMS_REPLY)


def longest_running(*, limit: int, workers: Iterable[WorkerSlots]) -> Call[LongestRunningReply]:
    """What some workers run, the longest first.

    Replies the server's time in ms; how many of these workers were looked at, in their order: at least one, and no
    more than have 1,000 claims together; then each task's worker, id, name, lane, number of the attempt, when it
    was claimed (ms) and progress.
    """
    return Call("longest_running", (limit, *(value for record in workers for value in record)), LONGEST_RUNNING_REPLY)


def oldest_ready() -> Call[OldestReadyReply]:
    """Since when the oldest task of each lane has been ready, with those that wait for their limits.

    Replies the server's time in ms; then each lane in which a task is ready, and since when (ms): the one that is
    next, or of up to 100 lines that have their turn, and as many that have no room, the first one of each, if that
    is older.
    """
    return Call("oldest_ready", (), OLDEST_READY_REPLY)


def stats(*, minutes_ago: int, minutes: int) -> Call[StatsReply]:
    """The counters of single minutes, the newest first.

    Replies the server's time in ms; then of each minute how long ago it was and its counters, as `stats:<minute>`
    has them.
    """
    return Call("stats", (minutes_ago, minutes), STATS_REPLY)


def task_stats(*, minutes_ago: int, minutes: int) -> Call[TaskStatsReply]:
    """How often and for how long each task ran in single minutes, the newest first.

    Replies the server's time in ms; then, for each minute and task, how long ago it was, the task and its JSON
    array, as `task_stats:<minute>` has them.
    """
    return Call("task_stats", (minutes_ago, minutes), TASK_STATS_REPLY)


def counts() -> Call[dict[str, int]]:
    """How many tasks are in each place.

    Replies name and number in turn: `scheduled`, `queued`, `running`, `held`, `quarantined`, `dead`, `workers`,
    `ready:<lane>` for each lane, and `held:<pause>` for each pause that holds any.
    """
    return Call("counts", (), table(number))


def overview(*, minutes: int) -> Call[OverviewReply]:
    """What people ask first of a queue, in one call: it costs the same however many tasks and workers there are.

    Replies the server's time in ms; when the next scheduled task falls due (ms; 0: none is scheduled); how many
    workers have no valid lease any more; then name and number in turn: those of `counts`; `overdue`, how many
    scheduled ones are due; `since:<lane>` as in `oldest_ready`; `total:<counter>` and, of the last minutes, 0 being
    this one, `minute:<minutes ago>:<counter>`, each if it is not 0.
    """
    return Call("overview", (minutes,), OVERVIEW_REPLY)


def fsck_page(*, section: Text, cursor: Text, limit: int) -> Call[FsckPageReply]:
    """Checks one page of the queue against the invariants.

    Replies next cursor (`0` at the end), how many entries were looked at; then each finding: kind, id, detail.
    """
    return Call("fsck_page", (section, cursor, limit), FSCK_PAGE_REPLY)


def checkpoint(*, worker: Text, id: Text, token: Text, name: Text, codec: Text, value: Text) -> Call[CheckpointReply]:
    """The attempt's worker keeps the result of a step for later attempts; what is kept already stays.

    Replies `stored`, `kept` (it has a result: its codec and value) or `stale` (another attempt has the task now,
    nothing changed).
    """
    return Call("checkpoint", (worker, id, token, name, codec, value), CHECKPOINT_REPLY)


def wait(*, worker: Text, id: Text, token: Text, name: Text, signals: Text, wait_ms: int) -> Call[WaitReply]:
    """The attempt's worker waits for one of several signals, or for some time: it is decided here, and for later
    attempts, or is to be waited for, with the outcome `suspend`.

    Replies `signal` (its name, codec and value), `timeout`, `waits` (and for how long; -1: as long as it takes) or
    `stale` (another attempt has the task now, nothing changed).
    """
    return Call("wait", (worker, id, token, name, signals, wait_ms), WAIT_REPLY)


def signal(
    *, id: Text, name: Text, codec: Text, value: Text, nonce: Text
) -> Call[Literal["stored", "woken", "accepted", "finished", "not_found"]]:
    """A client sends a signal to a task, which takes it now if it waits for it, or when it waits for it later.

    Replies `stored` (the task has not asked for it yet: up to 1,000 are kept until its end), `woken` (it waited for
    this), `accepted` (this very call was already carried out), `finished` or `not_found`.
    """
    return Call("signal", (id, name, codec, value, nonce), word)


def steps(*, id: Text, name: Text) -> Call[list[MemoRow]]:
    """What a task keeps from one attempt to the next: results of steps, and what its waits came to.

    Replies of each its name, whether its text is here, and that, as `steps:<id>` has it; beyond 1 MiB in all it is
    not, and is to be asked for by name.
    """
    return Call("steps", (id, name), MEMO_ROW.rows)


def workflow_create(
    *, id: Text, options: Text, nodes: Iterable[NewNode]
) -> Call[Literal["created", "accepted", "exists", "building", "kept", "stale"]]:
    """A client creates a workflow: tasks, and maps of one function over many items, with the order they run in and the
    results they pass on. All of it, or nothing. Those that need no other begin.

    Replies `created`; `accepted` (this very call was already carried out; with a parent, an attempt of that has
    created it, and it goes on); `exists` (one of this id has not ended), `building` (one of this id is being
    created by parts) or `kept` (one has ended, and is kept): nothing was added; `stale` (another attempt has the
    parent now, nothing changed).
    """
    return Call("workflow_create", (id, options, *(value for record in nodes for value in record)), word)


def workflow_items(*, id: Text, map: Text, offset: int, items: Iterable[NewItem]) -> Call[WorkflowItemsReply]:
    """A client adds a page of calls to a map of a workflow that it creates by parts.

    Replies `added`, `accepted` (a page that is there already), `started` (it is complete: nothing was added) or
    `not_found`; and how many calls the map has.
    """
    return Call(
        "workflow_items", (id, map, offset, *(value for record in items for value in record)), WORKFLOW_ITEMS_REPLY
    )


def workflow_fill(
    *, worker: Text, id: Text, token: Text, map: Text, offset: int, items: Iterable[NewItem]
) -> Call[WorkflowFillReply]:
    """A task of a workflow adds a page of calls to the map that comes after it, which begins when the task has
    completed.

    Replies `added`, `accepted` (a page that is there already, or an empty one: it asks how many there are), `stale`
    (another attempt has the task now), `ended` (the map has begun, or ended) or `not_found`; and how many calls the
    map has.
    """
    return Call(
        "workflow_fill",
        (worker, id, token, map, offset, *(value for record in items for value in record)),
        WORKFLOW_FILL_REPLY,
    )


def workflow_add(*, id: Text, map: Text, key: Text, calls: Iterable[AddedCall]) -> Call[WorkflowAddReply]:
    """A client, or a task, adds calls to the open map of a workflow; also after it is sealed, while some of it has not
    ended.

    Replies `added`, `accepted` (this very call was already carried out), `ended` (the map has: nothing was added)
    or `not_found`; and how many calls the map has.
    """
    return Call("workflow_add", (id, map, key, *(value for record in calls for value in record)), WORKFLOW_ADD_REPLY)


def workflow_seal(*, id: Text) -> Call[Literal["sealed", "accepted", "not_found"]]:
    """All calls of a workflow's open map are there: it ends with the last of them, or now.

    Replies `sealed`, `accepted` (before, or it has ended) or `not_found`.
    """
    return Call("workflow_seal", (id,), word)


def workflow_start(*, id: Text) -> Call[Literal["started", "accepted", "not_found"]]:
    """All parts of a workflow are there: those of its tasks that need no other begin.

    Replies `started`, `accepted` (before, or it is aborted) or `not_found`.
    """
    return Call("workflow_start", (id,), word)


def workflow_abort(*, id: Text) -> Call[Literal["aborted", "requested", "finished", "not_found"]]:
    """Stops a workflow, and undoes what completed of it: its compensations run, one after the other, what completed
    last first.

    Replies `aborted` (now or before), `requested` (something of it runs, or its compensations do), `finished`
    (another way) or `not_found`.
    """
    return Call("workflow_abort", (id,), word)


def workflow_pause(*, id: Text) -> Call[Literal["paused", "finished", "not_found"]]:
    """Keeps the tasks of a workflow from starting, those of its maps, too. It ends with the workflow.

    Replies `paused`, `finished` (it has ended) or `not_found`.
    """
    return Call("workflow_pause", (id,), word)


def workflow_resume(*, id: Text, limit: int, resuming: int) -> Call[WorkflowResumeReply]:
    """The pause of a workflow ends; what was held under it goes back to the front of its lane, a bounded number per
    call.

    Replies `resumed` or `not_paused`; how many went back; 1 when more is left (call again with `resuming`;
    otherwise heartbeats do it), else 0.
    """
    return Call("workflow_resume", (id, limit, resuming), WORKFLOW_RESUME_REPLY)


def workflow(*, id: Text, offset: int, limit: int) -> Call[WorkflowReply]:
    """A workflow, and a page of its members.

    Replies its state (`not_found`: there is none) and kind; then of each member its name, kind (`map`, or empty),
    task, state, what it comes after, and of a map how many calls it has and how many of them completed, failed,
    were skipped and aborted; its error; and its queue where that is another one.
    """
    return Call("workflow", (id, offset, limit), WORKFLOW_REPLY)


def outbox(*, limit: int) -> Call[list[OutboxRow]]:
    """What there is to tell other queues, as calls of functions there.

    Replies of each entry, the next one first: the entry, the life that it is about, the queue, the name of the
    function, and its arguments as netstrings; empty where there is nothing to say any more. A page ends early
    beyond 1 MiB. Results of up to 64 KiB are among the arguments of a task that begins; the place of a larger one,
    and of the results of a map, says where its worker finds them.
    """
    return Call("outbox", (limit,), OUTBOX_ROW.rows)


def outbox_done(*, entries: Iterable[OutboxEntry]) -> Call[int]:
    """Other queues were told, and have answered: what is settled by that leaves the outbox, the rest waits behind the
    others.

    Replies how many have left the outbox.
    """
    return Call("outbox_done", (*(value for record in entries for value in record),), number)


def home_ended(
    *,
    id: Text,
    life: Text,
    state: Text,
    result: Text,
    codec: Text,
    error: Text,
    traceback: Text,
    tries: Text,
    started_at: Text,
    history: Text,
) -> Call[Literal["ended", "accepted", "not_found"]]:
    """A task of a workflow has ended in the other queue that it was handed to.

    Replies `ended`; `accepted` (it was told before, or of an earlier life) or `not_found` (there is no such member
    of a workflow any more).
    """
    return Call("home_ended", (id, life, state, result, codec, error, traceback, tries, started_at, history), word)


def abort_guest(*, id: Text, home: Text, life: Text) -> Call[Literal["aborted", "requested", "finished", "not_found"]]:
    """A task of a workflow in another queue is to stop: at once if it waits, by request if it runs.

    Replies `aborted` (now or before), `requested` (its worker is told), `finished` (another way) or `not_found` (it
    is not there for that queue and that time).
    """
    return Call("abort_guest", (id, home, life), word)


def workflow_dead(*, id: Text, limit: int) -> Call[list[str]]:
    """Dead letters of a workflow, also those of its maps, in no order.

    Replies their ids.
    """
    return Call("workflow_dead", (id, limit), texts)


def workflows(*, offset: int, limit: int) -> Call[list[WorkflowRow]]:
    """A page of the workflows that have not ended, the newest first.

    Replies id and time of creation in turn.
    """
    return Call("workflows", (offset, limit), WORKFLOW_ROW.rows)


def results(*, map: Text, offset: int, limit: int) -> Call[ResultsReply]:
    """A page of the results of a map's calls, or of a workflow's nodes, that have completed, in order.

    Replies how many calls or nodes it has (-1: there is none, or not any more); where the next page begins; then
    number, codec and result of each call that has completed; a page ends early beyond 1 MiB.
    """
    return Call("results", (map, offset, limit), RESULTS_REPLY)
