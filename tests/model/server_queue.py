"""The same queue on a real server: calls by their names, what they leave behind, and time that nobody waits for."""

from __future__ import annotations

import json
import time
from math import inf
from pathlib import Path
from typing import Any

from model_queue import FINISHED, Refused, Task
from model_repair import Model

from ardiq import ArdiqError
from ardiq._core import Core

PROTOCOL = json.loads((Path(__file__).parents[2] / "lua" / "protocol.json").read_text())
CLAIM_WIDTH = 10
DEFAULTS = {
    "info": {}, "generation": 1, "abandoned_threads": 0, "stalled_ms": 0, "run_ms": 0, "delay_ms": 0, "max_age_ms": 0,
    "result": "null", "value": "null", "error": "no", "reason": "later", "traceback": "", "codec": "", "details": "",
    "kwargs": "", "headers": "", "options": "", "hand_off": 0,
}  # fmt: skip

# Every key of the queue at one moment: name, content with scores, time to live. Messages are taken out.
SNAPSHOT = """
if redis.replicate_commands then redis.replicate_commands() end
local dump = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local name, kind, content = string.sub(key, #ARGV[1] + 1), redis.call('TYPE', key).ok, nil
  if kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'hash' then content = redis.call('HGETALL', key)
  elseif kind == 'set' then content = redis.call('SMEMBERS', key)
  elseif kind == 'string' then content = { redis.call('GET', key) } end
  dump[#dump + 1] = { name, content or {}, redis.call('PTTL', key) }
  if string.sub(name, 1, 8) == 'mailbox:' then redis.call('DEL', key) end
end
local clock = redis.call('TIME')
return { clock[1] * 1000, dump }
"""

# All times that the queue holds become earlier, so that time passes at once. Not those within an id: `nightly:1000`.
AGE = """
if redis.replicate_commands then redis.replicate_commands() end
local clock, by = redis.call('TIME'), tonumber(ARGV[2])
local now = clock[1] * 1000
local function aged(text)
  return (string.gsub(text, '()(%d+)', function(at, digits)
    local time = #digits == 13 and tonumber(digits)
    local is_time = time and math.abs(time - now) < 3456000000 and not string.find(string.sub(text, 1, at - 1), '%w:$')
    return is_time and string.format('%.0f', time - by) or nil
  end))
end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, ttl = redis.call('TYPE', key).ok, redis.call('PTTL', key)
  if kind == 'hash' then
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      local value = aged(fields[i + 1])
      if value ~= fields[i + 1] then redis.call('HSET', key, fields[i], value) end
    end
  elseif kind == 'zset' then
    local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #members, 2 do redis.call('ZADD', key, aged(members[i + 1]), members[i]) end
  end
  if kind == 'string' then redis.call('SET', key, aged(redis.call('GET', key)), 'KEEPTTL') end
  if ttl > 0 then
    if ttl > by then redis.call('PEXPIRE', key, string.format('%.0f', ttl - by)) else redis.call('DEL', key) end
  end
end
"""


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(arguments: dict[str, Any], name: str) -> str:
    return plain(arguments[name] if name in arguments else DEFAULTS[name])


def pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


