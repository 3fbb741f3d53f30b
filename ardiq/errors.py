"""The errors Ardiq raises.

The compiled core raises these classes by name; `lua/protocol.json` names one for each `ARDIQ_<CODE>`.
"""

__all__ = [
    "ArdiqError",
    "BadArgument",
    "BrokerError",
    "LeaseLost",
    "LibraryError",
    "OldStep",
    "OutOfMemory",
    "WrongType",
]


class ArdiqError(RuntimeError):
    """Anything that went wrong in Ardiq or between it and the server."""


class BrokerError(ArdiqError):
    """The server is unreachable, refuses, or dropped the connection.

    Attributes:
        maybe_enqueued: the request may have reached the server before the connection broke, so
            what it asked for may have happened. False: it certainly did not.
    """

    maybe_enqueued: bool

    def __init__(self, message: str = "", *, maybe_enqueued: bool = False) -> None:
        super().__init__(message)
        self.maybe_enqueued = maybe_enqueued


class OutOfMemory(BrokerError):
    """The server is at its `maxmemory` and takes no more work; nothing was written.

    Workers are not affected: they go on emptying the queue.
    """


class LibraryError(ArdiqError):
    """The server's Ardiq library is missing, differs from this build's, or the server is too old."""


class BadArgument(ArdiqError):
    """A call did not fit its declaration: number, type or range of arguments."""


class LeaseLost(ArdiqError):
    """The worker is not a member any more: its lease ran out and others were given its tasks."""


class OldStep(ArdiqError):
    """A delayed duplicate of a worker's step; nothing was changed."""


class WrongType(ArdiqError):
    """A key of the queue holds another type than the protocol says: something else wrote it."""
