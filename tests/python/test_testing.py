"""`ardiq.testing.inline`: tasks run where they are enqueued. No server listens at this address."""

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually

from ardiq import Ardiq, BrokerError, Retry, Snooze, Task, TaskError, current_task
from ardiq.testing import Clock, _emulation, all_enqueued, assert_enqueued, inline, no_server, on_server


@pytest.fixture
def lonely() -> Ardiq:
    return Ardiq("redis://127.0.0.1:1")


async def test_a_task_has_ended_when_enqueue_returns(lonely: Ardiq) -> None:
    @lonely.task
    async def add(a: int, b: int) -> int:
        return a + b

    @lonely.task
    def shout(text: str) -> str:
        return text.upper()

    async with inline(lonely):
        job = await add.options(delay_ms=3_600_000).enqueue(1, b=2)
        assert (await job.result()).value == 3
        assert await job.status() == "complete"
        assert await job.info() is None
        assert await shout.request("hey") == "HEY"
        many = await lonely.enqueue_many(add.prepare(n, n) for n in range(3))
        assert [(await each.result(timeout=1)).value for each in many] == [0, 2, 4]
        assert (await (await lonely.send("add", 2, 2)).result()).value == 4
        assert await lonely.queue_size() == 0
        assert await lonely.status("nobody") == "not_found"
        with pytest.raises(TimeoutError):
            await lonely.result("nobody", timeout=0.02)


async def test_retries_take_no_time_and_a_failure_is_a_dead_letter(lonely: Ardiq) -> None:
    tries, errors, broken = [], [], True

    @lonely.on_error
    def note(failure):
        errors.append(failure.will_retry)

    @lonely.task(max_retries=2, backoff_ms=3_600_000)
    async def flaky() -> str:
        tries.append(current_task().tries)
        if broken:
            raise ValueError("no")
        return "yes"

    @lonely.task(max_retries=1)
    async def again() -> str:
        if current_task().tries == 1:
            raise Retry
        return "done"

    async with inline(lonely):
        job = await flaky.enqueue()
        result = await job.result()
        assert (result.success, result.tries, tries, errors) == (False, 3, [1, 2, 3], [True, True, False])
        assert len(await job.history()) == 3
        [letter] = await lonely.dead_letters()
        assert (letter.task_id, letter.error, await lonely.dead_count()) == (job.id, "ValueError('no')", 1)
        broken = False
        assert (await (await lonely.replay(job.id)).result()).value == "yes"
        assert not await lonely.delete_dead(job.id)
        assert await again.request() == "done"
        broken = True
        with pytest.raises(TaskError):
            await flaky.request()
        [letter] = await lonely.dead_letters()
        assert await lonely.delete_dead(letter.task_id)
        assert await lonely.dead_count() == 0
        assert await lonely.replay("nobody") is None


async def test_hooks_lifespan_middleware_and_timeouts_act(lonely: Ardiq) -> None:
    seen = []

    @lonely.lifespan
    async def lifespan():
        yield {"greeting": "hi"}
        seen.append("down")

    @lonely.on_enqueue
    async def tag(call):
        call.headers["by"] = "test"

    @lonely.middleware
    async def wrap(ctx, call_next):
        seen.append(ctx.headers["by"])
        return await call_next()

    @lonely.task(timeout=0.01, max_retries=0)
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return lonely.state.greeting

    async with inline(lonely):
        assert await slow.request(0) == "hi"
        assert "timed out" in (await (await slow.enqueue(60)).result()).value
    assert seen == ["test", "test", "down"]


async def test_a_running_task_is_deduplicated_and_aborted(lonely: Ardiq) -> None:
    started, runs = asyncio.Event(), []

    @lonely.task(unique=True)
    async def wait() -> None:
        runs.append(time.monotonic())
        started.set()
        await asyncio.Event().wait()

    async with inline(lonely):
        first = asyncio.create_task(wait.enqueue())
        await started.wait()
        job = await wait.enqueue()
        assert await job.status() == "running"
        assert await job.abort()
        assert await first == job
        assert (await job.result(timeout=1)).aborted
        assert await job.abort()  # as it is
    assert len(runs) == 1


async def test_misuse_is_refused(lonely: Ardiq) -> None:
    @lonely.task(max_retries=0)
    async def give(value: object) -> object:
        return object()

    async with inline(lonely):
        with pytest.raises(TypeError):
            await give.enqueue(object())
        with pytest.raises(TypeError):
            await give.enqueue()
        assert not (await (await give.enqueue(1)).result()).success
        with pytest.raises(RuntimeError, match="already running"):
            await lonely.run()
        with pytest.raises(RuntimeError, match="already running"):
            async with inline(lonely):
                pass


