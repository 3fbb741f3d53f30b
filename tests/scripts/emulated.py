"""Serves the emulation of `ardiq.testing.inline` on a socket, so that `tests/scripts` tells it every fixture.

What the library does not use is here and in `emulated.lua`: commands that the fixtures and the harness give a server,
and `maxmemory`.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ardiq import _core
from ardiq.testing._emulation import Emulation, Refused, Status, _library

OK = Status(b"OK")
FUNCTIONS: dict[str, Any] = json.loads(_core.PROTOCOL)["functions"]
PREFIX = f"ardiq_v{_core.PROTOCOL_VERSION}_"
_ABLE_WHEN_FULL = {"allow-oom", "no-writes"}

library = _library()
emulation = Emulation(lambda: time.time_ns() // 1000)
used = library.compile(Path(__file__).with_name("emulated.lua").read_bytes())(library.store, library.commands)
is_full = False
numbers = itertools.count(1)


def call_function(name: bytes, count: bytes, *rest: bytes) -> Any:
    function = name.decode().removeprefix(PREFIX)
    if is_full and not _ABLE_WHEN_FULL & set(FUNCTIONS[function]["flags"]):
        raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
    return emulation.call(function, rest[: int(count)], rest[int(count) :])


def function_(verb: bytes, *_: bytes) -> Any:
    if verb == b"LIST":
        name, code = f"ardiq_v{_core.PROTOCOL_VERSION}", _core.library()[0]
        return [[b"library_name", name.encode(), b"library_code", code.encode()]]
    return OK


def config(verb: bytes, *rest: bytes) -> Status:
    global is_full
    if verb == b"SET":
        is_full = dict(zip(rest[::2], rest[1::2], strict=True)).get(b"maxmemory", b"0") != b"0"
    else:
        for name in list(used):
            used[name] = None
    return OK


def evaluate(script: bytes, count: bytes, *rest: bytes) -> Any:
    run = library.compile(b"local KEYS, ARGV = ...\n" + script)
    return emulation.enter(run, library.table(rest[: int(count)]), library.table(rest[int(count) :]))


def info(*_: bytes) -> bytes:
    counts = [(name.decode().lower(), calls) for name, calls in used.items()]
    return "".join(f"cmdstat_{name}:calls={calls},x\r\n" for name, calls in counts).encode()


HARNESS: dict[bytes, Callable[..., Any]] = {
    b"HELLO": lambda *_: [b"server", b"valkey", b"version", b"8.0.0", b"id", next(numbers), b"mode", b"standalone"],
    b"CLIENT": lambda *_: OK,
    b"INFO": info,
    b"FUNCTION": function_,
    b"FCALL": call_function,
    b"CONFIG": config,
    b"EVAL": evaluate,
}


def answer(words: list[bytes]) -> Any:
    name = words[0].upper()
    try:
        return HARNESS[name](*words[1:]) if name in HARNESS else emulation.command(name, *words[1:])
    except Refused as error:
        return error


def written(reply: Any) -> bytes:
    if isinstance(reply, Refused):
        return f"-{reply}\r\n".encode()
    if isinstance(reply, Status):
        return b"+%b\r\n" % reply.text
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))
    return b"$-1\r\n" if reply is None else b":%d\r\n" % reply


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        writer.write(written(answer(words)))
        await writer.drain()


async def main(socket: str) -> None:
    server = await asyncio.start_unix_server(serve, socket)
    await server.serve_forever()


parser = argparse.ArgumentParser()
parser.add_argument("--unixsocket")
asyncio.run(main(parser.parse_known_args()[0].unixsocket))
