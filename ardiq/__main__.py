"""`python -m ardiq` is the `ardiq` command."""

from .cli import main

raise SystemExit(main())
