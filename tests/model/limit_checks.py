"""What must hold of limits after every call."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from limit_model import Limits, costs_of
from limit_server import Seen

MOST_LOST = 3
"""Workers that may die with a task before it is a dead letter."""


@dataclass
class Asked:
    """A task, as it was enqueued."""

    name: str
    lane: str
    line: str
    expires: bool = False


@dataclass
class Known:
    """What the callers know: what they enqueued, and what was said of limits."""

    limits: Limits = field(default_factory=Limits)
    tasks: dict[str, Asked] = field(default_factory=dict)
    followers: set[tuple[str, int]] = field(default_factory=set)
    """id and token of those that were handed out with another one, which has the slots."""
    gathers_until: dict[tuple[str, str], float] = field(default_factory=dict)
    """lane and line → when it is to be handed out at the latest."""
    paused: set[str] = field(default_factory=set)
    now: float = 0


def running(seen: Seen, known: Known) -> Counter[str]:
    """How many attempts of each bucket hold a lease, or batches of them."""
    counts: Counter[str] = Counter()
    for leases in seen.leases.values():
        for id, lease in leases.items():
            if (id, token_of(lease)) not in known.followers:
                counts.update(costs_of(known.tasks[id].line).keys())
    return counts


def token_of(lease: str) -> int:
    return int(lease.partition(" ")[0].partition("/")[0])


def problems(before: Seen, seen: Seen, known: Known) -> Iterator[str]:
    yield from _slots(before, seen, known)
    yield from _lines(seen)
    yield from _places_of_tasks(seen, known)
    yield from _order(before, seen)
    yield from _slowed(seen, known)


def _slots(before: Seen, seen: Seen, known: Known) -> Iterator[str]:
    then, now = running(before, known), running(seen, known)
    for bucket, count in now.items():
        most = known.limits.most(bucket, known.now)
        if count > max(most, then[bucket]):
            yield f"{count} of {bucket} run, of which {most:.0f} may, and {then[bucket]} did"
    busy = {bucket: int(count) for bucket, count in seen.hash("busy").items()}
    if busy != dict(now):
        yield f"busy has {busy}, and the leases {dict(now)}"
    for leases in seen.leases.values():
        for id, lease in leases.items():
            line = "+" if (id, token_of(lease)) in known.followers else known.tasks[id].line
            if [*lease.split(" "), ""][1] != line:
                yield f"the lease of {id} is {lease!r}, and its line {line!r}"


def _slowed(seen: Seen, known: Known) -> Iterator[str]:
    """What is left of adaptive limits is what the calls make of them."""
    for bucket, slowed in known.limits.slowed.items():
        share, _ = seen.share(bucket)
        is_so = slowed.share * 0.999 <= share <= slowed.share * 1.001
        if not is_so and known.limits.share(bucket, known.now + 100) < 1:
            yield f"{share} is left of {bucket}, of which {slowed.share} should be"


def _lines(seen: Seen) -> Iterator[str]:
    places = seen.places()
    for lane, line in seen.lines:
        if len(places.get((lane, line), [])) != 1:
            yield f"line {line} of lane {lane} has its turn in {places.get((lane, line))}"
    entries: Counter[str] = Counter()
    for (lane, _), ids in seen.lines.items():
        entries[lane] += len(ids)
    limited = {lane: int(count) for lane, count in seen.hash("limited").items()}
    if limited != dict(entries):
        yield f"limited has {limited}, and the lines {dict(entries)}"
    if limited and "limited" not in seen.hash("meta"):
        yield "tasks wait in lines, and meta does not say so"
    blocked: dict[str, set[str]] = {}
    for (lane, line), where in places.items():
        for place in where:
            if place.startswith("blocked:"):
                blocked.setdefault(place.rsplit(":", 1)[1], set()).add(lane)
                if (lane, line) not in seen.lines:
                    yield f"{line} of lane {lane} is blocked, and has no tasks"
    lanes = {bucket: set(json.loads(names)) for bucket, names in seen.hash("blocked_lanes").items()}
    if lanes != blocked:
        yield f"blocked_lanes has {lanes}, and lines are blocked in {blocked}"
    if opens := {*seen.hash("opens")} - {*lanes}:
        yield f"{opens} are to be opened, and nothing waits for them"


def _places_of_tasks(seen: Seen, known: Known) -> Iterator[str]:
    for id, record in seen.tasks.items():
        asked = known.tasks[id]
        if record.get("state") == "limited":
            if (record["lane"], record.get("buckets")) != (asked.lane, asked.line):
                yield f"{id} waits in line {record.get('buckets')} of lane {record['lane']}, not in {asked}"
            if id not in seen.live(asked.lane, asked.line):
                yield f"{id} waits in a line, and is not in line {asked.line} of lane {asked.lane}"


def _order(before: Seen, seen: Seen) -> Iterator[str]:
    """Those that wait go on waiting in their order; what comes to them comes at an end."""
    for lane, line in seen.lines:
        then, now = before.live(lane, line), seen.live(lane, line)
        stayed = [id for id in now if id in then]
        if stayed != [id for id in then if id in now]:
            yield f"line {line} of lane {lane} was {then} and is {now}"
        # An id that comes again has its old place, should an entry be left of it.
        old = set(before.lines.get((lane, line), []))
        places = [at for at, id in enumerate(now) if id in then or id in old]
        if places and places != list(range(places[0], places[-1] + 1)):
            yield f"something came into the middle of line {line} of lane {lane}: it was {then} and is {now}"


def out_of_turn(before: Seen, seen: Seen, known: Known, claimed: list[str], front: set[str]) -> Iterator[str]:
    """What was claimed while something ahead of it in its line still waits. `front`: handed back by this very call."""
    for id in claimed:
        asked = known.tasks[id]
        is_quarantined = int(before.tasks.get(id, {}).get("lost", "0")) >= 2
        if not asked.line or is_quarantined:
            continue
        ahead = before.live(asked.lane, asked.line)
        ahead = [] if id in front else ahead[: ahead.index(id)] if id in ahead else ahead
        left = [other for other in ahead if other in seen.live(asked.lane, asked.line)]
        left += [other for other in claimed[claimed.index(id) :] if other in ahead]
        if left:
            yield f"{id} was claimed before {left} in line {asked.line} of lane {asked.lane}"


def not_in_front(before: Seen, seen: Seen, known: Known, back: set[str]) -> Iterator[str]:
    """What was handed back by this call and waits behind those that waited already."""
    for id in back:
        lane, line = known.tasks[id].lane, known.tasks[id].line
        then, now = before.live(lane, line), seen.live(lane, line)
        if id in now and id not in then and set(now[: now.index(id)]) & set(then):
            yield f"{id} was handed back, and is not in front: line {line} of lane {lane} was {then} and is {now}"


def not_back(before: Seen, seen: Seen, known: Known, dead: str) -> Iterator[str]:
    """What a worker held when it died that is not at the front of its line again, in quarantine, or a dead letter."""
    held = sorted(before.leases.get(dead, {}), key=lambda id: token_of(before.leases[dead][id]))
    lost: dict[tuple[str, str], list[str]] = {}
    for id in held:
        was, record, asked = before.tasks[id], seen.tasks.get(id, {}), known.tasks[id]
        state, times = record.get("state"), int(was.get("lost", 0)) + 1
        if "abort_requested" in was:
            is_right = state in ("aborted", None)
        elif times > MOST_LOST:
            is_right = state == "failed"
        elif times >= 2:
            is_right = state == "queued" and id in seen.hash("quarantined")
        else:
            is_right = state == ("limited" if asked.line else "queued")
            lost.setdefault((asked.lane, asked.line), []).append(id)
        if not is_right:
            yield f"{id} was lost {times} times, and is {record}"
    for (lane, line), ids in lost.items():
        if line and (now := seen.live(lane, line))[: len(ids)] != ids:
            yield f"{ids} were lost, and line {line} of lane {lane} is {now}"


def startable(seen: Seen, known: Known, lane: str, now: float) -> list[str]:
    """Those of a lane that wait in lines although all of their buckets have room."""
    counts, found = running(seen, known), []
    if "*" in known.paused:
        return []
    dearest = Counter[str]()
    for task in known.tasks.values():
        dearest |= Counter(costs_of(task.line))
    for of_lane, line in seen.lines:
        live = seen.live(of_lane, line)
        if of_lane != lane or not live or now < known.gathers_until.get((of_lane, line), 0):
            continue
        has_slots = all(counts[bucket] < known.limits.surely(bucket, now) for bucket in costs_of(line))
        asked = known.tasks[live[0]]
        if has_slots and asked.name not in known.paused and known.limits.opens_in(line, now, dearest) <= 0:
            found.append(live[0])
    return found
