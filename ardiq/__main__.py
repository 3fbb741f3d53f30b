"""`python -m ardiq` is the `ardiq` command."""

from .cli import program

program()
