"""Looks at the limits of a queue all the time, past Ardiq: what all leases say, and what is written beside them.

A look is one script, so nothing happens within it. What it finds is what a server holds: all that it took, in order,
up to some point. So a primary that lost writes is no excuse here; it is one for the bodies whose claims it forgot
(`slots`).
"""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..python.topologies import Node, Refused
from .jobs import BASE
from .limited import lines, parts
from .site import Site

PATIENCE_S = 10.0
"""What may start, and a worker with nothing to do: no longer beside each other. A worker that is dead counts as idle
until its lease ends, and one more lease after an outage."""
_PAUSE_S, _GAP_S = 0.003, 0.5
_LOOKS_EACH = 50
_SAME_LINES_S = 1.5 * PATIENCE_S
_MOST_SHOWN = 100

_LOOK = """
local base, leases, placed, lengths = KEYS[1], {}, {}, {}
for _, worker in ipairs(redis.call('ZRANGE', base .. 'workers', 0, -1)) do
  for _, lease in ipairs(redis.call('HVALS', base .. 'running:' .. worker)) do
    local token, line = string.match(lease, '^(-?%d+)%S* (%S+)')
    if line and line ~= '+' then leases[#leases + 1] = token .. ' ' .. line end
  end
end
for i, line in ipairs(ARGV) do
  lengths[i], placed[i] = redis.call('LLEN', base .. 'line:default:' .. line), 0
  local function count(key)
    if redis.call('ZSCORE', key, line) then placed[i] = placed[i] + 1 end
  end
  count(base .. 'ring:default')
  for bucket in string.gmatch(line, '[^,*]+') do count(base .. 'blocked:default:' .. bucket) end
end
local time, now = redis.call('TIME'), 0
now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  now, redis.call('HGET', base .. 'meta', 'token') or '0', leases, redis.call('HGETALL', base .. 'busy'),
  redis.call('HGETALL', base .. 'limits'), redis.call('HGETALL', base .. 'overrides'), placed, lengths,
  redis.call('ZRANGE', base .. 'rates', 0, -1, 'WITHSCORES'),
  redis.call('ZRANGEBYSCORE', base .. 'workers', now, '+inf'), redis.call('ZRANGE', base .. 'idle:default', 0, -1),
}
"""

_LEFT = """
local left = {}
for _, name in ipairs({ 'busy', 'blocked_lanes', 'limited', 'opens', 'turns' }) do
  if redis.call('EXISTS', KEYS[1] .. name) == 1 then left[#left + 1] = name end
end
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', KEYS[1] .. '*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local name = string.sub(key, #KEYS[1] + 1)
    local kind = string.match(name, '^[a-z]+:')
    if kind == 'line:' or kind == 'ring:' or kind == 'blocked:' then left[#left + 1] = name end
  end
until cursor == '0'
return left
"""


def left(node: Node) -> list[str]:
    """What limits have left behind, where nothing waits or runs."""
    names: list[str] = node.command("EVAL_RO", _LEFT, 1, BASE)
    return names


@dataclass
class Look:
    """What a server held at one instant."""

    now_ms: int
    token: int
    leases: dict[str, list[int]]
    """The tokens of the attempts of each bucket."""
    paced: dict[int, int]
    """Of `paced`, which has a rate: token → what the start took of it."""
    busy: dict[str, int]
    at_once: dict[str, int]
    """The effective concurrency, of buckets or of limits."""
    rates: dict[str, dict[str, float]]
    waiting: list[str]
    placed: dict[str, int]
    """Of each line, in how many places it is."""
    reached: dict[str, float]
    """Of each bucket with a rate: when all that may start has started."""
    shut: dict[str, float]
    """Until when a bucket is closed because a task said so."""
    idle: set[str]

    def limit(self, bucket: str) -> int | None:
        return self.at_once.get(bucket, self.at_once.get(bucket.partition("(")[0]))

    def has_room(self, bucket: str, cost: int) -> bool:
        limit, rate = self.limit(bucket), self.rates.get(bucket.partition("(")[0])
        if limit is not None and len(self.leases.get(bucket, ())) >= limit:
            return False
        if self.shut.get(bucket, 0.0) > self.now_ms:
            return False
        if rate is None:
            return True
        interval_ms, burst = rate["per_ms"] / rate["rate"], rate.get("burst", 1)
        # What was shut may start one by then.
        reached = max(self.reached.get(bucket, 0.0), self.shut.get(bucket, 0.0) + (burst - 1) * interval_ms)
        return reached - self.now_ms <= (burst - cost) * interval_ms


