"""Serve a dashboard for the browser, on this machine alone unless people log in.

ardiq web shop.jobs:app                          http://127.0.0.1:9180
ardiq web redis://localhost --queue emails       any queue, without the app's code
ARDIQ_WEB_TOKEN=… ardiq web shop.jobs:app --bind 0.0.0.0:9180

Where ARDIQ_WEB_TOKEN is set, everybody who looks types it; --users and --trust-header are other ways.
"""

import argparse
import os
import signal
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from .._execution import logging as _logging
from . import Refusal, is_url, load_app, server_app
from ._arguments import prefix_argument, refusing
from ._health import Place, read_place

if TYPE_CHECKING:
    from ..app import Ardiq

_PLACE = Place("127.0.0.1", 9180)
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_TOKEN = "ARDIQ_WEB_TOKEN"
_LAST_S = 1  # browsers that listen would keep it from ending


def configure(parser: argparse.ArgumentParser) -> None:
    app = "the app, such as shop.jobs:app, or the URL of its server"
    parser.add_argument("app", metavar="MODULE:ATTR|URL", help=app)
    queue = "a queue to show; may be repeated (default: the app's own; with a URL: default)"
    parser.add_argument("--queue", action="append", metavar="NAME", help=queue)
    prefix_argument(parser)
    where = "where to listen (default: 127.0.0.1:9180); port 0: the system chooses one"
    parser.add_argument("--bind", type=read_place, default=_PLACE, metavar="HOST:PORT", help=where)
    held = "a socket that listens already, by the number that a parent process passes it under, instead of --bind"
    parser.add_argument("--listener", type=int, metavar="FD", help=held)
    names = "a name by which browsers may call this server, besides localhost; may be repeated"
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help=names)
    parser.add_argument("--users", metavar="FILE", help="people who may log in: lines of name:role:password, hashed")
    header = "the header in which a proxy in front names the user, such as X-Forwarded-User"
    parser.add_argument("--trust-header", metavar="NAME", help=header)
    proxy = "the network of that proxy, such as 10.0.0.0/8; may be repeated"
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="NET", help=proxy)
    role = "of who has the token, or comes through the proxy (default: viewer)"
    parser.add_argument("--role", choices=["viewer", "operator", "admin"], default="viewer", help=role)


def run(arguments: argparse.Namespace) -> int:
    try:
        import uvicorn

        from ..web import dashboard
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ardiq"):
            raise
        raise Refusal(f"the dashboard needs {error.name}: pip install 'ardiq[web]'") from None
    listener = None if arguments.listener is None else _held(arguments.listener)
    place = Place(*listener.getsockname()[:2]) if listener else arguments.bind
    auth, hosts = _auth(arguments, place), _hosts(place, arguments.host)
    app = _app(arguments)
    _logging.set_up(_logging.Setup())  # for who did what
    with refusing():
        board = dashboard(app, auth=auth, queues=arguments.queue, hosts=hosts)
    listener = listener or _listen(place)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once it has stopped
    shown = Place(place.host, listener.getsockname()[1])

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # It answers, and stops in good order, from here on.
            print(f"dashboard at http://{shown}/, for {_whom(auth)}", flush=True)

    # The client must stay the proxy: `X-Forwarded-For` is anybody's.
    config = uvicorn.Config(
        board,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=_LAST_S,
    )
    Announced(config).run(sockets=[listener])
    return 0


def _auth(arguments: argparse.Namespace, place: Place) -> Any:
    """Who may look. Refuses to let everybody in who reaches it from elsewhere."""
    from ..web import Token, TrustedHeader, Users

    if arguments.users and arguments.trust_header:
        raise Refusal("--users cannot be combined with --trust-header")
    if bool(arguments.trust_header) != bool(arguments.trusted_proxy):
        raise Refusal("--trust-header NAME and --trusted-proxy NET belong together: from elsewhere it is ignored")
    with refusing():
        if arguments.users:
            return Users(arguments.users)
        if arguments.trust_header:
            return TrustedHeader(arguments.trust_header, proxies=arguments.trusted_proxy, role=arguments.role)
        if os.environ.get(_TOKEN):
            return Token(role=arguments.role)
    if not _is_loopback(place.host):
        raise Refusal(
            f"--bind {place} is reachable from elsewhere: set {_TOKEN}, or --users FILE, or --trust-header "
            "NAME --trusted-proxy NET"
        )
    return "nobody"


def _app(arguments: argparse.Namespace) -> "Ardiq":
    if is_url(arguments.app):
        app = server_app(arguments.app, (arguments.queue or [None])[0], arguments.prefix)
    elif arguments.prefix is not None:
        raise Refusal(f"--prefix is for URLs; {arguments.app} has its own")
    else:
        app = load_app(arguments.app)
    app.context.server.is_listed = False  # looking at a queue makes none
    return app


def _hosts(place: Place, names: list[str]) -> list[str] | None:
    """The names that requests may use; None: any, where a name cannot lead anybody to what others may not see."""
    if names or _is_loopback(place.host):
        return [*_LOCAL, *names]
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _held(number: int) -> socket.socket:
    try:
        return socket.socket(fileno=number)
    except OSError as error:
        raise Refusal(f"--listener {number}: {error.strerror}") from None


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family)
    except OSError as error:
        raise Refusal(f"--bind {place}: {error.strerror or error}") from None


def _whom(auth: Any) -> str:
    return "everybody on this machine" if auth == "nobody" else "people who log in"
