"""The queue at one moment, and what needs attention."""

from typing import TYPE_CHECKING, Any

from ...cli._output import age, many, short
from ...cli._plain import plain_counts, plain_minute
from .._asked import Asked

if TYPE_CHECKING:
    from ...inspection import QueueOverview
    from ...models import DeadGroups

_LONG_WAIT_MS = 60_000
_OVERDUE_MS = 5_000
_RECENTLY_MS = 600_000
_MOST_GROUPS = 3
_WHOLE_QUEUE = "*()"


async def read(asked: Asked) -> dict[str, Any]:
    overview = await asked.samples.overview.get()
    return shown(asked.app.queue_name, overview, await asked.samples.failures.get())


def shown(queue: str, overview: "QueueOverview", failures: "DeadGroups") -> dict[str, Any]:
    """What the page shows; no user's rights change it."""
    counts, due_at = overview.counts, overview.next_due_at
    lanes = dict.fromkeys([*counts.ready, *counts.lines, *overview.oldest_ms])
    return {
        "queue": queue,
        "now": overview.at,
        "counts": plain_counts(counts),
        "overdue": overview.overdue,
        "next_due_in_ms": None if due_at is None else due_at - overview.at,
        "workers": overview.workers,
        "lost": overview.lost,
        "lanes": [
            {
                "name": lane,
                "waiting": counts.ready.get(lane, 0),
                "limited": counts.lines.get(lane, 0),
                "oldest_ms": overview.oldest_ms.get(lane),
            }
            for lane in lanes
        ],
        "attention": _attention(overview, failures),
        "groups": [
            {"name": group.fn_name, **{name: getattr(group, name) for name in group._fields[1:]}}
            for group in failures.groups[:10]
        ],
        "looked_at": failures.looked_at,
        "minutes": [plain_minute(minute) for minute in overview.minutes],
    }


def _attention(overview: "QueueOverview", failures: "DeadGroups") -> list[dict[str, Any]]:
    """What somebody should look at, the worst first: a headline, a sentence, and the screen to open."""
    counts, found = overview.counts, []
    waiting = counts.queued + counts.limited
    if waiting and overview.workers == overview.lost:
        longest = age(max(overview.oldest_ms.values(), default=0))
        found.append(_point("No worker is alive.", f"{many(waiting, 'task')} ready for {longest}.", "workers", True))
    if overview.lost:
        found.append(_point(f"{many(overview.lost, 'worker')} lost.", "Their leases have run out.", "workers", True))
    for lane, oldest_ms in sorted(overview.oldest_ms.items(), key=lambda each: -each[1]):
        if oldest_ms >= _LONG_WAIT_MS and overview.workers > overview.lost:
            ready = many(counts.ready.get(lane, 0) + counts.lines.get(lane, 0), "task")
            found.append(_point(f"Lane {lane} waits.", f"{ready} ready, the next one for {age(oldest_ms)}.", "tasks"))
    if overview.overdue and overview.next_due_at and overview.at - overview.next_due_at > _OVERDUE_MS:
        late = age(overview.at - overview.next_due_at)
        found.append(_point("Scheduled tasks are late.", f"{overview.overdue:,} overdue, by up to {late}.", "workers"))
    if _WHOLE_QUEUE in overview.held:
        found.append(_point("The whole queue is paused.", "No task starts.", "pauses"))
    elif counts.held:
        found.append(_point("Pauses hold tasks.", f"{many(counts.held, 'task')} set aside.", "pauses"))
    if counts.quarantined:
        told = f"{many(counts.quarantined, 'task')} suspected of killing their worker."
        found.append(_point("Quarantine.", told, "tasks"))
    recent = [group for group in failures.groups if overview.at - group.newest_at < _RECENTLY_MS]
    for group in recent[:_MOST_GROUPS]:
        told = f"{many(group.letters, 'dead letter')}, the last {age(max(0, overview.at - group.newest_at))} ago: "
        found.append(_point(f"{group.fn_name} is failing.", told + short(group.error, 120), "dead"))
    return sorted(found, key=lambda point: not point["is_bad"])


def _point(what: str, why: str, screen: str, is_bad: bool = False) -> dict[str, Any]:
    return {"what": what, "why": why, "screen": screen, "is_bad": is_bad}
