"""Serves the emulation of `ardiq.testing.inline` on a socket, so that `tests/scripts` tells it every fixture.

What the library does not use is here: commands that the fixtures and the harness give a server, and `maxmemory`.
"""

import argparse
import asyncio
import copy
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ardiq import _core
from ardiq.testing import _emulation
from ardiq.testing._commands import COMMANDS
from ardiq.testing._keys import Keys, Refused, SortedSet, Status, integer, number, shown

OK = Status(b"OK")
FUNCTIONS: dict[str, Any] = json.loads(_core.PROTOCOL)["functions"]
PREFIX = f"ardiq_v{_core.PROTOCOL_VERSION}_"
_ABLE_WHEN_FULL = {"allow-oom", "no-writes"}

emulation = _emulation.Emulation(lambda: time.time_ns() // 1000)
keys: Keys = emulation.keys
used: Counter[bytes] = Counter()
images: dict[bytes, Any] = {}
is_full = False
numbers = itertools.count(1)


def counted(name: bytes, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        used[name] += 1
        return function(*args)

    return run


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
        used.clear()
    return OK


def flush() -> Status:
    keys.held.clear()
    keys.ends_at.clear()
    return OK


def set_(name: bytes, value: bytes, *options: bytes) -> Status:
    if not options:
        keys.drop(name)
    keys.held[name] = value
    return OK


def lset(name: bytes, index: bytes, value: bytes) -> Status:
    keys.held[name][int(index)] = value
    return OK


def lrem(name: bytes, _: bytes, value: bytes) -> int:
    kept = [item for item in keys.held[name] if item != value]
    removed = len(keys.held[name]) - len(kept)
    keys.held[name] = kept
    keys.tidy(name)
    return removed


def zincrby(name: bytes, by: bytes, member: bytes) -> bytes:
    held = keys.write(name, SortedSet)
    score = (held.score(member) or 0) + number(by)
    held.put(member, score)
    return shown(score)


def pexpireat(name: bytes, at: bytes) -> int:
    if integer(at) * 1000 <= keys.now_us:
        return int(keys.drop(name))
    keys.expire(name, integer(at))
    return 1


def dump(name: bytes) -> bytes:
    images[image := b"%d" % next(numbers)] = copy.deepcopy(keys.held[name])
    return image


def restore(name: bytes, at: bytes, image: bytes, *_: bytes) -> Status:
    keys.held[name] = copy.deepcopy(images[image])
    if at != b"0":
        keys.expire(name, integer(at))
    return OK


def evaluate(script: bytes, count: bytes, *rest: bytes) -> Any:
    library = _emulation._library()
    library._keys = keys
    run = library._lua.compile(b"local KEYS, ARGV = ...\n" + script)
    table = library._lua.table_from
    return library._read(run(table(rest[: int(count)]), table(rest[int(count) :])))


def info(*_: bytes) -> bytes:
    return "".join(f"cmdstat_{name.decode().lower()}:calls={calls},x\r\n" for name, calls in used.items()).encode()


HARNESS: dict[bytes, Callable[..., Any]] = {
    b"HELLO": lambda *_: [b"server", b"valkey", b"version", b"8.0.0", b"id", next(numbers), b"mode", b"standalone"],
    b"CLIENT": lambda *_: OK,
    b"INFO": info,
    b"FUNCTION": function_,
    b"FCALL": call_function,
    b"CONFIG": config,
    b"FLUSHALL": flush,
    b"DBSIZE": lambda: len(keys.held),
    b"KEYS": lambda _: list(keys.held),
    b"SET": set_,
    b"GET": lambda name: keys.held.get(name),
    b"LSET": lset,
    b"LREM": lrem,
    b"ZINCRBY": zincrby,
    b"PEXPIREAT": pexpireat,
    b"PEXPIRETIME": lambda name: keys.ends_at.get(name, -1) if name in keys.held else -2,
    b"PERSIST": lambda name: int(keys.ends_at.pop(name, None) is not None),
    b"DUMP": dump,
    b"RESTORE": restore,
    b"EVAL": evaluate,
}


def answer(words: list[bytes]) -> Any:
    name = words[0].upper()
    try:
        keys.turn()
        return HARNESS[name](*words[1:]) if name in HARNESS else emulation.command(name, *words[1:])
    except Refused as error:
        return error


def written(reply: Any) -> bytes:
    if isinstance(reply, Refused):
        return f"-{reply}\r\n".encode()
    if isinstance(reply, Status):
        return b"+%b\r\n" % reply
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


for known in COMMANDS:
    COMMANDS[known] = counted(known, COMMANDS[known])
parser = argparse.ArgumentParser()
parser.add_argument("--unixsocket")
asyncio.run(main(parser.parse_known_args()[0].unixsocket))
