"""What the tasks of every driver do, and the stamps that they leave: the only clock and the only count that is trusted.

A stamp is the task's number and CLOCK_MONOTONIC, which is one clock for all processes, appended to a file in one write.
Nothing but the standard library, so that it costs each library the same. `bodies.mjs` is the same for Node.
"""

import asyncio
import os
import struct
import time

URL = os.environ.get("PEERS_URL", "redis://127.0.0.1:6379")
STAMPS = os.environ.get("PEERS_STAMPS", os.devnull)
# Libraries that keep results only when asked are asked where results are measured, and nowhere else.
RESULTS = os.environ.get("PEERS_RESULTS") == "1"
CONCURRENCY = int(os.environ["PEERS_CONCURRENCY"]) if os.environ.get("PEERS_CONCURRENCY") else None
# redis-py 8 opens no more than a hundred connections unless its URL says so. Libraries that take one for each task
# stall at that, or lose tasks.
ROOMY_URL = f"{URL}?max_connections=2000" if (CONCURRENCY or 0) >= 100 else URL

NAP_S = 0.1
BURN_S = 0.005
RECORD = struct.Struct("<QQ")
ENDED = 1 << 63

_opened = (0, -1)


def stamp(number: int, ended: int = 0) -> None:
    """Say that the body of this task has begun, or ended."""
    global _opened
    process, descriptor = _opened
    if process != os.getpid():  # a forked child opens its own: its parent's may have been closed
        descriptor = os.open(STAMPS, os.O_WRONLY | os.O_APPEND)
        _opened = (os.getpid(), descriptor)
    os.write(descriptor, RECORD.pack(number | ended, time.monotonic_ns()))


def noop(number: int) -> None:
    stamp(number)


def echo(number: int) -> int:
    stamp(number)
    return number


def nap(number: int) -> None:
    """What waits for I/O, on a thread."""
    stamp(number)
    time.sleep(NAP_S)
    stamp(number, ENDED)


def burn(number: int) -> None:
    """What computes: until its thread has used this much CPU time."""
    stamp(number)
    until = time.thread_time() + BURN_S
    while time.thread_time() < until:
        for _ in range(200):
            pass
    stamp(number, ENDED)


async def noop_async(number: int) -> None:
    stamp(number)


async def echo_async(number: int) -> int:
    stamp(number)
    return number


async def nap_async(number: int) -> None:
    """What waits for I/O, on an event loop."""
    stamp(number)
    await asyncio.sleep(NAP_S)
    stamp(number, ENDED)
