"""Look at the workflows of an app's queue, pause or stop one, run what failed again, or give a task what it waits for.

ardiq workflow list MODULE:ATTR              those that have not ended, newest first
ardiq workflow show MODULE:ATTR ID           one, with the state of each of its nodes
ardiq workflow graph MODULE:ATTR ID          a picture of one, for Mermaid; --format dot: for Graphviz
ardiq workflow abort MODULE:ATTR ID          stop all of it that has not ended; --compensate: and undo what completed
ardiq workflow pause MODULE:ATTR ID          let none of its tasks start; what runs goes on
ardiq workflow resume MODULE:ATTR ID         let them start again
ardiq workflow retry MODULE:ATTR ID          run its dead letters again, and what was skipped because of them
ardiq workflow signal MODULE:ATTR ID NAME JSON    give a task the signal of that name, with that value
"""

import argparse
from typing import TYPE_CHECKING, Any

from .._client.drawing import FORMATS, draw
from .._client.following import WorkflowJob, WorkflowNode, WorkflowProgress, node_of, progress_of
from .._client.inspector import number_of, text_of
from .._execution.memos import WAIT
from .._server import calls, commands
from .._server.replies import ask
from . import open_app
from ._arguments import add_actions, json_argument, json_value, positive, refusing, word
from ._audit import came
from ._output import Part, Styled, Table, age, json_text, many, moment, print_json, short, show
from .task import result_of

if TYPE_CHECKING:
    from ..app import Ardiq

_PAGE = 1000
_SHOWN = 100
_STYLES = {"failed": "red", "complete": "green", "running": "cyan", "aborted": "yellow", "skipped": "yellow"}
_ACTIONS = {
    "list": "list those that have not ended, newest first",
    "show": "one of them, with the state of each node",
    "graph": "a picture of one of them",
    "abort": "stop all of one that has not ended",
    "pause": "let no task of one start; what runs goes on",
    "resume": "end the pause of one",
    "retry": "run the dead letters of one again, and what was skipped because of them",
    "signal": "give a task a signal, for which it waits or will wait",
}


def configure(parser: argparse.ArgumentParser) -> None:
    for action, chosen in add_actions(parser, _ACTIONS):
        if action == "list":
            chosen.add_argument(
                "-n", "--limit", type=positive, default=_SHOWN, metavar="N", help=f"how many (default: {_SHOWN})"
            )
        else:
            what = "the task's id" if action == "signal" else "the workflow's id"
            chosen.add_argument("id", type=word, metavar="ID", help=what)
        if action == "signal":
            chosen.add_argument("name", type=word, metavar="NAME", help="the signal's name")
            chosen.add_argument("value", metavar="JSON", help="its value, such as true or '{\"cents\": 100}'")
        if action == "graph":
            chosen.add_argument("--format", choices=FORMATS, default="mermaid", help="for what (default: mermaid)")
        elif action in ("list", "show"):
            json_argument(chosen)
        elif action == "abort":
            chosen.add_argument("--compensate", action="store_true", help="undo what completed of it")


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    if arguments.action == "list":
        return _list(app, arguments.limit, arguments.json)
    if arguments.action == "signal":
        return _signal(app, arguments.id, arguments.name, json_value(arguments.value, object, "the value"))
    if arguments.action in ("abort", "pause", "resume", "retry"):
        return _change(app, arguments.id, arguments.action, "compensate" in arguments and arguments.compensate)
    as_json = arguments.action == "show" and arguments.json
    nodes, progress = _nodes(app, arguments.id)
    if progress is None:
        return _missing(app, arguments.id, as_json)
    if arguments.action == "graph":
        print(draw(arguments.id, nodes, arguments.format), end="")
    elif as_json:
        print_json({**_shown(app, arguments.id, progress), "nodes": [_plain(app, node) for node in nodes]})
    else:
        show(*_draw(_shown(app, arguments.id, progress), nodes, [_plain(app, node) for node in nodes]))
    return 0


