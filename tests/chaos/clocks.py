"""Wall clocks of worker processes that are hours off, and jump."""

import mmap
import os
import struct
import subprocess
from pathlib import Path


def preload(directory: Path) -> Path:
    """The library that makes a process's clock wrong, compiled."""
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Clock:
    """One process's wall clock."""

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / f"clock-{name}"
        self.set(0)

    def environment(self, library: Path) -> dict[str, str]:
        return {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._path)}

    def set(self, seconds: int) -> None:
        """So many seconds off, from now on."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, 8)
            with mmap.mmap(file, 8) as mapped:
                mapped[:] = struct.pack("q", seconds)
        finally:
            os.close(file)
