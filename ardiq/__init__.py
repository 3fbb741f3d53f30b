"""Ardiq: a distributed task queue for Python on Redis and Valkey.

Decorate a function with `@app.task`, enqueue calls of it from anywhere, and run workers with `ardiq run`.

Public modules are at the top, private ones in rooms. A room imports only what is below it; docs/internals.md says which
file to open for what.

| room | has |
|---|---|
| `cli` `django` `sqlalchemy` `testing` | entrances: commands, frameworks, tests |
| `app` | the facade: puts together what is below |
| `_serving` | several queues in one worker |
| `_execution`, `context` | running tasks: worker, attempts, threads, child processes, due schedules, reports |
| `_client` | enqueueing, asking, changing; what an app registered; the context of a queue |
| … `task` `job` `dead` `schedules` `pauses` `watching` | what of it users hold in their hands |
| `_server` | one server seen from one process: core, channel, inbox, mailbox, typed calls and replies |
| `_values` | plain values and rules: settings, options, codec, signatures, signing, timing |
| … `models` `errors` `retries` `executors` | those that users name |
| `_core` | the compiled core, `native/` |
"""

from ._values.defaults import TaskDefaults
from .app import Ardiq
from .context import current_task
from .errors import (
    ArdiqError,
    BadArgument,
    BadSignature,
    BrokerError,
    Forbidden,
    InvalidArguments,
    InvalidResult,
    LeaseLost,
    LibraryError,
    OldStep,
    OutOfMemory,
    ProcessDied,
    Retry,
    Snooze,
    TaskError,
    WrongType,
)
from .executors import Process
from .job import Job
from .models import (
    Attempt,
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
from .task import PreparedTask, Task
from .watching import TaskUpdate

__all__ = [
    "Ardiq",
    "ArdiqError",
    "Attempt",
    "BadArgument",
    "BadSignature",
    "BrokerError",
    "DeadLetter",
    "DeadRecord",
    "EnqueueContext",
    "ErrorContext",
    "ExecutionContext",
    "Forbidden",
    "Histogram",
    "InvalidArguments",
    "InvalidResult",
    "Job",
    "LeaseLost",
    "LibraryError",
    "OldStep",
    "OutOfMemory",
    "Pause",
    "PreparedTask",
    "Process",
    "ProcessDied",
    "Progress",
    "Retry",
    "Schedule",
    "ScheduleOutcome",
    "Snooze",
    "State",
    "Task",
    "TaskContext",
    "TaskDefaults",
    "TaskError",
    "TaskInfo",
    "TaskMetrics",
    "TaskResult",
    "TaskUpdate",
    "Unreadable",
    "WrongType",
    "current_task",
]
