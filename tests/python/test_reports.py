"""What tasks tell of themselves: progress, notes, log lines, and whether they are still wanted."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from helpers import SOON_S, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, ExecutionContext, Job, Progress, Snooze, current_task


async def test_everything_can_be_read_while_it_runs(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def export() -> str:
        task = current_task()
        assert task is not None
        task.progress(0.4, "half of it")
        task.note(rows=7, file="a.csv")
        task.note(rows=8)
        task.log("opened")
        task.log("wrote")
        await go_on.wait()
        task.log("closed")
        return "done"

    async with working(app), asyncio.timeout(SOON_S):
        job = await export.enqueue()
        await eventually(lambda: has_logged(app, job.id, 2))
        assert await job.status() == "running"
        assert await job.progress() == Progress(0.4, "half of it")
        assert await job.notes() == await job.meta() == {"rows": 8, "file": "a.csv"}
        assert await job.logs() == ["opened", "wrote"]
        # As redis-cli shows it.
        assert [field(app, job.id, name) for name in ("progress", "note:rows", "note:file")] == [
            '{"fraction":0.4,"message":"half of it"}',
            "8",
            '"a.csv"',
        ]
        lines = app.context.server.core.command(["LRANGE", f"ardiq:{{{app.queue_name}}}:log:{job.id}", 0, -1])
        assert [line.rpartition(b" ")[2] for line in lines] == [b"opened", b"wrote"]
        go_on.set()
        await result_of(job)
        # What was said last arrives after the end.
        await eventually(lambda: has_logged(app, job.id, 3))
    assert await job.logs(limit=1) == ["closed"]
    assert is_sound(app)


async def has_logged(app: Ardiq, task_id: str, count: int) -> bool:
    return len(await app.context.inspector.logs(task_id, 1000)) == count


async def test_a_sync_task_tells_from_its_thread(app: Ardiq) -> None:
    @app.task
    def work() -> None:
        task = current_task()
        assert task is not None
        for number in range(3000):
            task.log(str(number))
        task.progress(1)

    async with working(app):
        job = await work.enqueue()
        await result_of(job)
    await eventually(lambda: has_logged(app, job.id, 1000))
    assert (await job.logs())[-1] == "2999"
    assert await job.progress() == Progress(1, "")


async def test_a_task_that_tells_nothing(app: Ardiq) -> None:
    job = await app.send("nobody")
    assert await job.progress() is None
    assert await job.notes() == {}
    assert await job.logs() == []


async def test_what_a_stopping_worker_was_told_is_sent(app: Ardiq) -> None:
    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        for number in range(5):
            task.log(str(number))
            await asyncio.sleep(0.001)

    app.burst = True
    job = await work.enqueue()
    await app.run()
    await eventually(lambda: has_logged(app, job.id, 5))


@pytest.mark.parametrize("executor", ["async", "thread"])
@pytest.mark.parametrize("again", [ValueError("again"), Snooze(0.001)], ids=["retry", "snooze"])
async def test_what_a_task_tells_just_before_it_is_to_run_again_arrives(
    app: Ardiq, executor: str, again: Exception
) -> None:
    runs: list[int] = []

    def tell() -> None:
        task = current_task()
        assert task is not None
        runs.append(len(runs) + 1)
        if runs[-1] == 4:
            return
        for word in ("began", "failed"):
            task.log(f"{word} {runs[-1]}")
        task.notes[str(runs[-1])] = True
        raise again

    async def tell_async() -> None:
        tell()

    task = app.task(name="tell", max_retries=3, backoff_ms=1)(tell_async if executor == "async" else tell)
    async with working(app):
        job = await task.enqueue()
        await result_of(job)
    # Without waiting for it: what the first attempts told had arrived before the last one began.
    assert await job.logs() == [f"{word} {run}" for run in (1, 2, 3) for word in ("began", "failed")]
    assert await job.notes() == {"1": True, "2": True, "3": True}
    assert is_sound(app)


@pytest.mark.parametrize("how", ["async", "thread", "middleware"])
async def test_what_a_task_tells_last_arrives_where_its_record_goes_with_its_end(
    make_app: Callable[..., Ardiq], how: str
) -> None:
    app = make_app(result_ttl_ms=0)

    def tell() -> None:
        task = current_task()
        assert task is not None
        task.log("began")
        task.log("ended")

    async def tell_async() -> None:
        tell()

    if how == "middleware":

        @app.middleware
        async def through(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
            return await call_next()

    job = await app.task(name="tell")(tell if how == "thread" else tell_async).enqueue()
    app.burst = True
    await app.run()
    assert await job.logs() == ["began", "ended"]
    assert await job.status() == "not_found"


@pytest.mark.parametrize("executor", ["async", "thread"])
@pytest.mark.parametrize("result_ttl_ms", [300_000, 0])
async def test_what_an_attempt_tells_before_it_is_handed_back_arrives(
    make_app: Callable[..., Ardiq], executor: str, result_ttl_ms: int
) -> None:
    app = make_app(result_ttl_ms=result_ttl_ms)
    told, loop, go_on = asyncio.Event(), asyncio.get_running_loop(), threading.Event()

    def tell(word: str) -> None:
        task = current_task()
        assert task is not None
        task.log(word)

    async def work_async() -> None:
        tell("began")
        while not await has_logged(app, job.id, 1):
            await asyncio.sleep(0.01)
        told.set()
        try:
            await asyncio.sleep(SOON_S)
        finally:
            tell("was interrupted")

    def work() -> None:
        tell("began")
        while not asyncio.run_coroutine_threadsafe(has_logged(app, job.id, 1), loop).result():
            time.sleep(0.01)
        tell("was interrupted")
        loop.call_soon_threadsafe(told.set)
        go_on.wait(SOON_S)

    job = await app.task(name="work")(work_async if executor == "async" else work).enqueue()
    run = asyncio.create_task(app.run())
    async with asyncio.timeout(SOON_S):
        await told.wait()
        run.cancel()
        await asyncio.wait([run])
    go_on.set()
    assert await job.status() == "queued"
    assert await job.logs() == ["began", "was interrupted"]
    assert is_sound(app)


async def test_an_aborted_thread_can_notice(app: Ardiq) -> None:
    noticed: list[bool] = []

    @app.task
    def long() -> None:
        task = current_task()
        assert task is not None
        noticed.append(task.cancelled())
        ends = time.monotonic() + SOON_S
        while not task.cancelled() and time.monotonic() < ends:
            time.sleep(0.005)
        noticed.append(task.cancelled())

    async with working(app):
        job = await long.enqueue()
        await eventually(lambda: is_noticed(noticed, 1))
        assert await job.abort()
        await eventually(lambda: is_noticed(noticed, 2))
    assert noticed == [False, True]


async def is_noticed(noticed: list[bool], count: int) -> bool:
    return len(noticed) == count


async def test_an_async_task_is_wanted_until_it_is_cancelled(app: Ardiq) -> None:
    seen: list[bool] = []

    @app.task
    async def work() -> None:
        task = current_task()
        assert task is not None
        seen.append(task.cancelled())
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(task.cancelled())

    async with working(app):
        job = await work.enqueue()
        await eventually(lambda: is_noticed(seen, 1))
        assert await job.abort()
        await result_of(job)
    assert seen == [False, True]


async def test_misuse(app: Ardiq) -> None:
    errors: list[str] = []

    @app.task
    async def wrong() -> None:
        task = current_task()
        assert task is not None
        for call in (lambda: task.progress(40), lambda: task.note(it=object())):
            try:
                call()
            except (TypeError, ValueError) as error:
                errors.append(type(error).__name__)

    async with working(app):
        await result_of(await wrong.enqueue())
    assert errors == ["ValueError", "TypeError"]


def test_a_context_of_nothing_is_silent() -> None:
    from ardiq import TaskContext

    task = TaskContext("id", "name", 1)
    task.progress(0.5)
    task.log("x")
    task.note(a=1)
    task.notes["a"] = 1
    assert not task.notes
    assert task.deadline is None
    assert not task.cancelled()
    assert task == ("id", "name", 1)
    with pytest.raises(ValueError, match="fraction"):
        task.progress(-1)


VALUES = {
    "none": [],
    "empty": {},
    "long": 12345678901234567890,
    "digits": 0.1234567890123456789,
    "nested": {"a": [1, {"b": None}], "ü": "é\u2028"},
}


async def test_notes_arrive_as_they_were_sent(app: Ardiq) -> None:
    @app.task
    async def note() -> None:
        task = current_task()
        assert task is not None
        task.note(**VALUES)

    async with working(app):
        job = await note.enqueue()
        await result_of(job)
        assert await eventually(job.notes) == VALUES
    assert field(app, job.id, "note:none") == "[]"


async def test_notes_are_a_mapping(app: Ardiq) -> None:
    seen: list[object] = []

    @app.task
    async def note() -> None:
        task = current_task()
        assert task is not None
        task.notes["rows"] = rows = [1]
        rows.append(2)
        task.note(file="a.csv", done=False)
        assert task.meta == task.notes
        again = current_task()
        assert again is not None
        del again.notes["done"]
        seen.extend([dict(again.notes), len(again.notes), "done" in again.notes, repr(task.notes)])
        seen.append(task.notes.setdefault("rows", 9))

    async with working(app):
        job = await note.enqueue()
        await result_of(job)
        await eventually(job.notes)
        other = await note.enqueue()
        await result_of(other)
    assert seen[:5] == [{"rows": [1], "file": "a.csv"}, 2, False, "Notes({'rows': [1], 'file': 'a.csv'})", [1]]
    assert seen[5:] == seen[:5]
    assert await job.notes() == {"rows": [1], "file": "a.csv"}
    assert is_sound(app)


async def test_notes_of_an_earlier_attempt_stay_but_are_not_shown_to_the_next(app: Ardiq) -> None:
    @app.task(max_retries=1, backoff_ms=1)
    async def note() -> None:
        task = current_task()
        assert task is not None
        task.notes[f"try {task.tries}"] = dict(task.notes)
        if task.tries == 1:
            await eventually(lambda: has_notes(Job(app, task.task_id), 1))
            raise ValueError

    async with working(app):
        job = await note.enqueue()
        await result_of(job)
        assert await eventually(lambda: has_notes(job, 2)) == {"try 1": {}, "try 2": {}}


async def has_notes(job: Job, count: int) -> dict[str, object] | None:
    notes = await job.notes()
    return notes if len(notes) == count else None


async def test_notes_are_bounded(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[str] = []

    @app.task(max_retries=1, backoff_ms=1)
    async def note() -> None:
        task = current_task()
        assert task is not None
        task.notes.update({f"{task.tries}:{number}": number for number in range(100)})
        task.notes[f"{task.tries}:7"] = "again"
        for name, value in [
            ("one more", 1),
            ("x" * 201, 1),
            ("", 1),
            (f"{task.tries}:1", "x" * 8191),
            ("1", float("nan")),
        ]:
            try:
                task.notes[name] = value
            except (TypeError, ValueError) as error:
                errors.append(str(error))
        if task.tries == 1:
            await eventually(lambda: has_notes(Job(app, task.task_id), 100))
            raise ValueError

    async with working(app):
        job = await note.enqueue()
        await result_of(job)
        # Those of the second attempt would be 100 more: the server has the last word.
        await eventually(lambda: "may have at most 100 notes" in caplog.text)
    assert job.id in caplog.text
    assert len(await job.notes()) == 100
    assert (await job.notes())["1:7"] == "again"
    for error, words in zip(
        errors, ("100 notes", "201|200 bytes", "200 bytes", "8,193 bytes", "plain JSON") * 2, strict=True
    ):
        assert any(word in error for word in words.split("|")), error


async def test_a_long_message_is_cut(app: Ardiq) -> None:
    @app.task
    async def tell() -> None:
        task = current_task()
        assert task is not None
        task.progress(0.5, "é" * 5000)

    async with working(app):
        job = await tell.enqueue()
        await result_of(job)
        assert await eventually(job.progress) == Progress(0.5, "é" * 1000)


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("executor", ["async", "thread"])
async def test_the_deadline_is_the_end_of_the_timeout(app: Ardiq, executor: str, middleware: bool) -> None:
    def look() -> tuple[float | None, float]:
        task = current_task()
        assert task is not None
        return task.deadline, time.time()

    async def look_async() -> tuple[float | None, float]:
        return look()

    if middleware:

        @app.middleware
        async def around(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
            return await call_next()

    function = look_async if executor == "async" else look
    limited = app.task(name="limited", timeout=1000)(function)
    free = app.task(name="free")(function)
    before = time.time()
    async with working(app):
        deadline, now = (await result_of(await limited.enqueue())).value
        assert before + 1000 <= deadline <= now + 1000
        assert (await result_of(await free.enqueue())).value[0] is None


async def test_reading_the_notes_leaves_nothing_behind(app: Ardiq) -> None:
    @app.task
    async def look() -> int:
        task = current_task()
        assert task is not None
        one, other = task.notes, task.notes
        return len(one) + len(other)

    async with working(app):
        for _ in range(20):
            assert (await result_of(await look.enqueue())).value == 0
        assert app.run_state.workers[0]._reports._noted == {}


async def test_all_views_of_the_notes_show_the_same(app: Ardiq) -> None:
    @app.task
    async def look() -> int:
        task = current_task()
        assert task is not None
        one, other = task.notes, task.notes
        one["rows"] = 7
        return int(other["rows"])

    async with working(app):
        assert (await result_of(await look.enqueue())).value == 7
