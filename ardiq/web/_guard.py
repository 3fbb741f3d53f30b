"""What stands before every page: the host's name, where a form came from, and the headers that each response gets."""

from collections.abc import Collection, MutableMapping, Sequence
from typing import Any

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = ("GET", "HEAD", "OPTIONS")
_FORM = "application/x-www-form-urlencoded"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors "
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Refuses requests of other sites; adds the security headers to what it lets through and to what it refuses.

    Args:
        app: the pages.
        hosts: the names that requests may use for this server, without the port; None: any, as the host application
            decides.
        embed: origins whose pages may show this one in a frame.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, embed: Sequence[str]) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._headers = {**_HEADERS, "content-security-policy": _POLICY + (" ".join(embed) or "'none'")}
        if not embed:
            self._headers["x-frame-options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(message)
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)

    def _add(self, message: MutableMapping[str, Any]) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in self._headers.items():
            headers[name] = value
        headers.setdefault("cache-control", "no-store")

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name_of(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this server does not go by that name: start it with --host NAME\n", 421)
        if scope["method"] in _SAFE:
            return None
        if not _is_own(scope, headers):
            return PlainTextResponse("this request came from another site\n", 403)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            return PlainTextResponse(f"expected {_FORM}\n", 415)
        return None


def _is_own(scope: Scope, headers: Headers) -> bool:
    """Whether a page of this server sent it. Over plain http to a name, browsers send Origin, but no Sec-Fetch-Site."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    if origin is not None:
        own = URL(scope=scope)
        return origin.lower() == f"{own.scheme}://{headers.get('host', '')}".lower()
    return headers.get("authorization", "").lower().startswith("bearer ")  # no browser adds that by itself


def _name_of(host: str) -> str:
    """The host without its port."""
    name, bracket, _ = (
        host.lower().rpartition("]") if host.startswith("[") else (host.lower().partition(":")[0], "", "")
    )
    return name + bracket
