"""OpenTelemetry: spans and metrics of enqueues and attempts (`pip install "ardiq[otel]"`)."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from .. import _core, instruments
from ..context import current_task
from ..instruments import Attempt, Enqueuing, Instrument, Outcome, Sending, Sent
from ._meters import Meters

__all__ = ["ArdiqInstrumentor"]

SENT_MS, PARENT = "ardiq-sent-ms", "ardiq-parent"
"""Headers beside those of the propagators: when the task was sent, in ms since the epoch; which task sent it."""

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_LENGTH = 55  # of a `traceparent`
_DROPS = ("remoteParentNotSampled:AlwaysOffSampler", "localParentNotSampled:AlwaysOffSampler")

Propagation: TypeAlias = Literal["auto", "parent", "link"]
Attributes: TypeAlias = dict[str, str | int | float]


class ArdiqInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Traces all apps of this process. `opentelemetry-instrument ardiq run …` calls it by itself.

    Example:
        ```python
        ArdiqInstrumentor().instrument(tracer_provider=provider)
        ```
    """

    _told: "_Instrument | None" = None

    def instrument(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagation: Propagation = "auto",
        link_after: float = 900.0,
        create_spans: int = 100,
        **kwargs: Any,
    ) -> None:
        """Begin, before workers start.

        Args:
            tracer_provider: gets the spans; None: the global one.
            meter_provider: gets the metrics; None: there are none.
            propagation: what the span of an attempt makes of the one that sent its task: "parent" continues that trace,
                "link" begins a trace that links to it, "auto" does the first within `link_after`, then the second.
            link_after: how many seconds after it was sent.
            create_spans: up to how many calls of one `enqueue_many`, or nodes of a workflow, have spans of their own.
            kwargs: those of every instrumentor.

        Raises:
            ValueError: an option has an invalid value.
        """
        if propagation not in ("auto", "parent", "link"):
            raise ValueError(f"propagation must be 'auto', 'parent' or 'link', not {propagation!r}")
        own = {"propagation": propagation, "link_after": link_after, "create_spans": create_spans}
        providers = {"tracer_provider": tracer_provider, "meter_provider": meter_provider}
        super().instrument(**providers, **own, **kwargs)

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed besides: nothing."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        names = ("tracer_provider", "meter_provider", "propagation", "link_after", "create_spans")
        self._told = _Instrument(*(kwargs[name] for name in names))
        instruments.add(self._told)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._told is not None:
            instruments.remove(self._told)
            self._told = None


class _State(NamedTuple):
    """What is known of an attempt: its span, if it records, and its context."""

    span: Span | None
    context: Context


