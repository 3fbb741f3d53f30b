"""Enqueueing: from a call to its record, the same way on every path."""

import asyncio
import time
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .. import instruments
from .._server import calls
from .._server.channel import may_repeat
from .._server.inbox import Enqueued, Heard
from .._server.mailbox import too_late, waiter_ttl_ms
from .._server.replies import Ask, Call, at_once, refusal
from .._values import options as _options
from .._values.encodings import from_json, to_json
from .._values.ids import new_id
from .._values.known import ADDED, take_answer
from .._values.options import NO_OPTIONS, CallOptions
from .._values.signature import Signature
from ..errors import ArdiqError, NoLimit, QueueFull
from ..instruments import Kind, Told
from ..job import Job, job_of
from ..models import EnqueueContext
from ..task import PreparedTask, Task
from .answers import Record, answered, flat, partly_sent, repeat_limited
from .inspector import value_of
from .room import WaitsS, pauses, wait_for_room
from .telling import Asked, Telling

if TYPE_CHECKING:
    from .queue import QueueContext

# Jobs that are made in one turn of the loop.
_AT_ONCE = 500


class Producer:
    """What enqueues the tasks of one queue."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue
        self.telling = Telling(queue)
        self._codec = queue.codec
        self._signer = queue.signer
        self._default_lane = queue.settings.default_priority
        self._max_waiting = queue.settings.max_waiting or {}
        self._of_codec: dict[str, bytes] = {"": b""}

    def enqueue(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Coroutine[Any, Any, Job]:
        """Send one task; awaited, it gives the job, or raises what is wrong with the call."""
        try:
            loop = get_running_loop()
        except RuntimeError:  # called to be run later, as in asyncio.run(task.enqueue())
            later: Any = self.enqueue_later(task, args, kwargs, options)
            later.__qualname__ = f"{task.name}.enqueue"  # for the warning that nobody awaited it
            return later  # type: ignore[no-any-return]
        if instruments.active or self._queue.registry.enqueue_hooks or task.buckets is not None or options.wait_s:
            return self.enqueue_later(task, args, kwargs, options)
        sent = Enqueued(loop=loop)
        try:
            record = self.record(task, args, kwargs, options)
            self._queue.server.channel(loop).enqueue(job_of(self._queue.app, record[0], task.signature), record, sent)
        except Exception as error:
            sent.set_exception(error)
        return sent

    async def enqueue_later(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        more: dict[str, Any] | None = None,
    ) -> Job:
        """`enqueue` as a coroutine. `more`: further options, which override the headers of hooks."""
        asked = self._asked(task, args, kwargs, options)
        with self.telling.told("one", [asked]) as told:
            extra = await self.telling.headers(asked)
            if more:
                extra = {**(extra or {}), **more}
            record = self.record(task, args, kwargs, options, asked and asked.call.task_id, extra)
            return await self._sent(record, task, options.wait_s, told)

    async def _sent(self, record: Record, task: Task[..., Any], wait_s: float | None, told: Told) -> Job:
        """Send one task; again while there is no room for it, for so long."""
        try:
            return await self._sent_once(record, task, told)
        except QueueFull as error:
            refused = error
        for pause in pauses(wait_s or 0):
            await asyncio.sleep(pause)
            try:
                return await self._sent_once(record, task, told)
            except QueueFull as error:
                refused = error
        raise refused

    async def _sent_once(self, record: Record, task: Task[..., Any], told: Told) -> Job:
        """Send one task; once more if the server has to be told its limits first."""
        loop = get_running_loop()
        channel = self._queue.server.channel(loop)
        job = job_of(self._queue.app, record[0], task.signature)

        async def send() -> Job:
            sent = Heard(loop=loop)
            channel.enqueue(job, record, sent)
            told.answers = answers = [await sent]
            return answered([job], answers)[0]

        try:
            return await send()
        except NoLimit:
            if task.buckets is None:
                raise
        await channel.ask(self.declaration())
        return await send()

    def declaration(self) -> Call[int]:
        """What tells the server the limits that this code declares."""
        declared = self._queue.registry.limits.values()
        return calls.limits_declare(
            limits=[calls.NewLimit(str(limit.name), to_json(limit.definition)) for limit in declared]
        )

    async def enqueue_many(self, tasks: Iterable[PreparedTask]) -> list[Job]:
        """Send many tasks at once; nothing is sent if one of them is wrong."""
        if not (instruments.active or self._queue.registry.enqueue_hooks):
            return await self.send(*self._records(tasks, "enqueue_many"))
        prepared = [self._own(each, "enqueue_many") for each in tasks]
        records: list[Record] = []
        waits_s = [each.call_options.wait_s for each in prepared]
        asked = [self._asked_of(each) for each in prepared]
        with self.telling.told("many", asked) as told:
            for each, call in zip(prepared, asked, strict=True):
                records.append(self._asked_record(each, call, await self.telling.headers(call)))
            return await self.send(records, [each.task.signature for each in prepared], waits_s, told)

    async def send(
        self,
        records: Sequence[Record],
        signatures: Iterable[Signature | None] = repeat(None),
        waits_s: WaitsS = (),
        told: Told | None = None,
    ) -> list[Job]:
        """Send records in one go, and those again for which there is no room yet, if they wait for it."""
        if not records:
            return []
        app, known = self._queue.app, iter(signatures)
        channel = self._queue.channel()
        sending = channel.enqueue_many(flat(records))
        jobs: list[Job] = []
        try:
            # Made while the server works, with turns of the loop in between, which send on.
            for start in range(0, len(records), _AT_ONCE):
                jobs += [job_of(app, record[0], next(known)) for record in records[start : start + _AT_ONCE]]
                await asyncio.sleep(0)
            answers = await sending
            _tell(told, answers)
        except ArdiqError as error:
            raise partly_sent(error, jobs) from None
        finally:
            sending.cancel()
        try:
            return answered(jobs, answers)
        except (NoLimit, QueueFull):
            send = channel.enqueue_many
            answers = await repeat_limited(self.declaration(), records, jobs, answers, channel.ask, send)
            final = await wait_for_room(records, jobs, answers, waits_s, send, asyncio.sleep)
            _tell(told, final)
            return answered(jobs, final)

    def enqueue_sync(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Job:
        """Send one task from code without an event loop; blocks this thread, with the GIL released."""
        queue = self._queue
        if instruments.active or queue.registry.enqueue_hooks or task.buckets is not None or options.wait_s:
            return self._ask_and_send("one", [PreparedTask.of(task, args, kwargs, options)])[0]
        record = self.record(task, args, kwargs, options)
        job = job_of(queue.app, record[0], task.signature)
        core = queue.server.core
        queue.server.register(core)
        try:
            [answer] = core.call("enqueue", record, may_repeat(record, queue.settings.result_ttl_ms))
        except ArdiqError as error:
            raise partly_sent(error, [job]) from None
        if (refused := refusal(answer)) is not None:
            raise refused
        if answer not in ADDED:
            take_answer(job, answer)
        return job

    def enqueue_many_sync(self, prepared: Sequence[PreparedTask]) -> list[Job]:
        """Send tasks from code without an event loop; blocks this thread, with the GIL released."""
        if not (instruments.active or self._queue.registry.enqueue_hooks):
            return self.send_sync(*self._records(prepared, "enqueue_many_sync"))
        return self._ask_and_send("many", [self._own(each, "enqueue_many_sync") for each in prepared])

    def _ask_and_send(self, kind: Kind, own: Sequence[PreparedTask]) -> list[Job]:
        asked = [self._asked_of(each) for each in own]
        waits_s = [each.call_options.wait_s for each in own]
        with self.telling.told(kind, asked) as told:
            extra = [self.telling.headers_sync(call) for call in asked]
            records = [self._asked_record(*each) for each in zip(own, asked, extra, strict=True)]
            return self.send_sync(records, [each.task.signature for each in own], waits_s, told)

    def _records(self, calls: Iterable[Any], taker: str) -> tuple[list[Record], list[Signature | None], WaitsS]:
        """The records of calls, what is known of their tasks, and for how long each waits for room."""
        records: list[Record] = []
        signatures: list[Signature | None] = []
        waits_s: list[float | None] = []
        like: PreparedTask | None = None
        for each in calls:
            call = held_back(each, taker, self._queue)
            if like is None or call.task is not like.task or call.call_options is not like.call_options:
                like = self._check_queue(call, taker)
                record_of = self._recorder(call.task, call.call_options)
            records.append(record_of(call))
            signatures.append(call.task.signature)
            waits_s.append(call.call_options.wait_s)
        return records, signatures, waits_s

    def _recorder(self, task: Task[..., Any], options: CallOptions) -> Callable[[PreparedTask], Record]:
        """What makes the records of calls of one task, which have more in common than not."""

        def record_of(call: PreparedTask) -> Record:
            return self.record(task, call.args, call.kwargs, options)

        signature = task.signature
        lane = self.check_lane(options.priority or task.priority)
        if signature is None or not self._is_bare(task, options, lane):
            return record_of
        name, packed, encode = (
            task.name,
            self._options_of(""),
            self._codec.encode_known,
        )

        def bare_record_of(call: PreparedTask) -> Record:
            args = None if call.kwargs else encode(name, signature, call.args)
            return record_of(call) if args is None else (new_id(), name, lane, args, b"", packed)

        return bare_record_of

    def _own(self, call: Any, taker: str) -> PreparedTask:
        return self._check_queue(held_back(call, taker, self._queue), taker)

    def _check_queue(self, prepared: PreparedTask, taker: str) -> PreparedTask:
        theirs = prepared.task.context
        if theirs is not self._queue and not theirs.is_own:
            raise ValueError(
                f"{taker} on queue {self._queue.name!r} got a call for queue {theirs.name!r}: pass it to "
                f"app.queue({theirs.name!r}).{taker}"
            )
        return prepared

    def record_sync(self, call: PreparedTask) -> Record:
        """Run the hooks of one call, and return its record, to be sent later; raises what is wrong with it."""
        asked = self._asked_of(call)
        with self.telling.told("part", [asked]):
            return self._asked_record(call, asked, self.telling.headers_sync(asked))

    def send_sync(
        self,
        records: Sequence[Record],
        signatures: Iterable[Signature | None] = repeat(None),
        waits_s: WaitsS = (),
        told: Told | None = None,
    ) -> list[Job]:
        """`send`; blocks this thread, with the GIL released."""
        jobs = [job_of(self._queue.app, record[0], known) for record, known in zip(records, signatures, strict=False)]
        if not jobs:
            return jobs
        core = self._queue.server.core
        self._queue.server.register(core)

        def send(fields: Sequence[Any]) -> Any:
            call = core.call if len(fields) == len(records[0]) else core.call_many
            return call("enqueue", fields, may_repeat(fields, self._queue.settings.result_ttl_ms))

        try:
            answers = send(flat(records))
            _tell(told, answers)
        except ArdiqError as error:
            raise partly_sent(error, jobs) from None
        try:
            return answered(jobs, answers)
        except (NoLimit, QueueFull):
            pass

        async def send_again(fields: Sequence[Any]) -> Any:
            return send(fields)

        async def sleep(seconds: float) -> None:
            time.sleep(seconds)

        async def finish(ask: Ask) -> Sequence[Any]:
            known = await repeat_limited(self.declaration(), records, jobs, answers, ask, send_again)
            return await wait_for_room(records, jobs, known, waits_s, send_again, sleep)

        answers = at_once(core, finish)
        _tell(told, answers)
        return answered(jobs, answers)

    def request_sync(self, call: PreparedTask, timeout: float | None) -> Any:
        """Send one task and block this thread until it has ended."""
        timeout = _options.patience("timeout", timeout)
        ttl_ms = call.call_options.result_ttl_ms
        if (self._queue.settings.result_ttl_ms if ttl_ms is None else ttl_ms) == 0:
            raise ValueError(
                f"request_sync polls for the result, and none is kept (result_ttl_ms=0): "
                f"await {call.name}.request(...), or keep results"
            )
        job = self.enqueue_many_sync([call])[0]
        return value_of(self._queue.inspector.wait_sync(job.id, timeout, call.task.signature, is_known=True))

    async def request(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        timeout: float | None,
    ) -> Any:
        """Send one task with the mailbox that is told when it ends, and wait for that."""
        timeout = _options.patience("timeout", timeout)
        loop = get_running_loop()
        asked = self._asked(task, args, kwargs, options)
        channel = self._queue.server.channel(loop)
        task_id = asked and asked.call.task_id
        told = self.telling.told("one", [asked])
        with told:
            extra = await self.telling.headers(asked)
            if not channel.mailbox.is_read:
                self.record(task, args, kwargs, options, task_id, extra)  # a wrong call is refused first
            waiter = {"waiter": await channel.mailbox.name(), "waiter_ttl_ms": waiter_ttl_ms(timeout), **(extra or {})}
            record = self.record(task, args, kwargs, options, task_id, waiter)
            return await self._requested(record, task, options.wait_s, timeout, told)

    async def _requested(
        self, record: Record, task: Task[..., Any], wait_s: float | None, timeout: float | None, told: Told
    ) -> Any:
        channel, task_id = self._queue.channel(), record[0]
        try:
            with channel.mailbox.wish(task_id, timeout) as wished:
                # Not timed: after a timeout the caller knows that the task is on the queue.
                own_id, task_id = task_id, (await self._sent(record, task, wait_s, told)).id
                told.end()
                async with asyncio.timeout(timeout):
                    # Of another task with its key nobody has been told that somebody waits.
                    outcome = await wished.future if task_id == own_id else None
        except TimeoutError:
            raise too_late(task_id, timeout) from None
        if outcome is None:
            outcome = await channel.mailbox.wait(task_id, timeout, is_known=True)
        return value_of(self._queue.inspector.decode(outcome, task.signature))

    def record(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        task_id: str | None = None,
        extra: dict[str, Any] | None = None,
        is_checked: bool = True,
    ) -> Record:
        """The record of one call. `task_id` is an id that was drawn before, `extra` more of its options, `is_checked`
        whether the arguments must fit the task.
        """
        lane = self.check_lane(options.priority or task.priority)
        signature = task.signature
        if signature is None and is_checked:  # a reference, perhaps to a task that is registered here
            signature = self._queue.registry.signature_of(task.name)
        packed_args, packed_kwargs, codec = self._codec.encode_fitting(task.name, signature, args, kwargs)
        signer = self._signer
        if extra is None and self._is_bare(task, options, lane):
            return task_id or new_id(), task.name, lane, packed_args, packed_kwargs, self._options_of(codec)
        fields = dict(options.fields)
        if codec:
            fields["codec"] = codec
        if rule := options.rule_of(task):
            fields.update(rule.options(args, kwargs))
        if task.buckets is not None and is_checked:
            fields["limits"] = task.buckets.of(args, kwargs)
        if lane in self._max_waiting:
            fields["max_waiting"] = self._max_waiting[lane]
        if extra:
            fields.update(extra)
        if signer is not None:
            headers = from_json(fields.get("headers", "{}").encode())
            call = (task.name, packed_args, packed_kwargs, codec)
            fields["headers"] = signer.sign(self._queue.name, *call, headers)
        chosen = self._chosen_id(task, args, kwargs, options)
        if chosen is not None:
            # Tells a repeat of this very call from another one under the same id.
            fields["idempotency_key"] = new_id()
        packed = to_json(fields) if fields else b""
        return chosen or task_id or new_id(), task.name, lane, packed_args, packed_kwargs, packed

    def _is_bare(self, task: Task[..., Any], options: CallOptions, lane: str) -> bool:
        """Whether its calls have no option but the codec."""
        is_plain = not task.unique and task.rule is None and task.buckets is None
        return options is NO_OPTIONS and is_plain and self._signer is None and lane not in self._max_waiting

    def _options_of(self, codec: str) -> bytes:
        packed = self._of_codec.get(codec)
        if packed is None:
            packed = self._of_codec[codec] = to_json({"codec": codec})
        return packed

    def _chosen_id(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> str | None:
        """The id, if it is not random: your own, or a hash of the call."""
        if options.task_id is not None:
            return options.task_id
        if not (task.unique if options.unique is None else options.unique):
            return None
        import hashlib

        call = self._codec.canonical(task.name, args, kwargs)
        return f"unique:{task.name}:{hashlib.blake2b(call, digest_size=16).hexdigest()}"

    def check_lane(self, priority: str | None) -> str:
        """The lane a task goes to.

        Raises:
            ValueError: no worker of this app serves it.
        """
        if priority is None:
            return self._default_lane
        if priority not in self._queue.lanes:
            raise ValueError(
                f"priority {priority!r} is not one of {list(self._queue.settings.priorities)}: no worker would take it"
            )
        return priority

    def _asked(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Asked | None:
        """What instruments and `on_enqueue` hooks are told of a call; None without any."""
        if not (instruments.active or self._queue.registry.enqueue_hooks):
            return None
        lane = self.check_lane(options.priority or task.priority)
        task_id = self._chosen_id(task, args, kwargs, options) or new_id()
        at_ms = options.schedule_ms
        delay_ms = max(0, at_ms - int(time.time() * 1000)) if at_ms else options.delay_ms
        return Asked(EnqueueContext(task_id, task.name, args, kwargs, {}), lane, delay_ms)

    def _asked_of(self, call: PreparedTask) -> Asked | None:
        return self._asked(call.task, call.args, call.kwargs, call.call_options)

    def _asked_record(self, call: PreparedTask, asked: Asked | None, extra: dict[str, Any] | None) -> Record:
        task_id = asked and asked.call.task_id
        return self.record(call.task, call.args, call.kwargs, call.call_options, task_id, extra)


def _tell(told: Told | None, answers: Sequence[Any]) -> None:
    if told is not None:
        told.answers = answers


def held_back(call: Any, taker: str, queue: "QueueContext | None" = None) -> PreparedTask:
    """The call, if it is one; if it names no queue, a call of `queue`.

    Raises:
        TypeError: it is not what `task.prepare(...)` returns.
    """
    if isinstance(call, PreparedTask):
        if queue is not None:
            return call.at(queue)
        if hasattr(call, "task"):
            return call
    raise TypeError(f"{taker} takes task.prepare(...), not {type(call).__name__}")
