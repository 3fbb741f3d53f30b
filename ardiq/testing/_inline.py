"""A line that leads to no server: what is enqueued runs at once, in memory, through the worker's own attempts."""

import asyncio
import contextvars
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .. import context
from .._execution.attempts import Attempts, Registered, within
from .._execution.endings import ABORTED, Claim
from .._execution.scheduler import Scheduler
from .._server.changes import Change
from .._server.inbox import EXISTS, Enqueued, resolve
from .._server.mailbox import Outcome, too_late
from .._values.codec import from_json
from ..job import Job, set_existed
from ._inline_library import InlineLibrary, InlineTask
from ._inline_pauses import InlinePauses
from ._inline_schedules import InlineSchedules

if TYPE_CHECKING:
    from ..app import Ardiq
    from ._clock import Clock

_TOKENS = itertools.count(1)
_LOOK_S = 0.005
_NO_BLOCKING = "within inline(app) nothing may block: await enqueue and result, not their _sync twins"
_AT_ONCE = frozenset({"await", "task", "log", "counts", "abort", "pauses"})


class InlineBroker:
    """Takes the place of an app's broker while `inline` lasts."""

    def __init__(self, app: "Ardiq", clock: "Clock | None") -> None:
        self.own = InlineLine(app, clock)
        self._clock = clock
        self._siblings: list[tuple[Ardiq, InlineBroker]] = []

    def sibling(self, app: "Ardiq") -> "InlineBroker":
        """One for another queue of the app."""
        other = InlineBroker(app, self._clock)
        self._siblings.append((app, other))
        if self._clock is not None:
            self._clock._lines.append((app, other.own))
        return other

    def line(self, loop: asyncio.AbstractEventLoop) -> "InlineLine":
        """The one line; a task runs on the loop where it is enqueued, which a test client has of its own."""
        return self.own

    @property
    def core(self) -> Any:
        """For blocking calls that ask and change without waiting: `status_sync`, `abort_sync` and their like."""
        return SimpleNamespace(call=self._call)

    def register(self, core: Any) -> None:
        """A blocking call is about to add a task, which runs before its enqueue is answered."""
        raise RuntimeError(_NO_BLOCKING)

    def may_wait(self) -> None:
        """Nobody may wait for a task that needs their thread."""
        if self._is_on_loop():
            raise RuntimeError(_NO_BLOCKING)

    def _call(self, function: str, args: Sequence[Any], repeat: bool = False, within_ms: int | None = None) -> Any:
        if function not in _AT_ONCE:
            raise RuntimeError(_NO_BLOCKING)
        if self._is_on_loop():
            return self.own.call_now(function, *args)

        async def ask() -> Any:
            return self.own.call_now(function, *args)

        return asyncio.run_coroutine_threadsafe(ask(), self.own.loop).result()

    def _is_on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.own.loop
        except RuntimeError:  # a sync task's thread
            return False

    def close(self) -> None:
        """Cancel what still runs."""
        for app, other in self._siblings:
            if self._clock is not None and (app, other.own) in self._clock._lines:
                self._clock._lines.remove((app, other.own))
            other.close()
        self.own.close()