def _change(app: "Ardiq", workflow_id: str, action: str, compensate: bool) -> int:
    job: WorkflowJob[Any] = WorkflowJob(app, workflow_id)
    if job.progress_sync() is None:
        return _missing(app, workflow_id)
    if action == "retry":
        count = job.retry_sync()
        came(count, f"{many(count, 'dead letter')} requeued")
        show(f"{many(count, 'dead letter')} requeued" if count else f"{workflow_id}: it has no dead letters")
    elif action == "abort" and job.abort_sync(compensate=compensate):
        show(f"{workflow_id}: aborted, or told to stop{', and what completed is undone' if compensate else ''}")
    elif action == "pause" and job.pause_sync():
        show(f"{workflow_id}: paused; what runs goes on")
    elif action == "resume" and job.resume_sync():
        show(f"{workflow_id}: goes on")
    elif action == "resume":
        show(f"{workflow_id}: it is not paused")
        return 1
    else:
        show(f"{workflow_id}: it had ended already")
        return 1
    return 0


def _missing(app: "Ardiq", workflow_id: str, as_json: bool = False) -> int:
    if as_json:
        print_json({"id": workflow_id, "state": "not_found"})
    elif ask(app.context.server.core, calls.task(id=workflow_id)):
        show(f"{workflow_id}: it is a task, no workflow: `ardiq task show` has it")
    else:
        show(f"{workflow_id}: there is no such workflow: it was never started, or its time is up (result_ttl_ms)")
    return 1


def _signal(app: "Ardiq", task_id: str, name: str, value: Any) -> int:
    with refusing():
        try:
            app.signal_sync(task_id, name, value)
        except LookupError as error:
            show(str(error))
            return 1
    wait, _, names = text_of(ask(app.context.server.core, calls.task(id=task_id)), "waits_for").partition(":")
    others = names.partition("#")[0].split(",") if wait == WAIT else [name]
    more = "" if name in others else f", and waits for {' or '.join(map(repr, others))}"
    show(f"{task_id}: it has the signal {name!r}{more}")
    return 0


def _list(app: "Ardiq", limit: int, as_json: bool) -> int:
    rows: list[Any] = []
    while len(rows) < limit:
        page = ask(app.context.server.core, calls.workflows(offset=len(rows), limit=min(_PAGE, limit - len(rows))))
        rows += page
        if len(page) < _PAGE:
            break
    paused = _pauses(app)
    found = [
        _workflow(app, row.id, progress, paused) for row in rows if (progress := _nodes(app, row.id)[1]) is not None
    ]
    if as_json:
        print_json(found)
        return 0
    if not found:
        show("all workflows have ended: `ardiq workflow show` has those that are kept")
        return 0
    now_ms = commands.now_ms(app.context.server.core)
    cells = [
        [each["id"], each["name"], age(now_ms - each["enqueued_at"]), _told(each["progress"]) + _held(each)]
        for each in found
    ]
    show(Table(["id", "name", "age", "progress"], cells))
    return 0


def _nodes(app: "Ardiq", workflow_id: str) -> tuple[list[WorkflowNode], WorkflowProgress | None]:
    """Its nodes, and how far it is; None if there is no such workflow."""
    page = ask(app.context.server.core, calls.workflow(id=workflow_id, offset=0, limit=_PAGE))
    if page.kind != "workflow":
        return [], None
    return [node_of(workflow_id, row) for row in page.rows], progress_of(page.rows)


def _pauses(app: "Ardiq") -> dict[str, int]:
    """Since when which workflows are paused."""
    return {
        pause.workflow: pause.paused_at
        for pause in app.pauses_sync()
        if pause.workflow is not None and not pause.resuming
    }


