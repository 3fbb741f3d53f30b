"""What went wrong with waits and steps of others, and what faults do to those here: nothing is lost or done again."""

import asyncio
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from helpers import SOON_S, Script, eventually, field, is_sound, result_of, working
from proxy import Proxy
from topologies import Node, free_port

from ardiq import Ardiq, Job, Signal, TaskError, children, children_sync, sleep, step, step_sync, wait_for
from ardiq.embedded import Server

approval = Signal("approval", bool)
budget = Signal("budget", int)
LONG = timedelta(days=3)


async def test_inngest_1433_a_quick_signal_is_not_lost(app: Ardiq) -> None:
    @app.task
    async def order() -> list[bool | None]:
        await step("ask", lambda: None)
        return [await wait_for(approval, timeout=LONG) for _ in range(20)]

    job = await order.enqueue()
    async with working(app):
        await asyncio.gather(*[job.signal(approval, True) for _ in range(20)])
        assert (await result_of(job)).value == [True] * 20


async def test_durable_workflow_501_a_failure_does_not_pay_again_for_what_was_done(app: Ardiq) -> None:
    paid: list[str] = []
    broken = [True]

    def pay(what: str) -> None:
        if what == "c" and broken:
            raise ConnectionError(what)
        paid.append(what)

    @app.task(max_retries=0)
    async def order() -> None:
        await asyncio.gather(*[step(f"pay {what}", pay, what) for what in "ab"])
        await step("pay c", pay, "c")

    job = await order.enqueue()
    async with working(app):
        with pytest.raises(TaskError):
            await job.value()
        broken.clear()
        assert await app.dead.requeue(job.id)
        await job.value()
    assert sorted(paid) == ["a", "b", "c"]


async def test_dbos_sleep_many_that_sleep_hold_nothing(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=2)

    @app.task
    async def waits() -> None:
        await sleep("long", LONG)

    @app.task
    async def other() -> int:
        return 1

    jobs = [await waits.enqueue() for _ in range(20)]
    async with working(app):
        for job in jobs:
            await eventually(lambda job=job: field(app, job.id, "waits_for"))  # type: ignore[misc]
        assert await other.request() == 1
        for job in jobs:
            assert await job.abort()


PROGRAM = """
    import asyncio, os, sys
    from datetime import timedelta
    from ardiq import Ardiq, Signal, step, step_key, wait_for

    app = Ardiq(sys.argv[1], sys.argv[2], idle_timeout_ms=1000)
    approval = Signal("approval", bool)

    def charge():
        print("charged", flush=True)
        return step_key()

    async def hang():
        print("hangs", flush=True)
        await asyncio.sleep(60 if sys.argv[3] == "dies" else 0)

    @app.task
    async def order() -> str:
        key = await step("charge", charge)
        await step("hang", hang)
        return f"{key} {await wait_for(approval, timeout=timedelta(days=3))}"

    asyncio.run(app.run())
"""


async def test_another_worker_goes_on_behind_the_steps_of_one_that_died(
    app: Ardiq, server: Server, run_script: Callable[..., Script]
) -> None:
    job = await app.ref("order").options(task_id="order-7").enqueue()
    dying = run_script(PROGRAM, server.url, app.queue_name, "dies")
    assert [dying.line(), dying.line()] == ["charged", "hangs"]
    dying.signal(signal.SIGKILL)
    heir = run_script(PROGRAM, server.url, app.queue_name, "lives")
    assert heir.line() == "hangs"
    await eventually(lambda: field(app, job.id, "waits_for"))
    heir.signal(signal.SIGKILL)  # nobody needs it while the task waits
    await job.signal(approval, True)
    run_script(PROGRAM, server.url, app.queue_name, "lives")
    assert (await result_of(job)).value == "order-7/charge True"


