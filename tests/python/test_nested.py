"""Workflows within workflows: chains, groups and chords of each other, and `@app.workflow` as a node."""

import asyncio
from collections.abc import Callable
from typing import Any

import noted_tasks
import pytest
from helpers import SOON_S, node_states, result_of, value_of, working

from ardiq import Ardiq, Flow, Node, chain, chord, group


class Tasks(noted_tasks.Tasks):
    """And two more."""

    def __init__(self, app: Ardiq) -> None:
        super().__init__(app)
        seen = self.seen

        @app.task(max_retries=0)
        async def show(value: list[Any]) -> list[Any]:
            return value

        @app.task(max_retries=0)
        async def alarm(name: str = "") -> str:
            seen.append(("alarm", name))
            return name

        self.show, self.alarm = show, alarm


@pytest.fixture
def tasks(app: Ardiq) -> Tasks:
    return Tasks(app)


async def test_a_group_of_chains(app: Ardiq, tasks: Tasks) -> None:
    lines = [chain(tasks.give.prepare(each)).then(tasks.double) for each in (1, 2)]
    job = await group(tasks.give.prepare(5), *lines).then(tasks.total).start()
    assert await value_of(app, job) == 11
    assert set(await node_states(job)) == {"give", "give_2", "double", "give_3", "double_2", "total"}


async def test_a_chord_of_chords(app: Ardiq, tasks: Tasks) -> None:
    def level(depth: int) -> Any:
        return tasks.give.prepare(1) if depth == 0 else chord([level(depth - 1), level(depth - 1)], tasks.total)

    job = await level(5).start()
    assert await value_of(app, job) == 32


async def test_lists_within_lists(app: Ardiq, tasks: Tasks) -> None:
    """Each group is a list, and its members stay where they are in it."""
    give = tasks.give.prepare
    inner = group(give(1), group(give(2), group(give(3))), chain(give(4)).then(tasks.double))
    job = await group(inner, group(give(5))).then(tasks.show).start()
    flow = Flow()
    rows, one = flow.map(tasks.give, [6, 7]), flow.add(give(8))
    other = await app.start(flow, output=flow.add(tasks.show.prepare([[rows.results, one.result], [[rows.results]]])))
    async with working(app):
        assert await job.value(timeout=SOON_S) == [[1, [2, [3]], 8], [5]]
        assert await other.value(timeout=SOON_S) == [[[6, 7], 8], [[[6, 7]]]]


