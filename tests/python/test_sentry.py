"""Sentry: what arrives at its transport."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import sentry_sdk
from helpers import SOON_S, drain, eventually, working
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from ardiq import Ardiq, Batch, Retry
from ardiq.sentry import ArdiqIntegration

module = Ardiq("redis://localhost:1", "module")


@module.task(executor="process", max_retries=0)
def in_child() -> str:
    """The trace that it is in."""
    return sentry_sdk.get_traceparent() or ""


class Kept(Transport):
    """Keeps what would be sent."""

    kept: ClassVar[list[dict[str, Any]]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.kept.extend(dict(item.payload.json or {}) for item in envelope.items)


@pytest.fixture
def begin() -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Begins to tell Sentry; ends with the test."""

    def init(**options: Any) -> list[dict[str, Any]]:
        Kept.kept.clear()
        sentry_sdk.init(
            "http://key@localhost/1", transport=Kept, default_integrations=False, traces_sample_rate=1.0,
            integrations=[ArdiqIntegration(**options), LoggingIntegration(level=None)],
        )  # fmt: skip
        return Kept.kept

    yield init
    sentry_sdk.get_client().close()
    sentry_sdk.init(default_integrations=False)


def transactions(kept: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in kept if each.get("type") == "transaction" and each["transaction"] == name]


def errors(kept: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Transaction and class of each."""
    found = [each for each in kept if "exception" in each]
    return [(each["transaction"], each["exception"]["values"][-1]["type"]) for each in found]


async def test_attempts_are_transactions_of_the_trace_that_enqueued(
    app: Ardiq, begin: Callable[..., list[dict[str, Any]]]
) -> None:
    kept = begin()

    @app.task
    async def on_loop() -> None:
        with sentry_sdk.start_span(op="db", name="inside"):
            pass
        await on_thread.enqueue()

    @app.task
    def on_thread() -> None:
        with sentry_sdk.start_span(op="db", name="in a thread"):
            pass

    with sentry_sdk.start_transaction(name="request"):
        job = await on_loop.enqueue()
    async with working(app):
        await eventually(lambda: transactions(kept, "on_thread"))
    [request], [first], [second] = (transactions(kept, name) for name in ("request", "on_loop", "on_thread"))
    [published] = request["spans"]
    assert (published["op"], published["description"]) == ("queue.publish", "on_loop")
    assert published["data"]["messaging.message.id"] == job.id
    assert published["data"]["messaging.destination.name"] == app.queue_name
    of_first, of_second = first["contexts"]["trace"], second["contexts"]["trace"]
    assert of_first["parent_span_id"] == published["span_id"]
    assert (of_first["op"], of_first["status"]) == ("queue.process", "ok")
    assert of_first["data"]["messaging.message.retry.count"] == 0
    assert of_first["data"]["messaging.message.receive.latency"] >= 0
    assert [span["op"] for span in first["spans"]] == ["db", "queue.publish"]
    assert of_second["parent_span_id"] == first["spans"][1]["span_id"]
    assert [span["description"] for span in second["spans"]] == ["in a thread"]
    assert {each["contexts"]["trace"]["trace_id"] for each in (request, first, second)} == {of_first["trace_id"]}


class Frozen(Exception):
    """One that cannot be written to."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize(("capture", "number"), [("dead", 1), ("attempts", 2)])
async def test_what_is_captured(
    app: Ardiq, begin: Callable[..., list[dict[str, Any]]], capture: str, number: int
) -> None:
    kept = begin(capture=capture)

    @app.task(max_retries=1, backoff_ms=1)
    async def on_loop() -> None:
        logging.getLogger("shop").error("before")
        raise ValueError("no")

    @app.task(max_retries=1, backoff_ms=1)
    def on_thread() -> None:
        raise Frozen

    @app.task(max_retries=1)
    async def asks() -> None:
        if len(transactions(kept, "asks")) == 0:
            raise Retry(0)

    for task in (on_loop, on_thread, asks):
        await task.enqueue()
    async with working(app):
        await eventually(lambda: all(len(transactions(kept, each)) == 2 for each in ("on_loop", "on_thread", "asks")))
    assert sorted(errors(kept)) == [("on_loop", "ValueError")] * number + [("on_thread", "Frozen")] * number
    logged = [each for each in kept if each.get("logger") == "shop"]
    assert [each["contexts"]["ardiq"]["attempt"] for each in logged] == ["1", "2"]  # what a task logs knows its task
    assert not [each for each in kept if each.get("logger") == "ardiq"]
    statuses = [each["contexts"]["trace"]["status"] for each in transactions(kept, "asks")]
    assert statuses == ["ok", "ok"]


async def test_a_thread_that_exceeds_its_time_limit(app: Ardiq, begin: Callable[..., list[dict[str, Any]]]) -> None:
    kept, release = begin(), threading.Event()

    @app.task(timeout=0.05, max_retries=0)
    def hangs() -> None:
        release.wait(SOON_S)

    await hangs.enqueue()
    async with working(app):
        await eventually(lambda: transactions(kept, "hangs"))
        release.set()
    assert errors(kept) == [("hangs", "TimedOut")]


async def test_a_child_process_is_in_the_trace(
    make_app: Callable[..., Ardiq], begin: Callable[..., list[dict[str, Any]]]
) -> None:
    kept, app = begin(), make_app()
    app.task(executor="process", max_retries=0)(in_child.fn)
    job = await app.ref("in_child").enqueue()
    async with working(app):
        seen = await job.value(timeout=SOON_S)
        await eventually(lambda: transactions(kept, "in_child"))
    [ran] = transactions(kept, "in_child")
    assert seen.split("-")[0] == ran["contexts"]["trace"]["trace_id"]


async def test_a_batch_is_in_the_trace_of_its_first_item(
    app: Ardiq, begin: Callable[..., list[dict[str, Any]]]
) -> None:
    kept = begin()

    @app.task(batch=Batch(size=2, wait=5))
    async def gather(items: list[int]) -> None:
        sentry_sdk.capture_message(f"{len(items)} items")

    jobs = await app.enqueue_many([gather.prepare(1), gather.prepare(2)])
    async with working(app):
        await eventually(lambda: len(transactions(kept, "gather")) == 2)
    [told] = [each for each in kept if each.get("message") == "2 items"]
    assert told["contexts"]["ardiq"]["task_id"] in {job.id for job in jobs}


async def test_without_a_client_nothing_is_told(app: Ardiq, begin: Callable[..., list[dict[str, Any]]]) -> None:
    begin()
    sentry_sdk.init(default_integrations=False)

    @app.task
    async def work() -> None: ...

    job = await work.enqueue()
    await drain(app)
    assert await job.status() == "complete"
    assert Kept.kept == []
