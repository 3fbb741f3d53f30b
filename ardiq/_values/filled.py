"""Maps over a result: what the task is told that fills one."""

from typing import NamedTuple

FILL = "ardiq:fill"
"""The name of that task, which each worker knows."""

MOST_ITEMS = 1_000_000


class Filled(NamedTuple):
    """A map that is filled while its workflow runs.

    Attributes:
        map: its name in the workflow.
        task: what it calls.
        chunk: for how many items one task calls that.
        spreads: whether each item is a tuple of arguments.
    """

    map: str
    task: str
    chunk: int
    spreads: bool
