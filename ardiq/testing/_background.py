"""A worker on a thread of its own, for tests: it serves sync and async ones alike."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING

from .._values import options as _options
from .._values.options import Duration

if TYPE_CHECKING:
    from ..app import Ardiq

log = logging.getLogger("ardiq")

_START_S = 30.0
_STOP_S = 5.0
_CANCEL_S = 15.0
_LOOK_S = 0.002


class BackgroundWorker:
    """A worker of an app on a thread of this process; see `worker`."""

    def __init__(self, app: "Ardiq") -> None:
        self.app = app
        self._thread = threading.Thread(target=self._run, name="ardiq-worker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    def wait_until_idle(self, timeout: Duration | None = 10.0) -> None:
        """Wait until no task is ready or running. Delayed tasks and pending retries do not count.

        It blocks this thread; the worker keeps running.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            TimeoutError: tasks were still ready or running.
        """
        timeout = _options.patience("timeout", timeout)
        deadline = inf if timeout is None else monotonic() + timeout
        while True:
            self._check()
            counts = self.app.inspect.counts_sync()
            if counts.queued + counts.running == 0:
                return
            if monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout:g} s {counts.queued} tasks of queue {self.app.queue_name!r} are still ready "
                    f"and {counts.running} are running"
                )
            sleep(_LOOK_S)

    def stop(self, timeout: Duration | None = _STOP_S) -> None:
        """Stop as on SIGTERM: running tasks may finish. A second call does nothing.

        Args:
            timeout: seconds after which tasks that are still running are cancelled; None: never.

        Raises:
            RuntimeError: a task ignores its cancellation.
            Exception: whatever ended the worker before.
        """
        timeout = _options.patience("timeout", timeout)
        self.app.stop()
        self._thread.join(timeout)
        if self._thread.is_alive() and self._loop is not None and self._main is not None:
            log.warning("tasks are still running after %g s: they are cancelled", timeout)
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join(_CANCEL_S)
        if self._thread.is_alive():
            raise RuntimeError("the worker does not stop: a task ignores its cancellation")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._thread.start()
        deadline = monotonic() + _START_S
        while not self.app.run_state.workers and self._thread.is_alive():
            if monotonic() > deadline:
                self.stop(0)
                raise RuntimeError(f"the worker was not ready within {_START_S:g} s: does its lifespan wait?")
            sleep(_LOOK_S)
        if not self._thread.is_alive():
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._thread.is_alive():
            raise RuntimeError("the worker has stopped")

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error

    async def _work(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        await self.app.run()


@contextmanager
def worker(app: "Ardiq", *, schedules: bool = False) -> Iterator[BackgroundWorker]:
    """Run a worker of the app, on a thread of this process, while the `with` block lasts.

    At its end, running tasks have five seconds to finish before they are cancelled.

    Args:
        app: the app.
        schedules: whether its recurring tasks fire when due. Off, the time of day does not affect a test.

    Raises:
        RuntimeError: the app is already running.
        Exception: whatever ended the worker, such as an error in the app's lifespan.

    Example:
        ```python
        with on_server(app, "embedded://"), worker(app):
            assert greet.request_sync("Ada") == "Hello, Ada"
        ```
    """
    run_state = app.run_state
    if run_state.is_running:
        raise RuntimeError("this app is already running")
    burst, run_state.burst, run_state.fires_schedules = run_state.burst, False, schedules
    running = BackgroundWorker(app)
    try:
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        run_state.burst, run_state.fires_schedules = burst, True
