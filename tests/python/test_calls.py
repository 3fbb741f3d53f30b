"""Typed calls: what the library replies arrives as the protocol declares it, and bounded however much there is."""

import asyncio
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from ardiq import Ardiq, ArdiqError, _core
from ardiq._server import calls
from ardiq._server.replies import Call, ask
from ardiq.errors import BadArgument, WrongType


@pytest.fixture
def core(app: Ardiq) -> _core.Core:
    return app.context.server.core


def enqueue(core: _core.Core, *ids: str) -> list[Any]:
    return ask(core, calls.enqueue(tasks=[calls.NewTask(each, "work", "default", "[1]", "", "") for each in ids]))


def join(core: _core.Core, worker: str) -> list[str]:
    return ask(core, calls.join(worker=worker, lease_ms=60_000, info='{"pid": 7}', lanes='["default"]', generation=1))


def test_a_task_s_day(core: _core.Core) -> None:
    """Each reply of a worker and its clients, whatever its shape."""
    assert enqueue(core, "a", "b", "a") == ["queued", "queued", "exists"]
    assert join(core, "w:1")[-1].endswith("wake:default")
    step = ask(
        core,
        calls.step(
            worker="w:1",
            seq=1,
            lease_ms=60_000,
            result_ttl_ms=60_000,
            lanes='["default"]',
            want=5,
            hand_off=0,
            outcomes=[],
        ),
    )
    assert [(claim.id, claim.args, claim.lane, claim.tries) for claim in step.rows] == [
        ("a", b"[1]", "default", 1),
        ("b", b"[1]", "default", 1),
    ]
    assert (step.more, step.refusals) == (False, [])
    held = ask(core, calls.claims(worker="w:1", offset=0, limit=10))
    assert [(row.id, row.name, row.progress) for row in held.rows] == [("a", "work", {}), ("b", "work", {})]
    assert 0 <= held.now - held.rows[0].started_at < 60_000
    waiting = ask(core, calls.await_(id="a", mailbox="", waiter_ttl_ms=0, result_ttl_ms=60_000))
    assert waiting.answer == "unfinished"
    assert waiting.row is not None
    assert waiting.row.state == "running"

    ends = [
        calls.Settled("a", step.rows[0].token, "complete", 3, "42", ""),
        calls.Settled("b", "999", "complete", 3, "42", ""),
    ]
    step = ask(
        core,
        calls.step(
            worker="w:1",
            seq=2,
            lease_ms=60_000,
            result_ttl_ms=60_000,
            lanes='["default"]',
            want=0,
            hand_off=0,
            outcomes=ends,
        ),
    )
    assert [(refusal.id, refusal.reason) for refusal in step.refusals] == [("b", "stale")]
    ended = ask(core, calls.await_(id="a", mailbox="", waiter_ttl_ms=0, result_ttl_ms=60_000))
    assert ended.answer == "finished"
    assert ended.row is not None
    assert (ended.row.state, ended.row.tries, ended.row.value) == ("complete", 1, b"42")
    nothing = ask(core, calls.await_(id="x", mailbox="", waiter_ttl_ms=0, result_ttl_ms=60_000))
    assert nothing == calls.AwaitReply("not_found", None)
    assert ask(core, calls.task(id="a"))["result"] == b"42"
    assert ask(core, calls.task(id="x")) == {}
    counts = ask(core, calls.counts())
    assert (counts["running"], counts["ready:default"]) == (1, 0)
    assert ask(core, calls.requeue(tasks=["a", "x"])) == ["not_dead", "not_dead"]
    assert ask(core, calls.leave(worker="w:1", result_ttl_ms=0)) is False


