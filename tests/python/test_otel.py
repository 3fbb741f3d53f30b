"""OpenTelemetry: the spans of enqueue → run → retry → child, wherever a task runs, and the metrics."""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, Script, drain, eventually, is_state, working
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from ardiq import Ardiq, Batch, BrokerError, Retry, Snooze, current_task
from ardiq.otel import PARENT, SENT_MS, ArdiqInstrumentor

DOCS = Path(__file__).parents[2] / "docs/tracing.md"
module = Ardiq("redis://localhost:1", "module")


@module.task(executor="process", max_retries=1, backoff_ms=1)
def in_child() -> list[str]:
    """Fails once, and enqueues another task, of its own queue."""
    task = current_task()
    assert task is not None
    if task.tries == 1:
        raise ValueError("not yet")
    module.queue(task.queue).ref("leaf").enqueue_sync()
    here = trace.get_current_span().get_span_context()
    return [f"{here.trace_id:032x}", f"{here.span_id:016x}"]


class Traces:
    """The spans of one provider."""

    def __init__(self, sampler: Any = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order in which they began."""
        found = [span for span in self.all if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


def id_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def of(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


@pytest.fixture
def instrument() -> Iterator[Callable[..., Traces]]:
    """Begins to trace; ends with the test."""

    def begin(sampler: Any = ALWAYS_ON, **options: Any) -> Traces:
        traces = Traces(sampler)
        ArdiqInstrumentor().instrument(tracer_provider=traces.provider, **options)
        return traces

    yield begin
    ArdiqInstrumentor().uninstrument()


async def test_enqueue_run_retry_child_on_loop_thread_and_process(
    make_app: Callable[..., Ardiq], instrument: Callable[..., Traces]
) -> None:
    traces, app = instrument(), make_app()

    def fail_once() -> None:
        task = current_task()
        if task is not None and task.tries == 1:
            raise ValueError("not yet")

    @app.task(max_retries=1, backoff_ms=1)
    async def on_loop() -> None:
        fail_once()
        await on_thread.enqueue()

    @app.task(max_retries=1, backoff_ms=1)
    def on_thread() -> None:
        fail_once()
        app.ref("in_child").enqueue_sync()

    @app.task
    async def leaf() -> None: ...

    app.task(executor="process", max_retries=1, backoff_ms=1)(in_child.fn)
    job = await on_loop.enqueue()
    async with working(app):
        await eventually(lambda: traces.named("process leaf"))
    above = None
    for name, executor in (("on_loop", "loop"), ("on_thread", "thread"), ("in_child", "process")):
        sent = traces.one(f"enqueue {name}")
        first, second = traces.named(f"process {name}")
        assert parent_of(sent) == above
        assert parent_of(first) == parent_of(second) == id_of(sent)  # siblings
        assert [of(first, "ardiq.outcome"), of(second, "ardiq.outcome")] == ["retry", "complete"]
        assert [of(first, "ardiq.attempt"), of(second, "ardiq.attempt")] == [1, 2]
        assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
        assert (of(first, "error.type"), first.status.description) == ("ValueError", "not yet")
        assert of(first, "ardiq.retry.delay_ms") == 1
        assert [event.name for event in first.events] == ["exception"]
        assert of(first, "ardiq.executor") == of(second, "ardiq.executor") == executor
        assert of(sent, "messaging.message.id") == of(first, "messaging.message.id")
        assert of(sent, "ardiq.enqueue.answer") == "queued"
        assert (sent.kind, first.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        above = id_of(second)
    assert parent_of(traces.one("process leaf")) == above  # the child has no exporter of its own
    assert len({id_of(span)[0] for span in traces.all}) == 1
    assert of(traces.one("enqueue on_loop"), "messaging.message.id") == job.id


async def test_a_child_process_is_inside_the_span(
    make_app: Callable[..., Ardiq], instrument: Callable[..., Traces]
) -> None:
    traces = instrument()
    app = make_app()
    app.task(executor="process", max_retries=1, backoff_ms=1)(in_child.fn)

    @app.task
    async def leaf() -> None: ...

    job = await app.ref("in_child").enqueue()
    async with working(app):
        seen = await job.value(timeout=SOON_S)
        await eventually(lambda: traces.named("process leaf"))
    _, ran = traces.named("process in_child")
    assert tuple(int(each, 16) for each in seen) == id_of(ran)
    assert of(ran, "ardiq.executor") == "process"
    assert parent_of(ran) == id_of(traces.one("enqueue in_child"))
    assert parent_of(traces.one("process leaf")) == id_of(ran)


@pytest.mark.parametrize("number", [1, 100, 101])
async def test_a_batch_is_sent_once(app: Ardiq, instrument: Callable[..., Traces], number: int) -> None:
    traces = instrument()

    @app.task
    async def work(number: int) -> None: ...

    await app.enqueue_many(work.prepare(each) for each in range(number))
    sent = traces.one(f"enqueue {app.queue_name}")
    created = traces.named("create work")
    assert of(sent, "messaging.batch.message_count") == number
    assert of(sent, "messaging.operation.type") == "send"
    await drain(app)
    ran = traces.named("process work")
    assert len(ran) == number
    if number > 100:
        assert (sent.kind, created, list(sent.links)) == (SpanKind.PRODUCER, [], [])
        assert {parent_of(each) for each in ran} == {id_of(sent)}
    else:
        assert sent.kind is SpanKind.CLIENT
        assert {of(each, "messaging.operation.type") for each in created} == {"create"}
        ids = [id_of(each) for each in created]
        assert [(link.context.trace_id, link.context.span_id) for link in sent.links] == ids
        assert sorted(str(parent_of(each)) for each in ran) == sorted(map(str, ids))


async def test_what_starts_long_after_it_was_sent_links(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument(link_after=0.2)

    @app.task
    async def work(when: str) -> None: ...

    await work.enqueue("now")
    await drain(app)
    await work.options(delay=0.4).enqueue("later")
    await asyncio.sleep(0.45)
    await drain(app)
    early, late = traces.named("process work")
    assert parent_of(early) == id_of(traces.named("enqueue work")[0])
    assert parent_of(late) is None
    assert [(link.context.trace_id, link.context.span_id) for link in late.links] == [
        id_of(traces.named("enqueue work")[1])
    ]
    assert id_of(late)[0] not in {id_of(span)[0] for span in traces.named("enqueue work")}
    assert of(traces.named("enqueue work")[1], "ardiq.delay_ms") == 400


@pytest.mark.parametrize(("propagation", "is_parent"), [("parent", True), ("link", False)])
async def test_always_parent_or_link(
    app: Ardiq, instrument: Callable[..., Traces], propagation: str, is_parent: bool
) -> None:
    traces = instrument(propagation=propagation, link_after=0.0)

    @app.task
    async def work() -> None: ...

    await work.enqueue()
    await drain(app)
    ran = traces.one("process work")
    assert (parent_of(ran) == id_of(traces.one("enqueue work"))) is is_parent
    assert len(ran.links) == (0 if is_parent else 1)


async def test_a_replay_is_another_attempt_of_the_same_send(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()

    @app.task(max_retries=0)
    async def work() -> None:
        if len(traces.named("process work")) == 0:
            raise ValueError("once")

    job = await work.enqueue()
    await drain(app)
    await app.dead.requeue(job.id)
    await drain(app)
    failed, replayed = traces.named("process work")
    assert parent_of(failed) == parent_of(replayed) == id_of(traces.one("enqueue work"))
    assert [of(each, "ardiq.outcome") for each in (failed, replayed)] == ["failed", "complete"]


async def test_an_occurrence_of_a_schedule_is_a_root(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()

    @app.on_enqueue
    def tag(call: Any) -> None:
        call.headers["tag"] = "of a hook"

    @app.cron("* * * * * *")
    async def tick() -> None: ...

    async with working(app):
        await eventually(lambda: traces.named("process tick"))
    assert {span.name for span in traces.all} == {"process tick"}
    ran = traces.named("process tick")[0]
    assert parent_of(ran) is None
    assert of(ran, "ardiq.schedule.name") == "tick"


async def test_what_is_not_sampled_makes_no_spans(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    class Counting(ParentBased):
        """Counts how often it is asked."""

        asked = 0

        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            Counting.asked += 1
            return super().should_sample(*args, **kwargs)

    traces = instrument(Counting(ALWAYS_OFF))
    seen: list[trace.SpanContext] = []

    @app.task
    async def work() -> None:
        seen.append(trace.get_current_span().get_span_context())

    with trace.use_span(traces.provider.get_tracer("test").start_span("request")) as above:
        await work.enqueue()
        await app.enqueue_many([work.prepare()])
    await drain(app)
    assert traces.all == []
    assert Counting.asked == 1, "for the request: no span is made that would not be recorded"
    assert [(each.trace_id, each.trace_flags.sampled) for each in seen] == [
        (above.get_span_context().trace_id, False)
    ] * 2


async def test_outcomes_that_are_no_failures(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()

    @app.task
    async def asks() -> None:
        if len(traces.named("process asks")) == 0:
            raise Retry(0)
        if len(traces.named("process asks")) == 1:
            raise Snooze(0)

    @app.task
    async def waits() -> None:
        await asyncio.sleep(SOON_S)

    @app.task(executor="thread")
    def holds() -> None:
        released.wait(SOON_S)

    released = threading.Event()
    await asks.enqueue()
    aborted = [await waits.enqueue(), await holds.enqueue()]
    async with working(app):
        for job in aborted:
            await eventually(lambda job=job: is_state(app, job.id, "running"))
            await job.abort()
        await eventually(lambda: len(traces.named("process asks")) == 3)
        await eventually(lambda: traces.named("process waits") and traces.named("process holds"))
        released.set()
    ran = [*traces.named("process asks"), traces.one("process waits"), traces.one("process holds")]
    assert [of(each, "ardiq.outcome") for each in ran] == ["retry", "snooze", "complete", "aborted", "aborted"]
    assert {each.status.status_code for each in ran} == {StatusCode.UNSET}
    assert not any(each.events for each in ran)


async def test_a_batch_s_function_runs_in_the_span_of_its_first_item(
    app: Ardiq, instrument: Callable[..., Traces]
) -> None:
    traces = instrument()

    @app.task(batch=Batch(size=3, wait=5))
    async def gather(items: list[int]) -> None:
        await leaf.enqueue()

    @app.task
    async def leaf() -> None: ...

    await app.enqueue_many(gather.prepare(each) for each in range(3))
    async with working(app):
        await eventually(lambda: traces.named("process leaf"))
    items = traces.named("process gather")
    assert len(items) == 3
    assert parent_of(traces.one("enqueue leaf")) in {id_of(each) for each in items}


async def test_a_workflow_s_nodes_are_of_the_trace_that_starts_it(
    app: Ardiq, instrument: Callable[..., Traces]
) -> None:
    from ardiq import chain

    traces = instrument()

    @app.task
    async def one() -> int:
        return 1

    @app.task
    async def two(number: int) -> int:
        return number

    with traces.provider.get_tracer("test").start_as_current_span("request") as request:
        await chain(one.prepare()).then(two).start()
    await drain(app)
    assert {id_of(span)[0] for span in traces.all} == {request.get_span_context().trace_id}
    for name in ("one", "two"):
        assert parent_of(traces.one(f"process {name}")) == id_of(traces.one(f"create {name}"))


async def test_a_workflow_of_many_nodes_has_one_span(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    from ardiq import group

    traces = instrument(create_spans=2)

    @app.task
    async def work(number: int) -> None: ...

    await group(*[work.prepare(each) for each in range(3)]).start()
    await drain(app)
    created = traces.one(f"create {app.queue_name}")
    assert (created.kind, of(created, "messaging.operation.type")) == (SpanKind.PRODUCER, "create")
    assert of(created, "messaging.batch.message_count") == 3
    assert [parent_of(each) for each in traces.named("process work")] == [id_of(created)] * 3
    assert len(traces.all) == 4


async def test_nothing_that_is_sent_has_no_span(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()
    assert await app.enqueue_many([]) == app.enqueue_many_sync([]) == []
    assert traces.all == []


async def test_an_exception_that_cannot_be_shown_ends_the_span(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()

    class Mute(Exception):
        def __str__(self) -> str:
            raise TypeError("no text")

    @app.task(max_retries=0)
    async def work() -> None:
        raise Mute

    await work.enqueue()
    await drain(app)
    ran = traces.one("process work")
    assert ran.status.status_code is StatusCode.ERROR
    assert str(of(ran, "error.type")).endswith("Mute")


async def test_headers_and_baggage_travel(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()
    headers: list[dict[str, Any]] = []

    @app.on_enqueue
    def look(call: Any) -> None:
        headers.append(dict(call.headers))

    @app.task
    async def work() -> Any:
        if len(headers) == 1:
            await work.enqueue()
        return baggage.get_baggage("tenant")

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        job = await work.enqueue()
    finally:
        context.detach(token)
    await drain(app)
    assert await job.value() == "acme"
    sent = traces.named("enqueue work")[0]
    assert headers[0]["traceparent"][:-3] == "00-{:032x}-{:016x}".format(*id_of(sent))
    assert headers[0]["baggage"] == "tenant=acme"
    assert abs(headers[0][SENT_MS] / 1000 - time.time()) < SOON_S
    assert PARENT not in headers[0]
    assert headers[1][PARENT] == job.id


@pytest.mark.parametrize(
    "options",
    [
        {"signing_key": "of at least 16 bytes"},
        {"serializer": lambda value: repr(value).encode(), "deserializer": lambda data: eval(data)},
    ],
)
async def test_headers_that_are_signed_or_of_a_serializer(
    make_app: Callable[..., Ardiq], instrument: Callable[..., Traces], options: dict[str, Any]
) -> None:
    traces, app = instrument(), make_app(**options)

    @app.task
    def work() -> None: ...

    await work.enqueue()
    await app.enqueue_many([work.prepare()])
    await drain(app)
    first, second = traces.named("process work")
    sent = id_of(traces.one("enqueue work")), id_of(traces.one("create work"))
    assert {parent_of(first), parent_of(second)} == set(sent)
    assert {of(each, "ardiq.outcome") for each in (first, second)} == {"complete"}


async def test_a_worker_that_runs_inside_a_span_keeps_that_to_itself(
    app: Ardiq, instrument: Callable[..., Traces]
) -> None:
    traces = instrument()

    @app.cron("* * * * * *")
    async def tick() -> None: ...

    with traces.provider.get_tracer("test").start_as_current_span("program"):
        async with working(app):
            await eventually(lambda: traces.named("process tick"))
    assert parent_of(traces.named("process tick")[0]) is None


async def test_inline_tests_make_the_same_spans(instrument: Callable[..., Traces]) -> None:
    from ardiq.testing import inline

    traces, app = instrument(), Ardiq()

    @app.task
    def work() -> None: ...

    async with inline(app):
        await work.enqueue()
    assert parent_of(traces.one("process work")) == id_of(traces.one("enqueue work"))


async def test_an_attempt_whose_worker_dies_has_no_span(
    make_app: Callable[..., Ardiq], run_script: Callable[..., Script], instrument: Callable[..., Traces]
) -> None:
    traces, app = instrument(), make_app(idle_timeout_ms=500)

    @app.task
    async def work() -> None: ...

    job = await work.enqueue()
    script = run_script(
        f"""
        import asyncio, time
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
        from ardiq import Ardiq
        from ardiq.otel import ArdiqInstrumentor

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        ArdiqInstrumentor().instrument(tracer_provider=provider)
        app = Ardiq({app.redis_url!r}, {app.queue_name!r}, idle_timeout_ms=500)

        @app.task
        def work():
            print(trace.get_current_span().get_span_context().trace_id, flush=True)
            time.sleep(600)

        asyncio.run(app.run())
        """
    )
    assert int(script.line()) == id_of(traces.one("enqueue work"))[0]
    script.signal(signal.SIGKILL)
    _, printed, _ = script.end()
    assert "process work" not in printed
    async with working(app):
        assert await job.result(timeout=SOON_S)
    ran = traces.one("process work")
    assert parent_of(ran) == id_of(traces.one("enqueue work"))
    assert of(ran, "ardiq.outcome") == "complete"


async def test_an_enqueue_that_fails(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    traces = instrument()
    away = Ardiq("redis://localhost:1", broker_timeout_ms=50)

    @away.task
    async def work() -> None: ...

    with pytest.raises(Exception, match="localhost:1"):
        await work.enqueue()
    sent = traces.one("enqueue work")
    assert sent.status.status_code is StatusCode.ERROR
    assert of(sent, "error.type") == "ardiq.errors.BrokerError"
    assert (of(sent, "server.address"), of(sent, "server.port")) == ("localhost", 1)


async def test_metrics(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    reader = InMemoryMetricReader()
    instrument(meter_provider=MeterProvider([reader]))

    @app.task(max_retries=1, backoff_ms=1)
    async def work(fails: bool) -> None:
        if fails:
            raise ValueError("no")

    await work.enqueue(True)
    await app.enqueue_many([work.prepare(False)] * 3)
    async with working(app):
        await eventually(lambda: counted(reader, "ardiq.attempts") == 5)
        assert counted(reader, "ardiq.worker.slots") == app.concurrency
    assert counted(reader, "ardiq.worker.slots") == 0
    assert counted(reader, "messaging.client.sent.messages") == 4
    assert counted(reader, "messaging.client.consumed.messages") == 5
    assert counted(reader, "ardiq.attempts", "ardiq.outcome", "failed") == 1
    assert counted(reader, "ardiq.attempts", "error.type", "ValueError") == 2
    assert counted(reader, "messaging.process.duration") == 5
    assert counted(reader, "ardiq.task.wait.duration") == 4
    assert counted(reader, "messaging.client.operation.duration") == 2
    assert counted(reader, "ardiq.worker.in_flight") == 0


def points(reader: InMemoryMetricReader) -> Iterator[tuple[str, str, Any]]:
    """Name, unit and data point of each."""
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    yield metric.name, metric.unit, point


def counted(reader: InMemoryMetricReader, name: str, attribute: str = "", value: str = "") -> int:
    """The sum of a counter, or how much a histogram has observed."""
    found = [point for each, _, point in points(reader) if each == name]
    chosen = [point for point in found if not attribute or point.attributes.get(attribute) == value]
    return sum(point.count if hasattr(point, "count") else point.value for point in chosen)


async def test_names_are_those_of_the_guide(app: Ardiq, instrument: Callable[..., Traces]) -> None:
    reader = InMemoryMetricReader()
    traces = instrument(meter_provider=MeterProvider([reader]))

    @app.cron("* * * * * *")
    async def tick() -> None: ...

    @app.task(max_retries=1, backoff_ms=1)
    async def work() -> None:
        raise ValueError("no")

    await work.enqueue()
    await app.enqueue_many([work.prepare()])
    with pytest.raises(BrokerError):
        await Ardiq("redis://localhost:1", broker_timeout_ms=50).ref("elsewhere").enqueue()
    async with working(app):
        await eventually(lambda: traces.named("process tick"))
        await eventually(lambda: len(traces.named("process work")) == 4)
    told = set(re.findall(r"^\| `([a-z_.]+)`", DOCS.read_text(), re.MULTILINE))
    assert {name for span in traces.all for name in span.attributes or {}} | {
        name for name, _, _ in points(reader)
    } == told
