"""Poison: whatever a task does to the process that runs it, it ends as docs/poison.md states it."""

import asyncio
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from helpers import SOON_S, eventually, is_sound, result_of

from ardiq import Ardiq, Job, TaskResult
from ardiq.embedded import Server

LEASE_MS = 800

JOBS = """
    import resource

    def bodies(executor):
        # The same poison for each executor: as `async def`, on a thread, in a child process.
        def kill(): os.kill(os.getpid(), signal.SIGKILL)
        def leave(): os._exit(3)
        def crash(): ctypes.string_at(0)
        def sys_exit(): sys.exit(3)
        def system_exit(): raise SystemExit("enough")
        def interrupt(): raise KeyboardInterrupt
        def recurse(): return recurse()
        def exhaust():
            used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
            try:
                bytearray(1 << 40)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return [kill, leave, crash, sys_exit, system_exit, interrupt, recurse, exhaust]

    def register(executor, body):
        if executor == "async":
            async def run(): return body()
        else:
            def run(): return body()
        run.__name__ = run.__qualname__ = f"{executor}_{body.__name__}"
        run.__module__ = __name__
        options = {} if executor == "async" else {"executor": executor}
        globals()[run.__name__] = app.task(max_retries=0, **options)(run)

    for executor in ("async", "thread", "process"):
        for body in bodies(executor):
            register(executor, body)

    @app.task(max_retries=0)
    async def async_cancel_everything():
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(60)

    @app.task(max_retries=0)
    async def async_close_descriptors():
        os.closerange(3, 1000)
        await asyncio.sleep(60)

    @app.task(max_retries=0, timeout=0.3)
    def thread_deadlock():
        note(f"deadlocked {os.getpid()}")
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    @app.task(max_retries=0, timeout=0.3, executor="process")
    def process_deadlock():
        thread_deadlock.fn()

    @app.task(max_retries=0, timeout=0.3)
    async def async_deadlock():
        lock = asyncio.Lock()
        await lock.acquire()
        await lock.acquire()

    @app.task(max_retries=0, timeout=0.3, executor="process")
    def process_spin():
        while True:
            pass

    @app.task(max_retries=0, timeout=0.3)
    def thread_spin():
        while not os.path.exists("enough"):
            pass

    def hold_on():
        sum(range(10**12))  # never lets go of the interpreter

    @app.task
    async def async_hold():
        hold_on()

    @app.task
    def thread_hold():
        hold_on()

    @app.task(max_retries=0, timeout=0.3, executor="process")
    def process_hold():
        hold_on()

    @app.task
    async def async_block():
        note("blocks")
        time.sleep(2.5)  # longer than three leases

    @app.task
    async def add(a, b):
        return a + b
"""

EXECUTORS = ["async", "thread", "process"]


@pytest.fixture
def fleet(tmp_path: Path, server: Server, make_app: Callable[..., Ardiq]) -> Iterator[Fleet]:
    app = make_app()
    fleet = Fleet(tmp_path, app, server.url, JOBS, idle_timeout_ms=LEASE_MS, max_lost=1)
    yield fleet
    fleet.end()


async def outcome(fleet: Fleet, name: str) -> TaskResult:
    return await result_of(await fleet.app.send(name))


async def still_works(fleet: Fleet) -> None:
    assert (await result_of(await fleet.app.send("add", 1, 2))).value == 3
    assert is_sound(fleet.app)


async def ends_by_itself(fleet: Fleet) -> int:
    return await asyncio.to_thread(fleet.start().wait, SOON_S)


ENDS_ITS_WORKER = [
    *((f"{executor}_kill", -signal.SIGKILL) for executor in ["async", "thread"]),
    *((f"{executor}_leave", 3) for executor in ["async", "thread"]),
    *((f"{executor}_crash", -signal.SIGSEGV) for executor in ["async", "thread"]),
    ("async_cancel_everything", 1),
    ("async_close_descriptors", None),  # 1, or SIGABRT
]


@pytest.mark.parametrize(("name", "code"), ENDS_ITS_WORKER)
async def test_what_ends_its_worker_is_buried_when_it_ended_max_lost_and_one(
    fleet: Fleet, name: str, code: int | None
) -> None:
    job = await fleet.app.send(name)
    for _ in range(2):
        ended = await ends_by_itself(fleet)
        assert ended == code if code is not None else ended != 0
    fleet.start()
    result = await result_of(job)
    assert (result.success, result.value) == (False, "poison: 2 workers died while holding this task")
    assert [letter.task_id for letter in await fleet.app.dead_letters()] == [job.id]
    await still_works(fleet)


