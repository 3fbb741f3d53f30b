"""Durable tasks: steps that run once, sleeps and waits that hold no worker.

For `async def` tasks; for `def` tasks there is a twin of each that ends in `_sync`.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from . import context
from ._execution.children import children_name
from ._execution.memos import SLEEP, VERSION, WAIT, Memos, Use, Waits, step_name, wait_ms_of
from ._values import options as _options
from ._values.kept import STEP, Hint
from ._values.options import Duration
from ._values.signature import MISSING
from .signals import Received, Signal, SignalOf
from .task import PreparedTask, Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


@overload
async def step(name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
async def step(name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
async def step(name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function once in the life of the task: the server keeps what it returned, and a later attempt gets that.

    It may run twice if the worker dies, or is stopped, before the result has arrived: pass `step_key()` on to whatever
    knows idempotency keys. One that raises is not kept. Several steps may run at once, with `asyncio.gather`.

    Args:
        name: of the step, in this task; one that is used again in the same attempt is stored as `name#2`.
        fn: what to call; a `def` runs on a thread.
        args, kwargs: its arguments.

    Returns:
        What it returned, of at most 1 MiB; if it did so in an earlier attempt, converted to the annotation.

    Raises:
        RuntimeError: outside of a task, in another step, or in a task with a `batch`.
        ValueError: the name is invalid, or that of a wait.
        InvalidResult: what it returned cannot be kept, or what is kept does not fit the annotation (any more).

    Example:
        ```python
        draft = await step("draft", ask_model, topic)
        await step("publish", publish, draft)
        ```
    """
    waits, memos = _memos("step")
    fn = _function(fn)
    use = memos.use(step_name(name), STEP)
    hint = _hint(waits, use, fn)
    found = await waits.on_loop(lambda way: memos.recall(way, use, hint))
    if found is not MISSING:
        return found
    with memos.running():
        token = context.running_step.set(memos.key_of(use))
        try:
            value = await _called(waits, fn, args, kwargs)
        finally:
            context.running_step.reset(token)
        return await waits.on_loop(lambda way: memos.keep(way, use, value, hint))


