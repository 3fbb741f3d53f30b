"""Who uses the dashboard, and what each role may do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_VIEWER = frozenset({"view", "metrics"})
_OPERATOR = _VIEWER | {"payloads", "enqueue", "steer", "replay", "pause", "schedules"}
_ADMIN = _OPERATOR | {"amend", "delete", "purge"}
ROLES = {"viewer": _VIEWER, "operator": _OPERATOR, "admin": _ADMIN}
PERMISSIONS = _ADMIN


@dataclass(frozen=True)
class User:
    """Somebody who uses the dashboard.

    Attributes:
        name: for people, shown at the top of each page.
        role: "viewer": `view`, `metrics`; "operator": also `payloads`, `enqueue`, `steer`, `replay`, `pause`,
            `schedules`; "admin": everything.
        queues: patterns such as "emails-*" of the queues they see; "*": all that the dashboard shows.
        may: the permissions, instead of those of the role; None: those of the role.

    Raises:
        ValueError: there is no such role or permission.
    """

    name: str
    role: str = "viewer"
    queues: Sequence[str] = ("*",)
    may: Collection[str] | None = None

    def __post_init__(self) -> None:
        check_role(self.role)
        if isinstance(self.queues, str):
            raise ValueError(f"queues must be a sequence of patterns, such as ['{self.queues}'], not a text")
        if self.may is not None and (unknown := sorted(set(self.may) - PERMISSIONS)):
            raise ValueError(f"there is no permission {unknown[0]!r}: {', '.join(sorted(PERMISSIONS))}")

    def can(self, permission: str) -> bool:
        """Whether they may do that."""
        return permission in (ROLES[self.role] if self.may is None else self.may)

    def sees(self, queue: str) -> bool:
        """Whether they see a queue of that name."""
        return any(fnmatchcase(queue, pattern) for pattern in self.queues)


def check_role(role: str) -> str:
    """Refuse what is not a role."""
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(map(repr, ROLES))}, not {role!r}")
    return role
