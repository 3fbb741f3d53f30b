"""A polite wait for room: calls that find their queue full are sent again, for as long as their options say."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from .._server.replies import refusal
from ..errors import ArdiqError, QueueFull
from ..job import Job
from .answers import Record, flat, partly_sent

_FIRST_S, _LONGEST_S = 0.05, 1.0

WaitsS = Sequence[float | None]
"""How many seconds each call waits for room; None: not at all. Empty: none does."""


def pauses(wait_s: float) -> Iterator[float]:
    """Seconds between tries: longer and longer, and at random, so that those who wait do not come at once. The last
    one ends with the wait.
    """
    from random import uniform  # few wait, and a process that never does goes without

    until, longest = time.monotonic() + wait_s, _FIRST_S
    while (left := until - time.monotonic()) > 0:
        yield min(uniform(longest / 2, longest), left)
        longest = min(2 * longest, _LONGEST_S)


async def wait_for_room(
    records: Sequence[Record],
    jobs: list[Job],
    answers: Sequence[Any],
    waits_s: WaitsS,
    send: Callable[[Sequence[Any]], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[None]],
) -> Sequence[Any]:
    """The answers to records, once those that found no room have found it, or each has waited for as long as it may.

    Raises:
        ArdiqError: what failed now.
    """
    begun, known = time.monotonic(), list(answers)
    until = {at: begun + wait_s for at, wait_s in enumerate(waits_s) if wait_s and _is_full(known[at])}
    for pause in pauses(max(until.values(), default=begun) - begun):
        await sleep(max(min(pause, min(until.values()) - time.monotonic()), 0))
        late: Sequence[Any] = [None] * len(until)
        failed: ArdiqError | None = None
        try:
            late = await send(flat(records[at] for at in until))
        except ArdiqError as error:
            failed, late = error, getattr(error, "accepted", late)
        for at, answer in zip(until, late, strict=True):
            known[at] = answer
        if failed is not None:
            failed.accepted = known  # type: ignore[attr-defined]
            raise partly_sent(failed, jobs) from None
        until = {at: end for at, end in until.items() if _is_full(known[at]) and end > time.monotonic()}
        if not until:
            break
    return known


def _is_full(answer: Any) -> bool:
    return isinstance(refusal(answer), QueueFull)
