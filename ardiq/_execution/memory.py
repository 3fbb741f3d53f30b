"""How much memory processes use, and whether the kernel killed one because memory ran out, as far as Linux says."""

import os
import resource
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_mb() -> int:
    """MiB that this process and its descendants have in memory; shared pages count for each. Without /proc: the most
    that this process ever had.
    """
    try:
        pages = _resident_pages(os.getpid()) + sum(_resident_pages(pid) for pid in _descendants(os.getpid()))
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most >> 20 if sys.platform == "darwin" else most >> 10
    return pages * _PAGE >> 20


def _resident_pages(pid: int) -> int:
    try:
        return int(_path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        if pid == os.getpid():
            raise
        return 0


def _descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in _path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    left = [pid]
    while left:
        found = children.pop(left.pop(), [])
        left += found
        yield from found


def oom_kills(groups: "str | Path" = "/proc/self/cgroup", mount: "str | Path" = "/sys/fs/cgroup") -> int | None:
    """How many processes of this control group the kernel has killed because memory ran out; None: unknown."""
    for path in _event_files(_path(groups), _path(mount)):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdigit():
                return int(count)
    return None


def _path(name: "str | Path") -> "Path":
    from pathlib import Path  # not in a worker that asks for none of this

    return Path(name)


def _event_files(groups: "Path", mount: "Path") -> "Iterator[Path]":
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        # Version 2, then version 1; in a container the group's own directory may be mounted there.
        if number == "0":
            yield from (mount / group.lstrip("/") / "memory.events", mount / "memory.events")
        elif "memory" in controllers.split(","):
            yield from (
                mount / "memory" / group.lstrip("/") / "memory.oom_control",
                mount / "memory/memory.oom_control",
            )
