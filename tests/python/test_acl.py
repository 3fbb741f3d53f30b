"""`ardiq migrate --acl`: producers, workers, operators and viewers with no more rights than they need."""

import asyncio
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from boards import SCREENS, STATES, browser, fill
from helpers import SOON_S, eventually, result_of, working

from ardiq import (
    Ardiq,
    ArdiqError,
    BrokerError,
    Debounce,
    Forbidden,
    Job,
    LibraryError,
    Limit,
    Rate,
    RateLimited,
    Retry,
    Throttle,
    Unique,
    _core,
    current_task,
    emit,
)
from ardiq.cli import _acl, main
from ardiq.embedded import Server
from ardiq.task import Task
from ardiq.web import dashboard


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[_core.Core]:
    core = _core.Core(server.url, "ardiq:{admin}:")
    yield core
    core.close()


@pytest.fixture
def url(server: Server, admin: _core.Core, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Makes the users that the command prints; the URL of one of them."""
    made = set()

    def of(role: str, *options: str) -> str:
        if options not in made:
            made.add(options)
            capsys.readouterr()
            assert main(["migrate", server.url, "--acl", *options]) == 0
            for line in capsys.readouterr().out.splitlines():
                admin.command(shlex.split(line))
        return f"{server.url}?username=ardiq-{role}&password={role.upper()}_PASSWORD"

    return of


def denied(admin: _core.Core) -> list[str]:
    """What users were refused, as the server noted it."""
    rows = (dict(zip(row[::2], row[1::2], strict=True)) for row in admin.command(["ACL", "LOG"]))
    return [f"{row[b'username'].decode()}: {row[b'object'].decode()}" for row in rows]


def written(admin: _core.Core) -> str:
    """How many changes of its data the server has made."""
    (count,) = re.findall(r"rdb_changes_since_last_save:(\d+)", admin.command(["INFO", "persistence"]).decode())
    return str(count)


async def test_each_can_do_all_that_it_is_for(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["migrate", url("operator")]) == 0
    options = {"queue_name": "jobs", "priorities": ["low", "high"], "limits": {"low": 1}}
    running = make_app(redis_url=url("worker"), dead_limit=1000, **options)
    sending = make_app(redis_url=url("producer"), **options)
    let_go, runs = asyncio.Event(), []

    @running.task(name="work", max_retries=1)
    async def work(how: str) -> str:
        task = current_task()
        assert task is not None
        task.progress(0.5, "half")
        task.log("a line")
        await emit("a chunk")
        runs.append(how)
        match how:
            case "fail":
                raise ValueError("no")
            case "again" if task.tries == 1:
                raise Retry(delay_ms=1)
            case "wait":
                await let_go.wait()
            case "more":
                await running.ref("work").enqueue("from a task")
        return how

    @running.task(name="in_thread")
    def in_thread() -> int:
        return 1

    @running.cron(every=0.1)
    async def recurring() -> None:
        pass

    task = sending.ref("work")
    async with working(running):
        assert await task.request("asked", timeout=SOON_S) == "asked"
        assert await sending.ref("in_thread").request(timeout=SOON_S) == 1
        waits = await task.options(priority="low").enqueue("wait")
        await eventually(lambda: "wait" in runs)
        # The lane is at its limit: the worker's block is ended when it is free again.
        next_one = await task.options(priority="low").enqueue("next")
        assert await waits.status() == "running"
        let_go.set()
        assert (await result_of(next_one)).value == "next"
        jobs = await sending.enqueue_many(task.prepare(how) for how in ("again", "more", "fail"))
        assert [(await result_of(job)).success for job in jobs[:2]] == [True, True]
        later = await task.options(delay_ms=600_000).enqueue("later")
        assert await later.abort()
        assert await later.info() is None or (await later.status()) == "complete"
        await eventually(lambda: "from a task" in runs)
        await eventually(sending.dead_count)
    operator = make_app(redis_url=url("operator"), **options)
    module = ModuleType("operated")
    module.app = operator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line in (
        "status APP",
        "status APP --json",
        "doctor APP",
        "doctor APP --repair",
        "fsck APP",
        "enqueue APP work --unknown --args '[\"later\"]'",
        f"task show APP {next_one.id}",
        "schedule list APP",
        "pause APP --task work --unknown",
        "resume APP --task work",
        "dlq list APP",
        "purge APP --yes",
        "migrate status APP",
        "migrate APP --check",
        "migrate APP --prune",
    ):
        words = shlex.split(line.replace("APP", "operated:app"))
        code = await asyncio.to_thread(main, words)
        assert code == 0 or (code == 1 and words[0] == "doctor"), line  # 1: it found something
    assert await operator.dead_count() == 1
    await operator.pause("work")
    assert await operator.pauses()
    await operator.resume("work")
    assert await operator.dead.requeue((await operator.dead_letters())[0].task_id)
    assert [row.name for row in await operator.schedules.list()] == ["recurring"]
    assert denied(admin) == []


async def test_limits_and_equal_calls(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core
) -> None:
    assert main(["migrate", url("operator")]) == 0
    running, sending, operator = (
        make_app(redis_url=url(role), queue_name="jobs") for role in ("worker", "producer", "operator")
    )
    ran: list[int] = []
    calls: dict[Ardiq, list[Task[..., None]]] = {}
    for app in (running, sending):
        partner = app.limit("partner", concurrency=2, rate=Rate(100, per=1, burst=2), max_waiting=100)

        @app.task(name="call", limits=[partner, Limit("customer", key="number", concurrency=1, ordered=True)])
        async def call(number: int) -> None:
            ran.append(number)
            if len(ran) == 1:
                raise RateLimited(0.05, limit="partner")

        async def equal(number: int) -> None: ...

        calls[app] = [
            call,
            app.task(name="unique", unique=Unique(until="start", on_conflict="replace"))(equal),
            app.task(name="debounce", debounce=Debounce(quiet=0.05))(equal),
            app.task(name="throttle", throttle=Throttle(per=0.05))(equal),
        ]
    jobs = await sending.enqueue_many(task.prepare(number) for task in calls[sending] for number in (1, 1, 2))
    async with working(running):
        await operator.limits.put("partner", concurrency=1)
        await operator.limits.put("customer(1)", concurrency=0)
        assert await operator.limits.remove("customer(1)")
        for job in jobs:
            assert (await result_of(job)).success
    assert [limit.name for limit in await operator.limits.list()] == ["customer", "partner"]
    assert denied(admin) == []


async def test_a_viewer_sees_everything(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", url("operator")]) == 0
    ids = await fill(make_app(redis_url=url("operator"), queue_name="jobs"))
    admin.command(["ACL", "LOG", "RESET"])
    before = written(admin)
    looks = make_app(redis_url=url("viewer"), queue_name="jobs")
    looks.context.server.is_listed = False  # as `ardiq web` has it
    async with browser(dashboard(looks, auth="nobody")) as client:
        tasks = [f"tasks/{task_id}" for task_id in ids.values()]
        states = [f"tasks?state={state}" for state in STATES]
        for path in (*SCREENS, *states, *tasks, f"workflows/{ids['workflow']}"):
            assert (await client.get(f"/q/jobs/{path}")).status_code == 200, path
    for line in (
        "queues URL",
        "status URL",
        "status URL --json",
        "top URL --once",
        "doctor URL",
        f"task show URL {ids['done']}",
        "dlq list URL",
        "dlq groups URL",
        f"dlq show URL {ids['dead']}",
        "schedule list URL",
        "limits list URL",
        "audit URL",
        "workflow list URL",
        f"workflow show URL {ids['workflow']}",
        "migrate status URL",
    ):
        words = [url("viewer") if word == "URL" else word for word in line.split()]
        if words[0] not in ("queues", "migrate"):
            words += ["--queue", "jobs"]
        code = await asyncio.to_thread(main, words)
        assert code == 0 or (code == 1 and words[0] == "doctor"), (line, capsys.readouterr().err)
    # Which way its calls may go is tried out.
    assert {what for what in denied(admin) if not what.endswith((": fcall", ": evalsha"))} == set()
    assert written(admin) == before


async def test_a_viewer_changes_nothing(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core
) -> None:
    assert main(["migrate", url("operator")]) == 0
    ids = await fill(make_app(redis_url=url("operator"), queue_name="jobs"))
    looks = make_app(redis_url=url("viewer"), queue_name="jobs")
    core, base = looks.context.server.core, "ardiq:{jobs}:"
    before = written(admin)
    later: Job[Any] = Job(looks, ids["later"])
    actions: list[Callable[[], Awaitable[object]]] = [
        lambda: looks.ref("charge").enqueue(1),
        lambda: later.abort(),
        lambda: looks.dead.requeue(ids["dead"]),
        lambda: looks.dead.discard(ids["dead"]),
        lambda: looks.pause("charge"),
        lambda: looks.resume("sync", argument={"customer_id": 99}),
        lambda: looks.schedules.remove("nightly"),
        lambda: looks.limits.put("partner", concurrency=1),
    ]
    for act in actions:
        with pytest.raises(Forbidden):
            await act()
    async with browser(dashboard(looks, auth="nobody"), headers={"sec-fetch-site": "same-origin"}) as client:
        answer = await client.post("/q/jobs/hurry.json", data={"id": ids["later"]})
        assert (answer.status_code, "ardiq-viewer" in answer.text) == (503, True)
    # By hand it may call no transition, neither as a function nor, where there are none, as a script.
    protocol = json.loads(_core.PROTOCOL)
    has_functions = bool(admin.command(["COMMAND", "INFO", "FCALL"])[0])
    for name, function in protocol["functions"].items():
        if has_functions and function["kind"] == "transition":
            for command in ("FCALL", "FCALL_RO"):
                with pytest.raises(ArdiqError):
                    core.command([command, f"{protocol['library']}_{name}", "1", base])
    assert written(admin) == before
    (line,) = (line for line in _acl.lines(admin, "ardiq", []) if "ardiq-viewer" in line)
    granted = [rule[1:] for rule in line.split() if rule[0] == "+"]
    infos = admin.command(["COMMAND", "INFO", *{rule.partition("|")[0] for rule in granted}])
    assert len(granted) > 10
    assert all(infos), granted
    assert [info[0] for info in infos if b"write" in info[2]] == []


async def test_none_can_do_more(url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core) -> None:
    assert main(["migrate", url("operator")]) == 0
    admin.command(["SET", "elsewhere", "x"])
    for role in ("producer", "worker", "operator"):
        app = make_app(redis_url=url(role, "--queue", "mine"), queue_name="mine")
        await app.ref("work").enqueue()
        for command in (["GET", "elsewhere"], ["DEL", "elsewhere"], ["FLUSHALL"], ["KEYS", "*"], ["ACL", "LIST"]):
            with pytest.raises(BrokerError, match="may not do this"):
                app.context.server.core.command(command)
        if role != "operator":
            with pytest.raises(BrokerError, match="may not do this"):
                await make_app(redis_url=url(role, "--queue", "mine"), queue_name="others").ref("work").enqueue()


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("resetkeys ~elsewhere:*", r"`join` on ardiq:\{mine\}:\*, as user .ardiq-worker.*ardiq migrate --acl"),
        ("resetkeys ~ardiq:{mine}: ~ardiq:schema", r"`join` on .*as user .ardiq-worker.*ardiq migrate --acl"),
        ("-zadd", r"`join` on .*as user .ardiq-worker.*ardiq migrate --acl"),
        ("resetpass >another", "rejects the user or password"),
    ],
)
async def test_a_worker_that_lacks_a_right_ends_at_its_start(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core, lacks: str, said: str
) -> None:
    assert main(["migrate", url("operator")]) == 0
    app = make_app(redis_url=url("worker"), queue_name="mine")
    admin.command(["ACL", "SETUSER", "ardiq-worker", *lacks.split()])
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Forbidden, match=said):
            await app.run()


def test_a_command_that_lacks_a_right_starts_nothing(
    url: Callable[..., str], admin: _core.Core, tmp_path: Path
) -> None:
    assert main(["migrate", url("operator")]) == 0
    (tmp_path / "jobs.py").write_text(
        f"from ardiq import Ardiq\napp = Ardiq({url('producer')!r})\napp.task(name='t')(print)\n"
    )
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "ardiq", "run", "jobs:app", "--workers", workers]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SOON_S)
        assert ended.returncode == 2, ended.stderr
        assert "ardiq-producer" in ended.stderr
        assert "ardiq migrate --acl" in ended.stderr
        assert admin.command(["KEYS", "ardiq:{default}:work*"]) == []


@pytest.mark.parametrize("right", ["-zadd", "-fcall -evalsha"])
async def test_a_worker_whose_right_is_taken_away_keeps_its_tasks_and_waits_for_it(
    url: Callable[..., str],
    make_app: Callable[..., Ardiq],
    admin: _core.Core,
    caplog: pytest.LogCaptureFixture,
    right: str,
) -> None:
    assert main(["migrate", url("operator")]) == 0
    app = make_app(redis_url=url("worker"))
    begun, runs = asyncio.Event(), 0
    let_go = asyncio.Event()

    @app.task
    async def work() -> str:
        nonlocal runs
        runs += 1
        begun.set()
        await let_go.wait()
        return "done"

    def lacks() -> bool:
        said = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        return any('as user "ardiq-worker"' in line and line.endswith("trying again") for line in said)

    async with working(app):
        job = await work.enqueue()
        await begun.wait()
        for each in right.split():
            try:
                admin.command(["ACL", "SETUSER", "ardiq-worker", each])
            except ArdiqError:  # this server has no such command
                assert each == "-fcall"
        let_go.set()
        await eventually(lacks)
        for each in right.split():
            try:
                admin.command(["ACL", "SETUSER", "ardiq-worker", each.replace("-", "+")])
            except ArdiqError:
                assert each == "-fcall"
        assert (await result_of(job)).value == "done"
    assert runs == 1


async def test_a_library_that_is_missing_is_not_loaded_by_everybody(
    url: Callable[..., str], make_app: Callable[..., Ardiq], admin: _core.Core
) -> None:
    app = make_app(redis_url=url("producer"))
    try:
        admin.command(["FUNCTION", "FLUSH"])
    except ArdiqError:
        await app.ref("work").enqueue()  # scripts are loaded by whoever calls them
        return
    with pytest.raises(LibraryError, match="ardiq migrate"):
        await app.ref("work").enqueue()


async def test_a_user_confined_to_a_prefix_needs_nothing_beyond_it(
    server: Server, make_app: Callable[..., Ardiq], admin: _core.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.command(shlex.split("ACL SETUSER shop on >secret ~shop:* &* +@all -acl"))
    app = make_app(redis_url=f"{server.url}?username=shop&password=secret", queue_name="mine", prefix="shop")

    @app.task(name="work")
    async def work() -> int:
        return 1

    module = ModuleType("confined")
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line in ("migrate APP", "migrate status APP", "migrate APP --check", "migrate APP --prune"):
        assert await asyncio.to_thread(main, line.replace("APP", "confined:app").split()) == 0, line
    async with working(app):
        assert await work.request(timeout=SOON_S) == 1
        assert await asyncio.to_thread(main, ["doctor", "confined:app"]) == 0
        assert await asyncio.to_thread(main, ["fsck", "confined:app"]) == 0
    assert all(b"shop:" in key for key in admin.command(["KEYS", "*"]))
    assert denied(admin) == []


@pytest.mark.parametrize(("keys", "prefix"), [("ardiq:{mine}:*", "ardiq"), ("ardiq:mine:*", "ardiq:mine")])
async def test_a_user_confined_to_a_queue_can_work_there(
    server: Server, make_app: Callable[..., Ardiq], admin: _core.Core, keys: str, prefix: str
) -> None:
    """The second is as ArdiQ 1.2 named its keys."""
    admin.command(["ACL", "SETUSER", "mine", *f"on >secret ~{keys} &* +@all -acl".split()])
    app = make_app(redis_url=f"{server.url}?username=mine&password=secret", queue_name="mine", prefix=prefix)

    @app.task(name="work")
    async def work() -> int:
        return 1

    async with working(app):
        assert await work.request(timeout=SOON_S) == 1
        assert (await result_of(await work.enqueue())).value == 1


def test_what_makes_no_sense_is_refused(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([server.url, "--queue", "x"], [server.url, "--acl", "--force"], ["status", server.url, "--acl"]):
        assert main(["migrate", *words]) == 2
    assert "--queue is for --acl" in capsys.readouterr().err
    assert main(["migrate", server.url, "--acl", "--queue", "a{b"]) == 2
    assert "--queue: queue name 'a{b' must not contain braces" in capsys.readouterr().err
