"""Workflows with nodes in other queues of the same server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import SOON_S, eventually, node_states, result_of

from ardiq import Ardiq, Flow, Job, Results, chain, chord, step
from ardiq._execution.carrier import Carrier
from ardiq._server import calls
from ardiq._server.replies import Call, ask, word
from ardiq._values.encodings import netstrings
from ardiq.cli import main
from ardiq.cli._repair import mend
from ardiq.errors import BadArgument
from ardiq.testing import inline

LARGE = 100_000


def tasks_of(app: Ardiq) -> Any:
    failing: set[str] = set()
    ran: list[str] = []
    release = asyncio.Event()

    @app.task(max_retries=0)
    async def give(value: int) -> int:
        return value

    @app.task(max_retries=0)
    async def double(value: int) -> int:
        ran.append("double")
        if "double" in failing:
            raise ValueError("no card is free")
        return 2 * value

    @app.task
    async def wait(value: int) -> int:
        ran.append("wait")
        await release.wait()
        return value

    @app.task
    def total(values: list[int], plus: int = 0) -> int:
        return sum(values) + plus

    @app.task
    async def text(length: int) -> str:
        return "x" * length

    @app.task
    async def count(of: str, values: Results[int], listed: list[int]) -> list[int]:
        return [len(of), sum([each async for each in values]), len(listed)]

    return SimpleNamespace(
        give=give, double=double, wait=wait, total=total, text=text, count=count, failing=failing, ran=ran,
        release=release,
    )  # fmt: skip


@pytest.fixture
def gpu(app: Ardiq) -> Iterator[Ardiq]:
    other = app.queue(f"{app.queue_name}-gpu")
    yield other
    core = other.context.server.core
    if keys := core.command(["KEYS", f"{other.context.server.base}*"]):
        core.command(["DEL", *keys])


@asynccontextmanager
async def served(app: Ardiq, *queues: Ardiq) -> AsyncIterator[None]:
    run = asyncio.create_task(app.run([each.queue_name for each in queues or (app,)]))
    try:
        yield
    finally:
        app.stop()
        async with asyncio.timeout(SOON_S):
            await run


def outbox_of(app: Ardiq) -> list[calls.OutboxRow]:
    return ask(app.context.server.core, calls.outbox(limit=100))


def say(app: Ardiq, row: calls.OutboxRow) -> str:
    """As a carrier does, of a function with one answer."""
    read = (lambda reply: word(reply[0])) if row.function == "enqueue" else word
    other = app.queue(row.queue).context.server.core
    return ask(other, Call(row.function, tuple(netstrings(row.arguments)), read))


def state(app: Ardiq, task_id: str) -> str:
    return ask(app.context.server.core, calls.task(id=task_id)).get("state", b"").decode()


def guest(job: Job, name: str) -> str:
    """The id that a node has in another queue."""
    return f"{job.id}~{name}@{job.app.queue_name}"


def done(app: Ardiq, row: calls.OutboxRow, answer: str) -> int:
    entries = [calls.OutboxEntry(row.entry, row.life, answer)]
    return ask(app.context.server.core, calls.outbox_done(entries=entries))


def carry(app: Ardiq) -> None:
    """All that is there, once."""
    for row in outbox_of(app):
        done(app, row, say(app, row) if row.queue else "")


async def test_there_and_back(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("away")
    first = flow.add(tasks.give.prepare(3))
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(first.result))
    last = flow.add(tasks.give.prepare(there.result))
    job = await app.start(flow, output=last)
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == 6
        result = await result_of(job.node("double"))
        assert (result.value, result.success) == (6, True)
        await eventually(lambda: not outbox_of(gpu))
    assert [node.queue async for node in job.nodes()] == ["", gpu.queue_name, ""]
    assert await gpu.status(guest(job, "double")) == "complete"


async def test_each_queue_has_a_worker_of_its_own(app: Ardiq, gpu: Ardiq, make_app: Any) -> None:
    tasks = tasks_of(app)
    there = make_app(queue_name=gpu.queue_name)
    tasks_of(there)
    # Its first nodes are away, and one that follows one which is.
    links = [gpu.ref("give").prepare(n) for n in range(3)]
    job = await chord(links, gpu.ref("total"), plus=1).start()
    chained = await chain(gpu.ref("double").prepare(1)).then(tasks.double).then(gpu.ref("double")).start()
    async with served(app), served(there):
        assert await job.value(timeout=SOON_S) == 4
        assert await chained.value(timeout=SOON_S) == 8


async def test_large_results_and_those_of_maps_are_read_at_home(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("large")
    long = flow.add(tasks.text.prepare(LARGE))
    numbers = flow.map(tasks.give, range(10))
    last = flow.add(tasks.count.options(queue=gpu.queue_name).prepare(long.result, numbers.result, numbers.results))
    back = flow.add(tasks.text.options(queue=gpu.queue_name).prepare(LARGE), name="back").after(last)
    job = await app.start(flow, output=last)
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == [LARGE, 45, 10]
        assert len(await job.node(back.name).value(timeout=SOON_S)) == LARGE


async def test_what_failed_there_is_a_dead_letter_here(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    tasks.failing.add("double")
    flow = Flow("fails")
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(3))
    last = flow.add(tasks.give.prepare(there.result))
    job = await app.start(flow, output=last)
    async with served(app, app, gpu):
        assert not (await result_of(job)).success
        [letter] = await app.dead_letters()
        assert (letter.task_id, letter.error) == (f"{job.id}~double", "ValueError('no card is free')")
        assert await gpu.dead_letters() == []
        tasks.failing.clear()
        assert await job.retry() == 1
        assert await job.value(timeout=SOON_S) == 6
        tasks.failing.add("double")
    assert tasks.ran == ["double", "double"]
    assert await app.dead_count() == await gpu.dead_count() == 0


async def test_abort(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)

    def flow() -> Flow:
        made = Flow("aborted")
        for name in ("one", "two"):
            made.add(tasks.wait.options(queue=gpu.queue_name).prepare(1), name=name)
        return made

    waits = await app.start(flow())
    carry(app)
    assert await waits.node("one").status() == "away"
    assert await gpu.status(guest(waits, "one")) == "queued"
    async with served(app):
        assert await waits.abort()
        await eventually(lambda: gpu.context.server.core.command(["LLEN", f"{gpu.context.server.base}outbox"]) == 2)
    carry(gpu)
    assert (state(app, waits.id), state(gpu, guest(waits, "one"))) == ("aborted", "aborted")

    runs = await app.start(flow())
    async with served(app, app, gpu):
        await eventually(lambda: tasks.ran == ["wait", "wait"])
        assert await runs.node("one").abort()
        await eventually(lambda: state(app, runs.node("one").id) == "aborted")
        tasks.release.set()
        assert not (await result_of(runs)).success
    assert {node.name: node.state async for node in runs.nodes()} == {"one": "aborted", "two": "complete"}


async def test_what_never_arrived_is_aborted_at_once(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("never", id="never-1")
    flow.add(tasks.double.options(queue=gpu.queue_name).prepare(1))
    job = await app.start(flow)
    late = outbox_of(app)
    assert await job.abort()
    carry(app)
    assert state(app, job.id) == "aborted"
    # Whoever is late begins it there to no effect.
    [row] = late
    assert say(app, row) == "queued"
    async with served(app, gpu):
        await eventually(lambda: tasks.ran == ["double"])
        await eventually(lambda: not outbox_of(gpu))
    assert (state(app, job.id), state(app, job.node("double").id)) == ("aborted", "aborted")


async def test_carried_twice_or_late(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    tasks.failing.add("double")
    flow = Flow("twice", id="twice-1")
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(3))
    job = await app.start(flow, output=there)
    # A worker dies when it has told the other queue, and another one tells it again.
    [begins] = outbox_of(app)
    assert say(app, begins) == "queued"
    assert (say(app, begins), done(app, begins, "accepted")) == ("accepted", 1)
    async with served(app, gpu):
        await eventually(lambda: tasks.ran == ["double"])
        await result_of(job)
    tasks.failing.clear()
    assert await job.retry() == 1
    # Who is late with the first life begins nothing, and takes nothing away.
    assert say(app, begins) == "accepted"
    assert done(app, begins, "accepted") == 0
    [ends] = outbox_of(gpu)
    assert (ends.function, say(gpu, ends)) == ("home_ended", "accepted")
    assert done(gpu, ends, "accepted") == 1
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == 6
    # Nor is anything heard of it twice.
    assert say(gpu, ends) == "accepted"
    assert (tasks.ran, state(app, job.id)) == (["double", "double"], "complete")


async def test_without_its_home_a_guest_is_a_task_like_any(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    tasks.failing.add("double")
    flow = Flow("gone")
    flow.add(tasks.double.options(queue=gpu.queue_name).prepare(3))
    job = await app.start(flow)
    carry(app)
    core, base = app.context.server.core, app.context.server.base
    core.command(["DEL", *core.command(["KEYS", f"{base}*"])])
    async with served(app, gpu):
        async with asyncio.timeout(SOON_S):
            while await gpu.dead_count() != 1:
                await asyncio.sleep(0.01)
        tasks.failing.clear()
        assert await gpu.dead.requeue(guest(job, "double")) == 1
        assert (await result_of(Job(gpu, guest(job, "double")))).value == 6


async def test_what_was_lost_there_is_asked_for_again(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("lost")
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(3))
    job = await app.start(flow, output=there)
    carry(app)
    core = gpu.context.server.core
    core.command(["DEL", *core.command(["KEYS", f"{gpu.context.server.base}*"])])
    core.command(["HSET", f"{app.context.server.base}task:{job.node('double').id}", "sent_at", "1"])
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == 6


async def test_of_many_that_cannot_be_told_some_wait_for_the_next_time(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    for half in ("one", "other"):
        flow = Flow(half)
        for number in range(525):
            flow.add(tasks.double.options(queue=gpu.queue_name).prepare(number), name=f"n{number}")
        await app.start(flow)

    def entry(at: int) -> str:
        found: bytes = app.context.server.core.command(["LINDEX", f"{app.context.server.base}outbox", str(at)])
        return found.decode()

    later = entry(1_000)
    # None of them can be told.
    gpu.context.server.core.command(["SET", f"{gpu.context.server.base}ready:default", "damaged"])
    carrier = Carrier(app.context)
    carrier.tell()
    await eventually(lambda: entry(0) == later)
    await carrier.close()
    assert entry(0) == later


async def test_what_cannot_be_told_is_said_once_for_each_queue(
    app: Ardiq, gpu: Ardiq, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = tasks_of(app)
    flow = Flow("some", id="some-1")
    for number in range(3):
        flow.add(tasks.double.options(queue=gpu.queue_name).prepare(number), name=f"n{number}")
    await app.start(flow)
    core, ready = gpu.context.server.core, f"{gpu.context.server.base}ready:default"
    carrier = Carrier(app.context)

    async def carried(is_damaged: bool) -> list[str]:
        core.command(["SET", ready, "damaged"] if is_damaged else ["DEL", ready])
        caplog.clear()
        carrier.tell()
        await carrier.close()
        return [record.getMessage() for record in caplog.records if "cannot be told" in record.getMessage()]

    [told] = await carried(True)
    assert told.startswith(f"queue {gpu.queue_name!r} cannot be told of 'begin some-1~n0' and 2 more: ")
    assert await carried(True) == []
    # What was over, and begins again, is said again.
    assert await carried(False) == []
    flow = Flow("another")
    flow.add(tasks.double.options(queue=gpu.queue_name).prepare(1))
    await app.start(flow)
    assert len(await carried(True)) == 1


async def test_two_homes_with_workflows_of_the_same_id(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    other = app.queue(f"{app.queue_name}-other")
    jobs = []
    for home in (app, other):
        flow = Flow("same", id="same-1")
        jobs.append(
            await home.start(flow, output=flow.add(tasks.double.options(queue=gpu.queue_name).prepare(len(jobs))))
        )
    async with served(app, app, other, gpu):
        assert [await job.value(timeout=SOON_S) for job in jobs] == [0, 2]
    core = other.context.server.core
    core.command(["DEL", *core.command(["KEYS", f"{other.context.server.base}*"])])


async def test_fsck_asks_the_other_queue(app: Ardiq, gpu: Ardiq, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = tasks_of(app)
    flow = Flow("silent")
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(3))
    job = await app.start(flow, output=there)
    carry(app)
    core = app.context.server.core
    core.command(["HSET", f"{app.context.server.base}task:{job.node('double').id}", "sent_at", "1"])
    await asyncio.to_thread(main, ["fsck", app.redis_url, "--queue", app.queue_name])
    assert "clean" in capsys.readouterr().out
    core.command(["DEL", *core.command(["KEYS", f"{gpu.context.server.base}*"])])
    assert await asyncio.to_thread(main, ["fsck", app.redis_url, "--queue", app.queue_name]) == 1
    assert f"handed to another queue, which does not have it ({gpu.queue_name})" in capsys.readouterr().out
    assert [row.kind for row, answer in mend(core, 60_000, other(app)) if answer == "mended"] == ["away_without_outbox"]
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == 6


def other(app: Ardiq) -> Any:
    return lambda name: app.queue(name).context.server.core


async def test_compensations_run_in_their_queues(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    undone: list[str] = []

    @app.task(max_retries=0)
    async def undo(name: str, value: int) -> None:
        undone.append(f"{name} {value}")
        if name in tasks.failing:
            raise ValueError(name)

    def flow() -> Flow:
        made = Flow("saga")
        there, here = undo.options(queue=gpu.queue_name), undo
        first = made.add(tasks.give.prepare(1), name="first")
        first.compensate(there.prepare("first", first.result), name="undo-first")
        second = made.add(tasks.give.options(queue=gpu.queue_name).prepare(first.result), name="second")
        second.compensate(here.prepare("second", second.result), name="undo-second")
        third = made.add(tasks.give.options(queue=gpu.queue_name).prepare(3), name="third").after(second)
        third.compensate(there.prepare("third", third.result), name="undo-third")
        made.add(tasks.double.options(queue=gpu.queue_name).prepare(4), name="last").after(third)
        return made

    tasks.failing.add("double")
    async with served(app, app, gpu):
        job = await app.start(flow())
        assert not (await result_of(job)).success
        assert undone == ["third 3", "second 1", "first 1"]
        assert [(await node_states(job))[f"undo-{name}"] for name in ("first", "second", "third")] == ["complete"] * 3
        # One that fails is a dead letter, which the others wait for.
        undone.clear()
        tasks.failing.add("third")
        job = await app.start(flow())
        await eventually(lambda: state(app, job.node("undo-third").id) == "failed")
        assert await job.status() == "running"
        tasks.failing.remove("third")
        assert await app.dead.requeue(job.node("undo-third").id) == 1
        assert not (await result_of(job)).success
    assert undone == ["third 3", "third 3", "second 1", "first 1"]


async def test_signed(make_app: Any) -> None:
    app = make_app(signing_key="first-secret-of-32-bytes-or-more")
    gpu = app.queue(f"{app.queue_name}-gpu~2")
    tasks = tasks_of(app)
    flow = Flow("signed")
    first = flow.add(tasks.give.prepare(3))
    there = flow.add(tasks.double.options(queue=gpu.queue_name).prepare(first.result))
    long = flow.add(tasks.text.prepare(LARGE))
    numbers = flow.map(tasks.give, range(10))
    count = tasks.count.options(queue=gpu.queue_name).prepare(long.result, numbers.result, numbers.results)
    counted = flow.add(count)
    last = flow.add(tasks.total.prepare(counted.result, plus=there.result))
    job = await app.start(flow, output=last)
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == LARGE + 45 + 10 + 6
        tasks.failing.add("double")
        flow = Flow("amended")
        flow.add(tasks.double.options(queue=gpu.queue_name).prepare(1))
        job = await app.start(flow)
        assert not (await result_of(job)).success
        tasks.failing.clear()
        assert await app.dead.requeue(job.node("double").id, args=[4]) == 1
        assert await job.node("double").value(timeout=SOON_S) == 8
    # A workflow of that queue may have nodes here.
    back = Flow("back")
    there = back.add(tasks.give.prepare(5))
    here = back.add(tasks.double.options(queue=app.queue_name).prepare(there.result))
    job = await gpu.start(back, output=here)
    async with served(app, app, gpu):
        assert await job.value(timeout=SOON_S) == 10
    assert [node.queue async for node in job.nodes()] == ["", app.queue_name]
    core = gpu.context.server.core
    core.command(["DEL", *core.command(["KEYS", f"{gpu.context.server.base}*"])])


async def test_a_durable_one_goes_on_where_it_failed(app: Ardiq, gpu: Ardiq) -> None:
    ran: list[str] = []
    failing = {"second"}

    @app.task(max_retries=0)
    async def durable(name: str) -> str:
        async def do(what: str) -> str:
            ran.append(what)
            if what in failing:
                raise ValueError(what)
            return f"{name} {what}"

        return await step("first", do, "first") + await step("second", do, "second")

    flow = Flow("durable")
    flow.add(durable.options(queue=gpu.queue_name).prepare("a"))
    async with served(app, app, gpu):
        job = await app.start(flow)
        assert not (await result_of(job)).success
        await eventually(lambda: not outbox_of(gpu))
        failing.clear()
        assert await job.retry() == 1
        assert await job.node("durable").value(timeout=SOON_S) == "a firsta second"
        assert ran == ["first", "second", "second"]
        # With other arguments it begins from the start.
        failing.add("second")
        job = await app.start(flow)
        assert not (await result_of(job)).success
        failing.clear()
        ran.clear()
        assert await app.dead.requeue(job.node("durable").id, args=["b"]) == 1
        assert await job.node("durable").value(timeout=SOON_S) == "b firstb second"
        assert ran == ["first", "second"]


async def test_signals_are_for_the_queue_that_it_runs_in(app: Ardiq, gpu: Ardiq) -> None:
    tasks = tasks_of(app)
    flow = Flow("signalled")
    flow.add(tasks.double.options(queue=gpu.queue_name).prepare(1))
    job = await app.start(flow)
    with pytest.raises(BadArgument, match=rf"runs in queue {gpu.queue_name}: .* to {guest(job, 'double')}"):
        await job.node("double").signal("approval", True)
    carry(app)
    await gpu.signal(guest(job, "double"), "approval", True)


async def test_what_cannot_be_in_another_queue(app: Ardiq, gpu: Ardiq) -> None:
    tasks_of(app)
    flow = Flow()
    flow.map(gpu.ref("give"), [1])
    with pytest.raises(
        ValueError, match=r"map 'give' is for queue '.*-gpu', and its workflow for .*add a node for each"
    ):
        await app.start(flow)


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = tasks_of(app)
    gpu = app.queue("gpu")
    async with inline(app):
        flow = Flow("inline")
        first = flow.add(gpu.ref("give").prepare(3))
        there = flow.add(tasks.double.options(queue="gpu").prepare(first.result))
        numbers = flow.map(tasks.give, range(3)).after(there)
        last = flow.add(gpu.ref("total").prepare(numbers.results, plus=there.result))
        job = await app.start(flow, output=last)
        assert await job.value() == 9
        tasks.failing.add("double")
        flow = Flow("fails")
        flow.add(tasks.double.options(queue="gpu").prepare(1))
        failed = await app.start(flow)
        assert {node.state async for node in failed.nodes()} == {"failed"}
        tasks.failing.clear()
        assert await failed.retry() == 1
        assert {node.state async for node in failed.nodes()} == {"complete"}
