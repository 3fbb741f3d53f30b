"""Carrying out an action: its form, where people are led back to, what they are told there, and a line in the log."""

import base64
import binascii
import logging
from collections import Counter
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from .._server import calls
from ..cli._output import short
from ..errors import ArdiqError, BrokerError
from ._actions import Action
from ._asked import Asked, Refused
from .actions.told import Form, Told

log = logging.getLogger("ardiq.audit")

CONFIRMED = "confirmed"
_NOTICE = "ardiq-notice"
_LONGEST_NOTICE = 600  # of up to four bytes each; a browser keeps cookies of 4096
_NOTICE_S = 60
LARGEST_FORM = 1 << 18
_MOST_FIELDS = 1000
_LONGEST_LINE = 10_000


async def form_of(request: Request, most: int = LARGEST_FORM) -> Form:
    """What a form was filled in with.

    Raises:
        Refused: it is too large.
    """
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise Refused(413, "That form is too large.")
    try:
        return Form(parse_qsl(data.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise Refused(413, "That form has too many fields.") from None


async def carry_out(action: Action, asked: Asked, form: Form) -> tuple[Told, dict[str, str]]:
    """Do it, with a line in the log of who did what to which ids, also where it came to an error halfway."""
    answers: dict[str, str] = {}
    error: BaseException | None = None
    try:
        return await action.act(asked, form, answers), answers
    except BaseException as raised:
        error = raised
        raise
    finally:
        _record(action, asked, form, answers, error)
        if not isinstance(error, Refused | BrokerError):  # nothing was done, or nothing can be noted
            await _note(action, asked, form, answers, error)
        await asked.samples.renew()


def _record(action: Action, asked: Asked, form: Form, answers: dict[str, str], error: BaseException | None) -> None:
    user, queue, client = asked.user.name, asked.app.queue_name, asked.request.client
    where = client.host if client is not None else ""
    more = {"action": action.name, "user": user, "queue": queue, "client": where, "answers": answers}
    if error is None:
        log.info("%s in queue %r by %r from %s: %s", action.name, queue, user, where, answers, extra=more)
        return
    ids = [] if isinstance(error, Refused) else form.getlist("id") or form.getlist("name")
    why, which = short(f"{type(error).__name__}: {error}", 300), short(repr(ids), _LONGEST_LINE)
    words = "%s in queue %r by %r from %s of %s ended by %s, after: %s"
    log.warning(words, action.name, queue, user, where, which, why, answers, extra=more)


async def _note(action: Action, asked: Asked, form: Form, answers: dict[str, str], error: BaseException | None) -> None:
    """Note it in the queue, too: what was done stays done, also if that fails."""
    client = asked.request.client
    came = ", ".join(f"{number:,} {answer}" for answer, number in Counter(answers.values()).items())
    # The pause of an argument names the argument's value, which may be secret.
    pauses = [
        f"{form[name].partition('=')[0]}=…" if "=" in form[name] else form[name]
        for name in ("pause", "arg")
        if form.get(name)
    ]
    call = calls.audit_add(
        user=asked.user.name,
        client="" if client is None else client.host,
        action=action.name,
        subject=" ".join([*form.getlist("id"), *form.getlist("name"), *form.getlist("kind"), *pauses]),
        number=len(answers),
        outcome=came if error is None else f"{came} {type(error).__name__}: {error}".strip(),
    )
    try:
        await asked.ask(call)
    except ArdiqError as failed:
        log.warning(
            "%s by %r is not in the audit log of queue %r: %s",
            action.name,
            asked.user.name,
            asked.app.queue_name,
            failed,
        )


def refused(action: Action, queue: str, user: str) -> None:
    """A line in the log: somebody tried what they may not do."""
    log.warning("%s in queue %r by %r: refused", action.name, queue, user, extra={"action": action.name, "user": user})


def way_back(form: Form, root: str, otherwise: str) -> str:
    """The page that a form came from, if it is one of this queue."""
    back = form.get("back", "")
    is_ours = back.startswith(root) and back.isascii() and back.isprintable() and "\\" not in back
    return back if is_ours and ".." not in back.partition("?")[0].split("/") else otherwise


def tell(answer: Response, told: Told, path: str, is_secure: bool) -> None:
    """Give the next page something to say."""
    text = f"{'+' if told.is_done else '-'}{told.text[:_LONGEST_NOTICE]}"
    value = base64.urlsafe_b64encode(text.encode(errors="replace")).decode().rstrip("=")
    answer.set_cookie(_NOTICE, value, max_age=_NOTICE_S, path=path, secure=is_secure, httponly=True, samesite="strict")


def told_before(request: Request) -> Told | None:
    """What the last action gave this page to say."""
    value = request.cookies.get(_NOTICE, "")
    try:
        text = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    return Told(text[1:], text[0] == "+") if text[1:] else None


def forget(answer: Response, path: str) -> None:
    """It has been said."""
    answer.delete_cookie(_NOTICE, path=path, httponly=True, samesite="strict")
