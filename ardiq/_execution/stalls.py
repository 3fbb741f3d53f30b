"""Stalled event loops: the core notices one, and a thread here logs what blocks it."""

import asyncio
import logging
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from .stacks import claim_of, stack_text

if TYPE_CHECKING:
    from .. import _core
    from .._server.channel import Channel

log = logging.getLogger("ardiq")

_WAIT_MS = 10_000
_JOIN_S = 0.5


class StallWatch:
    """Watches the event loop that it is made on, for the workers on it."""

    @classmethod
    def of(cls, channel: "Channel", stall_after_s: float | None, replace_after_s: float | None) -> "StallWatch | None":
        """One as the options say, or None where they say none."""
        most = replace_after_s
        # What blocks the loop must be logged before the process ends.
        limits = [limit for limit in (stall_after_s, most and most / 2) if limit is not None]
        return cls(channel, min(limits), most) if limits else None

    def __init__(self, channel: "Channel", stall_after: float, replace_after: float | None) -> None:
        most_ms = None if replace_after is None else _milliseconds(replace_after)
        self.core: _core.StallDetector = channel.core.detect_stalls(_milliseconds(stall_after), most_ms)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="ardiq-stalls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self.core.close()
        # It must not come back into an interpreter that ends.
        self._thread.join(_JOIN_S)

    def _watch(self) -> None:
        while not self.core.ended:
            stalled_s = self.core.wait(_WAIT_MS)
            if stalled_s is not None:
                self._report(stalled_s)

    def _report(self, stalled_s: float) -> None:
        frames = sys._current_frames()
        frame = frames.pop(self._loop_thread, None)
        if frame is None:  # its thread has ended
            return
        holder = _task(frame)
        if holder is None:
            # It may wait for the interpreter, which a task on a thread holds on to.
            others = sorted(filter(None, map(_task, frames.values())))
            holder = "code outside any task" + (f" (on threads: {', '.join(others)})" if others else "")
        log.warning("the event loop has not run for %.1f s; %s blocks it:\n%s", stalled_s, holder, stack_text(frame))


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _task(frame: FrameType | None) -> str | None:
    """Whose code it is, where it is a task's."""
    claim = claim_of(frame)
    return None if claim is None else f"task {claim[2]!r} (id {claim[0]})"
