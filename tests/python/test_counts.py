"""What it costs to ask how many tasks are where: by what is alive, and not by how much there is."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from helpers import drain

from ardiq import Ardiq, _core
from ardiq.embedded import Server

WORKERS, LANES, TASKS = 1_000, 10_000, 1_000_000
LEASE_MS = 600_000

# Entries of tasks, which is all that is counted: scheduled and ready ones, and lanes with one each.
FILL = """
local base = KEYS[1]
for number = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('ZADD', base .. 'scheduled', number, 's' .. number)
  redis.call('RPUSH', base .. 'ready:default', 'r' .. number)
end
for number = 1, tonumber(ARGV[3]) do
  redis.call('RPUSH', base .. 'ready:' .. number, 'l' .. number)
  redis.call('SADD', base .. 'lanes', number)
end
"""


@pytest.fixture
def alone() -> Iterator[Ardiq]:
    """An app on a server of its own, whose commands nobody else counts up."""
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as private:
        app = Ardiq(private.url, "q")
        yield app
        app.context.server.close()


def commands_of(core: _core.Core, query: str, args: Sequence[str | int] = ()) -> int:
    """How many commands the server runs for one query."""
    core.call(query, args)  # a server without functions gets the script now
    core.command(["CONFIG", "RESETSTAT"])
    core.call(query, args)
    stats = core.command(["INFO", "commandstats"]).decode()
    return sum(int(calls) for calls in re.findall(r"^cmdstat_[^:]+:calls=(\d+)", stats, re.MULTILINE))


def counted(core: _core.Core) -> dict[str, int]:
    reply = core.call("counts", [])
    return {bytes(name).decode(): int(number) for name, number in zip(reply[::2], reply[1::2], strict=True)}


def join(core: _core.Core, worker: str) -> None:
    core.call("join", [worker, LEASE_MS, b"{}", b'["default"]', 1])


def step(core: _core.Core, worker: str, seq: int, want: int, ids: list[str] | None = None) -> list[str]:
    """Claim, and settle what is given as id and token in turn. Replies id and token of the claims in turn."""
    done = [
        part for at in range(0, len(ids or []), 2) for part in (*(ids or [])[at : at + 2], "complete", 1, "null", "")
    ]
    reply = core.call("step", [worker, seq, LEASE_MS, LEASE_MS, b'["default"]', want, 0, *done])
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in reply[3:]]
    return [part for at in range(0, len(texts), 10) for part in texts[at : at + 2]]


def test_it_costs_what_is_alive(alone: Ardiq) -> None:
    core, base = alone.context.server.core, alone.context.server.base
    work = alone.ref("work")
    alone.enqueue_many_sync([work.prepare() for _ in range(2)])
    join(core, "w:0")
    step(core, "w:0", 1, 1)
    little, known = commands_of(core, "counts"), commands_of(core, "overview", [0])

    alone.enqueue_many_sync([work.prepare() for _ in range(2 * WORKERS)])
    for number in range(1, WORKERS):
        join(core, f"w:{number}")
        step(core, f"w:{number}", 1, 2)
    for first in range(1, TASKS // 2, 10_000):  # a call that takes seconds would hold up the server
        core.command(["EVAL", FILL, 1, base, first, first + 9_999, 0])
    counts = counted(core)
    assert {name: counts[name] for name in ("workers", "running", "scheduled", "queued")} == {
        "workers": WORKERS,
        "running": 2 * (WORKERS - 1) + 1,
        "scheduled": TASKS // 2,
        "queued": TASKS // 2 + 3,
    }
    little, known = little + 1, known + 1  # a worker has two tasks: one more than the first had
    assert commands_of(core, "counts") == little, "a thousand workers with all those tasks cost as much as one with one"
    assert commands_of(core, "overview", [0]) == known
    assert commands_of(core, "oldest_ready") <= little

    core.command(["EVAL", FILL, 1, base, 1, 0, LANES])
    assert commands_of(core, "counts") <= little + 2 * LANES, (
        "a lane that has work is asked for it, and how much is void"
    )


def test_what_a_worker_of_an_earlier_library_holds_is_counted_too(alone: Ardiq) -> None:
    """It writes no loads: neither of its own tasks, nor when it reaps a worker."""
    core, base = alone.context.server.core, alone.context.server.base
    alone.enqueue_many_sync([alone.ref("work").prepare() for _ in range(10)])
    for worker in ("old:1", "new:1"):
        join(core, worker)
    held = {worker: step(core, worker, 1, 3) for worker in ("old:1", "new:1")}

    core.command(["ZREM", f"{base}loads", "old:1"])  # as it never was there
    assert counted(core)["running"] == 6
    core.command(["HDEL", f"{base}running:old:1", held["old:1"][0]])  # it settles one, for all that is counted
    core.command(["DEL", f"{base}task:{held['old:1'][0]}"])
    assert counted(core)["running"] == 5
    assert step(core, "old:1", 2, 2, held["old:1"][2:4])  # the server got this library meanwhile
    assert counted(core)["running"] == 6
    assert core.command(["ZCARD", f"{base}loads"]) == 2, "from now on it is not asked any more"

    for key in ("running:new:1", "worker:new:1"):  # it is reaped by one of the earlier library
        core.command(["DEL", base + key])
    for id in held["new:1"][::2]:
        core.command(["DEL", f"{base}task:{id}"])
    core.command(["ZREM", f"{base}workers", "new:1"])
    assert counted(core)["running"] == 3
    core.call("repair", [LEASE_MS, "wrong_load", "new:1", "3"])
    assert core.command(["ZCARD", f"{base}loads"]) == 1


async def test_a_load_ends_with_it(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()

    @app.task
    async def work() -> int:
        return int(app.context.server.core.command(["ZCARD", f"{app.context.server.base}loads"]))

    job = await work.enqueue()
    await drain(app)
    assert (await job.result()).value == 1
    assert app.context.server.core.command(["EXISTS", f"{app.context.server.base}loads"]) == 0
    assert json.loads(_core.PROTOCOL)["keys"]["loads"]["owner"] == "members"


# Lines of two limits: those of one lane have their turn, those of another wait for a closed limit.
LINES = """
local base, count = KEYS[1], tonumber(ARGV[1])
for number = 1, count do
  for _, lane in ipairs({'default', 'low'}) do
    local line = 'customer(' .. number .. '),partner'
    redis.call('RPUSH', base .. 'line:' .. lane .. ':' .. line, 'a', 'b', 'c')
    redis.call('ZADD', base .. (lane == 'low' and 'blocked:low:partner' or 'ring:default'), number, line)
  end
