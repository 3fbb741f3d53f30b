"""An app that talks to another server for a while, under a prefix of its own, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import _core
from ._ids import new_id
from ._metrics import Metrics
from .models import State

if TYPE_CHECKING:
    from .app import Ardiq

_REGISTERED = ("_registry", "_crons", "_middleware", "_error_hooks", "_enqueue_hooks")
_KEPT = ("_redis_url", "_prefix", "_broker", "_metrics", "_lifespan", "_burst", "_others", "state", *_REGISTERED)
_PAGE = 500


@contextmanager
def on_server(app: "Ardiq", url: str, *, prefix: str | None = None) -> Iterator["Ardiq"]:
    """Let an app use another server while the `with` block lasts.

    It is the same object, so whatever imported it or its tasks uses that server, too. Its queue begins empty, and is
    deleted at the end. Tasks and hooks that are registered within the block are forgotten with it.

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
    if app._running:
        raise RuntimeError("this app runs: stop its worker before it is given another server")
    prefix = prefix or f"test-{new_id()}"
    kept = {name: getattr(app, name) for name in _KEPT}
    try:
        point(app, url, prefix)
        for name in _REGISTERED:
            setattr(app, name, kept[name].copy())
        app._metrics, app.state, app._others = Metrics(), State(), {}
        yield app
    finally:
        broker = app._broker
        for other in app._others.values():
            other._broker.close()
        for name, value in kept.items():
            setattr(app, name, value)
        app._producer._broker = app._broker
        if broker is not app._broker:
            broker.close()  # first: what is under way must not come after the deletion
            try:
                _delete(broker.core, prefix)
            finally:
                broker.close()


def point(app: "Ardiq", url: str, prefix: str) -> None:
    """Give an app another server and prefix, for good."""
    app._redis_url, app._prefix = url, prefix
    app._broker = app._producer._broker = app._broker.sibling(app)
    app._broker.is_listed = False  # a queue for a while is not for the list of queues


def _delete(core: _core.Core, prefix: str) -> None:
    pattern = "".join(f"\\{letter}" if letter in "[]*?\\" else letter for letter in prefix) + ":*"
    cursor = b"0"
    while True:
        cursor, keys = core.command(["SCAN", cursor, "MATCH", pattern, "COUNT", str(_PAGE)])
        if keys:
            core.command(["UNLINK", *keys])
        if cursor == b"0":
            return
