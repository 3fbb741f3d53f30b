"""Workflows with a `signing_key`: what tasks are called with was signed by producers, or by workers that made it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers import drain, result_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed import KEY, NEW_KEY, WAYS, Signed, of, spoiled

from ardiq import Ardiq, Flow, Job
from ardiq._values.inputs import unpack, wired, wiring
from ardiq._values.signing import RESULT, Place, Signer, bare
from ardiq.errors import BadSignature
from ardiq.testing import inline


@pytest.fixture
def signed(make_app: Callable[..., Ardiq]) -> Signed:
    return Signed(make_app(signing_key=KEY))


@pytest.mark.parametrize("how", WAYS)
async def test_results_are_passed_on(signed: Signed, how: str) -> None:
    flow, (expected, seen) = Flow(), WAYS[how]
    job = await signed.app.start(flow, output=of(flow, signed, how))
    await drain(signed.app)
    assert await job.value() == expected
    assert signed.seen == [seen]


@pytest.mark.parametrize("field", ["value", "no signature", "another"])
@pytest.mark.parametrize("how", WAYS)
async def test_a_forged_result_is_refused(signed: Signed, how: str, field: str) -> None:
    flow = Flow(id="w")
    job = await signed.run_with(flow, of(flow, signed, how), spoiled(signed, how, field), ["a"])
    why = (
        "has no signature"
        if field == "no signature"
        else "was signed with another key, for something else, or changed since"
    )
    await signed.assert_refused(job, "b", why)
    result = await signed.app.result("w~b")
    assert result is not None
    of_map = "'a'" if how in ("map", "chunks", "pages", "pages_sync") else "the result of 'a'"
    assert of_map in result.value
    label = "argument 'value'" if how == "keyword" else "argument 'pages'" if "pages" in how else "argument 1"
    assert label in result.value


async def test_the_result_of_another_task_is_refused(signed: Signed) -> None:
    flow = Flow(id="w")
    last = of(flow, signed, "list")

    def swap() -> None:
        fields = signed.command("HMGET", "task:w~z", "result", "result_codec")
        signed.command("HSET", "task:w~a", "result", fields[0], "result_codec", fields[1])

    await signed.assert_refused(await signed.run_with(flow, last, swap, ["a", "z"]), "b", "for something else")


@pytest.mark.parametrize("inputs", ['[["0","z"]]', '[["0",["a"]]]', '[["0","a"],["value","a"]]', "[]", None, "no JSON"])
async def test_other_results_than_the_producer_said_are_refused(signed: Signed, inputs: str | None) -> None:
    flow = Flow(id="w")
    flow.add(signed.give.prepare(8), name="z")
    last = of(flow, signed, "one")

    def rewire() -> None:
        if inputs is None:
            signed.command("HDEL", "task:w~b", "inputs")
        else:
            signed.command("HSET", "task:w~b", "inputs", inputs)

    job = await signed.run_with(flow, last, rewire, ["a", "z"])
    await signed.assert_refused(job, "b", "was signed with another key, or changed since")


async def test_a_call_with_results_has_its_place(signed: Signed) -> None:
    """It is not another one's, whose results are others."""
    for id, value in (("w", 7), ("v", 8)):
        flow = Flow(id=id)
        first = flow.add(signed.give.prepare(value), name="a")
        flow.add(signed.double.prepare(first.result), name="b")
        await signed.app.start(flow)
    headers = signed.command("HGET", "task:v~b", "headers")
    signed.command("HSET", "task:w~b", "headers", headers)
    await drain(signed.app)
    assert signed.seen == [8]
    assert "changed since" in (await result_of(Job(signed.app, "w~b"))).value


@pytest.mark.parametrize(("keys", "is_good"), [([NEW_KEY, KEY], True), (NEW_KEY, False)])
@pytest.mark.parametrize("how", ["one", "map", "pages"])
async def test_keys_are_rotated(make_app: Callable[..., Ardiq], how: str, keys: Any, is_good: bool) -> None:
    """What the old key has signed, a worker takes that has it, too."""
    old = Signed(make_app(signing_key=KEY))
    flow = Flow(id="w")
    last = of(flow, old, how)
    job = await old.app.start(flow, output=last)
    await old.app.pause(last.call.name)
    await drain(old.app)
    assert old.command("HGET", "task:w~a", "state") == b"complete"
    await old.app.resume(last.call.name)
    new = Signed(make_app(signing_key=keys, queue_name=old.app.queue_name))
    await drain(new.app)
    assert (await result_of(job)).success is is_good
    assert (old.seen, new.seen) == ([], [WAYS[how][1]] if is_good else [])


async def test_what_was_not_signed_is_taken_while_a_key_is_introduced(make_app: Callable[..., Ardiq]) -> None:
    before = Signed(make_app())
    flow = Flow(id="w")
    job = await before.app.start(flow, output=of(flow, before, "map"))
    during = Signed(make_app(signing_key=KEY, takes_unsigned=True, queue_name=before.app.queue_name))
    await drain(during.app)
    assert await job.value() == 21
    # And a worker without a key takes what was signed.
    flow = Flow(id="v")
    job = await during.app.start(flow, output=of(flow, during, "list"))
    await drain(before.app)
    assert await job.value() == 1


