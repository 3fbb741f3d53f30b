"""The pytest plugin, as a user's project has it: each test here runs pytest in a directory of its own."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Runs = Callable[..., "subprocess.CompletedProcess[str]"]

SHOP = """
    from ardiq import Ardiq, current_task

    app = Ardiq("redis://127.0.0.1:1", "shop")  # nobody listens there
    log = []

    @app.task
    async def greet(name: str) -> str:
        log.append(name)
        return f"Hello, {name}"

    @app.task(max_retries=0)
    def thread(name: str) -> str:
        return greet.enqueue_sync(name).result_sync(timeout=20).value

    @app.task(executor="process", max_retries=0)
    def process(name: str) -> str:
        return greet.enqueue_sync(name).id

    @app.cron("* * * * * *")
    def tick() -> None:
        log.append("tick")
"""


@pytest.fixture
def run_pytest(tmp_path: Path, ardiq_server: str) -> Runs:
    """Runs the tests of a project that has the package `shop`."""

    def run(tests: str, *arguments: str, ini: str = "ardiq_app = shop:app", expect: int = 0, **environment: str):
        (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
        (tmp_path / "test_shop.py").write_text(textwrap.dedent(tests))
        (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\nfilterwarnings = error\n{ini}\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**os.environ, "ARDIQ_TEST_SERVER": ardiq_server, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    return run


PLAIN = ("-p", "no:asyncio", "-p", "no:anyio")


def test_sync_tests(run_pytest: Runs) -> None:
    done = run_pytest(
        """
        import pytest
        import shop

        def test_waiting(ardiq_worker):
            assert shop.greet.enqueue_sync("Ada").result_sync(timeout=20).value == "Hello, Ada"

        def test_until_idle(ardiq_app, ardiq_worker):
            assert ardiq_app is shop.app and ardiq_worker.app is shop.app
            shop.log.clear()
            for name in "abc":
                shop.greet.enqueue_sync(name)
            shop.greet.options(delay_ms=600_000).enqueue_sync("later")
            ardiq_worker.wait_until_idle()
            assert sorted(shop.log) == ["a", "b", "c"]

        def test_without_a_worker_tasks_wait(ardiq_app):
            job = shop.greet.enqueue_sync("Ada")
            assert job.result_sync() is None

        def test_tasks_that_enqueue_in_threads_and_processes(ardiq_worker):
            assert shop.thread.enqueue_sync("Ada").result_sync(timeout=20).value == "Hello, Ada"
            result = shop.process.enqueue_sync("Ada").result_sync(timeout=60)
            assert result.success, result
            assert shop.app.result_sync(result.value, timeout=20).value == "Hello, Ada"

        def test_idle_in_vain(ardiq_app, ardiq_worker):
            import threading

            go_on = threading.Event()

            @ardiq_app.task(name="slow")
            def slow():
                go_on.wait(20)

            slow.enqueue_sync()
            with pytest.raises(TimeoutError, match="queue 'shop' are still ready and"):
                ardiq_worker.wait_until_idle(timeout=0.01)
            go_on.set()

        def test_what_was_registered_in_a_test_is_forgotten(ardiq_app):
            assert "slow" not in ardiq_app.tasks and "greet" in ardiq_app.tasks

        def test_afterwards_it_is_as_before():
            assert (shop.app.redis_url, shop.app.prefix) == ("redis://127.0.0.1:1", "ardiq")
            assert not shop.app.run_state.is_running and shop.app.run_state.fires_schedules
            assert "tick" not in shop.log
        """,
        *PLAIN,
    )
    assert "7 passed" in done.stdout


ASYNC = """
    import asyncio
    import pytest
    import shop
    {mark}

    async def test_waiting(ardiq_worker):
        assert await shop.greet.request("Ada") == "Hello, Ada"

    async def test_many(ardiq_app, ardiq_worker):
        jobs = await ardiq_app.enqueue_many(shop.greet.prepare(n) for n in "abc")
        assert [(await job.result(timeout=20)).value for job in jobs] == ["Hello, a", "Hello, b", "Hello, c"]

    async def test_a_worker_on_the_tests_own_loop(ardiq_app):
        job = await shop.greet.enqueue("Ada")
        ardiq_app.burst = True
        await ardiq_app.run()
        assert (await job.result()).success

    def test_burst_was_for_one_test(ardiq_app):
        assert not ardiq_app.burst
