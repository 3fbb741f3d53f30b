"""The context of one queue, which everything that enqueues, inspects or runs tasks there gets."""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

from .._server.channel import Channel
from .._server.server import Server
from .._values.codec import Codec
from .._values.metrics import Metrics
from .._values.settings import Settings
from .._values.signing import Signer
from .inspector import Inspector
from .producer import Producer
from .registry import Registry


@dataclass(eq=False, repr=False)
class QueueContext:
    """One queue of an app.

    Attributes:
        settings: the options of the app.
        registry: what the app registered.
        name: of the queue; `settings.queue_name` is that of the app's own.
        server: its connections.
        codec: the app's wire format.
        signer: signs and checks its calls; None without a `signing_key`.
        metrics: counters of what this process has run of it.
        family: the app's queues that were used so far, by name.
        lanes: the lanes that tasks may go to.
        app: the `Ardiq` that users have of it.
        producer: puts tasks on it.
        inspector: asks about its tasks.
    """

    settings: Settings
    registry: Registry
    name: str
    server: Server
    codec: Codec
    signer: Signer | None
    metrics: Metrics
    family: "dict[str, QueueContext]"
    lanes: Container[str]
    app: Any = None
    producer: Producer = field(init=False)
    inspector: Inspector = field(init=False)

    def __repr__(self) -> str:
        return f"<QueueContext {self.name!r}>"

    def __post_init__(self) -> None:
        self.producer = Producer(self)
        self.inspector = Inspector(self)

    @classmethod
    def first(cls, settings: Settings) -> "QueueContext":
        """The own queue of a new app."""
        codec = Codec(
            settings.serializer,
            settings.deserializer,
            settings.payload_limit,
            keeps_results=settings.result_ttl_ms != 0,
        )
        signer = Signer(settings.signing_keys, settings.takes_unsigned) if settings.signing_keys else None
        own = cls(
            settings,
            Registry(),
            settings.queue_name,
            Server(settings, settings.queue_name),
            codec,
            signer,
            Metrics(),
            family={},
            lanes=frozenset(settings.priorities),
        )
        own.family[own.name] = own
        return own

    def sibling(self, name: str) -> "QueueContext":
        """The context of another queue on the same server. It shares what is registered; its calls and metrics are its
        own.
        """
        other = replace(self, name=name, metrics=Metrics(), app=None)
        other.server = self.server.sibling(other)
        return other

    def forget(self) -> None:
        """Close the connection of a queue other than the app's own, and let the app forget it."""
        if not self.is_own:
            self.server.close()
            self.family.pop(self.name, None)

    @property
    def is_own(self) -> bool:
        """Whether it is the app's own, not one of `app.queue(name)`."""
        return self.name == self.settings.queue_name

    @property
    def crons(self) -> dict[str, dict[str, Any]]:
        """The definitions of its `@app.cron`, by name."""
        return self.registry.crons if self.is_own else {}

    def channel(self) -> Channel:
        """Its channel on the running event loop."""
        return self.server.channel(asyncio.get_running_loop())

    def change(self, **options: Any) -> None:
        """Other options for the app, on all its queues."""
        settings = replace(self.settings, **options)
        for each in list(self.family.values()):
            each.settings = settings

    def move(self, url: str, prefix: str) -> None:
        """Let all queues of the app use another server for a while; they are not listed there."""
        self.change(redis_url=url, prefix=prefix)
        for each in list(self.family.values()):
            each.server = each.server.sibling(each)
            each.server.is_listed, each.server.is_lent = False, True
