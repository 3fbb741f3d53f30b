"""The blocking twins: the same as their awaited ones, from threads, loops, forks and scripts that end at once."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, drain, field, is_sound

from ardiq import Ardiq, BrokerError, EnqueueContext, Job, TaskError, current_task
from ardiq.embedded import Server
from ardiq.testing import inline


def add(a: int, b: int) -> int:
    return a + b


def test_the_same_record_as_the_awaited_one(app: Ardiq) -> None:
    task = app.task(add)
    job = task.options(priority="default").enqueue_sync(1, b=2)
    twin = asyncio.run(as_awaited(task))
    for name in ("name", "args", "kwargs", "lane", "state"):
        assert field(app, job.id, name) == field(app, twin.id, name)
    assert job.result_sync() is None
    asyncio.run(drain(app))
    result = job.result_sync(timeout=SOON_S)
    assert result is not None
    assert result.value == 3
    assert is_sound(app)


async def as_awaited(task: Any) -> Any:
    return await task.enqueue(1, b=2)


def test_many_and_by_name(app: Ardiq) -> None:
    task = app.task(add)
    jobs = app.enqueue_many_sync(task.prepare(number, 1) for number in range(600))
    assert len({job.id for job in jobs}) == 600
    assert app.enqueue_many_sync([]) == []
    assert app.send_sync("add", 1, 2).app is app
    assert asyncio.run(app.queue_size()) == 601


def test_many_large_ones_take_more_calls_as_the_awaited_ones_do() -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        app = Ardiq(server.url)
        task = app.ref("store")

        def calls() -> int:
            told = app.context.server.core.command(["INFO", "commandstats"]).decode()
            return sum(int(count) for count in re.findall(r"cmdstat_(?:fcall|evalsha):calls=(\d+)", told))

        task.enqueue_sync("x")
        counts = []
        for send in (app.enqueue_many_sync, lambda tasks: asyncio.run(as_list(app, tasks))):
            before = calls()
            assert len(send([task.prepare("x" * 200_000) for _ in range(40)])) == 40
            counts.append(calls() - before)
        assert counts[0] == counts[1] >= 7, "a megabyte and a record in each"
        app.context.server.close()


async def as_list(app: Ardiq, tasks: Any) -> list[Job[Any]]:
    return await app.enqueue_many(tasks)


def test_unique_calls_are_one_job(app: Ardiq) -> None:
    task = app.task(unique=True)(add)
    assert task.enqueue_sync(1, b=2) == task.enqueue_sync(1, b=2)
    assert asyncio.run(app.queue_size()) == 1


def test_from_many_threads(app: Ardiq) -> None:
    task = app.task(add)
    threads = [threading.Thread(target=lambda: [task.enqueue_sync(1, 2) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(app.queue_size()) == 200


def test_each_answer_goes_to_who_asked(app: Ardiq) -> None:
    """One call alone has the connection by hand; with others it shares it."""
    task = app.task(add)
    core = app.context.server.core
    wrong: list[Any] = []

    def enqueue() -> None:
        wrong.extend(job for job in [task.enqueue_sync(1, 2) for _ in range(100)] if job.status_sync() != "queued")

    def echo(number: int) -> None:
        words = [f"{number}-{at}".encode() for at in range(300)]
        wrong.extend(word for word in words if core.command(["ECHO", word]) != word)

    threads = [threading.Thread(target=enqueue) for _ in range(2)]
    threads += [threading.Thread(target=echo, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert asyncio.run(app.queue_size()) == 200


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_the_answer_to_a_call_that_was_interrupted_is_nobodys(make_app: Callable[..., Ardiq]) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    app = make_app(broker_timeout_ms=4_000)  # and a connection of its own
    task = app.task(add)
    task.enqueue_sync(1, 2)
    core = app.context.server.core
    line = core.command(["CLIENT", "ID"])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        other = make_app(broker_timeout_ms=50_000).context.server.core
        other.command(["CLIENT", "PAUSE", "1500", "ALL"])
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            task.enqueue_sync(1, 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert core.command(["ECHO", "mine"]) == b"mine"
    assert core.command(["CLIENT", "ID"]) == line
    task.enqueue_sync(1, 2)
    assert task.enqueue_sync(1, 2).status_sync() == "queued"
    assert asyncio.run(app.queue_size()) == 4


async def test_within_a_running_loop(app: Ardiq) -> None:
    task = app.task(add)
    job = task.enqueue_sync(1, 2)
    await drain(app)
    result = job.result_sync()
    assert result is not None
    assert result.value == 3


def test_the_calling_thread_does_the_io(app: Ardiq, run_script: Callable[..., Any]) -> None:
    script = run_script(
        f"""
