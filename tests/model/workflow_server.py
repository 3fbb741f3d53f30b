"""A queue with workflows on a real server: graphs as records of a call, what claims bring, and what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from limit_server import LimitServer, Seen
from server_queue import CLAIM_WIDTH, SNAPSHOT, text
from workflow_tasks import Node

from ardiq._core import Core

PORTIONS = {
    "local ADVANCE = 500": "local ADVANCE = 3",
    "local MOST, LOOK_AT = 500, 10": "local MOST, LOOK_AT = 3, 2",
    "local CANCEL = 500": "local CANCEL = 3",
    "local PORTION = 1000": "local PORTION = 2",
}
"""Lines of the library, each there once: how much of a workflow one call does, and how little it can be."""
KINDS = ("open", "nodes", "items", "results", "failed", "undo")
"""Keys that a group has besides its record."""


class Got(NamedTuple):
    """A claim, with what the task is called with."""

    id: str
    token: str
    args: str
    codec: str


class WorkflowServer(LimitServer):
    got: list[Got]

    def _claims(self, name: str, flat: list[str]) -> Any:
        at = 1 if name == "claim" else 3 + 3 * int(flat[2])
        self.got = [Got(flat[i], flat[i + 1], flat[i + 3], flat[i + 5]) for i in range(at, len(flat), CLAIM_WIDTH)]
        self.refused = {flat[i]: flat[i + 2] for i in range(3, at - 2, 3)} if name == "step" else {}
        return super()._claims(name, flat)

    def has_chores(self) -> bool:
        return bool(self.core.command(["EXISTS", f"{self.base}chores"]))

    def look(self) -> Looked:
        _, dump = self.core.command(["EVAL", SNAPSHOT, 0, self.base])
        keys = {text(name): [text(value) for value in content] for name, content, _ in dump}
        return Looked(keys, self.passed_ms, {text(name): int(ttl) for name, _, ttl in dump})


class Looked(Seen):
    def __init__(self, keys: dict[str, list[str]], behind_ms: int, ttls: dict[str, int]) -> None:
        super().__init__(keys, behind_ms)
        self.ttls = ttls


@contextmanager
def small_portions(core: Core) -> Iterator[bool]:
    """Calls leave most of what follows to heartbeats. Not on Redis 6.2, which has no functions to load."""
    try:
        core.call("workflows", ("0", "1"))
        listed = core.command(["FUNCTION", "LIST", "WITHCODE"])
    except Exception:
        yield False
        return
    texts = [text(part) for library in listed for part in library if isinstance(part, bytes)]
    code, changed = with_small_portions(texts)
    entries = [text(part) for part in core.command(["CONFIG", "GET", "set-max-listpack-entries"])]
    core.command(["FUNCTION", "LOAD", "REPLACE", changed])
    try:
        # A small set is scanned as a whole else, from Redis 7.2 on.
        if entries:
            core.command(["CONFIG", "SET", entries[0], "0"])
        yield True
    finally:
        core.command(["FUNCTION", "LOAD", "REPLACE", code])
        if entries:
            core.command(["CONFIG", "SET", *entries])


def with_small_portions(texts: list[str]) -> tuple[str, str]:
    """The library that has the portions, as it is and with small ones."""
    lines = {code: code.splitlines() for code in texts}
    for portion in PORTIONS:
        if (times := sum(each.count(portion) for each in lines.values())) != 1:
            raise AssertionError(f"{portion!r} is {times} times a line of the library: PORTIONS is to be as lua/lib is")
    [code] = [code for code, each in lines.items() if {*PORTIONS} <= {*each}]
    return code, "\n".join(PORTIONS.get(line, line) for line in lines[code])


def record_of(node: Node) -> dict[str, Any]:
    options: dict[str, Any] = {
        "after": [f"{name}?{policy}" if policy else name for name, policy in node.after.items()],
        "inputs": [list(each) for each in node.inputs],
        "codec": node.codec,
        "delay_ms": node.delay_ms,
        "expire_ms": node.expire_ms,
        "limits": [{"name": "two"}] if node.is_limited else [],
    }
    args = f'["{node.name}"]'
    if node.items is not None:
        options["map"] = {
            "size": len(node.items), "max_concurrent": node.window, "tolerate": node.tolerate,
            "keep_results": node.keeps_results,
        }  # fmt: skip
        if node.filled_by:
            options["map"]["filled_by"] = node.filled_by
        if node.is_open:
            options["map"]["is_open"] = True
        args = "".join(f"{len(item.encode())}:{item}," for item in node.items)
    options = {name: value for name, value in options.items() if value}
    written = json.dumps(options) if options else ""
    return {"name": node.name, "task": "noop", "lane": "default", "args": args, "options": written}


def netstrings(packed: str) -> list[str]:
    """Lengths are of bytes."""
    parts, rest = [], packed.encode()
    while rest:
        length, _, rest = rest.partition(b":")
        end = int(length)
        assert rest[end : end + 1] == b",", f"no netstrings: {packed}"
        parts.append(rest[:end].decode())
        rest = rest[end + 1 :]
    return parts
