"""Limits at work: a polite crawler, a partner that answers 429, and a tenant with ten tasks beside one with 100,000.

Run it with `make demo-limits`. It takes half a minute, needs no network, and exits with 1 if a limit was exceeded. What
a user of Ardiq writes is in polite.py; sites.py plays the hosts and the partner. This starts a private server and two
worker processes, lets things happen, watches every attempt, and shows what it sees.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the rest is imported
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polite import app, bill, crawl, database, host, order, partner, tenant
from rich.live import Live
from rich.table import Table
from sites import HOSTS, Partner, sites
from stage import console, present, private_server, show_lines, type_in, workers

from ardiq import ExecutionContext, Limit, LimitInfo, PreparedTask, Rate

# What watches: every attempt tells of its beginning and its end.

if "DEMO_REPORTS" in os.environ:
    reports = os.open(os.environ["DEMO_REPORTS"], os.O_WRONLY)


@app.middleware
async def tell(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
    """Which buckets an attempt runs under and when the server started it. One pipe for all keeps the order."""
    key = f"{BASE}task:{context.task_id}"
    buckets, started_at = app.context.server.core.command(["HMGET", key, "buckets", "started_at"])
    os.write(reports, b"+ %s %s\n" % (buckets, started_at))
    try:
        return await call_next()
    finally:
        os.write(reports, b"- %s\n" % buckets)


class Bucket:
    """What was seen of a limit, or of one key of it."""

    def __init__(self, limit: Limit, key: str = "", *lines: str) -> None:
        self.limit, self.name = limit, f"{limit.name}({key})" if key else str(limit.name)
        self.lines = lines or (self.name,)
        self.running = self.largest = 0
        self.started: list[int] = []
        self.excess = ""
        self.concurrency = limit.concurrency or 0
        # What holds from when on.
        self.rates: list[tuple[int, Rate]] = [(0, limit.rate)] if limit.rate else []

    def change(self, concurrency: int, rate: Rate) -> None:
        """What holds from now on."""
        self.concurrency = concurrency
        self.rates.append((now_ms(), rate))

    def start(self, at: int) -> None:
        """An attempt has begun, which the server had started at that time."""
        self.started.append(at)
        self.running += 1
        self.largest = max(self.largest, self.running)
        if self.running > self.concurrency:
            self.excess = f"{self.running} ran at once"

    def exceeded(self) -> str:
        """What was too much, or nothing. From each start to each later one: the burst, and what the time allows."""
        least, burst = 0.0, max((rate.burst for _, rate in self.rates), default=0)
        for number, at in enumerate(sorted(self.started) if burst else ()):
            ahead = number - self._allowed(at)
            least = min(least, ahead) if number else ahead
            if ahead - least + 1 > burst + 0.001:
                return f"{ahead - least + 1 - burst:.1f} starts too many"
        return self.excess

    def _allowed(self, at: int) -> float:
        ends = [*(since for since, _ in self.rates[1:]), at]
        spans = zip(self.rates, ends, strict=True)
        return sum(rate.starts * max(0, min(end, at) - since) / rate.per_ms for (since, rate), end in spans)

    def per_second(self) -> int:
        """How many started in the last second."""
        since = now_ms() - 1000
        return sum(at > since for at in self.started[-5000:])

    def waiting(self) -> int:
        """How many tasks wait in its lines."""
        return sum(app.context.server.core.command(["LLEN", f"{BASE}line:default:{line}"]) for line in self.lines)


BASE = "ardiq:{limits}:"
TENANTS = {name: f"database,tenant({name})" for name in ("huge", "tiny")}
BUCKETS = {
    bucket.name: bucket
    for bucket in (
        *(Bucket(host, name) for name in HOSTS),
        Bucket(partner),
        *(Bucket(tenant, name, line) for name, line in TENANTS.items()),
        Bucket(database, "", *TENANTS.values()),
    )
}


def now_ms() -> int:
    """The time, which the server on this machine has, too."""
    return int(1000 * time.time())


@contextmanager
def watching() -> Iterator[Path]:
    """Reads what the attempts tell, for the length of the block."""

    def read() -> None:
        with open(pipe, closefd=False) as lines:
            for line in lines:
                sign, _, told = line.strip().partition(" ")
                if sign == "end":
                    return
                names, _, at = told.partition(" ")
                for name in names.split(","):
                    if sign == "+":
                        BUCKETS[name].start(int(at))
                    else:
                        BUCKETS[name].running -= 1

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "reports"
        os.mkfifo(path)
        pipe = os.open(path, os.O_RDWR)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield path
        finally:
            os.write(pipe, b"end\n")
            reader.join()
            os.close(pipe)


# What shows it.

WORKERS = 2
HEADER = ("limit", "at once", "rate", "running", "largest", "starts/s", "waiting", "")


async def rows() -> list[list[str]]:
    """The limits as the server has them, and what was seen of them."""
    listed, used = await app.limits.list(), await app.limits.buckets()
    found = {limit.name if limit.key is None else f"{limit.name}({limit.key})": limit for limit in (*listed, *used)}
    return [row(bucket, found.get(bucket.name) or found.get(str(bucket.limit.name))) for bucket in BUCKETS.values()]


def row(bucket: Bucket, limit: LimitInfo | None) -> list[str]:
    """What is shown of one."""
    rate = limit.rate if limit else None
    closed_s = (limit.opens_at - now_ms()) / 1000 if limit and limit.opens_at else 0
    return [
        bucket.name,
        str(limit.concurrency) if limit else "",
        f"{1000 * rate.starts / rate.per_ms:g}/s" if rate else "",
        str(bucket.running),
        str(bucket.largest),
        f"{bucket.per_second():,}",
        f"{bucket.waiting():,}",
        bucket.exceeded() or (f"opens in {closed_s:.0f} s" if closed_s > 0.5 else "holds"),
    ]


def table(shown: list[list[str]], passed_s: float) -> Table:
    """The rows for a terminal."""
    drawn = Table(title=f"{passed_s:4.1f} s", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in HEADER:
        drawn.add_column(name, justify="right" if name in HEADER[1:-1] else "left")
    for each in shown:
        drawn.add_row(*each, style="" if each[-1] == "holds" else "yellow" if "opens" in each[-1] else "bold red")
    return drawn


async def show(seconds: float) -> None:
    """The table, redrawn in place; where there is no terminal, lines now and then."""
    began = time.monotonic()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            while (passed_s := time.monotonic() - began) < seconds:
                live.update(table(await rows(), passed_s))
                await asyncio.sleep(0.25)
        return
    while (passed_s := time.monotonic() - began) < seconds:
        for each in await rows():
            told = ", ".join(f"{name} {cell}" for name, cell in zip(HEADER[1:-1], each[1:-1], strict=True) if cell)
            console.print(f"{passed_s:4.1f} s  {each[0]}: {told}; {each[-1]}", soft_wrap=True)
        await asyncio.sleep(seconds / 6)


# What happens.


def seed(tasks: int, seconds: float) -> list[PreparedTask[None]]:
    """Work for longer than that."""
    return [
        *(crawl.prepare(f"http://{name}/0") for name in HOSTS),
        *(order.prepare(number) for number in range(int(20 * seconds))),
        *(bill.prepare("huge", number) for number in range(tasks)),
    ]


async def partner_has_enough(seconds: float) -> None:
    """Twice, for a tenth of the time."""
    for _ in range(2):
        await asyncio.sleep(seconds * 0.2)
        console.print(f"The partner answers 429 for {seconds / 10:.1f} seconds.")
        Partner.close(seconds / 10)
        await asyncio.sleep(seconds * 0.2)


async def operator_lets_more_start(seconds: float) -> None:
    """At run time, for one host."""
    await asyncio.sleep(seconds * 0.5)
    name = f"host({HOSTS[0]})"
    BUCKETS[name].change(4, Rate(15, per=1))
    await type_in("limits", "put", "limits:app", name, "--concurrency", "4", "--rate", "15")


async def tiny_tenant(seconds: float) -> list[int]:
    """Ten tasks, one now and then: how long each waited, in milliseconds."""
    waits = []
    for number in range(10):
        await asyncio.sleep(seconds * 0.08)
        result = await (await bill.enqueue("tiny", number)).result(timeout=60)
        if result:
            waits.append(result.start - result.enqueue_time)
    return waits


def report(waits: list[int]) -> bool:
    """What came of it, and whether all limits held."""
    huge = BUCKETS["tenant(huge)"]
    console.print(
        f"\nTenant tiny waited {', '.join(map(str, waits))} ms for its {len(waits)} tasks, beside {huge.waiting():,} "
        f"tasks of tenant huge that wait; {len(huge.started):,} of these ran.",
        f"The partner served {Partner.served:,} orders and answered {sum(Partner.refused)} times with 429, "
        f"at most {max(Partner.refused)} times in a row: what was under way.",
        sep="\n",
    )
    exceeded = [f"{bucket.name}: {text}" for bucket in BUCKETS.values() if (text := bucket.exceeded())]
    if max(Partner.refused) > BUCKETS["partner"].concurrency:
        exceeded.append(f"partner: {max(Partner.refused)} calls were refused before all others waited")
    attempts = sum(len(bucket.started) for bucket in BUCKETS.values() if bucket.name != "database")
    verdict = "\n".join(exceeded) or f"No limit was exceeded by any of {attempts:,} attempts."
    console.print(f"[bold {'red' if exceeded else 'green'}]{verdict}[/]")
    return not exceeded


async def demonstrate(tasks: int, seconds: float) -> bool:
    """All of it; whether the limits held."""
    began = time.monotonic()
    jobs = await app.enqueue_many(seed(tasks, seconds))
    console.print(f"{len(jobs):,} tasks enqueued in {time.monotonic() - began:.1f} s")
    with watching() as reports, sites() as address:
        with workers("limits:app", "--workers", str(WORKERS), DEMO_REPORTS=str(reports), DEMO_SITES=address):
            while await app.inspect.workers_alive() < WORKERS:
                await asyncio.sleep(0.05)
            async with asyncio.TaskGroup() as group:
                group.create_task(show(seconds))
                group.create_task(partner_has_enough(seconds))
                group.create_task(operator_lets_more_start(seconds))
                tiny = group.create_task(tiny_tenant(seconds))
        return report(tiny.result())


def main() -> int:
    """The whole demonstration."""
    parser = argparse.ArgumentParser(description="Limits at work.")
    parser.add_argument("--seconds", type=float, default=30, help="how long it takes (default: 30)")
    parser.add_argument("--tasks", type=int, default=100_000, help="of the large tenant (default: 100000)")
    options = parser.parse_args()
    url = private_server()
    show_lines(
        f"ardiq limits list {url} --queue limits",
        f"redis-cli -s {url.partition('://')[2]} HGETALL '{BASE}busy'",
    )
    return 0 if asyncio.run(demonstrate(options.tasks, options.seconds)) else 1


if __name__ == "__main__":
    present(main)
