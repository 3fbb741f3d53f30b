"""What `ardiq task show` tells of the steps of a task, and of what it waits for."""

from typing import TYPE_CHECKING, Any

from .._execution.memos import CHILDREN
from .._server import calls
from .._server.replies import ask, number, text
from .._values.kept import ENDED, SIGNAL, STEP, UNTIL, Memo
from ._output import Part, Table, json_text, moment, short

if TYPE_CHECKING:
    from ..app import Ardiq


def read_steps(app: "Ardiq", task_id: str) -> list[dict[str, Any]]:
    """The steps of a task, and its waits, as `--json` shows them."""
    return [_step(app, row) for row in ask(app.context.server.core, calls.steps(id=task_id, name=""))]


def _step(app: "Ardiq", row: calls.MemoRow) -> dict[str, Any]:
    if not row.is_here:
        return {"name": row.name, "kind": STEP}
    memo = Memo.read(row.memo)
    shown: dict[str, Any] = {"name": row.name, "kind": memo.kind}
    if memo.kind == UNTIL:
        return shown | {"signals": memo.signals, "until_at": number(memo.data) or None}
    if memo.kind == SIGNAL:
        shown["signal"] = memo.signal
    if memo.kind == ENDED:
        shown["state"] = text(memo.data)
    if memo.kind in (STEP, SIGNAL):
        try:
            shown["value"] = memo.shown(app.context.codec)
        except Exception:  # of the user's deserializer, too
            shown["value"] = text(memo.data)
    return shown


def draw_steps(steps: list[dict[str, Any]]) -> list[Part]:
    """Them as a table, if there are any."""
    rows = [[str(step["name"]), _told(step)] for step in steps]
    return [Table(["step", "result"], rows, "steps and waits")] if rows else []


def _told(step: dict[str, Any]) -> str:
    if step["kind"] == ENDED:
        return str(step["state"])
    if step["kind"] == UNTIL and str(step["name"]).startswith(f"{CHILDREN}:"):
        return "waits until they have ended"
    if step["kind"] == UNTIL:
        what = f"for {' or '.join(step['signals'])}" if step["signals"] else ""
        return " ".join(["waits", what, f"until {moment(step['until_at'])}" if step["until_at"] else ""]).strip()
    if step["kind"] == "timeout":
        return "the time was up"
    value = short(json_text(step["value"])) if "value" in step else "too large to show here"
    return f"{step['signal']}: {value}" if step["kind"] == SIGNAL else value
