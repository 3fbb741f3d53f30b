"""Ardiq: a distributed task queue for Python on Redis and Valkey.

Decorate a function with `@app.task`, enqueue calls of it from anywhere, and run workers with `ardiq run`.

The rooms, from the lowest; a module imports only from its own room and those above it in this list, and what begins
with an underscore is read in its own module alone (`tests/agreement/test_rooms.py`). Public modules are
`ardiq/<name>.py`, each listed with the room it belongs to. In which order things happen: `docs/internals.md`.

`_core`: the compiled core, `native/src`

`_values`: values and the rules about them; no server, no event loop
    models, errors, retries, executors, limits, batches, uniqueness, signals: what you receive, catch and configure
    dependencies: which parameters of a task are made for each attempt
    instruments: what is told of each enqueue and attempt
    settings, options, defaults, imports: an app's options and their checks
    signature, items, conversion, sameness: what a task's function takes and returns
    codec, encodings, chunks, headers, signing, ids: how a call travels
    kept: how results of steps and signals do
    references, inputs, results, filled: what stands for a result in a workflow, and what takes its place
    chosen, keyed, buckets: what of a call makes its key; its rule of `uniqueness`; its `limits`
    timing: cron expressions and periods
    urls: how a URL is shown
    metrics: counters of this process
    known, notes, reports, objects, typing: parts of jobs, contexts and models

`_server`: one server, seen from one process
    server, channel, inbox: a queue's connections, its part of one event loop, what comes back there
    calls, replies, commands: the library's functions as typed calls (generated), reading replies, the server's commands
    mailbox, changes: waiting for a task to end, watching it
    embedded, watchdog: a private Valkey server

`_client`: what an app asks of its queue
    queue, registry: the context of one queue, and what the app registered; everything below `app` is given a context
    task, job, producer, telling, answers, room, typing: enqueueing
    inspector, watching, streaming: what is asked about tasks, and what they tell
    overview, inspection, rules: what is asked about the queue, and how tasks are named by an argument
    dead, filters, schedules, pauses: changing what is there
    workflows, nodes, canvas, graphs, starting, adding: workflows, from a flow to what the server takes
    following, drawing, pages: workflows that run, and their results
    resuming: ending pauses
    signalling: signals to running tasks
    connecting: opening and closing connections
    facade, asking, batching, hooks, limiting, options: parts of `Ardiq`, which hand on to the modules above
    from_1_2: moving what ArdiQ 1.2 left

`_execution`: running the tasks of one queue
    worker, attempts, batches, chunks, filling, endings: claims become attempts, attempts become outcomes
    threads, processes, child, memory: where `def` tasks run
    reports, streams, context: what a running task tells, and knows of itself
    instrumented: what instruments are told of it
    waits, memos, children: its steps, sleeps and waits, and the calls whose results it waits for
    scheduler, retention, tally, carrier: a worker's other chores
    run_state, stalls, stacks, logging, logs: how a run stands, loops that do not turn, tracebacks, log lines

`_serving`: several queues in one worker
    serve

`app`: `Ardiq`, the facade over settings, registry and contexts

`cli`, `web`, `testing`, `django`, `sqlalchemy`, `otel`, `sentry`: what stands on the app; `cli` has one file a command,
`web` one a screen
"""

TYPE_CHECKING = not __name__  # False, which editors that read `False` would not look behind; `typing` takes a while
if TYPE_CHECKING:
    from ._client.adding import CallBatch
    from ._client.canvas import Chain, Group, chain, chord, group
    from ._client.following import WorkflowJob, WorkflowNode, WorkflowProgress
    from ._client.limiting import Limits
    from ._client.nodes import Map, Node, Subflow
    from ._client.overview import Inspect
    from ._client.starting import PreparedWorkflow, Workflow
    from ._values.defaults import TaskDefaults
    from ._values.results import Results
    from .app import Ardiq
    from .batches import Batch
    from .context import current_task, emit, emit_sync
    from .dependencies import Depends
    from .errors import (
        ArdiqError,
        BadArgument,
        BadSignature,
        BrokerError,
        ChildrenFailed,
        Duplicate,
        Forbidden,
        InvalidArguments,
        InvalidResult,
        ItemErrors,
        LeaseLost,
        LibraryError,
        NoLimit,
        OldStep,
        OutOfMemory,
        ProcessDied,
        QueueFull,
        RateLimited,
        Retry,
        Snooze,
        Suspend,
        TaskError,
        WrongType,
    )
    from .executors import Process
    from .inspection import (
        Found,
        FoundTask,
        LaneInfo,
        LimitInfo,
        MinuteCounts,
        QueueCounts,
        QueueOverview,
        RunningTask,
        TaskPosition,
        TaskTotals,
        UnknownTask,
        WorkerInfo,
    )
    from .job import Job
    from .limits import Limit, Rate
    from .models import (
        Attempt,
        DeadGroup,
        DeadGroups,
        DeadLetter,
        DeadRecord,
        EnqueueContext,
        ErrorContext,
        ExecutionContext,
        Histogram,
        Progress,
        State,
        TaskContext,
        TaskInfo,
        TaskMetrics,
        TaskResult,
        Unreadable,
    )
    from .pauses import Pause
    from .schedules import Schedule, ScheduleOutcome
    from .signals import Received, Signal
    from .streaming import Chunk
    from .task import PreparedTask, Task
    from .uniqueness import Debounce, Throttle, Unique
    from .waits import (
        children,
        children_sync,
        sleep,
        sleep_sync,
        step,
        step_key,
        step_sync,
        version,
        version_sync,
        wait_for,
        wait_for_sync,
    )
    from .watching import TaskUpdate
    from .workflows import Flow

