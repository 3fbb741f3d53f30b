"""Helpers for the tests of what uses Ardiq."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._inline import InlineBroker

if TYPE_CHECKING:
    from .app import Ardiq

__all__ = ["inline"]


@asynccontextmanager
async def inline(app: "Ardiq") -> AsyncIterator["Ardiq"]:
    """Run the app's tasks where they are enqueued, without a server.

    Within the block `enqueue` returns when the task has ended. Arguments and results pass through the codec, and
    retries, hooks, middleware and timeouts act as on a worker, but no pause is slept and a delayed task runs at once.
    Results are forgotten when the block ends.

    Args:
        app: the app; it is to be used on this event loop alone.

    Raises:
        RuntimeError: the app runs already.

    Example:
        ```python
        async with inline(app):
            job = await greet.enqueue("Ada")
            assert (await job.result()).value == "Hello, Ada"
        ```
    """
    if app._running:
        raise RuntimeError("this app runs already: inline(app) takes the place of its worker")
    broker = app._broker
    app._running = True
    try:
        async with app._lifespan_scope():
            inlined = InlineBroker(app)  # within the lifespan: what it sets, tasks see
            _use(app, inlined)
            try:
                yield app
            finally:
                _use(app, broker)
                inlined.close()
    finally:
        app._running = False


def _use(app: "Ardiq", broker: Any) -> None:
    app._broker = app._producer._broker = broker