async def test_on_another_event_loop_as_under_a_test_client(lonely: Ardiq) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @lonely.task
    async def where() -> int:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return 5

    async def request() -> object:
        job = await where.enqueue()
        result = await job.result(timeout=5)
        return result and result.value

    async with inline(lonely):
        job = await where.enqueue()

        async def ask() -> object:
            result = await job.result()
            return result and result.value

        # As a test client does, which blocks the test's own loop meanwhile.
        with ThreadPoolExecutor() as pool:
            assert pool.submit(asyncio.run, request()).result(timeout=20) == 5
            assert pool.submit(asyncio.run, ask()).result(timeout=20) == 5
        assert loops[0] is asyncio.get_running_loop()
        assert loops[1] is not loops[0]


async def test_an_abort_in_the_very_first_turn(lonely: Ardiq) -> None:
    started: list[int] = []

    @lonely.task
    async def work() -> None:
        started.append(1)
        await asyncio.sleep(60)

    async with inline(lonely), asyncio.timeout(5):
        enqueued = asyncio.ensure_future(work.options(task_id="mine").enqueue())
        for _ in range(3):
            if await lonely.abort("mine"):
                break
        job = await enqueued
        result = await job.result(timeout=1)
        assert result is not None
        assert result.aborted


def double(number: int) -> int:
    return 2 * number


async def test_a_task_for_a_child_process_runs_here(lonely: Ardiq) -> None:
    task = lonely.task(executor="process")(double)
    async with inline(lonely):
        assert await task.request(4) == 8


async def test_a_snooze_and_reports(lonely: Ardiq) -> None:
    seen: list[int] = []

    @lonely.task(max_retries=0)
    async def later() -> str:
        task = current_task()
        assert task is not None
        seen.append(task.tries)
        task.progress(0.5, "half")
        task.log(f"try {len(seen)}")
        task.notes.update(tries=[*task.notes.get("tries", []), len(seen)], gone=1)
        del task.notes["gone"]
        if len(seen) < 3:
            raise Snooze(3600)
        return "done"

    async with inline(lonely):
        job = await later.enqueue()
        result = await job.result()
        assert result is not None
        assert (result.value, seen) == ("done", [1, 1, 1])
        assert await job.logs() == ["try 1", "try 2", "try 3"]
        assert await job.progress() == (0.5, "half")
        assert await job.notes() == {"tries": [3]}


async def test_limits_of_lanes_hold_and_their_order_counts() -> None:
    app = Ardiq("redis://127.0.0.1:1", priorities=["low", "high"], limits={"low": 1})
    go_on, ran = asyncio.Event(), list[int]()

    @app.task(priority="low")
    async def work(number: int) -> None:
        ran.append(number)
        await go_on.wait()

    urgent = app.task(name="urgent", priority="high")(ran.append)
    async with inline(app), asyncio.timeout(SOON_S):
        first = asyncio.ensure_future(work.enqueue(1))
        await asyncio.sleep(0)
        second = await work.enqueue(2)  # returns, though it has not run: its lane has no slot
        assert (await second.status(), await urgent.request(3), ran) == ("queued", None, [1, 3])
        go_on.set()
        await first
        result = await second.result(timeout=SOON_S)
        assert result is not None
        assert (result.success, ran) == (True, [1, 3, 2])
        await app.pause()
        await app.enqueue_many([work.prepare(4), work.prepare(5), urgent.prepare(6)])
        assert await app.queue_size() == 3
        await app.resume()
        assert ran[3:5] == [6, 4]
        await eventually(lambda: len(ran) == 6)


async def test_a_queue_is_sound_and_purged_by_the_rules_of_a_server(lonely: Ardiq) -> None:
    @lonely.task(max_retries=0)
    async def work() -> None:
        raise ValueError

    async with inline(lonely, clock=Clock()):
        core = lonely.context.server.core
        letter = await work.enqueue()
        later = await work.options(delay=60).enqueue()
        for section in ("records", "scheduled", "dead", "workers", "loads"):
            assert core.call("fsck_page", [section, "0", 100])[2:] == []
        assert core.call("purge", ["scheduled", "", 0, 100, 60_000])[0] == 1
        assert (await lonely.dead.purge(), await lonely.queue_size()) == (1, 0)
        for job in (letter, later):
            result = await job.result()
            assert result is not None
            assert not result.success