__all__ = [
    "Ardiq",
    "ArdiqError",
    "Attempt",
    "BadArgument",
    "BadSignature",
    "Batch",
    "BrokerError",
    "CallBatch",
    "Chain",
    "ChildrenFailed",
    "Chunk",
    "DeadGroup",
    "DeadGroups",
    "DeadLetter",
    "DeadRecord",
    "Debounce",
    "Depends",
    "Duplicate",
    "EnqueueContext",
    "ErrorContext",
    "ExecutionContext",
    "Flow",
    "Forbidden",
    "Found",
    "FoundTask",
    "Group",
    "Histogram",
    "Inspect",
    "InvalidArguments",
    "InvalidResult",
    "ItemErrors",
    "Job",
    "LaneInfo",
    "LeaseLost",
    "LibraryError",
    "Limit",
    "LimitInfo",
    "Limits",
    "Map",
    "MinuteCounts",
    "NoLimit",
    "Node",
    "OldStep",
    "OutOfMemory",
    "Pause",
    "PreparedTask",
    "PreparedWorkflow",
    "Process",
    "ProcessDied",
    "Progress",
    "QueueCounts",
    "QueueFull",
    "QueueOverview",
    "Rate",
    "RateLimited",
    "Received",
    "Results",
    "Retry",
    "RunningTask",
    "Schedule",
    "ScheduleOutcome",
    "Signal",
    "Snooze",
    "State",
    "Subflow",
    "Suspend",
    "Task",
    "TaskContext",
    "TaskDefaults",
    "TaskError",
    "TaskInfo",
    "TaskMetrics",
    "TaskPosition",
    "TaskResult",
    "TaskTotals",
    "TaskUpdate",
    "Throttle",
    "Unique",
    "UnknownTask",
    "Unreadable",
    "WorkerInfo",
    "Workflow",
    "WorkflowJob",
    "WorkflowNode",
    "WorkflowProgress",
    "WrongType",
    "chain",
    "children",
    "children_sync",
    "chord",
    "current_task",
    "emit",
    "emit_sync",
    "group",
    "sleep",
    "sleep_sync",
    "step",
    "step_key",
    "step_sync",
    "version",
    "version_sync",
    "wait_for",
    "wait_for_sync",
]

_HOMES = (
    "_client.adding",
    "_client.canvas",
    "_client.following",
    "_client.limiting",
    "_client.nodes",
    "_client.overview",
    "_client.starting",
    "_values.defaults",
    "_values.results",
    "app",
    "batches",
    "context",
    "dependencies",
    "errors",
    "executors",
    "inspection",
    "job",
    "limits",
    "models",
    "pauses",
    "schedules",
    "signals",
    "streaming",
    "task",
    "uniqueness",
    "waits",
    "watching",
    "workflows",
)
"""The modules of the names above."""


if not TYPE_CHECKING:

    def __getattr__(name):
        """A public name or module, when it is asked for: `python -m ardiq` comes before the import of all of them."""
        from importlib import import_module

        if name in _HOMES:
            return import_module(f".{name}", __name__)
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for home in _HOMES:
            module = import_module(f".{home}", __name__)
            own = {each: value for each, value in vars(module).items() if each in __all__}
            globals().update({each: value for each, value in own.items() if value.__module__ == module.__name__})
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
