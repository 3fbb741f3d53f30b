"""`wait_for_room`: a call that finds its queue full is enqueued as soon as there is room."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from math import nan
from typing import Any

import pytest
from helpers import drain, eventually, result_of, working

from ardiq import Ardiq, Limit, QueueFull
from ardiq.task import Task

FOR_LONG = 60


async def full(app: Ardiq) -> Task[[int], Any]:
    """A task of which two may wait, and two do."""

    @app.task(limits=Limit("letters", concurrency=1, max_waiting=2))
    async def letter(number: int) -> int:
        return number

    await app.enqueue_many(letter.prepare(number) for number in range(2))
    return letter


async def test_a_call_waits_until_there_is_room(app: Ardiq) -> None:
    letter = await full(app)
    waiting = asyncio.ensure_future(letter.options(wait_for_room=timedelta(seconds=FOR_LONG)).enqueue(2))
    with pytest.raises(QueueFull):
        await letter.enqueue(3)
    with pytest.raises(QueueFull):
        await letter.options(wait_for_room=0.1).enqueue(3)
    with pytest.raises(QueueFull):
        await letter.options(wait_for_room=0).enqueue(3)
    assert not waiting.done()
    async with working(app):
        assert (await result_of(await waiting)).value == 2
        assert await letter.options(wait_for_room=FOR_LONG).request(4) == 4


async def test_without_a_loop(app: Ardiq) -> None:
    letter, jobs = await full(app), list[Any]()
    patient = letter.options(wait_for_room=FOR_LONG)
    with pytest.raises(QueueFull):
        letter.options(wait_for_room=0.1).enqueue_sync(3)
    thread = threading.Thread(target=lambda: jobs.extend([patient.enqueue_sync(5), *many()]))

    def many() -> list[Any]:
        return app.enqueue_many_sync([patient.prepare(number) for number in range(6, 12)])

    thread.start()
    async with working(app):
        await eventually(lambda: not thread.is_alive())
        assert [(await result_of(job)).value for job in jobs] == [*range(5, 12)]


async def test_of_many_calls_those_wait_that_find_no_room(app: Ardiq) -> None:
    letter = await full(app)

    @app.task
    async def plain(number: int) -> int:
        return number

    patient = letter.options(wait_for_room=FOR_LONG)
    calls = [plain.prepare(10), *(patient.prepare(number) for number in range(2, 9)), plain.prepare(11)]
    sending = asyncio.ensure_future(app.enqueue_many(calls))
    with pytest.raises(QueueFull) as refused:
        await app.enqueue_many([plain.prepare(12), letter.options(wait_for_room=0.1).prepare(13), letter.prepare(14)])
    assert len(refused.value.jobs) == 1
    assert "2 of 3 calls" in str(refused.value)
    async with working(app):
        jobs = await sending
        assert [(await result_of(job)).value for job in jobs] == [10, *range(2, 9), 11]
        await result_of(refused.value.jobs[0])


async def test_who_gives_up_waiting_has_enqueued_nothing(app: Ardiq) -> None:
    letter = await full(app)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await letter.options(wait_for_room=FOR_LONG).enqueue(2)
    counts = await app.inspect.counts()
    assert counts.limited == 2
    await drain(app)


async def test_a_limit_that_the_server_does_not_know_yet(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()

    @app.task(limits=Limit("letters", max_waiting=1))
    async def letter(number: int) -> int:
        return number

    calls = [letter.options(wait_for_room=FOR_LONG).prepare(number) for number in range(3)]
    sending = asyncio.ensure_future(app.enqueue_many(calls))
    async with working(app):
        assert [(await result_of(job)).value for job in await sending] == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (-1, ValueError, "wait_for_room must not be negative, not -1"),
        ("5", TypeError, "wait_for_room must be a timedelta or seconds, not str"),
        (True, TypeError, "wait_for_room must be a timedelta or seconds, not bool"),
        (nan, ValueError, "wait_for_room must be a timedelta or seconds, not nan"),
    ],
)
def test_what_is_wrong_is_refused_at_once(given: Any, kind: type[Exception], says: str) -> None:
    task = Ardiq("redis://127.0.0.1:1").ref("letter")
    with pytest.raises(kind, match=says):
        task.options(wait_for_room=given)


async def test_a_lane_takes_no_more_than_may_wait(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(priorities=["low", "high"], max_waiting={"low": 2})

    @app.task(priority="low")
    async def work(number: int) -> int:
        return number

    jobs = [await work.enqueue(number) for number in range(2)]
    with pytest.raises(QueueFull, match="2 tasks wait in lane low, as many as may"):
        await work.enqueue(2)
    with pytest.raises(QueueFull):
        work.enqueue_sync(2)
    with pytest.raises(QueueFull) as refused:
        await app.enqueue_many([work.prepare(3), work.options(priority="high").prepare(4)])
    assert len(refused.value.jobs) == 1
    jobs += [await work.options(delay=0.01).enqueue(5), await work.options(priority="high").enqueue(6)]
    async with working(app):
        later = await work.options(wait_for_room=30).enqueue(7)
        assert [(await result_of(job)).value for job in [*jobs, later]] == [0, 1, 5, 6, 7]


@pytest.mark.parametrize("given", [{"low": 0}, {"low": "2"}, {"none": 2}, [2]])
def test_a_bound_of_a_lane_that_makes_no_sense_is_refused(given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_waiting"):
        Ardiq(priorities=["low"], max_waiting=given)
