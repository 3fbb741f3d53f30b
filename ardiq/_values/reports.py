"""What a running task reports to, seen from the task."""

from typing import Any, Protocol

from .codec import Codec


class Reports(Protocol):
    """Takes the progress, notes, log lines and chunks of attempts, each under its claim."""

    queue: str
    worker_id: str
    codec: Codec

    def add(
        self,
        claim: tuple[Any, ...],
        /,
        *,
        progress: bytes = b"",
        notes: dict[str, bytes] | None = None,
        line: str = "",
        chunk: tuple[str, bytes] | None = None,
    ) -> None:
        """Take what the task of this claim reports; an empty note deletes it, and a chunk has its codec before it. From
        any thread.
        """

    def is_full(self, claim: tuple[Any, ...], /) -> bool:
        """Whether the task should wait before it emits more chunks."""

    def noted(self, claim: tuple[Any, ...], /, to_add: bool = False) -> dict[str, bytes]:
        """The notes of this claim's attempt so far; the dict is kept only if something is `to_add`."""

    def is_current(self, claim: tuple[Any, ...], /) -> bool:
        """Whether the attempt's outcome still counts."""
