"""Commands of the server itself, besides the library's functions."""

import re
from collections.abc import Iterator, Sequence

from .. import _core, errors
from .replies import text

# Every queue has at least one of these keys.
_SIGNS = ("meta", "lanes", "workers", "dead", "scheduled", "schedules", "pauses")
_PAGE = 1000


def ping(core: _core.Core) -> None:
    """Check that the server answers."""
    core.command(["PING"])


def now_ms(core: _core.Core) -> int:
    """The server's clock."""
    seconds, microseconds = core.command(["TIME"])
    return int(seconds) * 1000 + int(microseconds) // 1000


def is_there(core: _core.Core, base: str) -> bool:
    """Whether there is any sign of the queue with that base."""
    return bool(core.command(["EXISTS", *(base + key for key in _SIGNS)]))


def known_queues(core: _core.Core, queues_key: str) -> set[str]:
    """The names in the list of queues at that key."""
    return {text(queue) for queue in core.command(["SMEMBERS", queues_key])}


def task_ids(core: _core.Core, base: str) -> list[str]:
    """The ids of all records of a queue, in the server's order. For tests: it scans all keys of the server."""
    start = f"{base}task:"
    return list(dict.fromkeys(text(key).removeprefix(start) for keys in _scan(core, start) for key in keys))


def delete_all(core: _core.Core, start: str) -> None:
    """Delete all keys with that prefix. For tests: it scans all keys of the server."""
    for keys in _scan(core, start):
        core.command(["UNLINK", *keys])


def setting(core: _core.Core, name: str) -> str | None:
    """One of the server's settings; None if it does not have it, or does not allow the question, as many hosted servers
    do.
    """
    try:
        answer = core.command(["CONFIG", "GET", name])
    except errors.ArdiqError:
        return None
    return text(answer[1]) if answer else None


def info(core: _core.Core, section: str) -> dict[str, str]:
    """A section of INFO; empty if that is not allowed."""
    try:
        answer = core.command(["INFO", section])
    except errors.ArdiqError:
        return {}
    lines = (line.partition(":") for line in text(answer).splitlines())
    return {name: value for name, _, value in lines}


def has_commands(core: _core.Core, names: Sequence[str]) -> list[bool]:
    """Whether the server has each of these commands."""
    return [bool(answer) for answer in core.command(["COMMAND", "INFO", *names])]


def writing_commands(core: _core.Core, names: Sequence[str]) -> set[str]:
    """Those of these commands that write, as the server says."""
    found = zip(names, core.command(["COMMAND", "INFO", *names]), strict=True)
    return {name for name, answer in found if answer and "write" in map(text, answer[2])}


def _scan(core: _core.Core, start: str) -> Iterator[list[bytes]]:
    pattern, cursor = re.sub(r"([\\*?\[\]])", r"\\\1", start) + "*", b"0"
    while True:
        cursor, keys = core.command(["SCAN", cursor, "MATCH", pattern, "COUNT", str(_PAGE)])
        if keys:
            yield keys
        if cursor == b"0":
            return