class _Instrument(Instrument):
    enter = f"{__name__}:enter"

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        propagation: Propagation,
        link_after: float,
        create_spans: int,
    ) -> None:
        self._provider = tracer_provider
        self._tracer: Tracer = trace.get_tracer(__name__, _core.VERSION, tracer_provider, _SCHEMA)
        self._meters = None if meter_provider is None else Meters(meter_provider, __name__, _core.VERSION, _SCHEMA)
        self._link_after_s = {"auto": link_after, "parent": float("inf"), "link": -1.0}[propagation]
        self._create_spans = create_spans
        self._sampler: Any = None
        self._drops = False

    def sending(self, sending: Sending) -> Sent | None:
        began, here = time.perf_counter(), contexts.get_current()
        span: Span | None = None
        if self._is_dropped(here):
            for call in sending.calls:
                _put(call, here)
        elif sending.kind == "one":
            span = self._begin(sending, sending.calls[0], here)
        else:
            span = self._begin_many(sending, here)
        if self._meters is None and span is None:
            return None

        def sent(answers: Sequence[str], error: BaseException | None) -> None:
            if self._meters is not None:
                self._meters.sent(sending, time.perf_counter() - began, error_type(error))
            if span is not None:
                if sending.kind == "one" and answers and error is None:
                    span.set_attribute("ardiq.enqueue.answer", answers[0])
                _end(span, error)

        return sent

    def _begin(self, sending: Sending, call: Enqueuing, here: Context, operation: str = "enqueue") -> Span:
        """The span of a call, from which its attempts continue."""
        attributes = _of_call(sending, call, operation)
        span = self._tracer.start_span(f"{operation} {call.name}", here, SpanKind.PRODUCER, attributes)
        _put(call, trace.set_span_in_context(span, here))
        return span

    def _begin_many(self, sending: Sending, here: Context) -> Span | None:
        """The span of many calls; if they are few, each has one besides, and parts of something have these alone."""
        links: list[Link] = []
        has_own = len(sending.calls) <= self._create_spans
        for call in sending.calls if has_own else ():
            created = self._begin(sending, call, here, "create")
            created.end()
            links.append(Link(created.get_span_context()))
        if has_own and sending.kind == "part":
            return None
        operation = "create" if sending.kind == "part" else "enqueue"
        attributes = _of_queue(sending.queue, sending.url) | {
            "messaging.operation.name": operation,
            "messaging.operation.type": _type_of(operation),
            "messaging.batch.message_count": len(sending.calls),
        }
        kind = SpanKind.CLIENT if has_own else SpanKind.PRODUCER
        span = self._tracer.start_span(f"{operation} {sending.queue}", here, kind, attributes, links)
        for call in () if has_own else sending.calls:
            _put(call, trace.set_span_in_context(span, here))
        return span

    def started(self, attempt: Attempt) -> _State:
        if self._meters is not None:
            self._meters.started(attempt)
        sent_from = _unsampled(attempt.headers) or propagate.extract(attempt.headers, Context())
        creator = trace.get_current_span(sent_from).get_span_context()
        is_parent = _age_s(attempt.headers) <= self._link_after_s
        if is_parent and self._is_dropped(sent_from):
            contexts.attach(sent_from)
            return _State(None, sent_from)
        around = sent_from if is_parent else trace.set_span_in_context(trace.INVALID_SPAN, sent_from)
        links = [] if is_parent or not creator.is_valid else [Link(creator)]
        attributes = _of_attempt(attempt)
        span = self._tracer.start_span(f"process {attempt.name}", around, SpanKind.CONSUMER, attributes, links)
        inside = trace.set_span_in_context(span, sent_from)
        contexts.attach(inside)  # of the attempt alone, with which it goes
        return _State(span, inside)

    def ended(self, attempt: Attempt, state: _State, outcome: Outcome) -> None:
        span, error = state.span, outcome.error if _is_failure(outcome) else None
        if self._meters is not None:
            self._meters.ended(attempt, outcome, error_type(error))
        if span is not None:
            span.set_attribute("ardiq.outcome", outcome.word)
            if outcome.delay_ms is not None:
                span.set_attribute("ardiq.retry.delay_ms", outcome.delay_ms)
            _end(span, error)

    def slots(self, queue: str, change: int) -> None:
        if self._meters is not None:
            self._meters.slots(queue, change)

    def carried(self, state: _State) -> dict[str, str]:
        fields: dict[str, str] = {}
        propagate.inject(fields, state.context)
        return fields

    def _is_dropped(self, context: Context) -> bool:
        """Whether no span will be recorded under this context, so that none needs to be made."""
        above = trace.get_current_span(context).get_span_context()
        if not above.is_valid or above.trace_flags.sampled:
            return False
        sampler = getattr(self._provider or trace.get_tracer_provider(), "sampler", None)
        if sampler is not self._sampler:
            self._sampler = sampler
            described = "" if sampler is None else sampler.get_description()
            self._drops = all(each in described for each in _DROPS)
        return self._drops


def enter(fields: dict[str, str]) -> None:
    """Where a child process runs an attempt: be inside of its span."""
    instrumentor = ArdiqInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:  # so that what is enqueued here has a parent
        instrumentor.instrument()
    contexts.attach(propagate.extract(fields, Context()))


