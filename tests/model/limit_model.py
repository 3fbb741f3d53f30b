"""What limits promise, in plain Python: what is declared, what has started, and what may start now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Use = dict[str, Any]
# A start is placed between two readings of the clock.
NEARLY = 1e-6


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


class Limits:
    def __init__(self) -> None:
        self.code: dict[str, dict[str, Any]] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
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

    def most(self, bucket: str) -> float:
        """How many attempts of it may run."""
        return float(self.effective(bucket).get("concurrency", float("inf")))

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
            starts.reached = max(starts.reached, end) + cost * interval
            starts.begun.append((begin, end, cost))
            taken, dearest = 0, burst
            for earlier, _, its_cost in reversed(starts.begun):
                taken, dearest = taken + its_cost, max(dearest, its_cost)
                if taken > dearest + (end - earlier) / interval + NEARLY:
                    return f"{taken} of {bucket} started in {end - earlier:.0f} ms, at a rate of one in {interval} ms"
        return ""

    def shut(self, bucket: str, begin: float, end: float) -> None:
        """A task found it used up elsewhere: nothing of it starts until then; then one may, and its rate goes on."""
        starts, rate = self._starts.setdefault(bucket, Starts()), self._rate(bucket)
        starts.shut_until = max(starts.shut_until, begin)
        starts.reached = max(starts.reached, end + ((rate[1] - 1) * rate[0] if rate else 0))

    def opened(self, bucket: str) -> None:
        """Its definition changed, and what was shut may be open by that."""
        self._starts.setdefault(bucket, Starts()).shut_until = 0

    def was_shut(self, bucket: str) -> bool:
        return bucket in self._starts and self._starts[bucket].shut_until > 0

    def opens_in(self, line: str, now: float) -> float:
        """In how many ms at the latest one of this line may start, as far as its rates go."""
        longest = 0.0
        for bucket, cost in costs_of(line).items():
            starts, rate = self._starts.get(bucket, Starts()), self._rate(bucket)
            if rate:
                interval, burst = rate
                longest = max(longest, starts.reached - (burst - min(cost, burst)) * interval - now)
            else:
                longest = max(longest, starts.shut_until - now)
        return longest
