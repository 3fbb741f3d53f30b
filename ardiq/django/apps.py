"""Ardiq among the installed apps of a Django project: `INSTALLED_APPS = [..., "ardiq.django"]`."""

from django.apps import AppConfig  # type: ignore[import-untyped]


class ArdiqConfig(AppConfig):  # type: ignore[misc]
    """Brings the command `manage.py ardiq`; it has no models."""

    name = "ardiq.django"
    label = "ardiq"
    verbose_name = "Ardiq"
