"""Lanes that share a worker by weight, and limits on how many of a lane run at once."""

import asyncio
import functools
import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, is_sound, working

from ardiq import Ardiq
from ardiq._server import calls
from ardiq._values.encodings import to_json
from ardiq.embedded import Server
from ardiq.errors import BadArgument


@pytest.fixture
def lanes_of(make_app: Callable[..., Ardiq]) -> Callable[..., Ardiq]:
    return functools.partial(make_app, priorities=["low", "high"])


@pytest.mark.parametrize("prefetch", [0, None])
async def test_a_low_lane_gets_its_share(lanes_of: Any, prefetch: int | None) -> None:
    app = lanes_of(weights={"high": 3}, concurrency=1, prefetch=prefetch)
    order: list[str] = []

    @app.task
    async def note(lane: str) -> None:
        order.append(lane)

    for lane in ("high", "low"):
        await app.enqueue_many(note.options(priority=lane).prepare(lane) for _ in range(200))
    await drain(app)
    assert len(order) == 400
    # Of the first hundred a quarter is of the low lane, give or take what one step claims.
    assert 10 <= order[:100].count("low") <= 40
    assert set(order[300:]) == {"low"}
    assert is_sound(app)


async def test_more_lanes_than_one_call_can_carry_are_refused(app: Ardiq) -> None:
    channel = app.context.server.channel(asyncio.get_running_loop())
    lanes = [f"lane {number}" for number in range(9_000)]
    with pytest.raises(BadArgument, match="up to 1000 lanes, not 9000"):
        await channel.ask(calls.join(worker="w:1", lease_ms=60_000, info="{}", lanes=to_json(lanes), generation=1))
    assert app.context.server.core.command(["EXISTS", f"{app.context.server.base}workers"]) == 0, (
        "and nothing was written"
    )


def test_what_is_counted_costs_what_is_there_and_not_what_was() -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as private:
        app = Ardiq(private.url, "q", priorities=["later", "default"])
        core, base = app.context.server.core, app.context.server.base
        work = app.ref("work")

        def cost() -> int:
            core.command(["CONFIG", "RESETSTAT"])
            for query in ("counts", "oldest_ready"):
                core.call(query, [])
            text = core.command(["INFO", "commandstats"]).decode()
            return sum(int(calls) for calls in re.findall(r"^cmdstat_[^:]+:calls=(\d+)", text, re.MULTILINE))

        work.enqueue_sync()
        core.call("join", ["w:1", 60_000, b"{}", b'["default"]', 1])
        little = cost()
        app.enqueue_many_sync([work.prepare() for _ in range(20_000)])
        work.options(delay_ms=1, priority="later").enqueue_sync()
        assert cost() <= little + 3, "twenty thousand tasks cost as much as one; there is one lane more"
        core.command(["SADD", f"{base}lanes", *(f"empty {number}" for number in range(10_000))])
        core.command(["SREM", f"{base}lanes", "later"])  # as if it were forgotten while its task waits
        for _ in range(2_000):
            core.call("heartbeat", ["w:1", 60_000, 60_000, 1, 3, 0, 0])
            if core.command(["SCARD", f"{base}lanes"]) <= 100:
                break
        assert cost() <= little + 300, "some hundred lanes are remembered although they are empty"
        counts = {bytes(name).decode() for name in core.call("counts", [])[::2]}
        assert {"ready:default", "ready:later"} <= counts
        app.context.server.close()


async def claimed_lanes(app: Ardiq, lanes: list[dict[str, Any]], want: int) -> list[str]:
    """Claim as a worker does; the lanes of what it was given, in order."""
    channel = app.context.channel()
    reply = await channel.ask(calls.claim(worker="w:1", lanes=to_json(lanes), want=want, result_ttl_ms=60_000))
    return [claim.lane for claim in reply.rows]


async def joined(app: Ardiq, lanes: list[dict[str, Any]]) -> None:
    channel = app.context.channel()
    await channel.ask(calls.join(worker="w:1", lease_ms=60_000, info="{}", lanes=to_json(lanes), generation=1))


@pytest.mark.parametrize("seed", range(5))
async def test_the_wait_of_a_low_lane_is_bounded(make_app: Callable[..., Ardiq], seed: int) -> None:
    """Between two tasks of a lane the others get no more than their weights say, and one more each, however full."""
    rng = random.Random(seed)
    names = ["low", "middle", "high"]
    weights = {name: rng.choice([1, 2, 3, 7, 20, 100]) for name in names}
    app = make_app(priorities=names)
    note = app.ref("note")
    lanes = [{"lane": name, "weight": weights[name]} for name in reversed(names)]
    await joined(app, lanes)
    for name in names[1:]:
        await app.enqueue_many(note.options(priority=name).prepare() for _ in range(1000))
    others = sum(weights[name] / weights["low"] + 1 for name in names[1:])
    waiting, passed_by, claimed = 0, 0, 0
    while claimed < 900:
        if waiting == 0 and rng.random() < 0.7:
            waiting = rng.randint(1, 5)
            await app.enqueue_many(note.options(priority="low").prepare() for _ in range(waiting))
            passed_by = 0
        for lane in await claimed_lanes(app, lanes, rng.randint(1, 30)):
            claimed += 1
            if lane == "low":
                waiting, passed_by = waiting - 1, 0
            elif waiting > 0:
                passed_by += 1
                assert passed_by <= others, (weights, claimed)