from pathlib import Path
from ardiq import Ardiq
app = Ardiq({app.redis_url!r}, {app.queue_name!r})
job = app.send_sync('add', 1, 2)
job.status_sync()
print(sorted(path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')))
"""
    )
    code, output, _ = script.end()
    assert code == 0
    assert "ardiq-io" not in output


def test_a_connection_that_ended_while_nobody_looked_is_not_used(make_app: Callable[..., Ardiq]) -> None:
    # With no record kept the call is not repeated: sent on the ended connection, it would fail.
    # `other` has a connection of its own, as its options are others.
    app, other = make_app(result_ttl_ms=0), make_app(broker_timeout_ms=60_000)
    task = app.task(add)
    for _ in range(5):
        task.enqueue_sync(1, 2)
        other.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        time.sleep(0.05)  # a thread that does the I/O, if an earlier test had a worker, has to see it
    task.enqueue_sync(1, 2)
    assert asyncio.run(app.queue_size()) == 6


def test_after_a_fork(app: Ardiq) -> None:
    task = app.task(add)
    task.enqueue_sync(1, 2)
    child = os.fork()
    if child == 0:
        try:
            task.enqueue_sync(3, 4)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    task.enqueue_sync(5, 6)
    assert asyncio.run(app.queue_size()) == 3


def test_hooks_run_and_an_async_one_is_refused(app: Ardiq) -> None:
    task = app.task(add)

    @app.on_enqueue
    def trace(context: EnqueueContext) -> None:
        context.headers["trace"] = context.name

    job = task.enqueue_sync(1, 2)
    assert field(app, job.id, "headers") == '{"trace":"add"}'

    @app.on_enqueue
    async def later(context: EnqueueContext) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match=r"async @app\.on_enqueue"):
        task.enqueue_sync(1, 2)
    assert asyncio.run(app.queue_size()) == 1


def test_wrong_calls_are_refused_before_anything_is_sent(app: Ardiq) -> None:
    task = app.task(add)
    with pytest.raises(TypeError):
        task.enqueue_sync(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="prepare"):
        app.enqueue_many_sync([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="none"):
        task.options(priority="none").enqueue_sync(1, 2)
    assert asyncio.run(app.queue_size()) == 0


def test_no_result_in_time(app: Ardiq) -> None:
    with pytest.raises(TimeoutError, match="nobody"):
        app.result_sync("nobody", timeout=0.02)


def test_a_server_that_is_away() -> None:
    app = Ardiq("redis://127.0.0.1:1", broker_timeout_ms=100)
    with pytest.raises(BrokerError):
        app.send_sync("add", 1, 2)


async def test_within_inline_nothing_blocks() -> None:
    app = Ardiq("redis://127.0.0.1:1")
    task = app.task(add)
    async with inline(app):
        with pytest.raises(RuntimeError, match="await enqueue"):
            task.enqueue_sync(1, 2)


def test_a_script_that_ends_at_once(app: Ardiq, run_script: Callable[..., Any]) -> None:
    script = run_script(
        f"from ardiq import Ardiq\napp = Ardiq({app.redis_url!r}, {app.queue_name!r})\napp.send_sync('add', 1, 2)\n"
    )
    assert script.end()[0] == 0
    assert asyncio.run(app.queue_size()) == 1


def test_dropped_connections_do_not_matter(make_app: Callable[..., Ardiq], app: Ardiq) -> None:
    task, other = app.task(add), make_app()
    done = threading.Event()

    def drop() -> None:
        while not done.wait(0.03):
            other.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])

    dropping = threading.Thread(target=drop)
    dropping.start()
    try:
        jobs = [task.enqueue_sync(number, 1) for number in range(500)]
        assert [job.result_sync() for job in jobs[:50]] == [None] * 50
    finally:
        done.set()
        dropping.join()
    assert asyncio.run(app.queue_size()) == 500
    assert is_sound(app)


async def test_the_value_or_the_error(app: Ardiq) -> None:
    @app.task(max_retries=0)
    def divide(a: int, b: int) -> float:
        return a / b

    good, bad, late = [await divide.enqueue(*args) for args in ((1, 2), (1, 0), (1, 3))]
    await late.abort()
    with pytest.raises(TimeoutError, match="no result"):
        await good.value(timeout=0.01)
    run = asyncio.create_task(drain(app))
    assert await good.value(timeout=SOON_S) == 0.5
    assert await good.value() == 0.5
    for wait in (bad.value, late.value):
        with pytest.raises(TaskError) as raised:
            await wait(timeout=SOON_S)
        assert not raised.value.result.success
    await run
    assert await asyncio.to_thread(good.value_sync) == 0.5
    with pytest.raises(TaskError, match="aborted"):
        late.value_sync(timeout=1)
    with pytest.raises(TimeoutError):
        app.ref("none").enqueue_sync().value_sync(timeout=0.01)
    with pytest.raises(TypeError, match="timeout must be a timedelta or seconds, not str"):
        await good.value(timeout="5")  # type: ignore[arg-type]


def test_asking_and_aborting(app: Ardiq) -> None:
    task = app.task(add)
    job = task.options(delay_ms=60_000).enqueue_sync(1, b=2)
    assert (job.status_sync(), app.status_sync(job.id), app.status_sync("none")) == (
        "scheduled",
        "scheduled",
        "not_found",
    )
    info = job.info_sync()
    assert info is not None
    assert info == asyncio.run(job.info())
    assert (info.args, info.kwargs, info.status) == ((1,), {"b": 2}, "scheduled")
    assert app.info_sync("none") is None
    assert (job.hurry_sync(), app.hurry_sync(job.id), app.hurry_sync("none")) == (True, True, False)
    assert job.status_sync() == "queued"
    assert job.abort_sync() is True
    assert job.hurry_sync() is False
    assert (job.status_sync(), job.info_sync(), app.abort_sync("none")) == ("complete", None, False)


async def test_within_inline_what_does_not_wait_is_answered(app: Ardiq) -> None:
    @app.task
    def look() -> str:
        task = current_task()
        assert task is not None
        assert app.abort_sync("none") is False
        return app.status_sync(task.task_id)  # from the thread of a sync task

    @app.task
    async def stop() -> None:
        task = current_task()
        assert task is not None
        assert app.abort_sync(task.task_id)
        await asyncio.sleep(SOON_S)

    async with inline(app):
        job = await look.enqueue()
        assert await job.value(timeout=1) == "running"
        assert (job.status_sync(), job.value_sync(), job.info_sync()) == ("complete", "running", None)
        result = job.result_sync()
        assert result is not None
        assert result.value == "running"
        await app.pause("look")
        held = await look.enqueue()
        info = held.info_sync()
        assert info is not None
        assert (held.status_sync(), info.status, held.result_sync()) == ("held", "held", None)
        with pytest.raises(RuntimeError, match="nothing may block"):
            held.value_sync(timeout=1)
        assert held.abort_sync()
        with pytest.raises(TaskError, match="aborted"):
            await (await stop.enqueue()).value(timeout=1)
        with pytest.raises(RuntimeError, match="nothing may block"):
            look.enqueue_sync()
