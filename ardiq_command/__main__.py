"""`python -m ardiq_command`: the `ardiq` command, also where it is not on the path."""

from . import program

program()
