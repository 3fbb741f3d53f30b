"""Calls with the same key: unique, debounced, throttled, by every path."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, result_of, working

from ardiq import Ardiq, Debounce, Duplicate, Job, Throttle, Unique
from ardiq.testing import Clock, inline


@pytest.fixture
def ran(app: Ardiq) -> list[Any]:
    """What `note` ran with."""
    found: list[Any] = []

    @app.task
    async def note(user: int, text: str = "", *, size: int = 1) -> str:
        found.append((user, text, size))
        return text

    return found


@pytest.fixture
def note(app: Ardiq, ran: list[Any]) -> Any:
    return app.context.registry.tasks["note"].task


ONE_A_USER = Unique(until="start", key="user")


async def enqueued(app: Ardiq, way: str, call: Any, *args: Any, **kwargs: Any) -> Job:
    """Enqueue a call one way or another."""
    if way == "enqueue":
        return await call.enqueue(*args, **kwargs)  # type: ignore[no-any-return]
    if way == "enqueue_sync":
        return call.enqueue_sync(*args, **kwargs)  # type: ignore[no-any-return]
    prepared = call.prepare(*args, **kwargs)
    return (await app.enqueue_many([prepared]) if way == "many" else app.enqueue_many_sync([prepared]))[0]


WAYS = ["enqueue", "enqueue_sync", "many", "many_sync"]


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_the_job_of_a_call_that_adds_nothing_is_that_of_the_task(
    way: str, hooked: bool, app: Ardiq, note: Any, ran: list[Any]
) -> None:
    if hooked:
        app.on_enqueue(lambda context: context.headers.update(by="me"))
    unique = note.options(unique=ONE_A_USER)
    first = await enqueued(app, way, unique, 1, "a")
    second = await enqueued(app, way, unique, 1, "b")
    other = await enqueued(app, way, unique, 2, "c")
    assert (second.id, second.existed, first.existed, other.existed) == (first.id, True, False, False)
    await drain(app)
    assert sorted(ran) == [(1, "a", 1), (2, "c", 1)]
    assert (await result_of(second)).value == "a"


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_rejects(way: str, app: Ardiq, note: Any) -> None:
    unique = note.options(unique=Unique(key=["user"], on_conflict="reject"))
    first = await enqueued(app, way, unique, 1)
    with pytest.raises(Duplicate, match=first.id) as refused:
        await enqueued(app, way, unique, 1)
    assert refused.value.task_id == first.id
    assert await app.queue_size() == 1


async def test_a_batch_has_all_that_is_not_rejected(app: Ardiq, note: Any) -> None:
    unique = note.options(unique=Unique(key="user", on_conflict="reject"))
    with pytest.raises(Duplicate) as refused:
        await app.enqueue_many([unique.prepare(1), unique.prepare(1), note.prepare(1)])
    assert len(refused.value.jobs) == 2
    assert refused.value.task_id == refused.value.jobs[0].id


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_replaces(way: str, app: Ardiq, note: Any, ran: list[Any]) -> None:
    unique = note.options(unique=Unique(until="start", key="user", on_conflict="replace"))
    first = await enqueued(app, way, unique, 1, "a", size=3)
    second = await enqueued(app, way, unique, 1, "b")
    assert (second.id, second.existed) == (first.id, True)
    await drain(app)
    assert ran == [(1, "b", 1)]


async def test_a_call_that_replaces_takes_its_delay_along(app: Ardiq, note: Any) -> None:
    unique = Unique(key="user", on_conflict="replace")
    job = await note.options(unique=unique, delay=3600).enqueue(1)
    before = int(field(app, job.id, "due_at") or 0)
    await note.options(unique=unique, delay=7200).enqueue(1)
    assert int(field(app, job.id, "due_at") or 0) > before + 3_000_000
    await note.options(unique=unique).enqueue(1, "now")
    await drain(app)
    assert (await result_of(job)).value == "now"


async def test_a_signed_call_that_was_replaced_runs(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key="k" * 32)

    @app.task(unique=Unique(key="a", on_conflict="replace"))
    async def add(a: int, b: int) -> int:
        return a + b

    await add.enqueue(1, 1)
    job = await add.enqueue(1, 2)
    await drain(app)
    assert (await result_of(job)).value == 3


async def test_until_it_finishes(app: Ardiq) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @app.task(unique=Unique())
    async def work(number: int) -> None:
        started.set()
        await go_on.wait()

    job = await work.enqueue(1)
    running = asyncio.create_task(drain(app))
    await started.wait()
    assert (await work.enqueue(number=1)).id == job.id
    go_on.set()
    await running
    again = await work.enqueue(1)
    assert again.id != job.id
    assert (await result_of(job)).success, "the result of the first stays its own"
    await drain(app)


async def test_until_it_starts(app: Ardiq) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    @app.task(unique=Unique(until="start"))
    async def work() -> None:
        started.set()
        await go_on.wait()

    job = await work.enqueue()
    running = asyncio.create_task(drain(app))
    await started.wait()
    second = await work.enqueue()
    assert (second.id != job.id, second.existed) == (True, False)
    go_on.set()
    await running


async def test_for_a_time(app: Ardiq, note: Any, ran: list[Any]) -> None:
    window = note.options(unique=Unique(until=timedelta(hours=1), key="user"))
    job = await window.enqueue(1)
    await drain(app)
    assert (await window.enqueue(1)).id == job.id
    short = note.options(unique=Unique(until=0.001, key=("user", "size")))
    await short.enqueue(1)
    await asyncio.sleep(0.05)
    assert not (await short.enqueue(1)).existed
    await drain(app)
    assert len(ran) == 3


async def test_what_an_abort_frees(app: Ardiq, note: Any) -> None:
    unique = note.options(unique=Unique())
    job = await unique.enqueue(1)
    await job.abort()
    assert not (await unique.enqueue(1)).existed


async def test_a_dead_letter_is_in_nobodys_way_and_runs_again_with_its_key(app: Ardiq) -> None:
    @app.task(max_retries=0, unique=Unique())
    async def fail() -> None:
        raise ValueError

    job = await fail.enqueue()
    await drain(app)
    await app.dead.requeue(job.id)
    assert (await fail.enqueue()).id == job.id
    await drain(app)
    assert not (await fail.enqueue()).existed


async def test_debounced_calls_are_one_task(app: Ardiq, note: Any, ran: list[Any]) -> None:
    later = note.options(debounce=Debounce(quiet=0.3, most=60, key="user"))
    first = await later.enqueue(1, "a")
    due_at = int(field(app, first.id, "due_at") or 0)
    await asyncio.sleep(0.01)
    jobs = [await later.enqueue(1, text) for text in "bc"]
    assert {job.id for job in jobs} == {first.id}
    assert int(field(app, first.id, "due_at") or 0) > due_at
    running = asyncio.create_task(app.run())
    await result_of(first)
    app.stop()
    await running
    assert ran == [(1, "c", 1)]


async def test_a_debounced_task_is_due_at_last(app: Ardiq, note: Any) -> None:
    later = note.options(debounce=Debounce(quiet=timedelta(hours=1), most=timedelta(minutes=90)))
    job = await later.enqueue(1)
    first = int(field(app, job.id, "enqueued_at") or 0)
    app.context.server.core.command(
        ["HSET", f"{app.context.server.base}task:{job.id}", "enqueued_at", str(first - 3_000_000)]
    )
    await later.enqueue(1)
    assert int(field(app, job.id, "due_at") or 0) == first - 3_000_000 + 5_400_000


async def test_throttled_calls_are_the_first_and_the_last(app: Ardiq, note: Any, ran: list[Any]) -> None:
    seldom = note.options(throttle=Throttle(per=3600, key="user"))
    first, *others = [await seldom.enqueue(1, text) for text in "abc"]
    assert [job.existed for job in others] == [False, True]
    assert others[0].id == others[1].id != first.id
    assert await others[0].status() == "scheduled"
    await drain(app)
    assert ran == [(1, "a", 1)]
    info = await others[0].info()
    assert info is not None
    assert info.args == (1, "c")


async def test_without_a_trailing_call(app: Ardiq, note: Any) -> None:
    seldom = note.options(throttle=Throttle(per=3600, key="user", trailing=False))
    first = await seldom.enqueue(1, "a")
    await drain(app)
    assert (await seldom.enqueue(1, "b")).id == first.id
    assert await app.queue_size() == 0


async def test_request_waits_for_the_task_that_is_there(app: Ardiq, note: Any, ran: list[Any]) -> None:
    unique = note.options(unique=Unique(key="user"))
    job = await unique.enqueue(1, "a")
    asked = asyncio.create_task(unique.request(1, "b", timeout=SOON_S))
    core, waiters = app.context.server.core, f"{app.context.server.base}waiters:{job.id}"
    await eventually(lambda: core.command(["EXISTS", waiters]))
    await drain(app)
    assert await asked == "a"
    assert ran == [(1, "a", 1)]


async def test_which_calls_are_the_same(app: Ardiq, note: Any) -> None:
    unique = note.options(unique=Unique())
    job = await unique.enqueue(1)
    for args, kwargs in (((1, ""), {}), ((), {"user": 1}), ((1,), {"size": 1, "text": ""})):
        assert (await unique.enqueue(*args, **kwargs)).id == job.id
    for args, kwargs in (((2,), {}), ((1,), {"size": 2}), ((1, "x"), {})):
        assert (await unique.enqueue(*args, **kwargs)).id != job.id

    @app.task(unique=Unique())
    async def other(user: int, text: str = "", *, size: int = 1) -> None: ...

    assert (await other.enqueue(1)).id != job.id, "another task"


async def test_a_key_of_several_arguments_and_of_a_function(app: Ardiq, note: Any) -> None:
    both = note.options(unique=Unique(key=["user", "size"]))
    assert (await both.enqueue(1, "a")).id == (await both.enqueue(1, "b")).id
    assert not (await both.enqueue(1, "a", size=2)).existed
    shard = note.options(unique=Unique(key=lambda user: user % 10))
    assert (await shard.enqueue(3)).id == (await shard.enqueue(13)).id


async def test_keys_of_objects_and_keywords(app: Ardiq) -> None:
    @dataclass
    class Point:
        x: int

    @app.task(unique=Unique(key=["point", "tag"]))
    async def draw(point: Point, **rest: Any) -> None: ...

    job = await draw.enqueue(Point(1), tag="a")
    assert (await draw.enqueue(point=Point(1), tag="a", other=2)).id == job.id
    assert (await draw.enqueue(Point(2), tag="a")).id != job.id
    with pytest.raises(ValueError, match="no argument named 'tag'"):
        await draw.enqueue(Point(1))


async def test_the_digest_is_the_same_everywhere(app: Ardiq, note: Any) -> None:
    job = await note.options(unique=Unique(key=["user", "text"])).enqueue(7, "x")
    program = (
        "from ardiq import Unique\nfrom ardiq._values.keyed import Keyed\n"
        "keyed = Keyed('note', Unique(key=['text', 'user']), None)\n"
        "print(keyed.options((), {'text': 'x', 'user': 7})['unique']['key'])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == field(app, job.id, "unique") == "note:4bcd82e8951e52e84861408743a3597c"


async def test_by_reference(app: Ardiq, note: Any, make_app: Callable[..., Ardiq]) -> None:
    job = await note.options(unique=ONE_A_USER).enqueue(1)
    assert (await app.ref("note").options(unique=ONE_A_USER).enqueue(1)).id == job.id
    elsewhere = make_app(queue_name=app.queue_name).ref("note").options(unique=ONE_A_USER)
    assert (await elsewhere.enqueue(user=1)).id == job.id
    with pytest.raises(ValueError, match="no argument named 'user'"):
        await elsewhere.enqueue(1)


async def test_the_rule_of_a_task_and_of_one_call(app: Ardiq) -> None:
    @app.task(unique=ONE_A_USER)
    async def work(user: int, text: str = "") -> None: ...

    job = await work.enqueue(1)
    assert (await app.send("work", 1)).id == job.id
    assert (await app.enqueue_many([work.prepare(1, "b")]))[0].id == job.id
    assert not (await work.options(unique=False).enqueue(1)).existed
    assert (await work.options(priority="default").enqueue(1)).id == job.id
    with pytest.raises(Duplicate):
        await work.options(unique=Unique(until="start", key="user", on_conflict="reject")).enqueue(1)
    assert (await work.options(unique=True).enqueue(1)).id.startswith("unique:work:")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Unique(until="end"), ValueError, "until of Unique must be 'start', 'finish' or a time, not 'end'"),  # type: ignore[arg-type]
        (lambda: Unique(until=0), ValueError, "until of Unique must be at least 1 ms, not 0"),
        (lambda: Unique(until=-1), ValueError, "until of Unique must be at least 1 ms, not -1"),
        (lambda: Unique(until=float("nan")), ValueError, "until of Unique must be a timedelta or seconds, not nan"),
        (lambda: Unique(until=None), TypeError, "until of Unique must be a timedelta or seconds, not NoneType"),  # type: ignore[arg-type]
        (lambda: Unique(on_conflict="drop"), ValueError, "on_conflict of Unique must be one of"),  # type: ignore[arg-type]
        (lambda: Unique(key=[]), TypeError, "key of Unique must be the name of a parameter"),
        (lambda: Unique(key=""), TypeError, "key of Unique must be the name of a parameter"),
        (lambda: Unique(key=[1]), TypeError, "key of Unique must be the name of a parameter"),  # type: ignore[list-item]
        (lambda: Debounce(quiet=0), ValueError, "quiet of Debounce must be at least 1 ms"),
        (lambda: Debounce(quiet=float("inf")), ValueError, "quiet of Debounce must be"),
        (lambda: Debounce(quiet=5, most=4), ValueError, "most of Debounce must not be below quiet: 4 is below 5"),
        (lambda: Debounce(quiet="5"), TypeError, "quiet of Debounce must be a timedelta or seconds, not str"),  # type: ignore[arg-type]
        (lambda: Throttle(per=0), ValueError, "per of Throttle must be at least 1 ms"),
        (lambda: Throttle(per=True), TypeError, "per of Throttle must be a timedelta or seconds, not bool"),
        (lambda: Throttle(per=1, trailing=1), TypeError, "trailing of Throttle must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_a_rule_that_is_none(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as refused:
        make()
    assert text in str(refused.value)


def test_options_that_are_none(app: Ardiq, note: Any) -> None:
    for given in ({"unique": "start"}, {"unique": Debounce(quiet=1)}, {"debounce": 5}, {"throttle": Unique()}):
        with pytest.raises(TypeError, match="must be"):
            note.options(**given)
        with pytest.raises(TypeError, match="must be"):
            app.task(**given)
    with pytest.raises(ValueError, match="give one of unique, debounce and throttle"):
        app.task(unique=True, debounce=Debounce(quiet=1))
    with pytest.raises(ValueError, match="task 'note' has a Debounce, which says when it falls due: give it no delay"):
        note.options(debounce=Debounce(quiet=1), delay=5)
    with pytest.raises(ValueError, match="has a Throttle"):
        note.options(throttle=Throttle(per=1), at=datetime.now(UTC) + timedelta(hours=1))


def test_a_key_that_the_task_does_not_have(app: Ardiq, note: Any) -> None:
    for key in ("usr", ["user", "usr"], lambda usr: usr):
        with pytest.raises(ValueError, match="the key of Unique of task 'note' names the parameter 'usr', which"):
            note.options(unique=Unique(key=key))
    with pytest.raises(TypeError, match="must be a function of parameters that the task has, not of '\\*args'"):
        note.options(unique=Unique(key=lambda *args: args))

    with pytest.raises(ValueError, match="names the parameter 'usr'"):

        @app.task(throttle=Throttle(per=1, key="usr"))
        async def broken(user: int) -> None: ...

    assert "broken" not in app.tasks


async def test_a_key_that_cannot_be_computed(note: Any) -> None:
    with pytest.raises(ValueError, match=r"the key of Unique of task 'note' cannot be computed: ZeroDivisionError"):
        await note.options(unique=Unique(key=lambda user: 1 / user)).enqueue(0)
    with pytest.raises(TypeError, match=r"the key of Unique of task 'note' cannot be encoded: .*object"):
        await note.options(unique=Unique(key=lambda user: object())).enqueue(0)


async def test_nobody_reads_what_is_not_asked_for(app: Ardiq, note: Any) -> None:
    job = await note.enqueue(1)
    assert field(app, job.id, "unique") is None
    assert app.context.server.core.command(["EXISTS", f"{app.context.server.base}unique"]) == 0
    assert is_sound(app)


async def test_many_producers_and_two_workers(make_app: Callable[..., Ardiq]) -> None:
    """Of a key one task at a time is unfinished, and what was said last of it runs."""
    one = make_app(concurrency=8)
    two = make_app(queue_name=one.queue_name, concurrency=8)
    running: dict[int, int] = {}
    said: set[int] = set()

    async def alone(key: int) -> None:
        running[key] = running.get(key, 0) + 1
        assert running[key] == 1
        await asyncio.sleep(0.001)
        running[key] -= 1

    async def newest(key: int, number: int) -> None:
        said.add(number)

    unique = Unique(key="key")
    replaced = Unique(until="start", key="key", on_conflict="replace")
    for app in (one, two):
        app.task(unique=unique, max_retries=0)(alone)
        app.task(unique=replaced, max_retries=0)(newest)

    async def produce(app: Ardiq, first: int) -> list[Job]:
        jobs = []
        for number in range(first, first + 60):
            jobs.append(await app.send("alone", number % 3))
            jobs.append(await app.send("newest", number % 3, number))
        return jobs

    async with working(one), working(two):
        made = await asyncio.gather(*(produce(app, 1000 * n) for n, app in enumerate((one, two, one, two))))
        for key in range(3):
            await (await one.send("newest", key, 9000 + key)).value(timeout=SOON_S)
        for job in {job.id: job for jobs in made for job in jobs}.values():
            assert (await result_of(job)).success
    assert said >= {9000, 9001, 9002}
    assert is_sound(one)


class Released:
    """A worker of version 1 of the library, by its functions."""

    def __init__(self, app: Ardiq) -> None:
        self.core, self.base = app.context.server.core, app.context.server.base
        if not self.core.command(["COMMAND", "INFO", "FCALL"])[0]:
            pytest.skip("a server with functions")
        released = Path(__file__).parents[2] / "lua/releases/ardiq_v1.lua"
        self.core.command(["FUNCTION", "LOAD", "REPLACE", released.read_text()])
        self("join", "old:1", "60000", "{}", '["default"]', "1")

    def __call__(self, function: str, *arguments: str) -> Any:
        return self.core.command(["FCALL", f"ardiq_v1_{function}", "1", self.base, *arguments])

    def claim(self) -> tuple[str, str]:
        """The id and the token of a claim."""
        _, task_id, token, *_ = self("claim", "old:1", '["default"]', "1", "60000")
        return task_id.decode(), token.decode()


async def test_beside_workers_of_version_1(app: Ardiq, note: Any) -> None:
    old = Released(app)
    until_start, until_finish = (note.options(unique=Unique(until=until, key="user")) for until in ("start", "finish"))
    job = await until_finish.enqueue(1)
    task_id, token = old.claim()
    assert task_id == job.id
    assert (await until_finish.enqueue(1)).id == job.id, "it runs there"
    old("retry", "old:1", job.id, token, "0", "0", "0", "no", "", "60000")
    assert (await until_start.enqueue(1)).id == job.id, "it waits for another try"
    _, token = old.claim()
    second = await until_start.enqueue(1)
    assert second.id != job.id, "it runs there"
    old("complete", "old:1", job.id, token, "0", "1", "", "60000")
    assert (await until_start.enqueue(1)).id == second.id
    _, token = old.claim()
    old("complete", "old:1", second.id, token, "0", "1", "", "60000")
    assert not (await until_finish.enqueue(2)).existed
    key = [app.context.server.core.command(["HLEN", f"{app.context.server.base}unique"])]
    assert key == [2], "nobody has freed what version 1 ended"
    async with working(app):
        await eventually(lambda: not app.context.server.core.command(["EXISTS", f"{app.context.server.base}unique"]))
    old("leave", "old:1", "60000")


async def test_what_version_1_reaps_of_ours_waits_with_its_key(app: Ardiq, note: Any) -> None:
    old = Released(app)
    core, base = app.context.server.core, app.context.server.base
    unique = note.options(unique=Unique(key="user"))
    job = await unique.enqueue(1)
    core.call("join", ["new:1", "60000", "{}", '["default"]', "1"], False)
    core.call("claim", ["new:1", '["default"]', "1", "60000"], False)
    assert core.command(["HGET", f"{base}running:new:1", job.id]).endswith(b"/-0")
    core.command(["ZADD", f"{base}workers", "0", "new:1"])  # it is lost
    old("heartbeat", "old:1", "60000", "60000", "1", "3", "0", "0")
    assert await job.status() == "queued"
    assert (await unique.enqueue(1)).id == job.id
    await drain(app)
    assert not (await unique.enqueue(1)).existed
    old("leave", "old:1", "60000")


async def test_inline_in_virtual_time(app: Ardiq, note: Any, ran: list[Any]) -> None:
    clock = Clock()
    async with inline(app, clock=clock):
        seldom = note.options(throttle=Throttle(per=10, key="user"))
        for text in "abc":
            await seldom.enqueue(1, text)
        assert ran == [(1, "a", 1)]
        await clock.advance(seconds=10)
        assert ran == [(1, "a", 1), (1, "c", 1)]
        await clock.advance(seconds=9)
        await seldom.enqueue(1, "d")
        assert len(ran) == 2
        await clock.advance(seconds=1)
        assert ran[-1] == (1, "d", 1)
        await clock.advance(seconds=10)
        await seldom.enqueue(1, "e")
        assert ran[-1] == (1, "e", 1)

        ran.clear()
        later = note.options(debounce=Debounce(quiet=5, most=12, key="user"))
        for text in "abcd":
            await later.enqueue(1, text)
            await clock.advance(seconds=3)
        assert ran == [(1, "d", 1)], "at last after twelve seconds"

        window = note.options(unique=Unique(until=60, key="user"))
        job = await window.enqueue(5)
        await clock.advance(seconds=59)
        assert (await window.enqueue(5)).id == job.id
        await clock.advance(seconds=1)
        assert (await window.enqueue(5)).id != job.id
