"""For your own logging configuration: JSON lines, and which task a line belongs to."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from . import context

__all__ = ["JsonFormatter", "TaskFields"]

FIELDS = ("task", "task_id", "attempt", "queue")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TaskFields(logging.Filter):
    """Adds `task`, `task_id`, `attempt` and `queue` of the running task to every record; empty outside of tasks.

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
    """One JSON object per line: `time` (UTC), `level`, `logger`, `message`, `process`; within a task `task`, `task_id`,
    `attempt` and `queue`; what `extra=` added; `exception` and `traceback` if there is one.
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


def running_fields() -> dict[str, Any]:
    """The fields of the task that runs here, if one does."""
    claim, reports = context.running.get(), context.reports.get()
    if claim is None:
        return {}
    fields = {"task": claim[2], "task_id": claim[0], "attempt": claim[8]}
    return fields if reports is None else {**fields, "queue": reports.queue}


def _dumps(line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=repr, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # not a number, a key that is no text, a circle
        return json.dumps(
            {name: value if isinstance(value, str | int) else repr(value) for name, value in line.items()}
        )
