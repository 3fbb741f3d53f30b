"""Find tasks of an app's queue; look at one, read what it emits, run it now, abort it, or run it again."""

import argparse
from typing import TYPE_CHECKING, Any

from .._client.following import children_id, edges_of
from .._client.inspector import NOTE, text_of
from .._execution.memos import CHILDREN
from .._server import calls, commands
from .._server.replies import ask, number, text
from .._values.encodings import from_json
from ..batches import is_batch
from ..errors import ArdiqError
from ..inspection import FoundTask, TaskPosition
from . import open_app
from ._arguments import add_actions, json_argument, positive, refusing, word
from ._memos import draw_steps, read_steps
from ._output import Part, Styled, Table, age, json_text, many, moment, print_json, short, show
from ._plain import done
from .pause import read_argument

if TYPE_CHECKING:
    from .. import _core
    from ..app import Ardiq

_PLACES = ("queued", "scheduled", "held", "running", "dead", "quarantined")
_LINES = 20
_ACTIONS = {
    "list": "the tasks of one place: of a name, with a text or an argument",
    "show": "its record, place, attempts, error and log",
    "stream": "what it emits, and has emitted, until it has ended",
    "abort": "abort it: at once if it waits, at its next await if it runs",
    "hurry": "run it without waiting for its time: a delay, an ETA, the backoff of a retry",
    "requeue": "run a dead letter again: same id and arguments, new retries",
}
_STYLES = {
    "failed": "red",
    "complete": "green",
    "running": "cyan",
    "aborted": "yellow",
    "expired": "yellow",
    "discarded": "yellow",
}
_TIMES = ("enqueued_at", "due_at", "expires_at", "started_at", "finished_at")
_NUMBERS = (*_TIMES, "tries", "lost", "waits_since", "waited_ms")
# Of a workflow and its tasks: how the library counts; `ardiq workflow show` has what comes of it.
_COUNTS = (
    "needs",
    "then",
    "broken",
    "spent",
    "unborne",
    "unneeded",
    "building",
    "cancelled_to",
    "first_missing",
    "dead",
)


def configure(parser: argparse.ArgumentParser) -> None:
    for action, chosen in add_actions(parser, _ACTIONS, aliases={"requeue": ["retry"]}):
        if action == "list":
            _configure_list(chosen)
        else:
            chosen.add_argument("id", type=word, metavar="ID", help="the task's id")
        json_argument(chosen)


def _configure_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--place", choices=_PLACES, default="queued", help="where they are (default: queued)")
    parser.add_argument("--of", type=word, metavar="NAME", help="only of this lane, pause or worker")
    parser.add_argument("--task", type=word, metavar="NAME", help="of this name")
    parser.add_argument("--text", type=word, metavar="TEXT", help="with this in their id, name, error or arguments")
    parser.add_argument("--arg", metavar="NAME=JSON", help="with this argument: name or position, and its value")
    parser.add_argument("-n", "--limit", type=positive, default=50, metavar="N", help="at most so many (default: 50)")
    most = "look at no more than so many (default: 10000)"
    parser.add_argument("--look-at", type=positive, default=10_000, metavar="N", help=most)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        with refusing():
            return _list(open_app(arguments), arguments)
    actions = {"show": _show, "stream": _stream, "abort": _abort, "hurry": _hurry, "requeue": _requeue}
    return actions[arguments.action](open_app(arguments), arguments.id, arguments.json)


def _show(app: "Ardiq", task_id: str, as_json: bool) -> int:
    task = read(app, task_id)
    if task is None:
        return _missing(task_id, as_json)
    if as_json:
        print_json(task)
    else:
        show(*_draw(task))
    return 0


