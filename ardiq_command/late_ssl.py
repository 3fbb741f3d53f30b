"""asyncio without OpenSSL until somebody wants TLS of it: 4 MiB that most workers never use; Ardiq's own TLS is Rust's.

asyncio imports `ssl` for those who may open encrypted connections by it. Here it gets stand-ins, which hand on to the
real modules, imported when they are first looked into. Everybody else's `import ssl` is the real one.
"""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_LATE = ("ssl", "asyncio.sslproto")


class _Late(ModuleType):
    """Stands in for a module that is imported when one of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:  # asked by what imports asyncio
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_asyncio() -> None:
    """Import it so; as usual, if it or `ssl` has been imported already, or this Python has no TLS."""
    if {"asyncio", "ssl"} & sys.modules.keys() or find_spec("_ssl") is None:
        return
    late = {name: _Late(name) for name in _LATE}
    sys.modules.update(late)
    try:
        asyncio: Any = importlib.import_module("asyncio")
        asyncio.sslproto = late["asyncio.sslproto"]
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