async def test_what_ends_its_child_process_fails_that_attempt_alone(fleet: Fleet) -> None:
    worker = fleet.start()
    for what, why in [("kill", "SIGKILL"), ("leave", "exit code 3"), ("crash", "SIGSEGV")]:
        result = await outcome(fleet, f"process_{what}")
        assert not result.success
        assert "ProcessDied" in result.value
        assert why in result.value
    await still_works(fleet)
    assert worker.poll() is None


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_what_is_raised_fails_the_attempt_whatever_it_is(fleet: Fleet, executor: str) -> None:
    worker = fleet.start()
    for what, why in [
        ("sys_exit", "SystemExit(3)"),
        ("system_exit", "SystemExit('enough')"),
        ("interrupt", "KeyboardInterrupt()"),
        ("recurse", "RecursionError('maximum recursion depth exceeded"),
        ("exhaust", "MemoryError("),
    ]:
        result = await outcome(fleet, f"{executor}_{what}")
        assert not result.success
        assert result.value.startswith(why), result.value
    await still_works(fleet)
    assert worker.poll() is None


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_deadlock_ends_with_its_time_limit(fleet: Fleet, executor: str) -> None:
    worker = fleet.start()
    result = await outcome(fleet, f"{executor}_deadlock")
    assert (result.success, result.value) == (False, "timed out after 0.3s")
    await still_works(fleet)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, SOON_S) == 0, "a thread that was left behind holds up no end"


@pytest.mark.parametrize("task", ["thread_spin", "process_spin", "process_hold"])
async def test_what_computes_for_ever_fails_at_its_time_limit(fleet: Fleet, task: str) -> None:
    fleet.start()
    assert (await outcome(fleet, task)).value == "timed out after 0.3s"
    await still_works(fleet)


@pytest.mark.parametrize("executor", ["async", "thread"])
async def test_what_holds_on_to_the_interpreter_for_ever_is_lost_with_its_worker(fleet: Fleet, executor: str) -> None:
    job = await fleet.app.send(f"{executor}_hold")
    for _ in range(2):
        worker = fleet.start("--replace-stalled", "2")
        assert await asyncio.to_thread(worker.wait, SOON_S) == 4
    assert fleet.log().count("no Python code has run for") == 2
    fleet.start()
    assert (await result_of(job)).value == "poison: 2 workers died while holding this task"
    await still_works(fleet)


async def test_what_blocks_the_loop_for_longer_than_the_lease_keeps_it(fleet: Fleet) -> None:
    fleet.start()
    job = await fleet.app.send("async_block")
    await eventually(fleet.notes)
    fleet.start()  # would take it over
    result = await result_of(job)
    assert (result.success, result.tries) == (True, 1)
    assert fleet.notes() == ["blocks"]
    await still_works(fleet)


LEAKING = """
    import resource

    # Should nobody stop the worker, the kernel gives it no more than this, and the machine is not at risk.
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    leaked = []

    def grow(number):
        leaked.append(b"x" * (4 << 20))
        note(f"{number} {os.getpid()}")
        time.sleep(0.03)
        return number

    @app.task
    async def async_leak(number): return grow(number)

    @app.task
    def thread_leak(number): return grow(number)

    @app.task(executor="process")
    def process_leak(number): return grow(number)
"""


@pytest.fixture
def leaking(tmp_path: Path, server: Server, make_app: Callable[..., Ardiq]) -> Iterator[Fleet]:
    # What a worker that ended still held would be missing for longer than any test waits.
    fleet = Fleet(tmp_path, make_app(), server.url, LEAKING, idle_timeout_ms=120_000, concurrency=2, prefetch=20)
    yield fleet
    fleet.end()


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_leak_over_many_tasks_replaces_the_worker_and_loses_nothing(leaking: Fleet, executor: str) -> None:
    leak, jobs = leaking.app.ref(f"{executor}_leak"), list[Job]()

    async def enqueue(count: int) -> None:
        jobs.extend(await leaking.app.enqueue_many(leak.prepare(len(jobs) + more) for more in range(count)))

    await enqueue(120)
    alone = leaking.start("--max-memory-mb", "150")
    assert await asyncio.to_thread(alone.wait, SOON_S) == 0
    assert re.search(r"worker stopping worker_id=\S+: holds \d+ MiB \(--max-memory-mb 150\)", leaking.log())
    # It held more than it had started, and has handed that back: it is there for others at once.
    ran = len(leaking.notes())
    assert 0 < ran < len(jobs)
    assert (await leaking.app.queue_size(), leaking.workers()) == (len(jobs) - ran, [])

    async def is_replaced() -> bool:
        if await leaking.app.queue_size() < 10:
            await enqueue(10)
        return "has reached a limit; starting a new one" in leaking.log()

    workers = leaking.start("--workers", "2", "--max-memory-mb", "150")
    await eventually(is_replaced)
    results = [await result_of(job) for job in jobs]
    assert [(result.value, result.tries) for result in results] == [(number, 1) for number in range(len(jobs))]
    assert sorted(int(line.split()[0]) for line in leaking.notes()) == list(range(len(jobs))), "each ran once"
    workers.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(workers.wait, SOON_S) == 0
    assert re.findall(r".*(?:MemoryError|\blost\b|Traceback|restarting it).*", leaking.log()) == []
    assert is_sound(leaking.app)