@dataclass
class Findings:
    """What all looks together found."""

    looks: int = 0
    starts: int = 0
    """Of attempts under limits, by the leases that were seen."""
    most: Counter[str] = field(default_factory=Counter)
    """By limit: how many attempts of it, or of one of its keys, held a lease at once."""
    lowered: int = 0
    """Looks at a bucket above its limit, which had just been lowered: nothing of it started since."""
    beside_idle_s: float = 0.0
    """How long a line that could start waited beside a worker with nothing to do."""
    wrong: dict[str, list[object]] = field(default_factory=lambda: {name: [] for name in WRONG})


WRONG = ABOVE, CLOSER, BUSY, PLACES, CLOSED, IDLE = (
    "above a limit",
    "starts closer together than their rate",
    "busy is not what the leases name",
    "line without its one place",
    "started while its limit was closed",
    "startable work beside an idle worker",
)


class Judge:
    """Compares each look with what has to hold, and with those before."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.forget()

    def forget(self) -> None:
        """The next look is at another server, or another state: it is compared with none before."""
        self._token, self._at, self._now_ms = 0, 0.0, 0
        self._started, self._least = 0.0, 0.0
        self._since: dict[str, tuple[int, int]] = {}
        """Bucket → its limit, and the last token when that was seen first."""
        self._closed: dict[str, tuple[float, int]] = {}
        """Bucket → until when it is closed, and the last token when that was seen first."""
        self._startable: dict[str, tuple[float, set[str]]] = {}
        """Line → since when it may start, and the workers that had nothing to do all the time."""

    def judge(self, look: Look, at: float, is_steady: bool) -> None:
        """Of a look at a time. `is_steady`: nobody has changed a limit since the look before."""
        if at - self._at > _GAP_S:  # nobody knows what was meanwhile
            self._startable.clear()
        if look.token < self._token:  # it lost writes, or all it had
            self.forget()
        elif not is_steady:
            self._since.clear()
        found = self.findings
        found.looks += 1
        found.starts += len({token for tokens in look.leases.values() for token in tokens if token > self._token})
        busy = {bucket: len(tokens) for bucket, tokens in look.leases.items()}
        if look.busy != busy:
            self._note(BUSY, at, sorted(busy.items() ^ look.busy.items()))
        for line in look.waiting:
            if look.placed[line] != 1:
                self._note(PLACES, at, line, look.placed[line])
        self._judge_limits(look, at)
        self._judge_rate(look, at)
        self._judge_closed(look, at)
        self._judge_idle(look, at)
        self._token, self._at, self._now_ms = look.token, at, look.now_ms

    def _judge_limits(self, look: Look, at: float) -> None:
        for bucket, tokens in look.leases.items():
            name, limit = bucket.partition("(")[0], look.limit(bucket)
            self.findings.most[name] = max(self.findings.most[name], len(tokens))
            if limit is None:
                self._since.pop(bucket, None)
                continue
            known = self._since.get(bucket)
            if known is None or known[0] != limit:
                self._since[bucket] = known = limit, look.token
            if len(tokens) > limit:
                # One that was lowered lets run what runs, and starts nothing.
                if max(tokens) > known[1]:
                    self._note(ABOVE, at, bucket, f"{len(tokens)} of {limit}")
                else:
                    self.findings.lowered += 1
        for bucket in [bucket for bucket in self._since if bucket not in look.leases]:
            del self._since[bucket]

    def _judge_rate(self, look: Look, at: float) -> None:
        """Of the starts that were seen, in every window: each was between the look before and this one."""
        rate = look.rates.get("paced")
        if rate is None:  # nobody has declared it again yet
            self._started, self._least = 0.0, float("inf")
            return
        per_ms = rate["rate"] / rate["per_ms"]
        cost = sum(cost for token, cost in look.paced.items() if token > self._token)
        if cost:
            self._least = min(self._least, self._started - per_ms * self._now_ms)
            self._started += cost
            if self._started - per_ms * look.now_ms - self._least > rate["burst"] + 0.01:
                self._note(CLOSER, at, self._started - per_ms * look.now_ms - self._least)

    def _judge_closed(self, look: Look, at: float) -> None:
        for bucket, (until, token) in list(self._closed.items()):
            if look.now_ms >= until:
                del self._closed[bucket]
            elif any(one > token for one in look.leases.get(bucket, ())):
                self._note(CLOSED, at, bucket)
        for bucket, until in look.shut.items():
            if until > look.now_ms and bucket not in self._closed:
                self._closed[bucket] = until, look.token

    def _judge_idle(self, look: Look, at: float) -> None:
        startable: dict[str, tuple[float, set[str]]] = {}
        for line in look.waiting:
            buckets = parts(line)
            if not look.idle or not all(look.has_room(bucket, cost) for bucket, cost in buckets):
                continue
            started = any(token > self._token for bucket, _ in buckets for token in look.leases.get(bucket, ()))
            since, idle = self._startable.get(line, (at, look.idle))
            if started or not idle & look.idle:
                since, idle = at, look.idle
            startable[line] = since, idle & look.idle
            waited = at - since
            self.findings.beside_idle_s = max(self.findings.beside_idle_s, waited)
            if waited > PATIENCE_S:
                self._note(IDLE, at, line, f"{waited:.1f} s")
        self._startable = startable

    def _note(self, what: str, at: float, *details: object) -> None:
        cases = self.findings.wrong[what]
        if len(cases) < _MOST_SHOWN:
            cases.append((round(at, 2), *details))


class Observer:
    """Looks at the queue's primary from a thread of its own, until the block ends.

    Args:
        site: the servers.
        owners: how many keys the backlog has.
    """

    def __init__(self, site: Site, owners: int) -> None:
        self._site, self._owners, self._judge = site, owners, Judge()
        self._ends, self._sees = threading.Event(), threading.Event()
        self._changes = 0
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    @property
    def findings(self) -> Findings:
        return self._judge.findings

    def __enter__(self) -> "Observer":
        self._sees.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._sees.set()
        self._thread.join()

    @contextmanager
    def blind(self) -> Iterator[None]:
        """While a limit is changed, or the keys of the queue are on two servers: a look would not know what it sees."""
        self._sees.clear()
        self._changes += 1
        yield
        self._changes += 1
        self._sees.set()

    def _run(self) -> None:
        node: Node | None = None
        last: Node | None = None
        changes = 0
        looked_at, lines_until = lines(self._owners), time.monotonic() + _SAME_LINES_S
        while not self._ends.is_set():
            self._sees.wait()
            before = self._changes
            try:
                if node is None or self.findings.looks % _LOOKS_EACH == 0:
                    node = self._site.primary()
                if node is not last:
                    self._judge.forget()
                    last = node
                if time.monotonic() > lines_until:
                    looked_at, lines_until = lines(self._owners), time.monotonic() + _SAME_LINES_S
                look = _read(looked_at, node.command("EVAL_RO", _LOOK, 1, BASE, *looked_at, timeout=2))
            except (OSError, Refused, StopIteration, AssertionError, ValueError, IndexError):
                node = None
                time.sleep(0.05)
                continue
            if before == self._changes and self._sees.is_set():
                self._judge.judge(look, time.monotonic(), before == changes)
                changes = before
            time.sleep(_PAUSE_S)


def _read(lines: list[str], values: list[Any]) -> Look:
    now, token, claimed, busy, limits, overrides, placed, lengths, rates, alive, idle = values
    leases: dict[str, list[int]] = defaultdict(list)
    paced: dict[int, int] = {}
    for lease in claimed:
        number, line = lease.split(" ")
        for bucket, cost in parts(line):
            leases[bucket].append(int(number))
            if bucket == "paced":
                paced[int(number)] = cost
    declared = {name: json.loads(text) for name, text in _pairs(limits)}
    put = {name: json.loads(text) for name, text in _pairs(overrides)}
    definitions = dict(declared)
    for bucket in put:
        name = bucket.partition("(")[0]
        definitions[bucket] = {**declared.get(name, {}), **put.get(name, {}), **put[bucket]}
    times = {bucket: float(score) for bucket, score in _pairs(rates)}
    return Look(
        now_ms=now,
        token=int(token),
        leases=dict(leases),
        paced=paced,
        busy={bucket: int(count) for bucket, count in _pairs(busy)},
        at_once={name: one["concurrency"] for name, one in definitions.items() if "concurrency" in one},
        rates={name: one for name, one in definitions.items() if "rate" in one},
        waiting=[line for line, length in zip(lines, lengths, strict=True) if length],
        placed=dict(zip(lines, placed, strict=True)),
        reached={bucket: at for bucket, at in times.items() if at > 0},
        shut={bucket: -at for bucket, at in times.items() if at < 0},
        idle=set(alive) & set(idle),
    )


def _pairs(values: list[str]) -> Iterator[tuple[str, str]]:
    return zip(values[::2], values[1::2], strict=True)