def error_type(error: BaseException | None) -> str:
    """The qualified name of an exception's class; empty without one."""
    if error is None:
        return ""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_failure(outcome: Outcome) -> bool:
    return outcome.word in ("failed", "unknown") or (outcome.word == "retry" and not outcome.asked)


def _end(span: Span, error: BaseException | None) -> None:
    """End it, with what was raised."""
    try:
        if error is not None:
            span.set_attribute("error.type", error_type(error))
            span.set_status(Status(StatusCode.ERROR))
            span.record_exception(error)  # raises if `str(error)` does
            span.set_status(Status(StatusCode.ERROR, str(error)))
    finally:
        span.end()


def _put(call: Enqueuing, context: Context) -> None:
    """Let the headers of a call tell where it comes from."""
    propagate.inject(call.headers, context)
    call.headers[SENT_MS] = int(time.time() * 1000)
    if (task := current_task()) is not None:
        call.headers[PARENT] = task.task_id


def _unsampled(headers: Mapping[str, Any]) -> Context | None:
    """The context of headers that name an unsampled trace and nothing else, which most do where few are sampled: the
    propagators take several times as long to tell.
    """
    parent = headers.get("traceparent")
    if not isinstance(parent, str) or len(parent) != _LENGTH or parent[-2:] not in ("00", "02"):
        return None
    if "baggage" in headers or "tracestate" in headers:
        return None
    try:
        flags = TraceFlags(int(parent[53:], 16))
        above = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), is_remote=True, trace_flags=flags)
    except ValueError:
        return None
    return trace.set_span_in_context(NonRecordingSpan(above), Context()) if above.is_valid else None


def _age_s(headers: Mapping[str, Any]) -> float:
    sent_ms = headers.get(SENT_MS)
    return time.time() - sent_ms / 1000 if isinstance(sent_ms, int | float) else 0.0


@lru_cache(maxsize=1000)
def _server(url: str) -> tuple[tuple[str, str | int], ...]:
    """Where the server is, of several the first."""
    scheme, _, rest = url.partition("://")
    if scheme.endswith("unix"):
        return (("server.address", rest.partition("?")[0]),)
    try:
        place = urlsplit(f"redis://{rest.rpartition('@')[2].partition(',')[0]}")
        found: list[tuple[str, str | int]] = [("server.address", place.hostname)] if place.hostname else []
        return (*found, ("server.port", place.port or 6379)) if found else ()
    except ValueError:
        return ()


def _type_of(operation: str) -> str:
    return "create" if operation == "create" else "send"


def _of_queue(queue: str, url: str) -> Attributes:
    return {"messaging.system": "ardiq", "messaging.destination.name": queue, **dict(_server(url))}


def _of_call(sending: Sending, call: Enqueuing, operation: str) -> Attributes:
    attributes = _of_queue(sending.queue, sending.url) | {
        "messaging.operation.name": operation,
        "messaging.operation.type": _type_of(operation),
        "messaging.message.id": call.task_id,
        "ardiq.task.name": call.name,
        "ardiq.delay_ms": call.delay_ms,
    }
    return attributes | ({"ardiq.lane": call.lane} if call.lane else {})


def _of_attempt(attempt: Attempt) -> Attributes:
    attributes = _of_queue(attempt.queue, attempt.url) | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": attempt.task_id,
        "messaging.client.id": attempt.worker,
        "ardiq.task.name": attempt.name,
        "ardiq.lane": attempt.lane,
        "ardiq.attempt": attempt.tries,
        "ardiq.executor": attempt.executor,
    }
    if attempt.wait_s is not None:
        attributes["ardiq.wait_ms"] = max(0, int(attempt.wait_s * 1000))
    if attempt.schedule:
        attributes["ardiq.schedule.name"] = attempt.schedule
    return attributes
