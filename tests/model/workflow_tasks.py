"""What workflows consist of: tasks, and groups of them. What a group holds is asked of its members, never counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Any

from workflow_kept import Kept

KEPT_MS = 950_000
"""What calls say for how long results are kept. Nothing else ends within a minute of that."""
MEMO = "children:"
"""What the name of a memo of children begins with."""
COUNTED_AS = {"expired": "failed", "discarded": "failed"}


def children_of(id: str, name: str) -> str:
    """The id of the children of that name."""
    return f"{id.replace('~', '.')}.{name}"


@dataclass
class Node:
    """A node, as it is asked for. `after`: name → policy. `items`: of a map; of one that is `filled_by` another node,
    those that this has added so far.
    """

    name: str
    after: dict[str, str] = field(default_factory=dict)
    delay_ms: int = 0
    expire_ms: int = 0
    is_limited: bool = False
    inputs: list[tuple[str, Any]] = field(default_factory=list)
    codec: str = ""
    items: list[str] | None = None
    window: int = 0
    filled_by: str = ""
    is_open: bool = False
    """Calls are added to it, and it ends only once it is sealed."""
    tolerate: float = 0
    keeps_results: bool = True

    @property
    def undoes(self) -> str:
        """Of a compensation, whose."""
        return next((name for name, policy in self.after.items() if policy == "undo"), "")


@dataclass(eq=False)
class Task:
    """Anything with a record. `state` is `waiting` wherever it waits for its turn; until `due_at` it is scheduled."""

    id: str
    group: Group | None = None
    node: Node = field(default_factory=lambda: Node(""))
    state: str = "waiting"
    verdict: str = ""
    """What its group takes it for: empty, it is open there. It stays where a dead letter runs again to no effect."""
    is_unneeded: bool = False
    fates: dict[str, str] = field(default_factory=dict)
    """What became of its lenient edges, for good: by whom it follows."""
    due_at: float = 0
    expires_at: float = inf
    lost: int = 0
    is_stopping: bool = False
    had_turn: bool = False
    """Of a compensation."""
    result: tuple[str, str] = ("", "")
    args: str = ""
    """Those that it was requeued with."""
    gone_at: float = inf
    kept: Kept = field(default_factory=Kept)
    waits_for: str = ""
    """The name of the wait that it is suspended for."""

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def has_ended(self) -> bool:
        return self.state not in ("blocked", "waiting", "running")

    @property
    def runs_in_vain(self) -> bool:
        """A dead letter that runs again, and nothing of its workflow waits for it any more."""
        return self.verdict == "failed" and not self.has_ended

    @property
    def is_dead(self) -> bool:
        return self.state == "failed" and not isinstance(self, Group)


@dataclass(eq=False)
class Group(Task):
    members: dict[str, Task] = field(default_factory=dict)
    has_begun: bool = False
    is_cancelled: bool = False
    """A failure stops it."""
    is_final: bool = False
    """Somebody stops it, and wants nothing undone."""
    undo: list[str] = field(default_factory=list)
    """Compensations that are due, the next one first."""
    is_undoing: bool = False
    items: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    """Of the calls that added to it."""
    output: str = ""
    kept_ms: int = KEPT_MS
    call: str = ""
    parent: tuple[str, str] | None = None
    """Of children: their name, and the id of the task that began them."""
    is_forsaken: bool = False
    """They are stopped because that has ended."""

    @property
    def is_map(self) -> bool:
        return self.node.items is not None

    @property
    def open(self) -> set[str]:
        members = self.members.items()
        return {name for name, member in members if not member.verdict and (member.had_turn or not member.node.undoes)}

    @property
    def compensations(self) -> dict[str, Task]:
        """By whom they undo."""
        return {member.node.undoes: member for member in self.members.values() if member.node.undoes}

    @property
    def missing(self) -> set[str]:
        return {name for name, member in self.members.items() if member.verdict not in ("", "complete")}

    def dead_compensations(self) -> list[str]:
        """The compensation that failed, where the others wait for it."""
        first = [self.members[name] for name in self.undo[:1] if self.is_undoing and not self.has_ended]
        return [task.id for task in first if task.is_dead]

    @property
    def counts(self) -> Counter[str]:
        verdicts = [member.verdict for member in self.members.values() if member.verdict and not member.node.undoes]
        return Counter(COUNTED_AS.get(verdict, verdict) for verdict in verdicts)

    def filled_by(self, member: Task) -> Group | None:
        """The map that a member adds calls to."""
        for other in self.members.values():
            if isinstance(other, Group) and other.node.filled_by == member.name:
                return other
        return None

    def followers(self, member: Task) -> dict[str, str]:
        """name → policy."""
        return {
            other.name: other.node.after[member.name]
            for other in self.members.values()
            if member.name in other.node.after and not other.node.undoes
        }

    def all_tasks(self) -> list[Task]:
        """Its members, and theirs."""
        inner = [task for member in self.members.values() if isinstance(member, Group) for task in member.all_tasks()]
        return [*self.members.values(), *inner]
