"""Dead letters: tasks that failed for good. They stay until you run them again or discard them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ._client.filters import Filter, Moment, Pace, ids_of
from ._client.inspector import number_of, text_of
from ._server import calls
from ._server.calls import DeadRow as Row
from ._server.replies import Call
from ._values import options as _options
from .errors import ArdiqError, BadSignature, BrokerError, WrongType
from .models import DeadGroup, DeadGroups, DeadLetter, DeadRecord, Unreadable

if TYPE_CHECKING:
    from ._client.queue import QueueContext

log = logging.getLogger("ardiq")

# Within the class `list` is a method.
Letters: TypeAlias = list[DeadLetter]
Rows: TypeAlias = list[Row]
Ids: TypeAlias = list[str]
Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]
Change: TypeAlias = tuple[bytes, bytes, str, str]  # args, kwargs, codec, headers
Changes: TypeAlias = list[Change]

_PAGE = 100  # as many as keep the server from others for about 1 ms
DEFAULT_RATE = 1000.0


class DeadLetters:
    """The dead letters of one app's queue, as `app.dead`.

    Several methods take the same filters; a dead letter must match all that you give: `task`, the task's name; `error`,
    a part of the error's text, in upper or lower case; `since` and `until`: it failed at or after `since`, and before
    `until`. Both are a datetime with a time zone, or a timedelta or seconds before now by the server's clock.
    """

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue

    async def count(self) -> int:
        """How many there are."""
        return (await self._queue.channel().ask(calls.counts()))["dead"]

    async def list(
        self,
        *,
        task: str | None = None,
        error: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Letters:
        """The dead letters that match the filters, newest first.

        Args:
            task: a filter; see the class.
            error: a filter.
            since: a filter.
            until: a filter.
            limit: the largest number to return.
            offset: how many of the newest to skip.

        Raises:
            ValueError: a filter or a number is invalid.

        Example:
            ```python
            for letter in await app.dead.list(task="charge", error="timeout", since=timedelta(hours=1)):
                print(letter.task_id, letter.error)
            ```
        """
        rows: Rows = []
        first, limit = _options.integer("offset", offset, least=0), _options.integer("limit", limit, least=0)
        which, wanted = Filter.of(task, error, since, until), first + limit
        if limit > 0:
            async for page in self._pages(which, _PAGE if task or error else min(_PAGE, wanted)):
                rows += page
                if len(rows) >= wanted:
                    break
        letters: Letters = []
        rows = rows[first:wanted]
        for at in range(0, len(rows), _PAGE):
            letters += await self._letters(rows[at : at + _PAGE])
        return letters

    async def groups(self, limit: int = calls.FAILURES_LIMIT_MOST) -> DeadGroups:
        """The newest dead letters by task and kind of error, the most frequent first: one call.

        Args:
            limit: how many of the newest to look at, from 1 to 500.

        Raises:
            BadArgument: `limit` is out of that range.

        Example:
            ```python
            for group in (await app.dead.groups()).groups:
                print(group.letters, group.fn_name, group.kind)
            ```
        """
        found = await self._queue.channel().ask(calls.failures(limit=limit))
        return DeadGroups([DeadGroup._make(row) for row in found.rows], found.looked, found.size)

    async def show(self, task_id: str) -> DeadRecord | None:
        """One dead letter with its traceback and attempts; None if there is none with that id."""
        record = await self._queue.channel().ask(calls.task(id=task_id))
        if text_of(record, "state") != "failed":
            return None
        row = Row(task_id, number_of(record, "finished_at"), text_of(record, "name"), text_of(record, "lane"))
        history = await self._queue.inspector.history(task_id)
        return DeadRecord(self._letter(row, record), text_of(record, "traceback"), history)

    async def requeue(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        all: bool = False,
        task: str | None = None,
        error: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        rate: float | None = DEFAULT_RATE,
    ) -> int:
        """Run dead letters again, each under its id, with the same arguments and all its tries.

        Tasks that already wait or run again are left alone, so you can repeat the call. With filters or `all`, tasks
        that fail meanwhile are not requeued again; those of lanes that this app does not have stay, which is logged.

        Args:
            ids: an id or several; otherwise give filters (see the class), or `all`.
            all: requeue all dead letters.
            task: a filter.
            error: a filter.
            since: a filter.
            until: a filter.
            args: with `ids` or `task`: positional arguments, instead of their own.
            kwargs: keyword arguments, likewise; if you give only one of `args` and `kwargs`, the other is empty.
            rate: the largest number per second; None: as fast as the server accepts them.

        Returns:
            How many were enqueued.

        Raises:
            ValueError: not exactly one of ids, filters and `all` was given; or an id is in a lane that this app does
                not have.
            TypeError: the new arguments do not fit the task or its annotations, or cannot be serialized.
            BadSignature: new arguments were given, and one of `ids` was not signed with a key of this app.

        Example:
            ```python
            await app.dead.requeue(task="charge", error="timeout", rate=10)
            ```
        """
        which = self._which(ids, all, Filter.of(task, error, since, until))
        call = None if args is None and kwargs is None else (list(args or ()), dict(kwargs or {}))
        if call is not None and ids is None and task is None:
            raise ValueError("new arguments are for one task: give ids or task=")
        pace, done, is_known = Pace(rate), 0, isinstance(which, list)
        async for page in self._pages_of(which):
            rows = self._of_served_lanes(page, is_known)
            changes = None
            if call is not None:  # a wrong one is refused before any is sent
                rows, changes = await self._signed(rows, self._changes(rows, call), is_known)
            for at in range(0, len(rows), pace.portion):
                portion = slice(at, at + pace.portion)
                await pace.wait(len(rows[portion]))
                done += await self._requeue(rows[portion], None if changes is None else changes[portion], is_known)
        return done

    async def discard(self, ids: str | Iterable[str]) -> int:
        """Discard dead letters. Their errors are kept as long as a result.

        Args:
            ids: an id or several.

        Returns:
            How many of them existed.
        """
        removed, chosen = 0, ids_of(ids)
        for at in range(0, len(chosen), _PAGE):
            removed += await self._discard(chosen[at : at + _PAGE], True)
        return removed

    delete = discard
    """As `discard`."""

    async def purge(
        self,
        *,
        task: str | None = None,
        error: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> int:
        """Discard the dead letters that match the filters; without a filter, all of them.

        Args:
            task: a filter; see the class.
            error: a filter.
            since: a filter.
            until: a filter.

        Returns:
            How many were discarded.
        """
        which, removed, more = Filter.of(task, error, since, until), 0, True
        if any(which):
            async for page in self._pages(which, _PAGE):
                removed += await self._discard([row.id for row in page], False)
            return removed
        while more:
            ttl_ms = self._queue.settings.result_ttl_ms
            call = calls.purge(place="dead", which="", offset=0, limit=_PAGE, result_ttl_ms=ttl_ms)
            reply = await self._queue.channel().ask(call)
            removed, more = removed + reply.discarded, reply.more
        return removed

    def _which(self, ids: str | Iterable[str] | None, all: bool, which: Filter) -> Ids | Filter:
        if (ids is not None) + _options.boolean("all", all) + any(which) != 1:
            raise ValueError("say which dead letters: give ids, all=True, or filters")
        return which if ids is None else ids_of(ids)

    async def _pages_of(self, which: Ids | Filter) -> AsyncIterator[Rows]:
        if isinstance(which, Filter):
            async for page in self._pages(which, _PAGE):
                yield page
            return
        for at in range(0, len(which), _PAGE):
            ids = which[at : at + _PAGE]
            records = await asyncio.gather(*(self._queue.channel().ask(calls.task(id=task_id)) for task_id in ids))
            yield [
                Row(task_id, 0, text_of(record, "name"), text_of(record, "lane"))
                for task_id, record in zip(ids, records, strict=True)
                if text_of(record, "state") == "failed"
            ]

    async def _pages(self, which: Filter, size: int) -> AsyncIterator[Rows]:
        """Page after page from the newest on; each begins where the one before ended, whatever was removed."""
        while True:
            page = await self._queue.channel().ask(calls.dead_letters(**which._asdict(), limit=size))
            yield page.rows
            if page.next_before_at == 0:
                return
            which = which._replace(before_at=page.next_before_at)

    async def _letters(self, rows: Rows) -> Letters:
        # Asked for all at once: they travel together.
        asked = [self._queue.channel().ask(calls.task(id=row.id)) for row in rows]
        letters: Letters = []
        for row, answer in zip(rows, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, WrongType):
                unreadable = Unreadable(b"", str(answer))
                letters.append(DeadLetter(row.id, "", (unreadable,), {}, "", str(answer), 0, 0, row.failed_at))
            elif isinstance(answer, BaseException):
                raise answer
            elif text_of(record := answer, "state") == "failed":  # else somebody was faster
                letters.append(self._letter(row, record))
        return letters

    def _letter(self, row: Row, record: dict[str, bytes]) -> DeadLetter:
        args: tuple[Any, ...]
        try:
            args, kwargs = self._queue.inspector.arguments(row.id, record)
        except Exception as error:  # of the user's deserializer too
            args, kwargs = (Unreadable(record.get("args", b""), f"{type(error).__name__}: {error}"),), {}
        return DeadLetter(
            row.id,
            text_of(record, "name"),
            args,
            kwargs,
            text_of(record, "lane"),
            text_of(record, "error"),
            number_of(record, "tries"),
            number_of(record, "enqueued_at"),
            row.failed_at,
        )

    def _of_served_lanes(self, rows: Rows, is_known: bool) -> Rows:
        """Without those of lanes that this app does not serve; if they were named by their ids, that is an error."""
        served, left = Rows(), dict[str, str]()
        for row in rows:
            try:
                self._queue.producer.check_lane(row.lane or None)
                served.append(row)
            except ValueError as error:
                if is_known:
                    raise
                left[row.lane] = str(error)
        for why in left.values():
            log.warning("dead letters skipped: %s", why)
        return served

    def _changes(self, rows: Rows, call: Arguments) -> Changes:
        """The new arguments of each, encoded."""
        changes = Changes()
        for row in rows:
            entry = self._queue.registry.tasks.get(row.name)
            signature = None if entry is None else entry.signature
            changes.append((*self._queue.codec.encode_fitting(row.name, signature, *call), ""))
        return changes

    async def _signed(self, rows: Rows, changes: Changes, is_known: bool) -> tuple[Rows, Changes]:
        """Changes with a new signature, if the app signs, of those whose old one is good. The others are skipped: their
        names and other headers stay, and may be somebody else's.
        """
        signer, inspector = self._queue.signer, self._queue.inspector
        if signer is None:
            return rows, changes
        kept, signed = Rows(), Changes()
        for row, (args, kwargs, codec, _) in zip(rows, changes, strict=True):
            record = await self._queue.channel().ask(calls.task(id=row.id))
            try:
                headers = inspector.check(signer, row.id, record)
            except BadSignature as error:
                if is_known:
                    raise BadSignature(f"dead letter {row.id!r}: {error}; enqueue the task again") from None
                log.warning("dead letter %r skipped: %s", row.id, error)
                continue
            kept.append(row)
            name = text_of(record, "name")
            headers_text = signer.sign(inspector.runs_in(record), name, args, kwargs, codec, headers)
            signed.append((args, kwargs, codec, headers_text))
        return kept, signed

    async def _requeue(self, rows: Rows, changes: Changes | None, is_known: bool) -> int:
        channel = self._queue.channel()
        answers: Sequence[Any]
        if changes is None:
            answers = await channel.ask(calls.requeue(tasks=[row.id for row in rows]))
        else:
            asked = [channel.ask(_amending(row, change)) for row, change in zip(rows, changes, strict=True)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        _say_or_raise([row.id for row in rows], answers, is_known)
        return sum(answer == "queued" for answer in answers)

    async def _discard(self, ids: Ids, is_known: bool) -> int:
        if not ids:
            return 0
        call = calls.discard(result_ttl_ms=self._queue.settings.result_ttl_ms, tasks=ids)
        answers = await self._queue.channel().ask(call)
        _say_or_raise(ids, answers, is_known)
        return sum(answer == "discarded" for answer in answers)


def _amending(row: Row, change: Change) -> Call[Any]:
    args, kwargs, codec, headers = change
    return calls.requeue_with(id=row.id, args=args, kwargs=kwargs, codec=codec, headers=headers)


def _say_or_raise(ids: Ids, answers: Sequence[Any], is_known: bool) -> None:
    """Of those that were refused: an error if they were named by their ids, else a log line."""
    for task_id, answer in zip(ids, answers, strict=True):
        if not isinstance(answer, BaseException):
            continue
        error = answer
        if is_known or isinstance(error, BrokerError) or not isinstance(error, ArdiqError):
            raise error
        log.warning("dead letter %r skipped: %s", task_id, error)
