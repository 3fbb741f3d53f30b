"""Asking about tasks: results, states, and what they report."""

from collections.abc import Sequence
from math import ceil, inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from .._server import calls
from .._server.calls import Outcome
from .._server.mailbox import not_kept, read_look, too_late
from .._server.replies import Call, R, ask, number
from .._values import options as _options
from .._values.encodings import from_json
from .._values.inputs import wiring
from .._values.options import Duration
from .._values.signature import Signature
from .._values.signing import Place, Signer, at_home
from ..errors import BadSignature, BrokerError, TaskError
from ..models import Attempt, Progress, TaskInfo, TaskResult
from ..watching import read_note, read_progress, shown

if TYPE_CHECKING:
    from .queue import QueueContext

Value = TypeVar("Value")

_FINISHED = frozenset({"complete", "failed", "aborted", "expired", "discarded", "skipped"})
_PAGE = 500
NOTE = "note:"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05
_LAST_LOOK_MS = 100  # the time limit of a look that begins at the last moment


class Inspector:
    """Answers questions about the tasks of one queue."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue

    async def result(
        self, task_id: str, timeout: Duration | None, signature: Signature | None = None, is_known: bool = False
    ) -> TaskResult | None:
        if timeout is not None:
            return await self.wait(task_id, timeout, signature, is_known)
        found = await self._queue.channel().mailbox.look(task_id)
        return self.decode(found, signature) if isinstance(found, Outcome) else None

    async def wait(
        self, task_id: str, timeout: Duration | None, signature: Signature | None = None, is_known: bool = False
    ) -> TaskResult:
        """Wait until a task has ended. `timeout` None: as long as it takes. `is_known`: see `Mailbox.wait`."""
        timeout_s = _options.patience("timeout", timeout)
        outcome = await self._queue.channel().mailbox.wait(task_id, timeout_s, is_known)
        return self.decode(outcome, signature)

    def result_sync(
        self, task_id: str, timeout: Duration | None, signature: Signature | None = None, is_known: bool = False
    ) -> TaskResult | None:
        """As `result`, blocking this thread."""
        if timeout is not None:
            return self.wait_sync(task_id, timeout, signature, is_known)
        found = read_look(self._ask(self._look(task_id)))
        return self.decode(found, signature) if isinstance(found, Outcome) else None

    def wait_sync(
        self, task_id: str, timeout: Duration | None, signature: Signature | None = None, is_known: bool = False
    ) -> TaskResult:
        """Block this thread until the task has ended: polls, at most every 50 ms. `timeout` None: without a limit."""
        timeout_s = _options.patience("timeout", timeout)
        pause_s, deadline = _FIRST_PAUSE_S, inf if timeout_s is None else monotonic() + timeout_s
        while True:
            left_ms = max(_LAST_LOOK_MS, ceil(1000 * (deadline - monotonic()))) if timeout_s else None
            try:
                found = read_look(self._ask(self._look(task_id), within_ms=left_ms))
            except BrokerError:
                if left_ms is None or monotonic() < deadline:
                    raise
                raise too_late(task_id, timeout_s) from None
            if isinstance(found, Outcome):
                return self.decode(found, signature)
            if is_known and found is None:
                raise not_kept(task_id)
            is_known = is_known or found is not None
            self._queue.server.may_wait()
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise too_late(task_id, timeout_s)
            sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def status(self, task_id: str) -> str:
        return _status(task_id, await self._queue.channel().mailbox.look(task_id))

    def status_sync(self, task_id: str) -> str:
        return _status(task_id, read_look(self._ask(self._look(task_id))))

    async def info(self, task_id: str) -> TaskInfo | None:
        return self._info(task_id, await self._record(task_id))

    def info_sync(self, task_id: str) -> TaskInfo | None:
        return self._info(task_id, self._ask(calls.task(id=task_id)))

    def _info(self, task_id: str, record: dict[str, bytes]) -> TaskInfo | None:
        state = text_of(record, "state")
        if not state or state in _FINISHED:
            return None
        return self.info_of(task_id, record, shown(task_id, state))

    def info_of(self, task_id: str, record: dict[str, bytes], status: str) -> TaskInfo:
        """The information in a record, with the status to show."""
        args, kwargs = self.arguments(task_id, record)
        return TaskInfo(
            task_id,
            text_of(record, "name"),
            args,
            kwargs,
            number_of(record, "enqueued_at"),
            number_of(record, "tries"),
            status,
            number_of(record, "due_at") if status == "scheduled" else None,
        )

    async def record(self, task_id: str) -> dict[str, str]:
        """A task's record as redis-cli would show it; empty for an unknown task."""
        record = await self._record(task_id)
        return {name: value.decode(errors="replace") for name, value in record.items()}

    async def history(self, task_id: str) -> list[Attempt]:
        return attempts_of(await self._record(task_id))

    async def progress(self, task_id: str) -> Progress | None:
        return read_progress((await self._record(task_id)).get("progress", b""))

    async def notes(self, task_id: str) -> dict[str, Any]:
        fields = (await self._record(task_id)).items()
        return {name.removeprefix(NOTE): read_note(value) for name, value in fields if name.startswith(NOTE)}

    async def logs(self, task_id: str, limit: int) -> list[str]:
        return await self._queue.channel().ask(calls.log(id=task_id, limit=limit))

    async def abort(self, task_id: str) -> bool:
        return await self._queue.channel().ask(self._abort(task_id)) in ("aborted", "requested")

    def abort_sync(self, task_id: str) -> bool:
        return self._ask(self._abort(task_id)) in ("aborted", "requested")

    async def hurry(self, task_id: str) -> bool:
        return _is_ready(await self._queue.channel().ask(calls.hurry(tasks=[task_id])))

    def hurry_sync(self, task_id: str) -> bool:
        return _is_ready(self._ask(calls.hurry(tasks=[task_id])))

    def decode(self, outcome: Outcome, signature: Signature | None = None) -> TaskResult:
        """The result that callers see; with the task's signature, its value is converted to the annotated type."""
        success = outcome.state == "complete"
        value: Any
        if success:
            value = self._queue.codec.decode_result(
                outcome.value, outcome.codec, self._queue.registry.signature_of, signature
            )
        else:
            value = outcome.value.decode(errors="replace")
        return TaskResult(
            success,
            value,
            outcome.tries,
            outcome.enqueued_at,
            outcome.started_at or outcome.finished_at,  # it may have ended without a start
            outcome.finished_at,
        )

    def _ask(self, call: Call[R], within_ms: int | None = None) -> R:
        """The reply of one function, blocking this thread."""
        return ask(self._queue.server.core, call, repeat=True, within_ms=within_ms)

    def _look(self, task_id: str) -> Call[calls.AwaitReply]:
        return calls.await_(id=task_id, mailbox="", waiter_ttl_ms=0, result_ttl_ms=self._queue.settings.result_ttl_ms)

    def _abort(self, task_id: str) -> Call[Any]:
        return calls.abort(id=task_id, result_ttl_ms=self._queue.settings.result_ttl_ms)

    async def _record(self, task_id: str) -> dict[str, bytes]:
        return await self._queue.channel().ask(calls.task(id=task_id))

    def arguments(self, task_id: str, record: dict[str, bytes]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A record's positional and keyword arguments, as the task is called with them.

        Raises:
            BadSignature: the call was not signed with the app's key, so its bytes are not given to the deserializer.
        """
        if self._queue.signer is not None and self._queue.codec.is_custom:
            self.check(self._queue.signer, task_id, record)
        positional, by_name = self._queue.codec.decode_call(
            record.get("args", b"[]"),
            record.get("kwargs", b""),
            text_of(record, "codec"),
            self._queue.registry.signature_of(text_of(record, "name")),
        )
        return tuple(positional), by_name

    def runs_in(self, record: dict[str, bytes]) -> str:
        """The queue whose workers run a task, by its record here."""
        return text_of(record, "queue") or self._queue.name

    def check(self, signer: Signer, task_id: str, record: dict[str, bytes]) -> dict[str, Any]:
        """The headers of a record, if it was signed with the app's key.

        Raises:
            BadSignature: it was not.
        """
        args, kwargs, headers = (record.get(field, b"") for field in ("args", "kwargs", "headers"))
        name, codec, place = text_of(record, "name"), text_of(record, "codec"), None
        if "inputs" in record:
            try:
                place = Place(at_home("", task_id)[1], wiring(from_json(record["inputs"])))
            except (TypeError, ValueError):
                raise BadSignature(f"the inputs of this call of {name!r} were not written by a producer") from None
        return signer.check(self.runs_in(record), name, args, kwargs, codec, headers, place)


def value_of(result: TaskResult[Value]) -> Value:
    """What a task returned.

    Raises:
        TaskError: it did not.
    """
    if not result.success:
        raise TaskError(result)
    return result.value


def _is_ready(answers: Sequence[str | Exception]) -> bool:
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer in ("queued", "limited", "running")


def _status(task_id: str, found: Outcome | str | None) -> str:
    if isinstance(found, Outcome):
        return "complete"
    return "not_found" if found is None else shown(task_id, found)


def attempts_of(record: dict[str, bytes]) -> list[Attempt]:
    """The attempts in a record that did not succeed, oldest first."""
    try:
        entries = from_json(record.get("history") or b"[]")
    except ValueError:  # somebody wrote into the record
        entries = []
    return [
        Attempt(
            entry.get("try", 0),
            entry.get("ended_at", 0),
            entry.get("run_ms"),
            entry.get("worker", ""),
            entry.get("error", ""),
        )
        for entry in entries
        if isinstance(entry, dict)
    ]


def text_of(record: dict[str, bytes], field: str) -> str:
    """A field as text, empty where there is none."""
    return record.get(field, b"").decode(errors="replace")


def number_of(record: dict[str, bytes], field: str) -> int:
    """A field as a number; 0 where there is none, or somebody wrote something else."""
    return number(record.get(field, b""))
