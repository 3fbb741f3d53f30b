"""Batches: one execution of a function for several claims, each of which has an attempt of its own.

An attempt waits for the execution to end, and is then settled as any other, by its item's result or error. Until that
nothing of a batch is settled: its first claim has the slots of its limits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .. import context, instruments
from .._client.registry import Registered
from .._server.inbox import resolve
from .._values.inputs import WITH
from .._values.items import errors_of, results_of
from ..errors import ItemErrors
from .endings import Claim

if TYPE_CHECKING:
    from .attempts import Attempts

Call: TypeAlias = Callable[[Claim, list[Any], dict[str, Any]], Awaitable[Any]]


def items_of(claim: Claim) -> list[Claim]:
    """The claims of a batch, of which the first one has the others behind its fields; of any other claim that alone."""
    if len(claim) == len(Claim.__args__):  # type: ignore[attr-defined]
        return [claim]
    first: Any = claim
    return [first[:-1], *first[-1]]


def batch_of(claims: list[Claim]) -> Claim:
    """The first claim of a batch with the others."""
    first: Any = claims[0]
    return (*first, tuple(claims[1:])) if len(claims) > 1 else first


def starter(
    attempts: "Attempts", entry: Registered, call: Call, attempt: Callable[[Claim], Coroutine[Any, Any, None]]
) -> Callable[[Claim], Coroutine[Any, Any, None]]:
    """What makes an attempt of a claim of a task that gathers, and first of all those that are in its batch."""

    def start(claim: Claim) -> Coroutine[Any, Any, None]:
        if claim[1] not in attempts.executions:
            claim, *others = items_of(claim)
            Execution(attempts, entry, call, [claim, *others])
            for other in others:
                attempts.worker.start(other)
        return attempt(claim)

    return start


class _Raised(NamedTuple):
    """The error of an item. Others may have the same, and each adds to the traceback."""

    error: BaseException
    traceback: TracebackType | None


class Execution:
    """One execution, which begins when the attempts have.

    Args:
        call: calls the function, within the middleware and the time limit.
        claims: those of its items.
    """

    def __init__(self, attempts: "Attempts", entry: Registered, call: Call, claims: list[Claim]) -> None:
        self._attempts = attempts
        self._entry = entry
        self._call = call
        self._claims = claims
        loop = asyncio.get_running_loop()
        self._ends: dict[int, asyncio.Future[Any]] = {claim[1]: loop.create_future() for claim in claims}
        self._wanted = len(claims)
        attempts.executions.update(dict.fromkeys(self._ends, self))
        self._run = asyncio.Task(self._execute(), loop=loop, context=attempts.worker.new_context())

    async def result_of(self, token: int) -> Any:
        """What became of the item with that token, when the execution has ended; raises its error."""
        ended = await self._ends[token]
        if type(ended) is _Raised:
            raise ended.error.with_traceback(ended.traceback)
        del self._attempts.executions[token]
        return ended

    async def without(self, token: int) -> None:
        """Wait for the end on behalf of an item that has failed; when all have, the execution is cancelled."""
        del self._attempts.executions[token]
        if self._run.done():
            return
        self._wanted -= 1
        if not self._wanted:
            self._run.cancel()
        await asyncio.wait([self._run])

    async def _execute(self) -> None:
        claims: list[Claim] = []
        results: list[Any] = []
        errors: Mapping[int, BaseException] = {}
        try:
            await asyncio.sleep(0)  # the attempts take their first step, from which their time counts
            claims, items = await self._read()
            if claims:
                claim: Any = (*claims[0], tuple(claims))
                context.running.set(claim)
                instruments.enter(self._attempts.carried(claims[0]))
                results, errors = await self._outcome(claim, items)
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            if isinstance(error, asyncio.CancelledError) and self._wanted and self._run.cancelling():
                for each in claims:
                    self._attempts.was_cancelled(each)
            results, errors = [None] * len(claims), dict.fromkeys(range(len(claims)), error)
        for number, each in enumerate(claims):
            self._end(each, _raised(errors[number]) if number in errors else results[number])

    async def _read(self) -> tuple[list[Claim], list[Any]]:
        """The items, and their claims; one that cannot be read fails alone."""
        attempts, claims, items = self._attempts, [], []
        for claim in self._claims:
            if self._ends[claim[1]].done():
                continue
            try:
                claim = attempts.checked(claim)
                if claim[5].startswith(WITH):
                    claim = await attempts.with_results(claim)
                [item], _ = attempts.codec.receive_call(claim[3], claim[4], claim[5], self._entry.signature)
            except Exception as error:
                self._end(claim, _raised(error))
            else:
                claims.append(claim)
                items.append(item)
        return claims, items

    async def _outcome(self, claim: Claim, items: list[Any]) -> tuple[list[Any], Mapping[int, BaseException]]:
        try:
            return results_of(len(items), await self._call(claim, [items], {})), {}
        except ItemErrors as raised:
            return errors_of(len(items), raised)

    def _end(self, claim: Claim, ended: Any) -> None:
        resolve(self._ends[claim[1]], ended)


def _raised(error: BaseException) -> _Raised:
    return _Raised(error, error.__traceback__)
