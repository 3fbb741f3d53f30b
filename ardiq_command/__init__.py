"""The `ardiq` command until Ardiq is imported, which takes a moment: from the first on, Ctrl-C ends it in silence."""

import os

_INTERRUPTED = 130


def program() -> None:
    """The `ardiq` command."""
    try:
        import signal

        # An exception could be lost among the imports, or shown by those who call back.
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        from ardiq.cli import program as run

        signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    run()
