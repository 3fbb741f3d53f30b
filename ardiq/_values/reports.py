"""What a running task reports to, seen from the task."""

from typing import Any, Protocol


class Reports(Protocol):
    """Takes the progress, notes and log lines of attempts, each under its claim."""

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
        """Take what the task of this claim reports; an empty note deletes it. From any thread."""

    def noted(self, claim: tuple[Any, ...], /, to_add: bool = False) -> dict[str, bytes]:
        """The notes of this claim's attempt so far; the dict is kept only if something is `to_add`."""

    def is_current(self, claim: tuple[Any, ...], /) -> bool:
        """Whether the attempt's outcome still counts."""
