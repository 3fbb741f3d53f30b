"""The options of an app, as users read them."""

from collections.abc import Callable
from typing import Any

from .._values.defaults import TaskDefaults
from .._values.options import Durability, LogLevel
from .facade import Facade
from .limiting import Limits


class Options(Facade):
    """The options that an app was created with; a part of `Ardiq`, whose docstring explains each."""

    @property
    def redis_url(self) -> str:
        """The server's URL."""
        return self.context.settings.redis_url

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self.context.name

    @property
    def prefix(self) -> str:
        """The beginning of every key."""
        return self.context.settings.prefix

    @property
    def priorities(self) -> list[str]:
        """The lanes, lowest first."""
        return list(self.context.settings.priorities)

    @property
    def default_priority(self) -> str:
        """The lane of tasks that name none."""
        return self.context.settings.default_priority

    @property
    def weights(self) -> dict[str, int] | None:
        """The lanes' shares of a worker's claims; None: strict order."""
        weights = self.context.settings.weights
        return None if weights is None else dict(weights)

    @property
    def limits(self) -> Limits:
        """The limits of the queue, to look at and to change: `await app.limits.list()`.

        It is also the option of that name, a dict: how many tasks of a lane one worker runs at once, for lanes that
        have a limit.
        """
        return Limits(self.context)

    @property
    def worker_id(self) -> str:
        """The name under which people see this worker; its identity on the server has a random part, too."""
        return self.context.settings.worker_id

    @property
    def serializer(self) -> Callable[[Any], bytes] | None:
        """Turns arguments and results into bytes; None: JSON, or msgpack where JSON would change them."""
        return self.context.settings.serializer

    @property
    def deserializer(self) -> Callable[[bytes], Any] | None:
        """Turns the bytes back into values."""
        return self.context.settings.deserializer

    @property
    def concurrency(self) -> int:
        """Tasks that one worker runs at once."""
        return self.context.settings.concurrency

    @property
    def prefetch(self) -> int | None:
        """How many tasks one worker may fetch ahead; None: adapted to how long they take."""
        return self.context.settings.prefetch

    @property
    def idle_timeout_ms(self) -> int:
        """The worker's lease: how long it may be silent before its tasks are given to others."""
        return self.context.settings.idle_timeout_ms

    @property
    def durability(self) -> Durability:
        """When a task counts as accepted."""
        return self.context.settings.durability

    @property
    def poll_block_ms(self) -> int:
        """The longest single blocking wait for work."""
        return self.context.settings.poll_block_ms

    @property
    def result_ttl_ms(self) -> int:
        """How long results are kept; 0: not at all, negative: forever."""
        return self.context.settings.result_ttl_ms

    @property
    def max_lost(self) -> int:
        """How many workers may die while holding a task before it is dead-lettered as poison."""
        return self.context.settings.max_lost

    @property
    def unknown_task_wait(self) -> float:
        """How many seconds a task that no worker knows waits for one that does; 0: it fails at once."""
        return self.context.settings.unknown_task_wait_ms / 1000

    @property
    def dead_ttl_ms(self) -> int | None:
        """How long dead letters are kept; None: until you discard them."""
        return self.context.settings.dead_ttl_ms

    @property
    def dead_limit(self) -> int | None:
        """How many of the newest dead letters are kept; None: all."""
        return self.context.settings.dead_limit

    @property
    def stall_after(self) -> float | None:
        """After how many seconds without running a worker's event loop counts as stalled; None: never."""
        return self.context.settings.stall_after_s

    @property
    def task_logs(self) -> LogLevel | None:
        """From which level on a task's own log gets what is logged inside it; None: it does not."""
        return self.context.settings.task_logs

    @property
    def cron_poll_s(self) -> float:
        """How often, in seconds, a worker checks the schedules, in addition to when one falls due."""
        return self.context.settings.cron_poll_s

    @property
    def check_types(self) -> bool:
        """Whether arguments must fit the annotations, and plain JSON is converted to the annotated types."""
        return self.context.settings.check_types

    @property
    def task_defaults(self) -> TaskDefaults:
        """The options of tasks that do not set them."""
        return self.context.settings.task_defaults.copy()

    @property
    def imports(self) -> list[str]:
        """The modules that workers import for the tasks in them."""
        return list(self.context.settings.imports)
