"""What must be there after every call, by the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from workflow_model import Flows
from workflow_server import KINDS, Got, Looked, WorkflowServer, netstrings
from workflow_tasks import Group, Task

LARGEST = 65_536
WAITS = ("queued", "limited", "held", "scheduled")


def problems(model: Flows, seen: Looked) -> Iterator[str]:
    for id in {*model.tasks} ^ {*seen.tasks}:
        what = "is to be there" if id in model.tasks else "is to be gone"
        yield f"{id} {what}: {seen.tasks.get(id)}"
    for id, task in model.tasks.items():
        if record := seen.tasks.get(id):
            yield from _state(model, task, record)
            yield from _kept(model, f"task:{id}", task, seen)
            if isinstance(task, Group):
                yield from _group(model, task, record, seen)
    groups = {id for id, task in model.tasks.items() if isinstance(task, Group)}
    for key in seen.keys:
        kind, _, id = key.partition(":")
        if kind in KINDS and id not in groups:
            yield f"{key} is of no group: {seen.keys[key]}"
    yield from _paused(model, seen)
    unfinished = {workflow.id for workflow in model.workflows if not workflow.has_ended}
    if {*seen.hash("workflows")} != unfinished:
        yield f"workflows has {seen.hash('workflows')}, and unfinished are {unfinished}"
    open_maps = {task.group.id for task in model.tasks.values() if task.group and task.node.is_open}
    if {*seen.hash("deadlines")} != open_maps & unfinished:
        yield f"deadlines has {seen.hash('deadlines')}, and calls may be added to {open_maps & unfinished}"
    dead = {id for id, task in model.tasks.items() if task.is_dead}
    if {*seen.hash("dead")} != dead:
        yield f"dead has {seen.hash('dead')}, and dead letters are {dead}"


def _paused(model: Flows, seen: Looked) -> Iterator[str]:
    """The pause of a workflow that has ended is there until a heartbeat."""
    pauses = {id.removesuffix("~*"): json.loads(rule) for id, rule in seen.hash("pauses").items()}
    last = {id for id, rule in pauses.items() if not rule.get("resuming")}
    if last != model.paused:
        yield f"paused are {pauses}, and are to be {model.paused}"
    held = {id for id, record in seen.tasks.items() if record.get("state") == "held"}
    listed = [id for key in seen.keys if key.startswith("held:") for id in seen.hash(key)]
    if {*listed} != held or len(listed) != len(held):
        yield f"held are {held}, and listed as that are {listed}"
    members = {id for id, task in model.tasks.items() if task.group}
    if strange := {id for id in held if id not in members or id.partition("~")[0] not in pauses}:
        yield f"{strange} are held, and nothing is paused but {pauses}"


def _state(model: Flows, task: Task, record: dict[str, str]) -> Iterator[str]:
    state, is_later = record.get("state", ""), task.due_at > model.now
    if task.state == "waiting":
        is_right = state == "scheduled" if is_later else state in (WAITS if task.due_at else WAITS[:3])
    else:
        is_right = state == task.state
    if not is_right:
        yield f"{task.id} is {state}, and is to be {task.state}{' until it is due' * is_later}: {record}"
    if ("abort_requested" in record) != task.is_stopping and not task.has_ended:
        yield f"{task.id} is {'not ' * task.is_stopping}to be asked to stop: {record}"
    if task.has_ended and ("finished_at" not in record):
        yield f"{task.id} ended, and nobody knows when: {record}"


def _kept(model: Flows, key: str, task: Task, seen: Looked) -> Iterator[str]:
    ttl, is_kept = seen.ttls.get(key, -2), task.gone_at > model.now + 1e12
    if ttl == -2:
        return
    left = task.gone_at - model.now
    if ttl != -1 if is_kept else not left - 120_000 < ttl < left + 120_000:
        yield f"{key} is kept for {ttl} ms, and is to be for {left}"


def _group(model: Flows, group: Group, record: dict[str, str], seen: Looked) -> Iterator[str]:
    expected: dict[str, Any] = {
        "open": group.open,
        "failed": group.missing,
        "items": group.items,
        "results": group.results if group.node.keeps_results else {},
        "nodes": [] if group.is_map else list(group.members),
        "undo": group.undo,
    }
    for kind, value in expected.items():
        key = f"{kind}:{group.id}"
        there: Any = seen.keys.get(key, [])
        there = set(there) if isinstance(value, set) else seen.hash(key) if isinstance(value, dict) else there
        if there != value:
            yield f"{key} has {there}, and is to have {value}"
        yield from _kept(model, key, group, seen)
    counts = {name: int(record.get(name, 0)) for name in ("complete", "failed", "skipped", "aborted")}
    if counts != {name: group.counts[name] for name in counts}:
        yield f"{group.id} counts {counts}, and its members are {dict(group.counts)}"
    undoing = "1" if group.is_undoing else "0" if group.compensations else None
    if record.get("undoing") != undoing:
        yield f"{group.id} is to be undone: {undoing}, and is {record}"
    if group.is_map:
        sizes = int(record["size"]), int(record.get("made", 0))
        if sizes != (len(group.node.items or []), len(group.members)):
            yield f"{group.id} has size and made {sizes}, and has made {len(group.members)} of {group.node.items}"
    else:
        if int(record.get("dead", 0)) != model.dead(group):
            yield f"{group.id} counts {record.get('dead', 0)} dead letters, and has {model.dead(group)}"
        if group.state == "complete":
            result = record.get("result_codec", ""), record.get("result")
            if result != group.result:
                yield f"the result of {group.id} is {result}, and is to be {group.result}"
    if group.state == "failed" and not record.get("error"):
        yield f"{group.id} failed, and does not say why: {record}"
    if not group.has_ended and {"error", "finished_at"} & {*record}:
        yield f"{group.id} has not ended, and says that it has: {record}"


def called_wrongly(model: Flows, task: Task, got: Got) -> Iterator[str]:
    """What is wrong with the arguments of a claim."""
    args, codec = f'["{task.name}"]', task.node.codec
    if task.group and task.group.is_map:
        codec, _, args = (task.group.node.items or [])[int(task.name)].partition(" ")
    elif not task.group:
        args = "[]"
    if task.args:
        args, codec = task.args, ""
    if task.args or not task.node.inputs:
        if (got.args, got.codec) != (args, codec):
            yield f"{got} is to be called with {args}, {codec}"
        return
    parts = netstrings(got.args)
    if (parts.pop(0), got.codec) != (args, f"with+{codec}"):
        yield f"{got} is to be called with inputs, {args}, {codec}"
    for parameter, source in task.node.inputs:
        is_map = isinstance(source, str) and source.startswith("*")
        names = source if isinstance(source, list) else [source.removeprefix("*")]
        shape = "map" if is_map else "list" if isinstance(source, list) else "one"
        if (head := parts[:3]) != [parameter, shape, str(len(names))]:
            yield f"{got.id} has the input {head}, and is to have {parameter}, {shape}, {len(names)}"
        del parts[:3]
        for name in names:
            named, *parts = parts
            value, parts = tuple(parts[:3]), parts[3:]
            if named != name:
                yield f"{got.id} has the input {named}, and is to have {name}"
            if wrong := _input(model, task, name, value, is_map):
                yield f"{got.id} has of {name} {value}, and {wrong}"
    if parts:
        yield f"{got.id} has more inputs than asked for: {parts}"


def _input(model: Flows, task: Task, name: str, value: tuple[str, ...], is_map: bool) -> str:
    assert task.group
    source = task.group.members[name]
    state, codec, text = value
    if source.id not in model.tasks:
        return "" if state == "not_found" and not codec and text else "is to say that it is gone"
    if is_map:
        return "" if value == ("map", "", source.id) else "is to name the map"
    if source.state == "complete":
        if len(source.result[1]) > LARGEST:
            return "" if value == ("reference", "", source.id) else "is to name the task that has the result"
        return "" if value == ("complete", *source.result) else f"is to have {source.result}"
    # One may expire in the very call.
    unfinished = (*WAITS, "running", "blocked", "expired")
    is_right = state in unfinished if not source.has_ended else state == source.state
    return "" if is_right and not codec and text else f"is to say that it is {source.state}"


def shown_wrongly(server: WorkflowServer, seen: Looked, group: Group, offset: int, limit: int) -> Iterator[str]:
    """What queries say otherwise than records do."""
    state, kind, *flat = server.call("workflow", id=group.id, offset=offset, limit=limit)
    rows = [flat[at : at + 12] for at in range(0, len(flat), 12)]
    page = list(group.members)[offset : offset + limit]
    if (state, kind, [row[0] for row in rows]) != (seen.tasks[group.id]["state"], "workflow", page):
        yield f"the page {offset}, {limit} of {group.id} has {state}, {kind}, {rows}"
    for name, of_map, task, state, _, *counts, error, queue in rows:
        # Of one that somebody deleted only the name is known.
        record = seen.tasks.get(f"{group.id}~{name}", {})
        said = (of_map, task, state, error, queue, *counts)
        fields = ("kind", "name", "state", "error", "queue")
        numbers = ("size", "complete", "failed", "skipped", "aborted")
        expected = (*(record.get(field, "") for field in fields), *(record.get(field, "0") for field in numbers))
        if said != expected:
            yield f"{name} of {group.id} is shown as {said}, and is {expected}"
    for member in group.members.values():
        if isinstance(member, Group):
            yield from _pages(server, member, limit)
    unfinished = server.call("workflows", offset=0, limit=100)[::2]
    if sorted(unfinished) != sorted(seen.hash("workflows")):
        yield f"{unfinished} are shown as unfinished"


def _pages(server: WorkflowServer, group: Group, limit: int) -> Iterator[str]:
    found: dict[str, str] = {}
    offset, size = 0, len(group.node.items or [])
    while offset < size:
        said, following, *flat = server.call("results", map=group.id, offset=offset, limit=limit)
        found |= {flat[at]: f"{flat[at + 1]} {flat[at + 2]}" for at in range(0, len(flat), 3)}
        if int(said) != size or not offset < int(following) <= offset + limit:
            yield f"the page {offset}, {limit} of {group.id} says {said}, {following}"
            return
        offset = int(following)
    if found != (group.results if group.node.keeps_results else {}):
        yield f"the results of {group.id} are shown as {found}"
