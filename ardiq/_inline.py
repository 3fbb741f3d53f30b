"""A line that leads to no server: what is enqueued runs at once, in memory, through the worker's own attempts."""

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import context
from ._attempts import ABORTED, COMPLETE, FAILED, RETRY, SNOOZE, Attempts, Claim, Registered, within
from ._broker import Enqueued, resolve
from ._codec import from_json, to_json
from ._mailbox import Outcome, too_late
from .job import Job

if TYPE_CHECKING:
    from .app import Ardiq

_TOKENS = itertools.count(1)
_OUTCOME = ("state", "tries", "enqueued_at", "started_at", "finished_at", "codec", "value")


class InlineBroker:
    """Takes the place of an app's broker while `inline` lasts."""

    def __init__(self, app: "Ardiq") -> None:
        self._line = InlineLine(app)

    def line(self, loop: asyncio.AbstractEventLoop) -> "InlineLine":
        """The one line; tasks run on the loop that entered `inline`, and are asked about there."""
        if loop is not self._line.loop:
            raise RuntimeError("the app runs inline on another event loop: use it on the one that entered inline(app)")
        return self._line

    @property
    def core(self) -> Any:
        """For blocking calls, which would wait for a task that needs their thread."""
        raise RuntimeError("within inline(app) nothing may block: await enqueue and result, not their _sync twins")

    def close(self) -> None:
        """Cancel what still runs."""
        self._line.close()


