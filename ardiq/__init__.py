"""Ardiq: a distributed task queue for Python on Redis and Valkey.

Decorate a function with `@app.task`, enqueue calls of it from anywhere, and run workers with `ardiq run`.
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
