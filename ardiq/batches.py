"""Batches: calls of a task that one execution takes together."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ._values import options as _options

MOST = 1000
"""The largest size of a batch."""

MARK = "#"
"""For the server a batch is a limit, whose name has this in front of the task's."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Lets calls of a task gather, and hands them to one execution: `@app.task(batch=Batch(100, wait=2))`.

    The function takes a list of items. Each call passes one of them, and is a task of its own, with its own result,
    retries and dead letter. A batch starts when it is full, or `wait` after the first of its calls came.

    Args:
        size: how many calls a batch has at most, from 1 to 1,000.
        wait: for how long the first call waits for others, a timedelta or seconds; 0: a batch is what waits when a
            worker is free.
        key: a function of the item: only calls with the same key are in one batch. It gives a text, a whole number, or
            what travels as one, such as a UUID or an enum; of up to 256 bytes.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value.

    Example:
        ```python
        @app.task(batch=Batch(100, wait=2.0, key=lambda document: document.index))
        async def index(documents: list[Document]) -> list[str]: ...

        await index.enqueue(Document(index="eu", text="Hello"))
        ```
    """

    size: int
    _: KW_ONLY
    wait: _options.Duration
    key: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if _options.integer("the size of a Batch", self.size, least=1) > MOST:
            raise ValueError(f"the size of a Batch must be at most {MOST:,}, not {self.size:,}")
        _options.milliseconds("wait of a Batch", self.wait)
        if self.key is not None and not callable(self.key):
            raise TypeError(f"the key of a Batch must be a function of the item, not {self.key!r}")

    @property
    def wait_ms(self) -> int:
        """`wait` in milliseconds."""
        return _options.milliseconds("wait", self.wait)

    def __str__(self) -> str:
        return f"batches of {self.size:,} within {self.wait_ms / 1000:g} s"


def check_batch(value: Any) -> None:
    """Refuse what is no batch.

    Raises:
        TypeError: it is none.
    """
    if value is not None and not isinstance(value, Batch):
        raise TypeError(f"batch must be a Batch, such as Batch(100, wait=2), not {type(value).__name__}")


def is_batch(bucket: str) -> bool:
    """Whether a limit, or a key of one, is a batch."""
    return bucket.startswith(MARK)
