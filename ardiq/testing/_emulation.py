"""A server in this process: the real Lua library, in an interpreter of its own, on keys in memory.

Keys and commands are Lua, too (`keys.lua`, `commands.lua`), so that a call crosses from Python once, and back once.
"""

import hashlib
import importlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .. import _core
from ..errors import ArdiqError

_LOCK = threading.Lock()  # one call at a time, as a server carries them out


class Refused(ArdiqError):
    """What a server answers to a command, or a function, that it does not carry out; begins with a code."""


class Status(NamedTuple):
    """A reply like `OK`, which is no bulk of bytes."""

    text: bytes


class Emulation:
    """What answers calls of the library's functions as a Redis server does. From any thread.

    Args:
        now_us: its clock, in microseconds.
        stands_still: of a clock that does, or leaps: keys do not end by themselves, and members of one score come in
            the order in which they were put, since many have the same time.

    Raises:
        RuntimeError: the interpreter is not installed.
    """

    def __init__(self, now_us: Callable[[], int], stands_still: bool = False) -> None:
        self._now_us = now_us
        self._library = _library()
        self._keys = self._library.new(stands_still)

    def call(self, function: str, bases: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """The reply of a function: integers, bytes, lists of them, None; of errors those within a list.

        Args:
            bases: its keys, one where the call is right.

        Raises:
            Refused: it is an error.
        """
        table = self._library.table
        return self.enter(self._library.functions[function], table(bases), table(args))

    def command(self, name: bytes, *args: bytes) -> Any:
        """The reply of a command.

        Raises:
            Refused: it is an error.
        """
        return self.enter(self._library.command, name, *args)

    def holds(self, key: bytes) -> bool:
        """Whether there is something under a key."""
        return self._library.find(self._keys, key) is not None

    def enter(self, what: Any, *args: Any) -> Any:
        """The reply of a function of Lua's, on these keys.

        Raises:
            Refused: it is an error.
        """
        with _LOCK:
            reply = self._library.enter(self._keys, self._now_us(), what, *args)
        if isinstance(reply, Refused):
            raise reply
        return reply


class _Library:
    """The library of this build, loaded. It is loaded once a process: that takes a few milliseconds."""

    def __init__(self) -> None:
        self._lua = _interpreter().LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self.table = self._lua.table_from
        self.store = store = self.compile("keys.lua")()
        self.commands = self.compile("commands.lua")(store)
        payload = _core.library()[0].encode()
        given = (_sha1hex, self._unpack_msgpack, _listed, _refused, Status)
        entrances = self.compile("emulation.lua")(store, self.commands, payload, *given)
        self.enter, self.new, self.find = (entrances[name] for name in (b"enter", b"new", b"find"))
        self.command = entrances[b"command"]
        prefix = f"ardiq_v{_core.PROTOCOL_VERSION}_"
        functions = entrances[b"functions"].items()
        self.functions = {name.decode().removeprefix(prefix): function for name, function in functions}

    def compile(self, source: str | bytes) -> Any:
        """A chunk: the text, or the file of that name."""
        text = source if isinstance(source, bytes) else Path(__file__).with_name(source).read_bytes()
        return self._lua.compile(text, name=b"@" + (source if isinstance(source, str) else "script").encode())

    def _unpack_msgpack(self, text: bytes) -> Any:
        return self._of_python(msgspec.msgpack.decode(text))

    def _of_python(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return self.table([self._of_python(item) for item in value])
        if isinstance(value, dict):
            pairs = value.items()
            return self.table({self._of_python(name): self._of_python(item) for name, item in pairs})
        return value


def _interpreter() -> Any:
    """That of Lua 5.1, as servers have it; LuaJIT where lupa brings it, whose interpreter takes half the time."""
    for name in ("luajit21", "lua51"):
        with suppress(ImportError):
            return importlib.import_module(f"lupa.{name}")
    raise RuntimeError("inline(app) runs Ardiq's Lua in this process: pip install 'ardiq[testing]'")


@cache
def _library() -> _Library:
    return _Library()


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text).hexdigest().encode()


def _listed(to: list[Any] | None, *items: Any) -> list[Any]:
    if to is None:
        return list(items)
    to += items
    return to


def _refused(text: bytes) -> Refused:
    return Refused(text.decode(errors="replace"))
