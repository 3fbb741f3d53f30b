"""What arrives equals what was sent, or the enqueue says so."""

import dataclasses
import enum
import json
import math
import os
import pickle
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from helpers import drain, field, result_of

from ardiq import Ardiq
from ardiq._values import conversion as _conversion
from ardiq._values.codec import Codec
from ardiq._values.encodings import to_json
from ardiq._values.signature import Signature
from ardiq.errors import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForTypeCheckers


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Order:
    number: int
    when: datetime
    tags: set[str]


@dataclasses.dataclass(eq=False)
class Compared:
    by: int


class Struct(msgspec.Struct):
    data: bytes
    at: date | None = None


class Text(str): ...


class Count(int): ...


class Ratio(float): ...


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


NAN = float("nan")
PLAIN: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64, 10**40, -(10**40), 0.0, -0.0, 1.5, 1e300, 5e-324, 1e16,
    "", "text", "zero\0", "\u2028 é 😀", [], {}, [1, "a", None, [2.5, {"b": [True]}]], {"": 0, "a b": {"c": []}},
    "\ud800", ["file\udce9.txt"], {"\udce9": 1}, [[]] * 50, list(range(1000)), {str(i): i for i in range(1000)},
]  # fmt: skip
MSGPACK: list[Any] = [
    b"", b"\0\xff", bytearray(b"x"), NAN, math.inf, -math.inf, {1: "a"}, {1.5: 2}, {None: 1}, {True: 1}, {b"k": b"v"},
    {"a": 1, 1: 2}, [b"a", [NAN]], {"a": {"b": b"c"}}, {(1, "a"): 2},
]  # fmt: skip
EQUAL: list[Any] = [Text("t"), Count(3), Ratio(1.5), Level.HIGH, Word.YES, OrderedDict(a=1), defaultdict(int, a=1)]


def same(sent: Any, arrived: Any) -> bool:
    if isinstance(sent, float) and math.isnan(sent):
        return isinstance(arrived, float) and math.isnan(arrived)
    if isinstance(sent, list):
        return isinstance(arrived, list) and len(sent) == len(arrived) and all(map(same, sent, arrived))
    return bool(arrived == sent) and isinstance(sent, (type(arrived), bytearray))


class Echo:
    """A task that notes what arrives and returns it."""

    def __init__(self, app: Ardiq) -> None:
        self.app = app
        self.arrived: dict[str, Any] = {}

        @app.task(max_retries=0)
        async def echo(key: str, value):  # type: ignore[no-untyped-def]
            self.arrived[key] = value
            return value

        self.task: Any = echo


@pytest.fixture
def echo(app: Ardiq) -> Echo:
    return Echo(app)


@pytest.mark.parametrize("by", ["position", "keyword"])
async def test_every_value_arrives_and_returns_as_it_was(echo: Echo, by: str) -> None:
    values = {repr(value)[:80]: value for value in [*PLAIN, *MSGPACK, *EQUAL]}
    if by == "position":
        calls = [echo.task.prepare(key, value) for key, value in values.items()]
    else:
        calls = [echo.task.prepare(value=value, key=key) for key, value in values.items()]
    jobs = await echo.app.enqueue_many(calls)
    await drain(echo.app)
    for (key, value), job in zip(values.items(), jobs, strict=True):
        assert same(value, echo.arrived[key]), key
        result = await result_of(job)
        assert result.success, (key, result)
        assert same(value, result.value), key


async def test_people_can_read_what_json_can_carry(echo: Echo) -> None:
    for value in PLAIN:
        job = await echo.task.enqueue("key", value)
        assert field(echo.app, job.id, "codec") is None
        assert json.loads(field(echo.app, job.id, "args") or "")[1] == value


async def test_msgpack_only_where_json_would_change_it(echo: Echo) -> None:
    for value in MSGPACK:
        job = await echo.task.enqueue("key", value)
        assert field(echo.app, job.id, "codec") == "msgpack", value


async def test_a_moment_in_utc_needs_no_annotation(echo: Echo) -> None:
    moment = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
    job = await echo.task.enqueue("key", [moment])
    await drain(echo.app)
    assert echo.arrived["key"] == [moment]
    assert (await result_of(job)).value == [moment]