end
redis.call('RPUSH', base .. 'line:default:tenant(x)', 'a', 'b')
redis.call('ZADD', base .. 'ring:default', count + 1, 'tenant(x)')
redis.call('HSET', base .. 'blocked_lanes', 'partner', '["low"]')
redis.call('HSET', base .. 'limited', 'default', 3 * count + 2, 'low', 3 * count)
redis.call('HSET', base .. 'limits', 'customer', '{"concurrency":1}', 'partner', '{"concurrency":1}',
  'tenant', '{"concurrency":1}')
"""


def test_figures_of_limits_cost_a_bounded_number_of_lines(alone: Ardiq) -> None:
    core, base = alone.context.server.core, alone.context.server.base
    core.command(["EVAL", LINES, 1, base, 999])
    found = {limit.name: (limit.waiting, limit.exact) for limit in alone.limits.list_sync()}
    assert found == {"customer": (5_994, True), "partner": (5_994, True), "tenant": (2, True)}
    assert len(alone.limits.buckets_sync()) == 1_001

    core.command(["FLUSHDB"])
    core.command(["EVAL", LINES, 1, base, 10_000])
    found = {limit.name: (limit.waiting, limit.exact) for limit in alone.limits.list_sync()}
    assert found == {"customer": (6_000, False), "partner": (6_000, False), "tenant": (0, False)}
    shown = alone.limits.show_sync("tenant(x)")
    assert shown is not None
    assert (shown.waiting, shown.exact) == (2, False), "a line of this key alone is found without a search"
    bound = 2_000 + 100
    assert commands_of(core, "limits", ["0", 1_000]) < bound
    assert commands_of(core, "limit", ["partner", ""]) < bound
    assert commands_of(core, "limit", ["customer", "7"]) < bound
    assert commands_of(core, "buckets", ["", "s:0", 100]) < bound + 100 * 10


def test_the_age_of_a_lane_costs_a_bounded_number_of_lines(alone: Ardiq) -> None:
    core, base = alone.context.server.core, alone.context.server.base
    core.command(["EVAL", LINES, 1, base, 10_000])
    assert commands_of(core, "oldest_ready") < 2 * 100 * 15
