"""The base of the parts of `Ardiq`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .queue import QueueContext


class Facade:
    """A part of `Ardiq`.

    Attributes:
        context: the queue; for the other modules of Ardiq.
    """

    def __init__(self, context: "QueueContext") -> None:
        self.context = context