PARENT = """
    import asyncio, sys
    from ardiq import Ardiq, ExecutionContext, Suspend, children

    app = Ardiq(sys.argv[1], sys.argv[2], idle_timeout_ms=1000, priorities=["default", "high"])
    dies = sys.argv[3] == "dies"

    @app.middleware
    async def die_before_it_waits(context, call_next):
        try:
            return await call_next()
        except Suspend:
            print("begun", flush=True)
            await asyncio.sleep(60 if dies else 0)
            raise

    @app.task
    async def one(number: int) -> int:
        if dies:
            await asyncio.sleep(60)
        print(f"child {number}", flush=True)
        return number

    @app.task(priority="high")
    async def work() -> list[int]:
        return await children("kids", [one.prepare(number) for number in range(3)])

    asyncio.run(app.run())
"""


async def test_bullmq_3362_children_are_begun_once_and_their_parent_goes_on(
    make_app: Callable[..., Ardiq], server: Server, run_script: Callable[..., Script]
) -> None:
    app = make_app(priorities=["default", "high"])
    job = await app.ref("work").options(task_id="w", priority="high").enqueue()
    dying = run_script(PARENT, server.url, app.queue_name, "dies")
    assert dying.line() == "begun"  # its children are there, and the server does not know that it waits
    assert field(app, "w", "state") == "running"
    dying.signal(signal.SIGKILL)
    heir = run_script(PARENT, server.url, app.queue_name, "lives")
    assert (await result_of(job)).value == [0, 1, 2]
    heir.signal(signal.SIGTERM)
    said = sorted(heir.end()[1].splitlines())
    assert [line for line in said if line != "begun"] == ["child 0", "child 1", "child 2"]
    assert is_sound(app)


@pytest.mark.parametrize("blocking", [False, True])
async def test_children_begin_when_the_server_is_back(blocking: bool, tmp_path: Path) -> None:
    begun: list[int] = []
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    direct = Ardiq(f"redis://127.0.0.1:{node.port}")
    app = Ardiq(f"redis://127.0.0.1:{proxy.port}", broker_timeout_ms=2000)
    here, go = threading.Event(), threading.Event()

    def hold() -> None:
        here.set()
        assert go.wait(SOON_S)

    @app.task
    def one(number: int) -> int:
        begun.append(number)
        return number

    @app.task(name="a")
    async def on_loop() -> list[int]:
        await step("hold", hold)
        return await children("kids", [one.prepare(1), one.prepare(2)])

    @app.task(name="b")
    def in_thread() -> list[int]:
        step_sync("hold", hold)
        return children_sync("kids", [one.prepare(1), one.prepare(2)])

    try:
        job = await direct.ref("b" if blocking else "a").enqueue()
        async with working(app):
            await eventually(here.is_set)
            proxy.swallow()
            proxy.cut()
            go.set()
            await asyncio.sleep(3)  # it gives up once, and asks again
            proxy.heal()
            assert (await result_of(job)).value == [1, 2]
    finally:
        direct.context.server.close()
        app.context.server.close()
        proxy.close()
        node.kill()
    assert sorted(begun) == [1, 2]


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_result_arrives_when_the_server_is_back(blocking: bool, tmp_path: Path) -> None:
    done: list[str] = []
    node = Node(tmp_path / "server", free_port(), {"save": ""})
    node.start()
    proxy = Proxy(node.port)
    direct = Ardiq(f"redis://127.0.0.1:{node.port}")
    app = Ardiq(f"redis://127.0.0.1:{proxy.port}", broker_timeout_ms=1000)
    here, go = threading.Event(), threading.Event()

    def charge() -> str:
        here.set()
        assert go.wait(SOON_S)
        done.append("charged")
        return "receipt"

    @app.task(name="a")
    async def on_loop() -> str:
        return await step("charge", charge)

    @app.task(name="b")
    def in_thread() -> str:
        return step_sync("charge", charge)

    try:
        job = await (in_thread if blocking else on_loop).enqueue()
        async with working(app):
            await eventually(here.is_set)
            proxy.swallow()
            proxy.cut()
            go.set()
            await eventually(lambda: done)
            await asyncio.sleep(2)  # it gives up once, and asks again
            proxy.heal()
            assert (await result_of(Job(direct, job.id))).value == "receipt"
    finally:
        direct.context.server.close()
        app.context.server.close()
        proxy.close()
        node.kill()
    assert done == ["charged"]
