"""Workers as processes: killed, stopped, interrupted."""

import signal
from collections.abc import Callable

import pytest
from helpers import Script, field, is_sound, result_of

from ardiq import Ardiq
from ardiq.embedded import Server

RunScript = Callable[..., Script]


WORKER = """
    import asyncio, os, sys, time
    from ardiq import Ardiq, current_task

    app = Ardiq(sys.argv[1], sys.argv[2], idle_timeout_ms=1000, poll_block_ms=500, concurrency=4)

    @app.task
    async def hold(seconds):
        print("holding", current_task().task_id, flush=True)
        await asyncio.sleep(seconds)
        return os.getpid()

    @app.task
    def hold_sync(seconds):
        print("holding", current_task().task_id, flush=True)
        time.sleep(seconds)
        return os.getpid()

    @app.task(max_retries=0)
    async def block(seconds):
        print("holding", current_task().task_id, flush=True)
        time.sleep(seconds)
        return os.getpid()

    @app.task
    async def quick(number):
        return number

    async def main():
        import signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)
        print("up", flush=True)
        await app.run()

    asyncio.run(main())
    print("down", flush=True)
"""


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    return make_app(idle_timeout_ms=1000, poll_block_ms=500)


@pytest.fixture
def start_worker(app: Ardiq, server: Server, run_script: RunScript) -> Callable[[], Script]:
    def start() -> Script:
        worker = run_script(WORKER, server.url, app.queue_name)
        assert worker.line() == "up"
        return worker

    return start


@pytest.mark.parametrize("task", ["hold", "hold_sync"])
async def test_a_killed_worker_s_task_runs_on_another(
    app: Ardiq, start_worker: Callable[[], Script], task: str
) -> None:
    first = start_worker()
    job = await app.send(task, 60)
    assert first.line() == f"holding {job.id}"
    waiting = [await app.send("quick", i) for i in range(5)]
    second = start_worker()
    first.signal(signal.SIGKILL)
    assert second.line() == f"holding {job.id}"
    assert field(app, job.id, "lost") == "1"
    for i, each in enumerate(waiting):
        assert (await result_of(each)).value == i
    assert await job.status() == "running"
    assert await app.queue_size() == 1
    assert is_sound(app)


async def test_a_task_that_holds_the_gil_longer_than_the_lease_keeps_it(
    app: Ardiq, start_worker: Callable[[], Script]
) -> None:
    first, second = start_worker(), start_worker()
    job = await app.send("block", 2.5)
    result = await result_of(job)
    assert result.tries == 1
    assert field(app, job.id, "lost") is None
    assert result.value in (first.process.pid, second.process.pid)


async def test_sigterm_ends_a_worker_gracefully(app: Ardiq, start_worker: Callable[[], Script]) -> None:
    worker = start_worker()
    job = await app.send("hold", 0.3)
    assert worker.line() == f"holding {job.id}"
    worker.signal(signal.SIGTERM)
    code, out, errors = worker.end()
    assert (code, errors) == (0, "")
    assert "down" in out
    assert (await result_of(job)).value == worker.process.pid
    assert app.context.server.core.call("workers", ["0", 10])[3:] == []


@pytest.mark.parametrize("task", ["hold", "hold_sync"])
async def test_ctrl_c_ends_a_worker_and_hands_back(app: Ardiq, start_worker: Callable[[], Script], task: str) -> None:
    worker = start_worker()
    job = await app.send(task, 60)
    assert worker.line() == f"holding {job.id}"
    worker.signal(signal.SIGINT)
    code, _, errors = worker.end()
    assert code in (130, -signal.SIGINT, 1)
    assert "KeyboardInterrupt" in errors
    assert await job.status() == "queued"
    assert is_sound(app)