def step_sync(name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`step` for `def` tasks: the function, a `def`, runs in this thread."""
    waits, memos = _memos_sync("step")
    function = _function(fn)
    if _is_async(function):
        raise TypeError(f"step_sync calls a `def`; {function!r} is an `async def`, for `await step(…)`")
    use = memos.use(step_name(name), STEP)
    hint = _hint(waits, use, function)
    found: Any = waits.blocking(lambda way: memos.recall(way, use, hint))
    if found is MISSING:
        with memos.running():
            token = context.running_step.set(memos.key_of(use))
            try:
                value = function(*args, **kwargs)
            finally:
                context.running_step.reset(token)
            found = waits.blocking(lambda way: memos.keep(way, use, value, hint))
    result: T = found
    return result


def step_key() -> str:
    """In a function that runs as a step: `<task id>/<name of the step>`, the same whenever it runs again. Pass it on as
    an idempotency key.

    Raises:
        RuntimeError: outside of a step.

    Example:
        ```python
        async def charge(cents: int) -> str:
            return await bank.charge(cents, idempotency_key=step_key())
        ```
    """
    if not (key := context.running_step.get()):
        raise RuntimeError("step_key() is for a function that runs as a step: await step(name, function)")
    return key


async def sleep(name: str, duration: Duration) -> None:
    """Wait for a time, which deploys, crashes and restarts do not prolong. The attempt ends, so no slot is held, and
    another one goes on when the time is up. Under two seconds the attempt goes on itself.

    Args:
        name: of the wait, in this task.
        duration: a timedelta or seconds, at most a year. It counts from the first attempt that comes here.

    Raises:
        RuntimeError: outside of a task, in a step, in a task with a `batch`, or while the attempt waits already.
        TypeError: an argument has the wrong type.
        ValueError: one has an invalid value, or the name is that of a step.

    Example:
        ```python
        await sleep("three days", timedelta(days=3))
        ```
    """
    waits, memos = _memos("sleep")
    use, wait_ms = _sleep(memos, name, duration)
    await waits.on_loop(lambda way: memos.wait(way, use, (), wait_ms))


def sleep_sync(name: str, duration: Duration) -> None:
    """`sleep` for `def` tasks."""
    waits, memos = _memos_sync("sleep")
    use, wait_ms = _sleep(memos, name, duration)
    waits.blocking(lambda way: memos.wait(way, use, (), wait_ms))


@overload
async def wait_for(signal: SignalOf[T], /, *, timeout: Duration | None = None) -> T | None: ...
@overload
async def wait_for(
    first: SignalOf[T], second: SignalOf[U], /, *, timeout: Duration | None = None
) -> Received[T] | Received[U] | None: ...
@overload
async def wait_for(
    first: SignalOf[T], second: SignalOf[U], third: SignalOf[V], /, *, timeout: Duration | None = None
) -> Received[T] | Received[U] | Received[V] | None: ...
@overload
async def wait_for(
    first: SignalOf[Any],
    second: SignalOf[Any],
    third: SignalOf[Any],
    fourth: SignalOf[Any],
    /,
    *more: SignalOf[Any],
    timeout: Duration | None = None,
) -> Received[Any] | None: ...
async def wait_for(*signals: SignalOf[Any], timeout: Duration | None = None) -> Any:
    """Wait for a signal that somebody gives the task by `app.signal`. The attempt ends, so no slot is held, and another
    one goes on when it comes. One that came before is taken at once; each is taken once, the oldest first.

    Args:
        signals: which ones; the first of them that comes ends the wait.
        timeout: for how long, a timedelta or seconds, at most a year; 0: it takes what is there; None: without a limit.
            It counts from the first attempt that comes here.

    Returns:
        The value; of several signals a `Received` with `signal` and `value`. None when the time is up.

    Raises:
        RuntimeError: outside of a task, in a step, in a task with a `batch`, or while the attempt waits already.
        TypeError: something else than signals was given.
        ValueError: none was given, or one twice.
        InvalidArguments: the value does not fit the signal.

    Example:
        ```python
        if await wait_for(approval, timeout=timedelta(days=3)):
            await step("publish", publish, draft)
        ```
    """
    waits, memos = _memos("wait_for")
    use, wait_ms = _wait(memos, signals, timeout)
    return _value(signals, await waits.on_loop(lambda way: memos.wait(way, use, signals, wait_ms)))


@overload
def wait_for_sync(signal: SignalOf[T], /, *, timeout: Duration | None = None) -> T | None: ...
@overload
def wait_for_sync(
    first: SignalOf[T], second: SignalOf[U], /, *, timeout: Duration | None = None
) -> Received[T] | Received[U] | None: ...
@overload
def wait_for_sync(
    first: SignalOf[T], second: SignalOf[U], third: SignalOf[V], /, *, timeout: Duration | None = None
) -> Received[T] | Received[U] | Received[V] | None: ...
@overload
def wait_for_sync(
    first: SignalOf[Any],
    second: SignalOf[Any],
    third: SignalOf[Any],
    fourth: SignalOf[Any],
    /,
    *more: SignalOf[Any],
    timeout: Duration | None = None,
) -> Received[Any] | None: ...
def wait_for_sync(*signals: SignalOf[Any], timeout: Duration | None = None) -> Any:
    """`wait_for` for `def` tasks."""
    waits, memos = _memos_sync("wait_for")
    use, wait_ms = _wait(memos, signals, timeout)
    return _value(signals, waits.blocking(lambda way: memos.wait(way, use, signals, wait_ms)))


@overload
async def children(name: str, calls: Iterable[PreparedTask[R]], /) -> list[R]: ...
@overload
async def children(name: str, calls: Iterable[PreparedTask[R]], /, *, tolerate: float) -> list[R | None]: ...
async def children(name: str, calls: Iterable[PreparedTask[Any]], /, *, tolerate: float = 0) -> list[Any]:
    """Start calls in the queue of this task, and wait for their results. The attempt ends, so no slot is held, and
    another one goes on when all have ended. They are started once, whatever happens to this task and its workers: a
    later attempt gets their results.

    They are a workflow, whose id is the task's, a dot and the name. If this task ends before they do, they are aborted.

    Args:
        name: of these calls, in this task: up to 100 letters, digits, `_`, `.` and `-`.
        calls: up to 1,000, from `task.prepare(…)`.
        tolerate: how many may fail: a number, or a part of them as 0.01. In the place of its result such a one has
            None.

    Returns:
        Their results, in the order of the calls.

    Raises:
        ChildrenFailed: more did not complete. It names them; this task fails without a retry if it does not catch it.
        RuntimeError: outside of a task, in a step, in a task with a `batch`, or while the attempt waits already.
        TypeError: something else than calls was given, or an argument does not fit its task.
        ValueError: the name is invalid, or used twice; a call is for another queue; or there are too many.

    Example:
        ```python
        pages = await children("pages", [fetch.prepare(url) for url in urls])
        ```
    """
    waits, memos = _memos("children")
    use, family = memos.family(children_name(name), calls, tolerate)
    if not family.calls:
        return []
    return await waits.on_loop(lambda way: memos.wait_for_children(way, use, family))


@overload
def children_sync(name: str, calls: Iterable[PreparedTask[R]], /) -> list[R]: ...
@overload
def children_sync(name: str, calls: Iterable[PreparedTask[R]], /, *, tolerate: float) -> list[R | None]: ...
def children_sync(name: str, calls: Iterable[PreparedTask[Any]], /, *, tolerate: float = 0) -> list[Any]:
    """`children` for `def` tasks."""
    waits, memos = _memos_sync("children")
    use, family = memos.family(children_name(name), calls, tolerate)
    if not family.calls:
        return []
    return waits.blocking(lambda way: memos.wait_for_children(way, use, family))


async def version(name: str, number: int) -> int:
    """Which version of its code the task follows, so that tasks under way finish as they began: the number is stored
    where a task first comes here, and stays the same for all its attempts.

    Call it where the code differs. A task that was past this place before the version was there gets 1: one with steps
    or waits of earlier attempts that this attempt has not come to yet.

    Args:
        name: of what changed, in this task.
        number: the newest version, from 1.

    Raises:
        RuntimeError: outside of a task, in a step, or in a task with a `batch`.
        TypeError: an argument has the wrong type.
        ValueError: one has an invalid value.

    Example:
        ```python
        if await version("discounts", 2) >= 2:
            await step("discount", discount, order)
        ```
    """
    waits, memos = _memos("version")
    use, newest = _version(memos, name, number)
    return await waits.on_loop(lambda way: memos.version(way, use, newest))


def version_sync(name: str, number: int) -> int:
    """`version` for `def` tasks."""
    waits, memos = _memos_sync("version")
    use, newest = _version(memos, name, number)
    return waits.blocking(lambda way: memos.version(way, use, newest))


def _memos(what: str) -> tuple[Waits, Memos]:
    """What the attempt that runs here knows.

    Raises:
        RuntimeError: there is none, or it has no use for that.
    """
    claim, waits, task = context.running.get(), context.waits.get(), context.current_task()
    if claim is None or waits is None or task is None:
        raise RuntimeError(
            f"{what} is for a running task: call it in a function that a worker runs, or within inline(app)"
        )
    if task.batch:
        raise RuntimeError(
            f"{what} in task {task.name!r}, which has a batch: each of its items ends for itself; let one task of its "
            "own do this"
        )
    if key := context.running_step.get():
        raise RuntimeError(f"{what} within the step {key.partition('/')[2]!r}: call it in the task itself")
    return waits, waits.of(claim)


def _memos_sync(what: str) -> tuple[Waits, Memos]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _memos(f"{what}_sync")
    raise RuntimeError(f"{what}_sync would block the event loop: use `await {what}(…)`")


def _function(fn: Any) -> Callable[..., Any]:
    """What a step calls; of a task its function."""
    function: Callable[..., Any] = _options.required_callable("a step", fn)
    return function if not isinstance(function, Task) or function.fn is None else function.fn


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


async def _called(waits: Waits, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if _is_async(fn):
        return await fn(*args, **kwargs)
    value = await waits.in_thread(fn, args, kwargs)
    return await value if inspect.isawaitable(value) else value


def _hint(waits: Waits, use: Use, fn: Callable[..., Any]) -> Callable[[], Hint]:
    return lambda: Hint.of_result(use.name, fn, waits.queue.settings.check_types)


def _sleep(memos: Memos, name: str, duration: Duration) -> tuple[Use, int]:
    wait_ms = wait_ms_of("duration", duration)
    return memos.use(step_name(name), SLEEP), wait_ms


def _wait(memos: Memos, signals: tuple[Any, ...], timeout: Duration | None) -> tuple[Use, int]:
    for each in signals:
        if not isinstance(each, Signal):
            raise TypeError(f"wait_for takes signals, as Signal('approval', bool), not {each!r}")
    names = [each.name for each in signals]
    if not names:
        raise ValueError("wait_for needs a signal to wait for")
    if len(set(names)) < len(names):
        raise ValueError(f"wait_for was given a signal twice: {', '.join(names)}")
    wait_ms = -1 if timeout is None else wait_ms_of("timeout", timeout)
    return memos.use(f"{WAIT}:{','.join(names)}", WAIT), wait_ms


def _value(signals: tuple[Any, ...], found: Received[Any] | None) -> Any:
    return found.value if found is not None and len(signals) == 1 else found


def _version(memos: Memos, name: str, number: int) -> tuple[Use, int]:
    newest = _options.integer("the number of a version", number, least=1)
    return memos.use(f"{VERSION}:{step_name(name)}", VERSION), newest
