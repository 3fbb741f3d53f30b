"""What type checkers see of the values that tasks return. Nothing here does anything at run time.

A task is generic in what its function gives, a coroutine for an `async def`; its jobs are in what that returns. An
overloaded method would say so, but with overloads type checkers are vague about wrong arguments and in nested calls.
Descriptors give each task methods of exactly one type.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import ParamSpec, Protocol, TypeVar, overload

    from ..job import Job
    from ..task import PreparedTask, Task, _Enqueueable

    P = ParamSpec("P")
    T = TypeVar("T")
    R = TypeVar("R")

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

    # Of a task with a `batch`: the function takes a list of items, its calls one of them.
    class BatchDecorator(Protocol):
        @overload
        def __call__(
            self, fn: Callable[[list[T]], Coroutine[Any, Any, None]], /
        ) -> Task[[T], Coroutine[Any, Any, None]]: ...
        @overload
        def __call__(
            self, fn: Callable[[list[T]], Coroutine[Any, Any, list[R]]], /
        ) -> Task[[T], Coroutine[Any, Any, R]]: ...
        @overload
        def __call__(
            self, fn: Callable[[list[T]], Coroutine[Any, Any, list[R] | None]], /
        ) -> Task[[T], Coroutine[Any, Any, R | None]]: ...
        @overload
        def __call__(self, fn: Callable[[list[T]], None], /) -> Task[[T], None]: ...
        @overload
        def __call__(self, fn: Callable[[list[T]], list[R]], /) -> Task[[T], R]: ...
        @overload
        def __call__(self, fn: Callable[[list[T]], list[R] | None], /) -> Task[[T], R | None]: ...