async def test_what_is_not_there_is_none_in_its_list(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(2)
    flow = Flow()
    nodes = [flow.add(tasks.give.prepare(each)) for each in (1, 2)]
    job = await app.start(
        flow,
        output=flow.add(tasks.show.prepare([[node.result for node in nodes], [nodes[1].result]])).after(
            *nodes, on_failure="ignore"
        ),
    )
    assert await value_of(app, job) == [[1, None], [None]]


async def test_a_chain_that_fans_out(app: Ardiq, tasks: Tasks) -> None:
    job = (
        await chain(tasks.give.prepare(3))
        .then(lambda value: group(tasks.double.prepare(value), chain(tasks.double.prepare(value)).then(tasks.double)))
        .then(tasks.total)
        .then(lambda value: chain(tasks.double.prepare(value)).then(tasks.double))
        .start()
    )
    assert await value_of(app, job) == 72


async def test_what_follows_without_the_result_follows_all(app: Ardiq, tasks: Tasks) -> None:
    job = (
        await group(*[tasks.give.prepare(each) for each in range(3)])
        .then(lambda _: group(tasks.alarm.prepare("a"), tasks.alarm.prepare("b")))
        .then(lambda _: tasks.alarm.prepare("c"))
        .start()
    )
    assert await value_of(app, job) == "c"
    names = [each[1] for each in tasks.seen[3:]]
    assert (sorted(tasks.seen[:3]), sorted(names[:2]), names[2]) == ([0, 1, 2], ["a", "b"], "c")
    joins = [node for node in [node async for node in job.nodes()] if node.name.startswith("join")]
    assert [(node.is_map, node.total, node.state) for node in joins] == [(True, 0, "complete")] * 2
    progress = await job.progress()
    assert progress is not None
    assert (progress.total, progress.done) == (6, 6)


async def test_a_group_at_the_end(app: Ardiq, tasks: Tasks) -> None:
    job = await chain(tasks.give.prepare(3)).then(lambda value: group(tasks.double.prepare(value))).start()
    assert await value_of(app, job) is None
    assert (await result_of(job.node("double"))).value == 6


async def test_a_workflow_within_a_workflow(app: Ardiq, tasks: Tasks) -> None:
    @app.workflow
    def sums(flow: Flow, values: list[int], more: int) -> Node[int]:
        total = flow.add(tasks.total.prepare(flow.map(tasks.give, values).results))
        return flow.add(tasks.total.prepare([total.result, flow.add(tasks.double.prepare(more)).result]))

    @app.workflow(name="both of them")
    def both(flow: Flow, more: int) -> Node[int]:
        first = flow.add(sums.prepare([1, 2], more))
        second = flow.add(sums.prepare([3], first.result), name="second")
        return flow.add(tasks.total.prepare([first.result, second.result]))

    flow = Flow()
    start = flow.add(tasks.give.prepare(10))
    part = flow.add(both.prepare(start.result))
    job = await app.start(flow, output=part)
    assert await value_of(app, job) == 23 + 3 + 46
    assert list(await node_states(job)) == [
        "give", "both_of_them.sums.give", "both_of_them.sums.total", "both_of_them.sums.double",
        "both_of_them.sums.total_2", "both_of_them.second.give", "both_of_them.second.total",
        "both_of_them.second.double", "both_of_them.second.total_2", "both_of_them.total",
    ]  # fmt: skip
    again = await both.start(10)
    assert await value_of(app, again) == 23 + 3 + 46


async def test_a_workflow_in_a_chain_and_a_group(app: Ardiq, tasks: Tasks) -> None:
    @app.workflow
    def twice(flow: Flow, value: int, times: int = 1) -> Node[int]:
        node = flow.add(tasks.double.prepare(value))
        return flow.add(tasks.total.prepare([node.result] * times))

    job = await chain(twice.prepare(1)).then(twice, times=2).then(tasks.double).start()
    other = await chord([twice.prepare(3), chain(tasks.give.prepare(1)).then(twice)], tasks.total).start()
    last = await chord([tasks.give.prepare(4)], lambda values: chain(tasks.total.prepare(values)).then(twice)).start()
    async with working(app):
        assert await job.value(timeout=SOON_S) == 16
        assert await other.value(timeout=SOON_S) == 8
        assert await last.value(timeout=SOON_S) == 8


async def test_order_around_a_workflow(app: Ardiq, tasks: Tasks) -> None:
    """It begins when all of it may, and has ended when all of it has."""

    @app.workflow
    def sides(flow: Flow) -> None:
        flow.add(tasks.alarm.prepare("left"))
        flow.add(tasks.alarm.prepare("right"))

    flow = Flow()
    before = flow.add(tasks.alarm.prepare("before"))
    part = flow.add(sides.prepare()).after(before)
    flow.add(tasks.alarm.prepare("after")).after(part)
    again = flow.add(sides.prepare()).after(part)
    with pytest.raises(TypeError, match=r"'sides' returns no node"):
        flow.add(tasks.give.prepare(part.result))
    job = await app.start(flow)
    async with working(app):
        await result_of(job)
    names = [each[1] for each in tasks.seen]
    assert (names[0], set(names[1:3]), set(names[3:])) == ("before", {"left", "right"}, {"after", "left", "right"})
    assert again.name == "sides_2"


@pytest.mark.parametrize(
    ("policy", "broken", "runs"),
    [
        ("fail", False, True),
        ("fail", True, False),
        ("ignore", True, True),
        ("only", True, True),
        ("only", False, False),
        ("continue", True, True),
        ("cancel", True, False),
    ],
)
async def test_what_follows_a_workflow_that_fails(
    app: Ardiq, tasks: Tasks, policy: Any, broken: bool, runs: bool
) -> None:
    if broken:
        tasks.broken.add(2)

    @app.workflow
    def part(flow: Flow) -> None:
        for value in (1, 2, 3):
            line = flow.add(tasks.double.prepare(flow.add(tasks.give.prepare(value)).result))
            flow.add(tasks.alarm.prepare("within")).after(line, on_failure="only")

    flow = Flow()
    flow.add(tasks.alarm.prepare("after")).after(flow.add(part.prepare()), on_failure=policy)
    job = await app.start(flow)
    async with working(app):
        assert (await result_of(job)).success is not broken
    assert (("alarm", "after") in tasks.seen) is runs
    if policy != "cancel":
        assert tasks.seen.count(("alarm", "within")) == int(broken)


async def test_an_errand_of_a_chain_does_not_hold_it_up(app: Ardiq, tasks: Tasks) -> None:
    line = chain(tasks.give.prepare(1)).on_failure(tasks.alarm.prepare("first")).then(tasks.double)
    job = (
        await group(line, line.on_failure(tasks.alarm.prepare("line")))
        .on_failure(chain(tasks.alarm.prepare("group")).then(tasks.alarm))
        .start()
    )
    async with working(app):
        assert (await result_of(job)).success
        assert tasks.seen == [1, 1, ("double", 1), ("double", 1)]
        tasks.broken.add(1)
        tasks.seen.clear()
        job = (
            await group(line, chain(tasks.give.prepare(2)).then(tasks.double))
            .on_failure(chain(tasks.alarm.prepare("group")).then(tasks.alarm))
            .then(tasks.total)
            .on_failure(tasks.alarm.prepare("all"))
            .start()
        )
        assert not (await result_of(job)).success
    alarms = [each[1] for each in tasks.seen if isinstance(each, tuple) and each[0] == "alarm"]
    assert sorted(alarms) == ["all", "first", "group", "group"]


async def test_a_failed_part_is_replayed(app: Ardiq, tasks: Tasks) -> None:
    tasks.broken.add(2)
    inner = [chord([tasks.give.prepare(2 * each), tasks.give.prepare(2 * each + 1)], tasks.total) for each in range(3)]
    job = await chord(inner, tasks.total).start()
    async with working(app):
        assert not (await result_of(job)).success
        tasks.broken.clear()
        ran = len(tasks.seen)
        assert await job.retry() == 1
        assert await job.value(timeout=SOON_S) == 15
    assert tasks.seen[ran:] == [2, ("total", [2, 3]), ("total", [1, 5, 9])]


async def test_what_cannot_be(app: Ardiq, tasks: Tasks) -> None:
    @app.workflow
    def nothing(flow: Flow) -> None: ...

    @app.workflow
    def itself(flow: Flow) -> Node[int]:
        return flow.add(itself.prepare())  # type: ignore[return-value]

    @app.workflow
    def wrong(flow: Flow) -> Node[int]:
        flow.add(tasks.give.prepare(1))
        return 7  # type: ignore[return-value]

    @app.workflow
    def looks(flow: Flow, value: int) -> Node[int]:
        return flow.add(tasks.give.prepare(max(3, value)))

    @app.workflow
    def starts(flow: Flow) -> None:
        flow.add(tasks.give.prepare(1))
        app.start_sync(flow)

    flow = Flow("outer")
    one = flow.add(tasks.give.prepare(1))
    for piece, why in (
        (nothing.prepare(), "workflow 'nothing' within <Flow 'outer'> has no nodes"),
        (itself.prepare(), "more than 100 characters"),
        (wrong.prepare(), "'wrong' must return a node or nothing, not int"),
        (looks.prepare(one.result), "the result of node 'give' is not there until"),
        (starts.prepare(), "is a part of another one, which starts it"),
        (chain(tasks.give.prepare(1)).then(lambda _: 7), "must return a call or a chain, not int"),  # type: ignore[arg-type, return-value]
    ):
        with pytest.raises((ValueError, TypeError), match=why):
            flow.add(piece)
    with pytest.raises(ValueError, match="cannot have an id"):
        looks.options(id="x").prepare(1)
    with pytest.raises(TypeError, match="of a single node"):
        flow.add(group(tasks.give.prepare(1))).result_or([])
    with pytest.raises(TypeError, match="of a single node"):
        await app.start(flow, output=flow.add(group(tasks.give.prepare(1))))
    with pytest.raises(ValueError, match="of another flow"):
        Flow().add(tasks.give.prepare(one.result))
    flow.add(tasks.give.prepare(1), name="x")
    with pytest.raises(ValueError, match="there is a node 'x' in this flow already"):
        flow.add(looks.prepare(1), name="x")
    with pytest.raises(TypeError, match="is in a list, where only a list"):
        flow.add(tasks.show.prepare([flow.map(tasks.give, [1]).result]))
    for call in ([[], []], [[1], [2]], []):
        assert flow.add(tasks.show.prepare(call)).sources == {}
    await asyncio.sleep(0)


async def test_hooks_are_asked_of_calls_alone(app: Ardiq, tasks: Tasks) -> None:
    asked: list[str] = []

    @app.on_enqueue
    def hook(context: Any) -> dict[str, str]:
        asked.append(context.name)
        return {"trace": context.name}

    two = [tasks.give.prepare(1), tasks.give.prepare(2)]
    job = await group(*two).then(lambda _: group(*two)).start()
    async with working(app):
        await result_of(job)
    assert len(asked) == 4


async def test_a_signed_app_joins(make_app: Callable[..., Ardiq]) -> None:
    """A join has no call that somebody would have to sign."""
    app = make_app(signing_key="k" * 32)
    seen: list[str] = []

    @app.task
    async def note(name: str) -> None:
        seen.append(name)

    two = group(note.prepare("a"), note.prepare("b"))
    job = await two.on_failure(note.prepare("c")).then(lambda _: two).start()
    async with working(app):
        assert (await result_of(job)).success
    assert sorted(seen) == ["a", "a", "b", "b"]
