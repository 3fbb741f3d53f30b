"""Saying what came of an action."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from starlette.datastructures import ImmutableMultiDict

from ...cli._output import short
from .._asked import Refused

MOST_IDS = 200
_LONGEST_ID = 60
_MOST_NAMED = 3

Form = ImmutableMultiDict[str, str]


class Told(NamedTuple):
    """What people are told, whether anything was changed, and the id of a task to lead them to."""

    text: str
    is_done: bool = True
    task_id: str = ""


class Input(NamedTuple):
    """A field to fill in: its name in the form, what it is for, what is in it, what to choose from, what to add."""

    name: str
    label: str
    value: str = ""
    choices: Sequence[str] = ()
    hint: str = ""
    is_long: bool = False


class Question(NamedTuple):
    """What is asked before something that cannot be undone, or that has to be filled in.

    Attributes:
        text: the question.
        why: what will come of it.
        ids: some of what it is about.
        more: fields of the form, besides those that were sent.
        inputs: fields to fill in; what is wrong with them is said above them, and they can be mended.
    """

    text: str
    why: str
    ids: Sequence[str] = ()
    more: Mapping[str, str] = {}
    inputs: Sequence[Input] = ()


def ids_of(form: Form) -> list[str]:
    """The ids that were chosen, each once.

    Raises:
        Refused: none, or too many.
    """
    ids = list(dict.fromkeys(filter(None, form.getlist("id"))))
    if not ids:
        raise Refused(400, "No task was chosen: tick at least one.")
    if len(ids) > MOST_IDS:
        raise Refused(400, f"{len(ids):,} tasks at once are too many: choose at most {MOST_IDS}.")
    return ids


def note(answers: dict[str, str], ids: Sequence[str], said: Sequence[Any]) -> None:
    """What a call answered to each of its ids."""
    answers.update((task_id, str(answer)) for task_id, answer in zip(ids, said, strict=True))


def summed(answers: Mapping[str, str], words: Mapping[str, str], good: str) -> Told:
    """What came of each id: by its name if it is one, else how many of each kind, the good ones first."""
    if len(answers) == 1:
        ((only, answer),) = answers.items()
        return Told(f"{short(only, _LONGEST_ID)}: {words.get(answer, answer)}.", answer in good.split())
    kinds: dict[str, list[str]] = {word: [] for word in words}
    for task_id, answer in answers.items():
        kinds.setdefault(answer, []).append(task_id)
    parts = []
    for answer, ids in kinds.items():
        if ids:
            which = "" if answer in good.split() else f" ({_named(ids)})"
            parts.append(f"{len(ids):,} {words.get(answer, answer)}{which}.")
    return Told(" ".join(parts), any(kinds.get(answer) for answer in good.split()))


def _named(ids: Sequence[str]) -> str:
    named = [short(each, _LONGEST_ID) for each in ids[:_MOST_NAMED]]
    return ", ".join([*named, "…"] if len(ids) > _MOST_NAMED else named)
