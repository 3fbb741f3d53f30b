"""What running tasks report: progress, notes and log lines, collected and sent in batches."""

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from .._server import calls
from ..errors import is_away
from .streams import Streams

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .worker import Worker

log = logging.getLogger("ardiq")

# A call takes so many; what comes beyond them between two sends is dropped here, as the log keeps no more either.
_MOST_LINES = calls.PROGRESS_MOST
_LONGEST_LINE = 8192
_PAUSE_S = 0.1


def bounded(line: str) -> str:
    """A line of the log, cut to the longest allowed."""
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"


class _Report:
    __slots__ = ("lines", "notes", "progress", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.progress = b""
        self.notes: dict[str, bytes] = {}
        self.lines: list[str] = []


class Reports:
    """The reports of one worker's tasks. The first leaves at once, more of them at most every 100 ms."""

    def __init__(self, worker: "Worker", queue: "QueueContext", unsent: set[int]) -> None:
        self.queue = queue.name
        self.worker_id = queue.settings.worker_id
        self.codec = queue.codec
        self._worker = worker
        self._channel = queue.channel()
        self._result_ttl_ms = queue.settings.result_ttl_ms
        self._lock = threading.Lock()
        self._open: dict[int, _Report] = {}
        self._noted: dict[int, dict[str, bytes]] = {}
        self._under_way: dict[int, set[asyncio.Future[Any]]] = {}
        self._is_due = False
        self._streams = Streams(worker, queue, unsent)
        self.is_full = self._streams.is_full

    def add(
        self,
        claim: tuple[Any, ...],
        *,
        progress: bytes = b"",
        notes: dict[str, bytes] | None = None,
        line: str = "",
        chunk: tuple[str, bytes] | None = None,
    ) -> None:
        """Take what the task of this claim tells, a note being its JSON or nothing, or a chunk that it emits; from any
        thread.
        """
        if chunk is not None:
            self._streams.add(claim, calls.NewChunk(*chunk))
            return
        with self._lock:
            report = self._open.get(claim[1])
            if report is None:
                report = self._open[claim[1]] = _Report(claim[0])
            report.progress = progress or report.progress
            report.notes.update(notes or {})
            if line:
                report.lines.append(bounded(line))
                del report.lines[:-_MOST_LINES]
            if self._is_due:
                return
            self._is_due = True
        try:
            self._channel.loop.call_soon_threadsafe(self._send_soon)
        except RuntimeError:  # the loop is closed, and with it the worker
            return

    def noted(self, claim: tuple[Any, ...], to_add: bool = False) -> dict[str, bytes]:
        """What the attempt of this claim has noted so far; kept only where something is `to_add`, of which `add` is
        told, too: a `send` after the attempt lets it go.
        """
        with self._lock:
            return self._noted.setdefault(claim[1], {}) if to_add else self._noted.get(claim[1], {})

    def is_current(self, claim: tuple[Any, ...]) -> bool:
        """Whether the attempt is still wanted: not aborted, timed out or given to others."""
        return self._worker.is_current(claim[1])

    def has_told(self, token: int) -> bool:
        """Whether anything that the attempt told may not have arrived yet; from any thread."""
        with self._lock:
            return token in self._open or token in self._under_way

    async def arrive(self, token: int) -> None:
        """Send what the attempt told, and wait until the server has it, or cannot be told."""
        with self._lock:
            report = self._open.pop(token, None)
            if report is not None:
                self._send(token, report)
            under_way = list(self._under_way.get(token, ()))
        if under_way:
            await asyncio.wait(under_way)
        await self._streams.arrive(token)

    def close(self) -> None:
        """Send what was reported, and then no more."""
        self.send()
        self._streams.close()

    def send(self) -> bool:
        """Send what was reported; False if there was nothing."""
        with self._lock:
            reports, self._open = self._open, {}
            for token in [token for token in self._noted if not self._worker.holds(token)]:
                del self._noted[token]
            for token, report in reports.items():
                self._send(token, report)
        return bool(reports)

    def _send(self, token: int, report: _Report) -> None:
        if self._channel.closed:
            return
        told = [calls.Told(name, text) for name, text in report.notes.items()]
        lines = report.lines[-_MOST_LINES + len(report.notes) :]
        told += [calls.Told("", line.encode(errors="replace")) for line in lines]
        identity, lease_token = self._worker.holder(token)
        call = calls.progress(
            worker=identity,
            id=report.task_id,
            token=str(lease_token),
            progress=report.progress,
            result_ttl_ms=self._result_ttl_ms,
            told=told,
        )
        answer = self._channel.ask(call)
        self._under_way.setdefault(token, set()).add(answer)
        answer.add_done_callback(lambda answer: self._answered(token, answer))

    def _answered(self, token: int, answer: asyncio.Future[Any]) -> None:
        with self._lock:
            under_way = self._under_way[token]
            under_way.discard(answer)
            if not under_way:
                del self._under_way[token]
        error = None if answer.cancelled() else answer.exception()
        if error is not None and not is_away(error):
            log.warning("%s", error)

    def _send_soon(self) -> None:
        if self.send():
            self._channel.loop.call_later(_PAUSE_S, self._send_soon)
        else:
            with self._lock:
                self._is_due = bool(self._open)
                if self._is_due:  # it was added just now
                    self._channel.loop.call_soon(self._send_soon)
