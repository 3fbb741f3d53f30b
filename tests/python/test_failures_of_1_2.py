"""What ArdiQ 1.2 gets wrong, each failure as a test of that name, and right here."""

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from helpers import SOON_S, Script, eventually, field, is_sound, result_of, working

from ardiq import Ardiq
from ardiq.embedded import Server

JOBS = """
    @app.task
    async def block(seconds: float) -> int:
        note(f"block {os.getpid()}")
        time.sleep(seconds)
        return os.getpid()

    @app.task
    async def suicide() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task
    async def quick(number: int) -> int:
        note(f"quick {number}")
        return number
"""


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    return make_app(idle_timeout_ms=1_000, poll_block_ms=500)


@pytest.fixture
def make_fleet(tmp_path: Path, server: Server, app: Ardiq) -> Iterator[Callable[..., Fleet]]:
    fleets: list[Fleet] = []

    def make(**options: Any) -> Fleet:
        fleets.append(Fleet(tmp_path, app, server.url, JOBS, idle_timeout_ms=1_000, **options))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.end()


async def test_one_dropped_connection_ends_the_worker_with_exit_code_0(
    app: Ardiq, make_fleet: Callable[..., Fleet]
) -> None:
    worker = make_fleet().start()
    for number in range(10):
        assert (await result_of(await app.send("quick", number))).value == number
        app.context.server.core.command(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
    assert (await result_of(await app.send("quick", 10))).value == 10
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, SOON_S) == 0
    assert is_sound(app)


async def test_prefetched_tasks_are_not_covered_by_the_lease_so_neighbours_of_a_long_task_run_twice(
    app: Ardiq, make_fleet: Callable[..., Fleet]
) -> None:
    long = [await app.send("block", 2.5)]  # longer than two leases
    long += await app.enqueue_many(app.ref("quick").prepare(number) for number in range(50))
    fleet = make_fleet(concurrency=20, prefetch=50)
    fleet.start()
    await eventually(fleet.notes)
    fleet.start()
    results = [await result_of(job) for job in long]
    assert [result.tries for result in results] == [1] * 51
    assert sorted(fleet.notes()) == sorted([fleet.notes()[0], *(f"quick {number}" for number in range(50))])
    assert {field(app, job.id, "lost") for job in long} == {None}
    assert is_sound(app)


async def test_a_worker_that_lost_its_lease_can_still_finish_the_task(
    app: Ardiq, make_fleet: Callable[..., Fleet]
) -> None:
    fleet = make_fleet()
    first = fleet.start()
    job = await app.send("block", 0.5)
    await eventually(lambda: fleet.notes() == [f"block {first.pid}"])
    first.send_signal(signal.SIGSTOP)
    second = fleet.start()
    await eventually(lambda: f"block {second.pid}" in fleet.notes())
    result = await result_of(job)
    assert result.value == second.pid
    first.send_signal(signal.SIGCONT)
    await eventually(lambda: "lease" in fleet.log())
    await eventually(lambda: len([worker for worker in fleet.workers() if worker.is_alive]) == 2)  # both work again
    assert await job.result() == result
    first.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, SOON_S) == 0
    assert is_sound(app)


async def test_a_task_that_kills_its_worker_comes_back_for_ever(app: Ardiq, make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(max_lost=2)
    poison = await app.send("suicide")
    innocent = await app.enqueue_many(app.ref("quick").prepare(number) for number in range(20))
    for _ in range(3):
        assert await asyncio.to_thread(fleet.start().wait, SOON_S) == -signal.SIGKILL
    fleet.start()
    result = await result_of(poison)
    assert (result.success, result.value) == (False, "poison: 3 workers died while holding this task")
    assert [(await result_of(job)).value for job in innocent] == list(range(20))
    assert [letter.task_id for letter in await app.dead_letters()] == [poison.id]
    assert is_sound(app)


async def test_a_reclaim_scan_never_reaches_an_entry_behind_many_live_ones(app: Ardiq) -> None:
    @app.task
    async def work() -> str:
        return "done"

    core = app.context.server.core
    lanes = json.dumps(app.priorities)
    for worker in (f"live:{number}" for number in range(20)):
        core.call("join", [worker, 600_000, "{}", lanes, 1])
        await app.enqueue_many(work.prepare() for _ in range(100))
        assert len(core.call("claim", [worker, lanes, 100, 600_000])) > 100
    job = await work.enqueue()
    core.call("join", ["dead:1", 1_000, "{}", lanes, 1])
    assert job.id.encode() in core.call("claim", ["dead:1", lanes, 1, 600_000])
    async with working(app):
        assert (await result_of(job)).value == "done"
    assert field(app, job.id, "lost") == "1"


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "gc.collect()", "del app, task"])
def test_a_segmentation_fault_at_interpreter_exit_of_a_short_producer_script(
    app: Ardiq, server: Server, run_script: Callable[..., Script], ending: str
) -> None:
    source = f"""
        import asyncio, gc, sys
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})
        task = app.ref("task")
        async def main():
            await asyncio.gather(*(task.enqueue(i) for i in range(100)))
            task.enqueue(100)
            await asyncio.sleep(0)
        asyncio.run(main())
        {ending}
        """
    scripts = [run_script(source) for _ in range(5)]
    for script in scripts:
        code, _, errors = script.end()
        assert (code, errors) == (0, "")
    assert asyncio.run(app.queue_size()) >= 500


@asynccontextmanager
async def encrypted(server: Server) -> AsyncIterator[int]:
    """A TLS line to the server, which has none; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    lines: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(asyncio.current_task())
        to_server = await asyncio.open_unix_connection(server.socket)
        await asyncio.gather(copy(reader, to_server[1]), copy(to_server[0], writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await asyncio.gather(*(line for line in lines if line is not None))


CERTIFICATE = Path(__file__).with_name("localhost.pem")


async def test_no_tls(server: Server, make_app: Callable[..., Ardiq]) -> None:
    async with encrypted(server) as port:
        app = make_app(redis_url=f"rediss://localhost:{port}?ssl_ca_certs={CERTIFICATE}")

        @app.task
        async def add(a: int, b: int) -> int:
            return a + b

        async with working(app):
            assert (await result_of(await add.enqueue(1, 2))).value == 3
        app.context.server.close()
