"""A page of one place, for tasks and dead letters: what was asked for, and what of it may be shown."""

from typing import Any, NamedTuple

from ..._client.rules import Argument, rule_of
from ..._server import calls
from ..._values.encodings import from_json, to_json
from .._asked import Asked, Refused

LIMIT = 50
_LOOK_AT = calls.FIND_LIMIT_MOST
_LONGEST = 200


class Filters(NamedTuple):
    """What people look for."""

    task: str
    text: str
    argument: Argument | None
    told: str


def filters(asked: Asked) -> Filters:
    """The filters of the address: `name=`, `q=` a text, `arg=name=value`.

    Raises:
        Refused: they may not look into arguments, the argument is hidden, or it cannot be matched.
    """
    task, text, told = (asked.params.get(name, "")[:_LONGEST] for name in ("name", "q", "arg"))
    if (text or told) and not asked.sees_payloads:
        raise Refused(403, "your role may not search arguments: filter by the task's name")
    return Filters(task, text, argument_of(asked, told), told)


def argument_of(asked: Asked, told: str) -> Argument | None:
    """An argument as people write it, `name=value`; None if they wrote nothing.

    Raises:
        Refused: they did not write that, or its values are hidden.
    """
    if not told:
        return None
    name, equals, value = told.partition("=")
    if not equals:
        raise Refused(400, "arg must be NAME=VALUE, such as customer_id=42")
    if asked.redactor.hides(name):
        raise Refused(403, f"values of {name!r} are redacted, and cannot be searched for")
    key: Any = int(name) if name.isascii() and name.isdecimal() and len(name) < 5 else name
    return {key: _scalar(value)}


async def find(asked: Asked, place: str, of: str, wanted: Filters) -> dict[str, Any]:
    """One call: a page of a place, from `from=` on."""
    try:
        (name, key, value), positions = rule_of(asked.app.context, wanted.task, wanted.argument, lenient=True)
    except (TypeError, ValueError) as error:
        raise Refused(400, str(error)) from None
    offset = asked.number("from")
    is_search = bool(wanted.task or wanted.text or wanted.argument)
    page = await asked.ask(
        calls.find(
            place=place,
            which=of,
            offset=offset,
            limit=_LOOK_AT if is_search else LIMIT,
            task=name,
            text=wanted.text,
            argument=key,
            value=value,
            positions=to_json(positions),
        )
    )
    rows = [_row(asked, row) for row in page.rows if not (key.isdecimal() and is_hidden(asked, row.name, key))]
    text = wanted.text.lower()
    shown = [row for row in rows if not text or _has(row, text)]
    return {
        "tasks": shown,
        "from": offset,
        "looked_at": page.looked,
        "size": page.size,
        "next": page.next_offset or None,
    }


def _row(asked: Asked, row: calls.FoundRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "lane": row.lane,
        "tries": row.tries,
        "number": row.number,
        "error": row.error,
        "arguments": _arguments(asked, row) if asked.sees_payloads else None,
    }


def _arguments(asked: Asked, row: calls.FoundRow) -> dict[str, Any] | None:
    """By name, without secrets; None if they are too long for a list, or not JSON: what is cut cannot be redacted."""
    if row.codec not in ("", "json"):
        return None
    try:
        args, kwargs = from_json(row.args or b"[]"), from_json(row.kwargs or b"{}")
        return dict(asked.redactor.call(args, kwargs, asked.app.context.registry.signature_of(row.name)))
    except (TypeError, ValueError, AttributeError):
        return None


def is_hidden(asked: Asked, task: str, key: str) -> bool:
    """Whether an argument of a task, by its name or position, is hidden from everybody."""
    signature = asked.app.context.registry.signature_of(task) if key.isdecimal() else None
    if signature is not None:
        *_, (key, _) = signature.positional(int(key) + 1)
    return asked.redactor.hides(key)


def is_secret_pause(asked: Asked, pause: str) -> bool:
    """Whether the id of a pause, such as `send(customer=42)`, tells a value that the user may not see."""
    task, _, rule = pause.partition("(")
    key, equals, _ = rule.partition("=")
    return bool(equals) and (not asked.sees_payloads or is_hidden(asked, task, key))


def _has(row: dict[str, Any], text: str) -> bool:
    """Whether what is shown has the text: one that is hidden must not be found, either."""
    seen = (
        row["id"],
        row["name"],
        row["error"],
        "" if row["arguments"] is None else to_json(row["arguments"]).decode(),
    )
    return any(text in each.lower() for each in seen)


def _scalar(text: str) -> Any:
    """What was typed as a value: JSON, or else a string."""
    try:
        value = from_json(text.encode())
    except ValueError:
        return text
    return value if isinstance(value, str | int) else text
