"""The command line on a large queue: how long each command takes, and how long it keeps the server from others.

`python -m bench.million` fills a server of its own with a million queued and a million scheduled tasks, prints a table
and stops the server. `empty` is the same command on an empty queue: mostly the start of an interpreter. `longest` is
the longest entry in the server's SLOWLOG, `long` how many there are of more than 10 ms.
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import time
from statistics import median
from typing import NamedTuple

from bench.__main__ import start_server
from bench.programs import ROOT
from bench.server import BASE, Server

_APP = "bench.jobs:app"
_CHUNK = 20_000
_DEAD, _SCHEDULES = 1_000, 500
_LATER_S = 86_400
# As many as a call of purge removes.
_PORTION = 100
# Less is no obstacle to anybody.
_SLOW_US = 200
_LONG_US = 10_000
_ENTRIES = 100_000
_COMMANDS = [
    f"status {_APP}",
    f"top {_APP} --once",
    f"doctor {_APP}",
    f"dlq list {_APP}",
    f"dlq list {_APP} --error nothing-like-that",
    f"schedule list {_APP}",
    f"enqueue {_APP} noop",
    f"task show {_APP} queued",
    f"task show {_APP} scheduled",
    f"pause {_APP} --task noop",
    f"resume {_APP} --task noop",
    f"pause {_APP}",
    f"resume {_APP}",
    f"task abort {_APP} queued",
    f"task abort {_APP} scheduled",
    f"migrate status {_APP}",
]
# These read or remove everything, in portions.
_WHOLE = [
    f"fsck {_APP}",
    f"purge {_APP} --lane default --yes",
    f"purge {_APP} --scheduled --yes",
]


class Took(NamedTuple):
    """One run of a command."""

    seconds: float
    longest_us: int
    longest: str
    long: int
    said: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000, metavar="N", help="queued, and as many scheduled")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs; medians are shown (default: 3)")
    parser.add_argument("--whole", action="store_true", help="also those that read or remove everything")
    parser.add_argument("--server", metavar="PATH", help="redis-server or valkey-server; default: the embedded one")
    parser.add_argument("--tcp", action="store_true", help="loopback TCP instead of a unix socket")
    arguments = parser.parse_args()
    with start_server(arguments) as server:
        server.command("CONFIG", "SET", "slowlog-log-slower-than", _SLOW_US)
        server.command("CONFIG", "SET", "slowlog-max-len", _ENTRIES)
        os.environ["ARDIQ_REDIS_URL"] = server.url
        empty = {command: _median(server, command, arguments.repeat) for command in _COMMANDS}
        server.clear()
        asyncio.run(_fill(arguments.tasks))
        print(f"{server.description}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; ", end="")
        print(f"{arguments.tasks:,} queued, {arguments.tasks:,} scheduled, {_DEAD:,} dead, {_SCHEDULES} schedules")
        print(f"{'command':50} {'s':>7} {'empty, s':>8} {'longest, ms':>11} {'long':>4}  of")
        for command in _COMMANDS:
            _show(command, _median(server, command, arguments.repeat), empty[command])
        for command in _WHOLE if arguments.whole else ():
            took = _run(server, command)
            _show(command, took)
            print(f"    {took.said}")
        if arguments.whole:
            took = _plain(server, arguments.tasks)
            _show(f"no Ardiq: {arguments.tasks:,} of a sorted set removed", took)


async def _fill(n: int) -> None:
    from bench.jobs import app, fail, noop

    logging.getLogger("ardiq").setLevel(logging.CRITICAL)
    await app.enqueue_many(fail.prepare() for _ in range(_DEAD))
    app.burst = True
    await app.run()
    for number in range(_SCHEDULES):
        await app.schedules.put(f"schedule-{number}", "noop", every=_LATER_S)
    await noop.options(task_id="queued").enqueue()
    later = noop.options(delay_ms=_LATER_S * 1000)
    await noop.options(task_id="scheduled", delay_ms=_LATER_S * 1000).enqueue()
    for first in range(0, n - 1, _CHUNK):
        count = min(_CHUNK, n - 1 - first)
        await app.enqueue_many(noop.prepare() for _ in range(count))
        await app.enqueue_many(later.prepare() for _ in range(count))


def _run(server: Server, command: str) -> Took:
    server.command("SLOWLOG", "RESET")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ardiq", *command.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    seconds = time.perf_counter() - started
    if done.returncode > 1:
        raise SystemExit(f"ardiq {command} failed:\n{done.stdout.decode()}")
    *_, said = done.stdout.decode().splitlines() or [""]
    return _longest(server, seconds, said)


def _plain(server: Server, members: int) -> Took:
    """What the server alone needs to empty a place: it shrinks its tables in a single command now and then."""
    server.clear()
    for first in range(0, members, _CHUNK):
        chunk = range(first, min(first + _CHUNK, members))
        server.command("ZADD", BASE + "plain", *(word for member in chunk for word in (member, f"task-{member}")))
    server.command("SLOWLOG", "RESET")
    started = time.perf_counter()
    for first in range(0, members, _PORTION):
        last = min(first + _PORTION, members)
        server.command("ZREM", BASE + "plain", *(f"task-{member}" for member in range(first, last)))
    return _longest(server, time.perf_counter() - started)


def _longest(server: Server, seconds: float, said: str = "") -> Took:
    entries = [entry for entry in server.command("SLOWLOG", "GET", _ENTRIES) if entry[3][0] != "SLOWLOG"]
    # The client's words are those of the command: FCALL and the function's name, mostly.
    longest = max(entries, key=lambda entry: entry[2], default=(0, 0, 0, []))
    words = [word.replace(BASE, "") for word in longest[3][:2]]
    long = sum(entry[2] > _LONG_US for entry in entries)
    return Took(seconds, longest[2], " ".join(words), long, said)


def _median(server: Server, command: str, repeat: int) -> Took:
    """The medians of the time, and of the longest that each run kept the server: a busy machine does so, too."""
    runs = [_run(server, command) for _ in range(repeat)]
    usual = sorted(runs, key=lambda run: run.longest_us)[(repeat - 1) // 2]
    return usual._replace(seconds=median(run.seconds for run in runs))


def _show(command: str, took: Took, empty: Took | None = None) -> None:
    empty_s = "" if empty is None else f"{empty.seconds:.2f}"
    longest = f"{took.longest_us / 1000:.1f}" if took.longest_us else f"< {_SLOW_US / 1000:g}"
    print(f"{command:50} {took.seconds:7.2f} {empty_s:>8} {longest:>11} {took.long:4}  {took.longest}", flush=True)


if __name__ == "__main__":
    main()
