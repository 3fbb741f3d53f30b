"""Tasks with limits: what the producers enqueue beside those without. Each body notes the buckets it runs in.

What no fault changes is judged by the bodies' stamps as well; `tuned` and `region` are changed at run time.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ardiq import Ardiq, Rate, RateLimited
from ardiq.task import Task

from .jobs import QUEUE, app, execution

AT_ONCE = {"one": 1, "three": 3, "hundred": 100, "crowd": 32, "account": 1, "tenant": 3, "owner": 1, "partner": 5}
"""What runs at once at most, of the limit or of each of its keys."""
TUNED = {"tuned": 8, "region": 2}
"""The same as code declares it."""
STARTS_S, BURST = 30.0, 8
"""The rate of `paced`."""
ORDERED = "account"
"""Each of its keys runs in the order in which it was enqueued, whatever fails."""
ACCOUNTS, TENANTS, OWNERS, REGIONS = 12, 1_000, 100_000, 4
SURGE, SURGE_S = 250, 1.0
"""So many come at once that `hundred` is full, each for so long."""
RETRY_AFTER_S = 2.5
"""How long `partner` is closed when a task was told so."""
_DEAR, _USED_UP, _FAILED = 2, 0.04, 0.1
_SEEN_S, _PASSES_S = 0.05, 0.03
"""Long enough for a look, mostly; and for the backlog to last a while."""
MANY_LINES = 50
"""Of each limit with very many keys, a look is at so many."""

_one, _three, _hundred, _crowd, _partner, _tuned = (
    app.limit(name, concurrency={**AT_ONCE, **TUNED}[name])
    for name in ("one", "three", "hundred", "crowd", "partner", "tuned")
)
_account = app.limit("account", key="account", concurrency=AT_ONCE["account"], ordered=True)
_tenant = app.limit("tenant", key="tenant", concurrency=AT_ONCE["tenant"])
_owner = app.limit("owner", key="owner", concurrency=AT_ONCE["owner"])
_region = app.limit("region", key="region", concurrency=TUNED["region"])
_paced = app.limit("paced", rate=Rate(STARTS_S, per=1, burst=BURST))

_FEW = (
    *("one", "three", "paced", f"paced*{_DEAR}", "partner", "hundred,tenant(0)"),
    *(f"account({account})" for account in range(ACCOUNTS)),
    *(f"region({region}),tuned" for region in range(REGIONS)),
)


def lines(owners: int) -> list[str]:
    """Lines of the lane `default`: all of those that are few, and some of the others."""
    some_tenants, some_owners = (random.sample(range(1, keys), MANY_LINES) for keys in (TENANTS, owners))
    return [*_FEW, *(f"hundred,tenant({key})" for key in some_tenants), *(f"crowd,owner({key})" for key in some_owners)]


def parts(line: str) -> list[tuple[str, int]]:
    """The buckets of a line, and what a start costs of each."""
    return [(bucket, int(cost or 1)) for bucket, _, cost in (part.partition("*") for part in line.split(","))]


async def _run(number: int, line: str, seconds: float = 0.0) -> str:
    with execution(number, line) as stamp:
        await asyncio.sleep(seconds)
        return stamp


@app.task(max_retries=0, limits=_one)
async def alone(number: int, seconds: float) -> str:
    return await _run(number, "one", seconds)


@app.task(max_retries=0, limits=_three)
async def few(number: int, seconds: float) -> str:
    return await _run(number, "three", seconds)


@app.task(max_retries=0, limits=[_hundred, _tenant])
async def many(number: int, tenant: int, seconds: float) -> str:
    return await _run(number, f"hundred,tenant({tenant})", seconds)


@app.task(max_retries=0, limits=[_crowd, _owner])
async def owned(number: int, owner: int) -> str:
    return await _run(number, f"crowd,owner({owner})", _PASSES_S)


@app.task(max_retries=4, backoff_ms=50, limits=_account)
async def ordered(number: int, account: int) -> str:
    with execution(number, f"account({account})") as stamp:
        if random.random() < _FAILED:
            raise RuntimeError("not yet")
        return stamp


@app.task(max_retries=0, limits=_paced)
async def paced(number: int) -> str:
    return await _run(number, "paced", _SEEN_S)


@app.task(max_retries=0, limits=replace(_paced, cost=_DEAR))
async def dear(number: int) -> str:
    return await _run(number, f"paced*{_DEAR}", _SEEN_S)


@app.task(max_retries=0, limits=[_tuned, _region])
async def adjusted(number: int, region: int, seconds: float) -> str:
    return await _run(number, f"region({region}),tuned", seconds)


@app.task(max_retries=0, limits=_partner)
async def partnered(number: int, seconds: float) -> str:
    with execution(number, "partner") as stamp:
        await asyncio.sleep(seconds)
        if random.random() < _USED_UP:
            raise RateLimited(RETRY_AFTER_S)
        return stamp


def chosen(chance: random.Random, number: int) -> tuple[Task[..., Any], tuple[Any, ...]]:
    """One of them, with arguments."""
    seconds = chance.choice([0.0, 0.0, 0.02, 0.06])
    calls: list[tuple[Task[..., Any], tuple[Any, ...]]] = [
        (alone, (seconds,)),
        (few, (seconds,)),
        # Long enough that workers die with some.
        (many, (chance.randrange(TENANTS) if chance.random() < 0.5 else 0, chance.choice([0.0, 0.1, 0.5]))),
        (owned, (chance.randrange(OWNERS),)),
        (ordered, (chance.randrange(ACCOUNTS),)),
        (paced, ()),
        (dear, ()),
        (adjusted, (chance.randrange(REGIONS), seconds)),
        (partnered, (seconds,)),
    ]
    task, args = chance.choices(calls, [2, 2, 4, 2, 4, 2, 1, 3, 1])[0]
    return task, (number, *args)


def of_surge(chance: random.Random, number: int) -> tuple[Task[..., Any], tuple[Any, ...]]:
    """One of `SURGE`."""
    return many, (number, chance.randrange(TENANTS), SURGE_S)


def changes(url: str, number: int) -> list[Callable[[], object]]:
    """What an operator does with a limit, one after the other."""
    limits = Ardiq(url, QUEUE).limits
    name = f"region({number % REGIONS})" if number % 2 else "tuned"
    puts = [partial(limits.put_sync, name, concurrency=concurrency) for concurrency in (1, 12, 0)]
    removed = partial(limits.remove_sync, name)
    return [*puts, removed] if number % 3 else [*puts, removed, partial(limits.remove_sync, "tuned")]
