"""Metrics of enqueues and attempts, by OpenTelemetry's conventions for messaging where those have them."""

from collections import Counter

from opentelemetry.metrics import Histogram, MeterProvider, get_meter

from ..instruments import Attempt, Outcome, Sending

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300)


class Meters:
    """Counters and histograms of one meter provider."""

    def __init__(self, provider: MeterProvider, name: str, version: str, schema: str) -> None:
        meter = get_meter(name, version, provider, schema)

        def seconds(name: str, what: str) -> Histogram:
            return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=_BUCKETS_S)

        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Tasks that were sent to the server."
        )
        self._sending = seconds("messaging.client.operation.duration", "How long sending took.")
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Attempts that a worker has begun."
        )
        self._run = seconds("messaging.process.duration", "How long attempts ran.")
        self._wait = seconds("ardiq.task.wait.duration", "How long tasks were ready before their first attempt.")
        self._attempts = meter.create_counter("ardiq.attempts", "{attempt}", "Attempts that ended, by outcome.")
        self._in_flight = meter.create_up_down_counter("ardiq.worker.in_flight", "{task}", "Tasks that run.")

        self._slots = meter.create_up_down_counter("ardiq.worker.slots", "{task}", "Tasks that may run at once.")

    def slots(self, queue: str, change: int) -> None:
        """A worker began or ended."""
        self._slots.add(change, _common("process", queue))

    def sent(self, sending: Sending, seconds: float, error_type: str) -> None:
        """Calls were sent, or not."""
        attributes = _common("create" if sending.kind == "part" else "enqueue", sending.queue, error_type)
        for (name, lane), number in Counter((call.name, call.lane) for call in sending.calls).items():
            self._sent.add(number, {**attributes, "ardiq.task.name": name, "ardiq.lane": lane})
        if sending.kind != "part":
            self._sending.record(seconds, attributes)

    def started(self, attempt: Attempt) -> None:
        """An attempt began."""
        attributes = _of(attempt)
        self._consumed.add(1, attributes)
        if attempt.wait_s is not None:
            self._wait.record(max(0.0, attempt.wait_s), attributes)
        self._in_flight.add(1, _common("process", attempt.queue))

    def ended(self, attempt: Attempt, outcome: Outcome, error_type: str) -> None:
        """It ended."""
        attributes = _of(attempt, error_type)
        self._run.record(outcome.run_s, attributes)
        self._attempts.add(1, {**attributes, "ardiq.outcome": outcome.word})
        self._in_flight.add(-1, _common("process", attempt.queue))


def _common(operation: str, queue: str, error_type: str = "") -> dict[str, str]:
    attributes = {
        "messaging.system": "ardiq",
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }
    return attributes | ({"error.type": error_type} if error_type else {})


def _of(attempt: Attempt, error_type: str = "") -> dict[str, str]:
    of_task = {"ardiq.task.name": attempt.name, "ardiq.lane": attempt.lane}
    return _common("process", attempt.queue, error_type) | of_task