async def test_a_tuple_arrives_as_a_list(echo: Echo) -> None:
    for value, arrives in [
        ((1, 2), [1, 2]),
        ([(1, (2,))], [[1, [2]]]),
        ({"a": (1,)}, {"a": [1]}),
        (Point(1, 2), [1, 2]),
    ]:
        job = await echo.task.enqueue("key", value)
        assert field(echo.app, job.id, "codec") is None
        await drain(echo.app)
        assert echo.arrived["key"] == arrives
        assert (await result_of(job)).value == arrives


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, frozenset("a"), datetime.now(timezone(timedelta(hours=2))), datetime.now(),
        date.today(), time(1, 2), timedelta(1),
        uuid.uuid4(), Decimal("1.10"), Color.RED, Order(1, datetime.now(UTC), set()), Struct(b""), object(), 1 + 2j,
        range(3), lambda: None, Color, [{"a": {1}}], {"a": [object()]}, {date(2020, 1, 1): 1},
        [b"x", 2**70], os.environ,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
async def test_what_would_change_is_refused_by_name(echo: Echo, value: Any) -> None:
    with pytest.raises(TypeError, match="argument 'value' of task 'echo'"):
        await echo.task.enqueue("key", value)
    with pytest.raises(TypeError, match="argument 'value' of task 'echo'"):
        await echo.task.enqueue(key="key", value=value)
    with pytest.raises(TypeError, match="argument 'value' of task 'echo'"):
        await echo.app.send("echo", "key", value)
    with pytest.raises(TypeError, match="argument 2 of task 'other'"):
        await echo.app.send("other", "key", value)
    with pytest.raises(TypeError, match="argument 'v' of task 'other'"):
        await echo.app.enqueue_many([echo.task.prepare("key", 1), echo.app.ref("other").prepare(v=value)])
    assert await echo.app.queue_size() == 0


@pytest.mark.parametrize("value", [deep(100_000), "self"], ids=["deep", "recursive"])
async def test_what_has_no_end_is_refused(echo: Echo, value: Any) -> None:
    if value == "self":
        value = []
        value.append(value)
    with pytest.raises(ValueError, match="nested too deeply"):
        await echo.task.enqueue("key", value)


ANNOTATED: list[tuple[Any, Any]] = [
    (datetime, datetime(2024, 2, 29, 12, 30, 15, 123456)),
    (datetime, datetime(2024, 2, 29, tzinfo=UTC)),
    (datetime, datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    (datetime | None, datetime(2024, 2, 29, tzinfo=UTC)),
    (date, date(2024, 2, 29)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=-1, microseconds=5)),
    (uuid.UUID, uuid.uuid4()),
    (Decimal, Decimal("1.10")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (set[Any], {1, "a"}),
    (Color, Color.RED),
    (Level, Level.HIGH),
    (Word, Word.YES),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[Any, ...], ()),
    (list[tuple[int, int]], [(1, 2), (3, 4)]),
    (Point, Point(1, 2)),
    (Order, Order(7, datetime(2024, 1, 1, tzinfo=UTC), {"a"})),
    (Struct, Struct(b"\0\xff", date(2024, 1, 1))),
    (list[Order], [Order(7, datetime(2024, 1, 1, tzinfo=UTC), set())]),
    (dict[str, set[int]], {"a": {1}}),
    (dict[int, str], {1: "a"}),
    (dict[date, int], {date(2024, 1, 1): 1}),
    (bytes, b"\xff"),
    (float, NAN),
    (float, 3),
    (int, 3),
    (Any, b"x"),
]


@pytest.mark.parametrize(("hint", "value"), ANNOTATED, ids=[str(hint) for hint, _ in ANNOTATED])
async def test_annotations_bring_values_back(app: Ardiq, hint: Any, value: Any) -> None:
    arrived = []

    async def note(before: int, value: Any, *rest: Any, key: Any = None, **more: Any) -> Any:
        arrived.extend([value, *rest, key, *more.values()])
        return value

    note.__annotations__ = {
        "before": int, "value": hint, "rest": hint, "key": hint | None, "more": hint, "return": hint,
    }  # fmt: skip
    task: Any = app.task(max_retries=0)(note)
    job = await task.enqueue(1, value, value, key=value, other=value)
    await drain(app)
    result = await result_of(job)
    assert result.success, result
    assert len(arrived) == 4
    for back in [*arrived, result.value]:
        assert type(back) is type(value)
        assert back == value or math.isnan(back)
        if isinstance(value, datetime):
            assert back.utcoffset() == value.utcoffset()


async def test_a_class_without_equality_is_compared_by_what_it_holds(app: Ardiq) -> None:
    @app.task
    async def note(value: Compared) -> int:
        return value.by

    job = await note.enqueue(Compared(5))
    await drain(app)
    assert (await result_of(job)).value == 5


