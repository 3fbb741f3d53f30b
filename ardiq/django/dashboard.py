"""The dashboard for people who are logged in to Django's admin."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from django.conf import settings  # type: ignore[import-untyped]
from django.contrib import admin, auth  # type: ignore[import-untyped]
from django.db import close_old_connections  # type: ignore[import-untyped]
from django.http import HttpRequest  # type: ignore[import-untyped]
from django.urls import reverse  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..web import User
from ..web._users import check_role

__all__ = ["AdminLogin"]


class AdminLogin:
    """Who is logged in to Django's admin: `dashboard(app, auth=AdminLogin())`. Others are sent to its login.

    Superusers are admins. It reads the session on a thread of Django's, and never changes it.

    Args:
        role: what staff may do who are no superusers: "viewer", "operator" or "admin".
        queues: patterns of the queues that they see.

    Raises:
        ValueError: there is no such role.
    """

    def __init__(self, *, role: str = "viewer", queues: Sequence[str] = ("*",)) -> None:
        self._role, self._queues = check_role(role), queues

    async def __call__(self, request: Request) -> User | Response:
        user = await sync_to_async(self._user)(request.cookies.get(settings.SESSION_COOKIE_NAME))
        if user is not None:
            return user
        back = request.url.path if request.method == "GET" else request.scope.get("root_path", "") + "/"
        return RedirectResponse(f"{reverse('admin:login')}?{urlencode({'next': back})}", 303)

    def _user(self, session_key: str | None) -> User | None:
        close_old_connections()
        try:
            asking = HttpRequest()
            asking.session = _Session(import_module(settings.SESSION_ENGINE).SessionStore(session_key).items())
            asking.user = auth.get_user(asking)
            if not admin.site.has_permission(asking):
                return None
            name = asking.user.get_username()
            return User(name, "admin") if asking.user.is_superuser else User(name, self._role, self._queues)
        finally:
            close_old_connections()


class _Session(dict[str, Any]):
    """What a session holds. Django would replace or end it in the database, and its cookie would not follow."""

    def cycle_key(self) -> None:
        """Keep the key: it was signed with a secret of `SECRET_KEY_FALLBACKS`."""

    def flush(self) -> None:
        self.clear()
