"""The seam: what instruments are told of enqueues and attempts, and where."""

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_state, working

from ardiq import Ardiq, Retry, current_task, instruments
from ardiq.instruments import Attempt, Instrument, Outcome, Sending, Sent

here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="")
module = Ardiq("redis://localhost:1", "module")


@module.task(executor="process", max_retries=0)
def in_child(fails: bool) -> list[Any]:
    if fails:
        raise ValueError("in a child")
    return [here.get(), os.getpid()]


def entered(fields: dict[str, str]) -> None:
    here.set(fields["here"])


class Recorder(Instrument):
    """Keeps what it is told, in order."""

    enter = f"{__name__}:entered"

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.ended_in: list[int] = []

    def sending(self, sending: Sending) -> Sent:
        for call in sending.calls:
            call.headers["sent-by"] = call.task_id
        self.events.append(("sending", sending.kind, [(call.name, call.lane, call.delay_ms) for call in sending.calls]))

        def sent(answers: Any, error: BaseException | None) -> None:
            self.events.append(("sent", list(answers), error))

        return sent

    def started(self, attempt: Attempt) -> str:
        assert attempt.headers.get("sent-by", attempt.task_id) == attempt.task_id
        here.set(f"{attempt.name} {attempt.tries}")
        self.events.append(("started", attempt.name, attempt.tries, attempt.executor))
        return here.get()

    def ended(self, attempt: Attempt, state: Any, outcome: Outcome) -> None:
        assert state == f"{attempt.name} {attempt.tries}"
        self.ended_in.append(threading.get_ident())
        self.events.append(("ended", attempt.name, outcome.word, type(outcome.error).__name__))

    def carried(self, state: Any) -> dict[str, str]:
        return {"here": state}

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    instruments.add(recorder)
    yield recorder
    instruments.remove(recorder)


async def test_an_attempt_runs_in_the_context_that_the_instrument_made(app: Ardiq, recorder: Recorder) -> None:
    threads: list[int] = []

    @app.task
    async def on_loop() -> str:
        await asyncio.sleep(0)
        return here.get()

    @app.task
    def on_thread() -> str:
        threads.append(threading.get_ident())
        return here.get()

    jobs = [await on_loop.enqueue(), await on_thread.enqueue()]
    async with working(app):
        assert [await job.value(timeout=SOON_S) for job in jobs] == ["on_loop 1", "on_thread 1"]
    assert here.get() == ""
    assert sorted(recorder.of("started")) == [("on_loop", 1, "loop"), ("on_thread", 1, "thread")]
    assert sorted(recorder.of("ended")) == [
        ("on_loop", "complete", "NoneType"),
        ("on_thread", "complete", "NoneType"),
    ]
    assert threads[0] in recorder.ended_in  # where it ran, not on the loop
    assert threads[0] != threading.get_ident()


async def test_a_child_process_enters_what_was_carried(make_app: Callable[..., Ardiq], recorder: Recorder) -> None:
    app = make_app()
    app.task(executor="process", max_retries=0)(in_child.fn)
    job, failing = await app.ref("in_child").enqueue(False), await app.ref("in_child").enqueue(True)
    async with working(app):
        seen, pid = await job.value(timeout=SOON_S)
        assert not (await failing.result(timeout=SOON_S)).success
    assert seen == "in_child 1"
    assert pid != os.getpid()
    assert recorder.of("started") == [("in_child", 1, "process")] * 2
    assert sorted(recorder.of("ended")) == [
        ("in_child", "complete", "NoneType"),
        ("in_child", "failed", "ValueError"),
    ]


