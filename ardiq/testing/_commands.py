"""The commands of a server that the Lua library uses, answered as Redis does.

The fixtures compare it with real servers; see `tests/scripts/emulated`.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from ._keys import MOST_INTEGER, Keys, Refused, Set, SortedSet, Status, integer, number, shown

T = TypeVar("T")

Command = Callable[..., Any]
COMMANDS: dict[bytes, Command] = {}


def command(function: Command) -> Command:
    """Register a command under the function's name."""
    COMMANDS[function.__name__.upper().encode()] = function
    return function


# Any key


@command
def time(keys: Keys) -> list[bytes]:
    seconds, micros = divmod(keys.now_us, 1_000_000)
    return [b"%d" % seconds, b"%d" % micros]


@command
def exists(keys: Keys, *names: bytes) -> int:
    return sum(name in keys.held for name in names)


@command
def delete(keys: Keys, *names: bytes) -> int:
    return sum([keys.drop(name) for name in names])


COMMANDS[b"DEL"] = COMMANDS.pop(b"DELETE")


@command
def type_(keys: Keys, name: bytes) -> Status:
    return Status(_TYPES[type(keys.held.get(name))])


COMMANDS[b"TYPE"] = COMMANDS.pop(b"TYPE_")


@command
def pexpire(keys: Keys, name: bytes, ttl_ms: bytes, unit_ms: int = 1) -> int:
    lasts_ms = integer(ttl_ms) * unit_ms
    if name not in keys.held:
        return 0
    if lasts_ms <= 0:
        keys.drop(name)
    else:
        keys.expire(name, keys.now_us // 1000 + lasts_ms)
    return 1


@command
def expire(keys: Keys, name: bytes, ttl_s: bytes) -> int:
    return int(pexpire(keys, name, ttl_s, 1000))


@command
def pttl(keys: Keys, name: bytes) -> int:
    if name not in keys.held:
        return -2
    at_ms = keys.ends_at.get(name)
    return -1 if at_ms is None else max(0, at_ms - keys.now_us // 1000)


@command
def scan(keys: Keys, cursor: bytes, *options: bytes) -> list[Any]:
    """All on one page. Of patterns, only those that end with a star and have none before."""
    named = _named(options)
    start = named.get(b"MATCH", b"*")[:-1].replace(b"\\", b"")
    return [b"0", [name for name in keys.held if name.startswith(start)]]


# Hashes


@command
def hset(keys: Keys, name: bytes, *pairs: bytes) -> int:
    hash_ = keys.write(name, dict)
    before = len(hash_)
    hash_.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(hash_) - before


@command
def hsetnx(keys: Keys, name: bytes, field: bytes, value: bytes) -> int:
    hash_ = keys.write(name, dict)
    if field in hash_:
        return 0
    hash_[field] = value
    return 1


@command
def hget(keys: Keys, name: bytes, field: bytes) -> bytes | None:
    return (keys.read(name, dict) or {}).get(field)


@command
def hmget(keys: Keys, name: bytes, *fields: bytes) -> list[bytes | None]:
    hash_ = keys.read(name, dict) or {}
    return [hash_.get(field) for field in fields]


@command
def hgetall(keys: Keys, name: bytes) -> list[bytes]:
    return _flat((keys.read(name, dict) or {}).items())


@command
def hkeys(keys: Keys, name: bytes) -> list[bytes]:
    return list(keys.read(name, dict) or ())


@command
def hlen(keys: Keys, name: bytes) -> int:
    return len(keys.read(name, dict) or ())


@command
def hexists(keys: Keys, name: bytes, field: bytes) -> int:
    return int(field in (keys.read(name, dict) or ()))


@command
def hdel(keys: Keys, name: bytes, *fields: bytes) -> int:
    hash_ = keys.read(name, dict)
    if hash_ is None:
        return 0
    removed = sum([hash_.pop(field, None) is not None for field in fields])
    keys.tidy(name)
    return removed


@command
def hincrby(keys: Keys, name: bytes, field: bytes, by: bytes) -> int:
    increment, hash_ = integer(by), keys.read(name, dict) or {}
    value = integer(hash_.get(field, b"0"), "ERR hash value is not an integer") + increment
    if abs(value) >= MOST_INTEGER:
        raise Refused("ERR increment or decrement would overflow")
    keys.write(name, dict)[field] = b"%d" % value
    return value


@command
def hscan(keys: Keys, name: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    return [b"0", hgetall(keys, name)]


# Lists


@command
def llen(keys: Keys, name: bytes) -> int:
    return len(keys.read(name, list) or ())


@command
def rpush(keys: Keys, name: bytes, *items: bytes) -> int:
    held = keys.write(name, list)
    held.extend(items)
    return len(held)


@command
def lpush(keys: Keys, name: bytes, *items: bytes) -> int:
    held = keys.write(name, list)
    held[:0] = items[::-1]
    return len(held)


@command
def lpop(keys: Keys, name: bytes, count: bytes | None = None) -> bytes | list[bytes] | None:
    held = keys.read(name, list)
    if held is None:
        return None
    taken = held[: 1 if count is None else integer(count)]
    del held[: len(taken)]
    keys.tidy(name)
    return taken[0] if count is None else taken


@command
def lrange(keys: Keys, name: bytes, first: bytes, last: bytes) -> list[bytes]:
    return _slice(keys.read(name, list) or [], first, last)


@command
def ltrim(keys: Keys, name: bytes, first: bytes, last: bytes) -> Status:
    held = keys.read(name, list)
    if held is not None:
        held[:] = _slice(held, first, last)
        keys.tidy(name)
    return Status(b"OK")


@command
def lpos(keys: Keys, name: bytes, item: bytes, *options: bytes) -> int | None:
    held, named = keys.read(name, list) or [], _named(options)
    rank, most = integer(named.get(b"RANK", b"1")), integer(named.get(b"MAXLEN", b"0")) or len(held)
    places = range(len(held)) if rank > 0 else range(len(held) - 1, -1, -1)
    found = (at for at in places[:most] if held[at] == item)
    return next(islice(found, abs(rank) - 1, None), None)


# Sets


@command
def sadd(keys: Keys, name: bytes, *members: bytes) -> int:
    held = keys.write(name, Set)
    before = len(held)
    held.update(dict.fromkeys(members))
    return len(held) - before


@command
def srem(keys: Keys, name: bytes, *members: bytes) -> int:
    held = keys.read(name, Set)
    if held is None:
        return 0
    before = len(held)
    for member in members:
        held.pop(member, None)
    keys.tidy(name)
    return before - len(held)


@command
def scard(keys: Keys, name: bytes) -> int:
    return len(keys.read(name, Set) or ())


@command
def sismember(keys: Keys, name: bytes, member: bytes) -> int:
    return int(member in (keys.read(name, Set) or ()))


@command
def smismember(keys: Keys, name: bytes, *members: bytes) -> list[int]:
    held = keys.read(name, Set) or ()
    return [int(member in held) for member in members]


@command
def smembers(keys: Keys, name: bytes) -> list[bytes]:
    return list(keys.read(name, Set) or ())


@command
def srandmember(keys: Keys, name: bytes, count: bytes) -> list[bytes]:
    held, most = smembers(keys, name), integer(count)
    return held if len(held) <= most else random.sample(held, most)


@command
def sscan(keys: Keys, name: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    return [b"0", smembers(keys, name)]


# Sorted sets


@command
def zadd(keys: Keys, name: bytes, *rest: bytes) -> int | bytes | None:
    flags = set(_leading(rest, (b"CH", b"XX", b"INCR")))
    pairs = rest[len(flags) :]
    scored = [(number(pairs[i]), pairs[i + 1]) for i in range(0, len(pairs), 2)]
    held = keys.read(name, SortedSet)
    if held is None and b"XX" in flags:
        return None if b"INCR" in flags else 0
    added, changed, held = 0, 0, keys.write(name, SortedSet)
    for score, member in scored:
        before = held.score(member)
        if before is None and b"XX" in flags:
            continue
        if b"INCR" in flags and before is not None:
            score += before
        if before != score:
            held.put(member, score)
            changed += before is not None
        added += before is None
    if b"INCR" in flags:
        new = held.score(scored[0][1])
        return None if new is None else shown(new)
    return added + changed if b"CH" in flags else added


@command
def zrem(keys: Keys, name: bytes, *members: bytes) -> int:
    held = keys.read(name, SortedSet)
    if held is None:
        return 0
    removed = sum([held.remove(member) for member in members])
    keys.tidy(name)
    return removed


@command
def zremrangebyrank(keys: Keys, name: bytes, first: bytes, last: bytes) -> int:
    held = keys.read(name, SortedSet)
    return 0 if held is None else zrem(keys, name, *(place[2] for place in _slice(held.order, first, last)))


@command
def zcard(keys: Keys, name: bytes) -> int:
    return len(keys.read(name, SortedSet) or ())


@command
def zscore(keys: Keys, name: bytes, member: bytes) -> bytes | None:
    held = keys.read(name, SortedSet)
    score = None if held is None else held.score(member)
    return None if score is None else shown(score)


@command
def zrank(keys: Keys, name: bytes, member: bytes) -> int | None:
    held = keys.read(name, SortedSet)
    return None if held is None else held.rank_of(member)


@command
def zrevrank(keys: Keys, name: bytes, member: bytes) -> int | None:
    rank = zrank(keys, name, member)
    return None if rank is None else zcard(keys, name) - 1 - rank


@command
def zcount(keys: Keys, name: bytes, least: bytes, most: bytes) -> int:
    held = keys.read(name, SortedSet) or SortedSet()
    return len(held.between(least, most))


@command
def zrange(keys: Keys, name: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    held = keys.read(name, SortedSet) or SortedSet()
    return _rows(_slice(held.order, first, last), options)


@command
def zrevrange(keys: Keys, name: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
    held = keys.read(name, SortedSet) or SortedSet()
    return _rows(_slice(held.order[::-1], first, last), options)


@command
def zrangebyscore(keys: Keys, name: bytes, least: bytes, most: bytes, *options: bytes) -> list[bytes]:
    held = keys.read(name, SortedSet) or SortedSet()
    return _rows(held.between(least, most), options)


@command
def zrevrangebyscore(keys: Keys, name: bytes, most: bytes, least: bytes, *options: bytes) -> list[bytes]:
    held = keys.read(name, SortedSet) or SortedSet()
    return _rows(held.between(least, most)[::-1], options)


@command
def zscan(keys: Keys, name: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    return [b"0", zrange(keys, name, b"0", b"-1", b"WITHSCORES")]


# What commands are given


_TYPES = {type(None): b"none", bytes: b"string", dict: b"hash", list: b"list", Set: b"set", SortedSet: b"zset"}


def _slice(items: list[T], first: bytes, last: bytes) -> list[T]:
    start, end = integer(first), integer(last)
    start = max(0, start + len(items)) if start < 0 else start
    return items[start : (end + len(items) if end < 0 else end) + 1]


def _leading(words: tuple[bytes, ...], known: tuple[bytes, ...]) -> Iterator[bytes]:
    for word in words:
        if word not in known:
            return
        yield word


def _named(options: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return dict(zip(options[::2], options[1::2], strict=True))


def _rows(rows: list[tuple[float, Any, bytes]], options: tuple[bytes, ...]) -> list[bytes]:
    if b"LIMIT" in options:
        at = options.index(b"LIMIT")
        offset, count = integer(options[at + 1]), integer(options[at + 2])
        rows = [] if offset < 0 else rows[offset:] if count < 0 else rows[offset : offset + count]
    if b"WITHSCORES" in options:
        return _flat((member, shown(score)) for score, _, member in rows)
    return [member for *_, member in rows]


def _flat(pairs: Any) -> list[bytes]:
    return [part for pair in pairs for part in pair]