def _list(app: "Ardiq", arguments: argparse.Namespace) -> int:
    which = {"task": arguments.task, "text": arguments.text, "argument": read_argument(arguments.arg)}
    tasks, looked_at, size = list[FoundTask](), 0, 0
    for of in [arguments.of] if arguments.of else _parts(app, arguments.place):
        left, look_at = arguments.limit - len(tasks), arguments.look_at - looked_at
        found = app.inspect.find_sync(arguments.place, of, limit=max(0, left), look_at=max(0, look_at), **which)
        tasks += found.tasks
        looked_at, size = looked_at + found.looked_at, size + found.size
    tasks = tasks[: arguments.limit]
    if arguments.json:
        renamed = {"task_id": "id", "fn_name": "name"}
        plain = [{renamed.get(name, name): value for name, value in task._asdict().items()} for task in tasks]
        print_json({"tasks": plain, "looked_at": looked_at, "size": size})
        return 0
    rows = [
        [task.task_id, task.fn_name, task.lane, str(task.tries), _stored(task), short(task.error)] for task in tasks
    ]
    show(Table(["id", "task", "lane", "tries", "arguments", "error"], rows))
    show(f"{many(len(rows), 'task')}; looked at {looked_at:,} of {size:,} that are {arguments.place}")
    return 0


def _parts(app: "Ardiq", place: str) -> list[str]:
    """What a place consists of: lanes, pauses, workers."""
    if place == "queued":
        return list(app.inspect.overview_sync(0).counts.ready)
    if place == "held":
        return list(app.inspect.overview_sync(0).held)
    if place == "running":
        return [worker.worker for worker in app.inspect.workers_sync() if worker.claimed]
    return [""]


def _stored(task: FoundTask) -> str:
    return short(" ".join(part for part in (task.args, task.kwargs) if part not in ("", "[]")))


def _stream(app: "Ardiq", task_id: str, as_json: bool) -> int:
    if not ask(app.context.server.core, calls.task(id=task_id)):
        return _missing(task_id, as_json)
    for chunk in app.stream_sync(task_id):
        text = chunk.value if isinstance(chunk.value, str) else json_text(chunk.value)
        print(json_text(chunk._asdict()) if as_json else text, flush=True)
    return 0


def _abort(app: "Ardiq", task_id: str, as_json: bool) -> int:
    answer = ask(app.context.server.core, calls.abort(id=task_id, result_ttl_ms=app.result_ttl_ms))
    if as_json:
        print_json({"id": task_id, "answer": answer})
    else:
        said = {
            "aborted": "aborted",
            "requested": "it is running; its worker was asked to abort it",
            "finished": "it has ended already",
            "not_found": "there is no such task",
        }
        show(f"{task_id}: {said.get(answer, answer)}")
    return 0 if answer in ("aborted", "requested") else 1


def _hurry(app: "Ardiq", task_id: str, as_json: bool) -> int:
    (answer,) = ask(app.context.server.core, calls.hurry(tasks=[task_id]))
    if isinstance(answer, Exception):
        raise answer
    if as_json:
        print_json({"id": task_id, "answer": answer})
    elif answer == "not_found":
        return _missing(task_id, as_json)
    else:
        said = {
            "queued": "ready: it runs when it has its turn",
            "limited": "ready: it runs when its limits have room",
            "running": "it is running already",
            "held": "a pause holds it: ardiq resume",
            "blocked": "it waits for other tasks: ardiq workflow show",
            "waits": "it does not wait for its time, but for a signal or in a sleep: ardiq task show",
            "finished": "it has ended already",
        }
        show(f"{task_id}: {said.get(answer, answer)}")
    return 0 if answer in ("queued", "limited", "running") else 1


