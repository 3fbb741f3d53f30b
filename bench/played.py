"""A queue that is played by the protocol alone: no task runs, and there is only what the server does for it."""

import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from ardiq import _core
from bench.programs import ROOT

AT_ONCE = 100
"""Tasks that a step settles and claims."""
_ENQUEUED = 500
_LONG_MS = "3600000"
_STEP = json.loads(_core.PROTOCOL)["functions"]["step"]["reply"]
_HEADER, _REFUSAL, _CLAIM = (len(_STEP[part]) for part in ("header", "refusal", "record"))
_EARLIER = "ardiq_earlier"

_PAGE = 1_000

Claim = tuple[str, str]
"""Id and lease token."""


class Node(NamedTuple):
    """A task of a workflow, or a map."""

    name: str
    after: Sequence[str] = ()
    is_map: bool = False


def load_earlier(url: str, python: str | None) -> None:
    """Load the library of another build beside this one's. `python`: an interpreter that has it; None: version 1."""
    if python is None:
        text = (ROOT / "lua" / "releases" / "ardiq_v1.lua").read_text()
    else:
        ask = "import sys; from ardiq import _core; sys.stdout.write(_core.library()[0])"
        text = subprocess.check_output([python, "-c", ask], cwd="/", text=True)
    named = re.match(r"#!lua name=(\w+)", text)
    assert named
    core = _core.Core(url, "ardiq:{bench}:")
    core.command(["FUNCTION", "LOAD", "REPLACE", text.replace(named[1], _EARLIER)])
    core.close()


class Queue:
    """A queue and its one worker, who serves one lane and completes at once what he was given.

    `earlier`: by the library that `load_earlier` has loaded.
    """

    def __init__(
        self, url: str, name: str, *, lane: str = "default", earlier: bool = False, joins: bool = True
    ) -> None:
        self._base = f"ardiq:{{{name}}}:"
        self._core = _core.Core(url, self._base)
        self._earlier = earlier
        self._lanes = json.dumps([lane])
        self._number = self._seq = 0
        self._held: list[Claim] = []
        if joins:
            self._call("join", "played:1", _LONG_MS, "{}", self._lanes, "1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._core.close()

    def _call(self, function: str, *values: str) -> Any:
        if self._earlier:
            return self._core.command(["FCALL", f"{_EARLIER}_{function}", "1", self._base, *values])
        return self._core.call(function, values)

    def declare(self, name: str, **definition: int) -> None:
        """A limit, as code declares it."""
        self._call("limits_declare", name, json.dumps(definition))

    def enqueue(self, options: Iterable[str], lane: str = "default") -> int:
        """A task for each of these options; replies how many."""
        texts = list(options)
        for first in range(0, len(texts), _ENQUEUED):
            records: list[str] = []
            for text in texts[first : first + _ENQUEUED]:
                self._number += 1
                records += (f"{self._number:022x}", "noop", lane, "[]", "", text)
            self._call("enqueue", *records)
        return len(texts)

    def create(self, id: str, nodes: Iterable[Node], *, is_open: bool = False) -> None:
        """A workflow of tasks that do nothing."""
        words: list[str] = []
        for node in nodes:
            options: dict[str, Any] = {"after": list(node.after)} if node.after else {}
            if node.is_map:
                options["map"] = {"size": 0}
            words += (node.name, "noop", "default", "" if node.is_map else "[]", "", json.dumps(options))
        self._call("workflow_create", id, json.dumps({"result_ttl_ms": int(_LONG_MS), "is_open": is_open}), *words)

    def create_map(self, id: str, calls: int, *, args: str = "", starts: bool = True) -> None:
        """A map of so many calls, and a task that comes after it."""
        self.create(id, [Node("calls", is_map=True), Node("body", after=["calls"])], is_open=True)
        call = ("", f'["{args}"]' if args else "[]")
        for first in range(0, calls, _PAGE):
            self._call("workflow_items", id, "calls", str(first), *call * min(_PAGE, calls - first))
        if starts:
            self.start(id)

    def start(self, id: str) -> None:
        """A workflow begins that has all its parts."""
        self._call("workflow_start", id)

    def give_back(self) -> None:
        """Hand back what the last step gave."""
        for id, token in self._held:
            self._call("release", "played:1", id, token, _LONG_MS)
        self._held = []

    def step(self, want: int = AT_ONCE, result_ttl_ms: str = _LONG_MS) -> int:
        """Complete what the last one gave, and claim; replies how many it gave."""
        self._seq += 1
        settled = [word for id, token in self._held for word in (id, token, "complete", "0", "null", "")]
        told = ("played:1", str(self._seq), _LONG_MS, result_ttl_ms, self._lanes, str(want), "0")
        reply = self._call("step", *told, *settled)
        first = _HEADER + _REFUSAL * int(reply[2])
        self._held = [(reply[at].decode(), reply[at + 1].decode()) for at in range(first, len(reply), _CLAIM)]
        return len(self._held)

    def work(self, tasks: int) -> int:
        """Steps until so many were given; replies how many."""
        done = 0
        while done < tasks:
            given = self.step()
            assert given, f"{self._base} has no more to do"
            done += given
        return done


def limits(*buckets: tuple[str, str | None]) -> str:
    """The options of a task with these limits and keys."""
    return json.dumps(
        {"limits": [{"name": name} if key is None else {"name": name, "key": key} for name, key in buckets]}
    )
