"""What arrives of arguments, of results, and of what the annotations say."""

import asyncio
import dataclasses
import enum
import inspect
import os
import pickle
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from observed import drain, see

from ardiq import Ardiq

URL = os.environ["ARDIQ_REDIS_URL"]


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Pair(NamedTuple):
    a: int
    b: int


class Text(str): ...


@dataclasses.dataclass
class Point:
    x: int


def shown(value):
    return [type(value).__name__, repr(value)]


VALUES = {
    "int": 1, "negative": -(2**63), "large int": 2**64 - 1, "huge int": 2**70, "float": 0.1, "nan": float("nan"),
    "inf": float("-inf"), "bool": True, "none": None, "text": "ü\u2028", "null byte": "a\0b",
    "lone surrogate": "\ud800", "bytes": b"\xff", "bytearray": bytearray(b"x"), "memoryview": memoryview(b"x"),
    "list": [1, [2]], "tuple": (1, (2,)), "dict": {"a": {"b": 1}}, "int keys": {1: 2}, "none key": {None: 1},
    "tuple key": {(1, 2): 3}, "bytes key": {b"a": 1}, "set": {1}, "frozenset": frozenset({1}),
    "generator": (n for n in ()), "range": range(2), "str enum": Colour.RED, "int enum": Number.ONE,
    "named tuple": Pair(1, 2), "own text": Text("x"), "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "naive": datetime(2026, 1, 2), "date": date(2026, 1, 2), "timedelta": timedelta(1), "decimal": Decimal("1.10"),
    "uuid": uuid.UUID(int=1), "dataclass": Point(1), "object": object(), "exception": ValueError("x"),
    "function": print, "nested": [{"a": (1, b"x", {"b": [None, 1.5]})}], "empty": [[], {}, "", b"", ()],
}  # fmt: skip


def tasks_of(app):
    def untyped(value):
        return shown(value)

    def echo(name):
        return VALUES[name]

    def keywords(*args, **kwargs):
        return [shown(args), shown(kwargs)]

    def typed_tuple(value: tuple[int, ...]):
        return shown(value)

    def typed_int(value: int):
        return shown(value)

    def typed_float(value: float):
        return shown(value)

    def typed_set(value: set[int]):
        return shown(value)

    def typed_enum(value: Colour):
        return shown(value)

    def typed_any(value: object):
        return shown(value)

    def returns_int() -> int:
        return "text"

    def returns_tuple() -> tuple[int, ...]:
        return (1, 2)

    return {name: app.task(max_retries=0)(fn) for name, fn in locals().items() if name != "app"}


TYPED = {
    "a tuple for a tuple": ("typed_tuple", (1, 2)), "a list for a tuple": ("typed_tuple", [1, 2]),
    "text for an int": ("typed_int", "5"), "a float for an int": ("typed_int", 5.0),
    "true for an int": ("typed_int", True), "an int for a float": ("typed_float", 5),
    "a list for a set": ("typed_set", [1, 1]), "a set for a set": ("typed_set", {1}),
    "text for an enum": ("typed_enum", "red"), "an enum for an enum": ("typed_enum", Colour.RED),
    "anything": ("typed_any", (1,)), "another return value": ("returns_int",), "a returned tuple": ("returns_tuple",),
}  # fmt: skip


async def travel(app, prefix, calls):
    tasks, jobs = tasks_of(app), {}
    for name, (task, args, kwargs) in calls.items():
        try:
            jobs[name] = await tasks[task].enqueue(*args, **kwargs)
        except Exception:
            see(prefix + name, "refused at enqueue")
    await drain(app)
    for name, job in jobs.items():
        try:
            result = await job.result()
        except Exception:
            see(prefix + name, "cannot be read")
            continue
        see(prefix + name, shown(result.value) if result.success else "failed")


async def main():
    calls = {f"sent {name}": ("untyped", (value,), {}) for name, value in VALUES.items()}
    calls |= {f"returned {name}": ("echo", (name,), {}) for name in VALUES}
    calls |= {
        "keywords": ("keywords", (1, (2,)), {"a": (3,), "self": 4, "name": 5, "task_id": 6}),
        "too many": ("untyped", (1, 2), {}), "too few": ("untyped", (), {}),
        "unknown keyword": ("untyped", (1,), {"x": 2}),
    }  # fmt: skip
    await travel(Ardiq(URL, "arguments"), "", calls)
    typed = {name: (call[0], call[1:], {}) for name, call in TYPED.items()}
    await travel(Ardiq(URL, "typed"), "", typed)
    switch = {"check_types": False} if "check_types" in inspect.signature(Ardiq).parameters else {}
    await travel(Ardiq(URL, "unchecked", **switch), "unchecked: ", typed)

    own = Ardiq(URL, "own-serializer", serializer=pickle.dumps, deserializer=pickle.loads)

    @own.task(name="untyped", max_retries=0)
    def of_own(value):
        return [shown(value), value]

    names = ("tuple", "int keys", "set", "datetime", "decimal", "dataclass", "str enum", "nested", "exception")
    jobs = {name: await of_own.enqueue(VALUES[name]) for name in names}
    await drain(own)
    for name, job in jobs.items():
        result = await job.result()
        see(f"own serializer: {name}", [result.success, result.success and shown(result.value)])


asyncio.run(main())
