"""Ways to find out who a user is: a token, a file of users, a header that a proxy sets, or a function of yours."""

import asyncio
import hashlib
import hmac
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from ._users import User, check_role

Answer: TypeAlias = User | Response | None
Auth: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]] | Literal["nobody"]

COOKIE = "ardiq"
SESSION_S = 12 * 3600
_LEAST_TOKEN_BYTES = 16
_DIGITS = 12
_N, _R, _P = 1 << 14, 8, 1
_HASHED_AT_ONCE = 2  # each takes 16 MB, and a core for a moment


class Form:
    """Lets people in who fill in a form, and remembers them in a signed cookie for twelve hours."""

    fields: Sequence[str] = ()

    def __call__(self, request: Request) -> User | None:
        """Who has a cookie of this form."""
        raise NotImplementedError

    async def login(self, form: Mapping[str, str]) -> str | None:
        """The cookie of who filled it in; None: they are refused."""
        raise NotImplementedError

    def key_of(self, name: str) -> bytes | None:
        """What signs the cookie of somebody; None: there is nobody of that name."""
        raise NotImplementedError

    def cookie_of(self, name: str, key: bytes) -> str:
        told = f"{quote(name, safe='')}|{int(time.time()) + SESSION_S}"
        return f"{told}|{_signed(told, key)}"

    def name_in(self, request: Request) -> str | None:
        """Who has a cookie that was given to them and is not too old."""
        told, _, mac = request.cookies.get(COOKIE, "").rpartition("|")
        name, _, until = told.partition("|")
        if not (until.isascii() and until.isdecimal() and len(until) <= _DIGITS) or int(until) < time.time():
            return None
        key = self.key_of(unquote(name))
        return unquote(name) if key is not None and _same(mac, _signed(told, key)) else None


class Token(Form):
    """One secret for everybody who may look: typed into a form, or sent as `Authorization: Bearer …` by programs.

    Args:
        token: at least 16 bytes; None: the environment's ARDIQ_WEB_TOKEN.
        role: what its holders may do: "viewer", "operator" or "admin".
        queues: patterns of the queues they see.

    Raises:
        ValueError: the token is missing or too short, or there is no such role.
    """

    fields = ("token",)

    def __init__(self, token: str | None = None, *, role: str = "operator", queues: Sequence[str] = ("*",)) -> None:
        secret = os.environ.get("ARDIQ_WEB_TOKEN", "") if token is None else token
        if len(secret.encode()) < _LEAST_TOKEN_BYTES:
            what = "is missing: set ARDIQ_WEB_TOKEN" if not secret else "is too short"
            raise ValueError(f"the dashboard's token {what}; it must have at least {_LEAST_TOKEN_BYTES} bytes")
        self._token = secret
        self._user = User("token", role, queues)

    def __call__(self, request: Request) -> User | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._user if _same(token, self._token) else None
        return self._user if self.name_in(request) == self._user.name else None

    async def login(self, form: Mapping[str, str]) -> str | None:
        is_right = _same(form.get("token", ""), self._token)
        return self.cookie_of(self._user.name, self._token.encode()) if is_right else None

    def key_of(self, name: str) -> bytes | None:
        return self._token.encode() if name == self._user.name else None


class Users(Form):
    """People with passwords, from a file that is read when the dashboard starts.

    Each line is `name:role:password`, the password as `Users.hashed` returns it; empty lines and those that begin with
    `#` are skipped.

    Raises:
        ValueError: a line is malformed, or names an unknown role.
        OSError: the file cannot be read.
    """

    fields = ("name", "password")

    def __init__(self, file: str | os.PathLike[str], *, queues: Sequence[str] = ("*",)) -> None:
        self._users: dict[str, tuple[User, str]] = {}
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)
        for number, line in enumerate(Path(file).read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, rest = line.strip().partition(":")
            role, _, hashed = rest.partition(":")
            if not name or hashed.count("$") != 2:
                raise ValueError(f"{os.fspath(file)}, line {number}: expected name:role:password, hashed")
            self._users[name] = (User(name, check_role(role), queues), hashed)

    @staticmethod
    def hashed(password: str) -> str:
        """A password as the file has it: scrypt with a salt of its own."""
        salt = os.urandom(16)
        return f"scrypt${salt.hex()}${_scrypt(password, salt)}"

    def __call__(self, request: Request) -> User | None:
        name = self.name_in(request)
        return None if name is None else self._users[name][0]

    async def login(self, form: Mapping[str, str]) -> str | None:
        name, password = form.get("name", ""), form.get("password", "")
        _, hashed = self._users.get(name, (None, f"scrypt${'00' * 16}$"))  # as long for a name that nobody has
        _, salt, digest = hashed.split("$")
        async with self._hashing:
            found = await asyncio.to_thread(_scrypt, password, bytes.fromhex(salt))
        key = self.key_of(name)
        return self.cookie_of(name, key) if key is not None and _same(found, digest) else None

    def key_of(self, name: str) -> bytes | None:
        return self._users[name][1].encode() if name in self._users else None


class TrustedHeader:
    """Who a proxy in front says it is, such as oauth2-proxy, Authelia or an identity-aware proxy.

    Args:
        name: the header, such as "X-Forwarded-User".
        proxies: the networks that the proxy connects from, such as ["10.0.0.0/8"]; from elsewhere the header is
            ignored.
        role: what people may do whom `roles` does not name.
        roles: roles of people by name.
        queues: patterns of the queues they see.

    Raises:
        ValueError: that is not a network, no network is given, or there is no such role.
    """

    def __init__(
        self,
        name: str,
        *,
        proxies: Sequence[str],
        role: str = "viewer",
        roles: Mapping[str, str] | None = None,
        queues: Sequence[str] = ("*",),
    ) -> None:
        if isinstance(proxies, str) or not proxies:
            raise ValueError("proxies must name at least one network, such as ['10.0.0.0/8']")
        self._name = name
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(proxy) for proxy in proxies]
        self._role, self._queues = check_role(role), queues
        self._roles = {who: check_role(each) for who, each in (roles or {}).items()}

    def __call__(self, request: Request) -> User | None:
        names = request.headers.getlist(self._name)
        if request.client is None or len(names) != 1 or not names[0].strip():
            return None
        try:
            address = ip_address(request.client.host)
        except ValueError:
            return None
        if not any(address in proxy for proxy in self._proxies):
            return None
        name = names[0].strip()
        return User(name, self._roles.get(name, self._role), self._queues)


def check_auth(auth: Any) -> Auth:
    """Refuse what cannot name a user."""
    if auth == "nobody" or callable(auth):
        found: Auth = auth
        return found
    raise TypeError(f"auth must be a function, Token(), Users(…), TrustedHeader(…) or 'nobody', not {auth!r}")


async def who_asks(auth: Auth, request: Request) -> Answer:
    """The user; a response that `auth` wants to be sent instead; None: nobody who may look."""
    if auth == "nobody":
        return User("anybody", "admin")
    answer = auth(request)
    return await answer if inspect.isawaitable(answer) else answer


def _signed(text: str, key: bytes) -> str:
    return hmac.new(key, b"ardiq web session " + text.encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _scrypt(password: str, salt: bytes) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P).hex()
