"""The command line, but for `ardiq run`: exit codes, what goes where, the keys of `--json`, a piped `dlq list`."""

import asyncio
import json
import os
import re
import subprocess
import sys

from observed import drain, see, working
from shop.jobs import add, app, busy, fails, holds

SHOP, BUSY, UNUSED, AWAY = (f"shop.jobs:{name}" for name in ("app", "busy", "unused", "away"))
TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

# Of each list, what its first has.
STATUS = """queue lanes lanes.name lanes.waiting lanes.scheduled lanes.held lanes.next_scheduled running running.id
    running.name running.try crons crons.name crons.next crons.last workers workers.id workers.host workers.pid
    workers.version workers.started workers.concurrency workers.held gone dead now""".split()  # noqa: SIM905
DOCTOR = "ok checks checks.name checks.status checks.detail".split()  # noqa: SIM905


async def look(*words, name=None, typed=None, lines=False, **environment):
    """Runs a command; sees how it ended and what it wrote where."""
    name = name or " ".join(words) or "no command"
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "shop", *words],
        env={**os.environ, **environment},
        stdin=None if typed else subprocess.DEVNULL,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )
    see(f"{name}: exit", ended.returncode)
    # Those that failed within a millisecond come in any order.
    out = [re.sub(r"^d\d+ ", "ID ", TIMES.sub("TIME", line)) for line in ended.stdout.splitlines()]
    see(f"{name}: stdout", out if lines else "text" if ended.stdout.strip() else "nothing")
    see(f"{name}: stderr", "text" if ended.stderr.strip() else "nothing")
    return ended.stdout


def see_keys(name, text, keys, show=()):
    """Sees of what kind each value is, and of some what it is."""
    told = json.loads(text)
    for key in keys:
        value = told
        for part in key.split("."):
            value = value[0] if isinstance(value, list) and value else value
            value = value.get(part, "no such key") if isinstance(value, dict) else "nothing to look at"
        see(f"{name}: {key}", value if key in show or (isinstance(value, str) and value[:2] == "no") else type(value))
    return told


async def looking():
    """Commands that change nothing."""
    commands = [
        *((), ("nothing",), ("dlq",), ("dlq", "nothing", SHOP)),
        *(
            (*words.split(), "--help")
            for words in ("", "run", "status", "purge", "dlq", "dlq list", "dlq replay", "doctor")
        ),
        *(words.split() for words in ("status", "doctor", "purge", "dlq list", "dlq replay")),
        *((*words.split(), "no.such:app") for words in ("run -b", "status", "doctor", "purge -y", "dlq list")),
        *(("status", f"shop.jobs{attribute}") for attribute in (":nothing", "", ":not_an_app")),
        *(
            (*words.split(), AWAY)
            for words in ("status", "status --json", "doctor", "doctor --json", "purge -y", "dlq list")
        ),
        *((*words.split(), UNUSED) for words in ("status", "dlq list", "doctor", "purge", "purge -y")),
        *((words, SHOP) for words in ("status", "doctor")),
    ]
    for at in range(0, len(commands), 3):
        await asyncio.gather(*(look(*words) for words in commands[at : at + 3]))
    see_keys("doctor --json", await look("doctor", "--json", SHOP), DOCTOR)
    told = see_keys("status --json", await look("status", "--json", SHOP), STATUS, ("queue", "dead"))
    see("lanes of status --json", [[lane["name"], lane["waiting"], lane["scheduled"]] for lane in told["lanes"]])
    see("crons of status --json", [cron["name"] for cron in told["crons"]])
    see("next of crons", [cron["next"] % 86_400_000 for cron in told["crons"]])


async def at_work():
    """Of a queue whose worker runs a task."""
    job = await holds.options(task_id="held").enqueue()
    later = await holds.options(delay_ms=3_600_000).enqueue()
    async with working(busy):
        for _ in range(100):
            if await job.status() == "running":
                break
            await asyncio.sleep(0.1)
        see("runs", await job.status())
        told = see_keys("at work: status --json", await look("status", BUSY, "--json"), STATUS, ("queue",))
        see("at work: running", told["running"] and [told["running"][0].get(key) for key in ("id", "name", "try")])
        see("at work: id of worker", told["workers"][0]["id"])
        see("at work: lane", {key: told["lanes"][0][key] for key in ("name", "waiting", "held")})
        await look("status", BUSY)
        checks = see_keys("at work: doctor --json", await look("doctor", BUSY, "--json"), DOCTOR, ("ok",))
        names = [check["name"] for check in checks["checks"]]
        for name in ("redis", "version", "write", "lane default", "workers"):
            see(f"at work: check {name!r}", name in names)
        await job.abort()
    await later.abort()


async def letters():
    """The dead-letter queue."""
    for words in ((), ("-n", "1"), ("--limit", "1"), ("-n1",), ("--limit=2",), ("-n", "0"), ("-n", "-1"), ("-n", "x")):
        await look("dlq", "list", SHOP, *words, lines=True)
    await look("dlq", "list", "-n", "1", SHOP, lines=True)
    for action in ("replay", "delete"):
        await look("dlq", action, SHOP)
        await look("dlq", action, SHOP, "d0", "--all")
        await look("dlq", action, SHOP, "nothing")
    await look("dlq", "replay", SHOP, "d0", "d1", "nothing")
    await look("dlq", "delete", SHOP, "d2", "nothing")
    await look("dlq", "delete", SHOP, "d3", "d4")
    see("letters left", await app.dead_count())
    see("replayed", await app.status("d0"))
    await look("dlq", "list", SHOP, name="fifty of many", lines=True)
    await look("dlq", "replay", SHOP, "--all")
    await look("dlq", "replay", SHOP, "--all", "-y", name="replay all, agreed")
    await look("dlq", "delete", SHOP, "--all", name="delete none")
    see("letters at the end", await app.dead_count())


async def purging():
    """What waits, of a lane, of all, agreed to or not."""

    async def left(name):
        see(f"{name}: left", await app.queue_size())
        see(f"{name}: scheduled", [await app.status(each) for each in ("s0", "s1")])

    await look("purge", SHOP)
    await look("purge", SHOP, typed="y\n", name="purge, typed")
    await look("purge", SHOP, "--lane", "nothing", "-y")
    await left("at first")
    await look("purge", SHOP, "--lane", "high", "--yes")
    await left("purge of a lane")
    await look("purge", "-y", SHOP)
    await left("purge")
    await look("purge", SHOP, name="purge of nothing")
    see("dead after a purge", await app.dead_count())


async def main():
    for number in range(57):
        await fails.options(task_id=f"d{number}").enqueue("no\nnever")
    await drain(app)
    see("dead", await app.dead_count())
    await add.options(task_id="s0", priority="low", delay_ms=3_600_000).enqueue(1, 2)
    await add.options(task_id="s1", priority="high", delay_ms=3_600_000).enqueue(1, 2)
    for lane in ("low", "low", "high"):
        await add.options(priority=lane).enqueue(1, 2)
    await looking()
    await letters()
    await purging()
    await at_work()


asyncio.run(main())
