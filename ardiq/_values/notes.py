"""The notes of a task: `current_task().notes`."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from .encodings import from_json, plain_json
from .reports import Reports

# The server has the same limits.
_MOST, _LONGEST_NAME, _LONGEST = 100, 200, 8192


class Notes(MutableMapping[str, Any]):
    """JSON values by name, which are sent with the task's next report; `job.notes()` reads them.

    It has the notes of this attempt, not those of earlier ones. A value is copied when you set it: to change one, set
    it again.
    """

    __slots__ = ("_alone", "_claim", "_reports")

    def __init__(self, reports: Reports | None, claim: tuple[Any, ...]) -> None:
        self._reports = reports
        self._claim = claim
        self._alone: dict[str, bytes] = {}  # outside a worker

    def _noted(self, to_add: bool = False) -> dict[str, bytes]:
        return self._alone if self._reports is None else self._reports.noted(self._claim, to_add)

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a note must be a str, not {type(name).__name__}")
        if not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise ValueError(f"the name of a note must have 1 to {_LONGEST_NAME} bytes: {name[:50]!r}")
        text = plain_json(f"note {name!r}", value)
        if len(text) > _LONGEST:
            raise ValueError(
                f"note {name!r} has {len(text):,} bytes of JSON, over the limit of {_LONGEST:,}: store large data "
                "elsewhere and note its address"
            )
        noted = self._noted(to_add=True)
        if name not in noted and len(noted) >= _MOST:
            raise ValueError(f"a task may have at most {_MOST} notes; {name!r} would be one more")
        noted[name] = text
        if self._reports is not None:
            self._reports.add(self._claim, notes={name: text})

    def __getitem__(self, name: str) -> Any:
        return from_json(self._noted()[name])

    def __delitem__(self, name: str) -> None:
        del self._noted()[name]
        if self._reports is not None:
            self._reports.add(self._claim, notes={name: b""})

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._noted()))

    def __len__(self) -> int:
        return len(self._noted())

    def __repr__(self) -> str:
        return f"Notes({dict(self)!r})"
