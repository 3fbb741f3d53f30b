"""What the server holds: read past Ardiq, by the commands of the server alone."""

from dataclasses import dataclass, field

from ..python.topologies import Node
from .jobs import BASE

FINISHED = ("complete", "failed", "aborted", "expired", "discarded")

_PAGE = """
local found = redis.call('SCAN', ARGV[1], 'MATCH', KEYS[1] .. 'task:*', 'COUNT', 1000)
local reply = { found[1] }
for _, key in ipairs(found[2]) do
  local record = redis.call('HMGET', key, 'args', 'state', 'result', 'lost', 'kind', 'complete')
  reply[#reply + 1] = string.sub(key, #KEYS[1] + 6)
  for i = 1, 6 do reply[#reply + 1] = record[i] or '' end
end
return reply
"""

_WAITING = """
local waiting, places = {}, { 'scheduled', 'quarantined', 'limited', 'held:newer', 'workflows', 'chores' }
for _, lane in ipairs(redis.call('SMEMBERS', KEYS[1] .. 'lanes')) do places[#places + 1] = 'ready:' .. lane end
for _, worker in ipairs(redis.call('ZRANGE', KEYS[1] .. 'workers', 0, -1)) do
  places[#places + 1] = 'running:' .. worker
end
for _, place in ipairs(places) do
  if redis.call('EXISTS', KEYS[1] .. place) == 1 then waiting[#waiting + 1] = place end
end
return waiting
"""


_LEFT = """
local left = {}
for _, kind in ipairs({ 'workflows', 'deadlines', 'chores', 'open:*', 'items:*' }) do
  for _, key in ipairs(redis.call('KEYS', KEYS[1] .. kind)) do left[#left + 1] = key end
end
return left
"""


@dataclass
class Record:
    state: str
    result: str
    lost: int


@dataclass
class Group:
    """A workflow, or a map."""

    state: str
    completed: int
    """Calls of a map, which have no record any more."""


@dataclass
class Snapshot:
    """All records at one time, while nobody writes."""

    records: dict[int, Record] = field(default_factory=dict)
    """By the task's number."""
    doubled: list[int] = field(default_factory=list)
    """Numbers that more than one record has."""
    groups: dict[str, Group] = field(default_factory=dict)
    """By their ids."""
    results: dict[str, list[str]] = field(default_factory=dict)
    """Of maps, by their ids, in order."""
    settled: int = 0
    """How often a task was settled, as the engine counted."""

    @property
    def ended(self) -> int:
        """How many tasks have ended."""
        return len(self.finished) + sum(group.completed for group in self.groups.values())

    @property
    def finished(self) -> dict[int, Record]:
        return {number: record for number, record in self.records.items() if record.state in FINISHED}


def waiting(node: Node) -> list[str]:
    """Where tasks wait or run."""
    places: list[str] = node.command("EVAL_RO", _WAITING, 1, BASE)
    return places


def left_by_workflows(node: Node) -> list[str]:
    """Keys that a workflow has only until it ends."""
    keys: list[str] = node.command("EVAL_RO", _LEFT, 1, BASE)
    return keys


def snapshot(node: Node) -> Snapshot:
    """What the node holds, while nobody writes."""
    taken, cursor, ids = Snapshot(), "0", set()
    while True:
        cursor, *values = node.command("EVAL_RO", _PAGE, 1, BASE, cursor)
        for id, args, state, result, lost, kind, completed in zip(*[iter(values)] * 7, strict=True):
            if id in ids:
                continue
            ids.add(id)
            if kind:
                taken.groups[id] = Group(state, int(completed or 0) if kind == "map" else 0)
                if kind == "map":
                    found = node.command("HGETALL", f"{BASE}results:{id}")
                    by_index = sorted(zip(map(int, found[::2]), found[1::2], strict=True))
                    taken.results[id] = [text.partition(" ")[2].strip('"') for _, text in by_index]
                continue
            number = int(args.strip("[]").split(",")[0])
            if number in taken.records:
                taken.doubled.append(number)
            taken.records[number] = Record(state, result, int(lost or 0))
        if cursor == "0":
            break
    taken.settled = settled(node)
    return taken


def settled(node: Node) -> int:
    """How often a task was settled, as the engine counted."""
    words = node.command("HGETALL", f"{BASE}stats")
    counts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    return sum(counts.get(name, 0) for name in ("completed", *FINISHED))
