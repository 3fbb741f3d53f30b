"""Where `ardiq run --health` listens."""

import argparse
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from . import Refusal

if TYPE_CHECKING:
    from ..app import Ardiq

_LAST_PORT = 65_535
_PRIVILEGED = 1024


class Place(NamedTuple):
    """A host and a port; port 0: the system chooses one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def of_worker(self, number: int) -> "Place":
        """That of one of several workers, counted from 1: each has a port of its own."""
        return Place(self.host, self.port + number - 1 if self.port else 0)


def read_place(text: str) -> Place:
    """HOST:PORT, an IPv6 address in brackets."""
    host, colon, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"an IPv6 address needs brackets, such as [::1]:9100, got {text!r}")
    if not (colon and host and digits.isascii() and digits.isdecimal()) or int(digits) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:9100, got {text!r}")
    return Place(host, int(digits))


def check_ports(place: Place | None, workers: int) -> None:
    """Refuse a port that leaves none for the last worker."""
    if place is not None and place.of_worker(workers).port > _LAST_PORT:
        raise Refusal(f"--health {place}: {workers} workers need ports up to {place.of_worker(workers).port}")


def listen(app: "Ardiq", place: Place) -> _core.Health:
    """Answer there from now on."""
    try:
        health = app.context.server.core.health(place.host, place.port)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why = "the port is taken, perhaps by another worker"
        elif error.errno == errno.EACCES and place.port < _PRIVILEGED:
            why = f"ports below {_PRIVILEGED} are reserved for root"
        elif error.errno == errno.EADDRNOTAVAIL:
            why = "this machine does not have that address"
        raise Refusal(f"--health {place}: {why}") from None
    # A process that a task forks may outlive the worker, whose successor needs the port.
    os.register_at_fork(after_in_child=health.after_fork)
    return health
