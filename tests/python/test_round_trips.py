"""What can be sent as an argument can be returned, and the reverse; and it arrives as it was."""

import dataclasses
import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from helpers import drain, result_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ardiq import Ardiq
from ardiq._values.codec import Codec
from ardiq._values.signature import Signature
from ardiq.errors import InvalidResult

CODEC = Codec(None, None, 1 << 20)
# Zones by the hour that comes twice and the one that does not come.
ZONES = {
    "Europe/Berlin": [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)],
    "America/New_York": [datetime(2026, 11, 1, 1, 30), datetime(2026, 3, 8, 2, 30)],
    "Australia/Lord_Howe": [datetime(2026, 4, 5, 1, 45), datetime(2026, 10, 4, 2, 15)],
    "Pacific/Apia": [datetime(2011, 12, 30, 12)],
}
ODD_MOMENTS = [
    moment.replace(tzinfo=ZoneInfo(zone), fold=fold)
    for zone, moments in ZONES.items()
    for moment in moments
    for fold in (0, 1)
]
NAN = float("nan")


class Color(enum.Enum):
    RED = "red"
    NONE = None


class Named(NamedTuple):
    value: Any


class Moment(datetime):
    """As freezegun and pendulum have them."""


def holders(hint: Any) -> list[tuple[Any, Any]]:
    """What can hold a value of that type: its annotation, and what makes one of a value."""
    data = dataclasses.make_dataclass("Data", [("value", hint)])
    struct = msgspec.defstruct("Struct", [("value", hint)])
    model = pydantic.create_model("Model", value=hint)
    named: Any = NamedTuple("Pair", [("value", hint), ("other", int)])
    return [
        (hint, lambda value: value),
        (hint | None, lambda value: value),
        (list[hint], lambda value: [value, value]),
        (dict[str, hint], lambda value: {"a": value}),
        (tuple[hint, int], lambda value: (value, 1)),
        (data, data),
        (struct, struct),
        (model, lambda value: model(value=value)),
        (named, lambda value: named(value, 1)),
        (list[data], lambda value: [data(value)]),
    ]


def of_hashable(hint: Any) -> list[tuple[Any, Any]]:
    return [
        *holders(hint),
        (set[hint], lambda value: {value}),
        (frozenset[hint], lambda value: frozenset({value})),
        (dict[hint, int], lambda value: {value: 1}),
    ]


def signature(hint: Any) -> Signature:
    def task(value: Any) -> Any: ...

    if hint is not None:
        task.__annotations__ = {"value": hint, "return": hint}
    return Signature("task", task)


def as_argument(hint: Any, value: Any) -> Any:
    kind = signature(hint)
    return CODEC.receive_call(*CODEC.encode_fitting("task", kind, (value,), {}), kind)[0][0]


def as_result(hint: Any, value: Any) -> Any:
    kind = signature(hint)
    return CODEC.decode_result(*CODEC.encode_result("task", kind, value), lambda _: kind, kind)


@pytest.mark.parametrize("moment", ODD_MOMENTS, ids=str)
def test_a_zone_s_time_arrives_at_its_moment_in_hours_that_come_twice_or_not_at_all(moment: datetime) -> None:
    for hint, make in of_hashable(datetime):
        value = make(moment)
        for back in (as_argument(hint, value), as_result(hint, value)):
            found = first(back)
            assert found.astimezone(UTC) == moment.astimezone(UTC), hint
            assert found.utcoffset() == moment.utcoffset()
            assert found.replace(tzinfo=None) == moment.replace(tzinfo=None)


def first(value: Any) -> Any:
    """The one leaf of what holds it."""
    if isinstance(value, datetime | time | float | Decimal):
        return value
    if isinstance(value, dict):
        return next(leaf for leaf in [*value, *value.values()] if not isinstance(leaf, int | str))
    if isinstance(value, list | tuple | set | frozenset):
        return first(next(iter(value)))
    return value.value


