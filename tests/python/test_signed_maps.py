"""Maps with a `signing_key`: each call of a map is signed, by the producer or by the worker that adds it."""

from collections.abc import Callable
from typing import Any

import pytest
from helpers import drain
from signed import KEY, Signed, spoiled

from ardiq import Ardiq, Flow


@pytest.fixture
def signed(make_app: Callable[..., Ardiq]) -> Signed:
    return Signed(make_app(signing_key=KEY))


@pytest.mark.parametrize("field", ["args", "codec", "no signature"])
async def test_a_changed_call_of_a_map_is_refused(signed: Signed, field: str) -> None:
    flow = Flow(id="w")
    flow.map(signed.double, range(2), name="a")
    await signed.app.start(flow)
    codec = signed.command("HGET", "task:w~a~1", "codec")
    assert codec.startswith(b"json;signed=")
    if field == "no signature":
        signed.command("HDEL", "task:w~a~1", "codec")
    else:
        signed.command("HSET", "task:w~a~1", field, "[8]" if field == "args" else codec[:-22] + 22 * b"A")
    await drain(signed.app)
    assert signed.seen == [0]
    [letter] = await signed.app.dead_letters()
    assert letter.task_id == "w~a~1"
    assert ("has no signature" if field == "no signature" else "or changed since") in letter.error


async def test_a_pause_by_an_argument_holds_a_signed_call_of_a_map(signed: Signed) -> None:
    await signed.app.pause(signed.double, argument={"value": 1})
    flow = Flow(id="w")
    flow.map(signed.double, range(3), name="a")
    await signed.app.start(flow)
    await drain(signed.app)
    assert sorted(signed.seen) == [0, 2]
    assert signed.command("HGET", "task:w~a~1", "state") == b"held"


def traced(signed: Signed) -> list[Any]:
    """The headers of each call that runs from now on: all are sent with one."""
    seen: list[Any] = []

    @signed.app.on_enqueue
    def mark(call: Any) -> None:
        call.headers["trace"] = "t1"

    @signed.app.middleware
    async def note(call: Any, call_next: Any) -> Any:
        seen.append(dict(call.headers))
        return await call_next()

    return seen


async def test_headers_of_a_map_are_signed_with_each_call(signed: Signed) -> None:
    seen = traced(signed)
    flow = Flow(id="w")
    flow.map(signed.double, range(3), name="a")
    await signed.app.start(flow)
    headers = signed.command("HGET", "task:w~a~1", "headers")
    signed.command("HSET", "task:w~a~1", "headers", headers.replace(b"t1", b"t2"))
    await drain(signed.app)
    assert seen == [{"trace": "t1"}] * 2
    assert [letter.task_id for letter in await signed.app.dead_letters()] == ["w~a~1"]


async def test_a_workflow_by_parts_is_signed(signed: Signed) -> None:
    flow = Flow(id="w")
    rows = flow.map(signed.give, range(1_500), name="a")
    job = await signed.app.start(flow, output=flow.add(signed.total.prepare(rows.result)))
    await drain(signed.app)
    assert await job.value() == sum(range(1_500))


@pytest.mark.parametrize("how", ["list", "map"])
async def test_a_map_over_results_is_signed(signed: Signed, how: str) -> None:
    """By the worker that fills it, with the headers that it was started with."""
    seen = traced(signed)

    @signed.app.task
    async def several(count: int) -> list[int]:
        return [*range(count)]

    flow = Flow(id="w")
    if how == "map":
        items = flow.map(signed.give, range(3), name="a").results
    else:
        items = flow.add(several.prepare(3), name="a").result
    rows = flow.map(signed.double, items, name="m")
    job = await signed.app.start(flow, output=flow.add(signed.add.prepare(rows.results), name="b"))
    await drain(signed.app)
    assert await job.value() == 6
    assert seen == [{"trace": "t1"}] * (7 if how == "map" else 5)


async def test_forged_items_of_a_map_are_refused(signed: Signed) -> None:
    flow = Flow(id="w")
    first = flow.map(signed.give, range(7), name="a")
    flow.map(signed.double, first.results, name="m")
    await signed.app.start(flow)
    await signed.app.pause("ardiq:fill")
    await drain(signed.app)
    spoiled(signed, "map", "value")()
    await signed.app.resume("ardiq:fill")
    await drain(signed.app)
    assert signed.seen == []
    [letter] = await signed.app.dead_letters()
    assert "the items of map 'm': result 0 of 'a' was signed with another key" in letter.error
