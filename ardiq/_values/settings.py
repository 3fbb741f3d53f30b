"""What an app was told when it was made."""

from collections.abc import Callable
from typing import Any

from . import options as _options
from .codec import Codec
from .defaults import TaskDefaults


class Settings:
    """The options of an app, to be read; `Ardiq` sets them."""

    _redis_url: str
    _queue_name: str
    _prefix: str
    _priorities: list[str]
    _default_priority: str
    _weights: dict[str, int] | None
    _limits: dict[str, int] | None
    _worker_id: str
    _codec: Codec
    _concurrency: int
    _prefetch: int | None
    _idle_timeout_ms: int
    _poll_block_ms: int
    _durability: _options.Durability
    _result_ttl_ms: int
    _max_lost: int
    _unknown_task_wait_ms: int
    _dead_ttl_ms: int | None
    _dead_limit: int | None
    _stall_after: float | None
    _cron_poll_s: float
    _burst: bool
    _check_types: bool
    _imports: list[str]
    _task_defaults: TaskDefaults
    _root: "Settings"

    @property
    def redis_url(self) -> str:
        """The server's URL."""
        return self._redis_url

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self._queue_name

    @property
    def prefix(self) -> str:
        """First part of every key."""
        return self._prefix

    @property
    def priorities(self) -> list[str]:
        """The lanes, lowest first."""
        return list(self._priorities)

    @property
    def default_priority(self) -> str:
        """The lane of tasks that name none."""
        return self._default_priority

    @property
    def weights(self) -> dict[str, int] | None:
        """The lanes' shares of a worker's claims; None: strict order."""
        return None if self._weights is None else dict(self._weights)

    @property
    def limits(self) -> dict[str, int]:
        """How many tasks of a lane one worker runs at once, for lanes that have a limit."""
        limits = self._limits or {}
        return {lane: limits[lane] for lane in self._priorities if lane in limits}

    @property
    def worker_id(self) -> str:
        """What people see of this worker; its identity at the server has a random part in addition."""
        return self._worker_id

    @property
    def serializer(self) -> Callable[[Any], bytes] | None:
        """What makes bytes of arguments and results; None: JSON, or msgpack where that would change them."""
        return self._codec.serializer

    @property
    def deserializer(self) -> Callable[[bytes], Any] | None:
        """What makes them back."""
        return self._codec.deserializer

    @property
    def concurrency(self) -> int:
        """Tasks that one worker runs at once."""
        return self._concurrency

    @property
    def prefetch(self) -> int | None:
        """Most tasks that one worker holds ahead; None: adapted to how long they take."""
        return self._prefetch

    @property
    def idle_timeout_ms(self) -> int:
        """The worker's lease."""
        return self._idle_timeout_ms

    @property
    def durability(self) -> _options.Durability:
        """When a task counts as accepted."""
        return self._durability

    @property
    def poll_block_ms(self) -> int:
        """Bound of one blocking wait for work."""
        return self._poll_block_ms

    @property
    def result_ttl_ms(self) -> int:
        """How long results are kept; 0: not at all, negative: for ever."""
        return self._result_ttl_ms

    @property
    def max_lost(self) -> int:
        """How many workers may die holding a task before it is dead-lettered as poison."""
        return self._max_lost

    @property
    def unknown_task_wait(self) -> float:
        """How long, in seconds, a task waits that no worker knows; 0: it fails at once."""
        return self._unknown_task_wait_ms / 1000

    @property
    def dead_ttl_ms(self) -> int | None:
        """How long dead letters are kept; None: until somebody discards them."""
        return self._dead_ttl_ms

    @property
    def dead_limit(self) -> int | None:
        """How many of the newest dead letters are kept; None: all."""
        return self._dead_limit

    @property
    def stall_after(self) -> float | None:
        """After how many seconds without a turn a worker's event loop is called stalled; None: never."""
        return self._stall_after

    @property
    def cron_poll_s(self) -> float:
        """How often a worker looks for schedules that others changed."""
        return self._cron_poll_s

    @property
    def check_types(self) -> bool:
        """Whether arguments must fit the annotations, and plain JSON is converted to them."""
        return self._check_types

    @property
    def task_defaults(self) -> TaskDefaults:
        """The options of tasks that do not say them themselves."""
        return self._task_defaults.copy()

    @property
    def imports(self) -> list[str]:
        """The modules that a worker imports for the tasks in them."""
        return list(self._imports)

    @property
    def burst(self) -> bool:
        """Whether `run` ends when nothing is ready."""
        return self._root._burst

    @burst.setter
    def burst(self, value: bool) -> None:
        self._root._burst = _options.boolean("burst", value)