def _requeue(app: "Ardiq", task_id: str, as_json: bool) -> int:
    core = app.context.server.core
    record = ask(core, calls.task(id=task_id))
    before = state = text_of(record, "state") or "not_found"
    if before == "failed" and "kind" not in record:
        try:
            app.context.producer.check_lane(text_of(record, "lane"))  # nobody would take it
        except ValueError as error:
            raise ArdiqError(f"{task_id}: {error}") from None
        answer = ask(core, calls.requeue(tasks=[task_id]))[0]
        if isinstance(answer, Exception):
            raise answer
        state = answer
    done = state == "queued" and before == "failed"
    if as_json:
        print_json({"id": task_id, "answer": "queued" if done else "not_dead", "state": state})
    elif done:
        show(f"{task_id}: queued again")
    elif state == "not_found":
        return _missing(task_id, as_json)
    elif "kind" in record:
        show(f"{task_id}: it is a {text_of(record, 'kind')}; `ardiq workflow retry` runs the dead letters of one again")
    else:
        show(f"{task_id}: it is {state.replace('_', ' ')}; only dead letters can be run again")
    return 0 if done else 1


def _missing(task_id: str, as_json: bool) -> int:
    if as_json:
        print_json({"id": task_id, "state": "not_found"})
    else:
        show(f"{task_id}: there is no such task: it was never enqueued, or its record is gone (result_ttl_ms)")
    return 1


def read(app: "Ardiq", task_id: str) -> dict[str, Any] | None:
    """Everything that the server knows about a task, as `--json` shows it; None if it does not know the task."""
    core = app.context.server.core
    raw = ask(core, calls.task(id=task_id))
    if not raw:
        return None
    record = {name: text(value) for name, value in raw.items()}
    fields: dict[str, Any] = {
        name: int(value) if name in _NUMBERS and value.isdigit() else value
        for name, value in record.items()
        if not name.startswith(NOTE) and name not in _COUNTS
    }
    if "after" in fields:
        fields["after"] = edges_of(str(fields["after"]))
    if "inputs" in fields:
        fields["inputs"] = {
            str(row[0]): row[1] for row in _listed(record["inputs"]) if isinstance(row, list) and row[1:]
        }
    for name in ("progress", "headers"):
        if name in fields:
            fields[name] = _decoded(record[name])
    if notes := {name.removeprefix(NOTE): _decoded(record[name]) for name in record if name.startswith(NOTE)}:
        fields["notes"] = notes
    fields |= _call_of(app, raw) | result_of(app, raw)
    if "steps" in record:
        fields["steps"] = read_steps(app, task_id)
    position = app.inspect.position_sync(task_id)
    history = [attempt for attempt in _listed(record.get("history", "")) if isinstance(attempt, dict)]
    if history and record.get("state") != "failed":  # what the record says of an error is of its last attempt
        history[-1] = {**history[-1], **{name: fields.pop(name) for name in ("error", "traceback") if name in fields}}
    now_ms = commands.now_ms(core)
    if position is not None and position.place == "limited" and (batch := _batch(core, record, now_ms)):
        fields["batch"] = batch
    return {
        "id": task_id,
        **fields,
        "place": _place(position, record, now_ms),
        "gone_in_ms": None if position is None else position.kept_ms,
        "history": history,
        "log": ask(core, calls.log(id=task_id, limit=calls.LOG_LIMIT_MOST)),
    }


def _call_of(app: "Ardiq", record: dict[str, bytes]) -> dict[str, Any]:
    """Its arguments as plain data; as they are stored if this app cannot read them."""
    codec = text_of(record, "codec")
    try:
        args, kwargs = app.context.codec.decode_call(record.get("args", b"[]"), record.get("kwargs", b""), codec, None)
    except Exception:  # of the user's deserializer, too
        return {name: text_of(record, name) for name in ("args", "kwargs")}
    return {"args": args, "kwargs": kwargs}


def result_of(app: "Ardiq", record: dict[str, bytes]) -> dict[str, Any]:
    """Its result as plain data, if it has one; as it is stored if this app cannot read it."""
    if "result" not in record:
        return {}
    try:
        return {
            "result": app.context.codec.decode_result(record["result"], text_of(record, "result_codec"), lambda _: None)
        }
    except Exception:
        return {"result": text_of(record, "result")}