async def test_the_share_of_an_idle_lane_goes_to_the_others(lanes_of: Any) -> None:
    app = lanes_of()
    note = app.ref("note")
    lanes = [{"lane": "high", "weight": 9}, {"lane": "low", "weight": 1}]
    await joined(app, lanes)
    await app.enqueue_many(note.options(priority="low").prepare() for _ in range(100))
    assert await claimed_lanes(app, lanes, 40) == ["low"] * 40
    # It saved up nothing meanwhile: it gets nine in ten from now on, and no more.
    await app.enqueue_many(note.options(priority="high").prepare() for _ in range(100))
    assert (await claimed_lanes(app, lanes, 50)).count("high") == 45
    # One that is at its limit leaves its share, too.
    lanes[0]["limit"] = 2
    assert (await claimed_lanes(app, lanes, 20)).count("low") == 18


async def test_strict_order_without_weights(lanes_of: Any) -> None:
    app = lanes_of(concurrency=1, prefetch=0)
    order: list[str] = []

    @app.task
    async def note(lane: str) -> None:
        order.append(lane)

    for lane in ("low", "high"):
        await app.enqueue_many(note.options(priority=lane).prepare(lane) for _ in range(5))
    await drain(app)
    assert order == ["high"] * 5 + ["low"] * 5


async def test_no_more_of_a_lane_run_at_once_than_its_limit(lanes_of: Any) -> None:
    app = lanes_of(limits={"low": 2}, concurrency=8)
    running = {"low": 0, "high": 0}
    most = {"low": 0, "high": 0}

    @app.task
    async def work(lane: str) -> None:
        running[lane] += 1
        most[lane] = max(most[lane], running[lane])
        await asyncio.sleep(0.01)
        running[lane] -= 1

    for lane in ("low", "high"):
        await app.enqueue_many(work.options(priority=lane).prepare(lane) for _ in range(30))
    await drain(app)
    assert most["low"] == 2
    assert most["high"] > 2
    assert await app.queue_size() == 0
    assert is_sound(app)


async def test_a_lane_at_its_limit_waits_for_nobody_else(lanes_of: Any) -> None:
    app = lanes_of(limits={"low": 1}, concurrency=8)
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    @app.task
    async def quick() -> int:
        return 1

    async with working(app), asyncio.timeout(SOON_S):
        first = await hold.options(priority="low").enqueue()
        while await first.status() != "running":
            await asyncio.sleep(0.01)
        second = await quick.options(priority="low").enqueue()
        assert await quick.options(priority="high").request() == 1
        assert await second.status() == "queued"
        release.set()
        result = await second.result(timeout=SOON_S)
        assert result is not None
        assert result.value == 1


async def test_sync_tasks_keep_the_limit_too(lanes_of: Any) -> None:
    app = lanes_of(limits={"low": 1, "high": 1}, concurrency=4)
    running: list[int] = []
    most: list[int] = []

    @app.task
    def work() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    await app.enqueue_many(work.options(priority=lane).prepare() for lane in ("low", "high") for _ in range(50))
    await drain(app)
    assert len(most) == 100
    assert max(most) <= 2


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"weights": {"middle": 2}}, ValueError, "middle"),
        ({"weights": {"low": 0}}, ValueError, "weights"),
        ({"weights": [1, 2]}, TypeError, "weights"),
        ({"limits": {"low": 0}}, ValueError, "limits"),
        ({"limits": {"low": "two"}}, TypeError, "limits"),
        ({"limits": {"none": 1}}, ValueError, "none"),
    ],
)
def test_misuse(lanes_of: Any, options: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        lanes_of(**options)


def test_they_can_be_read(lanes_of: Any) -> None:
    app = lanes_of(weights={"high": 3}, limits={"low": 2})
    assert app.weights == {"low": 1, "high": 3}
    assert app.limits == {"low": 2}
    assert (lanes_of().weights, lanes_of().limits) == (None, {})


def blocks(app: Ardiq) -> int:
    """How often anybody has begun to block at the server."""
    found = re.search(rb"cmdstat_blpop:calls=(\d+)", app.context.server.core.command(["INFO", "commandstats"]))
    return int(found[1]) if found else 0


async def test_a_worker_is_at_rest_while_a_lane_is_at_its_limit(make_app: Callable[..., Ardiq]) -> None:
    """And yet hears of what comes to that lane when there is room again, long before its block would end."""
    app = make_app(priorities=["low", "high"], limits={"low": 1}, concurrency=4, poll_block_ms=60_000)
    started, release = asyncio.Event(), asyncio.Event()

    @app.task
    async def hold() -> None:
        started.set()
        await release.wait()

    @app.task
    async def quick() -> int:
        return 1

    async with working(app), asyncio.timeout(SOON_S):
        for _ in range(3):
            first = await hold.options(priority="low").enqueue()
            await started.wait()
            await asyncio.sleep(0.2)
            before = blocks(app)
            await asyncio.sleep(0.5)
            assert blocks(app) - before <= 2
            assert await quick.options(priority="high").request() == 1
            release.set()
            await first.result(timeout=SOON_S)
            await asyncio.sleep(0.2)
            assert await quick.options(priority="low").request() == 1
            started.clear()
            release.clear()
