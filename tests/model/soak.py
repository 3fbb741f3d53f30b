"""How far random tests go: the same few seeds on every machine; with `make soak` on and on, as long as it says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
FIRST_SEED = int(os.environ.get("SOAK_SEED", "1"))


def walk(run: Callable[[int], None], few: int, part: int = 1) -> None:
    """One seed after the other: `few` of them, or until the seconds of `make soak` are over, a `part`-th of them."""
    until = time.monotonic() + SECONDS / part
    for number in count(FIRST_SEED):
        try:
            run(number)
        except AssertionError as error:
            error.add_note(f"make soak SEED={number} finds it again")
            raise
        if number + 1 - FIRST_SEED >= few and time.monotonic() >= until:
            break
