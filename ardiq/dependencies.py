"""Dependencies of tasks: parameters that no call gives, made for each attempt and cleaned up after it.

All is decided when a task is declared. A function with dependencies is then replaced by one that makes them, calls it,
and cleans up; it takes what is left. So whoever runs tasks knows nothing of dependencies.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, ForwardRef, NamedTuple

from ._values.signature import hints_of, parameters_of

_RESTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Marker(NamedTuple):
    """What marks a parameter; FastAPI's own looks the same."""

    dependency: Callable[..., Any]


def Depends(provider: Callable[..., Any]) -> Any:  # noqa: N802
    """Mark a parameter of a task, or of another provider, as a dependency: the default of the parameter, or in its
    `Annotated`. No call of the task gives it; each attempt gets what the provider makes, once, and cleans it up.

    Args:
        provider: a function or an `async def`, whose result it is; a generator of either kind, which yields it once,
            and cleans up behind that; a function under `contextmanager` or `asynccontextmanager`; a class, which is
            entered if it is a context manager. Its own parameters are dependencies, or have defaults. For a `def` task
            none of them may be async.

    Raises:
        TypeError: the provider cannot be called.

    Example:
        ```python
        @app.task
        async def send(to: str, mailer: Mailer = Depends(get_mailer)) -> None: ...
        ```
    """
    if not callable(provider):
        raise TypeError(f"Depends takes a function that makes the dependency, not {type(provider).__name__}")
    return _Marker(provider)


class _Provider(NamedTuple):
    """How a dependency is made.

    Attributes:
        key: the function it is known by.
        make: what is called.
        needs: its own dependencies, by the names of its parameters.
        enters: whether it makes a context manager.
        is_async: whether that, or what it returns, is awaited.
    """

    key: Callable[..., Any]
    make: Callable[..., Any]
    needs: "dict[str, _Provider]"
    enters: bool
    is_async: bool


# By the provider in whose place they are used.
_overrides: dict[Callable[..., Any], _Provider] = {}


@contextmanager
def override(provider: Callable[..., Any], by: Callable[..., Any]) -> Iterator[None]:
    """In tests: within the `with`, use another provider in the place of one, for all tasks that run in this process.

    Args:
        provider: the one that tasks name.
        by: what makes the dependency instead; as any provider, but it may not depend on the first one.

    Raises:
        TypeError: a parameter of the other one cannot be resolved.

    Example:
        ```python
        with override(get_mailer, lambda: outbox):
            await send("ada@example.org")
        ```
    """
    before = _overrides.get(provider)
    _overrides[provider] = _read(f"the override of {_named(provider)}", by, (provider,))
    try:
        yield
    finally:
        del _overrides[provider]
        if before is not None:
            _overrides[provider] = before


