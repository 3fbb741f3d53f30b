"""The type variable of what tasks return."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # the type checker's own; `typing` has defaults from Python 3.13 on

    R_co = TypeVar("R_co", covariant=True, default=Any)
    """What a task returns; `Any` where it is not said, so that a bare `Job` stays a type."""
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)