class InlineLine:
    """Answers what `Producer` and `Queue` ask; also the worker and the reports of its attempts."""

    def __init__(self, app: "Ardiq", clock: "Clock | None") -> None:
        self.loop = asyncio.get_running_loop()
        self.queue = app.queue_name
        self.mailbox = InlineMailbox(self)
        self.turn_due = True  # outcomes are taken when an attempt ends, without a turn
        self.started: list[str] = []
        self.library = InlineLibrary(_machine_ms if clock is None else lambda: clock.now_ms, clock is not None)
        self.schedules = InlineSchedules(self.library)
        self.scheduler = Scheduler(app)
        pauses = InlinePauses(self.library, lambda a, k, codec: app._codec.decode_call(a, k, codec, None))
        self._functions = {
            **self.library.functions, **self.schedules.functions, **pauses.functions, "abort": self._abort,
        }  # fmt: skip
        self._runs: set[asyncio.Task[None]] = set()
        self._noted: dict[int, dict[str, bytes]] = {}
        self._tokens: dict[str, int] = {}  # of what runs
        self._attempts = Attempts(app, self)  # type: ignore[arg-type]
        self._attempts.in_thread = lambda fn, args, kwargs: asyncio.to_thread(fn, *args, **kwargs)
        self._attempts.in_process = self._in_process
        self._context = contextvars.copy_context()
        self._context.run(context.reports.set, self)  # type: ignore[arg-type]

    async def _in_process(self, entry: Registered, claim: Claim) -> Any:
        args, kwargs = self._attempts._codec.receive_call(claim[3], claim[4], claim[5], entry.signature)
        return await within(entry.timeout, asyncio.to_thread(entry.fn, *args, **kwargs))

    def enqueue(self, job: Job, record: Sequence[Any], sent: Enqueued) -> None:
        """Run one task; `sent` becomes its job when it has ended, at once where it must wait or exists already."""
        set_existed(job, self.library.enqueue(*record) == EXISTS)
        if not self.library.ready:
            sent.set_result(job)
            return
        self._start(self.library.ready.popleft()).add_done_callback(lambda run: _answer(sent, job, run))

    async def enqueue_many(self, records: Sequence[Any]) -> list[bytes]:
        """Run many tasks, one after the other."""
        answers = [self.library.enqueue(*records[at : at + 6]) for at in range(0, len(records), 6)]
        await self._run_ready()
        return answers

    def call(self, function: str, *args: Any) -> "asyncio.Future[Any]":
        """Answer one function of the library, when what it made ready has run."""
        if function not in self._functions:
            raise NotImplementedError(f"inline(app) has no {function!r}: test it with a worker on an embedded server")
        return asyncio.ensure_future(self._call(function, *args))

    def call_now(self, function: str, *args: Any) -> Any:
        """Answer one function that makes nothing ready."""
        if function != "await":
            return self._functions[function](*args)
        task = self.library.tasks.get(args[0])
        if task is None:
            return [b"not_found"]
        if task.is_unfinished:
            return [b"waiting", task.state.encode()]
        state, *times, codec, value = task.outcome()
        return [b"finished", state.encode(), *times, codec.encode(), value]

    async def watch(self, task_id: str, timeout: float | None) -> AsyncGenerator[Change | Outcome | None, None]:
        """Each change of a task from now on, looked for in memory; see `Watch.changes`."""
        deadline = inf if timeout is None else asyncio.get_running_loop().time() + timeout
        last, told = None, None
        while (task := self.library.tasks.get(task_id)) is not None and task.is_unfinished:
            change = Change(task.state, task.number("tries"), task.record.get("progress", b""))
            told = len(task.told) if told is None else told
            if change != last or task.told[told:]:
                last, news, told = change, tuple(task.told[told:]), len(task.told)
                yield change._replace(told=news)
            elif asyncio.get_running_loop().time() >= deadline:
                raise too_late(task_id, timeout)
            else:
                await asyncio.sleep(_LOOK_S)
        yield None if task is None else task.outcome()

    def next_due_ms(self) -> int | None:
        """When the next task or schedule falls due."""
        tasks = [task.number("due_at") for task in self.library.tasks.values() if task.state == "scheduled"]
        return min([*tasks, *self.schedules.due.values()], default=None)

    async def run_due(self) -> None:
        """Run the tasks that are due, one after the other, and fire the schedules."""
        self.library.promote()
        await self._run_ready()
        await self.scheduler.fire_due()

    def turn_soon(self) -> None:
        """Of a worker: nothing waits for a turn here."""

    def occupy(self, takes: bool) -> None:
        """Of a worker: there is no end of slots here."""

    def has_told(self, token: int) -> bool:
        """Of a worker: what a task tells has arrived at once."""
        return False

    async def reports_arrive(self, token: int) -> None:
        """Of a worker: likewise."""

    def is_cancelled(self) -> bool:
        """Of a worker: it is never handing tasks back."""
        return False

    def is_current(self, claim: tuple[Any, ...]) -> bool:
        """Of the reports: whether the attempt is still wanted."""
        return self._attempts.is_current(claim[1])

    def noted(self, claim: tuple[Any, ...], to_add: bool = False) -> dict[str, bytes]:
        """Of the reports: what the attempt has noted so far."""
        return self._noted.setdefault(claim[1], {})

    def add(
        self, claim: tuple[Any, ...], *, progress: bytes = b"", notes: dict[str, bytes] | None = None, line: str = ""
    ) -> None:
        """Of the reports: keep what a task tells of itself."""
        self.library.report(claim[0], progress, notes or {}, line)

    def close(self) -> None:
        """Cancel what still runs."""
        self._attempts.over = True
        for run in self._runs:
            run.cancel()

    async def _call(self, function: str, *args: Any) -> Any:
        answer = self._functions[function](*args)
        await self._run_ready()
        return answer

    async def _run_ready(self) -> None:
        ready, self.library.ready = self.library.ready, deque()
        for task in ready:
            await self._start(task)

    def _start(self, task: InlineTask) -> "asyncio.Task[None]":
        run = asyncio.get_running_loop().create_task(self._run(task), context=self._context.copy())
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return run

    async def _run(self, task: InlineTask) -> None:
        """Attempt after attempt until the task has ended or must wait for its time."""
        while self.library.claim(task):
            self.started.append(task.id)
            token = next(_TOKENS)
            became = self.library.settle(task, *await self._attempt(task, token))
            await self._attempts.endings.tell(token, became)
            await asyncio.sleep(0)

    async def _attempt(self, task: InlineTask, token: int) -> tuple[str, int, bytes, Any]:
        attempts, record = self._attempts, task.record
        name = record["name"].decode()
        claim: Claim = (
            task.id, token, name, record["args"], record["kwargs"], record["codec"].decode(), record["headers"],
            record["lane"].decode(), task.number("tries"), task.number("enqueued_at"),
        )  # fmt: skip
        attempts.taken_at = self.library.now_ms() / 1000
        attempt = asyncio.get_running_loop().create_task(attempts.runner(name)(claim), context=self._context.copy())
        attempts.running[token] = attempt
        self._tokens[task.id] = token
        try:
            await attempt
        except asyncio.CancelledError:
            if attempts.running.pop(token, None) is None or not attempt.cancelled():
                raise
            return ABORTED, 0, b"", {}  # before its first step
        finally:
            del self._tokens[task.id]
            self._noted.pop(token, None)
        ended = next(outcome for outcome in attempts.outcomes if outcome[1] == token)
        attempts.outcomes.remove(ended)
        return ended[2], ended[3], ended[4], from_json(ended[5]) if ended[5] else {}

    def _abort(self, task_id: str, ttl_ms: int) -> bytes:
        token = self._tokens.get(task_id)
        if token is not None and self._attempts.abort(token):
            return b"requested"
        return self.library.abort(task_id, ttl_ms)


class InlineMailbox:
    """Waits for tasks that run here."""

    def __init__(self, line: InlineLine) -> None:
        self._line = line

    async def name(self) -> str:
        return "inline"

    async def look(self, task_id: str) -> Outcome | str | None:
        task = self._line.library.tasks.get(task_id)
        if task is None:
            return None
        return task.state if task.is_unfinished else task.outcome()

    async def wait(self, task_id: str, timeout: float | None, is_known: bool = False) -> Outcome:
        try:
            async with asyncio.timeout(timeout):
                # An unknown task may be enqueued yet.
                while not isinstance(found := await self.look(task_id), Outcome):
                    await asyncio.sleep(_LOOK_S)
                return found
        except TimeoutError:
            raise too_late(task_id, timeout) from None

    @contextmanager
    def wish(self, task_id: str, timeout: float | None) -> Iterator[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)  # it has ended when its enqueue is answered: ask for the outcome
        yield SimpleNamespace(ttl_ms=0, future=future)


def _answer(sent: Enqueued, job: Job, run: "asyncio.Task[None]") -> None:
    if not run.cancelled() and (error := run.exception()) is not None and not sent.done():
        sent.set_exception(error)
    resolve(sent, job)


def _machine_ms() -> int:
    return int(time() * 1000)
