"""Signals: values that a running task waits for, and that somebody else gives it."""

import builtins
import types
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from ._values import options as _options

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, init=False)
class Signal(Generic[T]):
    """What a task waits for by `wait_for`, and `app.signal` gives it: a name, and the type of the value.

    Args:
        name: up to 100 bytes without spaces, commas and `#`.
        type: what the value is converted to when the task takes it; `object`: nothing, it stays as it travelled.

    Raises:
        TypeError: the name is no str.
        ValueError: the name is invalid.

    Example:
        ```python
        approval = Signal("approval", bool)
        ```
    """

    name: str
    type: "builtins.type[T]"

    @overload
    def __init__(self, name: str, type: "builtins.type[T]") -> None: ...
    @overload
    def __init__(self: "Signal[Any]", name: str, type: types.UnionType) -> None: ...
    def __init__(self, name: str, type: Any) -> None:
        object.__setattr__(self, "name", signal_name(name))
        object.__setattr__(self, "type", type)


class Received(NamedTuple, Generic[T_co]):
    """The first of several signals: which one came, and its value."""

    signal: "SignalOf[T_co]"
    value: T_co


class SignalOf(Protocol[T_co]):
    """A `Signal` for who takes its value: one of `bool` is one of `object`, too."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> "builtins.type[T_co]":
        """What its value is converted to."""


def signal_name(name: Any) -> str:
    """The name of a signal, checked.

    Raises:
        TypeError: it is no str.
        ValueError: it is invalid.
    """
    _options.text("the name of a signal", name)
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"the name of a signal must have at most {_LONGEST_NAME} bytes: {name[:50]!r}…")
    if any(each.isspace() or each in ",#" for each in name):
        raise ValueError(f"the name of a signal must have no space, comma or '#': {name!r}")
    return str(name)
