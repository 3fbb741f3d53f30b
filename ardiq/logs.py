"""For your own logging configuration: JSON lines, short lines, which task a line belongs to, and its own log."""

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from . import context
from ._values.ids import schedule_of
from .models import TaskContext

__all__ = ["DevFormatter", "JsonFormatter", "TaskFields", "TaskHandler", "add_task"]

FIELDS = ("task", "task_id", "attempt", "queue", "worker", "lane", "schedule", "trace_id", "span_id")

_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1", logging.DEBUG: "2"}
_SHOWN_OF_ID = 6

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TaskFields(logging.Filter):
    """Adds `task`, `task_id`, `attempt`, `queue`, `worker`, `lane` and `schedule` of the running task to every record,
    and `trace_id` and `span_id` of OpenTelemetry; what there is not is empty, outside of tasks all of it.

    Fields that a record already has stay. Put it on a handler, so that it sees the records of all loggers.

    Example:
        ```python
        handler.addFilter(TaskFields())
        handler.setFormatter(logging.Formatter("%(levelname)s [%(task)s %(task_id)s] %(message)s"))
        ```
    """

    def filter(self, record: logging.LogRecord) -> bool:
        fields = running_fields()
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, fields.get(name, ""))
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time` (UTC), `level`, `logger`, `message`, `process`; within a task the fields that
    `TaskFields` adds, as far as there are any; what `extra=` added; `exception` and `traceback` if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {name: value for name, value in vars(record).items() if name not in _STANDARD and value != ""}
        line = {**running_fields(), **line} | {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            record.exc_text = record.exc_text or self.formatException(record.exc_info)
            if record.exc_info[0] is not None:
                line["exception"] = record.exc_info[0].__name__
        if record.exc_text:
            line["traceback"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # What it is about comes first for whoever reads it.
        first = ("time", "level", "logger", "message")
        return _dumps({name: line.pop(name) for name in first} | line)


class DevFormatter(logging.Formatter):
    """Short lines for a terminal: the time of day, the level, task and attempt, the message, what `extra=` added.

    Args:
        colours: whether levels have colours; None: if standard error is a terminal and `NO_COLOR` is not set.
    """

    def __init__(self, colours: bool | None = None) -> None:
        super().__init__(datefmt="%H:%M:%S")
        is_terminal = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._is_coloured = is_terminal if colours is None else colours

    def format(self, record: logging.LogRecord) -> str:
        fields = running_fields() | {name: value for name, value in vars(record).items() if name not in _STANDARD}
        task, task_id = fields.get("task"), str(fields.get("task_id", ""))
        known = [f"{task} {task_id[:_SHOWN_OF_ID]} #{fields.get('attempt', '')}"] if task else []
        more = [f"{name}={value}" for name, value in fields.items() if name not in (*FIELDS, "event_name")]
        level = f"{record.levelname:7}"
        if self._is_coloured and (colour := _COLOURS.get(record.levelno)):
            level = f"\033[{colour}m{level}\033[0m"
        time = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03}"
        line = "  ".join([f"{time} {level}", *known, record.getMessage(), *more])
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return "\n".join([line, *([record.exc_text] if record.exc_text else [])])


class TaskHandler(logging.Handler):
    """Adds what is logged inside a task to the task's own log, with the level in front: `job.logs()` and
    `ardiq task show` have it. Records of Ardiq's own logger are not of the task.

    Example:
        ```python
        logging.getLogger().addHandler(TaskHandler(logging.INFO))
        ```
    """

    def emit(self, record: logging.LogRecord) -> None:
        claim, reports = context.running.get(), context.reports.get()
        if claim is None or reports is None or record.name == "ardiq":
            return
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            TaskContext.of(claim, reports, None).log(f"{record.levelname} {text}")
        except Exception:
            self.handleError(record)


def add_task(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog that adds what `TaskFields` does, as far as there is any."""
    for name, value in running_fields().items():
        event.setdefault(name, value)
    return event


def running_fields() -> dict[str, Any]:
    """The fields of the task that runs here, if one does, and of the span."""
    claim, reports = context.running.get(), context.reports.get()
    if claim is None:
        return {}
    queue, worker = ("", "") if reports is None else (reports.queue, reports.worker_id)
    return claim_fields(claim, queue, worker) | _span_fields()


def claim_fields(claim: tuple[Any, ...], queue: str, worker: str) -> dict[str, Any]:
    """The fields of the task of a claim."""
    fields = {"task": claim[2], "task_id": claim[0], "attempt": claim[8], "queue": queue, "worker": worker}
    schedule = schedule_of(claim[0])
    return fields | {"lane": claim[7]} | ({"schedule": schedule} if schedule else {})


def _span_fields() -> dict[str, Any]:
    """Those of the span that is open here, if anybody uses OpenTelemetry."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    span = trace.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}


def _dumps(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=repr, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # not a number, a key that is no text, a circle
        return json.dumps(
            {name: value if isinstance(value, str | int) else repr(value) for name, value in line.items()}
        )
