"""`app.dead`: finding dead letters, running them again, deleting them, and how long they are kept."""

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers import drain, eventually, is_sound, is_state, result_of, working

from ardiq import Ardiq, BadArgument, DeadGroup, DeadGroups, DeadLetter, Job, Unreadable, WrongType


def command(app: Ardiq, *words: str) -> Any:
    """A command of the server's own, on a key of the queue."""
    verb, key, *rest = words
    return app.context.server.core.command([verb, f"ardiq:{{{app.queue_name}}}:{key}", *rest])


def failing(app: Ardiq) -> list[int]:
    """Registers tasks that fail until the list is emptied; it has the numbers they were called with."""
    broken = [0]

    @app.task(max_retries=0)
    async def charge(number: int, *, note: str = "") -> str:
        if broken:
            raise TimeoutError(number)
        return f"{number}{note}"

    @app.task(max_retries=0)
    async def mail(number: int) -> int:
        if broken:
            raise ValueError(number)
        return number

    return broken


async def die(app: Ardiq, name: str, *numbers: int) -> list[Job]:
    """Dead letters, one after the other."""
    jobs = []
    for number in numbers:
        jobs.append(await app.send(name, number))
        await drain(app)
        await asyncio.sleep(0.002)
    return jobs


def numbers(letters: list[DeadLetter]) -> list[Any]:
    return [letter.args[0] for letter in letters]


async def test_the_filters(app: Ardiq) -> None:
    failing(app)
    await die(app, "charge", 1, 2)
    await die(app, "mail", 3)
    await die(app, "charge", 14)
    dead = app.dead
    assert await dead.count() == 4
    assert numbers(await dead.list()) == [14, 3, 2, 1]
    assert numbers(await dead.list(task="charge")) == [14, 2, 1]
    assert numbers(await dead.list(error="timeouterror(1")) == [14, 1]
    assert numbers(await dead.list(task="mail", error="Timeout")) == []
    assert numbers(await dead.list(limit=2)) == [14, 3]
    assert numbers(await dead.list(limit=2, offset=1)) == [3, 2]
    assert numbers(await dead.list(task="charge", limit=2, offset=2)) == [1]
    assert await dead.list(limit=0) == []

    moment = datetime.fromtimestamp((await dead.list(task="mail"))[0].failed_at / 1000, UTC)
    assert numbers(await dead.list(since=moment)) == [14, 3]
    assert numbers(await dead.list(until=moment)) == [2, 1]
    assert numbers(await dead.list(since=timedelta(hours=1))) == [14, 3, 2, 1]
    assert numbers(await dead.list(since=3600.0)) == numbers(await dead.list(since=3600)) == [14, 3, 2, 1]
    assert numbers(await dead.list(until=timedelta(hours=1))) == []
    assert numbers(await dead.list(since=datetime(1960, 1, 1, tzinfo=UTC))) == [14, 3, 2, 1]
    assert numbers(await dead.list(until=datetime(1960, 1, 1, tzinfo=UTC))) == []


async def test_by_task_and_kind_of_error(app: Ardiq) -> None:
    assert await app.dead.groups() == DeadGroups([], 0, 0)
    failing(app)
    await die(app, "charge", 1, 2)
    (last,) = await die(app, "mail", 3)
    found = await app.dead.groups()
    assert [(group.fn_name, group.kind, group.letters) for group in found.groups] == [
        ("charge", "TimeoutError", 2),
        ("mail", "ValueError", 1),
    ]
    assert (found.looked_at, found.total) == (3, 3)
    charges, mails = found.groups
    assert mails == DeadGroup("mail", "ValueError", 1, mails.newest_at, mails.newest_at, last.id, "ValueError(3)")
    assert charges.oldest_at < charges.newest_at < mails.newest_at
    newest = await app.dead.groups(1)
    assert ([group.fn_name for group in newest.groups], newest.looked_at, newest.total) == (["mail"], 1, 3)
    with pytest.raises(BadArgument, match="from 1 to 500"):
        await app.dead.groups(501)


async def test_one_in_full(app: Ardiq) -> None:
    failing(app)
    [job] = await die(app, "mail", 3)
    record = await app.dead.show(job.id)
    assert record is not None
    assert record.letter == (await app.dead.list())[0]
    assert "raise ValueError(number)" in record.traceback
    assert [attempt.error for attempt in record.history] == ["ValueError(3)"]
    assert await app.dead.show("unknown") is None


