"""What type checkers see of the values that tasks return. Nothing here does anything at run time.

A task is generic in what its function gives, a coroutine for an `async def`; its jobs are in what that returns. An
overloaded method would say so, but with overloads type checkers are vague about wrong arguments and in nested calls.
Descriptors give each task methods of exactly one type.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import ParamSpec, overload

    from typing_extensions import TypeVar  # the type checker's own; `typing` has defaults from Python 3.13 on

    from ..job import Job
    from ..task import PreparedTask, _Enqueueable

    R_co = TypeVar("R_co", covariant=True, default=Any)
    """What a task returns; `Any` where it is not said, so that a bare `Job` stays a type."""

    P = ParamSpec("P")
    T = TypeVar("T")

    # Not a `Coroutine[Any, Any, ...]`, of which mypy gives up on gathering several.
    class EnqueueMethod:
        @overload
        def __get__(
            self, task: _Enqueueable[P, Coroutine[Any, Any, T]], owner: Any
        ) -> Callable[P, Coroutine[None, None, Job[T]]]: ...
        @overload
        def __get__(self, task: _Enqueueable[P, T], owner: Any) -> Callable[P, Coroutine[None, None, Job[T]]]: ...
        def __get__(self, task: Any, owner: Any) -> Any: ...

    class EnqueueSyncMethod:
        @overload
        def __get__(self, task: _Enqueueable[P, Coroutine[Any, Any, T]], owner: Any) -> Callable[P, Job[T]]: ...
        @overload
        def __get__(self, task: _Enqueueable[P, T], owner: Any) -> Callable[P, Job[T]]: ...
        def __get__(self, task: Any, owner: Any) -> Any: ...

    class PrepareMethod:
        @overload
        def __get__(
            self, task: _Enqueueable[P, Coroutine[Any, Any, T]], owner: Any
        ) -> Callable[P, PreparedTask[T]]: ...
        @overload
        def __get__(self, task: _Enqueueable[P, T], owner: Any) -> Callable[P, PreparedTask[T]]: ...
        def __get__(self, task: Any, owner: Any) -> Any: ...

else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)
