"""An app that talks to another server for a while, under a prefix of its own, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._server.commands import delete_all
from .._values.ids import new_id
from .._values.metrics import Metrics
from ..models import State

if TYPE_CHECKING:
    from ..app import Ardiq

_REGISTERED = ("_registry", "_middleware", "_error_hooks", "_enqueue_hooks", "_lifespans")  # of all queues alike
_OWN = ("_redis_url", "_prefix", "_broker", "_metrics", "_crons", "_burst", "_others", "state")
_KEPT = (*_OWN, *_REGISTERED)


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
    root = app._root
    if root._running:
        raise RuntimeError("this app is running: stop its worker before you give it another server")
    prefix = prefix or f"test-{new_id()}"
    family = queues_of(root)
    kept = [(each, {name: getattr(each, name) for name in _KEPT}) for each in family]
    try:
        point(root, url, prefix)
        shared = {name: getattr(root, name).copy() for name in _REGISTERED}
        shared |= {"state": State(), "_others": root._others.copy()}
        for each in family:
            vars(each).update(shared, _crons=each._crons.copy(), _metrics=Metrics())
        yield app
    finally:
        borrowed = [(each, each._broker) for each in queues_of(root)]
        for each, attributes in kept:
            vars(each).update(attributes)
            each._producer._broker = each._broker
        lent = [broker for each, broker in borrowed if broker is not each._broker or each not in family]
        for broker in lent:  # first: what is under way must not come after the deletion
            broker.close()
        if lent:
            try:
                delete_all(lent[0].core, f"{prefix}:")
            finally:
                lent[0].close()


def queues_of(app: "Ardiq") -> list["Ardiq"]:
    """An app, and what it is on other queues."""
    return [app._root, *app._root._others.values()]


def point(app: "Ardiq", url: str, prefix: str) -> None:
    """Give an app another server and prefix on all its queues, for good."""
    for each in queues_of(app):
        each._redis_url, each._prefix = url, prefix
        each._broker = each._producer._broker = each._broker.sibling(each)
        each._broker.is_listed = False  # a queue for a while is not for the list of queues
        each._broker.is_lent = True
