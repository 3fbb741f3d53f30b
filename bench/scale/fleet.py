"""Many workers of one queue, played by the protocol alone over plain connections: no Ardiq, no tasks that run.

`python -m bench.scale.fleet URL WORKERS [beats]` joins them, says so in a line, and goes on until it is ended. Each has
two connections: it steps, completes at once what it was given, and blocks on its mailbox and its wake lists when there
is nothing; what it is handed comes by the mailbox. With `beats` it also beats once a second, and looks every five
seconds, as workers do; nothing is handed to one that does not beat.
"""

import asyncio
import itertools
import json
import resource
import socket
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ardiq import _core
from bench.server import BASE

_LEASE_MS = 60_000
_RESULT_TTL_MS = 300_000
_BEAT_S = 1.0
_BLOCK_S, _LONG_S = "5", "60"
_WANT = 16
_LANES = '["default"]'
_FUNCTIONS: dict[str, Any] = json.loads(_core.PROTOCOL)["functions"]
_STEP = _FUNCTIONS["step"]["reply"]
_HEADER, _REFUSAL, _CLAIM = (len(_STEP[part]) for part in ("header", "refusal", "record"))


class Link:
    """One connection: a command, then its reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()  # a beat and a step share one

    @classmethod
    async def to(cls, url: str) -> "Link":
        parts = urlsplit(url)
        if not parts.hostname:
            # An event loop takes a socket for connected while the server's queue of those that wait is full.
            opened = socket.socket(socket.AF_UNIX)
            opened.connect(parts.path)
            return cls(*await asyncio.open_unix_connection(sock=opened))
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def command(self, *words: str | bytes) -> Any:
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        async with self._turn:
            self._writer.write(b"*%d\r\n%b" % (len(parts), packed))
            return await self._reply()

    async def call(self, function: str, *records: str | bytes, **arguments: str | int) -> Any:
        """Call a function of the library."""
        names = [argument["name"] for argument in _FUNCTIONS[function]["args"]]
        values = [str(arguments[name]) for name in names]
        return await self.command(*_how[function], "1", BASE, *values, *records)

    async def _reply(self) -> Any:
        line = await self._reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else (await self._reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [await self._reply() for _ in range(int(rest))]
        if kind == b"-":
            raise SystemExit(f"the server answered {rest.decode()}")
        return rest


_how: dict[str, tuple[str | bytes, ...]] = {}


async def _prepare(link: Link) -> None:
    """How this server is asked for a function."""
    has_functions = await link.command("COMMAND", "INFO", "FCALL")
    for function in ("join", "step", "heartbeat"):
        if has_functions and has_functions[0]:
            _how[function] = ("FCALL", f"ardiq_v{_core.PROTOCOL_VERSION}_{function}")
        else:
            text, _ = _core.script(function)
            _how[function] = ("EVALSHA", await link.command("SCRIPT", "LOAD", text))


class Member:
    """One worker."""

    def __init__(self, number: int, link: Link, blocking: Link, block_s: str) -> None:
        self._name = f"member:{number:012x}"
        self._link, self._blocking, self._block_s = link, blocking, block_s

    async def join(self) -> None:
        told: dict[str, str | int] = {"lease_ms": _LEASE_MS, "info": "{}", "lanes": _LANES, "generation": 1}
        self._keys = await self._link.call("join", worker=self._name, **told)

    async def work(self) -> None:
        settled: list[str | bytes] = []
        for seq in itertools.count(1):
            told: dict[str, str | int] = {"worker": self._name, "seq": seq, "lanes": _LANES, "want": _WANT}
            told |= {"lease_ms": _LEASE_MS, "result_ttl_ms": _RESULT_TTL_MS, "hand_off": 1}
            reply = await self._link.call("step", *settled, **told)
            more, _, refused = map(int, reply[:_HEADER])
            settled = [word for claim in _claims(reply[_HEADER + refused * _REFUSAL :]) for word in _complete(claim)]
            if not settled and not more:
                woken = await self._blocking.command("BLPOP", *self._keys, self._block_s)
                if woken is not None and woken[0] == self._keys[0]:
                    _, *fields = _fields(woken[1])
                    settled = [word for claim in _claims(fields) for word in _complete(claim)]

    async def beat(self, after_s: float) -> None:
        await asyncio.sleep(after_s)  # not all at once
        told = {"lease_ms": _LEASE_MS, "result_ttl_ms": _RESULT_TTL_MS, "generation": 1}
        told |= {"max_lost": 3, "abandoned_threads": 0, "stalled_ms": 0}
        while True:
            await self._link.call("heartbeat", worker=self._name, **told)
            await asyncio.sleep(_BEAT_S)


def _claims(values: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(values), _CLAIM):
        yield values[at : at + _CLAIM]


def _fields(message: bytes) -> Iterator[bytes]:
    """Of a message in a mailbox: each its length, a colon, itself, a comma."""
    while message:
        length, _, rest = message.partition(b":")
        yield rest[: int(length)]
        message = rest[int(length) + 1 :]


def _complete(claim: list[bytes]) -> tuple[str | bytes, ...]:
    return (claim[0], claim[1], "complete", "0", "null", "")


async def main(url: str, count: int, beats: bool) -> None:
    await _prepare(await Link.to(url))
    block_s = _BLOCK_S if beats else _LONG_S
    members = [Member(number, await Link.to(url), await Link.to(url), block_s) for number in range(count)]
    for member in members:
        await member.join()
    async with asyncio.TaskGroup() as group:
        for number, member in enumerate(members):
            group.create_task(member.work())
            if beats:
                group.create_task(member.beat(_BEAT_S * number / count))
        print("joined", flush=True)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), "beats" in sys.argv[3:]))
