"""The physical floor: what the same steps of a task cost the server as plain commands, in pipelines, without any logic.

A task is a hash; its id waits in a list or a sorted set, and is in the hash of its worker while it runs. That is the
least a queue with records, results and leases writes. The client formats the commands before the clock starts.
"""

import os
from collections.abc import Callable, Iterator

from bench.server import Server

_PIPELINE = 100
DUE = "1764486400000"
"""A time, as sorted sets have it."""
_ARGS, _NOW = "[]", "1764400000000"

Command = tuple[str, ...]


def _record(key: str, state: str) -> Command:
    fields = ("name", "noop", "args", _ARGS, "state", state, "lane", "default", "enqueued_at", _NOW, "call", key[-12:])
    return ("HSET", key, *fields)


def enqueued(key: str, task: str) -> list[Command]:
    return [_record(key, "queued"), ("LPUSH", "plain:ready", task)]


def scheduled(key: str, task: str) -> list[Command]:
    return [_record(key, "scheduled"), ("ZADD", "plain:scheduled", DUE, task)]


def promoted(key: str, task: str) -> list[Command]:
    return [("ZREM", "plain:scheduled", task), ("LPUSH", "plain:ready", task), *ran(key, task)]


def ran(key: str, task: str) -> list[Command]:
    """Claimed and completed."""
    return [
        ("RPOP", "plain:ready"),
        ("HMGET", key, "name", "args", "headers", "lane", "tries", "enqueued_at"),
        ("HSET", key, "state", "running", "started_at", _NOW, "worker", "w1"),
        ("HSET", "plain:running", task, "1"),
        ("HDEL", "plain:running", task),
        ("HSET", key, "state", "complete", "finished_at", _NOW, "result", "null"),
        ("PEXPIRE", key, "300000"),
    ]


def cost(server: Server, steps: Callable[[str, str], list[Command]], tasks: list[str]) -> float:
    """Send the commands of these steps for each of these tasks: µs of the server's CPU a task."""
    pipelines = list(_pipelines(steps, tasks))
    before = server.cpu_us()
    for packed, replies in pipelines:
        server.pipelined(packed, replies)
    return (server.cpu_us() - before) / len(tasks)


def ids(n: int) -> list[str]:
    """As long as Ardiq's."""
    return [os.urandom(10).hex() for _ in range(n)]


def _pipelines(steps: Callable[[str, str], list[Command]], tasks: list[str]) -> Iterator[tuple[bytes, int]]:
    """Bytes, and how many replies they get."""
    for first in range(0, len(tasks), _PIPELINE):
        words = [each for task in tasks[first : first + _PIPELINE] for each in steps(f"plain:task:{task}", task)]
        yield _packed(words), len(words)


def _packed(commands: list[Command]) -> bytes:
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in map(str.encode, words))
        for words in commands
    )
