"""Calls alone, which are made by hand, on a line that stalls, breaks off, comes in pieces or says what nobody asked."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import eventually
from proxy import Proxy, _Pair
from topologies import Node, free_port, until

from ardiq import Ardiq, BrokerError
from ardiq.job import Job

both_ways = pytest.mark.parametrize("way", ["blocking", "awaited"])


class Line(Proxy):
    """What comes back may be held, come byte by byte, and once be something else."""

    asked = b""
    is_held = False
    is_slow = False
    passed = 0
    """Bytes that came back."""
    alter: Callable[[bytes], bytes] | None = None
    ends = False

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if not replies:
                    self.asked += data
                    writer.write(data)
                    continue
                while self.is_held:
                    await asyncio.sleep(0.002)
                alter, self.alter = self.alter, None
                if alter is not None:
                    data = alter(data)
                for piece in [data[at : at + 1] for at in range(len(data))] if self.is_slow else [data]:
                    writer.write(piece)
                    await writer.drain()
                    self.passed += len(piece)
                    await asyncio.sleep(0.001 if self.is_slow else 0)
                if alter is not None and self.ends:
                    return

    def release(self) -> None:
        self.is_held = False


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    until(node.answers, "the server", [node])
    line = Line(node.port)
    yield line
    line.is_held = False
    line.close()
    node.kill()


@pytest.fixture
def connect(line: Line) -> Iterator[Callable[..., Ardiq]]:
    apps: list[Ardiq] = []

    def make(**options: Any) -> Ardiq:
        apps.append(Ardiq(f"redis://127.0.0.1:{line.port}", **options))
        return apps[-1]

    yield make
    for app in apps:
        app.context.server.close()


async def warm(app: Ardiq, way: str) -> None:
    """From now on nothing else is under way."""
    for at in range(4):
        await enqueue(app, way, f"before-{at}")


async def enqueue(app: Ardiq, way: str, task_id: str) -> Job[Any]:
    task = app.ref("add").options(task_id=task_id)
    return await (task.enqueue(1, 2) if way == "awaited" else asyncio.to_thread(task.enqueue_sync, 1, 2))


@both_ways
async def test_an_answer_in_pieces(line: Line, connect: Callable[..., Ardiq], way: str) -> None:
    app = connect()
    await warm(app, way)
    line.is_slow = True
    assert not (await enqueue(app, way, "second")).existed
    assert (await enqueue(app, way, "second")).existed


@both_ways
async def test_an_answer_that_breaks_off(line: Line, connect: Callable[..., Ardiq], way: str) -> None:
    app, forgetful = connect(), connect(result_ttl_ms=0)
    for each in (app, forgetful):
        await warm(each, way)
    line.alter, line.ends = (lambda answer: answer[:-3]), True
    job = await enqueue(app, way, "second")
    assert not job.existed  # sent again, and known as the same call
    assert await job.status() == "queued"
    await enqueue(forgetful, way, "third")
    line.alter = lambda answer: answer[:-3]
    with pytest.raises(BrokerError) as told:
        await enqueue(forgetful, way, "fourth")
    assert [job.id for job in told.value.unsure] == ["fourth"]


@both_ways
@pytest.mark.parametrize("nonsense", [b"\r\n", b"?what\r\n", b"$1\r\nabc\r\n", b"*1\r\n$6\r\nqueued\r\n+more\r\n"])
async def test_what_is_no_answer(line: Line, connect: Callable[..., Ardiq], way: str, nonsense: bytes) -> None:
    app = connect(broker_timeout_ms=20_000)
    await warm(app, way)
    line.alter = lambda _: nonsense
    assert await (await enqueue(app, way, "second")).status() == "queued"
    assert (await enqueue(app, way, "second")).existed


@both_ways
async def test_others_do_not_wait_for_an_answer_to_send(line: Line, connect: Callable[..., Ardiq], way: str) -> None:
    app = connect(broker_timeout_ms=60_000)
    await warm(app, way)
    line.is_held = True
    sent = [asyncio.ensure_future(enqueue(app, way, "number-2"))]
    await eventually(lambda: b"number-2" in line.asked)
    sent.append(asyncio.ensure_future(enqueue(app, way, "number-3")))
    await eventually(lambda: b"number-3" in line.asked)
    line.release()
    assert [(job.id, job.existed) for job in await asyncio.gather(*sent)] == [("number-2", False), ("number-3", False)]
    assert (await enqueue(app, way, "number-3")).existed


@both_ways
async def test_an_answer_that_comes_late_is_nobodys(line: Line, connect: Callable[..., Ardiq], way: str) -> None:
    app = connect(broker_timeout_ms=700)
    await warm(app, way)
    line.is_held = True
    with pytest.raises(BrokerError) as told:
        await enqueue(app, way, "second")
    assert [job.id for job in told.value.unsure] == ["second"]
    line.release()
    assert (await enqueue(app, way, "second")).existed
    assert not (await enqueue(app, way, "third")).existed


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_a_signal_handler_enqueues_while_a_call_waits(line: Line, connect: Callable[..., Ardiq]) -> None:
    app = connect(broker_timeout_ms=20_000, result_ttl_ms=0)  # so that nothing is sent twice
    task = app.ref("add")
    asyncio.run(warm(app, "blocking"))
    jobs = []

    def handle(*_: object) -> None:
        threading.Timer(0.2, line.release).start()
        jobs.append(task.options(task_id="inner").enqueue_sync(1, 2))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        line.is_held = True
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        jobs.append(task.options(task_id="outer").enqueue_sync(1, 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [(job.id, job.existed, job.status_sync()) for job in jobs] == [
        ("inner", False, "queued"),
        ("outer", False, "queued"),
    ]


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
@pytest.mark.parametrize("way", ["by hand", "driven"])
def test_an_answer_that_came_while_the_caller_was_busy_is_in_time(
    line: Line, connect: Callable[..., Ardiq], way: str
) -> None:
    """As on a machine that is so busy that the caller has no turn for longer than the call has time."""
    app = connect(broker_timeout_ms=1000)
    core = app.context.server.core
    asyncio.run(warm(app, "blocking"))

    def handle(*_: object) -> None:
        before = line.passed
        line.release()
        while line.passed == before:
            time.sleep(0.002)
        time.sleep(max(0, over - time.monotonic()))

    before = signal.signal(signal.SIGALRM, handle)
    try:
        line.is_held = True
        over = time.monotonic() + 1.1
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        if way == "by hand":
            assert not app.ref("add").options(task_id="second").enqueue_sync(1, 2).existed
        else:
            assert core.command(["ECHO", "here"]) == b"here"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("wait_s", [0, 0.2])  # while the call has the connection by hand, and later
def test_a_call_that_is_closed_does_not_begin_anew(line: Line, connect: Callable[..., Ardiq], wait_s: float) -> None:
    app = connect(broker_timeout_ms=20_000)
    asyncio.run(warm(app, "blocking"))
    line.is_held = True

    def close() -> None:
        while b"closed-early" not in line.asked:
            time.sleep(0.001)
        time.sleep(wait_s)
        app.context.server.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(BrokerError, match=r"closed by close\(\)"):
        app.ref("add").options(task_id="closed-early").enqueue_sync(1, 2)
    closing.join()
