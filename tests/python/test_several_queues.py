"""One app on several queues, and one worker process that serves them with shares of its slots."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_sound, result_of

from ardiq import Ardiq, BrokerError, WrongType, current_task
from ardiq.cli import status
from ardiq.cli._output import Table
from ardiq.embedded import Server
from ardiq.testing import Clock, inline, on_server, worker

QUEUES = ["emails", "reports"]


def whereabouts() -> str:
    task = current_task()
    return task.queue if task is not None else "nowhere"


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    app = make_app(concurrency=4)
    app.queue("emails"), app.queue("reports")
    return app


def named(app: Ardiq, *shares: int) -> dict[str, int]:
    return dict(zip(QUEUES, shares, strict=True))


async def drain(app: Ardiq, queues: Any) -> None:
    app.burst = True
    async with asyncio.timeout(SOON_S):
        await app.run(queues)


async def stopped(app: Ardiq, run: "asyncio.Task[None]") -> None:
    app.stop()
    async with asyncio.timeout(SOON_S):
        await run


async def test_an_app_on_another_queue_shares_its_tasks_and_nothing_else(app: Ardiq) -> None:
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    emails = app.queue("emails")
    assert emails is app.queue("emails") is app.queue("reports").queue("emails")
    assert emails.queue(app.queue_name) is app
    assert (emails.queue_name, emails.tasks, emails.crons) == ("emails", ["add"], [])
    by_option = await add.options(queue="emails").enqueue(1, 2)
    by_name = await emails.send("add", 3, 4)
    many = await emails.enqueue_many([add.prepare(5, 6), add.options(queue="emails").prepare(7, 8)])
    assert [await job.status() for job in (by_option, by_name, *many)] == ["queued"] * 4
    assert (await app.queue_size(), await emails.queue_size()) == (0, 4)
    assert by_option.app is emails
    await drain(emails, None)
    assert [(await result_of(job)).value for job in (by_option, by_name, *many)] == [3, 7, 11, 15]
    assert await app.status(by_option.id) == "not_found"
    assert is_sound(emails)


async def test_blocking_calls_and_requests_go_to_the_queue_they_name(app: Ardiq) -> None:
    @app.task
    def where() -> str:
        return whereabouts()

    job = await asyncio.to_thread(where.options(queue="reports").enqueue_sync)
    run = asyncio.create_task(app.run(QUEUES))
    try:
        assert (await result_of(job)).value == "reports"
        assert await where.options(queue="emails").request(timeout=SOON_S) == "emails"
    finally:
        await stopped(app, run)


async def test_a_batch_for_one_queue_takes_no_call_for_another(app: Ardiq) -> None:
    task = app.ref("any")
    calls = [task.prepare(), task.options(queue="emails").prepare()]
    for other in (app, app.queue("reports")):
        with pytest.raises(ValueError, match=r"got a call for queue 'emails': pass it to app\.queue\('emails'\)"):
            await other.enqueue_many(calls)
        with pytest.raises(ValueError, match="got a call for queue 'emails'"):
            other.enqueue_many_sync(calls)
        assert await other.queue_size() == 0


async def test_a_task_knows_its_queue_wherever_it_runs(app: Ardiq) -> None:
    @app.task(name="async")
    async def in_loop() -> str:
        return whereabouts()

    @app.task(name="sync")
    def in_thread() -> str:
        return whereabouts()

    names = ["async", "sync"]
    jobs = [(queue, await app.queue(queue).send(name)) for queue in QUEUES for name in names]
    await drain(app, QUEUES)
    assert [((await result_of(job)).value, queue) for queue, job in jobs] == [
        (queue, queue) for queue in QUEUES for _ in names
    ]
    assert whereabouts() == "nowhere"


async def test_shares_hold_while_both_are_full_and_none_is_left_unused(app: Ardiq) -> None:
    running: Counter[str] = Counter()
    together: list[tuple[int, int]] = []

    @app.task
    async def work() -> None:
        queue = whereabouts()
        running[queue] += 1
        together.append((running["emails"], running["reports"]))
        await asyncio.sleep(0.01)
        running[queue] -= 1

    for queue in QUEUES:
        await app.queue(queue).enqueue_many(work.prepare() for _ in range(150))
    await drain(app, named(app, 3, 1))
    assert len(together) == 300
    assert max(emails + reports for emails, reports in together) == 4, "no more run than there are slots"
    # Emails have three quarters and are done first; what they do not need any more goes to the reports.
    assert max(reports for _, reports in together) == 4
    both_full = together[40:140]
    assert [max(running) for running in zip(*both_full, strict=True)] == [3, 1]


async def test_an_idle_queue_gets_its_slot_when_one_is_free(app: Ardiq) -> None:
    """The other one took all slots with long tasks, and has more of them: the next slot is not for those."""
    go_on: dict[str, asyncio.Event] = {str(number): asyncio.Event() for number in range(20)}
    started: list[str] = []

    @app.task
    async def long(number: str) -> None:
        started.append(number)
        await go_on[number].wait()

    @app.task
    async def short() -> None:
        started.append("short")

    run = asyncio.create_task(app.run(QUEUES))
    try:
        await app.queue("emails").enqueue_many(long.prepare(number) for number in go_on)
        await eventually(lambda: len(started) == 4)
        job = await app.queue("reports").send("short")
        await asyncio.sleep(0.1)
        assert started == ["0", "1", "2", "3"]
        go_on["0"].set()
        await result_of(job)
        assert started[4] == "short"
        await eventually(lambda: len(started) == 6)  # and the slot goes back
    finally:
        for event in go_on.values():
            event.set()
        await stopped(app, run)


async def test_sync_tasks_of_several_queues_share_the_slots(app: Ardiq) -> None:
    running: Counter[str] = Counter()
    most: list[int] = []

    @app.task
    def work() -> None:
        import time

        queue = whereabouts()
        running[queue] += 1
        most.append(running.total())
        time.sleep(0.005)
        running[queue] -= 1

    for queue in QUEUES:
        await app.queue(queue).enqueue_many(work.prepare() for _ in range(60))
    await drain(app, QUEUES)
    assert len(most) == 120
    assert max(most) <= 4


@pytest.mark.parametrize("hops", [1, 7])
async def test_burst_ends_when_no_queue_has_anything_left(app: Ardiq, hops: int) -> None:
    """A task of one queue leaves work for the other, which was idle by then, and so on."""
    seen: list[str] = []

    @app.task
    async def pass_on(left: int) -> None:
        seen.append(whereabouts())
        if left:
            await asyncio.sleep(0.02)
            other = QUEUES[whereabouts() == "emails"]
            await pass_on.options(queue=other).enqueue(left - 1)

    await pass_on.options(queue="emails").enqueue(hops)
    await drain(app, QUEUES)
    assert seen == [QUEUES[number % 2] for number in range(hops + 1)]


async def test_counts_are_kept_by_queue_and_in_all(app: Ardiq) -> None:
    @app.task
    async def work() -> None: ...

    await app.queue("emails").send("work")
    await app.queue("reports").enqueue_many([work.prepare(), work.prepare()])
    await drain(app, QUEUES)
    assert [row.succeeded for row in app.metrics()] == [3]
    assert [app.queue(queue).metrics()[0].succeeded for queue in QUEUES] == [1, 2]
    assert app.metrics()[0].run.count == 3


async def test_schedules_of_each_queue_fire_and_the_apps_own_stay_in_its_queue(app: Ardiq) -> None:
    seen: Counter[str] = Counter()

    @app.task
    async def tick() -> None:
        seen[whereabouts()] += 1

    @app.cron(every=0.1)
    async def own() -> None:
        seen[f"own {whereabouts()}"] += 1

    await app.queue("emails").schedules.put("tick", "tick", every=0.1)
    run = asyncio.create_task(app.run([app.queue_name, "emails"]))
    try:
        await eventually(lambda: seen["emails"] > 1 and seen[f"own {app.queue_name}"] > 1)
    finally:
        await stopped(app, run)
    assert set(seen) == {"emails", f"own {app.queue_name}"}
    assert [schedule.name for schedule in await app.queue("emails").schedules.list()] == ["tick"]


async def test_when_the_run_is_cancelled_every_queue_gets_its_tasks_back(app: Ardiq) -> None:
    started: list[str] = []

    @app.task
    async def long() -> None:
        started.append(whereabouts())
        await asyncio.sleep(600)

    jobs = [await app.queue(queue).send("long") for queue in QUEUES]
    run = asyncio.create_task(app.run(QUEUES))
    await eventually(lambda: len(started) == 2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [await job.status() for job in jobs] == ["queued", "queued"]
    infos = [await job.info() for job in jobs]
    assert [info and info.tries for info in infos] == [0, 0]


async def test_a_queue_that_cannot_be_served_ends_the_run_and_the_others_get_their_tasks_back(app: Ardiq) -> None:
    @app.task
    async def long() -> None:
        await asyncio.sleep(600)

    emails, reports = map(app.queue, QUEUES)
    job = await emails.send("long")
    key = f"{reports.context.server.base}workers"
    reports.context.server.core.command(["SET", key, "something else"])
    try:
        with pytest.raises(WrongType, match=key):
            async with asyncio.timeout(SOON_S):
                await app.run(QUEUES)
    finally:
        reports.context.server.core.command(["DEL", key])
    info = await job.info()
    assert info is not None
    assert (info.status, info.tries) == ("queued", 0)


@pytest.mark.parametrize(
    ("queues", "error", "says"),
    [
        ("emails", TypeError, "queues must be names or a dict of names and shares, not str"),
        (7, TypeError, "queues must be names or a dict of names and shares, not int"),
        ([], ValueError, "queues must name at least one queue"),
        (["a", "a"], ValueError, r"queues must not repeat a queue: \['a', 'a'\]"),
        (["a}"], ValueError, "must not contain braces"),
        ({"a": 0}, ValueError, r"queues\['a'\] must be at least 1"),
        ({"a": 1.5}, TypeError, r"queues\['a'\] must be an int"),
        (list("abcde"), ValueError, "5 queues need at least as many slots, but concurrency is 4"),
    ],
)
async def test_impossible_queues_are_refused(app: Ardiq, queues: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        await app.run(queues)
    assert not app.run_state.is_running


def test_an_impossible_name_is_refused(app: Ardiq) -> None:
    for name in ("", "a{b", "a\nb"):
        with pytest.raises(ValueError, match="queue_name"):
            app.queue(name)
        with pytest.raises(ValueError, match="queue_name"):
            app.ref("any").options(queue=name)
    with pytest.raises(TypeError, match="queue_name must be a str"):
        app.queue(7)  # type: ignore[arg-type]


async def test_what_is_hung_into_an_app_on_another_queue_is_the_apps(app: Ardiq) -> None:
    emails, seen = app.queue("emails"), list[Any]()

    @emails.lifespan
    async def shared() -> Any:
        yield {"color": "green"}

    @emails.task
    async def look() -> None:
        seen.append((whereabouts(), app.state.color))

    assert (await look.enqueue()).app is emails
    await drain(app, QUEUES)
    assert seen == [("emails", "green")]
    with pytest.raises(RuntimeError, match="@cron is for the app's own queue; on 'emails' use"):
        emails.cron(every=1)


async def test_a_stop_before_there_are_workers_is_heard(app: Ardiq) -> None:
    @app.lifespan
    async def hasty() -> Any:
        app.stop()
        yield

    async with asyncio.timeout(SOON_S):
        await app.run(QUEUES)


async def test_inline_and_virtual_time_know_queues() -> None:
    lonely = Ardiq("redis://localhost:1")
    emails = lonely.queue("emails")
    seen: list[str] = []

    @lonely.task
    async def note() -> None:
        seen.append(whereabouts())

    elsewhere = note.options(queue="emails")
    async with inline(lonely):
        await elsewhere.enqueue()
        await note.enqueue()
        await emails.send("note")
    async with inline(emails):
        await note.enqueue()
    clock = Clock()
    async with inline(lonely, clock=clock):
        await note.options(queue="emails", delay=60).enqueue()
        await clock.advance(59)
        before = ["emails", "default", "emails", "default"]
        assert seen == before
        await clock.advance(2)
    assert seen == [*before, "emails"]
    with pytest.raises(BrokerError):
        await emails.send("note")


def test_another_server_is_another_server_for_all_queues(app: Ardiq, server: Server) -> None:
    emails = app.queue("emails")
    note = app.ref("note").options(queue="emails")
    for asked in (app, emails):
        with on_server(asked, server.url, prefix="elsewhere"):
            for job in (note.enqueue_sync(), emails.send_sync("note"), app.queue("new").send_sync("note")):
                key = f"elsewhere:{{{job.app.queue_name}}}:task:{job.id}"
                assert job.app.context.server.core.command(["EXISTS", key]) == 1
        assert app.queue("emails") is emails
        assert emails.context.server.core.command(["KEYS", "elsewhere:*"]) == []
        assert (app.prefix, emails.prefix, list(app.context.family)[1:]) == ("ardiq", "ardiq", QUEUES)


def test_a_worker_in_the_background_serves_another_queue(app: Ardiq, server: Server) -> None:
    @app.task
    def where() -> str:
        return whereabouts()

    emails = app.queue("emails")
    with on_server(app, server.url), worker(emails):
        assert where.options(queue="emails").request_sync(timeout=SOON_S) == "emails"


@pytest.mark.parametrize(
    ("shares", "told", "slots"),
    [((3, 1), ("3 of 4 at once", "1 of 4 at once"), ("0/3 of 4", "0/1 of 4")), ((1,), ("4 at once",), ("0/4",))],
)
async def test_a_worker_tells_the_share_of_each_queue(
    app: Ardiq, caplog: pytest.LogCaptureFixture, shares: tuple[int, ...], told: tuple[str, ...], slots: tuple[str, ...]
) -> None:
    caplog.set_level("INFO", logger="ardiq")
    run = asyncio.create_task(app.run(dict(zip(QUEUES, shares, strict=False))))
    await eventually(lambda: caplog.text.count("ready: ") == len(shares))
    for queue, at_once, held_slots in zip(QUEUES, told, slots, strict=False):
        assert f"queue {queue!r}, {at_once}" in caplog.text
        (worker,) = (shown := await asyncio.to_thread(status.read, app.queue(queue)))["workers"]
        assert f"{worker['held']}/{worker['share']}" == held_slots.partition(" ")[0]
        tables = [part for part in status._draw(shown) if isinstance(part, Table) and part.title == "workers"]
        assert [row[2] for table in tables for row in table.rows] == [held_slots]
    await stopped(app, run)


BURST = ["run", "jobs:app", "--burst"]
JOBS = """
    from ardiq import Ardiq, current_task
    app = Ardiq({url!r}, concurrency=2)

    @app.task
    async def note() -> None:
        with open("notes", "a") as notes:
            notes.write(current_task().queue + "\\n")

    @app.task(executor="process")
    def note_in_process() -> None:
        with open("notes", "a") as notes:
            notes.write(current_task().queue + " in a process\\n")