async def test_bytes_beside_what_needs_an_annotation(app: Ardiq) -> None:
    @app.task
    async def note(data: Any, when: date) -> Any:
        return [data, when == date(2024, 1, 1)]

    job = await note.enqueue({"raw": b"\xff", 1: NAN}, date(2024, 1, 1))
    assert field(app, job.id, "codec") == "msgpack+types"
    await drain(app)
    value, restored = (await result_of(job)).value
    assert restored
    assert value["raw"] == b"\xff"


async def test_annotations_that_do_not_resolve_do_not_matter(app: Ardiq) -> None:
    @app.task
    async def note(names: "OnlyForTypeCheckers[str]", when: "date") -> bool:
        return names == ["a"] and when == date(2024, 1, 1)

    job = await note.enqueue(["a"], date(2024, 1, 1))
    await drain(app)
    assert (await result_of(job)).value is True


async def test_what_does_not_fit_the_annotation_on_arrival_fails_by_name(make_app: Callable[..., Ardiq]) -> None:
    sender, worker = make_app(queue_name="moved-on"), make_app(queue_name="moved-on")

    @sender.task(name="note")
    async def before(when: date) -> None: ...

    @worker.task(name="note", max_retries=0)
    async def after(when: uuid.UUID) -> None: ...

    job = await before.enqueue(date(2024, 1, 1))
    await drain(worker)
    result = await result_of(job)
    assert not result.success
    assert "argument 'when' does not fit its annotation" in result.value


async def test_a_typed_result_is_plain_data_where_the_task_is_unknown(make_app: Callable[..., Ardiq]) -> None:
    worker, elsewhere = make_app(), make_app()
    elsewhere = make_app(queue_name=worker.queue_name)

    @worker.task
    async def order(number: int) -> Order:
        return Order(number, datetime(2024, 1, 1, tzinfo=UTC), {"a"})

    job = await elsewhere.send("order", 7)
    await drain(worker)
    result = await result_of(job)
    assert result.value == {"number": 7, "when": "2024-01-01T00:00:00Z", "tags": ["a"]}
    known = await worker.result(job.id)
    assert known is not None
    assert known.value == Order(7, datetime(2024, 1, 1, tzinfo=UTC), {"a"})


@pytest.mark.parametrize(
    "value",
    [{1}, object(), datetime.now(), lambda: None, 1 + 1j, Order(1, datetime.now(UTC), set())],
)
async def test_a_result_that_cannot_travel_is_a_failure(app: Ardiq, value: Any) -> None:
    @app.task(max_retries=0)
    async def give():  # type: ignore[no-untyped-def]
        return value

    @app.task(max_retries=0)
    def give_sync():  # type: ignore[no-untyped-def]
        return value

    jobs = [await give.enqueue(), await give_sync.enqueue()]
    await drain(app)
    for job in jobs:
        result = await result_of(job)
        assert not result.success
        assert "the result of task 'give" in result.value
        assert type(value).__name__ in result.value


