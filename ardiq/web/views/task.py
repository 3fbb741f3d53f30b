"""One task: its attempts in time, arguments, result, notes, progress and log."""

import time
from typing import Any

from ..._client.following import edges_of
from ..._client.inspector import NOTE, number_of, text_of
from ..._server import calls
from ..._values.encodings import from_json
from ...watching import read_progress
from .._asked import Asked, Refused

_LINES = 200
_OVER = ("complete", "failed", "aborted", "expired", "discarded", "skipped")
_LONGEST_JSON = 1 << 20
_TIMES = ("enqueued_at", "due_at", "expires_at", "started_at", "finished_at")


async def read(asked: Asked) -> dict[str, Any]:
    task_id = asked.path["id"]
    record = await asked.ask(calls.task(id=task_id))
    if not record:
        raise Refused(404, f"there is no task {task_id!r}: it was never enqueued, or its record is no longer kept")
    state, name = text_of(record, "state"), text_of(record, "name")
    tries = number_of(record, "tries")
    found: dict[str, Any] = {
        "queue": asked.app.queue_name,
        "now": int(1000 * time.time()),
        "id": task_id,
        "name": name,
        "state": state,
        "is_over": state in _OVER,
        "lane": text_of(record, "lane"),
        "tries": tries,
        "lost": number_of(record, "lost"),
        **{field: number_of(record, field) for field in _TIMES if field in record},
        "worker": text_of(record, "worker"),
        "error": text_of(record, "error"),
        "traceback": text_of(record, "traceback"),
        "attempts": attempts(record),
        "progress": told_progress(record.get("progress", b""), asked.sees_payloads),
        "workflow": task_id.partition("~")[0] if "~" in task_id else None,
        "after": edges_of(text_of(record, "after")) if "after" in record else {},
        "is_workflow": text_of(record, "kind") == "workflow",
        "size": sum(map(len, record.values())),
    }
    found |= _payloads(asked, name, record)
    if tries or "started_at" in record:
        found["log"] = await asked.ask(calls.log(id=task_id, limit=_LINES)) if asked.sees_payloads else None
    else:  # it has no log
        position = await asked.ask(calls.position(id=task_id, limit=calls.POSITION_LIMIT_MOST))
        found["log"] = []
        found["position"] = position.position if position.position >= 0 else None
        found["of"] = position.length
    return found


def attempts(record: dict[str, bytes]) -> list[dict[str, Any]]:
    """Those that did not succeed, and the last one if it runs or did; the first comes first."""
    rows = []
    for entry in _listed(record.get("history", b"")):
        ended_at, ran = _whole(entry.get("ended_at")), entry.get("run_ms")
        rows.append({
            "try": _whole(entry.get("try")),
            "state": "failed",
            "started_at": ended_at - _whole(ran) if ended_at else 0,
            "ended_at": ended_at,
            "run_ms": None if ran is None else _whole(ran),
            "worker": str(entry.get("worker", "")),
            "error": str(entry.get("error", "")),
        })  # fmt: skip
    state, started_at = text_of(record, "state"), number_of(record, "started_at")
    if state in ("running", "complete") and started_at:
        ended_at = number_of(record, "finished_at") if state == "complete" else 0
        rows.append({
            "try": number_of(record, "tries"),
            "state": state,
            "started_at": started_at,
            "ended_at": ended_at,
            "run_ms": max(0, ended_at - started_at) if ended_at else None,
            "worker": text_of(record, "worker"),
            "error": "",
        })  # fmt: skip
    return rows


def _payloads(asked: Asked, name: str, record: dict[str, bytes]) -> dict[str, Any]:
    """What the task was given, returned and noted, without secrets; None where the user may not see it."""
    if not asked.sees_payloads:
        return {"arguments": None, "result": None, "notes": None, "headers": None}
    redactor = asked.redactor
    return {
        "arguments": _arguments(asked, name, record),
        "result": _value(redactor, record, "result", "result_codec"),
        "notes": {
            field.removeprefix(NOTE): redactor.named(field.removeprefix(NOTE), _json(value))
            for field, value in record.items()
            if field.startswith(NOTE)
        },
        "headers": redactor.value(_json(record["headers"])) if "headers" in record else {},
    }


def _arguments(asked: Asked, name: str, record: dict[str, bytes]) -> list[tuple[str, Any]] | str:
    """By name; a sentence where they cannot be read as JSON, which alone can be redacted."""
    args, kwargs, codec = record.get("args", b"[]"), record.get("kwargs", b"") or b"{}", text_of(record, "codec")
    if codec not in ("", "json"):
        return f"{len(args) + len(kwargs):,} bytes in the codec {codec!r}"
    if len(args) + len(kwargs) > _LONGEST_JSON:
        return f"{len(args) + len(kwargs):,} bytes, too many to show"
    try:
        return asked.redactor.call(from_json(args), from_json(kwargs), asked.app.context.registry.signature_of(name))
    except (TypeError, ValueError, AttributeError):
        return f"{len(args) + len(kwargs):,} bytes that are not JSON"


def _value(redactor: Any, record: dict[str, bytes], field: str, codec: str) -> Any:
    data = record.get(field, b"")
    if not data:
        return None
    if text_of(record, codec) not in ("", "json"):
        return f"{len(data):,} bytes in the codec {text_of(record, codec)!r}"
    if len(data) > _LONGEST_JSON:
        return f"{len(data):,} bytes, too many to show"
    try:
        return redactor.value(from_json(data))
    except ValueError:
        return f"{len(data):,} bytes that are not JSON"


def told_progress(told: bytes, with_message: bool) -> dict[str, Any] | None:
    """How far a task is, as it told; its message is a payload."""
    progress = read_progress(told)
    if progress is None:
        return None
    fraction: object = progress.fraction
    part = min(1.0, max(0.0, fraction)) if isinstance(fraction, int | float) else 0.0
    return {"fraction": part, "message": str(progress.message) if with_message else ""}


def _json(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        return data.decode(errors="replace")


def _listed(data: bytes) -> list[dict[str, Any]]:
    found = _json(data)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0
