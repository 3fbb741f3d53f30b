"""Batches of calls that are added while they run, and what follows when all have ended."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from helpers import SOON_S, eventually, is_sound, result_of, working

from ardiq import Ardiq, ArdiqError, CallBatch, Limit, chain, current_task
from ardiq._client import adding
from ardiq.testing import inline


class Tasks:
    """Tasks of an app, and what ran."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.broken: set[Any] = set()
        self.app = app
        seen, broken = self.seen, self.broken

        @app.task(max_retries=0)
        async def load(row: int) -> int:
            seen.append(row)
            if row in broken:
                raise ValueError(row)
            return row

        @app.task
        def mail(to: str = "a", *, text: str = "") -> None:
            seen.append((to, text))

        @app.task
        async def note(name: str) -> None:
            seen.append(name)

        @app.task
        async def walk(depth: int) -> None:
            seen.append(depth)
            task = current_task()
            assert task is not None
            if depth:
                await app.batch_of(task).add(walk.prepare(depth - 1), walk.prepare(depth - 1))

        self.load, self.mail, self.note, self.walk = load, mail, note, walk

    def batch(self, **options: Any) -> CallBatch:
        prepare = self.note.prepare
        calls = {"on_success": prepare("success"), "on_complete": prepare("complete"), "on_death": prepare("death")}
        return self.app.batch("import", **{**calls, **options})


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def test_calls_of_several_tasks_run_while_more_are_added(app: Ardiq, tasks: Tasks) -> None:
    async with working(app):
        async with tasks.batch() as batch:
            assert not batch.existed
            await batch.add(*[tasks.load.prepare(row) for row in range(150)])
            await eventually(lambda: len(tasks.seen) >= 100)
            for row in range(150, 250):
                await batch.add(tasks.load.prepare(row))
            await batch.add(tasks.mail.prepare("b", text="x"), tasks.mail.options(delay=0.05).prepare())
            assert await batch.job.status() == "running"
        assert (await result_of(batch.job)).success
    assert tasks.seen[252:] in (["success", "complete"], ["complete", "success"])
    assert {*tasks.seen[:252]} == {*range(250), ("b", "x"), ("a", "")}
    progress = await batch.job.progress()
    assert progress is not None
    assert (progress.total, progress.done, progress.skipped) == (255, 254, 1)
    assert is_sound(app)


async def test_without_a_loop(app: Ardiq, tasks: Tasks) -> None:
    def fill() -> CallBatch:
        with tasks.batch(on_complete=None) as batch:
            for row in range(120):
                batch.add_sync(tasks.load.prepare(row))
        return batch

    batch = await asyncio.to_thread(fill)
    async with working(app):
        assert (await result_of(batch.job)).success
    assert (sorted(tasks.seen[:120]), tasks.seen[120:]) == (list(range(120)), ["success"])


