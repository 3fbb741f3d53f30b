"""The `ardiq` command. It is outside the package, whose import takes a while and may be interrupted by Ctrl-C."""

import os


def program() -> None:
    """Import and run the command; exit code 130 if that is interrupted."""
    try:
        from . import late_ssl

        late_ssl.import_asyncio()
        from ardiq.cli import program

        program()
    except KeyboardInterrupt:
        os._exit(130)
