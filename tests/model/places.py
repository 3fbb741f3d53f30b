"""The keyspace of a queue, read as an operator would: each task must be in exactly one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FINISHED = {"complete", "aborted", "expired", "discarded"}


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_hash(flat: list[Any]) -> dict[str, str]:
    return {text(flat[i]): text(flat[i + 1]) for i in range(0, len(flat), 2)}


# Every key of the queue at one moment: name and content in turn.
SNAPSHOT = """
local read = { hash = 'HGETALL', set = 'SMEMBERS' }
local dump = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, content = redis.call('TYPE', key).ok, nil
  if kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1)
  elseif read[kind] then content = redis.call(read[kind], key) end
  if content then dump[#dump + 1] = { key, content } end
end
return dump
"""


def check_places(command: Callable[[list[Any]], Any], base: str) -> dict[str, dict[str, str]]:
    """Read every key of the queue; raise AssertionError naming the first task that is lost, doubled or misplaced."""
    keys = {text(key)[len(base) :]: content for key, content in command(["EVAL", SNAPSHOT, 0, base + "*"])}

    def ids(name: str) -> list[str]:
        return [text(value) for value in keys.get(name, [])]

    records = {name.removeprefix("task:"): read_hash(keys[name]) for name in keys if name.startswith("task:")}
    ready: dict[str, str] = {}
    for lane in ids("lanes"):
        tombs = set(ids(f"tombs:{lane}"))
        entries = ids(f"ready:{lane}")
        assert tombs <= set(entries), f"a tombstone without an entry in lane {lane}: {tombs - set(entries)}"
        for entry in (entry for entry in entries if entry not in tombs):
            assert entry not in ready, f"{entry} stands twice in the ready lists"
            ready[entry] = lane
    running: dict[str, str] = {}
    for worker in ids("workers"):
        for held in read_hash(keys.get(f"running:{worker}", [])):
            assert held not in running, f"{held} is held by {running[held]} and by {worker}"
            running[held] = worker
    held: dict[str, str] = {}
    for name in keys:
        for entry in ids(name) if name.startswith("held:") else []:
            assert entry not in held, f"{entry} is held twice"
            held[entry] = name.removeprefix("held:")
    scheduled, suspects, dead = set(ids("scheduled")), set(ids("suspects")), set(ids("dead"))

    for place in (ready, running, scheduled, held, suspects, dead):
        assert set(place) <= set(records), f"entries without a record: {set(place) - set(records)}"
    for id, record in records.items():
        state, suspect = record["state"], int(record.get("lost", 0)) >= 2
        found = {
            name
            for name, place in {
                "ready": ready,
                "running": running,
                "scheduled": scheduled,
                "held": held,
                "suspects": suspects,
                "dead": dead,
            }.items()
            if id in place
        }
        expected = {
            "queued": {"suspects"} if suspect else {"ready"},
            "scheduled": {"scheduled"},
            "held": {"held"},
            "running": {"running"},
            "failed": {"dead"},
        }.get(state, set())
        assert state in FINISHED or expected, f"{id}: unknown state {state}"
        assert found == expected, f"{id} is {state} ({record}) but lies in {found or 'no place'}"
        if state == "running":
            assert record["worker"] == running[id], f"{id} names {record['worker']}, held by {running[id]}"
        assert record.get("held_by") == held.get(id), f"{id} is held under {held.get(id)}, not {record.get('held_by')}"
        if found == {"ready"}:
            assert ready[id] == record["lane"], f"{id} lies in lane {ready[id]}, its record says {record['lane']}"
    return records
