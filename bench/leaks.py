"""Run millions of tasks through one worker and see whether it, its producer or the server grows.

Memory, descriptors, threads and connections are looked at a hundred times on the way; every tenth time all connections
are dropped. Exit code 1 when something grew: memory by more than 4 MiB from the second quarter to the last, descriptors
or connections at all, threads beyond what the concurrency allows.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ardiq import Ardiq, PreparedTask, Retry, current_task
from ardiq.embedded import Server

_URL = os.environ.get("ARDIQ_REDIS_URL", "redis://localhost")
_LOOKS = 100
_CONCURRENCY = 20
# One for each slot; before Python 3.12 one that waits for each child process, of which a slot has one at most; the
# interpreter's own, the core's, that which looks for stalls; the rest for good measure.
_THREADS = 2 * _CONCURRENCY + 5
_DROP_EVERY = 10
_BATCH = 1000
_AHEAD = 20
_GROWTH_KB = 4096
_SETTLE_S = 3.0

app = Ardiq(_URL, "leaks", concurrency=_CONCURRENCY, result_ttl_ms=500, dead_limit=100, priorities=["low", "high"])


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.task
def add_on_a_thread(a: int, b: int) -> int:
    return a + b


@app.task(executor="process")
def add_in_a_process(a: int, b: int) -> int:
    return a + b


@app.task(max_retries=0)
async def fail(text: str) -> None:
    raise ValueError(text)


@app.task
async def again() -> None:
    if (task := current_task()) is not None and task.tries == 1:
        raise Retry(delay_ms=1)


@app.task(max_retries=0, timeout=0.01)
async def too_long() -> None:
    await asyncio.sleep(1)


@app.task(unique=True)
async def told() -> None:
    if (task := current_task()) is not None:
        task.progress(0.5, "half")
        task.log("a line")


def batch(number: int) -> Iterable[PreparedTask]:
    """A thousand tasks of all kinds."""
    for at in range(_BATCH - 66):
        yield add.options(priority="high" if at % 3 else "low").prepare(number, at)
    for at in range(40):
        yield add_on_a_thread.prepare(number, at)
    for at in range(10):
        yield fail.prepare(f"{number} {at}")
        yield again.prepare()
    for _ in range(2):
        yield too_long.prepare()
        yield told.prepare()
    yield add_in_a_process.prepare(number, 1)
    yield add.options(delay_ms=50).prepare(number, 2)


class Look(NamedTuple):
    """How large everything was at one moment."""

    tasks: int
    worker_kb: int
    producer_kb: int
    server_kb: int
    descriptors: int
    threads: int
    connections: int


def own_kb(pid: int) -> int:
    """Memory that is the process's alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+)", text, re.MULTILINE))


class Soak:
    """One worker process, and this process as its producer."""

    def __init__(self, server: Server, log: Path) -> None:
        self.core = app.context.server.core
        with log.open("wb") as stderr:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "ardiq", "run", "-q", "bench.leaks:app", "--health", "127.0.0.1:0"],
                env={**os.environ, "ARDIQ_REDIS_URL": server.url},
                stderr=stderr,
            )

    async def run(self, tasks: int) -> list[Look]:
        """So many tasks; what was seen on the way."""
        looks: list[Look] = []
        every = max(1, tasks // _BATCH // _LOOKS)
        for number in range(1, tasks // _BATCH + 1):
            while await app.queue_size() > _AHEAD * _BATCH:
                await asyncio.sleep(0.01)
            await app.enqueue_many(batch(number))
            if number % every == 0:
                looks.append(self.look(number * _BATCH))
                if len(looks) % _DROP_EVERY == 0:
                    self.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        while await app.queue_size() > 0:
            await asyncio.sleep(0.1)
        await asyncio.sleep(_SETTLE_S)
        return [*looks, self.look(tasks)]

    def look(self, tasks: int) -> Look:
        pid = self.worker.pid
        memory = dict(re.findall(r"^(\w+):(\d+)\r?$", self.core.command(["INFO", "memory"]).decode(), re.MULTILINE))
        status = Path(f"/proc/{pid}/status").read_text()
        threads = int(re.findall(r"^Threads:\s+(\d+)", status, re.MULTILINE)[0])
        clients = self.core.command(["CLIENT", "LIST", "TYPE", "normal"]).decode().count("\n")
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        server_kb = int(memory["used_memory"]) // 1024
        return Look(tasks, own_kb(pid), own_kb(os.getpid()), server_kb, descriptors, threads, clients)

    def end(self) -> int:
        self.worker.send_signal(signal.SIGTERM)
        return self.worker.wait(60)


def verdict(looks: list[Look]) -> list[str]:
    """What grew."""
    quarter = len(looks) // 4
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    grown = []
    for name in ("worker_kb", "producer_kb", "server_kb"):
        before, after = (max(getattr(look, name) for look in part) for part in (early, late))
        if after > before + _GROWTH_KB:
            grown.append(f"{name} from {before:,} to {after:,}")
    threads = max(look.threads for look in looks)
    if threads > _THREADS:
        grown.append(f"threads to {threads}")
    for name in ("descriptors", "connections"):
        before, after = (max(getattr(look, name) for look in part) for part in (early, late))
        if after > before + 2:  # two connections may just be made anew
            grown.append(f"{name} from {before} to {after}")
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.leaks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000, metavar="N", help="default: 1,000,000")
    tasks = parser.parse_args().tasks
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        os.environ["ARDIQ_REDIS_URL"] = server.url
        from bench import leaks  # anew, with the server's address, and as the worker imports it

        soak = leaks.Soak(server, Path(folder) / "log")
        looks = asyncio.run(soak.run(tasks))
        code = soak.end()
    print("    ".join(Look._fields))
    for look in [*looks[:: max(1, len(looks) // 10)], looks[-1]]:
        print("    ".join(f"{value:>{len(name)},}" for name, value in look._asdict().items()))
    seconds = time.monotonic() - started
    grown = verdict(looks)
    what = "grew: " + "; ".join(grown) if grown else "nothing grew"
    print(f"{tasks:,} tasks in {seconds:.0f} s, exit code of the worker {code}: {what}")
    raise SystemExit(1 if grown or code else 0)


if __name__ == "__main__":
    main()