class ServerQueue:
    """One queue on the server, and the calls made so far, as a fixture has them."""

    def __init__(self, core: Core, base: str) -> None:
        self.core, self.base = core, base
        self.steps: list[list[Any]] = []
        self._tokens: dict[str, list[int]] = {}
        self._last_ms = 0

    def call(self, function: str, **arguments: Any) -> Any:
        """The reply in the words of the model; `Refused` where the server refuses."""
        name = function.rstrip("_")
        # No two calls share a millisecond: their order is told by it.
        while int(time.time() * 1000) <= self._last_ms:
            time.sleep(0.0002)
        step = [name, self._named(arguments)]
        try:
            reply = self.core.call(name, list(self._flat(name, arguments)))
        except ArdiqError as error:
            self.steps.append(["refused", step])
            raise Refused(type(error).__name__) from None
        finally:
            self._last_ms = int(time.time() * 1000)
        self.steps.append(step)
        return self._told(name, reply)

    def break_(self, command: list[str]) -> None:
        """A command of somebody else's."""
        self.core.command([word.replace("$key:", self.base) for word in command])
        self.steps.append(["redis", command])

    def pass_time(self, ms: int) -> None:
        self.core.command(["EVAL", AGE, 0, self.base, ms])
        self.steps.append(["wait", ms])

    def _flat(self, name: str, arguments: dict[str, Any]) -> Any:
        function = PROTOCOL["functions"][name]
        for argument in function["args"]:
            yield _value(arguments, argument["name"])
        if "tail" in function:
            for record in arguments[function["tail"]["name"]]:
                for argument in function["tail"]["record"]:
                    yield _value(record, argument["name"])

    def _told(self, name: str, reply: Any) -> Any:
        if not isinstance(reply, list):
            return None if name == "join" else reply if isinstance(reply, int) else text(reply)
        if name in ("step", "claim"):
            return self._claims(name, [text(value) for value in reply])
        flat: list[Any] = [value if isinstance(value, int) else text(value) for value in reply]
        if name == "join":
            return None
        if name in ("await", "watch"):
            return flat[:2]
        if name == "heartbeat":
            return sorted((id, int(token)) for id, token in pairs(flat[2:]).items())
        return flat

    def _claims(self, name: str, flat: list[str]) -> Any:
        at = 1 if name == "claim" else 3 + 3 * int(flat[2])
        claims = [(flat[i], int(flat[i + 1]), int(flat[i + 8])) for i in range(at, len(flat), CLAIM_WIDTH)]
        for id, token, _ in claims:
            known = self._tokens.setdefault(id, [])
            if known[-1:] != [token]:
                known.append(token)
        if name == "claim":
            return claims
        refusals = [(flat[i], int(flat[i + 1]), flat[i + 2]) for i in range(3, at, 3)]
        return {"refusals": refusals, "claims": claims}

    # The calls so far, to be kept.

    def fixture(self, why: str) -> str:
        """The newest call and what led to it, as a file below `fixtures/`."""
        given: list[list[Any]] = []
        for step in self.steps[:-1]:
            # There is a function of that name, too.
            if _passes(step) and given and _passes(given[-1]):
                given[-1] = ["wait", given[-1][1] + step[1]]
            elif step[0] != "refused" and (given or not _passes(step)):
                given.append(step)
        when = self.steps[-1][1] if self.steps[-1][0] == "refused" else self.steps[-1]
        lines = ",\n".join(f"    {json.dumps(step)}" for step in given)
        return f'{{\n  "why": {json.dumps(why)},\n  "given": [\n{lines}\n  ],\n  "when": {json.dumps(when)}\n}}'

    def _named(self, arguments: dict[str, Any]) -> dict[str, Any]:
        def named(record: dict[str, Any]) -> dict[str, Any]:
            token = record.get("token")
            known = self._tokens.get(record.get("id", ""), [])
            if token in known:
                newest = known[-1] == token
                record = {
                    **record,
                    "token": f"$token:{record['id']}" + ("" if newest else f"@{known.index(token) + 1}"),
                }
            return {name: [named(each) for each in value] if name in TAILS else value for name, value in record.items()}

        return named(arguments)

    # What is there.

    def view(self) -> dict[str, Any]:
        """The queue's keys in the words of `view_of`."""
        keys: dict[str, list[str]] = {}
        ttls: dict[str, float] = {}
        now, dump = self.core.command(["EVAL", SNAPSHOT, 0, self.base])
        for name, content, ttl in dump:
            keys[text(name)], ttls[text(name)] = [text(value) for value in content], inf if ttl == -1 else ttl

        def of(kind: str) -> dict[str, list[str]]:
            return {name.partition(":")[2]: keys[name] for name in keys if name.partition(":")[0] == kind}

        definitions = {name: json.loads(value) for name, value in pairs(keys.get("schedules", [])).items()}
        due = pairs(keys.get("schedule_due", []))
        return {
            "tasks": {id: _record(pairs(flat), Left(ttls[f"task:{id}"]), now) for id, flat in of("task").items()},
            "ready": of("ready"),
            "marked": {lane: set(ids) for lane, ids in of("tombstones").items()},
            "scheduled": keys.get("scheduled", [])[::2],
            "quarantined": keys.get("quarantined", [])[::2],
            "dead": keys.get("dead", [])[::2],
            "held": {id: flat[::2] for id, flat in of("held").items()},
            "workers": {
                name: {id: int(token.partition("/")[0]) for id, token in pairs(keys.get(f"running:{name}", [])).items()}
                for name in keys.get("workers", [])[::2]
            },
            "loads": {name: int(load) for name, load in pairs(keys.get("loads", [])).items()},
            "times": {
                place: {id: Left(float(at) - now) for id, at in pairs(keys.get(place, [])).items()}
                for place in ("workers", "scheduled", "dead")
            },
            "pauses": {id: "resuming" in json.loads(rule) for id, rule in pairs(keys.get("pauses", [])).items()},
            "schedules": {
                name: (
                    int(due[name]),
                    "paused" in each,
                    each.get("last_id", ""),
                    each.get("last_outcome", {}).get("state", ""),
                )
                for name, each in definitions.items()
            },
            "code": _code(pairs(keys.get("meta", []))),
            "wake": of("wake"),
            "logs": {id: (Left(ttls[f"log:{id}"]), lines) for id, lines in of("log").items()},
            "streams": {
                id: (Left(ttls[f"stream:{id}"]), list(map(_chunk, entries))) for id, entries in of("stream").items()
            },
            "waiters": {id: (Left(ttls[f"waiters:{id}"]), set(names)) for id, names in of("waiters").items()},
            "mail": by_task(
                [(box, *told) for box, letters in of("mailbox").items() for letter in letters for told in _told(letter)]
            ),
            "idle": {lane: flat[::2] for lane, flat in of("idle").items()},
            "keys": pairs(keys.get("unique", [])),
            "windows": {key: (Left(ttls[f"window:{key}"]), id) for key, [id] in of("window").items()},
            "counters": {name: int(count) for name, count in pairs(keys.get("stats", [])).items()},
        }


