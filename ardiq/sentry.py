"""Sentry: an event for what fails for good, transactions for attempts (`pip install "ardiq[sentry]"`)."""

from collections.abc import Sequence
from logging import LogRecord
from typing import Any, Literal, NamedTuple

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.scope import Scope, add_global_event_processor, use_isolation_scope, use_scope
from sentry_sdk.tracing import NoOpSpan, Span, Transaction
from sentry_sdk.utils import event_from_exception

from . import instruments
from .instruments import Attempt, Instrument, Outcome, Sending, Sent

__all__ = ["ArdiqIntegration"]

_TRACE = "sentry-trace"
_ORIGIN = "auto.queue.ardiq"
# Of an exception that was captured, so that the log line about it is no second event.
_CAPTURED = "__captured_by_ardiq__"


class ArdiqIntegration(Integration):
    """Tells Sentry of the tasks of all apps in this process: errors, and with `traces_sample_rate` its Queues view.

    Args:
        capture: "dead": an attempt that fails is an event if its task does not run again; "attempts": each one is. A
            `Retry` or a `Snooze` never is.

    Raises:
        ValueError: `capture` is something else.

    Example:
        ```python
        sentry_sdk.init(dsn, integrations=[ArdiqIntegration()])
        ```
    """

    identifier = "ardiq"
    origin = _ORIGIN

    def __init__(self, capture: Literal["dead", "attempts"] = "dead") -> None:
        if capture not in ("dead", "attempts"):
            raise ValueError(f"capture must be 'dead' or 'attempts', not {capture!r}")
        self.capture = capture

    @staticmethod
    def setup_once() -> None:
        """Begin; Sentry calls it once a process."""
        instruments.add(_Instrument())
        add_global_event_processor(_without_repeats)


class _State(NamedTuple):
    """What belongs to an attempt, and to no other."""

    transaction: Transaction | NoOpSpan
    isolation: Scope
    current: Scope
    about: dict[str, str]


class _Instrument(Instrument):
    enter = f"{__name__}:enter"

    def sending(self, sending: Sending) -> Sent | None:
        if _integration() is None:
            return None
        above, span = sentry_sdk.get_current_span(), None
        if above is not None:
            one = sending.calls[0] if len(sending.calls) == 1 else None
            span = above.start_child(op="queue.publish", name=one.name if one else sending.queue, origin=_ORIGIN)
            _describe(span, sending.queue)
            if one is not None:
                span.set_data("messaging.message.id", one.task_id)
        headers = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers(span=span))
        for call in sending.calls:
            others = [call.headers["baggage"]] if call.headers.get("baggage") else []
            call.headers.update(headers)
            if baggage := [*others, *([headers["baggage"]] if headers.get("baggage") else [])]:
                call.headers["baggage"] = ",".join(baggage)
        if span is None:
            return None
        open_span: Span = span

        def sent(answers: Sequence[str], error: BaseException | None) -> None:
            open_span.set_status("ok" if error is None else "internal_error")
            open_span.finish()

        return sent

    def started(self, attempt: Attempt) -> _State | None:
        if _integration() is None:
            return None
        about = {
            "task": attempt.name, "task_id": attempt.task_id, "attempt": str(attempt.tries), "queue": attempt.queue,
            "lane": attempt.lane, "worker": attempt.worker, "schedule": attempt.schedule,
        }  # fmt: skip
        isolation, current = _own_scopes(about)
        headers = {name: value for name, value in attempt.headers.items() if isinstance(value, str)}
        continued = sentry_sdk.continue_trace(headers, "queue.process", attempt.name, "task", _ORIGIN)
        transaction = sentry_sdk.start_transaction(continued)
        transaction.__enter__()
        _describe(transaction, attempt.queue)
        transaction.set_data("messaging.message.id", attempt.task_id)
        transaction.set_data("messaging.message.retry.count", attempt.tries - 1)
        if attempt.wait_s is not None:
            transaction.set_data("messaging.message.receive.latency", attempt.wait_s * 1000)
        return _State(transaction, isolation, current, about)

    def ended(self, attempt: Attempt, state: _State | None, outcome: Outcome) -> None:
        integration = _integration()
        if state is None or integration is None:
            return
        is_dead = outcome.word == "failed"
        is_failure = is_dead or (outcome.word == "retry" and not outcome.asked)
        with use_isolation_scope(state.isolation), use_scope(state.current):
            if outcome.error is not None and (is_dead or (is_failure and integration.capture == "attempts")):
                _capture(outcome.error)
            status = {"complete": "ok", "aborted": "aborted", "release": "aborted"}.get(outcome.word, "ok")
            state.transaction.set_status("internal_error" if is_failure else status)
            state.transaction.set_tag("ardiq.outcome", outcome.word)
            state.transaction.__exit__(None, None, None)

    def carried(self, state: _State | None) -> dict[str, str] | None:
        if state is None:
            return None
        return {**state.about, _TRACE: state.transaction.to_traceparent()}


def enter(fields: dict[str, str]) -> None:
    """Where a child process runs an attempt: what is captured belongs to its trace."""
    parent = fields.pop(_TRACE)
    _own_scopes(fields)
    sentry_sdk.continue_trace({_TRACE: parent})


def _own_scopes(about: dict[str, str]) -> tuple[Scope, Scope]:
    """Scopes of this context alone, whose events say what they are about."""
    isolation, current = Scope.get_isolation_scope().fork(), Scope.get_current_scope().fork()
    Scope.set_isolation_scope(isolation)
    Scope.set_current_scope(current)
    isolation.clear_breadcrumbs()
    isolation.set_context("ardiq", dict(about))
    return isolation, current


def _integration() -> ArdiqIntegration | None:
    """That of the client that is in use."""
    return sentry_sdk.get_client().get_integration(ArdiqIntegration)


def _describe(span: "Span | NoOpSpan", queue: str) -> None:
    span.set_data("messaging.system", "ardiq")
    span.set_data("messaging.destination.name", queue)


def _capture(error: BaseException) -> None:
    event, hint = event_from_exception(
        error,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": "ardiq", "handled": False},
    )
    sentry_sdk.capture_event(event, hint=hint)
    vars(error)[_CAPTURED] = True  # some exceptions are frozen


def _without_repeats(event: Any, hint: dict[str, Any]) -> Any:
    """No event of Ardiq's log line about an exception that was captured."""
    record, raised = hint.get("log_record"), hint.get("exc_info")
    is_ours = isinstance(record, LogRecord) and record.name == "ardiq"
    return None if is_ours and raised and getattr(raised[1], _CAPTURED, False) else event
