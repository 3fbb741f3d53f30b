"""Pauses without a server, for `inline`: what they stop waits until they end."""

from collections.abc import Callable, Mapping
from typing import Any

from .._values.codec import from_json, to_json
from ._inline_library import InlineLibrary, InlineTask

_WHOLE = "*()"


class InlinePauses:
    """The pauses of one queue.

    Args:
        library: the tasks.
        read: the arguments of a call, as plain data, from their bytes and codec.
    """

    def __init__(
        self, library: InlineLibrary, read: Callable[[bytes, bytes, str], tuple[list[Any], dict[str, Any]]]
    ) -> None:
        self._library = library
        self._read = read
        self._rules: dict[str, dict[str, Any]] = {}
        self._stopped: list[InlineTask] = []  # by the pause of the whole queue: they stay queued
        library.stops = self._stops
        self.functions: dict[str, Callable[..., Any]] = {
            "pause": self.pause, "resume": self.resume, "pauses": self.pauses,
        }  # fmt: skip

    def pause(self, task: str, argument: str, value: bytes, positions: bytes) -> bytes:
        """Stop what falls under it from now on."""
        rule = self._rules.setdefault(_id(task, argument, value), {"paused_at": self._library.now_ms()})
        if task:
            rule["task"] = task
        if argument:
            rule.update(argument=argument, value=value.decode())
            rule["positions"] = from_json(positions) | rule.get("positions", {})
        return b"paused"

    def resume(self, task: str, argument: str, value: bytes, _limit: int, _go_on: int) -> list[Any]:
        """held -> queued, for all that it stopped, in their order."""
        pause_id = _id(task, argument, value)
        if self._rules.pop(pause_id, None) is None:
            return [b"not_paused", 0, 0]
        if pause_id == _WHOLE:
            stopped, self._stopped = self._stopped, []
            self._library.ready.extend(stopped)
            return [b"resumed", 0, 0]
        held = self._held(pause_id)
        for each in held:
            each.write(state="queued", held_by="")
        self._library.ready.extend(held)
        return [b"resumed", len(held), 0]

    def pauses(self) -> list[Any]:
        """What is paused, and how much is held."""
        rules = self._rules.items()
        return [part for name, rule in rules for part in (name.encode(), to_json(rule), len(self._held(name)))]

    def _held(self, pause_id: str) -> list[InlineTask]:
        tasks = self._library.tasks.values()
        return [task for task in tasks if task.state == "held" and task.record["held_by"] == pause_id.encode()]

    def _stops(self, task: InlineTask) -> bool:
        """queued -> held, unless the whole queue is paused; whether it must not start."""
        if _WHOLE in self._rules:
            self._stopped.append(task)
            return True
        # As the server looks: by name first, then by argument, those of this name before those of any.
        for pause_id, rule in sorted(
            self._rules.items(), key=lambda item: ("argument" in item[1], "task" not in item[1])
        ):
            if self._falls_under(task.record, rule):
                task.write(state="held", held_by=pause_id)
                return True
        return False

    def _falls_under(self, record: Mapping[str, bytes], rule: Mapping[str, Any]) -> bool:
        name = record["name"].decode()
        if rule.get("task", name) != name:
            return False
        if "argument" not in rule:
            return True
        argument: str = rule["argument"]
        args, kwargs = self._read(record["args"], record["kwargs"], record["codec"].decode())
        position = int(argument) if argument.isdecimal() else rule["positions"].get(name, len(args))
        if argument in kwargs:
            value = kwargs[argument]
        elif position < len(args):
            value = args[position]
        else:
            return False
        return isinstance(value, str | int) and to_json(value) == rule["value"].encode()


def _id(task: str, argument: str, value: bytes) -> str:
    return f"{task or '*'}({argument}={value.decode()})" if argument else f"{task or '*'}()"