def _workflow(app: "Ardiq", workflow_id: str, progress: WorkflowProgress, paused: dict[str, int]) -> dict[str, Any]:
    """A workflow, as `--json` shows it."""
    record = ask(app.context.server.core, calls.task(id=workflow_id))
    state = text_of(record, "state")
    return {
        "id": workflow_id,
        "name": text_of(record, "name"),
        "state": "running" if state == "blocked" else state,
        "enqueued_at": number_of(record, "enqueued_at"),
        **({"is_building": True} if state == "blocked" and "building" in record else {}),
        **({"paused_at": paused[workflow_id]} if workflow_id in paused else {}),
        **({"finished_at": number_of(record, "finished_at")} if "finished_at" in record else {}),
        **({"parent": text_of(record, "parent").partition(" ")[2]} if "parent" in record else {}),
        **({"error": text_of(record, "error")} if "error" in record else {}),
        "progress": progress._asdict(),
    }


def _shown(app: "Ardiq", workflow_id: str, progress: WorkflowProgress) -> dict[str, Any]:
    """The same, with its result if it completed."""
    return _workflow(app, workflow_id, progress, _pauses(app)) | _result(app, workflow_id)


def _plain(app: "Ardiq", node: WorkflowNode) -> dict[str, Any]:
    """A node, as `--json` shows it; of a task that completed with its result."""
    plain = node._asdict()
    plain["id"] = plain.pop("task_id")
    has_result = node.state == "complete" and not node.is_map
    return plain | (_result(app, node.task_id) if has_result else {})


def _result(app: "Ardiq", task_id: str) -> dict[str, Any]:
    return result_of(app, ask(app.context.server.core, calls.task(id=task_id)))


def _draw(workflow: dict[str, Any], nodes: list[WorkflowNode], plain: list[dict[str, Any]]) -> list[Part]:
    state = workflow["state"]
    parts: list[Part] = [
        Styled(f"{workflow['id']}: {workflow['name']}", "bold"),
        Styled(f"{state}, {_told(workflow['progress'])}", _STYLES.get(state, "")),
        f"started {moment(workflow['enqueued_at'])}",
    ]
    if "parent" in workflow:
        parts.append(f"the children of task {workflow['parent']}")
    if "is_building" in workflow:
        told = "being created: nothing runs before all parts are there; it is aborted an hour after the last one"
        parts.append(Styled(told, "yellow"))
    if "paused_at" in workflow:
        parts.append(Styled(f"paused since {moment(workflow['paused_at'])}: none of its tasks start", "yellow"))
    if "finished_at" in workflow:
        parts.append(f"finished {moment(workflow['finished_at'])}")
    if state == "running" and (stuck := [node.name for node in nodes if node.compensates and node.state == "failed"]):
        parts.append(
            Styled(f"compensation {', '.join(stuck)} failed, and the rest waits: retry, or discard it", "yellow")
        )
    if "error" in workflow:
        parts.append(Styled(f"error {workflow['error']}", "red"))
    if "result" in workflow:
        parts.append(Styled(f"result {short(json_text(workflow['result']))}", "green"))
    rows = [
        [
            node.name,
            f"{node.task}, {many(node.total, 'call')}" if node.is_map else node.task,
            _state(node),
            _after(node),
            short(json_text(shown["result"]) if "result" in shown else node.error),
        ]
        for node, shown in zip(nodes, plain, strict=True)
    ]
    return [*parts, Table(["node", "task", "state", "after", "result or error"], rows)]


def _held(workflow: dict[str, Any]) -> str:
    """Why nothing of it starts, if that is so."""
    told = {"is_building": ", being created", "paused_at": ", paused"}
    return "".join(text for field, text in told.items() if field in workflow)


def _told(progress: dict[str, int]) -> str:
    return WorkflowProgress(**progress).message


def _state(node: WorkflowNode) -> str:
    if node.queue:
        return f"{node.state} ({node.queue})"
    if not node.is_map or (node.state == "complete" and not node.failed):
        return node.state
    return f"{node.state}, {node.done:,} done" + (f", {node.failed:,} failed" if node.failed else "")


def _after(node: WorkflowNode) -> str:
    return ", ".join(name if policy == "fail" else f"{name} ({policy})" for name, policy in node.after.items())
