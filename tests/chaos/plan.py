"""The script of a run: which faults, in which order, upon whom, for how long. The seed decides all of it."""

import hashlib
import json
import random
from dataclasses import asdict, dataclass

WORKERS = 3
PRODUCERS = 2

_PROCESSES = ("worker killed", "worker frozen", "worker stopped", "producer killed", "clock off by hours")
_SERVER = (
    "connections killed",
    "blocked clients killed",
    "functions flushed",
    "scripts flushed",
    "server asleep",
    "limits changed",
)
_SINGLE = (
    "server stopped",
    "server killed",
    "server killed, data gone",
    "server loads slowly",
    "connections cut",
    "network slow",
    "network half-open",
    "replies truncated",
    "memory full",
    "read-only",
    "two versions",
)
_FAILOVERS = ("failover in order", "primary killed", "primary frozen")

KINDS = {
    "valkey": (*_PROCESSES, *_SERVER, *_SINGLE),
    "redis7": (*_PROCESSES, *_SERVER, *_SINGLE),
    "cluster": (*_PROCESSES, *_SERVER, *_FAILOVERS, "slot moved", "cluster down"),
    "sentinel": (*_PROCESSES, *_SERVER, *_FAILOVERS, "sentinel killed"),
}


@dataclass(frozen=True)
class Fault:
    kind: str
    pause_s: float
    """Before it, since the one before ended."""
    for_s: float
    """How long it lasts, where it lasts."""
    target: int
    """Of the workers, or producers, or connections: which."""
    number: int
    """How much: hours, bytes, milliseconds."""


MIXED = "migrated both ways"
"""In place of a deploy, where the fleet is of two versions throughout."""
LAST = Fault("back, forth, and pruned", pause_s=0.0, for_s=1.0, target=0, number=1)
"""Where the version before was released: in the end only this one is left."""


def script(
    seed: int, topology: str, faults: int, left_out: tuple[str, ...] = (), pace: float = 1.0, mixed: bool = False
) -> list[Fault]:
    """Every kind as often as any other, in random order; all times multiplied by `pace`."""
    chance = random.Random(f"{seed} {topology} {faults}")
    kinds_here = [MIXED if mixed and kind == "two versions" else kind for kind in KINDS[topology]]
    possible = [kind for kind in kinds_here if kind not in left_out]
    kinds: list[str] = []
    while len(kinds) < faults:
        kinds += chance.sample(possible, len(possible))
    return [
        Fault(
            kind,
            pause_s=round(chance.uniform(0.2, 1.2) * pace, 2),
            for_s=round(chance.uniform(0.5, 2.0) * pace, 2),
            target=chance.randrange(WORKERS * PRODUCERS),
            number=chance.randrange(1, 1000),
        )
        for kind in kinds[:faults]
    ]


def digest(faults: list[Fault]) -> str:
    """The same for the same script."""
    return hashlib.sha256(json.dumps([asdict(fault) for fault in faults]).encode()).hexdigest()[:12]
