"""An app that talks to another server for a while, under a prefix of its own, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._server.commands import delete_all
from .._values.ids import new_id
from .._values.metrics import Metrics

if TYPE_CHECKING:
    from ..app import Ardiq


@contextmanager
def on_server(app: "Ardiq", url: str, *, prefix: str | None = None) -> Iterator["Ardiq"]:
    """Let an app use another server while the `with` block lasts.

    It is the same object, so whatever imported it or its tasks uses that server, too, on all its queues. These begin
    empty, and are deleted at the end. Tasks and hooks that are registered within the block are forgotten with it.

    Args:
        app: the app; it must not run.
        url: the server, as `Ardiq` takes it.
        prefix: first part of every key; a random one when None, so that nobody else's keys are touched.

    Raises:
        RuntimeError: the app runs.

    Example:
        ```python
        with on_server(app, "embedded://"):
            job = greet.enqueue_sync("Ada")
        ```
    """
    own, run_state = app.context, app.run_state
    if run_state.is_running:
        raise RuntimeError("this app is running: stop its worker before you give it another server")
    prefix = prefix or f"test-{new_id()}"
    family, burst = own.family, run_state.burst
    before = [(each, each.settings, each.registry, each.server, each.metrics) for each in family.values()]
    try:
        own.move(url, prefix)
        registry = own.registry.draft()
        for each, *_ in before:
            each.registry, each.metrics = registry, Metrics()
        yield app
    finally:
        borrowed = [each.server for each in family.values()]
        for each, settings, registry, server, metrics in before:
            each.settings, each.registry, each.server, each.metrics = settings, registry, server, metrics
        for name in family.keys() - {each.name for each, *_ in before}:
            del family[name]
        run_state.burst = burst
        used = [each.server for each in family.values()]
        lent = [server for server in borrowed if server not in used]
        for server in lent:  # first: what is under way must not come after the deletion
            server.close()
        if lent:
            try:
                delete_all(lent[0].core, f"{prefix}:")
            finally:
                lent[0].close()
