"""Decorated functions as tasks: a call is checked against what is called."""

import functools
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pydantic
import pytest
from helpers import drain, field, result_of, stranger

from ardiq import Ardiq, InvalidArguments, Job
from ardiq.testing import inline

DAY = date(2026, 1, 31)


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Passes on whatever it is given."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


def with_session(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an argument."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn("session", *args, **kwargs)

    return wrapper


def of_tenant(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Takes one more."""

    @functools.wraps(fn)
    async def wrapper(tenant: str, *args: Any, **kwargs: Any) -> Any:
        return [tenant, await fn(*args, **kwargs)]

    return wrapper


def reads_day(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Takes another type."""

    @functools.wraps(fn)
    async def wrapper(day: str) -> Any:
        return await fn(date.fromisoformat(day))

    return wrapper


class Counted:
    """A decorator that is a class."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self.fn(*args, **kwargs)


class Shop:
    async def plain(self, count: int, day: date) -> Any:
        return [count, day.year]

    @logged
    async def wrapped(self, count: int, day: date) -> Any:
        return [count, day.year]

    @logged
    async def __call__(self, count: int, day: date) -> Any:
        return [count, day.year]


async def sell(count: int, day: date) -> Any:
    return [count, day.year]


async def use(session: str, count: int, day: date = DAY) -> Any:
    return [session, count, day.year]


async def double(count: int) -> Any:
    return 2 * count


async def look(day: date) -> Any:
    return day.year


PASSING: dict[str, Callable[..., Any]] = {
    "function": sell,
    "wrapper": logged(sell),
    "two wrappers": logged(logged(sell)),
    "class": Counted(sell),
    "method": Shop().plain,
    "wrapped method": Shop().wrapped,
    "instance": Shop(),
    "partial": functools.partial(use, "session"),
    "partial of a wrapper": functools.partial(logged(use), "session"),
    "updated partial": functools.update_wrapper(functools.partial(use, "session"), use),
    "validated": pydantic.validate_call(sell),
}


@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_on_its_arguments_takes_those_of_the_function(app: Ardiq, name: str) -> None:
    task: Any = app.task(name="task", max_retries=0)(PASSING[name])
    expected = (["session"] if "partial" in name else []) + [2, 2026]
    jobs = [await task.enqueue(2, DAY), await task.enqueue(2, day=DAY)]
    with stranger(app) as other:  # plain JSON is converted by the annotations
        for sent in (await other.send("task", 2, "2026-01-31"), await other.send("task", 2, day="2026-01-31")):
            jobs.append(Job(app, sent.id))
    await drain(app)
    for job in jobs:
        assert (await result_of(job)).value == expected


ADDING: list[tuple[str, Callable[..., Any], list[Any], Any]] = [
    ("adds", with_session(use), [2], ["session", 2, 2026]),
    ("adds, under another", logged(with_session(use)), [2], ["session", 2, 2026]),
    ("takes", of_tenant(double), ["acme", 2], ["acme", 4]),
    ("takes, under another", logged(of_tenant(double)), ["acme", 2], ["acme", 4]),
    ("converts", reads_day(look), ["2026-01-31"], 2026),
    ("converts, under another", logged(reads_day(look)), ["2026-01-31"], 2026),
    ("no wraps", functools.partial(use, "session", day=DAY), [2], ["session", 2, 2026]),
]


@pytest.mark.parametrize(("name", "fn", "args", "expected"), ADDING, ids=[row[0] for row in ADDING])
async def test_what_is_called_says_what_it_takes(
    app: Ardiq, name: str, fn: Callable[..., Any], args: list[Any], expected: Any
) -> None:
    task: Any = app.task(name="task", max_retries=0)(fn)
    job = await task.enqueue(*args)
    assert json.loads(field(app, job.id, "args") or "") == args
    await drain(app)
    assert (await result_of(job)).value == expected
    async with inline(Ardiq("redis://nowhere.invalid")) as here:
        again: Any = here.task(name="task", max_retries=0)(fn)
        assert (await (await again.enqueue(*args)).result(timeout=5)).value == expected


async def test_a_call_that_a_wrapper_does_not_take_is_refused(app: Ardiq) -> None:
    task: Any = app.task(name="task", max_retries=3)(of_tenant(look))
    with pytest.raises(TypeError, match="task 'task': missing a required argument: 'tenant'"):
        await task.enqueue()
    with stranger(app) as other:
        job = Job(app, (await other.send("task")).id)
    await drain(app)
    result = await result_of(job)
    assert result.tries == 1
    assert result.value.startswith("InvalidArguments(")


async def test_a_wrapper_may_return_something_else(app: Ardiq) -> None:
    @app.task
    @of_tenant
    async def count(number: int) -> int:
        return number

    job = await count.enqueue("acme", 5)
    await drain(app)
    assert (await result_of(job)).value == ["acme", 5]


async def test_types_may_be_left_unchecked(make_app: Callable[..., Ardiq]) -> None:
    lenient = make_app(check_types=False)
    seen: list[Any] = []

    @lenient.task(max_retries=0)
    async def note(count: int, day: date | None = None) -> int:
        seen.append((count, day))
        return count

    jobs = [await note.enqueue("5"), await note.enqueue(5, "2026-01-31"), await note.enqueue(5, DAY)]  # type: ignore[arg-type]
    await drain(lenient)
    assert seen == [("5", None), (5, "2026-01-31"), (5, DAY)]
    assert [(await result_of(job)).value for job in jobs] == ["5", 5, 5]
    assert lenient.check_types is False
    with pytest.raises(TypeError, match="too many"):
        await note.enqueue(1, DAY, 3)  # type: ignore[call-arg]


async def test_a_recurring_task_takes_no_arguments(app: Ardiq) -> None:
    async def needs(day: date) -> None: ...

    with pytest.raises(TypeError, match=r"@cron .* task 'needs': missing a required argument: 'day'.*schedules\.put"):
        app.cron("@daily")(needs)  # type: ignore[arg-type]
    assert app.tasks == app.crons == []
    app.cron("@daily", name="adds")(with_session(look))
    app.cron("@daily", name="partial")(functools.partial(needs, DAY))
    assert app.crons == ["adds", "partial"]


async def test_a_schedule_is_checked_as_its_task_says(app: Ardiq) -> None:
    @app.task
    async def report(day: date, count: int = 1) -> None: ...

    with pytest.raises(TypeError, match="task 'report': missing a required argument: 'day'"):
        await app.schedules.put("one", "report", "@daily")
    with pytest.raises(TypeError, match="argument 'count' of task 'report' does not fit its annotation: Exp"):
        await app.schedules.put("one", "report", "@daily", args=[DAY], kwargs={"count": "5"})
    for wrong in (DAY, {1}, float("nan"), b"x", {1: 2}):
        with pytest.raises(TypeError, match="task 'elsewhere'"):
            await app.schedules.put("one", "elsewhere", "@daily", args=[wrong])
    assert await app.schedules.list() == []
    await app.schedules.put("one", "report", "@daily", args=[DAY])
    await app.schedules.put("two", "elsewhere", "@daily", args=[(1, 2)], kwargs={"a": None})
    assert [schedule.name for schedule in await app.schedules.list()] == ["one", "two"]


async def test_a_call_that_fits_by_its_types_fits_by_its_values(app: Ardiq) -> None:
    """What is remembered of calls that were checked never lets in one that was not."""
    from typing import Annotated, Literal

    import msgspec

    @app.task
    async def pick(
        word: Literal["a", "b"],
        number: Annotated[int, msgspec.Meta(ge=0)] = 0,
        day: date | None = None,
        ratio: float = 0.0,
        rest: list[int] | None = None,
    ) -> None: ...

    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("c",), {}), (("a", -1), {}), (("a", 1, "never"), {}), (("a",), {"ratio": "1"}), (("a",), {"rest": [1, "x"]}),
        (("a",), {"rest": 5}),
    ]  # fmt: skip
    for _ in range(3):
        await pick.enqueue("a")
        await pick.enqueue("a", 1, DAY)
        await pick.enqueue("a", ratio=1.5, rest=[1])
        nan = await pick.enqueue("a", ratio=float("nan"), rest=[])
        assert field(app, nan.id, "codec") == "msgpack"
        for args, kwargs in wrong:
            with pytest.raises(TypeError, match=r"task 'pick': argument '.*' does not fit its annotation") as refused:
                await pick.enqueue(*args, **kwargs)
            assert not isinstance(refused.value, InvalidArguments)  # which would end the task that enqueues
    assert await app.queue_size() == 12
