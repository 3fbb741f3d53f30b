"""The `ardiq` command, and `python -m ardiq`: what comes before the import of Ardiq, which takes a while.

asyncio comes without OpenSSL until somebody wants TLS of it: 4 MiB that most workers never use; Ardiq's own TLS is
Rust's. asyncio imports `ssl` for those who may open encrypted connections by it. Here it gets stand-ins, which hand on
to the real modules, imported when they are first looked into. Everybody else's `import ssl` is the real one.
"""

import os
import sys

_LATE = ("ssl", "asyncio.sslproto")


def program() -> None:
    """Import and run the command; exit code 130 if that is interrupted."""
    try:
        import_asyncio()
        from .cli import program

        program()
    except KeyboardInterrupt:
        os._exit(130)


def import_asyncio() -> None:
    """Import it without OpenSSL; as usual, if it or `ssl` has been imported already, or this Python has no TLS."""
    from importlib import import_module
    from importlib.util import find_spec
    from types import ModuleType

    class Late(ModuleType):
        """Stands in for a module that is imported when one of its names is asked for."""

        def __getattr__(self, name: str) -> object:
            if sys.modules.get(self.__name__) is self:  # asked by what imports asyncio
                del sys.modules[self.__name__]
            return getattr(import_module(self.__name__), name)

    if {"asyncio", "ssl"} & sys.modules.keys() or find_spec("_ssl") is None:
        return
    late = {name: Late(name) for name in _LATE}
    sys.modules.update(late)
    try:
        vars(import_module("asyncio"))["sslproto"] = late["asyncio.sslproto"]
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


if __name__ == "__main__":
    program()
