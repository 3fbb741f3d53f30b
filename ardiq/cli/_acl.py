"""The users of a server, each with no more rights than it needs."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _core
from .._server.commands import has_commands, writing_commands

_FUNCTIONS: dict[str, dict[str, Any]] = json.loads(_core.PROTOCOL)["functions"]
_SHARED: dict[str, str] = {name: entry["pattern"] for name, entry in json.loads(_core.PROTOCOL)["shared_keys"].items()}

_EVERYBODY = ("ping", "select", "client|setinfo", "hgetall")
_PRODUCERS = ("blpop", "lpop", "sadd", "wait")
# What the command line's looks send besides the queries; none of it writes.
_VIEWERS = ("info", "config|get", "time", "exists", "smembers", "zrange", "zrangebyscore", "hget", "hmget")
_WORKERS = ("client|unblock", "info")
# What the command line and `ardiq migrate` send besides the functions.
_OPERATORS = (
    *("info", "config|get", "time", "get", "set", "del", "exists", "smembers", "zrange", "zrangebyscore"),
    *("scan", "eval", "pexpire", "hget", "hmget", "hset", "hsetnx", "hdel"),
)


class _Role(NamedTuple):
    does: str
    also: Sequence[str]
    loads: bool


ROLES = {
    "producer": _Role("enqueues, waits for results, aborts", _PRODUCERS, loads=False),
    "worker": _Role("the same, and runs tasks", (*_PRODUCERS, *_WORKERS), loads=False),
    "operator": _Role("the command line, `ardiq migrate` included", (*_PRODUCERS, *_OPERATORS), loads=True),
    "viewer": _Role("looks, and can change nothing", _VIEWERS, loads=False),
}
"""The roles; for each there is a user `ardiq-<role>`."""


def lines(core: _core.Core, prefix: str, queues: Sequence[str]) -> list[str]:
    """The commands that make the users on a server of this kind.

    Args:
        core: a connection to the server, as somebody who may ask it about its commands.
        prefix: first part of every key.
        queues: the queues that producers, workers and viewers may touch; none: every one.
    """
    server = _Server(core)
    return [server.line(role, prefix, queues) for role in ROLES]


class _Server:
    def __init__(self, core: _core.Core) -> None:
        self._core = core
        # Whether it knows a command that is as old as separate rights for keys and for subcommands.
        self._has_functions = has_commands(core, ["FCALL"])[0]
        self._is_cluster = bool(core.primaries())

    def line(self, role: str, prefix: str, queues: Sequence[str]) -> str:
        prefix = _escaped(prefix)
        shared = {name: pattern.replace("<prefix>", prefix) for name, pattern in _SHARED.items()}
        keys = [f"~{prefix}:{{{_escaped(queue)}}}:*" for queue in queues] or [f"~{prefix}:{{*}}:*"]
        rules = ["reset", "on", f">{role.upper()}_PASSWORD"]
        if role == "viewer":
            keys = [self._only("R", key.removeprefix("~")) for key in keys]
            keys += [self._only("R", key) for key in shared.values()]
        elif role == "operator":
            keys = [f"~{prefix}:{{*}}:*", *(f"~{key}" for key in shared.values())]
        else:
            keys += [self._only("W", shared["queues"]), self._only("R", shared["schema"])]
        commands = self._known(self._commands(role))
        return " ".join(["ACL SETUSER", f"ardiq-{role}", *rules, *keys, *(f"+{command}" for command in commands)])

    def _commands(self, role: str) -> list[str]:
        called = [name for name, function in _FUNCTIONS.items() if _calls(role, function)]
        inside = sorted({command.lower() for name in called for command in _core.commands(name)})
        if role == "viewer":  # what queries share with transitions they do not call
            inside = sorted(set(inside) - writing_commands(self._core, inside))
        does = ROLES[role]
        if self._has_functions and role == "viewer":
            dispatch = ["fcall_ro", "function|list"]
        elif self._has_functions:
            dispatch = ["fcall", "function|list", *(["fcall_ro", "function|load", "function|delete"] * does.loads)]
        else:
            dispatch = ["evalsha", "script|load"]
        cluster = ["cluster|slots", "cluster|keyslot", "cluster|myid"] * self._is_cluster
        return list(dict.fromkeys([*dispatch, *_EVERYBODY, *does.also, *cluster, *inside]))

    def _only(self, right: str, key: str) -> str:
        """A key that may only be read, or only written, if the server tells the two apart."""
        return f"%{right}~{key}" if self._has_functions else f"~{key}"

    def _known(self, commands: list[str]) -> list[str]:
        """Those that the server has; a server that cannot name subcommands has those of its time."""
        asked = commands if self._has_functions else [command.partition("|")[0] for command in commands]
        return [
            command for command, is_there in zip(commands, has_commands(self._core, asked), strict=True) if is_there
        ]


def _calls(role: str, function: dict[str, Any]) -> bool:
    """Whether that is one of the functions which this role is for."""
    if role == "viewer":
        return bool(function["kind"] == "query")
    return bool({role, "producer"} & set(function["callers"]))


def _escaped(pattern: str) -> str:
    """A name as the pattern that fits it alone."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", pattern)
