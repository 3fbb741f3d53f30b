"""What tracing costs an enqueue and an attempt, in µs of CPU time: `python bench/tracing.py`.

`absent` is the seam without instruments. The rest is what an instrument adds, without a server.
"""

import contextvars
import time
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from ardiq import Ardiq, instruments
from ardiq._execution.instrumented import Instrumented
from ardiq._values.encodings import to_json
from ardiq.instruments import Enqueuing, Outcome, Sending
from ardiq.otel import ArdiqInstrumentor

NUMBER, ROUNDS = 5_000, 5


def cost_us(work: Callable[[], object]) -> float:
    """Of the cheapest of some rounds, per call."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(NUMBER):
            work()
        rounds.append((time.process_time() - began) / NUMBER * 1e6)
    return min(rounds)


def enqueue() -> dict[str, object]:
    headers: dict[str, object] = {}
    calls = [Enqueuing("3ptl", "resize", "default", 0, headers)]
    with instruments.Told(Sending("default", "redis://localhost:6379", calls, "one")) as told:
        told.answers = [b"queued"]
    return headers


def attempt(headers: dict[str, object]) -> Callable[[], object]:
    app = Ardiq("redis://localhost:6379")

    @app.task
    async def resize() -> None: ...

    entry, instrumented = app.context.registry.tasks["resize"], Instrumented(app.context)
    claim = ("3ptl", 1, "resize", b"[]", b"", "", to_json(headers), "default", 1, 0)
    outcome = Outcome("complete", 0.01)

    def run() -> None:
        instrumented.started(entry, claim, 0.01)
        instrumented.ended(claim, outcome)

    return lambda: contextvars.copy_context().run(run)


def main() -> None:
    base = cost_us(lambda: contextvars.copy_context().run(int))
    print(f"{'':12}{'enqueue':>9}{'attempt':>9}")
    print(f"{'absent':12}{cost_us(lambda: instruments.active or None):9.2f}{0.0:9.2f}")
    for name, sampler in (("unsampled", ParentBased(ALWAYS_OFF)), ("sampled", ParentBased(ALWAYS_ON))):
        provider = TracerProvider(sampler=sampler)
        ArdiqInstrumentor().instrument(tracer_provider=provider)
        with trace.use_span(provider.get_tracer("bench").start_span("request")):
            headers = enqueue()
            print(f"{name:12}{cost_us(enqueue):9.2f}{cost_us(attempt(headers)) - base:9.2f}")
        ArdiqInstrumentor().uninstrument()


if __name__ == "__main__":
    main()
