"""What must hold of batches after every call: calls that gather, and those that one execution got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from limit_checks import Known
from limit_model import batch_bucket_of
from limit_server import Claim, Seen


class Call(NamedTuple):
    """A call between two looks at the server; times are the model's, in ms."""

    before: Seen
    seen: Seen
    known: Known
    batches: list[list[Claim]]
    begin: float
    end: float
    # Limits were changed by it; or what waits was, by somebody's hand.
    is_change: bool
    is_by_hand: bool


def batch_problems(call: Call) -> Iterator[str]:
    yield from _handed_out(call)
    for lane, line in {**call.before.lines, **call.seen.lines}:
        if batch_bucket_of(line):
            yield from _in_time(call, lane, line)
            yield from _gathering(call, lane, line)
    for at in [*call.known.gathers_until]:
        if not call.seen.gathers(*at):
            del call.known.gathers_until[at]


def _handed_out(call: Call) -> Iterator[str]:
    """One line, tokens in a row, not too many; those that killed workers are alone."""
    tokens = [claim.token for batch in call.batches for claim in batch]
    if tokens and tokens != list(range(tokens[0], tokens[0] + len(tokens))):
        yield f"the tokens are {tokens}"
    quarantined = set(call.before.hash("quarantined"))
    for batch in call.batches:
        ids = [claim.id for claim in batch]
        size, _ = call.known.limits.batch(call.known.tasks[ids[0]].line)
        if len(batch) > size:
            yield f"{ids} are one batch, of up to {size}"
        if batch[0].follows:
            yield f"{ids[0]} is said to follow, and is the first"
        asked = {(claim.name, claim.lane, call.known.tasks[claim.id].line) for claim in batch}
        if len(asked) > 1:
            yield f"{ids} are one batch, of {asked}"
        if len(batch) > 1 and quarantined & set(ids):
            yield f"{quarantined & set(ids)} were quarantined, and are of a batch: {ids}"


def _taken(call: Call, lane: str, line: str) -> list[list[str]]:
    """What was handed out of a line; the quarantined are in none."""
    quarantined = call.before.hash("quarantined")
    return [
        [claim.id for claim in batch] for batch in call.batches
        if (first := batch[0]).lane == lane and call.known.tasks[first.id].line == line and first.id not in quarantined
    ]  # fmt: skip


def _in_time(call: Call, lane: str, line: str) -> Iterator[str]:
    """What gathers is handed out when there is enough of it, or when it has waited, and then as many as may."""
    before, seen, known = call.before, call.seen, call.known
    size, wait_ms = known.limits.batch(line)
    batches = _taken(call, lane, line)
    then, now = before.lines.get((lane, line), []), seen.lines.get((lane, line), [])
    arrived = {*now, *(id for batch in batches for id in batch)} - {*then}
    entries = len(then) + len(arrived)
    was_waiting = (lane, line) in before.lines and not before.gathers(lane, line)
    is_due = was_waiting or before.opens(batch_bucket_of(line)) <= call.end or call.is_change
    if wait_ms and len(batches) > max(entries // size, is_due):
        yield f"{batches} were handed out of line {line} of lane {lane}, which had {then}, before it was time"
    if batches and not arrived and before.live(lane, line) == then:
        taken = len(then) - len(now)
        if taken < min(size, len(then)):
            yield f"{taken} of {then} were taken for {batches}, of up to {size}"


def _gathering(call: Call, lane: str, line: str) -> Iterator[str]:
    """A line with fewer than a batch waits for others, but not for longer than it may."""
    before, seen, known = call.before, call.seen, call.known
    size, wait_ms = known.limits.batch(line)
    bucket, until, what = batch_bucket_of(line), known.gathers_until, f"line {line} of lane {lane}"
    entries = len(seen.lines.get((lane, line), []))
    gathered, gathers = before.gathers(lane, line), seen.gathers(lane, line)
    had = before.lines.get((lane, line), [])
    # One that was aborted leaves fewer than there were; they may start all the same.
    gone = Counter(had) - Counter(seen.lines.get((lane, line), []))
    is_less = any(seen.tasks.get(id, {}).get("state") not in ("aborted", "expired") for id in gone)
    was_taken = is_less or bool(_taken(call, lane, line))
    if gathers:
        if not gathered or was_taken:
            until[lane, line] = call.end + wait_ms
        if entries >= size or not wait_ms:
            yield f"{what} has {entries}, and goes on gathering up to {size} for {wait_ms} ms"
        opens_at = seen.opens(bucket)
        if opens_at > until[lane, line] + 1:
            yield f"{what} gathers for {opens_at - until[lane, line]:.0f} ms too long"
        if opens_at != before.opens(bucket) and opens_at < call.begin + wait_ms - 1 and not call.is_change:
            yield f"{what} opens {call.begin + wait_ms - opens_at:.0f} ms too early"
    elif 0 < entries < size and wait_ms and not call.is_change and not call.is_by_hand:
        # With it, what another line began to gather is due.
        is_due = before.opens(bucket) <= call.end
        if was_taken or ((gathered or not had) and not is_due):
            yield f"{what} has {entries} of {size}, and does not gather"