TAILS = {function["tail"]["name"] for function in PROTOCOL["functions"].values() if "tail" in function}


def _passes(step: list[Any]) -> bool:
    """Whether it lets time pass."""
    return step[0] == "wait" and isinstance(step[1], int)


def _code(meta: dict[str, str]) -> tuple[Any, ...]:
    """The version whose schedules count, these, and the versions in the order in which they came."""
    names, versions = (json.loads(meta.get(name, "[]")) for name in ("declared_names", "declared_seen"))
    return meta.get("declared_version", ""), names, [version for version, *_ in versions]


class Left:
    """How long something is kept still, in ms. About the same is equal: a busy machine changes nothing."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Left) and (self.ms == other.ms or abs(self.ms - other.ms) < 15_000)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"for {self.ms} ms"


def _record(fields: dict[str, str], ttl: Left, now: int) -> tuple[Any, ...]:
    texts = tuple(fields.get(name, "") for name in ("name", "state", "lane", "worker", "pause", "progress"))
    numbers = tuple(int(fields.get(name, 0)) for name in ("tries", "lost", "abort_requested"))
    notes = {name.removeprefix("note:"): value for name, value in fields.items() if name.startswith("note:")}
    expires = fields["state"] not in FINISHED and "expires_at" in fields
    watched = Left(max(int(fields.get("watched_until", 0)) - now, 0))
    call = [json.loads(fields.get("args") or "[]"), json.loads(fields.get("kwargs") or "{}")]
    rule = (fields.get("unique", ""), fields.get("replaced_by", ""))
    return (*texts, *numbers, notes, expires, watched, ttl, call, rule, "streamed" in fields)


def _record_of(task: Task, ttl: Left, now: int) -> tuple[Any, ...]:
    texts = (task.name, task.state, task.lane, task.worker, task.pause, task.progress)
    numbers = (task.tries, task.lost, int(task.abort_requested))
    expires = task.state not in FINISHED and task.expires_at != inf
    watched = Left(max(task.watched_until - now, 0))
    call, rule = [task.args, task.kwargs], (task.unique, task.replaced_by)
    return (*texts, *numbers, task.notes, expires, watched, ttl, call, rule, task.streamed)


def _chunk(entry: str) -> tuple[int, int, int, int, str]:
    token, number, tries, total, _, chunk = entry.split(" ", 5)
    return int(token), int(number), int(tries), int(total), chunk


def _parts(letter: str) -> list[str]:
    """A run of netstrings."""
    parts = []
    while letter:
        length, _, rest = letter.partition(":")
        parts.append(rest[: int(length)])
        letter = rest[int(length) + 1 :]
    return parts


def _told(letter: str) -> list[list[str]]:
    """What a letter tells of each task."""
    kind, *parts = _parts(letter)
    if kind != "claimed":
        return [[kind, *parts]]
    return [[kind, *parts[at : at + 2]] for at in range(0, len(parts), CLAIM_WIDTH)]


def by_task(mail: list[tuple[str, ...]]) -> dict[tuple[str, str], list[tuple[str, ...]]]:
    """What each mailbox is told of each task, in order; of an outcome its state and tries."""
    told: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for box, kind, id, *rest in mail:
        told.setdefault((box, id), []).append((kind, *(rest[:2] if kind == "finished" else rest)))
    return told


def view_of(model: Model) -> dict[str, Any]:
    """Where the model has everything."""

    def by_coming(version: str) -> int:
        return model.versions[version].came_at

    def in_order(entries: dict[str, int]) -> list[str]:
        return sorted(entries, key=lambda id: (entries[id], id))

    def some(entries: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entries.items() if value}

    return {
        "tasks": {id: _record_of(task, Left(task.gone_at - model.now), model.now) for id, task in model.tasks.items()},
        "ready": some(model.ready),
        "marked": some(model.marked),
        "scheduled": in_order(model.scheduled),
        "quarantined": in_order(model.quarantined),
        "dead": in_order(model.dead),
        "held": some(model.held),
        "workers": {name: dict(worker.running) for name, worker in model.workers.items()},
        "loads": {name: len(worker.running) for name, worker in model.workers.items()},
        "times": {
            "workers": {name: Left(worker.lease_until - model.now) for name, worker in model.workers.items()},
            "scheduled": {id: Left(at - model.now) for id, at in model.scheduled.items()},
            "dead": {id: Left(at - model.now) for id, at in model.dead.items()},
        },
        "pauses": {id: pause.resuming for id, pause in model.pauses.items()},
        "schedules": {
            name: (each.due_at, each.paused, each.last_id, each.last_outcome) for name, each in model.schedules.items()
        },
        "code": (model.declared_version, model.declared_names, sorted(model.versions, key=by_coming)),
        "logs": {id: (Left(log.gone_at - model.now), log.lines) for id, log in model.logs.items()},
        "streams": {id: (Left(each.gone_at - model.now), each.chunks) for id, each in model.streams.items()},
        "waiters": {
            id: (Left(waiters.gone_at - model.now), waiters.names)
            for id, waiters in model.waiters.items()
            if waiters.names
        },
        "mail": by_task(model.mail),
        "idle": {lane: in_order(idle) for lane, idle in model.idle.items() if idle},
        "keys": model.keys,
        "windows": {key: (Left(each.gone_at - model.now), each.id) for key, each in model.windows.items()},
        "counters": some(model.counters),
    }
