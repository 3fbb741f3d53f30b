"""The rules of the Lua library that matter without a server, restated for `inline`.

tests/python/test_inline_agreement.py compares them with the library itself.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from .._execution.endings import ABORTED, COMPLETE, FAILED, SNOOZE, UNKNOWN
from .._server.mailbox import Outcome
from .._values.codec import from_json, to_json

_MOST_ATTEMPTS = 20
_LONGEST_ERROR = 500
_MOST_LINES = 1000
# How long a task rests that is unknown, by how long it has been.
_RESTS_MS = {600_000: 300_000, 60_000: 60_000, 10_000: 10_000, 0: 1_000}
_LEFT_BY_DISCARD = ("name", "lane", "tries", "enqueued_at", "started_at", "finished_at", "error")
_KEPT_BY_REQUEUE = ("name", "lane", "args", "kwargs", "codec", "headers")


class InlineTask:
    """A task: its record as the server would have it, how long it was not made to wait, and its notes and lines."""

    def __init__(self, task_id: str, record: dict[str, bytes]) -> None:
        self.id = task_id
        self.record = record
        self.skipped_ms = 0
        self.told: list[tuple[str, bytes]] = []

    @property
    def state(self) -> str:
        return self.record["state"].decode()

    @property
    def is_unfinished(self) -> bool:
        return self.state in ("queued", "scheduled", "held", "running")

    def number(self, field: str) -> int:
        """A field as a number, 0 where there is none."""
        return int(self.record.get(field) or 0)

    def write(self, **fields: bytes | str | int) -> None:
        """Set fields of the record."""
        for name, value in fields.items():
            self.record[name] = value if isinstance(value, bytes) else str(value).encode()

    def outcome(self) -> Outcome:
        """How it ended."""
        succeeded = self.state == COMPLETE
        return Outcome(
            self.state,
            self.number("tries"),
            self.number("enqueued_at"),
            self.number("started_at"),
            self.number("finished_at"),
            self.record.get("result_codec", b"").decode() if succeeded else "",
            self.record["result" if succeeded else "error"],
        )


def short(error: bytes) -> str:
    """An error's text, cut to what a history keeps of it."""
    if len(error) > _LONGEST_ERROR:
        error = re.sub(rb"[\xc0-\xff][\x80-\xbf]*$", b"", error[:_LONGEST_ERROR]) + b"..."
    return error.decode(errors="replace")


