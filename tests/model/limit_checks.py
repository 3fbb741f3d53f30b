"""What must hold of limits after every call."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from limit_model import Limits, costs_of
from limit_server import Seen


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
    paused: set[str] = field(default_factory=set)


def running(seen: Seen, known: Known) -> Counter[str]:
    """How many attempts of each bucket hold a lease."""
    counts: Counter[str] = Counter()
    for leases in seen.leases.values():
        for id in leases:
            counts.update(costs_of(known.tasks[id].line).keys())
    return counts


def problems(before: Seen, seen: Seen, known: Known) -> Iterator[str]:
    yield from _slots(before, seen, known)
    yield from _lines(seen)
    yield from _places_of_tasks(seen, known)
    yield from _order(before, seen)


def _slots(before: Seen, seen: Seen, known: Known) -> Iterator[str]:
    then, now = running(before, known), running(seen, known)
    for bucket, count in now.items():
        if count > max(known.limits.most(bucket), then[bucket]):
            yield f"{count} of {bucket} run, of which {known.limits.most(bucket):.0f} may, and {then[bucket]} did"
    busy = {bucket: int(count) for bucket, count in seen.hash("busy").items()}
    if busy != dict(now):
        yield f"busy has {busy}, and the leases {dict(now)}"
    for leases in seen.leases.values():
        for id, lease in leases.items():
            if [*lease.split(" "), ""][1] != known.tasks[id].line:
                yield f"the lease of {id} is {lease!r}, and its line {known.tasks[id].line!r}"


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
        if not asked.line:
            continue
        ahead = before.live(asked.lane, asked.line)
        ahead = [] if id in front else ahead[: ahead.index(id)] if id in ahead else ahead
        left = [other for other in ahead if other in seen.live(asked.lane, asked.line)]
        if left:
            yield f"{id} was claimed before {left} in line {asked.line} of lane {asked.lane}"


def not_in_front(before: Seen, seen: Seen, known: Known, back: set[str]) -> Iterator[str]:
    """What was handed back by this call and waits behind those that waited already."""
    for id in back:
        lane, line = known.tasks[id].lane, known.tasks[id].line
        then, now = before.live(lane, line), seen.live(lane, line)
        if id in now and id not in then and set(now[: now.index(id)]) & set(then):
            yield f"{id} was handed back, and is not in front: line {line} of lane {lane} was {then} and is {now}"


def startable(seen: Seen, known: Known, lane: str, now: float) -> list[str]:
    """Those of a lane that wait in lines although all of their buckets have room."""
    counts, found = running(seen, known), []
    if "*" in known.paused:
        return []
    for of_lane, line in seen.lines:
        live = seen.live(of_lane, line)
        if of_lane != lane or not live:
            continue
        has_slots = all(counts[bucket] < known.limits.most(bucket) for bucket in costs_of(line))
        asked = known.tasks[live[0]]
        # One that costs more, and waits for that, is not overtaken for ever.
        others = [costs_of(other) for its_lane, other in seen.lines if its_lane == lane and other != line]
        if any(costs.get(bucket, 1) > 1 for costs in others for bucket in costs_of(line)):
            continue
        if has_slots and asked.name not in known.paused and known.limits.opens_in(line, now) <= 0:
            found.append(live[0])
    return found