class InlineLine:
    """Answers what `Producer` and `Queue` ask; also the worker and the reports of its attempts."""

    def __init__(self, app: "Ardiq") -> None:
        self.loop = asyncio.get_running_loop()
        self.mailbox = InlineMailbox(self)
        self.turn_due = True  # outcomes are taken when an attempt ends, without a turn
        self.records: dict[str, dict[str, bytes]] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._attempts = Attempts(app, self)  # type: ignore[arg-type]
        self._attempts.in_thread = lambda fn, args, kwargs: asyncio.to_thread(fn, *args, **kwargs)
        self._attempts.in_process = self._in_process
        self._context = contextvars.copy_context()
        self._context.run(context.reports.set, self)  # type: ignore[arg-type]

    async def _in_process(self, entry: Registered, claim: Claim) -> Any:
        args, kwargs = self._attempts._codec.decode_call(claim[3], claim[4], claim[5], entry.signature)
        return await within(entry.timeout, asyncio.to_thread(entry.fn, *args, **kwargs))

    def enqueue(self, app: "Ardiq", task_id: str, record: Sequence[str | bytes], sent: Enqueued) -> None:
        """Run one task; `sent` becomes its job when it has ended, or at once while another of its id runs."""
        job = Job(app, task_id)
        if not self._add(record):
            sent.set_result(job)
            return
        self._start(task_id).add_done_callback(lambda run: _answer(sent, job, run))

    async def enqueue_many(self, records: Sequence[str | bytes]) -> list[bytes]:
        """Run many tasks, one after the other."""
        for at in range(0, len(records), 6):
            if self._add(records[at : at + 6]):
                await self._start(str(records[at]))
        return [b"queued"] * (len(records) // 6)

    def call(self, function: str, *args: Any) -> "asyncio.Future[Any]":
        """Answer one function of the library."""
        answers: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
            "task": self._task, "counts": self._counts, "list": self._dead, "requeue": self._requeue,
            "discard": self._discard, "abort": self._abort, "log": self._log,
        }  # fmt: skip
        if function not in answers:
            raise NotImplementedError(f"inline(app) has no {function!r}: test it with a worker on an embedded server")
        return asyncio.ensure_future(answers[function](*args))

    def turn_soon(self) -> None:
        """Of a worker: nothing waits for a turn here."""

    def is_cancelled(self) -> bool:
        """Of a worker: it is never handing tasks back."""
        return False

    def is_current(self, claim: tuple[Any, ...]) -> bool:
        """Of the reports: whether the attempt is still wanted."""
        return self._attempts.is_current(claim[1])

    def add(
        self, claim: tuple[Any, ...], *, progress: bytes = b"", meta: dict[str, Any] | None = None, line: str = ""
    ) -> None:
        """Of the reports: keep what a task tells of itself."""
        record = self.records[claim[0]]
        record["progress"] = progress or record.get("progress", b"")
        record["meta"] = to_json({**from_json(record.get("meta", b"{}")), **(meta or {})})
        if line:
            record["log"] = to_json([*from_json(record.get("log", b"[]")), line][-1000:])

    def close(self) -> None:
        self._attempts.over = True
        for run in self._runs:
            run.cancel()

    def _add(self, record: Sequence[Any]) -> bool:
        task_id, name, lane, args, kwargs, packed = record
        ended = self.ended.get(task_id)
        if ended is not None and not ended.is_set():
            return False
        options = from_json(packed) if packed else {}
        self.ended[task_id] = asyncio.Event()
        self.records[task_id] = {
            "name": name.encode(), "lane": lane.encode(), "args": args, "kwargs": kwargs,
            "codec": options.get("codec", "").encode(), "headers": options.get("headers", "").encode(),
            "state": b"queued", "enqueued_at": _now(), "tries": b"0",
        }  # fmt: skip
        return True

    def _start(self, task_id: str) -> "asyncio.Task[None]":
        run = self.loop.create_task(self._run(task_id), context=self._context.copy())
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return run

    async def _run(self, task_id: str) -> None:
        """Attempt after attempt until the task has ended; pauses pass in no time."""
        record, tries, age_ms, history = self.records[task_id], 1, 0, list[dict[str, Any]]()
        try:
            while True:
                record.update(state=b"running", tries=str(tries).encode(), started_at=_now())
                outcome, run_ms, value, details = await self._attempt(task_id, record, tries)
                if outcome in (RETRY, SNOOZE):
                    age_ms += run_ms + details["delay_ms"]
                    if details.get("max_age_ms") and age_ms > details["max_age_ms"]:
                        outcome = FAILED
                if outcome != COMPLETE:
                    error = value.decode(errors="replace")
                    entry = {"try": tries, "ended_at": int(_now()), "run_ms": run_ms, "worker": "inline"}
                    history = [*history, {**entry, "error": error}][-20:]
                    record["history"] = to_json(history)
                if outcome not in (RETRY, SNOOZE):
                    break
                tries += outcome == RETRY
                await asyncio.sleep(0)
            value = b"aborted" if outcome == ABORTED else value
            record.update(state=outcome.encode(), value=value, error=value, finished_at=_now())
            record["result_codec"] = details.get("codec", "").encode()
        finally:
            self.ended[task_id].set()

    async def _attempt(self, task_id: str, record: dict[str, bytes], tries: int) -> tuple[str, int, bytes, Any]:
        token, attempts, name = next(_TOKENS), self._attempts, record["name"].decode()
        claim: Claim = (
            task_id, token, name, record["args"], record["kwargs"], record["codec"].decode(), record["headers"],
            record["lane"].decode(), tries, int(record["enqueued_at"]),
        )  # fmt: skip
        attempts.taken_at = time()
        attempt = self.loop.create_task(attempts.runner(name)(claim), context=self._context.copy())
        attempts.running[token] = (task_id, attempt)
        try:
            await attempt
        except asyncio.CancelledError:
            if attempts.running.pop(token, None) is None or not attempt.cancelled():
                raise
            return ABORTED, 0, b"", {}  # before its first step
        ended = next(outcome for outcome in attempts.outcomes if outcome[1] == token)
        attempts.outcomes.remove(ended)
        return ended[2], ended[3], ended[4], from_json(ended[5]) if ended[5] else {}

    async def _task(self, task_id: str | bytes) -> list[Any]:
        record = self.records.get(task_id if isinstance(task_id, str) else task_id.decode(), {})
        return [part for field, value in record.items() for part in (field.encode(), value)]

    async def _counts(self) -> list[Any]:
        states = [record["state"] for record in self.records.values()]
        return [b"queued", states.count(b"queued"), b"scheduled", 0, b"dead", states.count(b"failed")]

    async def _dead(self, _what: str, _of: str, offset: int, limit: int) -> list[bytes]:
        dead = [(i.encode(), r["finished_at"]) for i, r in self.records.items() if r["state"] == b"failed"]
        return [part for letter in dead[::-1][offset : offset + limit] for part in letter]

    async def _requeue(self, task_id: str) -> list[bytes]:
        record = self.records[task_id]
        if record["state"] != b"failed":
            return [b"not_dead"]
        self.ended[task_id] = asyncio.Event()
        await self._start(task_id)
        return [b"queued"]

    async def _discard(self, task_id: str) -> list[bytes]:
        if self.records.get(task_id, {}).get("state") != b"failed":
            return [b"not_dead"]
        del self.records[task_id]
        return [b"removed"]

    async def _abort(self, task_id: str, _ttl_ms: int) -> bytes:
        return b"requested" if self._attempts.abort(task_id) else b"finished"

    async def _log(self, task_id: str, limit: int) -> list[bytes]:
        lines = from_json(self.records.get(task_id, {}).get("log", b"[]"))
        return [line.encode() for line in lines[-limit:]]


class InlineMailbox:
    """Waits for tasks that run here."""

    def __init__(self, line: InlineLine) -> None:
        self._line = line

    async def name(self) -> str:
        return "inline"

    async def look(self, task_id: str) -> Outcome | str | None:
        record = self._line.records.get(task_id)
        if record is None:
            return None
        if "finished_at" not in record or not self._line.ended[task_id].is_set():
            return record["state"].decode()
        return Outcome.read([{**record, "codec": record["result_codec"]}[field] for field in _OUTCOME])

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        try:
            async with asyncio.timeout(timeout):
                # An unknown task may be enqueued yet.
                while not isinstance(found := await self.look(task_id), Outcome):
                    await asyncio.sleep(0.005)
                return found
        except TimeoutError:
            raise too_late(task_id, timeout) from None

    @contextmanager
    def wish(self, task_id: str, timeout: float | None) -> Iterator[Any]:
        future = self._line.loop.create_future()
        future.set_result(None)  # it has ended when its enqueue is answered: ask for the outcome
        yield SimpleNamespace(ttl_ms=0, future=future)


def _answer(sent: Enqueued, job: Job, run: "asyncio.Task[None]") -> None:
    if not run.cancelled() and (error := run.exception()) is not None and not sent.done():
        sent.set_exception(error)
    resolve(sent, job)


def _now() -> bytes:
    return str(int(time() * 1000)).encode()