def injected(task: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function as workers call it, without the parameters that are dependencies; itself where it has none.

    Raises:
        TypeError: a dependency cannot be made.
    """
    try:
        parameters = parameters_of(fn)
        hints = hints_of(fn) if any(map(_may_mark, parameters)) else {}
    except NameError:  # an annotation names what is defined later
        return fn
    needs = _needs(f"task {task!r}", parameters, hints, ())
    if not needs:
        return fn
    is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004
    places: dict[str, int | None] = {}
    for place, parameter in enumerate(parameters):
        if parameter.name not in needs:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"task {task!r}: parameter {parameter.name!r} is a dependency, so it cannot be before a `/`"
            )
        places[parameter.name] = None if parameter.kind is parameter.KEYWORD_ONLY else place
        waits = None if is_async else _async_one(needs[parameter.name])
        if waits is not None:
            raise TypeError(
                f"task {task!r}: parameter {parameter.name!r}: {_named(waits.key)} is async, which a `def` task cannot "
                "await: make the task an `async def`, or give it a provider that is not async"
            )

    def call(args: tuple[Any, ...], kwargs: dict[str, Any], made: dict[str, Any]) -> Any:
        given = list(args)
        for name, value in made.items():
            place = places[name]
            if place is None or place > len(given):
                kwargs[name] = value
            else:
                given.insert(place, value)
        return fn(*given, **kwargs)

    run = _on_loop(needs, call) if is_async else _in_thread(needs, call)
    functools.update_wrapper(run, fn, updated=())
    del run.__dict__["__wrapped__"]
    rest = [parameter for parameter in parameters if parameter.name not in needs]
    run.__dict__["__signature__"] = inspect.Signature(rest)
    # What an annotation names may be defined later.
    later = {each.name: each.annotation for each in rest if isinstance(each.annotation, str)}
    known = {name: ForwardRef(hint, module=fn.__module__) for name, hint in later.items()} | hints
    run.__annotations__ = {name: hint for name, hint in known.items() if name not in needs}
    return run


def _on_loop(needs: dict[str, _Provider], call: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        failure: BaseException | None = None
        try:
            async with AsyncExitStack() as stack:
                try:
                    cache: dict[Any, Any] = {}
                    made = {
                        name: kwargs.pop(name) if name in kwargs else await _make(each, cache, stack)
                        for name, each in needs.items()
                    }
                    return await call(args, kwargs, made)
                except BaseException as error:
                    failure = error
                    raise
            # A dependency kept the error to itself; the task failed all the same.
            assert failure is not None  # type: ignore[unreachable]
            raise failure
        finally:
            del failure

    return run


def _in_thread(needs: dict[str, _Provider], call: Callable[..., Any]) -> Callable[..., Any]:
    # The same without `await`.
    def run(*args: Any, **kwargs: Any) -> Any:
        failure: BaseException | None = None
        try:
            with ExitStack() as stack:
                try:
                    cache: dict[Any, Any] = {}
                    made = {
                        name: kwargs.pop(name) if name in kwargs else _make_sync(each, cache, stack)
                        for name, each in needs.items()
                    }
                    return call(args, kwargs, made)
                except BaseException as error:
                    failure = error
                    raise
            assert failure is not None  # type: ignore[unreachable]
            raise failure
        finally:
            del failure

    return run


async def _make(provider: _Provider, cache: dict[Any, Any], stack: AsyncExitStack) -> Any:
    if provider.key in cache:
        return cache[provider.key]
    used = _overrides.get(provider.key, provider)
    made = used.make(**{name: await _make(each, cache, stack) for name, each in used.needs.items()})
    if used.enters:
        made = await stack.enter_async_context(made) if used.is_async else stack.enter_context(made)
    elif used.is_async:
        made = await made
    cache[provider.key] = made
    return made


def _make_sync(provider: _Provider, cache: dict[Any, Any], stack: ExitStack) -> Any:
    if provider.key in cache:
        return cache[provider.key]
    used = _overrides.get(provider.key, provider)
    if used.is_async:
        raise TypeError(
            f"{_named(used.key)}, in the place of {_named(provider.key)}, is async, which a `def` task cannot await"
        )
    made = used.make(**{name: _make_sync(each, cache, stack) for name, each in used.needs.items()})
    cache[provider.key] = made = stack.enter_context(made) if used.enters else made
    return made


def _needs(
    where: str, parameters: list[inspect.Parameter], hints: dict[str, Any], path: tuple[Any, ...]
) -> dict[str, _Provider]:
    """Those of some parameters that are dependencies. `path`: what is being read."""
    found = {}
    for parameter in parameters:
        name = parameter.name
        at = f"{where}: parameter {name!r}"
        if parameter.kind in _RESTS:
            continue
        marker = next(filter(_is_marker, (parameter.default, *getattr(hints.get(name), "__metadata__", ()))), None)
        if marker is not None:
            provider = marker.dependency
            if provider is None:  # FastAPI: the annotation is a class, which makes it
                provider = getattr(hints.get(name), "__origin__", hints.get(name))
            if not callable(provider):
                raise TypeError(f"{at}: there is nothing that makes it: name a function in its Depends")
            found[name] = _read(at, provider, path)
        elif name not in hints and isinstance(parameter.annotation, str) and "Depends(" in parameter.annotation:
            raise TypeError(
                f"{at}: its annotation {parameter.annotation!r} cannot be resolved: define what it names before the "
                "function, or write Depends as the default"
            )
        elif path and (parameter.default is parameter.empty or _is_of_fastapi(parameter.default)):
            raise TypeError(
                f"{at} of {_named(path[-1])} cannot be resolved: a provider's parameters have defaults, or are "
                "dependencies themselves"
            )
    return found


def _read(where: str, provider: Any, path: tuple[Any, ...]) -> _Provider:
    if provider in path:
        names = " needs ".join(map(_named, (*path[path.index(provider) :], provider)))
        raise TypeError(f"{where}: its dependencies go in a circle: {names}")
    annotated: Any = provider
    if isinstance(provider, type):
        annotated = annotated.__init__
    needs = _needs(where, parameters_of(provider), hints_of(annotated), (*path, provider))
    make, enters, is_async = _how(provider)
    return _Provider(provider, make, needs, enters, is_async)


def _how(provider: Any) -> tuple[Callable[..., Any], bool, bool]:
    """What is called, whether that makes a context manager, and whether it is async."""
    if isinstance(provider, type):
        is_async = hasattr(provider, "__aenter__")
        return provider, is_async or hasattr(provider, "__enter__"), is_async
    is_plain = inspect.isroutine(provider) or isinstance(provider, functools.partial)
    called = provider if is_plain else provider.__call__
    if inspect.isasyncgenfunction(called):
        return asynccontextmanager(called), True, True
    if inspect.isgeneratorfunction(called):
        return contextmanager(called), True, False
    if inspect.iscoroutinefunction(called):
        return provider, False, True
    inner = inspect.unwrap(called)  # under `contextmanager`
    is_async = inspect.isasyncgenfunction(inner)
    return provider, is_async or inspect.isgeneratorfunction(inner), is_async


def _async_one(provider: _Provider) -> _Provider | None:
    """Of what a dependency needs, itself included, the first that is async."""
    if provider.is_async:
        return provider
    return next(filter(None, map(_async_one, provider.needs.values())), None)


def _may_mark(parameter: inspect.Parameter) -> bool:
    """Whether its annotation has to be read to know whether it is a dependency."""
    annotation = parameter.annotation
    return _is_marker(parameter.default) or isinstance(annotation, str) or hasattr(annotation, "__metadata__")


def _is_marker(value: Any) -> bool:
    return isinstance(value, _Marker) or (_is_of_fastapi(value) and hasattr(value, "dependency"))


def _is_of_fastapi(value: Any) -> bool:
    return any(each.__module__ == "fastapi.params" for each in type(value).__mro__)


def _named(provider: Any) -> str:
    return str(getattr(provider, "__qualname__", None) or repr(provider))
