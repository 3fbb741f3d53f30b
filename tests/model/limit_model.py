"""What limits promise, in plain Python: what is declared, what has started, and what may start now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Use = dict[str, Any]
# A start is placed between two readings of the clock.
NEARLY = 1e-6
# What is left of an adaptive limit is kept with four digits.
ABOUT = 2e-3


def bucket_of(use: Use) -> str:
    """The bucket of a limit, or of a key of it: what could be mistaken for something else is escaped."""
    key = use.get("key", "")
    plain = [c if c.isalnum() or c in "_.-/@" or ord(c) >= 128 else f"%{ord(c):02X}" for c in key]
    return f"{use['name']}({''.join(plain)})" if key else str(use["name"])


def line_of(uses: list[Use]) -> str:
    parts = [(bucket_of(use), use.get("cost", 1)) for use in uses]
    return ",".join(sorted(bucket if cost == 1 else f"{bucket}*{cost}" for bucket, cost in parts))


def costs_of(line: str) -> dict[str, int]:
    """What one start of a line takes of each of its buckets."""
    parts = [part.partition("*") for part in line.split(",")] if line else []
    return {bucket: int(cost or 1) for bucket, _, cost in parts}


def batch_bucket_of(line: str) -> str:
    """The bucket under which it gathers, if it does."""
    return next((bucket for bucket in costs_of(line) if bucket.startswith("#")), "")


@dataclass
class Starts:
    """What started of a bucket since its definition changed, and when at the latest its rate is no longer used up."""

    begun: list[tuple[float, float, int]] = field(default_factory=list)
    reached: float = 0
    shut_until: float = 0


@dataclass
class Slowed:
    """What was left of an adaptive limit, since when that grows, or up to `slack` later, and until when it is kept."""

    share: float
    since: float
    slack: float
    until: float

    def by(self, now: float, recovery_ms: float) -> float:
        return 1 if now >= self.until else min(self.share + max(now - self.since, 0) / recovery_ms, 1)


class Limits:
    def __init__(self) -> None:
        self.code: dict[str, dict[str, Any]] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
        self.slowed: dict[str, Slowed] = {}
        self._starts: dict[str, Starts] = {}

    def effective(self, bucket: str) -> dict[str, Any]:
        """By field: what code declared, then what was put for the limit, then for the key."""
        name = bucket.partition("(")[0]
        of_key = self.overrides.get(bucket, {}) if bucket != name else {}
        return {**self.code.get(name, {}), **self.overrides.get(name, {}), **of_key}

    def is_known(self, name: str) -> bool:
        return name in self.code or name in self.overrides

    def changed(self) -> None:
        """Rates are judged from here on by what is declared now."""
        for starts in self._starts.values():
            starts.begun.clear()

    def most(self, bucket: str, now: float, nearly: float = ABOUT) -> float:
        """How many attempts of it may run."""
        most = float(self.effective(bucket).get("concurrency", float("inf")))
        share = self.share(bucket, now)
        return most if share == 1 or most == float("inf") else max(float(int(most * share + nearly)), min(most, 1))

    def surely(self, bucket: str, now: float) -> float:
        """The same, should the clock be a little behind."""
        slowed = self.slowed.get(bucket)
        return self.most(bucket, now - slowed.slack - 2 if slowed else now, -ABOUT)

    # What adapts.

    def share(self, bucket: str, now: float) -> float:
        """What is left of it."""
        slowed, recovery_ms = self.slowed.get(bucket), self.effective(bucket).get("recovery_ms", 0)
        return slowed.by(now, float(recovery_ms)) if slowed and recovery_ms else 1

    def slow(self, bucket: str, started: tuple[float, float], called: tuple[float, float], delay_ms: float) -> bool:
        """An attempt found it used up elsewhere. Replies whether it is clear which was first."""
        recovery_ms = self.effective(bucket).get("recovery_ms", 0)
        if not recovery_ms:
            return True
        begin, end = called
        since, known = max(begin + delay_ms, begin + 1), self.slowed.get(bucket)
        if known and self.share(bucket, begin) == 1:
            known = None
        if not known or started[0] > known.since + known.slack + 1:
            share = self.share(bucket, begin) / 2 if known else 0.5
            self.slowed[bucket] = Slowed(share, since, end - begin + 1, since + (1 - share) * recovery_ms)
            self._used_up(bucket, since)
        elif started[1] >= known.since - 1:
            return False
        elif known.since > end and since > known.since:
            known.since, known.until = since, since + (1 - known.share) * recovery_ms
        return True

    def _used_up(self, bucket: str, at: float) -> None:
        """What started before counts no more: one may start then, and the others as the rate goes."""
        if rate := self._rate(bucket):
            self._starts[bucket].begun = [(at, at, rate[1] - 1)]

    def _work(self, bucket: str, begin: float, end: float) -> float:
        """What the rate lets start in a time, in ms of the full one; at the most."""
        slowed, recovery_ms = self.slowed.get(bucket), self.effective(bucket).get("recovery_ms", 0)
        if not slowed or not recovery_ms:
            return end - begin
        whole = slowed.since + (1 - slowed.share) * recovery_ms
        first, last = (max(whole - at, 0) for at in (begin, end))
        return max(end - whole, 0) - max(begin - whole, 0) + (first - last) * (1 - (first + last) / 2 / recovery_ms)

    def batch(self, line: str) -> tuple[int, int]:
        """How many of a line one execution takes at most, and how long (ms) the first of them waits for the others."""
        bucket = batch_bucket_of(line)
        definition = self.effective(bucket) if bucket else {}
        return definition.get("batch_size", 1), definition.get("batch_wait_ms", 0)

    def _rate(self, bucket: str) -> tuple[float, int] | None:
        """The time between two starts, and the burst."""
        definition = self.effective(bucket)
        if "rate" not in definition or "per_ms" not in definition:
            return None
        return definition["per_ms"] / definition["rate"], definition.get("burst", 1)

    def started(self, line: str, begin: float, end: float) -> str:
        """One of a line has started in between. Replies what is wrong with that, if anything."""
        for bucket, cost in costs_of(line).items():
            starts = self._starts.setdefault(bucket, Starts())
            if begin < starts.shut_until - 1:
                return f"{bucket} is shut for {starts.shut_until - begin:.0f} ms still"
            rate = self._rate(bucket)
            if not rate:
                continue
            interval, burst = rate
            # At the latest: as if it stayed as slow as it is.
            starts.reached = max(starts.reached, end) + cost * interval / self.share(bucket, begin)
            starts.begun.append((begin, end, cost))
            taken, dearest = 0, burst
            for earlier, _, its_cost in reversed(starts.begun):
                taken, dearest = taken + its_cost, max(dearest, its_cost)
                nearly = ABOUT * 10 if bucket in self.slowed else NEARLY
                if taken > dearest + self._work(bucket, earlier, end) / interval + nearly:
                    return f"{taken} of {bucket} started in {end - earlier:.0f} ms, at a rate of one in {interval} ms"
        return ""

    def shut(self, bucket: str, begin: float, end: float) -> None:
        """A task found it used up elsewhere: nothing of it starts until then; then one may, and its rate goes on."""
        starts, rate = self._starts.setdefault(bucket, Starts()), self._rate(bucket)
        starts.shut_until = max(starts.shut_until, begin)
        starts.reached = max(starts.reached, end + ((rate[1] - 1) * rate[0] if rate else 0))

    def opened(self, bucket: str) -> None:
        """An operator changed it, and what was shut is open by that."""
        self._starts.setdefault(bucket, Starts()).shut_until = 0

    def was_shut(self, bucket: str) -> bool:
        return bucket in self._starts and self._starts[bucket].shut_until > 0

    def opens_in(self, line: str, now: float, dearest: Counter[str]) -> float:
        """In how many ms at the latest one of this line may start, as far as its rates go, which may save up for what
        costs more."""
        longest = 0.0
        for bucket, cost in costs_of(line).items():
            starts, rate = self._starts.get(bucket, Starts()), self._rate(bucket)
            if rate:
                interval, burst = rate
                most = min(max(cost, dearest[bucket]), burst)
                longest = max(longest, starts.reached - (burst - most) * interval - now)
            else:
                longest = max(longest, starts.shut_until - now)
        return longest
