"""What batches an app may declare, and what a call makes of them: everything that is known before a server is asked."""

import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import inf, nan
from operator import attrgetter
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from ardiq import Ardiq, Batch, ItemErrors, Limit, Rate, Retry, Unique
from ardiq._values.encodings import from_json

app = Ardiq("redis://127.0.0.1:1")
HUNDRED = Batch(100, wait=2)


@dataclass
class Document:
    index: str
    text: str = ""


class Model(BaseModel):
    index: str


async def index(documents: list[Document]) -> list[str]:
    return [document.text.upper() for document in documents]


def task(of: Callable[..., Any] = index, batch: Any = HUNDRED, **options: Any) -> Any:
    """A task of an app of its own, with this batch."""
    return Ardiq("redis://127.0.0.1:1").task(batch=batch, **options)(of)


def options_of(work: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The options in the record of a call."""
    record = work.app.context.producer.record(work, args, kwargs, work.call_options)
    found: dict[str, Any] = from_json(record[5])
    return found


def buckets(work: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """Its limits, of which the batch is the last."""
    found: list[dict[str, Any]] = options_of(work, *args, **kwargs)["limits"]
    return found


def key_of(key: Any, item: Any) -> str:
    async def index(items: list[Any]) -> None: ...

    return str(buckets(task(index, Batch(2, wait=0, key=key)), item)[-1]["key"])


no_item: Any = lambda: 1  # noqa: E731
two_items: Any = lambda one, other: 1  # noqa: E731
ORDERED = Limit(key="item", concurrency=1, ordered=True)
EIGHT = [Limit(f"l{number}", concurrency=1) for number in range(8)]


async def of_two(documents: list[Document], kind: str) -> None: ...
async def of_none() -> None: ...
async def of_any(*documents: Document) -> None: ...
async def of_keyword(*, documents: list[Document]) -> None: ...
async def of_one(document: Document) -> None: ...
async def of_set(documents: set[str]) -> None: ...
async def of_maybe(documents: list[str] | None) -> None: ...
async def returns_one(documents: list[Document]) -> str: ...  # type: ignore[empty-body]
async def returns_dict(documents: list[Document]) -> dict[str, str] | None: ...


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: Batch(0, wait=1), ValueError, "the size of a Batch must be at least 1, not 0"),
        (lambda: Batch(1001, wait=1), ValueError, "the size of a Batch must be at most 1,000, not 1,001"),
        (lambda: Batch(True, wait=1), TypeError, "the size of a Batch must be an int, not bool"),
        (lambda: Batch(1.5, wait=1), TypeError, "the size of a Batch must be an int, not float"),  # type: ignore[arg-type]
        (lambda: Batch(10, wait=-1), ValueError, "wait of a Batch must not be negative, not -1"),
        (lambda: Batch(10, wait=nan), ValueError, "wait of a Batch must be a timedelta or seconds, not nan"),
        (lambda: Batch(10, wait=inf), ValueError, "wait of a Batch must be"),
        (lambda: Batch(10, wait="1s"), TypeError, "wait of a Batch must be a timedelta or seconds, not str"),  # type: ignore[arg-type]
        (lambda: Batch(10, wait=None), TypeError, "wait of a Batch must be"),  # type: ignore[arg-type]
        (lambda: Batch(10, wait=1, key="index"), TypeError, "must be a function of the item, not 'index'"),  # type: ignore[arg-type]
        (lambda: task(batch=100), TypeError, r"batch must be a Batch, such as Batch\(100, wait=2\), not int"),
        (lambda: app.ref("index", batch=100), TypeError, "batch must be a Batch"),  # type: ignore[arg-type]
        (lambda: task(of_two), TypeError, "takes one parameter, a list of items, not documents: list.*, kind: str"),
        (lambda: task(of_none), TypeError, "takes one parameter, a list of items, not none"),
        (lambda: task(of_any), TypeError, r"takes one parameter, a list of items, not \*documents"),
        (lambda: task(of_keyword), TypeError, "takes one parameter, a list of items, not documents"),
        (lambda: task(of_one), TypeError, "'documents?' is a list of items: .* such as list.str., not as Document"),
        (lambda: task(of_set), TypeError, r"annotate it as a list, such as list\[str\], not as set\[str\]"),
        (lambda: task(of_maybe), TypeError, "annotate it as a list"),
        (lambda: task(returns_one), TypeError, "has a batch, so it returns a list of results or None, not str"),
        (lambda: task(returns_dict), TypeError, "returns a list of results or None, not dict"),
        (lambda: task(executor="process"), TypeError, "'index': executor='process' takes no batch"),
        (lambda: task(batch=Batch(2, wait=1, key=no_item)), TypeError, "of the batch of task 'index' must be a "),
        (lambda: task(batch=Batch(2, wait=1, key=two_items)), TypeError, "a function of one parameter, the item: "),
        (lambda: task(limits=ORDERED), ValueError, "the limit 'index', which is ordered: give it one of them"),
        (lambda: task(limits=EIGHT), ValueError, "has 8 limits and a batch: it may have 7 beside it"),
        (lambda: task(name="re index"), ValueError, "its batch is named after it, but .* give the task a name="),
        (lambda: task(name="x" * 100), ValueError, "must have at most 99 bytes"),
        (lambda: task(limits=Limit("#index", concurrency=1)), ValueError, "the name of a limit may have"),
        (lambda: ItemErrors([ValueError()]), TypeError, "must be a dict of item numbers and exceptions, not list"),  # type: ignore[arg-type]
        (lambda: ItemErrors({"0": ValueError()}), TypeError, "the number of an item must be an int, not str"),  # type: ignore[dict-item]
        (lambda: ItemErrors({-1: ValueError()}), ValueError, "the number of an item must be at least 0, not -1"),
        (lambda: ItemErrors({0: ValueError}), TypeError, "the error of item 0 must be an exception, not <class"),  # type: ignore[dict-item]
        (lambda: ItemErrors({0: "no"}), TypeError, "the error of item 0 must be an exception, not 'no'"),  # type: ignore[dict-item]
        (lambda: ItemErrors({}, results=(1,)), TypeError, "results must be a list or None, not tuple"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_written(make: Callable[[], Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        make()


def test_a_batch_is_one_more_limit_of_the_task() -> None:
    tenant = Limit("tenant", key=lambda anything: anything.index, concurrency=2, rate=Rate(5, per=1))
    work = task(batch=Batch(100, wait=timedelta(seconds=1.5), key=attrgetter("index")), limits=tenant)
    assert buckets(work, Document("eu/1")) == [
        {"name": "tenant", "key": "eu/1"},
        {"name": "#index", "key": "eu/1"},
    ]
    declared = work.app.context.producer.declaration().args
    assert b'{"batch_size":100,"batch_wait_ms":1500}' in declared
    assert buckets(task(), Document("eu")) == [{"name": "#index"}]


def test_a_key_is_a_text_a_number_or_what_travels_as_one() -> None:
    some = uuid.uuid4()
    assert key_of(lambda item: item["a"], {"a": "x"}) == "x"
    assert key_of(str, 5) == "5"
    assert key_of(lambda _: some, 1) == str(some)
    assert key_of(lambda item: (item, "a/b"), 1) == "1/a%2Fb"
    assert key_of(lambda _: date(2026, 1, 2), 1) == "2026-01-02"


@pytest.mark.parametrize(
    ("key", "kind", "says"),
    [
        (lambda item: item.index, ValueError, "of the batch of task 'index' cannot be computed: AttributeError"),
        (lambda item: [], TypeError, "the batch of task 'index' must be a text, a whole number, or .* not list"),
        (lambda item: None, TypeError, "the batch of task 'index' must be a text.* not NoneType"),
        (lambda item: "", ValueError, "the key of the batch of task 'index' is empty"),
        (lambda item: "x" * 257, ValueError, "must have at most 256 bytes"),
        (lambda item: "\ud800", ValueError, "lone surrogate"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_one(key: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        key_of(key, 1)


def test_a_call_passes_one_item() -> None:
    work = task()
    for args, kwargs, says in [
        ((), {}, "task 'index': missing a required argument: 'item'"),
        ((Document("a"), Document("b")), {}, "task 'index': too many positional arguments"),
        ((), {"documents": Document("a")}, "task 'index': "),
        (([Document("a")],), {}, "argument 'item'"),
        (("text",), {}, "argument 'item' does not fit its annotation: Expected `object`, got `str`"),
    ]:
        with pytest.raises(TypeError, match=says):
            options_of(work, *args, **kwargs)


async def of_models(models: Sequence[Model]) -> None: ...
async def of_dates(dates: Annotated[list[date], "of birth"]) -> list[date] | None: ...
async def of_bare(items: list) -> list: ...  # type: ignore[type-arg,empty-body]
async def of_anything(items):  # type: ignore[no-untyped-def]
    ...


@pytest.mark.parametrize(
    ("of", "item"),
    [
        (index, Document("a", "b")),
        (of_models, Model(index="a")),
        (of_dates, date(2026, 1, 2)),
        (of_bare, {"a": 1}),
        (of_anything, [1]),
    ],
)
def test_an_item_travels_as_an_argument_of_its_type(of: Any, item: Any) -> None:
    work = task(of)
    record = work.app.context.producer.record(work, (item,), {}, work.call_options)
    codec = from_json(record[5]).get("codec", "")
    assert work.app.context.codec.receive_call(record[3], record[4], codec, work.signature) == ([item], {})


def test_a_result_travels_as_its_annotation_says() -> None:
    work = task(of_dates)
    codec = work.app.context.codec
    sent = codec.encode_result("of_dates", work.signature, date(2026, 1, 2))
    assert codec.decode_result(*sent, lambda _: None, work.signature) == date(2026, 1, 2)


def test_types_are_not_checked_where_the_app_says_so() -> None:
    work = Ardiq("redis://127.0.0.1:1", check_types=False).task(batch=Batch(2, wait=0))(index)
    assert options_of(work, "no document")["limits"]


def test_a_wrapper_may_be_around_the_function() -> None:
    def passing(fn: Any) -> Any:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs)

        return wrapper

    def giving(fn: Any) -> Any:
        @functools.wraps(fn)
        async def wrapper(documents: Any) -> Any:
            return await fn(documents, "kind")

        return wrapper

    for of in (passing(index), giving(of_two)):
        work = task(of, name="index")
        record = work.app.context.producer.record(work, (Document("a"),), {}, work.call_options)
        received, _ = work.app.context.codec.receive_call(
            record[3], record[4], from_json(record[5]).get("codec", ""), work.signature
        )
        assert received == [Document("a")]


def test_rules_for_equal_calls_may_have_a_function_of_the_item() -> None:
    work = task(unique=Unique(key=lambda document: document.text))
    one, same, other = (options_of(work, Document(index, text)) for index, text in ("aa", "ba", "ab"))
    assert one["unique"]["key"] == same["unique"]["key"] != other["unique"]["key"]
    assert options_of(task(unique=Unique()), Document("a", "a"))["unique"]["key"] != one["unique"]["key"]


def test_a_reference_gathers_as_the_task_does() -> None:
    work = task(batch=Batch(2, wait=0, key=lambda document: document.index))
    known = work.app.ref("index")
    assert buckets(known, Document("a")) == buckets(work, Document("a"))
    limited = work.app.ref("index", limits=Limit("more", concurrency=1))
    assert buckets(limited, Document("a")) == [{"name": "more"}, *buckets(work, Document("a"))]
    other = Ardiq("redis://127.0.0.1:1")
    elsewhere = other.ref("index", batch=Batch(2, wait=0, key=lambda document: document["index"]))
    assert buckets(elsewhere, {"index": "a"}) == [{"name": "#index", "key": "a"}]
    with pytest.raises(TypeError, match="too many positional arguments"):
        options_of(elsewhere, 1, 2)
    with pytest.raises(TypeError, match="is a reference"):
        elsewhere({"index": "a"})
    with pytest.raises(ValueError, match="'#index' is declared twice: as batches of 2 within 0 s, and as batches of 3"):
        other.ref("index", batch=Batch(3, wait=0))


async def test_calling_the_task_runs_the_function_with_one_item() -> None:
    def plain(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    def nothing(items: list[int]) -> None: ...

    async def some(items: list[int]) -> list[int]:
        raise ItemErrors({} if items[0] else {0: Retry("no")}, results=[7])

    def too_many(items: list[int]) -> list[int]:
        return [*items, 1]

    def out_of_range(items: list[int]) -> None:
        raise ItemErrors({1: ValueError()})

    assert await task()(Document("a", "text")) == "TEXT"
    assert (task(plain)(1), task(nothing)(1), await task(some)(1)) == (2, None, 7)
    with pytest.raises(Retry, match="no"):
        await task(some)(0)
    with pytest.raises(TypeError, match="a batch of 1 returns a list of one result or None, not a list of 2"):
        task(too_many)(1)
    with pytest.raises(TypeError, match="ItemErrors has an error for item 1, but this batch has the item 0"):
        task(out_of_range)(1)
