"""What tests ask of what was enqueued, and what keeps them from a server that is not theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec
from unittest import mock

from .._client.inspector import text_of
from .._server import calls
from .._server.commands import task_ids
from .._server.replies import ask
from .._server.server import Server
from .._values.signature import Signature
from ..models import TaskInfo
from ..task import Task

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from ..app import Ardiq

P = ParamSpec("P")

_UNFINISHED = ("scheduled", "queued", "limited", "held", "blocked", "away", "running")
_LISTED = 10


def all_enqueued(of: "Ardiq | Task[..., Any]") -> list[TaskInfo]:
    """What was enqueued so far, whatever happened to it since, the oldest first.

    Within `inline`, that is since the block began; on a server (`on_server`, the fixture `ardiq_app`), all tasks in the
    app's queues, finished ones as long as their results are kept. It blocks, and reads every record.

    Args:
        of: the app, for all its tasks on all queues that it used; `app.queue(name)` for one; or a task.

    Example:
        ```python
        sign_up("Ada")
        assert [task.args for task in all_enqueued(greet)] == [("Ada",)]
        ```
    """
    return [info for info, _ in _found(of)]


def assert_enqueued(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> TaskInfo:
    """Fail unless this call of a task was enqueued; see `all_enqueued`.

    Arguments are compared as the task receives them: by position or keyword, with defaults, decoded.

    Args:
        task: the task; `app.ref(name)` for one that is registered elsewhere.
        args: the positional arguments of the call.
        kwargs: the keyword arguments.

    Returns:
        The task that was found; if several, the newest one.

    Raises:
        AssertionError: there is no such call; the message lists what was enqueued.
        TypeError: the arguments do not fit the task.

    Example:
        ```python
        sign_up("Ada")
        assert_enqueued(greet, "Ada", polite=True)
        ```
    """
    signature = task.signature or task.context.registry.signature_of(task.name)
    wanted = _received(task.context, signature, task.context.codec.encode_fitting(task.name, signature, args, kwargs))
    found = _found(task)
    fits = [info for info, call in found if _received(task.context, signature, call) == wanted]
    if fits:
        return fits[-1]
    there = "".join(f"\n  {_call(task.name, info.args, info.kwargs)}, {info.status}" for info, _ in found[-_LISTED:])
    there = f"; of that task, these were:{there}" if found else f", nor was any other {task.name!r}"
    raise AssertionError(f"{_call(task.name, args, kwargs)} was not enqueued{there}")


@contextmanager
def no_server() -> Iterator[None]:
    """Within the `with` block, any call that would reach a real server fails.

    `inline`, `on_server` (and so the fixtures of the pytest plugin) and `embedded://` are allowed. The block also fails
    at its end if the code under test caught the error.

    Raises:
        AssertionError: a server would have been reached; the message names it and the queue.

    Example:
        ```python
        with no_server():
            sign_up("Ada")  # fails if it enqueues for real
        ```
    """
    tried: list[AssertionError] = []

    def refuse(server: Server) -> None:
        if server.is_lent or server.url == "embedded://":
            return
        where = f"queue {server.queue!r} of {server.shown_url}"
        error = AssertionError(
            f"a test would have reached {where}: use inline(app), on_server(app, …) or the fixture ardiq_app"
        )
        tried.append(error)
        raise error

    core, channel = Server.core, Server.channel

    def guarded_core(server: Server) -> Any:
        refuse(server)
        return core.fget(server)  # type: ignore[attr-defined]

    def guarded_channel(server: Server, loop: Any) -> Any:
        refuse(server)
        return channel(server, loop)

    guarded = mock.patch.object(Server, "core", property(guarded_core))
    with guarded, mock.patch.object(Server, "channel", guarded_channel):
        yield
    if tried:
        raise tried[0]


def _records(queue: "QueueContext") -> Iterator[tuple[str, dict[str, bytes]]]:
    core = queue.server.core
    for task_id in task_ids(core, queue.server.base):
        record = ask(core, calls.task(id=task_id))
        if record and "kind" not in record:  # a workflow, or a map, is no task itself
            yield task_id, record


def _found(of: "Ardiq | Task[..., Any]") -> list[tuple[TaskInfo, tuple[bytes, bytes, str]]]:
    """What was enqueued, the oldest first: how it is, and its arguments, keywords and codec as they travel."""
    context, name = of.context, of.name if isinstance(of, Task) else None
    found = []
    for each in context.family.values() if context.is_own else [context]:
        for task_id, record in _records(each):
            state = text_of(record, "state")
            info = each.inspector.info_of(task_id, record, state if state in _UNFINISHED else "complete")
            if name in (None, info.fn_name):
                found.append((info, (record.get("args", b"[]"), record.get("kwargs", b""), text_of(record, "codec"))))
    return sorted(found, key=lambda pair: pair[0].enqueue_time)


def _received(queue: "QueueContext", signature: Signature | None, call: tuple[bytes, bytes, str]) -> object:
    """A call as the function gets it; one that does not fit it as it is."""
    try:
        args, kwargs = queue.codec.receive_call(*call, signature)
    except TypeError:
        return queue.codec.decode_call(*call, None)
    if signature is None:
        return args, kwargs
    return signature.bind(args, kwargs)


def _call(name: str, args: Any, kwargs: dict[str, Any]) -> str:
    return f"{name}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in kwargs.items())])})"
