"""Task ids: 100 random bits as 20 lowercase base32 characters, drawn from a pool; those of occurrences."""

import os

_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567"
_TABLE = bytes(_ALPHABET[byte % 32] for byte in range(256))
_LENGTH = 20
_POOLED = 256

_pool: list[str] = []
if hasattr(os, "register_at_fork"):
    # Parent and child would hand out the same ids.
    os.register_at_fork(after_in_child=_pool.clear)


def new_id() -> str:
    """A random id that nobody else has."""
    try:
        return _pool.pop()
    except IndexError:
        text = os.urandom(_LENGTH * _POOLED).translate(_TABLE).decode("ascii")
        fresh = [text[i : i + _LENGTH] for i in range(0, len(text), _LENGTH)]
        first = fresh.pop()
        _pool.extend(fresh)
        return first


def schedule_of(task_id: str) -> str:
    """The name of the schedule whose occurrence a task is; empty if it is none."""
    return task_id.removeprefix("cron:").rpartition(":")[0] if task_id.startswith("cron:") else ""
