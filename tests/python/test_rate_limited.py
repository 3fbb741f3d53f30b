"""`RateLimited`: a task says that a limit is used up elsewhere, and nothing of it starts until then."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from helpers import drain, eventually, is_sound, result_of, working

from ardiq import Ardiq, Job, Limit, RateLimited, Snooze, current_task
from ardiq.testing import Clock, inline


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_key_is_closed_for_all_and_others_go_on(app: Ardiq) -> None:
    starts: dict[str, list[tuple[int, float]]] = defaultdict(list)
    tries: list[int] = []

    @app.task(max_retries=0, limits=Limit("host", key="host", concurrency=2))
    async def fetch(host: str, number: int) -> None:
        starts[host].append((number, now()))
        context = current_task()
        assert context is not None
        tries.append(context.tries)
        if host == "busy" and len(starts[host]) == 1:
            raise RateLimited(0.5)

    busy = [await fetch.enqueue("busy", number) for number in range(3)]
    async with working(app):
        await result_of(await fetch.enqueue("other", 1))
        for job in busy:
            result = await result_of(job)
            assert (result.success, result.tries) == (True, 1)
    (first, began), *later = starts["busy"]
    assert first == 0
    assert 0 in [number for number, at in later if at - began > 0.45]
    assert max(tries) == 1
    assert is_sound(app)


async def test_nothing_of_the_limit_starts_until_then(app: Ardiq) -> None:
    """One at a time, so that none was under way."""
    starts: list[tuple[int, float]] = []
    partner = app.limit("partner", concurrency=1)

    @app.task(limits=partner)
    async def call(number: int) -> None:
        starts.append((number, now()))
        if len(starts) == 1:
            raise RateLimited(retry_after=0.4, limit=partner)

    jobs = [await call.enqueue(number) for number in range(3)]
    async with working(app):
        for job in jobs:
            await result_of(job)
    assert [number for number, _ in starts] == [0, 0, 1, 2]
    assert starts[1][1] - starts[0][1] > 0.35


async def test_without_limits_it_is_a_snooze(app: Ardiq) -> None:
    ran: list[int] = []

    @app.task(max_retries=0)
    async def call() -> None:
        ran.append(1)
        if len(ran) == 1:
            raise RateLimited(0.01)

    job = await call.enqueue()
    async with working(app):
        assert (await result_of(job)).success
    assert isinstance(RateLimited(1), Snooze)


async def test_in_virtual_time() -> None:
    app = Ardiq("redis://127.0.0.1:1")
    ran: list[int] = []

    @app.task(limits=Limit("partner", concurrency=5))
    async def call(number: int) -> None:
        ran.append(number)
        if len(ran) == 1:
            raise RateLimited(30)

    clock = Clock()
    async with inline(app, clock=clock):
        jobs = [await call.enqueue(number) for number in (1, 2)]
        assert [await job.status() for job in jobs] == ["limited", "limited"]
        assert await clock.advance(29) == []
        assert await clock.advance(1) == jobs
    assert ran == [1, 1, 2]


async def test_a_task_that_is_limited_for_ever_fails_by_its_age(app: Ardiq) -> None:
    @app.task(max_age=0.05, limits=Limit("partner", concurrency=1))
    async def call() -> None:
        raise RateLimited(0.02, reason="429")

    job = await call.enqueue()
    async with working(app):
        result = await result_of(job)
    assert not result.success
    assert "429" in result.value
    await drain(app)


async def test_what_makes_it_too_old_holds_for_the_others(app: Ardiq) -> None:
    ran: list[int] = []

    @app.task(max_age=5, limits=Limit("partner", concurrency=1))
    async def call(number: int) -> None:
        ran.append(number)
        raise RateLimited(3600)

    first, second = [await call.enqueue(number) for number in (1, 2)]
    async with working(app):
        assert not (await result_of(first)).success
        [limit] = await app.limits.list()
        assert limit.opens_at is not None
        assert await second.status() == "limited"
    assert ran == [1]


async def is_put_off(job: Job) -> bool:
    return await job.status() == "scheduled"


async def test_another_key_than_its_own_puts_it_off_alone(app: Ardiq) -> None:
    ran: list[str] = []

    @app.task(limits=Limit("host", key="host", concurrency=5))
    async def fetch(host: str) -> None:
        ran.append(host)
        if host == "a":
            raise RateLimited(3600, key="b")

    asks = await fetch.enqueue("a")
    async with working(app):
        await eventually(lambda: is_put_off(asks))
        told = await fetch.enqueue("b")
        await result_of(await fetch.enqueue("c"))
        assert await told.status() == "limited"
    assert ran == ["a", "c"]


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (
            RateLimited(1, limit="hosts"),
            "names the limit 'hosts', which the task does not have: it has 'host', 'partner'",
        ),
        (RateLimited(1, limit="partner", key="b"), "names the key 'b' of limit 'partner', which has no keys"),
    ],
)
@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_what_its_task_does_not_have_fails_the_attempt(
    raised: RateLimited, says: str, executor: str, app: Ardiq
) -> None:
    limits = [Limit("host", key="host", concurrency=1), Limit("partner", concurrency=1)]
    if executor == "loop":

        @app.task(max_retries=0, limits=limits)
        async def fetch(host: str) -> None:
            raise raised

    else:

        @app.task(max_retries=0, limits=limits)  # type: ignore[no-redef]
        def fetch(host: str) -> None:
            raise raised

    job = await fetch.enqueue("a")
    async with working(app):
        result = await result_of(job)
    assert result.value == f"ValueError({f'RateLimited of task {fetch.name!r} {says}'!r})"
    assert [limit.opens_at for limit in await app.limits.list()] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"retry_after": -1}, ValueError, "retry_after must not be negative"),
        ({"retry_after": "30"}, TypeError, "retry_after must be a timedelta or seconds, not str"),
        ({"retry_after": float("nan")}, ValueError, "retry_after must be a timedelta or seconds, not nan"),
        ({"retry_after": 1, "limit": 5}, TypeError, "limit must be a Limit or its name, not int"),
        ({"retry_after": 1, "limit": "partner", "key": 1.5}, TypeError, "key must be a str or an int, not float"),
        ({"retry_after": 1, "limit": ""}, ValueError, "the name of a limit must not be empty"),
        ({"retry_after": 1, "limit": "host(a)"}, ValueError, "letters, digits and any of _ . - / @, not 'host\\(a\\)'"),
        ({"retry_after": 1, "key": ""}, ValueError, "the key of RateLimited is empty"),
        ({"retry_after": 1, "key": "k" * 257}, ValueError, "the key of RateLimited must have at most 256 bytes"),
        ({"retry_after": 1, "key": "\ud800"}, ValueError, "the key of RateLimited has a lone surrogate"),
    ],
)
def test_a_wrong_one_is_an_error_where_it_is_raised(
    arguments: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        RateLimited(**arguments)