"""


@pytest.mark.parametrize(
    ("mark", "arguments"),
    [
        ("pytestmark = pytest.mark.asyncio", ("-o", "asyncio_default_fixture_loop_scope=function")),
        (
            "pytestmark = pytest.mark.asyncio(loop_scope='session')",
            ("-o", "asyncio_default_fixture_loop_scope=session"),
        ),
        (
            "pytestmark = pytest.mark.anyio\n    anyio_backend = pytest.fixture(lambda: 'asyncio')",
            ("-p", "no:asyncio"),
        ),
    ],
    ids=["asyncio", "asyncio-session", "anyio"],
)
def test_async_tests(run_pytest: Runs, mark: str, arguments: tuple[str, ...]) -> None:
    mark += "\n    test_burst = pytest.mark.filterwarnings('ignore')" if "asyncio(" in mark else ""
    run_pytest(ASYNC.format(mark=mark), *arguments, "-W", "ignore::pytest.PytestWarning")


def test_an_embedded_server_and_an_app_of_the_test(run_pytest: Runs) -> None:
    run_pytest(
        """
        def test_it(ardiq_app, ardiq_worker):
            @ardiq_app.task
            def add(a: int, b: int) -> int:
                return a + b
            # The worker was there before the task.
            assert add.enqueue_sync(1, 2).result_sync(timeout=20).value == 3

        def test_next(ardiq_app):
            assert ardiq_app.tasks == []
        """,
        *PLAIN,
        ini="",
        ARDIQ_TEST_SERVER="",
    )


def test_what_goes_wrong_is_said(run_pytest: Runs) -> None:
    tests = """
        import shop

        @shop.app.lifespan
        async def broken():
            raise LookupError("no database")
            yield

        def test_it(ardiq_worker):
            pass
    """
    assert "LookupError: no database" in run_pytest(tests, *PLAIN, expect=1).stdout
    tests = "def test_it(ardiq_app): pass"
    done = run_pytest(tests, *PLAIN, ini="ardiq_app = shop:nobody", expect=1)
    assert "the ini option ardiq_app: module 'shop' has no 'nobody'" in done.stdout + done.stderr


def test_a_task_that_does_not_end_is_cancelled(run_pytest: Runs) -> None:
    done = run_pytest(
        """
        import asyncio
        from ardiq.testing import on_server, worker

        def test_it(ardiq_app):
            @ardiq_app.task
            async def hang():
                started.set()
                await asyncio.sleep(600)

            import threading
            started = threading.Event()
            with worker(ardiq_app) as running:
                hang.enqueue_sync()
                assert started.wait(20)
                running.stop(timeout=0.05)
        """,
        *PLAIN,
    )
    assert "1 passed" in done.stdout


def test_whoever_does_not_use_it_does_not_import_ardiq(run_pytest: Runs) -> None:
    run_pytest(
        """
        import sys

        def test_it(request):
            assert request.config.pluginmanager.has_plugin("ardiq")
            assert not [name for name in sys.modules if name.split(".")[0] == "ardiq"]
        """,
        *PLAIN,
    )


def test_nothing_is_left_behind(ardiq_app, ardiq_server: str) -> None:
    from ardiq import Ardiq
    from ardiq.testing import on_server

    app = Ardiq(queue_name="elsewhere")
    core = ardiq_app.context.server.core
    with on_server(app, ardiq_server, prefix="te*st"):
        app.ref("work").enqueue_sync(1)
        assert core.command(["DBSIZE"]) > 0
        others = core.command(["SET", "te_st:1", "somebody's"])
        assert others is not None
    assert core.command(["KEYS", "te\\*st:*"]) == []
    assert core.command(["DEL", "te_st:1"]) == 1


def test_a_test_that_would_reach_a_real_server_fails(run_pytest: Runs) -> None:
    tests = """
        import pytest
        from ardiq.testing import assert_enqueued
        from shop import app, greet

        def test_for_real():
            greet.enqueue_sync("Ada")

        @pytest.fixture
        def prepared():
            greet.enqueue_sync("Ada")

        def test_in_a_fixture(prepared): ...

        def test_with_the_fixture(ardiq_app):
            greet.enqueue_sync("Ada")
            assert_enqueued(greet, "Ada")

        def test_with_a_worker(ardiq_worker):
            assert greet.enqueue_sync("Ada").value_sync(timeout=20) == "Hello, Ada"

        @pytest.mark.ardiq_server
        def test_on_purpose():
            with pytest.raises(Exception, match="cannot reach"):
                greet.enqueue_sync("Ada")
    """
    done = run_pytest(tests, "-p", "no:asyncio", ini="ardiq_app = shop:app\nardiq_no_server = true", expect=1)
    assert "1 failed, 3 passed, 1 error" in done.stdout
    assert "a test would have reached queue 'shop' of redis://127.0.0.1:1" in done.stdout