def _place(found: TaskPosition | None, record: dict[str, str], now_ms: int) -> dict[str, Any]:
    """Where it is: `key`; in a lane its `position` among how many entries, None beyond the first ten thousand."""
    if found is None:  # it is gone since
        return {"key": None}
    if found.place in ("queued", "limited"):
        list_of = "ready" if found.place == "queued" else "line"
        return {"key": f"{list_of}:{found.of}", "position": found.position, "of": found.length}
    if found.place == "scheduled":
        return {"key": "scheduled", "due_in_ms": (_number(record.get("due_at")) or now_ms) - now_ms}
    if found.place == "running":
        return {"key": f"running:{found.of}", "run_ms": now_ms - (_number(record.get("started_at")) or now_ms)}
    return {"key": f"held:{found.of}" if found.place == "held" else found.place}


def _batch(core: "_core.Core", record: dict[str, str], now_ms: int) -> dict[str, Any] | None:
    """Of a task that gathers: how many make a batch, and when it starts without that many; None if that is not what it
    waits for.
    """
    bucket = next(filter(is_batch, record.get("buckets", "").split(",")), None)
    if bucket is None:
        return None
    from urllib.parse import unquote

    name, _, key = bucket.partition("(")
    found = ask(core, calls.limit(name=name, key=unquote(key.removesuffix(")"))))
    if found is None:
        return {"size": 1, "starts_in_ms": None}
    starts_in_ms = found.opens_at - now_ms if found.opens_at else None
    return {"size": found.definition.get("batch_size"), "starts_in_ms": starts_in_ms}


def _number(value: object) -> int:
    """A number out of a record; 0 where it has none, or somebody wrote something else there."""
    return number(str(value))


def _listed(value: str) -> list[Any]:
    found = _decoded(value)
    return found if isinstance(found, list) else []


def _decoded(value: str) -> Any:
    try:
        return from_json(value.encode())
    except ValueError:
        return value


def _draw(task: dict[str, Any]) -> list[Part]:
    state = task.get("state", "of no state")
    aborted = ", to be aborted" if task.get("abort_requested") else ""
    parts: list[Part] = [
        Styled(f"{task['id']}: {task.get('name', '')}", "bold"),
        Styled(f"{state}, {_where(task)}{aborted}", _STYLES.get(state, "")),
    ]
    if "kind" not in task:  # a workflow or a map is never called itself
        lost = f", lost with {many(_number(task['lost']), 'worker')}" if task.get("lost") else ""
        parts += [_call(task), f"lane {task.get('lane', '')}, tries {task.get('tries', 0)}{lost}"]
    parts += [f"{name.partition('_')[0]} {moment(_number(task[name]))}" for name in _TIMES if task.get(name)]
    if isinstance(task.get("progress"), dict):
        parts.append(f"progress {done(task['progress'])}")
    if "unique" in task:
        parts.append(f"key {task['unique']}")
    parts += [f"{name} {task[name]}" for name in ("notes", "headers") if task.get(name)]
    if "result" in task:
        parts.append(Styled(f"result {short(json_text(task['result']), 1000)}", "green"))
    if "error" in task:
        parts.append(Styled(f"error {task['error']}", "red"))
    parts += draw_steps(task.get("steps", []))
    if task["history"]:
        rows = [_attempt(attempt) for attempt in task["history"]]
        parts.append(Table(["attempt", "ended", "ran", "worker", "error"], rows, "attempts that did not succeed"))
    last = task["history"][-1] if task["history"] else {}
    if told := task.get("traceback") or last.get("traceback"):
        parts.append(str(told).rstrip())
    if task["log"]:
        parts.append(f"log, the last {min(_LINES, len(task['log']))} of {many(len(task['log']), 'line')}:")
        parts += [f"  {line}" for line in task["log"][-_LINES:]]
    return parts


