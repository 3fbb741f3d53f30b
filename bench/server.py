"""The server of a benchmark: started for it, asked for its own accounts, stopped after it."""

import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BASE = "ardiq:{bench}:"


class Server:
    """A server on a unix socket, or on a loopback port.

    Its commands go over a small client of its own: what is measured should not measure itself.
    """

    def __init__(self, binary: str, settings: dict[str, str], *, tcp: bool) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="ardiq-bench-"))
        settings = {**settings, "dir": str(self._directory), "logfile": "server.log"}
        if tcp:
            self._address: tuple[str, int] | str = ("127.0.0.1", _free_port())
            settings |= {"bind": "127.0.0.1", "port": str(self._address[1])}
            self.url = f"redis://127.0.0.1:{self._address[1]}"
        else:
            self._address = str(self._directory / "socket")
            settings |= {"port": "0", "unixsocket": self._address}
            self.url = f"unix://{self._address}"
        command = [binary]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._socket = self._connect()
        self._replies = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()
        shutil.rmtree(self._directory)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
            link = socket.socket(family)
            try:
                link.connect(self._address)
                return link
            except OSError:
                link.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start: {self._process.args!r}") from None
                time.sleep(0.02)

    def restart(self, down_s: float) -> None:
        """Stop it as an operator does; start it again after this time, with its settings and files."""
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        time.sleep(down_s)
        self._process = subprocess.Popen(self._process.args, stdout=subprocess.DEVNULL)
        self._socket = self._connect()
        self._replies = self._socket.makefile("rb")

    def command(self, *words: str | int) -> Any:
        """The reply of one command."""
        parts = [str(word).encode() for word in words]
        lines = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n" % len(parts) + lines)
        return self._reply()

    def pipelined(self, packed: bytes, replies: int) -> None:
        """Send commands that are packed already, and read as many replies."""
        self._socket.sendall(packed)
        for _ in range(replies):
            self._reply()

    def _reply(self) -> Any:
        line = self._replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._replies.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise RuntimeError(f"the server answered {line!r}")

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        lines = self.command("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def clear(self) -> None:
        """Leave nothing but the loaded library."""
        self.command("FLUSHALL", "SYNC")

    def cpu_us(self) -> float:
        """CPU time used so far."""
        info = self.info("cpu")
        return 1e6 * (float(info["used_cpu_user"]) + float(info["used_cpu_sys"]))

    def memory(self) -> int:
        """Bytes allocated, once what clients had is given back."""
        time.sleep(0.3)
        return int(self.info("memory")["used_memory"])

    def progress(self) -> tuple[int, int]:
        """How many tasks were claimed, and how many completed."""
        claimed = self.command("HGET", f"{BASE}meta", "token")
        completed = self.command("HGET", f"{BASE}stats", "completed")
        return int(claimed or 0), int(completed or 0)

    def workers(self) -> int:
        """How many workers are members."""
        return int(self.command("ZCARD", f"{BASE}workers"))

    def call_us(self, *commands: str) -> float:
        """Mean time of one call, since `reset_calls`, of the first of these commands that was called."""
        calls = self.info("commandstats")
        called = next(calls[key] for command in commands if (key := f"cmdstat_{command}") in calls)
        return float(dict(pair.split("=") for pair in called.split(","))["usec_per_call"])

    def calls(self, *commands: str) -> int:
        """How often these commands were called, since `reset_calls`."""
        stats = self.info("commandstats")
        found = [stats[key] for command in commands if (key := f"cmdstat_{command}") in stats]
        return sum(int(dict(pair.split("=") for pair in each.split(","))["calls"]) for each in found)

    def reset_calls(self) -> None:
        """Count calls from now on."""
        self.command("CONFIG", "RESETSTAT")

    def redis_call_us(self) -> float:
        """What one `redis.call` costs inside a script: the unit in which to read the rest."""
        times = []
        for body in ("redis.call('EXISTS', KEYS[1])", ""):
            self.reset_calls()
            self.command("EVAL", f"for _ = 1, 200000 do {body} end", 1, "no-such-key")
            times.append(self.call_us("eval"))
        return (times[0] - times[1]) / 200_000

    @property
    def description(self) -> str:
        """Its name, version and transport."""
        info = self.info("server")
        name = info.get("server_name", "redis")
        version = info.get(f"{name}_version", info["redis_version"])
        memory = self.info("memory")["mem_allocator"]
        transport = "unix socket" if isinstance(self._address, str) else "loopback TCP"
        return f"{name} {version}, {memory}, {transport}"


def _free_port() -> int:
    """Below those that the kernel gives to clients, of which one would take it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
