"""Stacks and tracebacks as users read them: the code of their task, without Ardiq's around it."""

import sys
import traceback
from itertools import dropwhile
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endings import Claim

_OURS = __file__.removesuffix("_execution/stacks.py")
_RUN_TASKS = tuple(f"{_OURS}_execution/{name}.py" for name in ("attempts", "batches", "threads"))
_MOST_FRAMES = 50


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception and of what led to it, each from the first frame outside of Ardiq on. An error of
    Ardiq's own may have none, and then no cause either: its message says it all.
    """
    told = traceback.TracebackException.from_exception(error)
    chain = [told]
    for each in chain:
        each.stack[:] = dropwhile(_is_ours, each.stack)
        chain += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    if told.__cause__ is not None and not told.stack and not told.__cause__.stack:
        told.__cause__ = None
    for each in chain:
        if not each.stack:
            each.stack = None  # type: ignore[assignment]  # no heading without frames
    return "".join(told.format())


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)


def claim_of(frame: FrameType | None) -> "Claim | None":
    """The claim of the task whose code runs there, if it is a task's."""
    while frame is not None:
        if frame.f_code.co_filename in _RUN_TASKS and (claim := frame.f_locals.get("claim")) is not None:
            found: Claim = claim
            return found
        frame = frame.f_back
    return None


def stack_text(frame: FrameType) -> str:
    """What a task called, without what called the task; no more than the last frames."""
    stack = traceback.extract_stack(frame)
    ours = max((at for at, entry in enumerate(stack) if entry.filename in _RUN_TASKS), default=-1)
    shown = (stack[ours + 1 :] or stack)[-_MOST_FRAMES:]
    return "".join(traceback.StackSummary.from_list(shown).format()).rstrip()


def stack_of(claim: "Claim") -> str:
    """Where an attempt on a thread is now; empty where no thread runs it."""
    for frame in sys._current_frames().values():
        if claim_of(frame) is claim:
            return stack_text(frame)
    return ""
