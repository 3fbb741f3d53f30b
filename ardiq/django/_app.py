"""The app that a Django project names in its settings."""

import pkgutil

from django.conf import settings  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]

from ..app import Ardiq


def configured_app() -> Ardiq:
    """The app of the setting `ARDIQ_APP`; its module is imported.

    Raises:
        ImproperlyConfigured: it is not set, or names no app.
    """
    target = getattr(settings, "ARDIQ_APP", None)
    if not isinstance(target, str) or ":" not in target:
        raise ImproperlyConfigured(f"ARDIQ_APP is {target!r}: name your app as MODULE:ATTR, such as 'shop.jobs:app'")
    try:
        app = pkgutil.resolve_name(target)
    except (AttributeError, ImportError) as error:
        raise ImproperlyConfigured(f"ARDIQ_APP = {target!r}: {error}") from error
    if not isinstance(app, Ardiq):
        raise ImproperlyConfigured(f"ARDIQ_APP = {target!r} is {type(app).__name__}, not an Ardiq app")
    return app
