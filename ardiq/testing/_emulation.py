"""A server in this process: the real Lua library, in an interpreter of its own, on keys in memory."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from .. import _core
from ._commands import COMMANDS
from ._keys import Keys, Refused, Status

_LOCK = threading.Lock()  # one call at a time, as a server carries them out


class Emulation:
    """What answers calls of the library's functions as a Redis server does. From any thread.

    Args:
        now_us: its clock, in microseconds.
        stands_still: see `Keys`.

    Raises:
        RuntimeError: the interpreter is not installed.
    """

    def __init__(self, now_us: Callable[[], int], stands_still: bool = False) -> None:
        self.keys = Keys(now_us, stands_still)
        self._library = _library()

    def call(self, function: str, bases: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """The reply of a function: integers, bytes, lists of them, None; of errors those within a list.

        Args:
            bases: its keys, one where the call is right.

        Raises:
            Refused: it is an error.
        """
        with _LOCK:
            self.keys.turn()
            reply = self._library.call(self.keys, function, bases, args)
        if isinstance(reply, Refused):
            raise reply
        return reply

    def command(self, name: bytes, *args: bytes) -> Any:
        """The reply of a command.

        Raises:
            Refused: it is an error.
        """
        with _LOCK:
            self.keys.turn()
            return COMMANDS[name](self.keys, *args)


class _Library:
    """The library of this build, loaded. It is loaded once a process: that takes a few milliseconds."""

    def __init__(self) -> None:
        try:
            from lupa import lua51
        except ImportError:
            raise RuntimeError("inline(app) runs Ardiq's Lua in this process: pip install 'ardiq[testing]'") from None
        self._lua = lua51.LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self._keys: Keys
        prepare = self._lua.compile(Path(__file__).with_name("emulation.lua").read_bytes())
        functions = prepare(self._run, _sha1hex, self._unpack_msgpack, _core.library()[0].encode())
        prefix = f"ardiq_v{_core.PROTOCOL_VERSION}_"
        self._functions = {name.decode().removeprefix(prefix): function for name, function in functions.items()}

    def call(self, keys: Keys, function: str, bases: Sequence[bytes], args: Sequence[bytes]) -> Any:
        self._keys = keys
        table = self._lua.table_from
        return self._read(self._functions[function](table(bases), table(args)))

    def _run(self, name: bytes, *args: Any) -> Any:
        """Carry out a command for Lua."""
        try:
            words = [word if type(word) is bytes else b"%.17g" % word for word in args]
            reply = COMMANDS[name](self._keys, *words)
        except Refused as error:
            return self._lua.table_from({b"err": str(error).encode()})
        return self._given(reply)

    def _given(self, reply: Any) -> Any:
        """A command's reply as Lua gets it."""
        kind = type(reply)
        if kind is bytes or kind is int:
            return reply
        if reply is None:
            return False
        if kind is list:
            return self._lua.table_from([item if type(item) is bytes else self._given(item) for item in reply])
        return self._lua.table_from({b"ok": bytes(reply)})  # a status

    def _read(self, reply: Any) -> Any:
        """What Lua replies, as a client gets it."""
        if isinstance(reply, bytes):
            return reply
        if isinstance(reply, bool) or reply is None:
            return 1 if reply else None
        if isinstance(reply, int | float):
            return int(reply)
        if reply[b"err"] is not None:
            return Refused(reply[b"err"].decode(errors="replace"))
        if reply[b"ok"] is not None:
            return Status(reply[b"ok"])
        items: list[Any] = []
        while (item := reply[len(items) + 1]) is not None:
            items.append(self._read(item))
        return items

    def _unpack_msgpack(self, text: bytes) -> Any:
        return self._of_python(msgspec.msgpack.decode(text))

    def _of_python(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return self._lua.table_from([self._of_python(item) for item in value])
        if isinstance(value, dict):
            pairs = value.items()
            return self._lua.table_from({self._of_python(name): self._of_python(item) for name, item in pairs})
        return value


@cache
def _library() -> _Library:
    return _Library()


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text).hexdigest().encode()
