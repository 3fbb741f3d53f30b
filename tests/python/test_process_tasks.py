"""Tasks in child processes: a time limit or an abort ends the process, and whatever happens to it the worker lives."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from helpers import SOON_S, Script, alive, eventually, field, is_sound, result_of, stranger, task_module, working

from ardiq import Ardiq, ErrorContext, Job, ProcessDied
from ardiq._core import Core
from ardiq.embedded import Server

TASKS = """
    import logging, os, signal, subprocess, sys, time
    from shlex import join
    from contextvars import ContextVar
    from decimal import Decimal
    from pathlib import Path
    from ardiq import Ardiq, Retry, Snooze, current_task, emit_sync

    app = Ardiq({url!r}, queue_name={queue!r}, concurrency=2)
    once = app.task(executor="process", max_retries=0)
    colour = ContextVar("colour", default="none")

    class Refused(Exception):
        def __init__(self, code, reason):
            super().__init__(code, reason)

    @once
    def pid() -> int:
        return os.getpid()

    @once
    def who() -> list:
        task = current_task()
        return [task.task_id, task.name, task.tries]

    @once
    def paint(to: str) -> str:
        before = colour.get()
        colour.set(to)
        return before

    @once
    def echo(value: tuple[int, ...], *, blob: bytes = b"") -> list:
        return [list(value), blob]

    @app.task(executor="process", max_retries=5)
    def half(amount: Decimal) -> Decimal:
        return amount / 2

    @once
    def stream(count: int) -> None:
        for number in range(count):
            emit_sync([number, "x" * 30_000])

    @once
    def tell() -> bool:
        task = current_task()
        task.progress(0.5, "half")
        task.log("a line")
        task.note(size=3, gone=1)
        task.notes["sizes"] = [task.notes["size"]]
        del task.notes["gone"]
        return task.cancelled()

    @app.task(executor="process", max_retries=3, backoff_ms=1)
    def tell_and_fail() -> int:
        task = current_task()
        if task.tries == 4:
            return task.tries
        task.log(f"began {{task.tries}}")
        task.log(f"failed {{task.tries}}")
        task.notes[str(task.tries)] = True
        raise ValueError

    @app.task(executor="process", timeout=1000)
    def time_left() -> float:
        return current_task().deadline - time.time()

    @once
    def unfit() -> object:
        return object()

    @app.task(executor="process", max_retries=0, timeout=1)
    def forever(path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        while True:
            pass

    @once
    def stubborn(path: str) -> None:
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(path).write_text(f"{{os.getpid()}} {{helper.pid}}")
        time.sleep(600)

    @once
    def tidy(path: str) -> None:
        try:
            Path(path).write_text(str(os.getpid()))
            time.sleep(600)
        finally:
            Path(path + ".tidied").touch()

    @app.task(executor="process", max_retries=1, backoff_ms=1)
    def die(how: str) -> int:
        if current_task().tries == 1:
            os._exit(3) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
        return current_task().tries

    @once
    def fork_and_die() -> None:
        if os.fork():
            os._exit(4)
        time.sleep(20)

    @once
    def refuse() -> None:
        raise Refused(7, "no")

    @app.task(executor="process", give_up_on=Refused, max_retries=5, backoff_ms=1)
    def give_up() -> None:
        raise Refused(7, "no")

    @app.task(executor="process", max_retries=2)
    def again() -> int:
        if current_task().tries < 3:
            raise Retry("not yet", delay_ms=1)
        return current_task().tries

    @app.task(executor="process", max_retries=0)
    def snoozed(path: str) -> str:
        if not Path(path).exists():
            Path(path).touch()
            raise Snooze(0.001)
        return "awake"

    @once
    def leave() -> None:
        sys.exit(5)

    if "pytest" in sys.modules:
        @once
        def hidden() -> None: ...

    def plain(number: int) -> int:
        return number + 1
    renamed = once(plain)
    taken = app.task(executor="process", max_retries=0, name="taken")(join)

    @once
    def logs(path: str) -> None:
        log = logging.getLogger("shop")
        log.debug("too low")
        log.info("%s of %d", "one", 2, extra={{"order": 7, "what": object}})
        try:
            raise KeyError("no")
        except KeyError:
            log.exception("failed")
        if os.fork() == 0:
            log.error("from a fork")
            os._exit(0)
        os.wait()
        try:
            Path(path).touch()
            time.sleep(600)
        finally:
            log.warning("last words")
"""


@pytest.fixture
def jobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of tasks that a child can import."""
    with task_module(TASKS, server, tmp_path, monkeypatch) as module:
        yield module


async def test_it_runs_in_a_child_that_is_kept_for_the_next_one(jobs: ModuleType) -> None:
    async with working(jobs.app):
        pids = {(await result_of(await jobs.pid.enqueue())).value for _ in range(3)}
        assert len(pids) == 1
        assert os.getpid() not in pids
        both = await asyncio.gather(*[jobs.pid.request() for _ in range(20)])
        assert 1 <= len(set(both) | pids) <= 2  # never more than the concurrency
    assert not any(map(alive, pids | set(both)))
    assert is_sound(jobs.app)


async def test_what_a_task_knows_and_gets_is_the_same_there(jobs: ModuleType) -> None:
    async with working(jobs.app):
        job = await jobs.who.enqueue()
        assert (await result_of(job)).value == [job.id, "who", 1]
        assert await jobs.echo.request((1, 2), blob=b"\xff") == [[1, 2], b"\xff"]
        assert [await jobs.paint.request(colour) for colour in ("red", "blue")] == ["none", "none"]


async def test_arguments_and_results_are_of_their_types(jobs: ModuleType) -> None:
    async with working(jobs.app):
        assert await jobs.half.request(Decimal("1.5")) == Decimal("0.75")
        for sent, success in [("3", True), ("three", False)]:
            with stranger(jobs.app) as other:
                job = await other.send("half", sent)
            result = await result_of(Job(jobs.app, job.id))
            assert (result.success, result.tries) == (success, 1)
        assert "argument 'amount' does not fit its annotation" in result.value


async def test_what_a_task_tells_of_itself_arrives(jobs: ModuleType) -> None:
    async with working(jobs.app):
        job = await jobs.tell.enqueue()
        assert (await result_of(job)).value is False
        # What was said last arrives after the end, and not in one piece.
        await eventually(lambda: has_told(job, ["a line"], {"size": 3, "sizes": [3]}))
        assert await job.progress() == (0.5, "half")
        assert 0 < await jobs.time_left.request() <= 1000


async def test_what_a_task_emits_arrives_in_order(jobs: ModuleType) -> None:
    async with working(jobs.app):
        job = await jobs.stream.enqueue(200)
        assert [chunk.value[0] async for chunk in job.stream(timeout=SOON_S)] == list(range(200))


async def has_told(job: Job[Any], lines: list[str], notes: dict[str, Any]) -> bool:
    return await job.logs() == lines and await job.notes() == notes


async def test_what_it_tells_just_before_a_retry_arrives(jobs: ModuleType) -> None:
    async with working(jobs.app):
        job = await jobs.tell_and_fail.enqueue()
        assert (await result_of(job)).value == 4
    lines = [f"{word} {tries}" for tries in (1, 2, 3) for word in ("began", "failed")]
    assert await job.logs() == lines
    assert await job.notes() == {"1": True, "2": True, "3": True}


async def test_middleware_and_hooks_see_the_value_and_the_error(jobs: ModuleType) -> None:
    seen: list[Any] = []

    @jobs.app.middleware
    async def note(context: Any, call_next: Any) -> Any:
        value = await call_next()
        seen.append(value)
        return value

    @jobs.app.on_error
    def tell(context: ErrorContext) -> None:
        seen.append(context.exc)

    async with working(jobs.app):
        assert await jobs.echo.request((3,)) == [[3], b""]
        job = await jobs.refuse.enqueue()
        result = await result_of(job)
    assert (result.success, result.value) == (False, "Refused(7, 'no')")
    assert seen[0] == [[3], b""]
    assert isinstance(seen[1], jobs.Refused)
    assert seen[1].args == (7, "no")
    assert 'raise Refused(7, "no")' in str(field(jobs.app, job.id, "traceback"))


async def test_retries_follow_what_was_raised_there(jobs: ModuleType, tmp_path: Path) -> None:
    async with working(jobs.app):
        assert (await result_of(await jobs.again.enqueue())).value == 3
        assert await jobs.snoozed.request(str(tmp_path / "snoozed")) == "awake"
        result = await result_of(await jobs.give_up.enqueue())
        assert (result.success, result.tries) == (False, 1)
        result = await result_of(await jobs.leave.enqueue())
        assert (result.success, result.value) == (False, "SystemExit(5)")


async def test_a_result_that_cannot_travel_is_named_and_the_child_lives(jobs: ModuleType) -> None:
    async with working(jobs.app):
        before = await jobs.pid.request()
        result = await result_of(await jobs.unfit.enqueue())
        assert not result.success
        assert "the result of task 'unfit'" in result.value
        assert await jobs.pid.request() == before


async def test_a_time_limit_kills_the_process(jobs: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with working(jobs.app):
        result = await result_of(await jobs.forever.enqueue(str(path)))
        assert (result.success, result.value) == (False, "timed out after 1s")
        assert not alive(int(path.read_text()))
        assert isinstance(await jobs.pid.request(), int)
    assert is_sound(jobs.app)


async def test_an_abort_kills_the_process_and_what_it_started(jobs: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with working(jobs.app):
        job = await jobs.stubborn.enqueue(str(path))
        pids = [int(pid) for pid in await eventually(lambda: path.exists() and path.read_text().split())]
        assert all(map(alive, pids))
        assert await job.abort()
        assert (await result_of(job)).aborted
        await eventually(lambda: not any(map(alive, pids)))
        assert isinstance(await jobs.pid.request(), int)
    assert is_sound(jobs.app)


async def test_an_abort_lets_the_task_tidy_up(jobs: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with working(jobs.app):
        job = await jobs.tidy.enqueue(str(path))
        pid = int(await eventually(lambda: path.exists() and path.read_text()))
        assert await job.abort()
        assert (await result_of(job)).aborted
        await eventually(lambda: not alive(pid))
    assert (tmp_path / "pid.tidied").exists()


@pytest.mark.parametrize(
    ("how", "says"), [("exit", "exit code 3"), ("kill", "killed by SIGKILL(, perhaps out of memory)?")]
)
async def test_a_child_that_dies_fails_the_attempt_and_says_how(jobs: ModuleType, how: str, says: str) -> None:
    told: list[BaseException] = []
    jobs.app.on_error(lambda context: told.append(context.exc))
    async with working(jobs.app):
        result = await result_of(await jobs.die.enqueue(how))
    assert (result.success, result.value, result.tries) == (True, 2, 2)
    [error] = told
    assert isinstance(error, ProcessDied)
    assert re.fullmatch(f"the task's child process died: {says}", str(error))


async def test_a_child_that_dies_is_noticed_while_its_fork_holds_the_socket(jobs: ModuleType) -> None:
    async with working(jobs.app):
        result = await result_of(await jobs.fork_and_die.enqueue())
    assert not result.success
    assert "exit code 4" in result.value


async def test_a_task_that_the_child_does_not_find_says_why(jobs: ModuleType) -> None:
    async with working(jobs.app):
        result = await result_of(await jobs.app.send("hidden"))
    assert not result.success
    assert f"does not register {jobs.__name__}.hidden as task 'hidden'" in result.value


async def test_it_is_found_whatever_its_module_calls_it(jobs: ModuleType) -> None:
    async with working(jobs.app):
        assert (await result_of(await jobs.renamed.enqueue(1))).value == 2
        assert (await result_of(await jobs.taken.enqueue(["a b", "c"]))).value == "'a b' c"  # of another module


async def test_what_it_logs_passes_the_handlers_of_its_worker(
    jobs: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "began"
    caplog.set_level("INFO")
    async with working(jobs.app):
        job = await jobs.logs.enqueue(str(path))
        await eventually(path.exists)
        await job.abort()
        assert (await result_of(job)).aborted
    records = [record for record in caplog.records if record.name == "shop"]
    assert [record.getMessage() for record in records] == ["one of 2", "failed", "last words"]
    for record in records:
        assert (vars(record)["task"], vars(record)["task_id"], vars(record)["attempt"]) == ("logs", job.id, 1)
        assert record.funcName == "logs"
        assert record.process != os.getpid()
    assert (vars(records[0])["order"], vars(records[0])["what"]) == (7, "<class 'object'>")
    assert "KeyError: 'no'" in (records[1].exc_text or "")
    assert "from a fork" in capfd.readouterr().err


async def test_a_cancelled_worker_hands_it_back_and_leaves_no_child(jobs: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = await jobs.tidy.enqueue(str(path))
    run = asyncio.create_task(jobs.app.run())
    pid = int(await eventually(lambda: path.exists() and path.read_text()))
    run.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(run, SOON_S)
    assert not alive(pid)
    assert await job.status() == "queued"
    info = await job.info()
    assert info is not None
    assert info.tries == 0  # no attempt was charged
    assert is_sound(jobs.app)


def test_children_end_with_a_worker_that_is_killed(
    jobs: ModuleType, tmp_path: Path, run_script: Callable[..., Script]
) -> None:
    path = tmp_path / "pid"
    worker = run_script(f"""
        import asyncio, {jobs.__name__} as jobs
        async def main():
            await jobs.forever.enqueue({str(path)!r})
            await jobs.app.run()
        jobs.app.context.registry.tasks["forever"].timeout = None
        asyncio.run(main())
    """)

    async def watch() -> None:
        pid = int(await eventually(lambda: path.exists() and path.read_text()))
        assert alive(pid)
        worker.signal(signal.SIGKILL)
        await eventually(lambda: not alive(pid))

    asyncio.run(watch())


def test_a_wrong_executor_is_refused_where_it_is_written(app: Ardiq) -> None:
    with pytest.raises(ValueError, match="executor must be 'thread', 'process' or a Process, not 'fiber'"):
        app.task(executor="fiber")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="is for `def`"):

        @app.task(executor="process")
        async def coroutine() -> None: ...

    with pytest.raises(TypeError, match="top level of a module"):

        @app.task(executor="process")
        def local() -> None: ...

    with pytest.raises(TypeError, match="top level of a module"):
        app.task(executor="process", name="short")(lambda: None)
    assert app.tasks == []


PROGRAM = """
    import asyncio
    from ardiq import Ardiq
    app = Ardiq({url!r}, queue_name={queue!r}, burst=True)

    class Refused(Exception): ...

    @app.task(executor="process", max_retries=0)
    def crunch(number: int) -> int:
        if number < 0:
            raise Refused(number)
        return number * 2

    app.on_error(lambda call: print(repr(call.exc), type(call.exc) is Refused))

    async def main():
        jobs = [await crunch.enqueue(number) for number in (4, -1)]
        await app.run()
        print([(await job.result()).value for job in jobs])

    {start}
"""


def test_a_task_of_the_started_program(server: Server, run_script: Callable[..., Script]) -> None:
    start = "if __name__ == '__main__': asyncio.run(main())"
    code, output, errors = run_script(PROGRAM.format(url=server.url, queue="main", start=start)).end()
    assert code == 0, errors
    assert output.split("\n")[:2] == ["Refused(-1) True", "[8, 'Refused(-1)']"]


def test_a_program_that_starts_on_import_is_not_started_again(
    server: Server, run_script: Callable[..., Script]
) -> None:
    source = PROGRAM.format(url=server.url, queue="main-unguarded", start="asyncio.run(app.run())").replace(
        "burst=True)", "burst=True); job = __name__ == '__main__' and app.send_sync('crunch', 1)"
    )
    code, output, errors = run_script(source).end()
    assert code == 0, errors
    assert "this program enqueues or starts a worker when a child process imports it" in output


def test_nor_is_what_it_enqueues_on_import_enqueued_again(server: Server, run_script: Callable[..., Script]) -> None:
    source = PROGRAM.format(url=server.url, queue="main-enqueues", start="asyncio.run(main())")
    code, output, errors = run_script(source).end()
    assert code == 0, errors
    assert "this program enqueues or starts a worker when a child process imports it" in output
    core = Core(server.url, "ardiq:{main-enqueues}:")
    assert core.command(["HGET", "ardiq:{main-enqueues}:stats", "enqueued"]) == b"2"
    core.close()


def test_two_apps_with_the_same_task(server: Server, run_script: Callable[..., Script]) -> None:
    source = f"""
        import asyncio
        import pickle
        from ardiq import Ardiq

        own = {{"serializer": pickle.dumps, "deserializer": pickle.loads}}
        apps = [Ardiq("{server.url}", queue_name=f"two-{{len(more)}}", burst=True, **more) for more in ({{}}, own)]

        def crunch(number):
            return number, "done"

        async def main():
            for task in tasks:
                job = await task.enqueue(1)
                await task.app.run()
                print(await job.value())

        tasks = [app.task(crunch, executor="process", max_retries=0) for app in apps]
        if __name__ == "__main__":
            asyncio.run(main())
    """
    code, output, errors = run_script(source).end()
    assert code == 0, errors
    assert output.splitlines() == ["[1, 'done']", "(1, 'done')"]


def test_a_program_without_a_file_is_refused(server: Server) -> None:
    source = dedent(PROGRAM.format(url=server.url, queue="main-typed", start="asyncio.run(app.run())"))
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "from a program without a file: put the task and its app into a module" in ended.stderr
