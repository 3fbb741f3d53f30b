"""The state of a job that does not affect whether two jobs are equal."""

from typing import Any

from .signature import Signature


class Known:
    """What this process knows of an enqueued task. Attributes are set only if they differ from the usual."""

    __slots__ = ("_is_unsure", "_signature", "existed")

    existed: bool
    """Whether an enqueue added nothing, because an unfinished task had this id, or its key."""
    _signature: Signature | None
    _is_unsure: bool

    def __getattr__(self, name: str) -> Any:
        if name in ("existed", "_is_unsure"):
            return False
        if name == "_signature":
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


ADDED = frozenset({b"queued", b"limited", b"scheduled", b"accepted"})
"""Answers to an enqueue that has become a task of its own."""


def take_answer(job: Any, answer: Any) -> None:
    """Take the answer of an enqueue that has not: its job is that of the task that is there instead."""
    word, _, task_id = answer.decode(errors="replace").partition(" ")
    if word in ("exists", "replaced"):
        set_existed(job, True)
        if task_id:
            object.__setattr__(job, "id", task_id)


# One is made for each task that is enqueued: the slots themselves are the fastest way around `frozen`.
set_existed, set_unsure, set_signature = (
    Known.__dict__[name].__set__ for name in ("existed", "_is_unsure", "_signature")
)
