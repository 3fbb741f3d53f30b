"""Instruments: what is told of each enqueue and each attempt, where it happens and without a turn of the event loop.

`ardiq.otel` and `ardiq.sentry` are made of them. An instrument is for the whole process and for all apps in it.
"""

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from ._values.ids import schedule_of

__all__ = ["Attempt", "Enqueuing", "Instrument", "Outcome", "Sending", "add", "remove"]

log = logging.getLogger("ardiq")


Kind: TypeAlias = Literal["one", "many", "part"]


class Enqueuing(NamedTuple):
    """A call that is being enqueued.

    Attributes:
        task_id: the id that the task gets, unless another one is there in its place.
        name: of the task.
        lane: its lane.
        delay_ms: after which time it becomes ready; 0: at once.
        headers: travel with the task; what is put there, an attempt reads in `Attempt.headers`.
    """

    task_id: str
    name: str
    lane: str
    delay_ms: int
    headers: dict[str, Any]


class Sending(NamedTuple):
    """What one call of `enqueue`, `enqueue_many` or the like sends.

    Attributes:
        queue: the name of the queue.
        url: of its server, without a password.
        calls: what is enqueued.
        kind: "one" call, or "many" at once, or "part": what is sent later, or with others, as the nodes of a workflow
            are. Of a part the lane may be empty, and nobody tells the answer.
    """

    queue: str
    url: str
    calls: Sequence[Enqueuing]
    kind: Kind


Sent = Callable[[Sequence[str], BaseException | None], None]
"""Called when the server has answered: a word for each call ("queued", "scheduled", "limited", "accepted", "exists",
"replaced"; none if that is not known), and what was raised.
"""


class Attempt(NamedTuple):
    """An attempt of a task.

    Attributes:
        task_id: the task's id.
        name: of the task.
        queue: the queue that it came from.
        url: of its server, without a password.
        lane: its lane.
        tries: which attempt it is, from 1.
        enqueued_at: when the task became ready for its first attempt, in seconds since the epoch.
        wait_s: how long it then waited, in seconds; None: it is a further attempt.
        worker: the name of the worker.
        executor: "loop", "thread" or "process".
        headers: what was put there when it was enqueued.
    """

    task_id: str
    name: str
    queue: str
    url: str
    lane: str
    tries: int
    enqueued_at: float
    wait_s: float | None
    worker: str
    executor: str
    headers: Mapping[str, Any]

    @property
    def schedule(self) -> str:
        """The name of the schedule whose occurrence it is; empty if it is none."""
        return schedule_of(self.task_id)


class Outcome(NamedTuple):
    """How an attempt ended, as its worker judged it.

    Attributes:
        word: "complete", "failed" for good, "retry", "snooze", "limited", "suspend" (it waits), "aborted", or "release"
            (handed back).
        run_s: how long it ran, in seconds.
        error: what it raised.
        asked: it raised `Retry` itself.
        delay_ms: after which time it runs again, if it does.
    """

    word: str
    run_s: float
    error: BaseException | None = None
    asked: bool = False
    delay_ms: int | None = None


class Instrument:
    """What is told. Override what you need. An exception in an instrument is logged, and changes nothing else.

    Attributes:
        enter: module and function, as "module:function", which a child process calls with what `carried` returned.
    """

    enter = ""

    def sending(self, sending: Sending) -> Sent | None:
        """Calls are about to be enqueued. Called where `enqueue` is.

        Returns:
            What is called with the server's answers; None: nothing.
        """
        return None

    def started(self, attempt: Attempt) -> Any:
        """An attempt begins. Called where its function is about to run, in its context: on the loop, or on the thread;
        for a child process, on the loop of its worker.

        Returns:
            Any value, for `ended` and `carried`.
        """

    def ended(self, attempt: Attempt, state: Any, outcome: Outcome) -> None:
        """An attempt was judged. Called where it ran, or on the worker's loop if its function cannot be stopped and
        still runs.
        """

    def slots(self, queue: str, change: int) -> None:
        """A worker of a queue has begun, with so many slots, or has ended: with as many below zero."""

    def carried(self, state: Any) -> dict[str, str] | None:
        """What a child process needs of an attempt that runs there, as does the one execution of a batch."""
        return None


active: tuple[Instrument, ...] = ()
"""All of this process."""


def add(instrument: Instrument) -> None:
    """Tell it from now on; of attempts, those of workers that start from now on."""
    global active
    active = (*active, instrument)


def remove(instrument: Instrument) -> None:
    """Tell it nothing any more, of attempts as soon as the worker has ended."""
    global active
    active = tuple(each for each in active if each is not instrument)


def enter(carried: Iterable[tuple[str, dict[str, str]]]) -> None:
    """Call the functions that instruments named."""
    for path, fields in carried:
        module, _, function = path.partition(":")
        try:
            getattr(importlib.import_module(module), function)(fields)
        except Exception:
            log.exception("an instrument failed: enter of %s", path)


class Told:
    """What the instruments are told of one enqueue; a context manager around it.

    Args:
        sending: what is sent; None: nobody is told.

    Attributes:
        answers: the server's, if `wants_answers`.
    """

    __slots__ = ("_heard", "answers")

    def __init__(self, sending: Sending | None = None) -> None:
        self.answers: Sequence[str | bytes] = ()
        self._heard: list[Sent] = []
        if sending is None:
            return
        for instrument in active:
            with Guarded(instrument, "sending"):
                if (heard := instrument.sending(sending)) is not None:
                    self._heard.append(heard)

    @property
    def wants_answers(self) -> bool:
        """Whether an instrument waits for them."""
        return bool(self._heard)

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """It was answered, or `error` was raised; at the latest at the end of the block."""
        ended, self._heard = self._heard, []
        answers = [_word(answer) for answer in self.answers] if ended else []
        for heard in ended:
            with Guarded(heard, "sent"):
                heard(answers, error)


class Guarded:
    """Logs an exception of an instrument, and goes on behind the block."""

    __slots__ = ("_named",)

    def __init__(self, instrument: Any, what: str) -> None:
        self._named = (what, instrument)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        log.error("an instrument failed: %s of %r", *self._named, exc_info=error)
        return True


def _word(answer: str | bytes) -> str:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    return text.partition(" ")[0]
