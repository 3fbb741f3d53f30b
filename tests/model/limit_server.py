"""A queue with limits on a real server: calls of this version and of the one before it, and what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from limit_model import batch_bucket_of
from server_queue import CLAIM_WIDTH, DEFAULTS, SNAPSHOT, ServerQueue, pairs, plain, text

from ardiq._core import Core

RELEASE = Path(__file__).parents[2] / "lua" / "releases" / "ardiq_v1"


class Claim(NamedTuple):
    id: str
    token: int
    follows: bool
    name: str
    lane: str


class LimitServer(ServerQueue):
    def __init__(self, core: Core, base: str) -> None:
        super().__init__(core, base)
        self._released = json.loads(RELEASE.with_suffix(".json").read_text())["functions"]
        self.wait_ms, self.more = -1, 0
        self.batches: list[list[Claim]] = []
        self.passed_ms = 0

    def _claims(self, name: str, flat: list[str]) -> Any:
        self.more = int(flat[0])
        self.wait_ms = int(flat[1]) if name == "step" else -1
        self.batches = []
        for at in range(1 if name == "claim" else 3 + 3 * int(flat[2]), len(flat), CLAIM_WIDTH):
            claim = Claim(flat[at], int(flat[at + 1]), flat[at + 1].startswith("+"), flat[at + 2], flat[at + 7])
            if claim.follows and self.batches:
                self.batches[-1].append(claim)
            else:
                self.batches.append([claim])
        return super()._claims(name, flat)

    # The version before this one.

    def has_released(self) -> bool:
        """Loads it. Redis 6.2 has no functions: there it cannot be beside this version."""
        try:
            self.core.command(["FUNCTION", "LOAD", "REPLACE", RELEASE.with_suffix(".lua").read_text()])
        except Exception:
            return False
        return True

    def released(self, name: str, **arguments: Any) -> list[str]:
        """A call of its functions, by their names then. Replies the texts of the answer, or what it refused with."""
        function, values = self._released[name], []
        for argument in function["args"]:
            values.append(plain({**DEFAULTS, **arguments}[argument["name"]]))
        for record in arguments.get(function.get("tail", {}).get("name"), []):
            values += [plain({**DEFAULTS, **record}[each["name"]]) for each in function["tail"]["record"]]
        self.steps.append([f"version 1: {name}", arguments])
        try:
            reply = self.core.command(["FCALL", f"ardiq_v1_{name}", 1, self.base, *values])
        except Exception as error:
            return [str(error)]
        return [text(value) for value in reply] if isinstance(reply, list) else [text(reply)]

    @staticmethod
    def claims_of(flat: list[str]) -> list[tuple[str, str]]:
        """The claims of a step's reply: id and token."""
        at = 3 + 3 * int(flat[2])
        return [(flat[i], flat[i + 1]) for i in range(at, len(flat), CLAIM_WIDTH)]

    def pass_time(self, ms: int) -> None:
        super().pass_time(ms)
        self.passed_ms += ms

    # What is there.

    def look(self) -> Seen:
        _, dump = self.core.command(["EVAL", SNAPSHOT, 0, self.base])
        keys = {text(name): [text(value) for value in content] for name, content, _ in dump}
        return Seen(keys, self.passed_ms)

    def take_token(self, lanes: list[str]) -> bool:
        """What a worker waits for before it steps again."""
        return any(self.core.command(["LPOP", f"{self.base}wake:{lane}"]) is not None for lane in lanes)


class Seen:
    """Every key of the queue at one moment, without its base."""

    def __init__(self, keys: dict[str, list[str]], behind_ms: int) -> None:
        self.keys, self.behind_ms = keys, behind_ms
        self.tasks = {id: pairs(flat) for id, flat in self._of("task")}
        self.leases = {name: pairs(flat) for name, flat in self._of("running")}
        self.lines = {tuple(rest.rsplit(":", 1)): ids for rest, ids in self._of("line")}

    def _of(self, kind: str) -> list[tuple[str, list[str]]]:
        return [(name.partition(":")[2], flat) for name, flat in self.keys.items() if name.startswith(f"{kind}:")]

    def hash(self, name: str) -> dict[str, str]:
        return pairs(self.keys.get(name, []))

    def opens(self, bucket: str) -> float:
        """When what waits under a bucket is to be looked at, by the clock of the model."""
        return float(self.hash("opens").get(bucket, "inf")) + self.behind_ms

    def gathers(self, lane: str, line: str) -> bool:
        """Whether it waits for others to come."""
        return f"blocked:{lane}:{batch_bucket_of(line)}" in self.places().get((lane, line), [])

    def share(self, bucket: str) -> tuple[float, float]:
        """What was left of a limit, and since when it grows."""
        share, since = (float(part) for part in self.keys.get(f"slowed:{bucket}", ["1 0"])[0].split(" "))
        return share, since + self.behind_ms

    def is_live(self, id: str, lane: str, line: str) -> bool:
        """Whether its record says that it waits in this line; else a claim passes its entry over."""
        record = self.tasks.get(id, {})
        return (record.get("state"), record.get("lane"), record.get("buckets")) == ("limited", lane, line)

    def live(self, lane: str, line: str) -> list[str]:
        """Those that wait in a line, the next one first."""
        return [id for id in dict.fromkeys(self.lines.get((lane, line), [])) if self.is_live(id, lane, line)]

    def places(self) -> dict[tuple[str, str], list[str]]:
        """lane and line → where it has its turn."""
        places: dict[tuple[str, str], list[str]] = {}
        for kind in ("ring", "blocked"):
            for rest, flat in self._of(kind):
                lane = rest if kind == "ring" else rest.rsplit(":", 1)[0]
                for line in flat[::2]:
                    places.setdefault((lane, line), []).append(f"{kind}:{rest}")
        return places
