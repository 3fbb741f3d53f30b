"""Arguments arrive, and results come back, as the function's annotations say; what does not fit fails at once."""

import dataclasses
import enum
import functools
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pydantic
import pytest
from helpers import drain, field, result_of, stranger, working

from ardiq import Ardiq, ErrorContext, ExecutionContext, InvalidArguments, Job, TaskResult
from ardiq.testing import inline


class Unknown: ...


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Order(msgspec.Struct):
    number: int
    when: datetime


class Pair(NamedTuple):
    a: int
    b: str


class Address(TypedDict):
    city: str


class User(pydantic.BaseModel):
    name: str
    born: date
    age: int = 0


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    at: datetime


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    legs: int


@dataclasses.dataclass
class Holder:
    what: Unknown | None = None


@dataclasses.dataclass
class Party:
    host: User
    guests: list[User]


UserId = NewType("UserId", int)
Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
ADA = User(name="Ada", born=date(1815, 12, 10))
ADA_PLAIN = {"name": "Ada", "born": "1815-12-10", "age": 0}

# annotation, what was sent, what arrives
ARRIVING: list[tuple[Any, Any, Any]] = [
    (Point, {"x": 1}, Point(1)),
    (list[Point], [{"x": 1}, {"x": 2}], [Point(1), Point(2)]),
    (Point | None, None, None),
    (Order, {"number": 1, "when": "2024-01-01T00:00:00Z"}, Order(1, datetime(2024, 1, 1, tzinfo=UTC))),
    (Color, "red", Color.RED),
    (datetime, "2024-01-01T00:00:00", datetime(2024, 1, 1)),
    (date, "2024-01-01", date(2024, 1, 1)),
    (timedelta, "P1D", timedelta(days=1)),
    (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
    (Decimal, "1.10", Decimal("1.10")),
    (set[int], [1, 1], {1}),
    (tuple[int, int], [1, 2], (1, 2)),
    (Pair, [1, "a"], Pair(1, "a")),
    (Address, {"city": "X"}, {"city": "X"}),
    (dict[int, Decimal], {"1": "1.5"}, {1: Decimal("1.5")}),
    (UserId, 7, 7),
    (User, {"name": "Ada", "born": "1815-12-10"}, ADA),
    (User | None, ADA_PLAIN, ADA),
    (dict[str, User], {"a": ADA_PLAIN}, {"a": ADA}),
    (Strict, {"at": "2024-01-01T00:00:00Z"}, Strict(at=datetime(2024, 1, 1, tzinfo=UTC))),
    (Pet, {"kind": "dog", "legs": 3}, Dog(kind="dog", legs=3)),
    (list[Cat | Dog], [{"kind": "cat"}], [Cat(kind="cat")]),
    (Party, {"host": ADA_PLAIN, "guests": [ADA_PLAIN]}, Party(ADA, [ADA])),
    # What a type checker takes, and what nobody knows to convert, arrives as it was sent.
    (float, 3, 3),
    (int, True, True),
    (list[float], [1, 2.5, False], [1, 2.5, False]),
    (int | None, None, None),
    (int, 2**80, 2**80),
    (object, {"a": 1}, {"a": 1}),
    (Any, [1], [1]),
    (Unknown, {"a": 1}, {"a": 1}),
    (list[Unknown], ["a"], ["a"]),
    (str | datetime, "2024-01-01", "2024-01-01"),
    (Sequence[int], [1], [1]),
    (Iterable[int], [1], [1]),
    (Path, "/tmp", "/tmp"),
    ("NotThere", 5, 5),
]


def annotated(hint: Any, arrived: list[Any]) -> Any:
    async def note(value: Any, *rest: Any, key: Any = None, **more: Any) -> Any:
        arrived.extend([value, *rest, key, *more.values()])
        return value

    note.__annotations__ = {"value": hint, "rest": hint, "key": hint, "more": hint, "return": hint}
    return note


@pytest.mark.parametrize(("hint", "sent", "expected"), ARRIVING, ids=[f"{row[0]}-{row[1]}"[:60] for row in ARRIVING])
async def test_arguments_arrive_as_annotated_whoever_sent_them(app: Ardiq, hint: Any, sent: Any, expected: Any) -> None:
    """By name, as from a program that knows nothing of the function."""
    arrived: list[Any] = []
    app.task(name="note")(annotated(hint, arrived))
    only: list[Any] = []

    async def alone(value: Any, other: Any = None) -> None:
        only.append((value, other))

    alone.__annotations__ = {"value": hint, "other": hint}
    app.task(alone)
    with stranger(app) as other:
        await other.send("note", sent, sent, key=sent, other=sent)
        await other.send("note", sent)
        await other.send("alone", sent)
        await other.send("alone", sent, sent)
    await drain(app)
    assert len(arrived) == 6
    for value in [*arrived[:5], only[0][0], *only[1]]:
        assert (value, type(value)) == (expected, type(expected))
    assert arrived[5] is None
    assert only[0][1] is None


@pytest.mark.parametrize(("hint", "sent", "expected"), ARRIVING, ids=[f"{row[0]}-{row[1]}"[:60] for row in ARRIVING])
async def test_results_come_back_as_annotated(app: Ardiq, hint: Any, sent: Any, expected: Any) -> None:
    """A worker returned plain data; the job's own task knows more."""

    async def give() -> Any: ...

    give.__annotations__ = {"return": hint}
    worker = app.task(name="worker")(_returning(sent))
    job = await worker.enqueue()
    await drain(app)
    known: Any = type(worker)(app, "give", give)
    object.__setattr__(job, "_signature", known.signature)
    for result in [await job.result(), await job.result(timeout=5), job.result_sync()]:
        assert result is not None
        assert (result.value, type(result.value)) == (expected, type(expected))


def _returning(value: Any) -> Callable[[], Awaitable[Any]]:
    async def give() -> Any:
        return value

    return give


async def test_models_travel_both_ways(app: Ardiq) -> None:
    seen: list[Any] = []

    @app.task
    async def echo(user: User, *, pets: list[Cat | Dog]) -> Party:
        seen.extend([user, pets])
        return Party(user, [user])

    async with working(app):
        job = await echo.enqueue(ADA, pets=[Dog(kind="dog", legs=4)])
        result = await job.result(timeout=20)
        assert result is not None
        assert result.value == Party(ADA, [ADA])
        assert await echo.request(ADA, pets=[]) == Party(ADA, [ADA])
    assert seen[:2] == [ADA, [Dog(kind="dog", legs=4)]]
    assert field(app, job.id, "args") == '[{"name":"Ada","born":"1815-12-10","age":0}]'
    with pytest.raises(TypeError, match="argument 1 of task 'elsewhere' is of type User"):
        await app.send("elsewhere", ADA)


MISFITS: list[tuple[Any, Any, str]] = [
    (int, "5", "Expected `int`, got `str`"),
    (int, 5.5, "Expected `int`, got `float`"),
    (int, None, "Expected `int`, got `null`"),
    (float, "5", "Expected `float`, got `str`"),
    (str, 5, "Expected `str`, got `int`"),
    (bool, 1, "Expected `bool`, got `int`"),
    (list[int], [1, "x"], "Expected `int`, got `str` - at `$[1]`"),
    (Point, {"y": 1}, "missing required field `x`"),
    (Point, {"x": "1"}, "Expected `int`, got `str` - at `$.x`"),
    (Color, "green", "Invalid enum value 'green'"),
    (datetime, "yesterday", "Invalid RFC3339"),
    (uuid.UUID, "x", "Invalid UUID"),
    (Literal["a"], "b", "Invalid enum value 'b'"),
    (Annotated[int, msgspec.Meta(ge=0)], -1, "Expected `int` >= 0"),
    (User, {"name": "Ada", "born": "never"}, "born: Input should be a valid date"),
    (User, [], "Input should be an object"),
    (Holder, {"what": 5}, "Expected `Unknown`, got `int` - at `$.what`"),
    (Party, {"host": {}, "guests": []}, "name: Field required; born: Field required - at `$.host`"),
    (Pet, {"kind": "cow"}, "Input tag 'cow'"),
]


@pytest.mark.parametrize(("hint", "sent", "why"), MISFITS, ids=[f"{row[0]}-{row[1]}"[:60] for row in MISFITS])
async def test_what_does_not_fit_fails_at_once_and_is_named(app: Ardiq, hint: Any, sent: Any, why: str) -> None:
    ran: list[Any] = []

    async def note(first: Any, value: Any) -> None:
        ran.append(value)

    def note_sync(first: Any, value: Any) -> None:
        ran.append(value)

    note.__annotations__ = note_sync.__annotations__ = {"first": int, "value": hint}
    app.task(max_retries=5)(note)
    app.task(max_retries=5, timeout=60, name="limited")(note)
    app.task(max_retries=5)(note_sync)
    names = ("note", "limited", "note_sync")
    with stranger(app) as other:
        jobs = [Job(app, (await other.send(name, 1, sent)).id) for name in names]
        jobs += [Job(app, (await other.send("note", 1, value=sent)).id)]
    for name in names:  # who knows the task is told at once
        with pytest.raises(
            TypeError, match=f"task '{name}': argument 'value' does not fit its annotation: "
        ) as refused:
            await app.send(name, 1, sent)
        assert why in str(refused.value)
    await drain(app)
    for job in jobs:
        result = await result_of(job)
        assert not result.success
        assert result.tries == 1
        assert result.value.startswith("InvalidArguments(")
        assert "argument 'value' does not fit its annotation: " in result.value
        assert why in result.value.replace("\\'", "'").replace('\\"', '"')
    assert await app.dead_count() == 4
    assert not ran


@pytest.mark.parametrize("call", ["[]", "[1]", "[1,2,3]", "{}", "7", "{", "\xff"])
async def test_a_call_that_does_not_fit_the_function_fails_at_once(app: Ardiq, call: str) -> None:
    @app.task(max_retries=5)
    async def two(a, b): ...  # type: ignore[no-untyped-def]

    @app.task(max_retries=5)
    def two_sync(a: int, b: int) -> None: ...

    @app.task(max_retries=5)
    async def key(*, a: int) -> None: ...

    names = ["two", "two_sync", "key"]
    for name in names:
        app.context.server.core.call("enqueue", [name, name, "default", call, "", ""])
    await drain(app)
    for name in names:
        result = await app.result(name)
        assert result is not None
        assert (result.success, result.tries) == (False, 1)
        assert "InvalidArguments" in result.value


async def test_a_type_error_of_the_task_itself_is_tried_again(app: Ardiq) -> None:
    @app.task(max_retries=1, backoff_ms=1)
    async def wrong(a: int) -> None:
        raise TypeError("mine")

    async with working(app):
        assert (await result_of(await wrong.enqueue(1))).tries == 2


async def test_hooks_and_middleware_see_what_arrived(app: Ardiq) -> None:
    seen: list[Any] = []

    @app.middleware
    async def around(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        seen.append((context.args, context.kwargs))
        return await call_next()

    @app.on_error
    def failed(context: ErrorContext) -> None:
        seen.append((type(context.exc), context.will_retry))

    @app.task
    async def note(point: Point, other: Point | None = None) -> None: ...

    with stranger(app) as other:
        await other.send("note", {"x": 1})
        await other.send("note", {"z": 1})
    await drain(app)
    assert sorted(seen, key=repr) == sorted([((Point(1),), {}), (InvalidArguments, False)], key=repr)


async def test_a_default_is_not_checked_and_none_may_be_said(app: Ardiq) -> None:
    marker = object()
    seen: list[Any] = []

    @app.task
    async def note(a: int = None, b: int = marker, *, c: str = 5) -> None:  # type: ignore[assignment]  # noqa: RUF013
        seen.append((a, b is marker, c))

    for args in [(), (None,), (1,), (1, 2)]:
        await app.send("note", *args)
    await drain(app)
    assert seen == [(None, True, 5), (None, True, 5), (1, True, 5), (1, False, 5)]


async def test_inline_does_the_same() -> None:
    app = Ardiq("redis://nowhere.invalid")

    @app.task(max_retries=5)
    async def note(point: Point) -> Point:
        return Point(point.y, point.x)

    @app.task(max_retries=5)
    def note_sync(point: Point) -> Point:
        return Point(point.y, point.x)

    async with inline(app):
        for name in ("note", "note_sync"):
            result: TaskResult | None = await (await app.send(name, {"x": 1, "y": 2})).result()
            assert result is not None
            assert result.value == {"x": 2, "y": 1} or result.value == Point(2, 1)
            with pytest.raises(TypeError, match=re.escape("'point' does not fit its annotation: Expected `int`, got")):
                await app.send(name, {"x": "1"})


async def test_a_result_that_is_not_what_the_task_says_is_an_error_where_it_is_asked_for(app: Ardiq) -> None:
    @app.task
    async def wrong() -> int:
        return "5"  # type: ignore[return-value]

    @app.task(max_retries=0)
    async def fails() -> int:
        raise ValueError("no")

    async with working(app):
        job = await wrong.enqueue()
        with pytest.raises(
            TypeError, match="result of task 'wrong' does not fit its annotation: Expected `int`, got `str`"
        ):
            await job.result(timeout=20)
        raw = await app.result(job.id)  # of no task in particular
        assert raw is not None
        assert raw.value == "5"
        assert (await result_of(await fails.enqueue())).value == "ValueError('no')"


async def test_an_own_serializer_is_left_alone(make_app: Callable[..., Ardiq]) -> None:
    import pickle

    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads)
    seen: list[Any] = []

    @app.task(max_retries=5)
    async def note(value: int) -> int:
        seen.append(value)
        return value

    job = await app.send("note", "five")
    with stranger(app, serializer=pickle.dumps) as other:
        missing = await other.send("note")
    await drain(app)
    assert seen == ["five"]
    assert (await result_of(job)).value == "five"
    assert (await result_of(Job(app, missing.id))).tries == 1


async def test_what_a_call_leaves_out_is_the_function_s_own_default(app: Ardiq) -> None:
    marker, seen = object(), list[Any]()

    @app.task
    async def plain(a: int, b: int = marker, c: list[int] = []) -> None:  # type: ignore[assignment]  # noqa: B006
        seen.append((a, b is marker, c))

    def fills(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs, session="open")

        return wrapper

    @app.task
    @fills
    async def wrapped(a: int, session: str = "none") -> None:
        seen.append((a, session))

    async with working(app):
        for call in (plain.prepare(1), plain.prepare(1, 2), wrapped.prepare(1)):
            (job,) = await app.enqueue_many([call])
            assert (await result_of(job)).success
    assert seen == [(1, True, []), (1, False, []), (1, "open")]
    with pytest.raises(InvalidArguments, match="'b' does not fit"):
        app.context.codec.receiver(plain.signature)(b'[1,"x"]')


async def test_middleware_sees_the_arguments_as_they_were_sent(app: Ardiq) -> None:
    seen: list[Any] = []

    @app.middleware
    async def look(context: ExecutionContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(context.args)
        return await call_next()

    @app.task
    async def add(a: int, b: int = 1) -> int:
        return a + b

    async with working(app):
        assert await add.request(1) == 2
        assert await add.request(1, 2) == 3
    assert seen == [(1,), (1, 2)]


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Point, Point("one"), "$.x"),  # type: ignore[arg-type]
        (list[Order], [Order("one", datetime.now(UTC))], "$[0].number"),  # type: ignore[arg-type]
    ],
)
async def test_where_an_instance_does_not_fit_is_told(app: Ardiq, hint: Any, value: Any, path: str) -> None:
    def take(argument: Any) -> None: ...

    take.__annotations__["argument"] = hint
    wrong = re.escape(
        f"argument 'argument' of task 'take' does not fit its annotation: Expected `int`, got `str` - at `{path}`"
    )
    with pytest.raises(TypeError, match=wrong):
        await app.task(take).enqueue(value)


async def test_plain_data_and_instances_travel_in_one_call(app: Ardiq) -> None:
    @app.task
    async def take(point: Point, when: date, raw: bytes = b"") -> bool:
        return (point, when, raw) == (Point(1), date(2026, 3, 1), b"\xff")

    plain: Any = {"x": 1}
    async with working(app):
        for day in (date(2026, 3, 1), "2026-03-01"):
            for point in (plain, Point(1)):
                assert await take.request(point, day, b"\xff")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"'point' of task 'take' does not fit .* got `str` - at `\$.x`"):
            await take.enqueue({"x": "one"}, date(2026, 3, 1))  # type: ignore[arg-type]
