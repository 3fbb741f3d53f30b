"""Ending pauses: what they held goes back in portions."""

from collections.abc import Callable
from typing import Any, TypeAlias

from .._server.replies import Ask, Call

Resuming: TypeAlias = Callable[[bool], Call[Any]]
"""The call that ends a pause; True: that goes on with its end."""


async def resumed(ask: Ask, resuming: Resuming) -> bool:
    """End a pause, all of it; False if there is none."""
    first = reply = await ask(resuming(False))
    while reply.more:
        reply = await ask(resuming(True))
    return bool(first.answer == "resumed")
