"""How lines share a lane: by their weights, whatever the backlog, the order of arrival and how much a call is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limit_server import LimitServer
from model_queue import Refused

from ardiq._core import Core

BASE = "ardiq:{turns}:"
PORTION = 16
"""A line has no longer turn than this, where another one waits."""
INTERVAL_MS, LEASE_MS = 100_000, 100_000_000
WANTS = st.lists(st.integers(1, 40), min_size=5, max_size=12)
QUICK = settings(
    max_examples=8, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture
def server(server_url: str) -> Iterator[LimitServer]:
    core = Core(server_url, BASE)
    yield LimitServer(core, BASE)
    core.close()


def begin(server: LimitServer, **definition: Any) -> None:
    server.core.command(["FLUSHALL"])
    server.call("limits_declare", limits=[{"name": "customer", "definition": definition or {"concurrency": 10_000}}])
    server.call("join", worker="w:1", lease_ms=LEASE_MS, lanes=["default"])


def enqueue(
    server: LimitServer, key: str, many: int, weight: float = 1, first: int = 0, batch: dict[str, str] | None = None
) -> None:
    """Tasks of a key, named after it; without one they are plain. `batch`: they gather there."""
    limits = [{"name": "customer", "key": key, "weight": weight}, *([batch] if batch else [])]
    options = {"limits": limits} if key != "plain" else {}
    task = {"name": "work", "lane": "default", "args": [], "options": options}
    server.call("enqueue", tasks=[{**task, "id": f"{key} {first + number}"} for number in range(many)])


def claim(server: LimitServer, want: int) -> Counter[str]:
    """How many of each key it got."""
    claims = server.call("claim", worker="w:1", lanes=["default"], want=want, result_ttl_ms=LEASE_MS)
    assert len(server.batches) <= want
    return Counter(id.split()[0] for id, *_ in claims)


@QUICK
@given(
    weights=st.dictionaries(st.sampled_from("abcde"), st.sampled_from([0.5, 1, 1, 2, 3]), min_size=2), wants=WANTS,
    plain=st.booleans(),
)  # fmt: skip
def test_keys_are_served_by_their_weights(
    server: LimitServer, weights: dict[str, float], wants: list[int], plain: bool
) -> None:
    begin(server)
    if plain:
        weights = {**weights, "plain": 1}
    for key, weight in weights.items():
        enqueue(server, key, 500, weight)
    served: Counter[str] = Counter()
    for want in wants:
        got = claim(server, want)
        assert got.total() == want
        served += got
        shares = sorted((served[key] / weight, key) for key, weight in weights.items())
        for (less, one), (more, other) in pairwise(shares):
            assert more - less <= PORTION / weights[one] + PORTION / weights[other], (served, weights)


@QUICK
@given(alone=st.integers(1, 300), wants=WANTS, rests=st.sampled_from(["never", "shortly", "long"]))
def test_nobody_pays_for_what_he_had_while_he_was_alone(
    server: LimitServer, alone: int, wants: list[int], rests: str
) -> None:
    """Nor is anything saved up by one that was idle."""
    begin(server)
    enqueue(server, "a", alone + 500 if rests == "never" else alone)
    assert claim(server, alone) == {"a": alone}
    if rests == "long":
        server.call("heartbeat", worker="w:1", lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=3)
    for key in "b" if rests == "never" else "ab":
        enqueue(server, key, 500, first=1000)
    served: Counter[str] = Counter()
    for want in wants:
        served += claim(server, want)
        assert abs(served["a"] - served["b"]) <= 2 * PORTION, served


@QUICK
@given(
    sizes=st.dictionaries(st.sampled_from("abcde"), st.sampled_from([1, 2, 5]), min_size=2), wants=WANTS,
    weights=st.lists(st.sampled_from([0.5, 1, 1, 2, 3]), min_size=5, max_size=5), plain=st.booleans(),
)  # fmt: skip
def test_a_batch_is_one_turn(
    server: LimitServer, sizes: dict[str, int], wants: list[int], weights: list[float], plain: bool
) -> None:
    begin(server)
    server.call("limits_declare", limits=[{"name": "#work", "definition": {"batch_size": 1, "batch_wait_ms": 0}}])
    weight_of = dict(zip("abcde", weights, strict=True), plain=1)
    for key, size in sizes.items():
        batch = {"name": "#work", "key": key}
        server.call("limit_put", **batch, definition={"batch_size": size, "batch_wait_ms": INTERVAL_MS})
        enqueue(server, key, 100 * size, weight_of[key], batch=batch)  # a hundred turns
    if plain:
        enqueue(server, "plain", 200)
    served: Counter[str] = Counter()
    for want in wants:
        if max(served.values(), default=0) + want > 100:
            break  # no more of one may be left
        claim(server, want)
        assert len(server.batches) == want
        for first, *others in server.batches:
            key = first.id.split()[0]
            assert len(others) + 1 == sizes.get(key, 1)
            served[key] += 1
        shares = sorted((served[key] / weight_of[key], key) for key in [*sizes, *["plain"] * plain])
        for (less, one), (more, other) in pairwise(shares):
            assert more - less <= PORTION / weight_of[one] + PORTION / weight_of[other], (served, sizes)


def test_a_lone_key_has_all(server: LimitServer) -> None:
    begin(server)
    enqueue(server, "a", 200)
    assert claim(server, 200) == {"a": 200}


@QUICK
@given(burst=st.integers(1, 4), passes=st.lists(st.sampled_from([20_000, 60_000, 130_000]), min_size=5, max_size=15))
def test_a_rate_is_used_up_and_no_more(server: LimitServer, burst: int, passes: list[int]) -> None:
    begin(server, rate=1, per_ms=INTERVAL_MS, burst=burst)
    enqueue(server, "a", 100)
    started = claim(server, 100).total()
    assert started == burst
    passed = 0
    for ms in passes:
        server.pass_time(ms)
        passed += ms
        server.call("heartbeat", worker="w:1", lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=3)
        started += claim(server, 100).total()
        # Some time passes by itself, too; what is over the burst is lost.
        assert started <= burst + (passed + INTERVAL_MS / 2) // INTERVAL_MS
        if burst > 1:
            assert started >= burst + passed // INTERVAL_MS


@QUICK
@given(
    burst=st.integers(2, 6), cost=st.integers(2, 6), keys=st.integers(1, 3), dear=st.integers(1, 3),
    arrive=st.integers(0, 2), want=st.sampled_from([1, 3, 20]),
)  # fmt: skip
def test_what_costs_more_has_its_turn(
    server: LimitServer, burst: int, cost: int, keys: int, dear: int, arrive: int, want: int
) -> None:
    """However many cheaper ones wait, and come; and the rate is used up."""
    begin(server)
    cost = min(cost, burst)
    rate = {"name": "rate", "definition": {"rate": 1, "per_ms": INTERVAL_MS, "burst": burst}}
    server.call("limits_declare", limits=[rate])
    counts: Counter[str] = Counter()

    def add(key: str, its_cost: int) -> None:
        counts[key] += 1
        uses = [{"name": "rate", "cost": its_cost}, {"name": "customer", "key": key}]
        task = {"name": "work", "lane": "default", "args": [], "options": {"limits": uses}}
        server.call("enqueue", tasks=[{**task, "id": f"{key} {counts[key]}"}])

    for number in range(40):
        for key in range(keys):
            add(f"cheap{key}", 1)
        if number < 10:
            for key in range(dear):
                add(f"large{key}", cost)
    served, used, passed = Counter[str](), 0, 0
    # A round is one of each, or of cheap ones a few in a row.
    rounds, a_round = 3, (4 * keys + cost * dear) + 2 * cost
    for number in range(rounds * a_round):
        server.pass_time(INTERVAL_MS)
        passed += 1
        server.call("heartbeat", worker="w:1", lease_ms=LEASE_MS, result_ttl_ms=LEASE_MS, max_lost=3)
        got = claim(server, want)
        served += got
        used += sum(many * (cost if key.startswith("large") else 1) for key, many in got.items())
        assert used <= burst + passed
        if arrive:
            add("cheap0", 1)
            # Of those that come anew there is no end: fewer than the rate lets start.
            add(f"new{number // 4 * arrive}", 1)
    assert used >= passed - burst
    for key in range(dear):
        assert served[f"large{key}"] >= 2, served


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", "0", "1e999"])
def test_what_is_no_number_of_starts_is_refused(server: LimitServer, number: str) -> None:
    begin(server)
    with pytest.raises(Refused):
        server.call("limits_declare", limits=[{"name": "a", "definition": f'{{"rate":{number},"per_ms":1000}}'}])
    options = f'{{"limits":[{{"name":"customer","weight":{number}}}]}}'
    with pytest.raises(Refused):
        server.call("enqueue", tasks=[{"id": "a", "name": "work", "lane": "default", "args": [], "options": options}])


def test_a_claim_looks_at_a_bounded_number_of_lines(server: LimitServer) -> None:
    """However many wait for the same slot."""
    begin(server)
    server.call("limits_declare", limits=[{"name": "gate", "definition": {"concurrency": 1}}])
    keys = [{"name": "customer", "key": str(number)} for number in range(9_000)]
    for first in range(0, len(keys), 1_000):
        tasks = [
            {
                "id": key["key"],
                "name": "work",
                "lane": "default",
                "args": [],
                "options": {"limits": [{"name": "gate"}, key]},
            }
            for key in keys[first : first + 1_000]
        ]
        server.call("enqueue", tasks=tasks)
    started, calls = claim(server, 100).total(), 1
    while server.core.command(["ZCARD", f"{BASE}ring:default"]):
        before = server.core.command(["ZCARD", f"{BASE}ring:default"])
        started += claim(server, 100).total()
        assert before - server.core.command(["ZCARD", f"{BASE}ring:default"]) <= 1_000
        calls += 1
    assert started == 1
    assert calls >= 9


def test_a_call_may_be_about_thousands_of_buckets(server: LimitServer) -> None:
    begin(server)
    names = [{"name": f"limit{number}", "definition": {"concurrency": 1}} for number in range(8)]
    server.call("limits_declare", limits=names)
    tasks = [
        {
            "id": f"task {number}", "name": "work", "lane": "default", "args": [],
            "options": {"limits": [{"name": limit["name"], "key": str(number)} for limit in names]},
        }
        for number in range(1_000)
    ]  # fmt: skip
    server.call("enqueue", tasks=tasks)
    assert claim(server, 500) + claim(server, 500) == {"task": 1_000}
    assert server.core.command(["HLEN", f"{BASE}busy"]) == 8_000
    server.call("leave", worker="w:1", result_ttl_ms=LEASE_MS)
    assert server.core.command(["EXISTS", f"{BASE}busy"]) == 0
