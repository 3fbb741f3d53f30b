"""Pausing: keeping tasks from starting, by queue, workflow, task name, or an argument's value."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from ._client.facade import Facade
from ._client.resuming import Resuming, resumed
from ._client.rules import Argument, Rule, rule_of
from ._server import calls
from ._server.replies import Call, R, ask, at_once
from ._values.encodings import from_json, to_json
from ._values.objects import as_object
from .task import Task


@as_object
class Pause(NamedTuple):
    """A pause.

    Attributes:
        id: what `redis-cli` shows: `send()`, `send(customer=42)`, `*(customer=42)`, `*()` for the whole queue, or
            `order-17~*` for a workflow.
        task: the name of the tasks it covers; None: any.
        argument: the name or position of an argument they must have; None: any arguments.
        value: the value of that argument.
        paused_at: since when, in ms since the epoch.
        held: how many tasks are set aside for it.
        resuming: whether it was ended, and its tasks are returning to their lanes.
        workflow: the id of the workflow whose tasks it covers; None: it is of no workflow.
    """

    id: str
    task: str | None
    argument: str | int | None
    value: str | int | bool | None
    paused_at: int
    held: int
    resuming: bool
    workflow: str | None = None


class Pausing(Facade):
    """What an app pauses; a part of `Ardiq`."""

    async def pause(self, task: Task[..., Any] | str | None = None, *, argument: Argument | None = None) -> None:
        """Keep tasks from starting: all of the queue, those of one name, or those with a given argument.

        It applies to all workers at once, until `resume`. Tasks that a worker has already taken still run. Nothing is
        lost: waiting tasks keep waiting, and you can enqueue more.

        Args:
            task: a task or its name; None: any.
            argument: one argument and its value, such as `{"customer_id": 42}`: a string, an integer, a boolean, or
                something that travels as one of these (a UUID, an enum). A name matches a keyword argument, and a
                positional one in tasks that this app knows; a number is a position from 0. An argument left at its
                default does not match.

        Raises:
            ValueError: not exactly one argument, a value that cannot be matched, a parameter that the task does not
                have, or an app with its own serializer, whose arguments the server cannot read.
            BadArgument: the queue already has 500 pauses.

        Example:
            ```python
            await app.pause(argument={"customer_id": 42})
            ```
        """
        await self._ask(self._pausing(task, argument))

    def pause_sync(self, task: Task[..., Any] | str | None = None, *, argument: Argument | None = None) -> None:
        """`pause` for code without an event loop; blocks this thread until the server has answered."""
        ask(self.context.server.core, self._pausing(task, argument))

    async def resume(self, task: Task[..., Any] | str | None = None, *, argument: Argument | None = None) -> bool:
        """End the pause that was made with the same arguments, and return the tasks it held to their lanes, in order.

        Returns:
            False if there is no such pause.
        """
        rule, _ = self._pause(task, argument, lenient=True)
        return await resumed(self._ask, _resuming(rule))

    def resume_sync(self, task: Task[..., Any] | str | None = None, *, argument: Argument | None = None) -> bool:
        """`resume` for code without an event loop; blocks this thread until all tasks are back."""
        rule, _ = self._pause(task, argument, lenient=True)
        return at_once(self.context.server.core, lambda ask: resumed(ask, _resuming(rule)))

    async def pauses(self) -> list[Pause]:
        """All pauses, oldest first."""
        return read_pauses(await self._ask(calls.pauses()))

    def pauses_sync(self) -> list[Pause]:
        """`pauses` for code without an event loop; blocks this thread until the server has answered."""
        return read_pauses(ask(self.context.server.core, calls.pauses()))

    def _pause(
        self, task: Task[..., Any] | str | None, argument: Argument | None, *, lenient: bool = False
    ) -> tuple[Rule, dict[str, int]]:
        """What names a pause to the library, and where its argument is passed by position."""
        name: Any = task.name if isinstance(task, Task) else "" if task is None else task
        if not isinstance(name, str) or (not name and task is not None):
            raise TypeError(f"task must be a task or its name, not {task!r}")
        return rule_of(self.context, name, argument, lenient=lenient)

    def _pausing(self, task: Task[..., Any] | str | None, argument: Argument | None) -> Call[Literal["paused"]]:
        (name, key, value), positions = self._pause(task, argument)
        return calls.pause(task=name, argument=key, value=value, positions=to_json(positions))

    async def _ask(self, call: Call[R]) -> R:
        return await self.context.channel().ask(call)


def _resuming(rule: Rule) -> Resuming:
    task, argument, value = rule
    return lambda goes_on: calls.resume(
        task=task, argument=argument, value=value, limit=calls.RESUME_LIMIT_MOST, resuming=goes_on
    )


def read_pauses(rows: Iterable[calls.PauseRow]) -> list[Pause]:
    """What the query `pauses` replies."""
    pauses = []
    for row in rows:
        rule = _sensible(row.definition)
        argument = rule.get("argument")
        pauses.append(
            Pause(
                row.pause,
                rule.get("task"),
                int(argument) if argument is not None and argument.isdecimal() else argument,
                None if argument is None else from_json(rule["value"].encode()),
                int(rule.get("paused_at", 0)),
                row.held,
                bool(rule.get("resuming")),
                rule.get("workflow"),
            )
        )
    return sorted(pauses, key=lambda pause: (pause.paused_at, pause.id))


def _sensible(rule: dict[str, Any]) -> dict[str, Any]:
    """A pause as it is stored; empty for an invalid one that somebody wrote by hand, which stops nothing."""
    try:
        if rule.get("argument") is not None:
            from_json(rule["value"].encode()), rule["argument"].isdecimal()
    except (ValueError, TypeError, AttributeError, KeyError):
        return {}
    return rule
