"""The app of a Django project, as workers need it: `ardiq run ardiq.django.worker:app`, or `manage.py ardiq`.

Importing this sets Django up, by `DJANGO_SETTINGS_MODULE`, loads the app that the setting `ARDIQ_APP` names, and
imports the module `tasks` of every installed app. Tasks that are `def` and run on a thread get fresh database
connections: those that are broken or too old (`CONN_MAX_AGE`) are closed before and after each attempt, as around a
request.

Raises:
    ImproperlyConfigured: `ARDIQ_APP` is not set, or names no app.
"""

import functools
from collections.abc import Callable
from typing import Any

import django  # type: ignore[import-untyped]
from django.db import close_old_connections  # type: ignore[import-untyped]
from django.utils.module_loading import autodiscover_modules  # type: ignore[import-untyped]

from ..app import Ardiq
from ._app import configured_app

__all__ = ["app"]


def _with_fresh_connections(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        close_old_connections()
        try:
            return fn(*args, **kwargs)
        finally:
            close_old_connections()

    return run


def _load() -> Ardiq:
    django.setup()
    app = configured_app()
    autodiscover_modules("tasks")
    for entry in app.context.registry.tasks.values():
        if entry.process is not None:
            entry.home = __name__  # a child process imports this, too, and so has Django set up
        elif not entry.is_async:
            entry.fn = _with_fresh_connections(entry.fn)
    return app


app: Ardiq = _load()
"""The project's app, with all tasks of its installed apps."""
