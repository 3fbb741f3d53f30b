"""Schedules that the code declares: what a deploy, and a clock that is wrong, do to them."""

import asyncio
import json
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, Script, eventually, is_sound, working

from ardiq import Ardiq
from ardiq._execution.scheduler import Scheduler
from ardiq.embedded import Server


async def test_a_deploy_changes_and_removes_what_code_declared(make_app: Callable[..., Ardiq]) -> None:
    before, after = make_app(queue_name="deploy"), make_app(queue_name="deploy")
    before.cron("0 3 * * *", name="stays")(lambda: None)
    before.cron("0 4 * * *", name="goes")(lambda: None)
    await before.schedules.put("by-hand", "stays", every=3600)
    async with working(before):
        await eventually(lambda: names_are(before, {"stays", "goes", "by-hand"}))
    first = {schedule.name: schedule for schedule in await before.schedules.list()}
    after.cron("0 5 * * *", name="stays", tz="Europe/Berlin")(lambda: None)
    async with working(after):
        await eventually(lambda: names_are(after, {"stays", "by-hand"}))
        await eventually(lambda: is_spec(after, "stays", "0 5 * * *"))
    changed = {schedule.name: schedule for schedule in await after.schedules.list()}
    assert (first["stays"].tz, changed["stays"].tz) == (None, "Europe/Berlin")
    assert changed["by-hand"] == first["by-hand"]
    assert (changed["by-hand"].source, changed["stays"].source) == ("runtime", "code")


async def names_are(app: Ardiq, names: set[str]) -> bool:
    return {schedule.name for schedule in await app.schedules.list()} == names


async def is_spec(app: Ardiq, name: str, spec: str) -> bool:
    return any(schedule.name == name and schedule.spec == spec for schedule in await app.schedules.list())


def meta(app: Ardiq, *words: str) -> Any:
    return app.context.server.core.command([words[0], f"ardiq:{{{app.queue_name}}}:meta", *words[1:]])


def let_time_pass(app: Ardiq, version: str, seconds: int) -> None:
    """As if the code of that version had been seen so long ago."""
    seen = json.loads(meta(app, "HGET", "declared_seen"))
    for entry in seen:
        if entry[0] == version:
            entry[2] -= seconds * 1000
    meta(app, "HSET", "declared_seen", json.dumps(seen))


def version_in_force(app: Ardiq) -> str:
    found: bytes = meta(app, "HGET", "declared_version")
    return found.decode()


async def spec_of(app: Ardiq) -> dict[str, str | None]:
    return {schedule.name: schedule.spec for schedule in await app.schedules.list()}


async def declare(scheduler: Scheduler) -> str | None:
    await scheduler.declare()
    return scheduler._declared


async def test_older_code_does_not_fight_newer_code(make_app: Callable[..., Ardiq]) -> None:
    """A worker of older code that is restarted, as one with `--max-tasks` is, leaves alone what newer code declared."""
    old, new = make_app(queue_name="side-by-side"), make_app(queue_name="side-by-side")
    for app, spec in ((old, "0 3 * * *"), (new, "0 5 * * *")):
        app.cron(spec, name="changed")(lambda: None)
    old.cron("@daily", name="goes")(lambda: None)
    new.cron("@daily", name="comes")(lambda: None)
    expected = {"changed": "0 5 * * *", "comes": "@daily"}
    running = Scheduler(old.context)
    assert await declare(running) == "declared"
    old_version = version_in_force(old)
    assert await declare(Scheduler(new.context)) == "declared"
    new_version = version_in_force(new)
    assert await spec_of(new) == expected
    for scheduler in (running, Scheduler(old.context)):
        assert await declare(scheduler) == "superseded"
        assert await spec_of(new) == expected
    # Another worker of the newer code has nothing to change.
    await new.schedules.pause("comes")
    assert await declare(Scheduler(new.context)) == "declared"
    assert {s.name: s.paused for s in await new.schedules.list()} == {"changed": False, "comes": True}
    # A rollback: when no newer code has been seen for a minute, the older counts, from a worker that runs already too.
    let_time_pass(old, new_version, 50)
    assert await declare(running) == "superseded"
    let_time_pass(old, new_version, 20)
    assert await declare(running) == "declared"
    assert version_in_force(old) == old_version
    assert await spec_of(old) == {"changed": "0 3 * * *", "goes": "@daily"}
    # The newer code is deployed once more: it came later and counts again.
    assert await declare(Scheduler(new.context)) == "declared"
    assert await spec_of(new) == expected
    assert is_sound(new)


