"""How the workers of an app run in this process: what was asked of them, and how they stand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._core import Health

if TYPE_CHECKING:
    from .worker import Worker


@dataclass(eq=False)
class RunState:
    """One for all queues of an app.

    Attributes:
        burst: `run` ends when nothing is ready.
        allow_eviction: a server will do that may throw away tasks.
        give_up_after_s: for how long the server may be away; None: for ever, but in burst mode.
        replace_stalled_s: after how long without a turn of its loop the process is to be replaced.
        fires_schedules: what recurs is fired.
        health: answers the probes.
        on_cancelled: told when a worker is cancelled and nobody here did it.
        is_running: between the begin and the end of `run`.
        stop_asked: the run is to end.
        give_up: ends a wait that comes before there is a worker to stop.
        workers: those that run, one a queue.
    """

    burst: bool
    allow_eviction: bool
    give_up_after_s: float | None = None
    replace_stalled_s: float | None = None
    fires_schedules: bool = True
    health: Health | None = None
    on_cancelled: Callable[[], None] | None = None
    is_running: bool = False
    stop_asked: bool = False
    give_up: Callable[[], object] | None = None
    workers: "list[Worker]" = field(default_factory=list)

    def stop(self) -> None:
        """Let the run end when the running tasks have ended. From any thread; without a run it does nothing."""
        self.stop_asked = True
        if (give_up := self.give_up) is not None:
            give_up()
        for worker in self.workers:
            worker.stop()
