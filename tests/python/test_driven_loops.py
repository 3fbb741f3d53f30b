"""Event loops that do their own I/O: no thread, no tick, and nothing that is relied on blindly."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, is_sound

from ardiq import Ardiq, ArdiqError, BrokerError
from ardiq.job import Job


def test_the_loop_does_the_io(app: Ardiq, run_script: Callable[..., Any]) -> None:
    script = run_script(
        f"""
import asyncio
from pathlib import Path
from ardiq import Ardiq

async def main():
    app = Ardiq({app.redis_url!r}, {app.queue_name!r})
    job = await app.send("add", 1, 2)
    try:
        await job.result(timeout=0.2)
    except TimeoutError:
        print(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))

asyncio.run(main())
"""
    )
    code, output, errors = script.end()
    assert (code, errors) == (0, "")
    assert output
    assert "ardiq-io" not in output


async def test_nothing_ticks_while_nothing_is_asked(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(broker_timeout_ms=200)
    await app.send("add", 1, 2)
    inbox = app.context.server.channel(asyncio.get_running_loop())._inbox
    await asyncio.sleep(0.5)  # the time limit of the call is over
    assert inbox._timer is None


async def test_a_connection_that_ended_while_the_loop_was_busy_is_not_used(make_app: Callable[..., Ardiq]) -> None:
    # With no record kept the call is not repeated: sent on the ended connection, it would fail.
    app, other = make_app(result_ttl_ms=0), make_app()
    task = app.ref("add")
    for _ in range(5):
        await task.enqueue(1, 2)
        other.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    await task.enqueue(1, 2)
    assert await app.queue_size() == 6


async def test_an_answer_that_came_while_the_loop_was_busy_is_in_time(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(broker_timeout_ms=500)
    task = app.ref("add")
    await task.enqueue(1, 2)
    inbox = app.context.server.channel(asyncio.get_running_loop())._inbox
    sent = task.enqueue(1, 2)
    await asyncio.sleep(0)
    inbox.stir()  # the loop takes this turn before it hears that the socket is readable
    time.sleep(0.6)
    assert (await sent).id


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_closing_one_of_two_queues_ends_its_calls_at_once(elsewhere: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closed, other = (Ardiq(f"redis://127.0.0.1:{silent.getsockname()[1]}", name) for name in "ab")
        calls = [asyncio.ensure_future(app.queue_size()) for app in (closed, other)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if elsewhere:
            await asyncio.to_thread(closed.context.server.close)
        else:
            closed.context.server.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert [call.done() for call in calls] == [True, False]
        other.context.server.close()
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert all("closed" in str(error) for error in told)


async def test_calls_alone_and_beside_others_are_answered_each(app: Ardiq, make_app: Callable[..., Ardiq]) -> None:
    """A chunk of tasks leaves by hand where nothing else is under way; what comes meanwhile goes by the runtime."""
    task, other = app.ref("add"), make_app(result_ttl_ms=60_000)  # on the same connection

    async def often(number: int) -> None:
        for at in range(30):
            task_id = f"{number}-{at}"
            job = await task.options(task_id=task_id).enqueue(at)
            assert (job.id, job.existed) == (task_id, False)
            if at % 3 == number % 3:
                assert await job.status() == "queued"
            again = await task.options(task_id=task_id).enqueue(at)
            assert again.existed
            await asyncio.sleep(0.001 * (number % 4))

    await asyncio.gather(often(0), *(often(number) for number in range(1, 9)), other.send("add", 1))
    assert await app.queue_size() == 270 + (other.queue_name == app.queue_name)


async def test_a_call_alone_is_refused_as_any(make_app: Callable[..., Ardiq]) -> None:
    app, other = make_app(result_ttl_ms=0), make_app()
    await app.send("add", 1)
    for command in (["FUNCTION", "FLUSH"], ["SCRIPT", "FLUSH"]):  # found out by the call, which loads it again
        with contextlib.suppress(ArdiqError):
            other.context.server.core.command(command)
    await app.send("add", 1)
    paused = asyncio.create_task(app.send("add", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    other.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    with contextlib.suppress(BrokerError):  # or it was answered before
        await paused
    await app.send("add", 1)
    assert await app.queue_size() >= 3


async def test_closing_does_not_wait_for_the_loop_that_waits_for_it(
    make_app: Callable[..., Ardiq], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ardiq._server.server._CLOSE_MS", int(4000 * SOON_S))
    app, other = make_app(), make_app()
    server = app.context.server
    sent = app.ref("add").enqueue(1, 2)
    await asyncio.sleep(0)  # the queue is about to be listed, by this loop
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < SOON_S
    assert other.context.server.core.command(["SISMEMBER", server.queues_key, app.queue_name]) == 1
    with pytest.raises(BrokerError, match="closed"):
        await sent


async def test_more_than_a_socket_takes_at_once(app: Ardiq) -> None:
    task, large = app.ref("store"), "x" * 3_000_000
    jobs = await asyncio.gather(*(task.enqueue(large) for _ in range(12)))
    info = await jobs[-1].info()
    assert info is not None
    assert info.args == (large,)
    assert is_sound(app)


async def test_a_mailbox_that_is_cut_off_is_read_again(make_app: Callable[..., Ardiq]) -> None:
    app, other = make_app(), make_app()
    jobs: list[Job[Any]] = [await app.send("add", number) for number in range(10)]
    waits = [asyncio.ensure_future(job.result(timeout=SOON_S)) for job in jobs]
    mailbox = app.context.server.channel(asyncio.get_running_loop()).mailbox
    while len(mailbox._wishes) < len(jobs):
        await asyncio.sleep(0.01)
    other.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    for job in jobs:
        await job.abort()
    assert [result.success for result in await asyncio.gather(*waits)] == [False] * 10


def test_loops_one_after_the_other_and_a_pause_between(app: Ardiq) -> None:
    for _ in range(3):
        asyncio.run(app.ref("add").enqueue(1, 2))
    with asyncio.Runner() as runner:
        for _ in range(3):
            runner.run(app.send("add", 1, 2))
            time.sleep(0.05)
    assert asyncio.run(app.queue_size()) == 6