async def test_what_cannot_be_declared_keeps_nothing_from_firing(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    fired = asyncio.Event()
    app.task(name="tick")(fired.set)
    app.cron("@daily", name="of-code")(lambda: None)
    await app.schedules.put("ticks", "tick", every=0.05)
    app.context.crons["of-code"]["unheard_of"] = 1  # the library refuses it
    async with working(app):
        await asyncio.wait_for(fired.wait(), SOON_S)
    assert [record.message for record in caplog.records if "cannot be declared" in record.message]


async def test_two_versions_that_both_run(make_app: Callable[..., Ardiq]) -> None:
    old, new, restarted = (make_app(queue_name="both-run") for _ in range(3))
    old.cron("@daily", name="goes")(lambda: None)
    new.cron("@daily", name="comes")(lambda: None)
    restarted.cron("@daily", name="goes")(lambda: None)
    async with working(old):
        await eventually(lambda: names_are(old, {"goes"}))
        old_version = version_in_force(old)
        async with working(new):
            await eventually(lambda: names_are(new, {"comes"}))
            before = last_seen(old, old_version)
            async with working(restarted):
                await eventually(lambda: last_seen(old, old_version) > before)
                assert await names_are(new, {"comes"})


def last_seen(app: Ardiq, version: str) -> int:
    seen = {entry[0]: entry[2] for entry in json.loads(meta(app, "HGET", "declared_seen"))}
    return int(seen[version])


async def test_code_without_schedules_writes_nothing(app: Ardiq) -> None:
    scheduler = Scheduler(app.context)
    assert await declare(scheduler) == "nothing"
    assert scheduler._declare_at == float("inf")
    assert meta(app, "EXISTS") == 0


async def test_newer_code_that_declares_none(make_app: Callable[..., Ardiq]) -> None:
    old, new = make_app(queue_name="none-left"), make_app(queue_name="none-left")
    old.cron("@daily", name="goes")(lambda: None)
    assert await declare(Scheduler(old.context)) == "declared"
    assert await declare(Scheduler(new.context)) == "declared"
    assert await spec_of(new) == {}
    assert await declare(Scheduler(old.context)) == "superseded"


async def test_a_thousand_are_declared_and_no_more(app: Ardiq) -> None:
    for number in range(1000):
        app.cron("0 3 * * *", name=f"c{number}")(lambda: None)
    with pytest.raises(ValueError, match=r"up to 1,000 schedules in code; make others with schedules\.put"):
        app.cron("0 3 * * *", name="one too many")(lambda: None)
    assert (len(app.crons), "one too many" in app.tasks) == (1000, False)
    assert await declare(Scheduler(app.context)) == "declared"
    assert len(await app.schedules.list()) == 1000


async def test_declaring_takes_two_calls_however_many_there_are(app: Ardiq) -> None:
    for number in range(50):
        app.cron("@daily", name=f"s{number}")(lambda: None)
    calls: list[str] = []
    channel = app.context.channel()
    ask = channel.ask

    def counted(call: Any) -> Any:
        calls.append(call.function)
        return ask(call)

    channel.ask = counted  # type: ignore[method-assign]
    await declare(Scheduler(app.context))
    assert calls == ["schedules_due", "schedule_declare"]
    assert len(await spec_of(app)) == 50


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { return atol(getenv("CLOCK_SHIFT_S")); }

int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, at);
    if (clock == CLOCK_REALTIME) at->tv_sec += shift();
    return answer;
}

int gettimeofday(struct timeval *at, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int answer = real(at, zone);
    at->tv_sec += shift();
    return answer;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""

WORKER = """
import asyncio, os, sys, time

url, queue, library, shift = sys.argv[1:]
if "LD_PRELOAD" not in os.environ:
    os.environ |= {"LD_PRELOAD": library, "CLOCK_SHIFT_S": shift}
    os.execv(sys.executable, [sys.executable, *sys.argv])
print(time.time(), flush=True)
from ardiq import Ardiq, current_task

app = Ardiq(url, queue)

@app.cron(every=0.5)
async def tick():
    print(current_task().task_id, flush=True)

asyncio.run(app.run())
"""


def test_the_clock_of_the_server_decides(server: Server, run_script: Callable[..., Script], tmp_path: Path) -> None:
    """Two workers whose clocks are ten hours apart fire each occurrence once, when it is due by the server's."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shifts = (-5 * 3600, 5 * 3600)
    workers = [run_script(WORKER, server.url, "wrong-clocks", str(library), str(shift)) for shift in shifts]
    for worker, shift in zip(workers, shifts, strict=True):
        assert abs(float(worker.line()) - time.time() - shift) < 600
    began, seen = time.time(), []
    while len(seen) < 6:
        readable, _, _ = select.select([worker.process.stdout for worker in workers], [], [], SOON_S)
        assert readable
        seen += [worker.line() for worker in workers if worker.process.stdout in readable]
    due = [int(line.rpartition(":")[2]) for line in seen]
    assert len(set(due)) == len(due)
    assert all((began - 60) * 1000 <= at <= time.time() * 1000 for at in due)
