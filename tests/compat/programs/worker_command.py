"""`ardiq run`: its options, how it ends, and what it writes where."""

import asyncio
import signal
import subprocess
import sys
import time

from observed import see
from shop.jobs import add, dies, fails, slow

SHOP, AWAY = "shop.jobs:app", "shop.jobs:away"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

STARTING, STOPPED = "worker starting worker_id=", "worker stopped worker_id="


def tells(name, told, *texts):
    for text in texts:
        see(f"{name}: tells {text!r}", text in told)


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "ardiq", "run", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(name, worker, within_s=30):
    """Sees how it ended; gives what it logged."""
    try:
        out, err = worker.communicate(timeout=within_s)
        code = worker.returncode
    except subprocess.TimeoutExpired:
        worker.kill()
        out, err = worker.communicate()
        code = "goes on"
    see(f"{name}: exit", code)
    see(f"{name}: stdout", "text" if out.strip() else "nothing")
    return err


async def run_one(name, *words):
    job, failing = await add.enqueue(1, 2), await fails.enqueue("no")
    told = ended(name, start(*words))
    see(f"{name}: it ran", [await job.status(), await failing.status()])
    see(f"{name}: levels", [level for level in LEVELS if level in told])
    tells(name, told, "task started", "task succeeded", "task failed", STARTING, STOPPED, "reason=burst", "╭")
    tells(name, told, "supervisor starting workers=2", "supervisor stopped workers=2 code=0")


async def until_running(job):
    for _ in range(300):
        if await job.status() == "running":
            return
        await asyncio.sleep(0.1)


async def stopped(name, *words, number=signal.SIGTERM, times=1):
    job = await slow.enqueue(2 if times == 1 else 60)
    worker = start(SHOP, *words)
    await until_running(job)
    worker.send_signal(number)
    for _ in range(1, times):
        time.sleep(1.5)  # what comes within a second is the same request
        worker.send_signal(number)
    told = ended(name, worker)
    tells(name, told, "worker stopping worker_id=", STOPPED, "reason=signal", "worker forced to exit worker_id=")
    see(f"{name}: task", await job.status())
    await job.abort()
    worker = start(SHOP, "-b")
    worker.communicate(timeout=30)


async def main():
    in_burst, waits = start(AWAY, "-b"), start(AWAY)
    for words in ("-b", "--burst", "-b -q", "-b -v", "-v -q --burst", "-bvq", "-b -w 1"):
        await run_one(words, SHOP, *words.split())
    await run_one("options first", "--quiet", "--burst", SHOP)
    await run_one("two workers", SHOP, "-b", "-w", "2")
    await run_one("two quiet workers", SHOP, "-bq", "--workers", "2")
    for words in (("-w", "0"), ("-w", "x"), ("-w", "-1"), ("--workers",), ("--nothing",), ("-b", "another")):
        ended(" ".join(words), start(SHOP, *words))
    for target in ("no.such:app", "shop.jobs:nothing", "shop.jobs"):
        ended(target, start("-b", target))
    await stopped("SIGTERM")
    await stopped("SIGINT", number=signal.SIGINT)
    await stopped("two workers, SIGTERM", "-w", "2")
    await stopped("SIGTERM twice", times=2)
    ended("no server, burst", in_burst, within_s=60)
    ended("no server", waits, within_s=1)
    await dies.enqueue()
    ended("dies, of two", start(SHOP, "-w", "2"), within_s=12)


asyncio.run(main())
