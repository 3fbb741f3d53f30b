"""Lets an app use another server for a while, under a prefix of its own, and leave nothing there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._server.commands import delete_all
from .._server.server import Server
from .._values.ids import new_id
from .._values.metrics import Metrics

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from ..app import Ardiq


@contextmanager
def on_server(app: "Ardiq", url: str, *, prefix: str | None = None) -> Iterator["Ardiq"]:
    """Let an app use another server while the `with` block lasts.

    The app stays the same object, so all code that imported it or its tasks uses that server, too, for all its queues.
    These start empty and are deleted at the end. Tasks and hooks that are registered within the block are forgotten at
    its end.

    Args:
        app: the app; no worker of it may be running.
        url: the server, as `Ardiq` takes it.
        prefix: beginning of every key; None: a random one, so that no other keys are touched.

    Raises:
        RuntimeError: the app is running.

    Example:
        ```python
        with on_server(app, "embedded://"):
            job = greet.enqueue_sync("Ada")
        ```
    """
    own, run_state = app.context, app.run_state
    if run_state.is_running:
        raise RuntimeError("this app is running: stop its worker before you give it another server")
    prefix, burst = prefix or f"test-{new_id()}", run_state.burst
    lent: Server | None = None
    try:
        with given_back(own):
            own.move(url, prefix)
            lent, registry = own.server, own.registry.draft()
            for each in own.family.values():
                each.registry, each.metrics = registry, Metrics()
            yield app
    finally:
        run_state.burst = burst
        if lent is not None:
            try:
                delete_all(lent.core, f"{prefix}:")
            finally:
                lent.close()


@contextmanager
def given_back(own: "QueueContext") -> Iterator[None]:
    """Give an app's queues back what they have now when the `with` block ends.

    Within the block they may be given other settings, registries, servers and metrics. At its end, queues that were
    first used within it are forgotten, and servers that they were given are closed, so that nothing in progress there
    arrives after the block.
    """
    family = own.family
    before = [(each, each.settings, each.registry, each.server, each.metrics) for each in family.values()]
    try:
        yield
    finally:
        used = [each.server for each in family.values()]
        for each, settings, registry, server, metrics in before:
            each.settings, each.registry, each.server, each.metrics = settings, registry, server, metrics
        for name in family.keys() - {each.name for each, *_ in before}:
            del family[name]
        for server in used:
            if all(server is not each.server for each in family.values()):
                server.close()