async def test_without_the_extra_it_says_what_to_install(lonely: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lupa", "lupa.luajit21", "lupa.lua51"):
        monkeypatch.setitem(sys.modules, name, None)
    _emulation._library.cache_clear()
    with pytest.raises(RuntimeError, match=r"pip install 'ardiq\[testing\]'"):
        async with inline(lonely):
            pass
    monkeypatch.undo()
    async with inline(lonely):
        pass


async def test_it_needs_no_luajit(lonely: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    add = lonely.task(name="add")(lambda a, b: a + b)
    monkeypatch.setitem(sys.modules, "lupa.luajit21", None)
    _emulation._library.cache_clear()
    async with inline(lonely):
        assert await add.request(1, 2) == 3
    monkeypatch.undo()
    _emulation._library.cache_clear()


def signs_up(app: Ardiq) -> tuple[Task[..., Any], Task[..., Any]]:
    """Two tasks: `greet`, and `remind`, which `greet` enqueues."""

    @app.task
    async def greet(name: str, polite: bool = True) -> None:
        await remind.options(delay_ms=60_000).enqueue(when=date(2026, 3, 1))

    @app.task
    async def remind(when: date) -> None: ...

    return greet, remind


async def test_what_was_enqueued_inline(lonely: Ardiq) -> None:
    greet, remind = signs_up(lonely)
    async with inline(lonely, clock=Clock(datetime(2026, 1, 1, tzinfo=UTC))):
        assert all_enqueued(lonely) == []
        await greet.enqueue("Ada")
        await greet.options(queue="other").enqueue(name="Grace", polite=False)
        found = sorted((info.fn_name, info.status) for info in all_enqueued(lonely))
        assert found == [("greet", "complete")] * 2 + [("remind", "scheduled")] * 2
        assert [info.fn_name for info in all_enqueued(lonely.queue("other"))] == ["greet"]
        assert assert_enqueued(remind, date(2026, 3, 1)).args == ()
        assert_enqueued(greet, name="Ada", polite=True)
        assert_enqueued(greet, "Grace", False)
        assert_enqueued(lonely.ref("greet"), "Ada")
        with pytest.raises(AssertionError) as failed:
            assert_enqueued(greet, "Alan")
        assert str(failed.value).splitlines() == [
            "greet('Alan') was not enqueued; of that task, these were:",
            "  greet('Ada'), complete",
            "  greet(name='Grace', polite=False), complete",
        ]
        with pytest.raises(AssertionError, match=r"none\(\) was not enqueued, nor was any other 'none'"):
            assert_enqueued(lonely.ref("none"))
        with pytest.raises(TypeError, match="name"):
            assert_enqueued(greet, nam="Ada")
    async with inline(lonely):
        assert all_enqueued(greet) == []


@dataclass
class Parcel:
    weight: int


async def test_calls_are_compared_as_the_task_gets_them(lonely: Ardiq) -> None:
    @lonely.task
    async def post(parcel: Parcel, day: date | None = None) -> None: ...

    plain: Any = {"weight": 2}
    async with inline(lonely):
        await post.enqueue(Parcel(1))
        await lonely.send("post", {"weight": 2}, day="2026-03-01")
        assert_enqueued(post, Parcel(1))
        assert_enqueued(lonely.ref("post"), {"weight": 1})
        assert assert_enqueued(post, Parcel(2), date(2026, 3, 1)).kwargs == {"day": "2026-03-01"}
        assert_enqueued(post, plain, day=date(2026, 3, 1))
        with pytest.raises(AssertionError, match="was not enqueued"):
            assert_enqueued(post, Parcel(2))


def test_what_was_enqueued_on_a_server(app: Ardiq) -> None:
    greet, remind = signs_up(app)
    job = greet.enqueue_sync("Ada")
    app.queue(f"{app.queue_name}_other").send_sync("greet", "Grace")
    assert assert_enqueued(greet, "Ada").task_id == job.id
    assert assert_enqueued(greet, "Grace").status == "queued"
    assert all_enqueued(remind) == []
    asyncio.run(drain(app))
    assert assert_enqueued(greet, "Ada").status == "complete"
    assert_enqueued(remind, when=date(2026, 3, 1))


def test_a_test_does_not_reach_a_real_server(lonely: Ardiq, server: Any) -> None:
    greet, _ = signs_up(lonely)
    with pytest.raises(AssertionError, match=r"queue 'default' of redis://127.0.0.1:1.*: use inline"), no_server():
        greet.enqueue_sync("Ada")
    with pytest.raises(AssertionError, match="queue 'default'"), no_server(), suppress(Exception):
        greet.enqueue_sync("Ada")  # whoever is tested may catch it

    async def sends() -> None:
        await greet.enqueue("Ada")

    secret = Ardiq("redis://me:geheim@127.0.0.1:1")
    with pytest.raises(AssertionError) as failed, no_server():
        asyncio.run(secret.send("greet"))
    assert "geheim" not in str(failed.value)
    with pytest.raises(AssertionError, match="queue 'default'"), no_server():
        asyncio.run(sends())

    async def inlined() -> None:
        async with inline(lonely):
            await sends()

    with no_server():
        asyncio.run(inlined())
        with on_server(lonely, server.url):
            asyncio.run(sends())
            lonely.queue("other").send_sync("greet", "Ada")
            assert len(all_enqueued(lonely)) == 2
    with pytest.raises(BrokerError):  # as before
        Ardiq("redis://127.0.0.1:1", broker_timeout_ms=50).send_sync("greet")
