"""What a program saw: `see(name, what)` notes it, and when the program ends it is printed as JSON."""

import asyncio
import atexit
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

_SEEN: dict[str, Any] = {}


def see(name: str, what: Any) -> None:
    """Note a value, or what a call gives or raises: of an exception, its kind."""
    if callable(what):
        try:
            what = what()
        except Exception as error:
            what = {"raises": kind_of(error)}
    _SEEN[name] = plain(what)


async def see_later(name: str, what: Awaitable[Any] | Callable[[], Awaitable[Any]]) -> Any:
    """`see` for what is awaited; gives it, too."""
    try:
        value = await (what() if callable(what) else what)
    except Exception as error:
        _SEEN[name] = {"raises": kind_of(error)}
        return None
    _SEEN[name] = plain(value)
    return value


def kind_of(error: BaseException) -> str:
    """The nearest built-in kind: that is what a program can have caught."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def plain(value: Any) -> Any:
    """A value as JSON has it, told apart by kind where JSON would not."""
    if isinstance(value, float | int | str | bool | None):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [plain(each) for each in value]}
    if isinstance(value, list | set | frozenset):
        return [plain(each) for each in (value if isinstance(value, list) else sorted(value))]
    return type(value).__name__


@asynccontextmanager
async def working(app: Any) -> Any:
    """A worker of the app on this loop."""
    run = asyncio.create_task(app.run())
    await asyncio.sleep(0.1)
    try:
        yield run
    finally:
        app.stop()
        async with asyncio.timeout(30):
            await run


async def drain(app: Any) -> None:
    """Run what is ready."""
    app.burst = True
    async with asyncio.timeout(30):
        await app.run()


atexit.register(lambda: print("\n" + json.dumps(_SEEN)))
