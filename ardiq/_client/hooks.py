"""What users plug into an app: lifespans, middleware and hooks."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from .._values import options as _options
from ..models import EnqueueContext, ErrorContext, ExecutionContext, State
from .facade import Facade

LifespanT = TypeVar("LifespanT", bound=Callable[[], AsyncIterator[Any]])
ErrorHookT = TypeVar("ErrorHookT", bound=Callable[[ErrorContext], Any])
EnqueueHookT = TypeVar("EnqueueHookT", bound=Callable[[EnqueueContext], Any])
MiddlewareT = TypeVar("MiddlewareT", bound=Callable[[ExecutionContext, Callable[[], Awaitable[Any]]], Awaitable[Any]])


class Hooks(Facade):
    """The hooks of an app, and the state they set up."""

    @property
    def state(self) -> State:
        """What the lifespans set up, for tasks and hooks."""
        return self.context.registry.state

    @state.setter
    def state(self, value: State) -> None:
        self.context.registry.state = value

    def lifespan(self, fn: LifespanT) -> LifespanT:
        """Set up what tasks share, and tear it down: an async generator with one `yield`.

        It runs around the worker loop. The items of a mapping that it yields become attributes of `app.state`. Several
        are set up in the order in which they were registered, and torn down in the reverse order.

        Example:
            ```python
            @app.lifespan
            async def lifespan():
                pool = await asyncpg.create_pool(DSN)
                yield {"db": pool}
                await pool.close()
            ```
        """
        function: Callable[..., Any] = fn
        if not inspect.isasyncgenfunction(function):
            raise TypeError("@app.lifespan needs an async generator function with one yield")
        self.context.registry.lifespans.append(function)
        return fn

    def middleware(self, fn: MiddlewareT) -> MiddlewareT:
        """Wrap every attempt: an async function that takes an `ExecutionContext` and a function to await for the rest.

        The first one registered is outermost. The task's timeout covers the task alone.

        Example:
            ```python
            @app.middleware
            async def timing(ctx, call_next):
                with timer(ctx.name):
                    return await call_next()
            ```
        """
        if not (inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)):
            raise TypeError("@app.middleware needs an async function of (ctx, call_next)")
        self.context.registry.middleware.append(fn)
        return fn

    def on_enqueue(self, fn: EnqueueHookT) -> EnqueueHookT:
        """Call this with an `EnqueueContext` for each task that is enqueued, by any path; sync or async.

        What it puts in `ctx.headers` travels with the task. One that raises fails the enqueue.
        """
        self.context.registry.enqueue_hooks.append(_options.required_callable("@app.on_enqueue", fn))
        return fn

    def on_error(self, fn: ErrorHookT) -> ErrorHookT:
        """Call this with an `ErrorContext` for each attempt that failed; sync or async.

        Not for aborts, nor for a `Retry` that will run again. One that raises is logged and changes nothing. Hooks hear
        of the final failure before its result can be seen, and of a retry once the server has accepted it. An attempt
        keeps its slot until its hooks have ended.
        """
        self.context.registry.error_hooks.append(_options.required_callable("@app.on_error", fn))
        return fn
