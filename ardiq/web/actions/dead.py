"""Running dead letters again, and discarding them: those that were chosen, or a group by task and kind of error."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from ..._client.inspector import text_of
from ..._server import calls
from ..._values.encodings import to_json
from ...cli._output import many
from .._asked import Asked, Refused
from .told import Form, Input, Question, Told, ids_of, note, summed

_PORTION = 100
_MOST_PURGED = 10_000
_WORDS = {
    "queued": "queued again",
    "discarded": "discarded",
    "not_dead": "no dead letter any more; nothing was changed",
}
_FOR_GOOD = "They cannot be run again then. Their errors are kept as long as results are. This cannot be undone."
_NO_GROUP = "There are no such dead letters any more; nothing was changed."


async def requeue(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    ids = ids_of(form)
    records = await asyncio.gather(*(asked.ask(calls.task(id=task_id)) for task_id in ids))
    lanes = {task_id: text_of(record, "lane") for task_id, record in zip(ids, records, strict=True)}
    await _requeue(asked, lanes, answers)
    return summed(answers, _WORDS, "queued")


async def discard(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    await _discard(asked, dict.fromkeys(ids_of(form), ""), answers)
    return summed(answers, _WORDS, "discarded")


async def may_discard(asked: Asked, form: Form) -> Question:
    ids = ids_of(form)
    return Question(f"Discard {many(len(ids), 'dead letter')}?", _FOR_GOOD, ids)


async def requeue_group(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    lanes = await _group(asked, form)
    await _requeue(asked, lanes, answers)
    return summed(answers, _WORDS, "queued") if answers else Told(_NO_GROUP, False)


async def may_requeue_group(asked: Asked, form: Form) -> Question:
    return await _question(asked, form, "Run {} again?", "Each keeps its id and arguments, and has all its tries.")


async def discard_group(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    await _discard(asked, await _group(asked, form), answers)
    return summed(answers, _WORDS, "discarded") if answers else Told(_NO_GROUP, False)


async def may_discard_group(asked: Asked, form: Form) -> Question:
    return await _question(asked, form, "Discard {}?", _FOR_GOOD)


async def may_purge(asked: Asked, form: Form) -> Question:
    queue, letters = asked.app.queue_name, await asked.app.dead.count()
    field = Input("queue", f"type the name of the queue: {queue}", form.get("queue", ""))
    return Question(f"Discard all {many(letters, 'dead letter')} of queue {queue}?", _FOR_GOOD, inputs=[field])


async def purge(asked: Asked, form: Form, answers: dict[str, str]) -> Told:
    """Up to so many: whoever waits for the page must hear of it."""
    queue, removed, more = asked.app.queue_name, 0, True
    if form.get("queue") != queue:
        raise Refused(400, f"To discard all dead letters, type the name of the queue, {queue}, as queue.")
    ttl_ms = asked.app.context.settings.result_ttl_ms
    while more and removed < _MOST_PURGED:
        call = calls.purge(place="dead", which="", offset=0, limit=_PORTION, result_ttl_ms=ttl_ms)
        reply = await asked.ask(call)
        removed, more = removed + reply.discarded, reply.more
        answers[queue] = f"discarded {removed}"
    told = f"{many(removed, 'dead letter')} discarded."
    return Told(f"{told} More are left: do it again." if more else told, removed > 0)


async def _requeue(asked: Asked, lanes: Mapping[str, str], answers: dict[str, str]) -> None:
    """Portion by portion; those of lanes that no worker of the app serves stay where they are."""
    served = []
    for task_id, lane in lanes.items():
        try:
            asked.app.context.producer.check_lane(lane or None)
            served.append(task_id)
        except ValueError as error:
            answers[task_id] = str(error)
    for at in range(0, len(served), _PORTION):
        ids = served[at : at + _PORTION]
        note(answers, ids, await asked.ask(calls.requeue(tasks=ids)))


async def _discard(asked: Asked, lanes: Mapping[str, str], answers: dict[str, str]) -> None:
    ids, ttl_ms = list(lanes), asked.app.context.settings.result_ttl_ms
    for at in range(0, len(ids), _PORTION):
        portion = ids[at : at + _PORTION]
        note(answers, portion, await asked.ask(calls.discard(result_ttl_ms=ttl_ms, tasks=portion)))


async def _group(asked: Asked, form: Form) -> dict[str, str]:
    """The ids of a group with their lanes: of the letters that the screen looked at, and none that failed later."""
    name, kind = _named(form)
    until, found, offset = form.get("until", ""), dict[str, str](), 0
    while offset < calls.FAILURES_LIMIT_MOST:
        limit = min(calls.FIND_LIMIT_MOST, calls.FAILURES_LIMIT_MOST - offset)
        page = await asked.ask(_page(offset, limit, name))
        for row in page.rows:
            is_later = len(until) < 20 and until.isdecimal() and row.number > int(until)
            if row.name == name and _kind(row.error) == kind and not is_later:
                found[row.id] = row.lane
        if not page.next_offset:
            break
        offset = page.next_offset
    return found


def _page(offset: int, limit: int, name: str) -> Any:
    return calls.find(
        place="dead",
        which="",
        offset=offset,
        limit=limit,
        task=name,
        text="",
        argument="",
        value=b"",
        positions=to_json({}),
    )


async def _question(asked: Asked, form: Form, text: str, why: str) -> Question:
    name, kind = _named(form)
    groups = await asked.samples.failures.get()
    for group in groups.groups:
        if (group.fn_name, group.kind) == (name, kind):
            letters = f"{many(group.letters, 'dead letter')} of {name} with {kind or 'no error'}"
            if groups.total > groups.looked_at:
                why = f"They are among the newest {groups.looked_at:,} of {groups.total:,}; older ones stay. {why}"
            return Question(text.format(letters), why, [group.error], {"until": str(group.newest_at)})
    raise Refused(400, _NO_GROUP)


def _named(form: Form) -> tuple[str, str]:
    if "name" not in form or "kind" not in form:
        raise Refused(400, "Name the group: its task as name, its error as kind.")
    return form["name"], form["kind"]


def _kind(error: str) -> str:
    """As the groups have it: the text up to a colon, a space or a parenthesis."""
    return re.split(r"[ \t-\r:(]", error, maxsplit=1)[0]