@pytest.mark.damages_keys
async def test_one_that_cannot_be_read_harms_only_itself(app: Ardiq) -> None:
    failing(app)
    jobs = await die(app, "mail", 1, 2, 3, 4)
    command(app, "HSET", f"task:{jobs[1].id}", "args", "[2", "tries", "many")
    command(app, "HSET", f"task:{jobs[2].id}", "codec", "of-another-time")
    command(app, "DEL", f"task:{jobs[3].id}")
    command(app, "SET", f"task:{jobs[3].id}", "by hand")
    letters = await app.dead_letters()
    assert [letter.task_id for letter in letters] == [job.id for job in reversed(jobs)]
    command(app, "HSET", f"task:{jobs[1].id}", "history", "[7")
    record = await app.dead.show(jobs[1].id)
    assert record is not None
    assert (record.letter.error, record.history) == ("ValueError(2)", [])
    by_hand, newer, damaged, fine = letters
    assert fine.args == (1,)
    assert isinstance(damaged.args[0], Unreadable)
    assert (damaged.args[0].raw, damaged.tries, damaged.error) == (b"[2", 0, "ValueError(2)")
    assert "unknown codec 'of-another-time'" in newer.args[0].reason
    assert "by hand" not in by_hand.error
    assert "redis-cli TYPE" in by_hand.error
    with pytest.raises(WrongType):
        await app.dead.requeue(jobs[3].id)
    assert await app.dead.requeue(all=True) == 3
    assert await app.dead.discard([job.id for job in jobs[:3]]) == 0
    assert await app.dead.delete(jobs[0].id) == 0  # the same, by another name


async def test_requeue(app: Ardiq) -> None:
    broken = failing(app)
    jobs = await die(app, "charge", 1, 2)
    jobs += await die(app, "mail", 3, 4, 5)
    broken.clear()
    assert await app.dead.requeue(jobs[0].id) == 1
    assert await app.dead.requeue([jobs[0].id, "unknown", jobs[3].id, jobs[3].id]) == 1
    assert await app.dead.requeue(task="charge", error="Timeout") == 1
    assert await app.dead.requeue(error="nothing like it") == 0
    assert await app.dead.requeue(all=True, rate=None) == 2
    assert await app.dead.requeue(all=True) == 0
    await drain(app)
    assert [(await result_of(job)).value for job in jobs] == ["1", "2", 3, 4, 5]
    assert is_sound(app)


async def test_requeue_with_other_arguments(app: Ardiq) -> None:
    broken = failing(app)
    [job, other] = await die(app, "charge", 1, 2)
    command(app, "HSET", f"task:{other.id}", "args", "[2")
    broken.clear()
    with pytest.raises(TypeError, match="charge"):
        await app.dead.requeue([job.id, other.id], args=[1, 2])
    with pytest.raises(TypeError, match="number"):
        await app.dead.requeue(job.id, args=[object()])
    assert await app.dead.count() == 2
    assert await app.dead.requeue(job.id, args=[7], kwargs={"note": "!"}) == 1
    assert await app.dead.requeue(job.id, args=[8]) == 0
    assert await app.dead.requeue(task="charge", kwargs={"number": 9}) == 1
    await drain(app)
    assert (await result_of(job)).value == "7!"
    assert (await result_of(other)).value == "9"


async def test_requeue_of_all_takes_each_up_once(app: Ardiq) -> None:
    failing(app)
    await app.enqueue_many(app.ref("mail").prepare(i) for i in range(30))
    await drain(app)
    app.burst = False
    async with working(app):
        assert await app.dead.requeue(all=True, rate=200) == 30  # they fail again meanwhile
        await eventually(lambda: is_empty(app))
    assert await app.dead.count() == 30


async def is_empty(app: Ardiq) -> bool:
    counts = await app.inspect.counts()
    return not counts.queued + counts.running


async def test_requeue_at_a_rate(app: Ardiq) -> None:
    failing(app)
    await app.enqueue_many(app.ref("mail").prepare(i) for i in range(25))
    await drain(app)
    began = time.monotonic()
    assert await app.dead.requeue(all=True, rate=100) == 25  # 10, 10 and 5
    assert time.monotonic() - began > 0.19