def test_workers_by_page(core: _core.Core) -> None:
    """Of more than fit on a page each is on one, with what is known of it."""
    names = {f"w:{number}" for number in range(300)}
    for name in names:
        join(core, name)
    enqueue(core, "a")
    claim = calls.claim(worker="w:7", lanes='["default"]', want=1, result_ttl_ms=0)
    assert [row.id for row in ask(core, claim).rows] == ["a"]
    found, cursor, pages = {}, "0", 0
    while pages == 0 or cursor != "0":
        page = ask(core, calls.workers(cursor=cursor, limit=100))
        assert page.alive == 300
        assert len(page.rows) < 200  # a server may answer some more than it was asked for
        found |= {row.worker: row for row in page.rows}
        cursor, pages = page.cursor, pages + 1
    assert set(found) == names
    assert pages > 1
    assert (found["w:7"].claimed, found["w:7"].info, found["w:7"].lanes) == (1, {"pid": 7}, ["default"])
    assert sum(row.claimed for row in found.values()) == 1
    with pytest.raises(BadArgument, match="limit"):
        ask(core, calls.workers(cursor="0", limit=101))


def test_minutes_of_statistics(core: _core.Core) -> None:
    enqueue(core, "a", "b")
    tallied = calls.TaskFigures("work", completed=2, failed=0, retried=0, aborted=0, run_ms=9, waits=2, wait_ms=4)
    assert ask(core, calls.report_stats(tasks=[tallied])) == "ok"
    stats = ask(core, calls.stats(minutes_ago=0, minutes=120))
    assert [row.minutes_ago for row in stats.rows] == list(range(120))
    assert sum(row.enqueued for row in stats.rows) == 2  # a minute may have begun in between
    of_tasks = ask(core, calls.task_stats(minutes_ago=0, minutes=120))
    assert [(row.name, row.figures) for row in of_tasks.rows] == [("work", [2, 0, 0, 0, 9, 2, 4])]


async def test_awaited(app: Ardiq) -> None:
    """The same over the line of a loop: replies, refusals, and a queue that is closed meanwhile."""
    line = app.context.server.channel(asyncio.get_running_loop())
    asked = [line.ask(calls.counts()), line.ask(calls.log(id="x", limit=10))]
    assert (await asyncio.gather(*asked))[1] == []
    with pytest.raises(BadArgument):
        await line.ask(calls.log(id="x", limit=0))


def test_a_reply_of_another_shape_is_an_error_that_says_so(core: _core.Core) -> None:
    for reply in ([], None, [b"0"], 7):
        with pytest.raises(ArdiqError, match="workers: the reply is not laid out"):
            calls.workers(cursor="0", limit=1).decode(reply)


def functions() -> Iterator[Any]:
    for function in vars(calls).values():
        if getattr(function, "__module__", "") == calls.__name__ and not isinstance(function, type):
            yield function


@pytest.mark.parametrize("reply", [b"120", b"x" * 9, "12"])
def test_a_text_is_not_taken_for_the_list_of_its_parts(reply: Any) -> None:
    seen = 0
    for function in functions():
        given = {name: 1 if kind is int else "1" for name, kind in get_type_hints(function).items() if name != "return"}
        tail = {name: [] for name in given if "Sequence" in str(get_type_hints(function)[name])}
        try:
            read = function(**given | tail).decode(reply)
        except ArdiqError:
            seen += 1
        else:
            assert isinstance(read, str | int | bytes), (function.__name__, read)
    assert seen > 10


@pytest.mark.damages_keys
def test_what_somebody_wrote_by_hand_is_read_as_nothing(core: _core.Core, app: Ardiq) -> None:
    base = f"ardiq:{{{app.queue_name}}}:"
    join(core, "w:1")
    core.command(["HSET", f"{base}worker:w:1", "info", "mine", "lanes", '{"a":', "joined_at", "soon"])
    (row,) = ask(core, calls.workers(cursor="0", limit=1)).rows
    assert (row.info, row.lanes, row.joined_at) == ({}, [], 0)
    core.command(["SET", f"{base}task:a", "mine"])
    assert isinstance(enqueue(core, "a", "b")[0], WrongType)
    with pytest.raises(WrongType):
        ask(core, calls.position(id="a", limit=1))


def test_every_function_says_what_it_replies() -> None:
    """No reply is untyped: what a call gives is never Any."""
    for function in functions():
        kind = get_type_hints(function)["return"]
        assert kind.__origin__ is Call
        assert get_args(kind)[0] is not Any, function.__name__
