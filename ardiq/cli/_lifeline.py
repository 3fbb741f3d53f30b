"""The line between a worker process and the one that keeps it, and what counts as one request to stop.

Down it go the words to stop; up, that the interpreter ended in order. Each end notices when the other is gone.
"""

import atexit
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal

STOP, NOW = b"s", b"n"
IN_ORDER = b"."

_ONCE_S = 1.0


class Requests:
    """Requests to stop by signal. Those within a second are one: systemd, supervisord and terminals signal many
    processes at once, and some of these pass it on.
    """

    def __init__(self) -> None:
        self._first: float | None = None

    def count(self) -> Literal["first", "same", "further"]:
        """What one that arrives now is."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return "first"
        return "same" if now - self._first < _ONCE_S else "further"


class Lifeline:
    """The worker's end. What comes is heard on a thread, whatever holds up the event loop.

    That the interpreter ends in order is told whatever the exit code: `os._exit(0)` in a task is no such end.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        # Until there is a worker to stop.
        self.stop: Callable[[], None] = self._leave
        self.stop_now: Callable[[], None] = self._leave
        atexit.register(self.say_in_order)
        threading.Thread(target=self._listen, name="ardiq-lifeline", daemon=True).start()

    def say_in_order(self) -> None:
        """Tell that this process ends in order."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, IN_ORDER)

    def _listen(self) -> None:
        while True:
            word = os.read(self._descriptor, 1)
            if word == NOW:
                self.stop_now()
            else:
                self.stop()
            if not word:  # whoever keeps it is gone
                return

    def _leave(self) -> None:
        self.say_in_order()
        os._exit(0)


def tell(line: socket.socket, word: bytes) -> None:
    """Say it to the worker at the other end, if there is one still."""
    with contextlib.suppress(OSError):
        line.send(word, socket.MSG_DONTWAIT)