async def test_more_than_a_page(app: Ardiq) -> None:
    failing(app)
    await app.enqueue_many(app.ref(("mail", "charge")[i % 2]).prepare(i) for i in range(1300))
    await drain(app)
    letters = await app.dead.list(task="mail", limit=600, offset=10)
    assert len({letter.task_id for letter in letters}) == 600
    assert await app.dead.requeue(task="mail", rate=None) == 650
    assert await app.dead.purge(error="TimeoutError(1") == len([i for i in range(1, 1300, 2) if str(i)[0] == "1"])
    assert await app.dead.purge(task="mail") == 0
    assert await app.dead.count() == await app.dead.purge()
    assert await app.dead.count() == 0
    assert is_sound(app)


async def test_those_of_a_lane_that_nobody_serves_are_left(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(priorities=["old", "new"])
    failing(app)
    old = await app.ref("mail", priority="old").enqueue(1)
    new = await app.ref("mail", priority="new").enqueue(2)
    await drain(app)
    other = make_app(queue_name=app.queue_name, priorities=["new"])
    with pytest.raises(ValueError, match="'old' is not one of"):
        await other.dead.requeue([new.id, old.id])
    assert await other.dead.count() == 2
    assert await other.dead.requeue(all=True) == 1
    assert "dead letters skipped: priority 'old' is not one of ['new']" in caplog.text
    assert await is_state(other, new.id, "queued")


@pytest.mark.damages_keys
async def test_those_of_a_damaged_lane_hold_up_no_others(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(priorities=["low", "high"])
    failing(app)
    low = await app.ref("mail", priority="low").enqueue(1)
    high = await app.ref("mail", priority="high").enqueue(2)
    await drain(app)
    command(app, "SET", "ready:low", "by hand")
    assert await app.dead.requeue(all=True) == 1
    assert f"dead letter {low.id!r} skipped: key ardiq:{{{app.queue_name}}}:ready:low" in caplog.text
    assert await is_state(app, high.id, "queued")
    with pytest.raises(WrongType):
        await app.dead.requeue(low.id)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        pytest.param("say which", {}, id="nothing"),
        pytest.param("say which", {"all": True, "task": "mail"}, id="all and a filter"),
        pytest.param("say which", {"ids": "x", "error": "no"}, id="ids and a filter"),
        pytest.param("for one task", {"all": True, "args": [1]}, id="arguments for any task"),
        pytest.param("rate must be positive", {"all": True, "rate": 0}, id="rate 0"),
        pytest.param("since must be at least 1 ms", {"since": timedelta(0)}, id="no time ago"),
        pytest.param("until must be at least 1 ms", {"until": -5}, id="in the future"),
        pytest.param("since must be a datetime, or a timedelta or seconds", {"since": math.nan}, id="not a number"),
        pytest.param("must have a time zone", {"until": datetime(2026, 1, 1)}, id="no zone"),
        pytest.param("id must not be empty", {"ids": [""]}, id="no id"),
    ],
)
async def test_misuse_of_requeue(app: Ardiq, error: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=error):
        await app.dead.requeue(**options)


async def test_only_the_newest_are_kept(make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    failing(app)
    await die(app, "mail", *range(5))
    keeper = make_app(queue_name=app.queue_name, dead_limit=2)
    async with working(keeper):
        await eventually(lambda: keeps(keeper, 2))
    assert numbers(await app.dead.list()) == [4, 3]
    assert is_sound(app)


async def test_they_are_kept_for_a_time(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(dead_ttl_ms=50)
    failing(app)
    await die(app, "mail", 1)
    app.burst = False
    async with working(app):
        await eventually(lambda: keeps(app, 0))
        [job] = [await app.send("mail", 2)]  # and it goes on to look
        await result_of(job)
        await eventually(lambda: keeps(app, 0))


async def keeps(app: Ardiq, count: int) -> bool:
    return await app.dead.count() == count


@pytest.mark.damages_keys
async def test_a_damaged_key_does_not_end_the_worker(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(dead_limit=2)

    @app.task
    async def fine() -> str:
        return "done"

    command(app, "SET", "dead", "by hand")
    async with working(app):
        await eventually(lambda: "dead letters are not trimmed" in caplog.text)
        assert (await result_of(await fine.enqueue())).value == "done"
