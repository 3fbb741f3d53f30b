"""What limits an app may declare, and what a call makes of them: everything that is known before a server is asked."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from math import inf, nan
from typing import Any

import pytest

from ardiq import Ardiq, Limit, Rate
from ardiq._values.encodings import from_json

app = Ardiq("redis://127.0.0.1:1")


class Plan(Enum):
    FREE = "free"


async def key_from_afar(customer: Any) -> Any:
    return customer


def task(*limits: Limit, of: Callable[..., Any] | None = None) -> Any:
    """A task of an app of its own, with these limits."""

    async def sync(customer: Any, order: int = 7, *, region: str = "eu") -> None: ...

    return Ardiq("redis://127.0.0.1:1").task(limits=limits)(of or sync)


def buckets(work: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """The buckets in the record of a call."""
    record = work.app.context.producer.record(work, args, kwargs, work.call_options)
    found: list[dict[str, Any]] = from_json(record[5])["limits"]
    return found


def key_of(key: Any, *args: Any, **kwargs: Any) -> str:
    """The key that a call has in a limit with that `key`."""
    return str(buckets(task(Limit("customer", key=key, concurrency=1)), *args, **kwargs)[0]["key"])


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: Limit("partner"), ValueError, "limit 'partner' needs a concurrency, a rate or max_waiting"),
        (lambda: Limit("partner", concurrency=2**53), ValueError, "concurrency of limit 'partner' must be at most"),
        (lambda: Limit("partner", max_waiting=10**30), ValueError, "max_waiting of limit 'partner' must be at most"),
        (lambda: Limit("partner", concurrency=1, ordered="no"), TypeError, "ordered of limit 'partner' must be"),  # type: ignore[arg-type]
        (lambda: Limit("partner", concurrency=2, ordered=True), ValueError, "is ordered, so its concurrency must be 1"),
        (lambda: Limit("partner", concurrency=0), ValueError, "of limit 'partner' must be at least 1, not 0"),
        (lambda: Limit("partner", concurrency=-1), ValueError, "must be at least 1, not -1"),
        (lambda: Limit("partner", concurrency=True), TypeError, "must be an int, not bool"),
        (lambda: Limit("partner", concurrency=nan), TypeError, "must be an int, not float"),  # type: ignore[arg-type]
        (lambda: Limit("partner", rate=5), TypeError, "rate of limit 'partner' must be a Rate"),  # type: ignore[arg-type]
        (lambda: Limit("", concurrency=1), ValueError, "the name of a limit must not be empty"),
        (lambda: Limit("a(b)", concurrency=1), ValueError, "letters, digits and any of _ . - / @, not 'a(b)'"),
        (lambda: Limit("a:b", concurrency=1), ValueError, "not 'a:b'"),
        (lambda: Limit("a,b", concurrency=1), ValueError, "not 'a,b'"),
        (lambda: Limit("a*b", concurrency=1), ValueError, "not 'a*b'"),
        (lambda: Limit("\ud800", concurrency=1), ValueError, "the name of a limit"),
        (lambda: Limit("ä" * 51, concurrency=1), ValueError, "must have at most 100 bytes"),
        (lambda: Limit(7, concurrency=1), TypeError, "the name of a limit must be a str, not int"),  # type: ignore[arg-type]
        (lambda: Limit("partner", concurrency=1, key=7), TypeError, "the key of limit 'partner' must be"),  # type: ignore[arg-type]
        (lambda: Limit("partner", concurrency=1, key=()), TypeError, "the key of limit 'partner' must be"),
        (lambda: Limit("partner", concurrency=1, key=""), TypeError, "the key of limit 'partner' must be"),
        (lambda: Limit("partner", concurrency=1, key=["a", 1]), TypeError, "the key of limit 'partner' must be"),  # type: ignore[list-item]
        (lambda: Limit("partner", rate=Rate(1, per=1, burst=2), cost=3), ValueError, "is 3, but its burst is 2"),
        (lambda: Limit("partner", rate=Rate(1, per=1), cost=0), ValueError, "of limit 'partner' must be at least 1"),
        (lambda: Limit("partner", rate=Rate(1, per=1), cost=1.5), TypeError, "cost of limit 'partner' must be an int"),  # type: ignore[arg-type]
        (lambda: Limit("partner", concurrency=1, cost=2), ValueError, "has a cost but no rate"),
        (lambda: Limit("partner", concurrency=1, adaptive="5m"), TypeError, "adaptive of limit 'partner' must be a"),  # type: ignore[arg-type]
        (lambda: Limit("partner", concurrency=1, adaptive=0), ValueError, "of limit 'partner' must be at least 1 ms"),
        (lambda: Limit("partner", concurrency=1, adaptive=-1), ValueError, "must be at least 1 ms, not -1"),
        (lambda: Limit("partner", concurrency=1, adaptive=nan), ValueError, "seconds, not nan"),
        (lambda: Limit("partner", concurrency=1, adaptive=None), TypeError, "not NoneType"),  # type: ignore[arg-type]
        (lambda: Limit("partner", max_waiting=1, adaptive=True), ValueError, "limit 'partner' is adaptive, but has no"),
        (lambda: Limit("partner", concurrency=1, weight=0), ValueError, "weight of limit 'partner' must be above 0"),
        (lambda: Limit("partner", concurrency=1, weight=nan), ValueError, "must be a number, not nan"),
        (lambda: Limit("partner", concurrency=1, weight=1e9), ValueError, "at most 1,000,000"),
        (lambda: Rate(0, per=1), ValueError, "the starts of a Rate must be positive, not 0"),
        (lambda: Rate(-1, per=1), ValueError, "must be positive, not -1"),
        (lambda: Rate(nan, per=1), ValueError, "not nan"),
        (lambda: Rate(inf, per=1), ValueError, "not inf"),
        (lambda: Rate(1e30, per=1), ValueError, "the starts of a Rate must be at most"),
        (lambda: Rate(1, per=1, burst=10**30), ValueError, "burst of a Rate must be at most"),
        (lambda: Rate(1e-300, per=1), ValueError, "a Rate of 1e-300 per 1 s is too slow"),
        (lambda: Rate(1, per=86_400, burst=10**9), ValueError, "is too slow: its burst would take more than"),
        (lambda: Rate(True, per=1), TypeError, "not bool"),
        (lambda: Rate(1, per=0), ValueError, "per of a Rate must be at least 1 ms, not 0"),
        (lambda: Rate(1, per="1m"), TypeError, "per of a Rate must be a timedelta or seconds"),  # type: ignore[arg-type]
        (lambda: Rate(1, per=1, burst=0), ValueError, "burst of a Rate must be at least 1, not 0"),
        (lambda: task("partner"), TypeError, "each of limits must be a Limit"),  # type: ignore[arg-type]
        (lambda: app.task(limits="partner")(print), TypeError, "limits must be a Limit or a list of them, not str"),  # type: ignore[call-overload]
        (lambda: task(Limit("p", concurrency=1, key="client")), ValueError, "the parameter 'client', which the task"),
        (lambda: task(Limit("p", concurrency=1, key=lambda c: c)), ValueError, "key of limit 'p' of task 'sync' names"),
        (lambda: task(Limit("p", concurrency=1, key=lambda *a: a)), TypeError, "not of '*a'"),
        (lambda: task(Limit("p", concurrency=1, key=dict)), TypeError, "limit 'p' of task 'sync'"),
        (lambda: task(Limit("p", concurrency=1, key=key_from_afar)), TypeError, "must be a plain function, not async"),
        (lambda: task(Limit("p", concurrency=1), Limit("p", concurrency=1)), ValueError, "has the limit 'p' twice"),
        (lambda: task(*(Limit(f"p{n}", concurrency=1) for n in range(9))), ValueError, "has 9 limits: it may have 8"),
        (
            lambda: task(Limit("p", concurrency=1, key="order"), Limit("p", concurrency=2)),
            ValueError,
            "limit 'p' is declared twice: as 1 at once, and as 2 at once",
        ),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(make: Callable[[], Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as refused:
        make()
    assert says in str(refused.value)


def test_a_name_is_one_limit_in_the_whole_app() -> None:
    own = Ardiq("redis://127.0.0.1:1")
    partner = own.limit("partner", rate=Rate(100, per=60, burst=20))
    assert own.limit("partner", rate=Rate(100, per=timedelta(minutes=1), burst=20)).definition == partner.definition
    with pytest.raises(ValueError, match=r"as 100 per 60 s, 20 at once, and as 5 at once; what has one name"):

        @own.task(limits=Limit("partner", concurrency=5))
        async def other() -> None: ...

    assert own.tasks == []
    assert own.limits == {}


def test_a_limit_without_a_name_is_called_after_the_task() -> None:
    assert buckets(task(Limit(concurrency=1)), 1) == [{"name": "sync"}]
    with pytest.raises(
        ValueError, match=r"task 'mail:send': its limit is named after it, but .*; give the limit a name"
    ):
        app.task(name="mail:send", limits=Limit(concurrency=1))(print)


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "expected"),
    [
        ("customer", (42,), {}, "42"),
        ("customer", (), {"customer": "x(y),z"}, "x(y),z"),
        ("order", (1,), {}, "7"),
        ("order", (1, 8), {}, "8"),
        ("region", (1,), {}, "eu"),
        ("region", (1,), {"region": "us"}, "us"),
        (("customer", "region"), (42,), {}, "42/eu"),
        (["customer", "region"], (42,), {}, "42/eu"),
        (("customer", "region"), ("a/b%",), {"region": "c"}, "a%2Fb%25/c"),
        (lambda customer, region: f"{customer}-{region}", (42,), {}, "42-eu"),
        (lambda region, spare="x": region + spare, (42,), {}, "eux"),
        (lambda customer, order: (customer, order), (42,), {}, "42/7"),
        (lambda customer: uuid.UUID(int=customer), (1,), {}, str(uuid.UUID(int=1))),
        (lambda: Plan.FREE, (1,), {}, "free"),
        ("customer", (True,), {}, "true"),
        ("customer", ("k" * 256,), {}, "k" * 256),
        ("customer", ("Zürich 🚲",), {}, "Zürich 🚲"),
    ],
)
def test_a_key_is_that_of_the_call(key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
    assert key_of(key, *args, **kwargs) == expected


@pytest.mark.parametrize(
    ("key", "customer", "says"),
    [
        (
            "customer",
            None,
            "the key of limit 'customer' of task 'sync' must be a text, a whole number, or what travels",
        ),
        ("customer", 1.5, "not float"),
        ("customer", {"a": 1}, "not dict"),
        ("customer", "", "the key of limit 'customer' of task 'sync' is empty"),
        ("customer", "k" * 257, "must have at most 256 bytes, not 'kkkkkkkkkkkkkkkkkkkk…'"),
        ("customer", "ä" * 129, "must have at most 256 bytes"),
        ("customer", "k" * 10_000_000, "must have at most 256 bytes"),
        ("customer", "\ud800", "has a lone surrogate"),
        (lambda customer: customer["id"], {}, "cannot be computed: KeyError('id')"),
    ],
)
def test_a_wrong_key_is_refused_before_anything_is_sent(key: Any, customer: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        key_of(key, customer)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300


def test_cost_and_weight_are_those_of_the_call() -> None:
    limit = Limit(
        "p", rate=Rate(10, per=1, burst=5), cost=lambda order: order, weight=lambda customer: 3 if customer else 1
    )
    work = task(limit)
    assert buckets(work, 1, 5) == [{"name": "p", "cost": 5, "weight": 3}]
    assert buckets(work, 0, 1) == [{"name": "p"}]
    for wrong in (0, 6, 1.5, None):
        with pytest.raises((TypeError, ValueError), match="the cost of limit 'p' of task 'sync'"):
            buckets(task(replace(limit, cost=lambda order, wrong=wrong: wrong)), 1)
    with pytest.raises(ValueError, match="the weight of limit 'p' of task 'sync' must be above 0"):
        buckets(task(replace(limit, cost=1, weight=lambda order: -1)), 1)


def test_one_bucket_is_asked_for_once() -> None:
    """A transfer from an account to itself."""
    account = Limit("account", key="customer", concurrency=1)
    transfer = task(account, replace(account, key="order"))
    assert buckets(transfer, 1, 2) == [{"name": "account", "key": "1"}, {"name": "account", "key": "2"}]
    assert buckets(transfer, 1, 1) == [{"name": "account", "key": "1"}]


def test_a_wrapper_that_passes_on_has_the_parameters_of_what_it_wraps() -> None:
    import functools

    async def inner(customer: int, order: int = 7) -> None: ...

    @functools.wraps(inner)
    async def sync(*args: Any, **kwargs: Any) -> None: ...

    work = task(Limit("p", key=("customer", "order"), concurrency=1), of=sync)
    assert buckets(work, 42)[0]["key"] == "42/7"


def test_a_reference_is_limited_as_the_task_is() -> None:
    work = task(Limit("p", key="customer", concurrency=1))
    assert buckets(work.app.ref("sync"), 42) == [{"name": "p", "key": "42"}]
    elsewhere = app.ref("elsewhere", limits=[Limit("p", key="customer", concurrency=1)])
    assert buckets(elsewhere, customer=42) == [{"name": "p", "key": "42"}]
    with pytest.raises(ValueError, match=r"cannot be computed: the call has no argument named 'customer'"):
        buckets(elsewhere, 42)


def test_what_has_no_limits_says_nothing_of_them() -> None:
    for none in (None, (), []):
        assert Ardiq("redis://127.0.0.1:1").task(limits=none)(key_from_afar).buckets is None
    work = task()
    assert work.app.context.producer.record(work, (1,), {}, work.call_options)[5] == b""