async def test_each_outcome_has_its_word(app: Ardiq, recorder: Recorder) -> None:
    @app.task(max_retries=1, backoff_ms=1)
    async def fails() -> None:
        raise ValueError("no")

    @app.task(max_retries=1)
    def asks() -> None:
        if (task := current_task()) is not None and task.tries == 1:
            raise Retry(0)

    @app.task(timeout=0.05, max_retries=0)
    def hangs() -> None:
        release.wait(SOON_S)

    @app.task
    async def waits() -> None:
        await asyncio.sleep(SOON_S)

    release = threading.Event()
    aborted = await waits.enqueue()
    for task in (fails, asks, hangs):
        await task.enqueue()
    async with working(app):
        await eventually(lambda: is_state(app, aborted.id, "running"))
        await aborted.abort()
        await eventually(lambda: len(recorder.of("ended")) == 6)
        release.set()
    assert sorted(recorder.of("ended")) == [
        ("asks", "complete", "NoneType"),
        ("asks", "retry", "Retry"),
        ("fails", "failed", "ValueError"),
        ("fails", "retry", "ValueError"),
        ("hangs", "failed", "TimedOut"),
        ("waits", "aborted", "NoneType"),
    ]


async def test_of_an_enqueue_it_hears_before_and_after(app: Ardiq, recorder: Recorder) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    await work.enqueue(1)
    await work.options(delay=60, task_id="later").enqueue(2)
    await work.options(task_id="later").enqueue(2)
    await asyncio.to_thread(work.enqueue_sync, 3)
    await app.enqueue_many([work.prepare(4), work.prepare(5)])
    with pytest.raises(ValueError, match="nowhere"):
        await work.options(priority="nowhere").enqueue(6)
    assert recorder.events == [
        ("sending", "one", [("work", "default", 0)]),
        ("sent", ["queued"], None),
        ("sending", "one", [("work", "default", 60_000)]),
        ("sent", ["scheduled"], None),
        ("sending", "one", [("work", "default", 0)]),
        ("sent", ["exists"], None),
        ("sending", "one", [("work", "default", 0)]),
        ("sent", ["queued"], None),
        ("sending", "many", [("work", "default", 0)] * 2),
        ("sent", ["queued", "queued"], None),
    ]


async def test_a_request_is_sent_before_its_task_ends(app: Ardiq, recorder: Recorder) -> None:
    @app.task
    async def work() -> int:
        await eventually(lambda: recorder.of("sent"))
        return 1

    async with working(app):
        assert await work.request(timeout=SOON_S) == 1
    assert sorted(event[0] for event in recorder.events) == ["ended", "sending", "sent", "started"]
    assert recorder.of("sent") == [(["queued"], None)]


async def test_what_an_instrument_keeps_of_an_attempt_goes_with_it(app: Ardiq) -> None:
    class State:
        """Anything."""

    class Keeper(Instrument):
        def started(self, attempt: Attempt) -> State:
            state = State()
            states.append(weakref.ref(state))
            return state

    states: list[weakref.ref[State]] = []

    @app.task(max_retries=0)
    async def on_loop(fails: bool) -> None:
        if fails:
            raise ValueError("no")

    @app.task(max_retries=0)
    def on_thread(fails: bool) -> None:
        if fails:
            raise ValueError("no")

    keeper = Keeper()
    instruments.add(keeper)
    try:
        jobs = [await task.enqueue(fails) for task in (on_loop, on_thread) for fails in (False, True)]
        async with working(app):
            for job in jobs:
                await job.result(timeout=SOON_S)
            gc.collect()
            assert len(states) == 4
            assert not any(state() for state in states)
    finally:
        instruments.remove(keeper)


async def test_an_instrument_that_fails_changes_nothing(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Instrument):
        enter = "nowhere:at_all"

        def sending(self, sending: Sending) -> Sent:
            raise OSError("sending")

        def started(self, attempt: Attempt) -> Any:
            raise OSError("started")

    @app.task
    async def work() -> int:
        return 1

    broken = Broken()
    instruments.add(broken)
    try:
        job = await work.enqueue()
        await drain(app)
    finally:
        instruments.remove(broken)
    assert await job.value() == 1
    assert [record.getMessage().split(" of ")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "an instrument failed: sending",
        "an instrument failed: started",
    ]
