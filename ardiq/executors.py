"""Where a `def` task runs, with options."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ._values import options as _options


@dataclass(frozen=True, slots=True)
class Process:
    """A child process, which a timeout or an abort really stops; `executor="process"` means one without options.

    Args:
        max_memory_mb: how many MiB of data (heap and private mappings, including those of the interpreter and of what
            the module imports) the child may have while it runs the task; beyond that an allocation fails, in Python
            with `MemoryError`. Each process that the task starts has the same limit for itself. None: no limit. Only
            Linux enforces it.
        fresh: whether each attempt gets its own child, which ends with it, instead of one that is reused.

    Raises:
        ValueError: `max_memory_mb` is not positive.
        TypeError: an option has the wrong type.

    Example:
        ```python
        @app.task(executor=Process(max_memory_mb=512, fresh=True), timeout=60)
        def convert(path: str) -> str: ...
        ```
    """

    max_memory_mb: int | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.max_memory_mb is not None:
            _options.integer("max_memory_mb", self.max_memory_mb, least=1)
        _options.boolean("fresh", self.fresh)


Executor: TypeAlias = Literal["thread", "process"] | Process


def read(executor: Any) -> Process | None:
    """The process that is asked for, or None for a thread.

    Raises:
        ValueError: it is no executor.
    """
    if isinstance(executor, Process):
        return executor
    if executor not in ("thread", "process"):
        raise ValueError(f"executor must be 'thread', 'process' or a Process, not {executor!r}")
    return Process() if executor == "process" else None
