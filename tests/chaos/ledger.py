"""What happened, written down where no server can lose it: lines appended to a file per process."""

import os
import time
from collections.abc import Iterator
from pathlib import Path


class Ledger:
    """Appends lines of words to a file; a line is whole or absent, whenever the process dies.

    The first word says what happened, the last one when (monotonic clock, seconds: the same for all processes here).
    """

    def __init__(self, directory: Path, kind: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{kind}-{os.getpid()}-{time.monotonic_ns()}"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        os.write(self._file, f"{' '.join(map(str, words))} {time.monotonic():.4f}\n".encode())


def read(directory: Path, kind: str) -> Iterator[tuple[int, list[str]]]:
    """Each line of all ledgers of a kind: the process that wrote it, and its words."""
    for path in sorted(directory.glob(f"{kind}-*")):
        pid = int(path.name.split("-")[1])
        for line in path.read_text().splitlines():
            yield pid, line.split(" ")
