"""What the parts of `Ardiq` have in common."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .queue import QueueContext


class Facade:
    """A part of what an app offers.

    Attributes:
        context: the queue that it is about, for the rest of Ardiq.
    """

    def __init__(self, context: "QueueContext") -> None:
        self.context = context
