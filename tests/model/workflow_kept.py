"""What a task keeps from one attempt to the next, restated: results of steps, waits, and signals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

YEAR_MS = 31_536_000_000


class Memo(NamedTuple):
    """What is kept under a name. `until` is a wait that is not decided: its signals are in the place of the codec."""

    kind: str
    codec: str = ""
    value: str = ""
    deadline: float = inf

    @property
    def signals(self) -> list[str]:
        return json.loads(self.codec or "[]") if self.kind == "until" else []


class Sent(NamedTuple):
    """A signal."""

    name: str
    codec: str
    value: str
    nonce: str


@dataclass
class Kept:
    memos: dict[str, Memo] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    noted_at: float = -inf
    """When something was kept last: from then on an end is to look for it."""

    def checkpoint(self, name: str, codec: str, value: str) -> list[str] | str:
        memo = self.memos.get(name)
        if memo is None:
            self.memos[name] = Memo("step", codec, value)
            return ["stored", "", ""]
        return ["kept", memo.codec, memo.value] if memo.kind == "step" else "refused"

    def wait(self, name: str, signals: list[str], wait_ms: int, now: float) -> list[str] | str:
        """The answer, its signal, codec and value."""
        memo = self.memos.get(name)
        if memo is None:
            deadline = now + wait_ms if wait_ms >= 0 else inf
            memo = self.memos[name] = Memo("until", json.dumps(signals) if signals else "", "", deadline)
        if memo.kind == "step":
            return "refused"
        if memo.kind == "until":
            memo = self.decide(name, now)
        if memo.kind == "until":
            return ["waits", "", "", ""]
        kind, _, signal = memo.kind.partition(":")
        return [kind, signal, memo.codec, memo.value]

    def decide(self, name: str, now: float) -> Memo:
        """The oldest signal that it is for counts, before the time does."""
        memo = self.memos[name]
        if sent := self.first_of(memo):
            self.sent.remove(sent)
            memo = Memo(f"signal:{sent.name}", sent.codec, sent.value)
        elif memo.deadline <= now:
            memo = Memo("timeout")
        self.memos[name] = memo
        return memo

    def first_of(self, memo: Memo) -> Sent | None:
        return next((sent for sent in self.sent if sent.name in memo.signals), None)

    def due_at(self, name: str, now: float) -> float:
        """Until when a task is to be suspended for a wait; 0: not at all."""
        memo = self.memos.get(name, Memo("timeout"))
        is_open = memo.kind == "until" and memo.deadline > now and not self.first_of(memo)
        return min(memo.deadline, now + YEAR_MS) if is_open else 0

    def send(self, sent: Sent) -> bool:
        """Whether it is a new one."""
        if sent.nonce in self.nonces:
            return False
        self.nonces |= {sent.nonce} - {""}
        self.sent.append(sent)
        return True