"""


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS.format(url=server.url)))

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ardiq", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SOON_S,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    return run


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_command_line_names_queues_and_shares(
    make_app: Callable[..., Ardiq], run: Any, tmp_path: Path, workers: str
) -> None:
    app = make_app()
    for queue in QUEUES:
        await app.queue(queue).send("note")
        await app.queue(queue).send("note_in_process")
    done = await asyncio.to_thread(run, *BURST, "--queue", "emails=3", "--queue", "reports", "--workers", workers)
    assert done.returncode == 0, done.stderr
    notes = (tmp_path / "notes").read_text().splitlines()
    assert sorted(notes) == [note for queue in QUEUES for note in (queue, f"{queue} in a process")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--queue", "a=0"], "expected a whole number, at least 1, got '0'"),
        (["--queue", "a", "--queue", "a=2"], "--queue names 'a' twice"),
        (["--queue", "a}"], "--queue: queue name 'a}' must not contain braces"),
        (["--queue", ""], "--queue: queue name must not be empty"),
        (["--queue", "a", "--queue", "b", "--queue", "c"], "--queue: 3 queues need at least as many slots"),
    ],
)
def test_the_command_line_refuses_impossible_queues(run: Any, words: list[str], says: str) -> None:
    done = run(*BURST, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_other_commands_look_at_the_queue_they_are_told(app: Ardiq, run: Any) -> None:
    def queued(*words: str) -> int:
        done = run("status", "jobs:app", "--json", *words)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["counts"]["queued"])

    before = queued()
    assert run("enqueue", "jobs:app", "note", "--queue", "emails").returncode == 0
    assert (queued("--queue", "emails"), queued()) == (1, before)
    assert run("purge", "jobs:app", "-y", "--queue", "emails").stdout == "1 removed\n"
    assert queued("--queue", "emails") == 0
    for command in ("status", "top", "doctor", "purge"):
        done = run(command, "jobs:app", "--queue", "a}")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("ardiq: queue_name 'a}' must not contain braces")


def test_a_queue_that_could_not_be_made_is_made_next_time(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(type(app.context.server), "sibling", broken)
        with pytest.raises(RuntimeError, match="not now"):
            app.queue("mail")
    assert app.queue("mail").queue_name == "mail"
    assert app.queue("mail") is app.queue("mail")


def test_threads_that_use_a_queue_first_get_the_same_one(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    made, barrier = app.context.server.sibling, threading.Barrier(4)

    def sibling(queue: Any) -> Any:
        barrier.wait()
        return made(queue)

    monkeypatch.setattr(app.context.server, "sibling", sibling)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(app.queue, ["mail"] * 4))
    assert found == [app.queue("mail")] * 4
    assert all(each.context.server is app.queue("mail").context.server for each in found)
    assert found[0].schedules
    assert found[0].dead


def test_a_queue_of_an_app_has_what_a_subclass_has(server: Server) -> None:
    class Regional(Ardiq):
        def __init__(self, url: str, region: str) -> None:
            super().__init__(url)
            self.region = region

    other = Regional(server.url, "north").queue("mail")
    assert isinstance(other, Regional)
    assert other.region == "north"


def test_what_an_app_was_told_in_confidence_is_not_shown() -> None:
    app = Ardiq("redis://user:hunter2@localhost:1", signing_key="k" * 16)
    for shown in (app, app.context, app.context.settings, app.queue("other").context):
        assert "hunter2" not in repr(shown)
        assert "kkkk" not in repr(shown)
