"""Keys in memory: what they hold as Redis types it, and when they end by themselves."""

import itertools
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from heapq import heappop, heappush
from math import isnan
from operator import itemgetter
from typing import Any, TypeVar

from ..errors import ArdiqError

MOST_INTEGER = 2**63
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
_NO_INTEGER = "ERR value is not an integer or out of range"

T = TypeVar("T")


class Refused(ArdiqError):
    """What a server answers to a command, or a function, that it does not carry out; begins with a code."""


class Status(bytes):
    """A reply like `OK`, which Lua gets as `{ok = 'OK'}`."""


class SortedSet:
    """Members by score, and among those of one score by rank: their names, as a server has it, unless `rank` says."""

    def __init__(self, rank: Callable[[bytes], Any] = bytes) -> None:
        self.places: dict[bytes, tuple[float, Any, bytes]] = {}
        self.order: list[tuple[float, Any, bytes]] = []
        self._rank = rank

    def __len__(self) -> int:
        return len(self.order)

    def score(self, member: bytes) -> float | None:
        """That of a member, or None where it is none."""
        return self.places[member][0] if member in self.places else None

    def rank_of(self, member: bytes) -> int | None:
        """How many come before a member, or None where it is none."""
        return bisect_left(self.order, self.places[member]) if member in self.places else None

    def put(self, member: bytes, score: float) -> None:
        """Add the member, or move it."""
        self.remove(member)
        place = self.places[member] = score, self._rank(member), member
        insort(self.order, place)

    def remove(self, member: bytes) -> bool:
        """Whether it was there."""
        place = self.places.pop(member, None)
        if place is None:
            return False
        del self.order[bisect_left(self.order, place)]
        return True

    def between(self, least: bytes, most: bytes) -> list[tuple[float, Any, bytes]]:
        """Those with scores between two bounds, which `(` excludes."""
        (low, without_low), (high, without_high) = _bound(least), _bound(most)
        start = (bisect_right if without_low else bisect_left)(self.order, low, key=itemgetter(0))
        end = (bisect_left if without_high else bisect_right)(self.order, high, key=itemgetter(0))
        return self.order[start:end]


class Keys:
    """Keys of one server: what they hold, and when they end by themselves.

    Args:
        now_us: the server's clock, in microseconds.
        stands_still: of a clock that does, or leaps: keys do not end by themselves, and members of one score come in
            the order in which they were put, since many have the same time.
    """

    def __init__(self, now_us: Callable[[], int], stands_still: bool = False) -> None:
        self.held: dict[bytes, Any] = {}  # dict: a hash, list, set as the keys of `Set`, SortedSet; bytes: a string
        self.ends_at: dict[bytes, int] = {}
        self._now_us = now_us
        self._stands_still = stands_still
        count = itertools.count()
        self._rank: Callable[[bytes], Any] = (lambda _: next(count)) if stands_still else bytes
        self._ends: list[tuple[int, bytes]] = []
        self.now_us = 0

    def turn(self) -> None:
        """Look at the clock, which stands still until the next look, and drop what has ended."""
        self.now_us = self._now_us()
        while self._ends and self._ends[0][0] < self.now_us // 1000:
            at, key = heappop(self._ends)
            if self.ends_at.get(key) == at:
                self.drop(key)

    def drop(self, key: bytes) -> bool:
        """Delete a key; whether there was one."""
        self.ends_at.pop(key, None)
        return self.held.pop(key, None) is not None

    def expire(self, key: bytes, at_ms: int) -> None:
        """Let it end by itself."""
        self.ends_at[key] = at_ms
        if not self._stands_still:
            heappush(self._ends, (at_ms, key))

    def read(self, key: bytes, kind: type[T]) -> T | None:
        """What the key holds.

        Raises:
            Refused: something of another type.
        """
        held = self.held.get(key)
        if held is not None and type(held) is not kind:
            raise Refused(_WRONG_TYPE)
        return held

    def write(self, key: bytes, kind: type[T]) -> T:
        """The same, made where there is none."""
        if self.read(key, kind) is None:
            self.held[key] = SortedSet(self._rank) if kind is SortedSet else kind()
        return self.held[key]  # type: ignore[no-any-return]

    def tidy(self, key: bytes) -> None:
        """Nothing that is empty stays."""
        if not self.held.get(key):
            self.drop(key)


class Set(dict[bytes, None]):
    """A set that keeps the order in which it was filled."""


def integer(text: bytes, otherwise: str = _NO_INTEGER) -> int:
    """A whole number, written as a server takes it."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0") or abs(value := int(text)) >= MOST_INTEGER:
        raise Refused(otherwise)
    return value


def number(text: bytes, otherwise: str = "ERR value is not a valid float") -> float:
    """A score."""
    try:
        value = float(text)
    except ValueError:
        raise Refused(otherwise) from None
    if isnan(value) or text != text.strip() or b"_" in text:
        raise Refused(otherwise)
    return value


def shown(score: float) -> bytes:
    """A score as the server writes it."""
    return b"%d" % score if abs(score) < 1e17 and score == int(score) else b"%.17g" % score


def _bound(text: bytes) -> tuple[float, bool]:
    is_outside = text[:1] == b"("
    return number(text[is_outside:], "ERR min or max is not a float"), is_outside
