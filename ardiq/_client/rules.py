"""Naming tasks by their name and an argument's value, as the library takes it: for pauses and searches."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .._values.encodings import from_json, to_json

if TYPE_CHECKING:
    from .queue import QueueContext

Argument: TypeAlias = Mapping[str, Any] | Mapping[int, Any]
Rule: TypeAlias = tuple[str, str, bytes]  # task, argument, value


def rule_of(
    queue: "QueueContext", task: str, argument: Argument | None, *, lenient: bool = False
) -> tuple[Rule, dict[str, int]]:
    """What names the tasks, and where their argument is passed by position. `task`: empty for any."""
    if argument is None:
        return (task, "", b""), {}
    if len(argument) != 1:
        raise ValueError(f"argument must be one argument and its value, as {{'customer_id': 42}}, not {argument!r}")
    if queue.codec.is_custom:
        raise ValueError("this app has its own serializer, whose arguments the server cannot read: name the task only")
    key: Any
    ((key, value),) = argument.items()
    if not (key.isidentifier() if isinstance(key, str) else key >= 0):
        raise ValueError(f"an argument must be given by its parameter's name or its position from 0, not {key!r}")
    text = to_json(value)
    if not isinstance(from_json(text), str | int):  # a bool is an int
        raise ValueError(f"only a string, an integer or a boolean can be matched, not {value!r}")
    positions = {} if isinstance(key, int) else dict(_positions(queue, task, key, lenient))
    return (task, str(key), text), positions


def _positions(queue: "QueueContext", task: str, parameter: str, lenient: bool) -> Iterator[tuple[str, int]]:
    """Where the tasks that this app knows take it by position."""
    known = {
        name: entry.signature
        for name, entry in queue.registry.tasks.items()
        if task in ("", name) and entry.signature is not None
    }
    if known and not lenient and not any(signature.accepts(parameter) for signature in known.values()):
        whose = f"task {task!r} does not have" if task else "no task of this app has"
        raise ValueError(f"{whose} a parameter {parameter!r}")
    for name, signature in known.items():
        position = signature.position(parameter)
        if position is not None:
            yield name, position