class InlineLibrary:
    """Tasks in memory, and what may become of them.

    Args:
        now_ms: the clock.
        waits: whether tasks wait for their time; else delays and expiry are passed over.
    """

    def __init__(self, now_ms: Callable[[], int], waits: bool) -> None:
        self.now_ms = now_ms
        self.waits = waits
        self.tasks: dict[str, InlineTask] = {}
        self.ready: deque[InlineTask] = deque()
        self.on_end: Callable[[InlineTask], None] = lambda _: None
        self.stops: Callable[[InlineTask], bool] = lambda _: False
        self.waiters: dict[str, str] = {}  # task id -> who is told, of those that are no mailbox
        self.functions: dict[str, Callable[..., Any]] = {
            "task": self.task, "counts": self.counts, "dead_letters": self.dead_letters, "requeue": self.requeue,
            "amend": self.amend, "discard": self.discard, "purge": self.purge, "abort": self.abort, "log": self.log,
        }  # fmt: skip

    def enqueue(self, task_id: str, name: str, lane: str, args: bytes, kwargs: bytes, packed: bytes) -> bytes:
        """none, finished -> queued, scheduled; one that is unfinished is left as it is."""
        before, now_ms = self.tasks.get(task_id), self.now_ms()
        if before is not None and before.is_unfinished:
            return b"exists"
        options = from_json(packed) if packed else {}
        task = self.tasks[task_id] = InlineTask(task_id, {"args": args, "kwargs": kwargs})
        task.write(name=name, lane=lane, codec=options.get("codec", ""), headers=options.get("headers", ""))
        task.write(state="queued", tries=0, enqueued_at=now_ms)
        if "waiter" in options:
            self.waiters[task_id] = options["waiter"]
        due_at = now_ms + options["delay_ms"] if "delay_ms" in options else options.get("due_at", 0)
        if self.waits and "expire_ms" in options:
            task.write(expires_at=now_ms + options["expire_ms"])
        if self.waits and due_at > now_ms:
            task.write(state="scheduled", due_at=due_at)
        else:
            self.ready.append(task)
        return task.state.encode()

    def promote(self) -> None:
        """scheduled -> queued, for all that are due, in the order of their times."""
        now_ms = self.now_ms()
        scheduled = [task for task in self.tasks.values() if task.state == "scheduled"]
        for task in sorted(scheduled, key=lambda task: task.number("due_at")):
            if task.number("due_at") <= now_ms:
                task.write(state="queued")
                self.ready.append(task)

    def claim(self, task: InlineTask) -> bool:
        """queued -> running, expired, held; whether it is to be run."""
        now_ms = self.now_ms()
        if task.state != "queued" or self.tasks.get(task.id) is not task:
            return False
        if 0 < task.number("expires_at") <= now_ms:
            self._end(task, "expired", b"expired")
            return False
        if self.stops(task):
            return False
        task.write(state="running", started_at=now_ms, tries=task.number("tries") + 1)
        return True

    def settle(self, task: InlineTask, outcome: str, run_ms: int, value: bytes, details: dict[str, Any]) -> str:
        """running -> complete, failed, aborted, scheduled, queued; the outcome that it became."""
        now_ms = self.now_ms()
        if outcome == COMPLETE:
            task.write(state=COMPLETE, started_at=now_ms - run_ms, finished_at=now_ms, result=value)
            task.write(result_codec=details.get("codec", ""))
            self.on_end(task)
        elif outcome == ABORTED:
            self._end(task, ABORTED, b"aborted")
        elif outcome == UNKNOWN:
            return self._leave_to_others(task, value, details["max_age_ms"])
        elif outcome == FAILED:
            self._note(task, run_ms, value, details)
            self._end(task, FAILED, value)
        else:
            if outcome == SNOOZE:
                task.write(tries=task.number("tries") - 1)
            else:
                self._note(task, run_ms, value, details)
            due_at, max_age_ms = now_ms + details["delay_ms"], details.get("max_age_ms", 0)
            if max_age_ms and due_at + task.skipped_ms - task.number("enqueued_at") > max_age_ms:
                self._end(task, FAILED, value + f" (older than its max_age of {max_age_ms} ms)".encode())
                return FAILED
            if self.waits and due_at > now_ms:
                task.write(state="scheduled", due_at=due_at)
            else:
                task.skipped_ms += details["delay_ms"]
                task.write(state="queued")
        return outcome

    def _leave_to_others(self, task: InlineTask, value: bytes, max_age_ms: int) -> str:
        """running -> scheduled, failed. Where nothing waits, its time is over at once."""
        now_ms = self.now_ms()
        since = task.number("unknown_since") or now_ms
        waited = now_ms - since if self.waits else max_age_ms
        task.write(tries=task.number("tries") - 1, unknown_since=since)
        if waited >= max_age_ms:
            self._end(task, FAILED, value + f" (no worker knew it for {max_age_ms} ms)".encode())
            return FAILED
        rest_ms = next(rest_ms for least_ms, rest_ms in _RESTS_MS.items() if waited >= least_ms)
        task.write(state="scheduled", due_at=now_ms + rest_ms, error=value)
        return UNKNOWN

    def report(self, task_id: str, progress: bytes, notes: dict[str, bytes], line: str) -> None:
        """Keep what a running task tells of itself."""
        record = self.tasks[task_id].record
        self.tasks[task_id].told += [*notes.items(), *([("", line.encode())] if line else [])]
        record["progress"] = progress or record.get("progress", b"")
        for name, text in notes.items():
            if text:
                record[f"meta:{name}"] = text
            else:
                record.pop(f"meta:{name}", None)
        if line:
            record["log"] = to_json([*from_json(record.get("log", b"[]")), line][-_MOST_LINES:])

    def task(self, task_id: str | bytes) -> list[Any]:
        """A task's record."""
        task = self.tasks.get(task_id if isinstance(task_id, str) else task_id.decode())
        fields = {} if task is None else task.record
        return [part for name, value in fields.items() if value for part in (name.encode(), value)]

    def counts(self) -> list[Any]:
        """How many tasks are where."""
        states = [task.state for task in self.tasks.values()]
        places = {"queued": "queued", "scheduled": "scheduled", "held": "held", "running": "running"}
        places["dead"] = FAILED
        return [part for place, state in places.items() for part in (place.encode(), states.count(state))]

    def dead_letters(self, name: str, error: str, since_at: int, before_at: int, _limit: int) -> Sequence[bytes]:
        """Those that fit, newest first, all on one page."""
        now_ms, dead = self.now_ms(), [task for task in self.tasks.values() if task.state == FAILED]
        since_at, before_at = (at + now_ms if at < 0 else at for at in (since_at, before_at))
        found = [
            task
            for task in dead
            if (not name or task.record["name"] == name.encode())
            and error.lower() in task.record["error"].decode(errors="replace").lower()
            and since_at <= task.number("finished_at") < (before_at or inf)
        ]
        found.sort(key=lambda task: task.number("finished_at"))
        rows = [(task.id.encode(), *(task.record[at] for at in ("finished_at", "name", "lane"))) for task in found]
        return [b"0", *(part for row in rows[::-1] for part in row)]

    def requeue(self, *task_ids: str) -> Sequence[bytes]:
        """failed -> queued: as if new."""
        return [self._requeue(task_id) for task_id in task_ids]

    def amend(self, task_id: str, args: bytes, kwargs: bytes, codec: str, headers: str) -> bytes:
        """failed -> queued: with other arguments."""
        answer = self._requeue(task_id)
        if answer == b"queued":
            self.tasks[task_id].write(args=args, kwargs=kwargs, codec=codec)
            if headers:
                self.tasks[task_id].write(headers=headers)
        return answer

    def discard(self, _ttl_ms: int, *task_ids: str) -> Sequence[bytes]:
        """failed -> discarded: what it failed with is kept."""
        return [self._discard(task_id) for task_id in task_ids]

    def purge(self, place: str, _of: str, _offset: int, _limit: int, ttl_ms: int) -> Sequence[int]:
        """failed -> discarded, for all."""
        if place != "dead":
            raise NotImplementedError(f"inline(app) purges no tasks that are {place!r}")
        dead = [task.id for task in self.tasks.values() if task.state == FAILED]
        return [len(self.discard(ttl_ms, *dead)), 0, 0]

    def abort(self, task_id: str, _ttl_ms: int) -> bytes:
        """queued, scheduled, held -> aborted; one that runs is for the line to stop."""
        task = self.tasks.get(task_id)
        if task is None:
            return b"not_found"
        if task.state == ABORTED:
            return b"aborted"
        if task.state not in ("queued", "scheduled", "held"):
            return b"finished"
        self._end(task, ABORTED, b"aborted")
        return b"aborted"

    def log(self, task_id: str, limit: int) -> Sequence[bytes]:
        """The last lines that a task wrote."""
        record = self.tasks[task_id].record if task_id in self.tasks else {}
        return [line.encode() for line in from_json(record.get("log", b"[]"))[-limit:]]

    def _note(self, task: InlineTask, run_ms: int, error: bytes, details: dict[str, Any]) -> None:
        attempts = from_json(task.record.get("history", b"[]"))
        entry = {"try": task.number("tries"), "ended_at": self.now_ms(), "run_ms": run_ms, "worker": "inline"}
        task.write(error=error, traceback=details.get("traceback", ""))
        task.write(history=to_json([*attempts, {**entry, "error": short(error)}][-_MOST_ATTEMPTS:]))

    def _end(self, task: InlineTask, state: str, error: bytes) -> None:
        task.write(state=state, error=error, finished_at=self.now_ms())
        self.on_end(task)

    def _requeue(self, task_id: str) -> bytes:
        task = self.tasks.get(task_id)
        if task is None or task.state != FAILED:
            return b"not_dead"
        task = self.tasks[task_id] = InlineTask(task_id, {name: task.record[name] for name in _KEPT_BY_REQUEUE})
        task.write(state="queued", tries=0, enqueued_at=self.now_ms())
        self.ready.append(task)
        return b"queued"

    def _discard(self, task_id: str) -> bytes:
        task = self.tasks.get(task_id)
        if task is None or task.state != FAILED:
            return b"not_dead"
        task.record = {name: task.record[name] for name in _LEFT_BY_DISCARD if name in task.record}
        task.write(state="discarded")
        return b"removed"