@pytest.mark.parametrize("value", [NAN, Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")], ids=repr)
def test_what_is_no_number_arrives_as_none(value: Any) -> None:
    for hint, make in holders(type(value)):
        if hasattr(hint, "__pydantic_private__"):
            continue  # Pydantic's own, which refuses some and writes `null` for others
        for back in (as_argument(hint, make(value)), as_result(hint, make(value))):
            assert str(first(back)) == str(value)


@pytest.mark.parametrize(
    ("hint", "value", "arrives"),
    [
        (datetime, Moment(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime, Moment(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), None),
        (Decimal, type("Price", (Decimal,), {})("1.10"), Decimal("1.10")),
        (timedelta, type("Duration", (timedelta,), {})(days=-1, microseconds=3), timedelta(days=-1, microseconds=3)),
        (date, type("Day", (date,), {})(2026, 1, 1), date(2026, 1, 1)),
        (uuid.UUID, type("Key", (uuid.UUID,), {})(int=7), uuid.UUID(int=7)),
    ],
)
def test_a_subclass_of_a_plain_type_arrives_as_that(hint: Any, value: Any, arrives: Any) -> None:
    for back in (as_argument(hint, value), as_result(hint, value)):
        assert type(back) is hint
        assert arrives is None or back == arrives


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (time, time(2, 30, tzinfo=ZoneInfo("Europe/Berlin"))),  # of which nothing would be left of the zone
        (Any, (datetime(2026, 1, 1),)),
        (None, Named({1})),
        (set[int], {1.5}),
        (None, {1: 2**70}),
    ],
)
def test_what_would_change_is_refused_both_ways(hint: Any, value: Any) -> None:
    why = r"is of type .* would not arrive|does not fit its annotation: .* at `\$"
    with pytest.raises(TypeError, match=rf"argument 'value' of task 'task' ({why})"):
        as_argument(hint, value)
    with pytest.raises(TypeError, match=rf"the result of task 'task' ({why})"):
        as_result(hint, value)


async def test_the_hour_that_comes_twice_through_a_worker(app: Ardiq) -> None:
    seen = []

    @app.task
    async def remind(at: datetime) -> datetime:
        seen.append(at)
        return at.astimezone(ZoneInfo("Europe/Berlin"))

    moments = [datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold) for fold in (0, 1)]
    jobs = [await remind.enqueue(moment) for moment in moments]
    await drain(app)
    expected = [moment.astimezone(UTC) for moment in moments]
    assert sorted(seen) == expected
    assert [(await result_of(job)).value for job in jobs] == expected


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def test_what_has_no_end_is_refused_by_name_both_ways() -> None:
    for call in (as_argument, as_result):
        with pytest.raises((ValueError, InvalidResult), match="task 'task' is nested too deeply"):
            call(None, nested())


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(),
    str: st.text(st.characters(codec=None)),
    bytes: st.binary(),
    bool: st.booleans(),
    datetime: st.datetimes(timezones=st.none() | st.timezones() | st.just(timezone(timedelta(minutes=-90)))),
    date: st.dates(),
    time: st.times(timezones=st.none() | st.just(UTC)),
    timedelta: st.timedeltas(),
    Decimal: st.decimals(),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
}
PLAIN = st.none() | st.one_of(*SCALARS.values()) | st.complex_numbers()
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.builds(Named, inner)
    ),
    max_leaves=6,
)


@st.composite
def annotated(draw: st.DrawFn) -> tuple[Any, Any]:
    """An annotation, and a value of it, or of something else."""
    kind = draw(st.sampled_from(list(SCALARS)))
    hint, make = draw(st.sampled_from(holders(kind)))
    try:
        value = make(draw(SCALARS[kind]))
    except pydantic.ValidationError:
        value = None
    return draw(st.sampled_from([hint, hint, None, Any])), draw(st.just(value) | ANYTHING)


def outcome(call: Any, hint: Any, value: Any) -> tuple[Any, Any]:
    try:
        return True, call(hint, value)
    except (TypeError, ValueError) as error:
        return False, error


@settings(max_examples=500, deadline=None)
@given(annotated())
def test_whatever_can_be_sent_can_be_returned_and_the_reverse(call: tuple[Any, Any]) -> None:
    hint, value = call
    sent, arrived = outcome(as_argument, hint, value)
    returned, came_back = outcome(as_result, hint, value)
    assert sent == returned, (arrived, came_back)
    if sent:
        assert repr(arrived) == repr(came_back)
    else:
        assert "task 'task'" in str(arrived)
        assert "task 'task'" in str(came_back)