async def test_people_see_results_and_arguments(signed: Signed) -> None:
    @signed.app.task(max_retries=0)
    async def fail(value: int) -> None:
        raise ValueError(value)

    flow = Flow(id="w")
    rows = flow.map(signed.give, range(3), name="a")
    flow.map(fail, [7], name="f")
    await signed.app.start(flow, output=flow.add(signed.add.prepare(rows.results), name="b"))
    job = await signed.app.start(flow)
    await drain(signed.app)
    assert [value async for value in job.results("a")] == [0, 1, 2]
    assert (await result_of(job.node("b"))).value == 3
    [letter] = await signed.app.dead_letters()
    assert letter.args == (7,)


@pytest.mark.parametrize("how", ["one", "map"])
async def test_a_dead_letter_runs_again(signed: Signed, how: str) -> None:
    """With what it had, or with other arguments instead of all."""
    failing = {"b"}

    @signed.app.task(max_retries=0)
    async def fragile(value: Any) -> Any:
        if failing:
            raise ValueError(value)
        return value

    flow = Flow(id="w")
    first = flow.map(signed.give, range(3), name="a").results if how == "map" else None
    given: Any = first if how == "map" else flow.add(signed.give.prepare(7), name="a").result
    flow.add(fragile.prepare(given), name="b")
    flow.map(fragile, [5], name="f")
    await signed.app.start(flow)
    await drain(signed.app)
    assert sorted(letter.task_id for letter in await signed.app.dead_letters()) == ["w~b", "w~f~0"]
    failing.clear()
    await signed.app.dead.requeue("w~b")
    await signed.app.dead.requeue("w~f~0", args=[6])
    await drain(signed.app)
    assert (await result_of(Job(signed.app, "w~b"))).value == ([0, 1, 2] if how == "map" else 7)
    assert await signed.app.dead_letters() == []
    failing.add("b")


async def test_a_dead_letter_with_results_is_amended(signed: Signed) -> None:
    @signed.app.task(max_retries=0)
    async def fragile(value: int) -> int:
        if value == 7:
            raise ValueError(value)
        return value

    flow = Flow(id="w")
    flow.add(fragile.prepare(flow.add(signed.give.prepare(7), name="a").result), name="b")
    await signed.app.start(flow)
    await drain(signed.app)
    await signed.app.dead.requeue("w~b", args=[8])
    await drain(signed.app)
    assert (await result_of(Job(signed.app, "w~b"))).value == 8


async def test_inline() -> None:
    tasks = Signed(Ardiq("redis://localhost:1", signing_key=KEY))
    async with inline(tasks.app):
        for how in ("one", "list", "map", "pages"):
            flow = Flow()
            job = await tasks.app.start(flow, output=of(flow, tasks, how))
            assert await job.value() == WAYS[how][0]


PARTS = st.tuples(
    st.text(max_size=4), st.text(max_size=4), st.sampled_from(["", "custom", "json+types:a"]), st.binary()
)


@given(PARTS, PARTS)
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_no_part_of_a_result_can_be_changed(one: Any, other: Any) -> None:
    signer = Signer([KEY.encode()], takes_unsigned=False)
    queue, id, codec, data = one
    told = signer.sign_value(queue, id, RESULT, codec, data)
    assert signer.check_value(queue, id, RESULT, told, data, "it") == codec == bare(told)
    _, _, signature = told.rpartition("=")
    if one != other:
        queue, id, codec, data = other
        with pytest.raises(BadSignature, match="it was signed with another key, for something else, or changed since"):
            signer.check_value(queue, id, RESULT, f"{codec or 'json'};signed={signature}", data, "it")


def test_a_call_of_a_node_is_no_other_call() -> None:
    signer = Signer([KEY.encode()], takes_unsigned=False)
    call = ("queue", "name", b"[null]", b"", "")
    place = Place("w~b", wiring([["0", "a"]]))
    headers = signer.sign(*call, {}, place).encode()
    assert signer.check(*call, headers, place) == {}
    for other in (None, Place("v~b", place.wiring), Place("w~b", wiring([["0", "z"]])), Place("w~b", wiring([]))):
        with pytest.raises(BadSignature):
            signer.check(*call, headers, other)


def test_what_is_wired_is_what_was_asked_for() -> None:
    asked = [["0", "a"], ["x", ["a", "z"]], ["rows", "*m"], ["1[0][2]", "a"]]
    parts = [b"[]", b"0", b"one", b"1", b"a", b"complete", b"", b"7", b"x", b"list", b"2", b"a", b"failed", b"", b"no"]
    parts += [b"z", b"reference", b"", b"w~z", b"rows", b"map", b"1", b"m", b"map", b"", b"w~m"]
    parts += [b"1[0][2]", b"one", b"1", b"a", b"complete", b"", b"7"]
    _, inputs = unpack(b"".join(b"%d:%b," % (len(part), part) for part in parts))
    assert wired(inputs) == wiring(asked) == wiring(json.loads(json.dumps(asked)))