def _where(task: dict[str, Any]) -> str:
    place = task["place"]
    if task.get("state") == "blocked":
        if "kind" in task:
            return "until its tasks have ended: ardiq workflow show has them"
        undone = next((name for name, policy in task.get("after", {}).items() if policy == "undo"), None)
        if undone is not None:
            return f"the compensation of {undone}: runs if that has to be undone"
        return f"waits for {', '.join(task.get('after', ())) or 'other tasks'}"
    if task.get("state") == "away":
        return f"handed to queue {task.get('queue', '')}, which says when it has ended"
    if "position" in place:
        at = (
            f"number {place['position'] + 1:,}"
            if place["position"] is not None
            else f"beyond number {calls.POSITION_LIMIT_MOST:,}"
        )
        if task.get("state") == "limited":
            return f"{at} of {place['of']:,} that {_waits_for(task)}"
        return f"{at} of {place['of']:,} in its lane"
    if "due_in_ms" in place:
        due_ms = place["due_in_ms"]
        kind, _, name = str(task.get("waits_for", "")).partition(":")
        if kind == CHILDREN:
            return f"waits for its children {name!r}: ardiq workflow show has them, as {children_id(task['id'], name)}"
        if task.get("waits_for"):
            return f"in the wait {task['waits_for']!r}, for {age(max(0, due_ms))} more at most"
        return f"due in {age(due_ms)}" if due_ms >= 0 else f"overdue by {age(-due_ms)}"
    if "run_ms" in place:
        return f"on worker {task.get('worker', 'nobody')} for {age(place['run_ms'])}"
    if task.get("state") == "held" and task.get("pause") == "newer":
        return "held for workers of a later version of Ardiq"
    if task.get("state") == "held" and str(task.get("pause", "")).endswith("~*"):
        return "held: its workflow is paused, until `ardiq workflow resume`"
    if task.get("state") == "held":
        return f"held by the pause {task.get('pause', '')}"
    if place["key"] == "quarantined":
        return "in quarantine: it was lost with its worker twice or more"
    if place["key"] == "dead":
        return "a dead letter, kept until it is run again or discarded"
    if "kind" in task and task.get("state") == "failed" and task["gone_in_ms"] is None:
        return "kept as long as it has dead letters"
    return "kept forever" if task["gone_in_ms"] is None else f"kept for {age(task['gone_in_ms'])} more"


def _waits_for(task: dict[str, Any]) -> str:
    limits = [bucket for bucket in task.get("buckets", "").split(",") if not is_batch(bucket)]
    batch = task.get("batch")
    if batch is None:
        return f"wait for {' and '.join(limits)}"
    if batch["starts_in_ms"] is not None:
        when = age(max(0, batch["starts_in_ms"]))
        return f"gather in a batch of {batch['size']:,}, which starts in {when} if it is not full before"
    return f"wait in batches of {batch['size']:,} for {' and '.join([*limits, 'a worker'])}"


def _call(task: dict[str, Any]) -> str:
    args, kwargs = task.get("args", []), task.get("kwargs", {})
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        return f"arguments in the codec {task.get('codec', 'JSON')}"
    inputs = task.get("inputs", {})
    shown = {str(at): repr(value) for at, value in [*enumerate(args), *kwargs.items()]}
    shown |= {name: f"<{_source(source)}>" for name, source in inputs.items() if name in shown}
    words = [text if name.isdecimal() else f"{name}={text}" for name, text in shown.items()]
    return short(f"{task.get('name', '')}({', '.join(words)})", 1000)


def _source(source: Any) -> str:
    """Where an argument of a workflow's task comes from."""
    if isinstance(source, list):
        return f"results of {', '.join(map(str, source))}"
    return f"results of {source[1:]}" if str(source).startswith("*") else f"result of {source}"


def _attempt(attempt: dict[str, Any]) -> list[str]:
    ran = attempt.get("run_ms")
    return [
        str(attempt.get("try", "")),
        moment(_number(attempt.get("ended_at"))),
        "its worker died" if ran is None else age(_number(ran)),
        str(attempt.get("worker", "")),
        short(str(attempt.get("error", ""))),
    ]