async def test_some_fail(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(3)
    async with tasks.batch(on_success=chain(tasks.load.prepare(7)).then(tasks.load)) as batch:
        await batch.add(*[tasks.load.prepare(row) for row in range(5)])
    async with working(app):
        assert not (await result_of(batch.job)).success
        assert (sorted(tasks.seen[:5]), sorted(tasks.seen[5:])) == (list(range(5)), ["complete", "death"])
        tasks.broken.clear()
        tasks.seen.clear()
        assert await batch.job.retry() == 1
        await result_of(batch.job)
    assert tasks.seen == [3, 7, 7]


async def test_a_call_adds_others_also_after_the_block(app: Ardiq, tasks: Tasks) -> None:
    async with tasks.batch() as batch:
        await batch.add(tasks.walk.prepare(4))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert len([depth for depth in tasks.seen if depth == 0]) == 16
    assert sorted(tasks.seen[31:]) == ["complete", "success"]
    with pytest.raises(ArdiqError, match="has ended: nothing can be added"):
        await app.batch_of(f"{batch.id}~calls~0").add(tasks.load.prepare(1))
    for id in ("x", f"{batch.id}~success", f"{batch.id}~calls", "a~b~0"):
        with pytest.raises(ValueError, match="is no call of a batch"):
            app.batch_of(id)


async def test_a_block_that_raises(app: Ardiq, tasks: Tasks) -> None:
    batch, other = tasks.batch(), tasks.batch()

    async def breaks() -> None:
        async with batch:
            await batch.add(*[tasks.load.prepare(row) for row in range(100)])
            raise ZeroDivisionError

    def breaks_sync() -> None:
        with other:
            other.add_sync(tasks.load.prepare(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await breaks()
    with pytest.raises(ZeroDivisionError):
        breaks_sync()
    assert (await result_of(batch.job)).aborted
    assert (await result_of(other.job)).aborted
    assert tasks.seen == []


async def test_one_with_its_id(app: Ardiq, tasks: Tasks) -> None:
    async with tasks.batch(id="rows-7") as first, tasks.batch(id="rows-7") as again:
        assert (first.existed, again.existed, again.id) == (False, True, "rows-7")
        await again.add(tasks.load.prepare(1))
        await first.add(tasks.load.prepare(2))
    async with working(app):
        assert (await result_of(first.job)).success
    assert sorted(tasks.seen[:2]) == [1, 2]
    with pytest.raises(ArdiqError, match="batch 'rows-7' has ended, and is kept"):
        await tasks.batch(id="rows-7").__aenter__()


async def test_what_cannot_be_added(app: Ardiq, tasks: Tasks) -> None:
    once = app.task(unique=True)(lambda: None)
    batch = tasks.batch(id="x")
    with pytest.raises(TypeError, match="does not fit its annotation"):
        await batch.add(tasks.load.prepare("no"))  # type: ignore[arg-type]
    async with batch:
        for call, error, why in (
            (tasks.load, TypeError, r"batch.add takes task.prepare\(...\), not Task"),
            (tasks.load.prepare("no"), TypeError, "does not fit its annotation"),  # type: ignore[arg-type]
            (tasks.load.options(task_id="a").prepare(1), ValueError, "cannot have a task_id"),
            (once.prepare(), ValueError, "cannot have unique"),
            (chain(tasks.load.prepare(1)), TypeError, "batch.add takes"),
        ):
            with pytest.raises(error, match=why):
                await batch.add(call)  # type: ignore[arg-type]
        await batch.add()
        with pytest.raises(RuntimeError, match="is open already"):
            await batch.__aenter__()
    for wrong in (None, batch):
        with pytest.raises(TypeError, match=f"of a task that runs, or an id, not {type(wrong).__name__}"):
            app.batch_of(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"on_success takes task.prepare\(...\), not Task"):
        app.batch(on_success=tasks.load)  # type: ignore[arg-type]
    with pytest.raises(ArdiqError, match="was never entered"):
        await app.batch().add(tasks.load.prepare(1))
    with pytest.raises(ArdiqError, match="was never entered, or is no longer kept"):
        await app.batch_of("nothing~calls~0").add(tasks.load.prepare(1))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert sorted(tasks.seen) == ["complete", "success"]


async def test_limits_and_hooks(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    running, most = 0, 0

    @app.task(limits=[Limit("two", concurrency=2)])
    async def limited(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    @app.on_enqueue
    def hook(context: Any) -> None:
        context.headers["id"] = context.task_id

    seen: list[Any] = []

    @app.middleware
    async def wrap(context: Any, call_next: Any) -> Any:
        seen.append(context.headers["id"])
        return await call_next()

    async with app.batch(id="b") as batch:
        for number in range(6):
            await batch.add(limited.prepare(number))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert most == 2
    assert len(seen) == 6


async def test_a_signed_app(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key="k" * 32)
    tasks = Tasks(app)
    async with tasks.batch() as batch:
        await batch.add(tasks.load.prepare(1))
    async with working(app):
        assert (await result_of(batch.job)).success
    assert tasks.seen[0] == 1


async def test_inline() -> None:
    app = Ardiq("redis://nowhere.invalid")
    tasks = Tasks(app)
    async with inline(app):
        async with tasks.batch() as batch:
            await batch.add(tasks.load.prepare(1), tasks.walk.prepare(1))
        assert (await result_of(batch.job)).success
    assert len(tasks.seen) == 6


async def test_a_reply_that_is_lost(app: Ardiq, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call again adds nothing."""
    sent: list[Any] = []
    real = adding.calls.workflow_add

    def noted(**arguments: Any) -> Any:
        sent.append(real(**{**arguments, "calls": list(arguments["calls"])}))
        return sent[-1]

    monkeypatch.setattr(adding.calls, "workflow_add", noted)
    async with tasks.batch() as batch:
        await batch.add(*[tasks.load.prepare(row) for row in range(100)])
        assert (await app.context.channel().ask(sent[0])) == ("accepted", 100)
    async with working(app):
        assert (await result_of(batch.job)).success
    assert len(tasks.seen) == 102


async def test_one_that_is_never_sealed(app: Ardiq, tasks: Tasks) -> None:
    """Its process died within the block: it is aborted an hour after the last call."""
    batch = tasks.batch()
    await batch.__aenter__()
    await batch.add(*[tasks.load.prepare(row) for row in range(100)])
    core, base = app.context.server.core, app.context.server.base
    async with working(app):
        await eventually(lambda: len(tasks.seen) == 100)
        assert await batch.job.status() == "running"
        core.command(["ZADD", f"{base}deadlines", "1", batch.id])
        result = await batch.job.result(timeout=SOON_S)
    assert result is not None
    assert not result.success
    assert "never sent the rest" in str(result.value)
    assert len(tasks.seen) == 100
