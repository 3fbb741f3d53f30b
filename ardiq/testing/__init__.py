"""Helpers for testing code that uses Ardiq; the fixtures of its pytest plugin are built from them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..dependencies import override
from ._assertions import all_enqueued, assert_enqueued, no_server
from ._background import BackgroundWorker, worker
from ._clock import Clock
from ._inline import Block, InlineServer
from ._redirect import given_back, on_server

if TYPE_CHECKING:
    from ..app import Ardiq

__all__ = [
    "BackgroundWorker",
    "Clock",
    "all_enqueued",
    "assert_enqueued",
    "inline",
    "no_server",
    "on_server",
    "override",
    "worker",
]


@asynccontextmanager
async def inline(app: "Ardiq", *, clock: Clock | None = None) -> AsyncIterator["Ardiq"]:
    """Run the app's tasks where they are enqueued, without a server.

    Within the block `enqueue` returns when the task has ended, or at once if it has to wait: for its time, a pause, or
    a slot under its lane's limit. The server's Lua decides, in this process; arguments and results pass through the
    codec, and retries, hooks, middleware and timeouts work as on a worker. Results are forgotten when the block ends.
    `pip install 'ardiq[testing]'` installs what it needs.

    Args:
        app: the app; use it only on this event loop.
        clock: virtual time: delayed tasks and retries wait until you move it, and schedules fire. None: nothing waits:
            delayed tasks and retries run at once, nothing expires, no schedule fires.

    Raises:
        RuntimeError: the app is already running, or `ardiq[testing]` is not installed.

    Example:
        ```python
        async with inline(app):
            job = await greet.enqueue("Ada")
            assert (await job.result()).value == "Hello, Ada"
        ```
    """
    own, run_state = app.context, app.run_state
    if run_state.is_running:
        raise RuntimeError("this app is already running: inline(app) takes the place of its worker")
    run_state.is_running = True
    try:
        async with own.registry.lifespan(own.settings.worker_id):
            # Within the lifespan: what it sets, tasks see.
            with given_back(own):
                block = Block(clock)
                for each in own.family.values():
                    each.server = InlineServer(each, block)
                await block.workers[own.settings.queue_name].scheduler.declare()
                yield app
    finally:
        run_state.is_running = False