async def test_a_result_that_is_too_large_is_a_failure(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(payload_limit=1000)

    @app.task(max_retries=0)
    async def give(size: int) -> str:
        return "x" * size

    jobs = [await give.enqueue(900), await give.enqueue(1000)]
    await drain(app)
    assert (await result_of(jobs[0])).success
    assert "over the limit of 1,000" in (await result_of(jobs[1])).value


async def test_a_large_result_is_fetched(app: Ardiq) -> None:
    @app.task
    async def give(size: int) -> str:
        return "x" * size

    job = await give.enqueue(3_000_000)
    waiting = __import__("asyncio").create_task(result_of(job))
    await drain(app)
    assert len((await waiting).value) == 3_000_000


async def test_info_and_dead_letters_show_the_arguments(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail(when: date, data: Any, *, key: set[int]) -> None:
        raise ValueError

    job = await fail.enqueue(date(2024, 1, 1), b"x", key={1})
    info = await job.info()
    assert info is not None
    assert info.args == (date(2024, 1, 1), b"x")
    assert info.kwargs == {"key": {1}}
    await drain(app)
    letter = (await app.dead_letters())[0]
    assert letter.args == info.args
    assert letter.kwargs == info.kwargs


async def test_an_own_serializer(make_app: Callable[..., Ardiq]) -> None:
    options: dict[str, Any] = {"serializer": pickle.dumps, "deserializer": pickle.loads}
    app = make_app(**options)

    @app.task
    async def note(when: Any, *, what: Any) -> Any:
        return (when, what)

    job = await note.options(unique=True).enqueue(datetime(2024, 1, 1, tzinfo=UTC), what={1, 2})
    assert field(app, job.id, "codec") == "custom"
    info = await job.info()
    assert info is not None
    assert info.args == (datetime(2024, 1, 1, tzinfo=UTC),)
    await drain(app)
    assert (await result_of(job)).value == (datetime(2024, 1, 1, tzinfo=UTC), {1, 2})
    same_again = make_app(queue_name=app.queue_name, **options)
    again = await same_again.ref("note", unique=True).enqueue(datetime(2024, 1, 1, tzinfo=UTC), what={1, 2})
    assert again.id == job.id


async def test_an_app_with_a_serializer_reads_what_others_wrote(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(serializer=pickle.dumps, deserializer=pickle.loads)
    plain = make_app(queue_name=app.queue_name)

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    job = await plain.send("double", 4)
    await drain(app)
    assert (await app.result(job.id)).value == 8  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="no deserializer"):
        await plain.result(job.id)


async def test_a_serializer_must_make_bytes(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(serializer=json.dumps, deserializer=json.loads)
    with pytest.raises(TypeError, match="serializer must return bytes, not str"):
        await app.send("task", 1)


@pytest.mark.parametrize("args", ["{", '{"a": 1}', "7", "null", "\xff"])
async def test_arguments_written_wrong_by_hand_fail_the_task(app: Ardiq, args: str) -> None:
    @app.task(max_retries=0)
    async def note(*args: Any) -> None: ...

    @app.task(max_retries=0)
    def note_sync(*args: Any) -> None: ...

    for name in ("note", "note_sync"):
        app.context.server.core.call("enqueue", [f"hand-{name}", name, "default", args, "", ""])
    await drain(app)
    for name in ("note", "note_sync"):
        result = await app.result(f"hand-{name}")
        assert result is not None
        assert not result.success


async def test_an_unknown_codec_fails_the_task(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def note() -> None: ...

    app.context.server.core.call("enqueue", ["future", "note", "default", "[]", "", '{"codec":"cbor"}'])
    await drain(app)
    result = await app.result("future")
    assert result is not None
    assert "unknown codec 'cbor'" in result.value


def _keywords(a: int, b: str, c: float = 1.0, *, day: date | None = None) -> None: ...


def _rest(first: int, *rest: date) -> None: ...


def _any_keyword(first: int, /, **more: date) -> None: ...


def _untyped(first, *rest, **more) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (_keywords, b'[1,"x"]', b""),
        (_keywords, b"[1]", b'{"b":"x"}'),
        (_keywords, b"[]", b'{"day":"2026-01-02","a":1,"b":"x","c":2}'),
        (_rest, b"[1]", b""),
        (_rest, b'[1,"2026-01-02","2026-01-03"]', b""),
        (_any_keyword, b"[1]", b'{"first":"2026-01-02","not-a-name":"2026-01-03"}'),
        (_untyped, b'[1,[2],{"x":3}]', b'{"y":[4]}'),
    ],
)
@pytest.mark.parametrize("codec", ["", "json+types"])
def test_calls_of_any_shape_are_read_by_type_at_once(
    monkeypatch: pytest.MonkeyPatch, fn: Callable[..., None], args: bytes, kwargs: bytes, codec: str
) -> None:
    reading, signature = Codec(None, None, 1000), Signature("task", fn)
    expected = signature.convert(*reading.decode_call(args, kwargs, "", None), True)
    monkeypatch.setattr(_conversion, "convert", None)  # one argument after the other is many times slower
    for _ in range(2):
        assert reading.receive_call(args, kwargs, codec, signature) == expected


def test_no_more_shapes_of_calls_are_known_than_some() -> None:
    reading, signature = Codec(None, None, 1000), Signature("task", _any_keyword)
    for number in range(2000):
        name = f"k{number}"
        args, kwargs = reading.receive_call(b"[1]", to_json({name: "2026-01-02"}), "", signature)
        assert (args, kwargs) == ([1], {name: date(2026, 1, 2)})
    assert len(signature._readers_of) == 1000
    long = Signature("task", _rest)
    args, _ = reading.receive_call(to_json([1] + ["2026-01-02"] * 1000), b"", "", long)
    assert args == [1] + [date(2026, 1, 2)] * 1000
    assert not long._readers_of


def test_an_argument_of_a_long_call_that_does_not_fit_is_named() -> None:
    reading, signature = Codec(None, None, 1000), Signature("task", _any_keyword)
    kwargs = {f"k{number}": "2026-01-02" for number in range(200)} | {"k150": "never"}
    with pytest.raises(InvalidArguments, match="argument 'k150' does not fit"):
        reading.receive_call(b"[1]", to_json(kwargs), "", signature)
