"""Where a task tells of itself, as it sees it from inside."""

from typing import Any, Protocol


class Reports(Protocol):
    """What takes the progress, notes and log lines of attempts; each names the claim that it runs for."""

    queue: str

    def add(
        self,
        claim: tuple[Any, ...],
        /,
        *,
        progress: bytes = b"",
        notes: dict[str, bytes] | None = None,
        line: str = "",
    ) -> None:
        """Take what the task of this claim tells, a note being its JSON or nothing; from any thread."""

    def noted(self, claim: tuple[Any, ...], /, to_add: bool = False) -> dict[str, bytes]:
        """What the attempt of this claim has noted so far; kept only where something is `to_add`."""

    def is_current(self, claim: tuple[Any, ...], /) -> bool:
        """Whether the attempt is still wanted."""
