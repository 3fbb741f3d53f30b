"""Steps, waits and signals as users write them, right and wrong, for type checkers; nothing here is run.

A right use must pass. A wrong one carries `type: ignore`, which is an error itself where the use is accepted.
"""

from datetime import timedelta
from typing import Any, NamedTuple, assert_type

from ardiq import (
    Ardiq,
    Job,
    Received,
    Signal,
    children,
    children_sync,
    sleep,
    sleep_sync,
    step,
    step_key,
    step_sync,
    version,
    version_sync,
    wait_for,
    wait_for_sync,
)

app = Ardiq("redis://localhost")


class Draft(NamedTuple):
    text: str
    words: int


approval = Signal("approval", bool)
budget = Signal("budget", int)
pages = Signal("pages", list[str])
maybe: Signal[int | None] = Signal("maybe", int | None)
anything = Signal("anything", object)
assert_type(approval, Signal[bool])
assert_type(pages, Signal[list[str]])
assert_type(anything, Signal[object])
Signal(1, bool)  # type: ignore[call-overload]
Signal("approval")  # type: ignore[call-overload]
Signal("approval", True)  # type: ignore[call-overload]


async def ask_model(topic: str, *, words: int = 100) -> Draft:
    return Draft(topic, words)


def count(text: str) -> int:
    return len(text)


@app.task
async def known(number: int) -> str:
    return str(number)


@app.task
async def write_article(topic: str) -> str | None:
    draft = await step("draft", ask_model, topic, words=200)
    assert_type(draft, Draft)
    assert_type(await step("count", count, draft.text), int)
    assert_type(await step("known", known, 1), str)
    assert_type(await step("now", lambda: 1.5), float)
    await step("draft", ask_model, 1)  # type: ignore[call-overload]
    await step("draft", ask_model, topic, pages=2)  # type: ignore[call-arg]
    await step(ask_model, topic)  # type: ignore[call-overload]
    await step("draft", draft)  # type: ignore[call-overload]

    assert_type(await wait_for(approval), bool | None)
    assert_type(await wait_for(budget, timeout=3), int | None)
    assert_type(await wait_for(pages, timeout=timedelta(days=3)), list[str] | None)
    assert_type(await wait_for(approval, budget), Received[bool] | Received[int] | None)
    assert_type(await wait_for(approval, budget, pages), Received[bool] | Received[int] | Received[list[str]] | None)
    assert_type(await wait_for(approval, budget, pages, maybe), Received[Any] | None)
    if (first := await wait_for(approval, budget)) is not None:
        assert_type(first.value, bool | int)
    assert_type(bool(await wait_for(approval)), bool)
    print(await wait_for(approval))
    await wait_for("approval")  # type: ignore[call-overload]
    await wait_for()  # type: ignore[call-overload]
    await wait_for(approval, timeout="3")  # type: ignore[call-overload]

    await sleep("a day", timedelta(days=1))
    await sleep("a minute", 60)
    await sleep(60)  # type: ignore[call-arg, arg-type]
    await sleep("a minute", "60")  # type: ignore[arg-type]
    assert_type(await version("discounts", 2), int)
    await version("discounts", "2")  # type: ignore[arg-type]
    assert_type(step_key(), str)
    return draft.text


@app.task
async def search(topic: str) -> str:
    return topic


@app.task
def rank(number: int) -> int:
    return number


@app.task
async def research() -> None:
    assert_type(await children("a", [search.prepare("a"), search.prepare("b")]), list[str])
    assert_type(await children("b", (rank.prepare(number) for number in range(3))), list[int])
    assert_type(await children("c", [rank.prepare(1)], tolerate=0.5), list[int | None])
    mixed: list[object] = await children("d", [search.prepare("a"), rank.prepare(1)])
    assert_type(await children("e", [search.options(priority="low").prepare("a")]), list[str])
    print(mixed)
    await children("f", [search.prepare(1)])  # type: ignore[arg-type]
    await children("h", ["a"])  # type: ignore[arg-type]
    await children(1, [rank.prepare(1)])  # type: ignore[call-overload]


@app.task
def research_blocking() -> None:
    assert_type(children_sync("a", [rank.prepare(1)]), list[int])
    assert_type(children_sync("b", [rank.prepare(1)], tolerate=1), list[int | None])


@app.task
def blocking(text: str) -> None:
    assert_type(step_sync("count", count, text), int)
    step_sync("count", count, 1)  # type: ignore[arg-type]
    assert_type(wait_for_sync(approval), bool | None)
    assert_type(wait_for_sync(approval, budget, timeout=1), Received[bool] | Received[int] | None)
    sleep_sync("a day", timedelta(days=1))
    assert_type(version_sync("discounts", 2), int)


async def give(job: Job[str | None]) -> None:
    await app.signal(job.id, approval, True)
    await app.signal(job.id, "approval", {"any": "thing"})
    await app.signal(job.id, pages, ["a"])
    await job.signal(approval, False)
    app.signal_sync(job.id, budget, 3)
    job.signal_sync(budget, 3)
    await app.signal(job.id, approval, "yes")  # type: ignore[misc]
    await job.signal(budget, "3")  # type: ignore[misc]
    await app.signal(job, approval, True)  # type: ignore[call-overload]
    await app.signal(job.id, approval)  # type: ignore[call-overload]
    assert_type(app.token(job.id, approval), str)
    await app.redeem("token", True)
    app.redeem_sync("token", True)
