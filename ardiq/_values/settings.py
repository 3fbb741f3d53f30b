"""The options of an app."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import defaults, options
from . import imports as modules
from .defaults import TaskDefaults
from .ids import new_id
from .options import Durability
from .signing import read_keys

DEFAULT_URL = "redis://localhost:6379"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of an app, checked and complete; `Ardiq` explains each.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option has an invalid value.
    """

    redis_url: str = field(repr=False)  # it may have a password
    queue_name: str
    prefix: str
    priorities: tuple[str, ...]
    default_priority: str
    weights: Mapping[str, int] | None
    limits: Mapping[str, int] | None
    max_waiting: Mapping[str, int] | None
    worker_id: str
    serializer: Callable[[Any], bytes] | None
    deserializer: Callable[[bytes], Any] | None
    cron_poll_s: float
    concurrency: int
    prefetch: int | None
    idle_timeout_ms: int
    poll_block_ms: int
    result_ttl_ms: int
    broker_timeout_ms: int
    durability: Durability
    max_lost: int
    unknown_task_wait_ms: int
    dead_ttl_ms: int | None
    dead_limit: int | None
    payload_limit: int
    check_types: bool
    signing_keys: tuple[bytes, ...] = field(repr=False)
    takes_unsigned: bool
    stall_after_s: float | None
    task_logs: options.LogLevel | None
    task_defaults: TaskDefaults
    imports: tuple[str, ...]

    @classmethod
    def read(cls, **given: Any) -> "Settings":
        """From the options as `Ardiq` takes them."""
        lanes = tuple(options.lanes(given["priorities"]))
        default_lane = given["default_priority"]
        if default_lane is None:
            default_lane = lanes[len(lanes) // 2]
        elif default_lane not in lanes:
            raise ValueError(f"default_priority {default_lane!r} is not one of {list(lanes)}")
        weights = options.by_lane("weights", given["weights"], lanes)
        name, keys, prefetch = given["queue_name"], given["signing_key"], given["prefetch"]
        dead_ttl_ms, dead_limit = given["dead_ttl_ms"], given["dead_limit"]

        def integer(name: str, least: int | None = None, default: int | None = None) -> int:
            return options.integer(name, given[name], least=least, default=default)

        return cls(
            redis_url=_url(given["redis_url"]),
            queue_name=options.key_part("queue_name", "default" if name is None else name),
            prefix=options.key_part("prefix", given["prefix"]),
            priorities=lanes,
            default_priority=default_lane,
            weights=None if weights is None else {lane: weights.get(lane, 1) for lane in lanes},
            limits=options.by_lane("limits", given["limits"], lanes),
            max_waiting=options.by_lane("max_waiting", given["max_waiting"], lanes),
            worker_id=_worker_id() if given["worker_id"] is None else options.text("worker_id", given["worker_id"]),
            serializer=options.optional_callable("serializer", given["serializer"]),
            deserializer=options.optional_callable("deserializer", given["deserializer"]),
            cron_poll_s=options.seconds("cron_poll_s", given["cron_poll_s"]) or 1.0,
            concurrency=integer("concurrency", 1, 16),
            prefetch=None if prefetch is None else integer("prefetch", 0),
            idle_timeout_ms=integer("idle_timeout_ms", 1, 60_000),
            poll_block_ms=integer("poll_block_ms", 1, 5_000),
            result_ttl_ms=integer("result_ttl_ms", default=300_000),
            broker_timeout_ms=integer("broker_timeout_ms", 1),
            durability=options.durability(given["durability"]),
            max_lost=integer("max_lost", 1),
            unknown_task_wait_ms=options.milliseconds("unknown_task_wait", given["unknown_task_wait"]),
            dead_ttl_ms=None if dead_ttl_ms is None else integer("dead_ttl_ms", 1),
            dead_limit=None if dead_limit is None else integer("dead_limit", 0),
            payload_limit=integer("payload_limit", 1),
            check_types=options.boolean("check_types", given["check_types"]),
            signing_keys=() if keys is None else tuple(read_keys(keys)),
            takes_unsigned=options.boolean("takes_unsigned", given["takes_unsigned"]),
            stall_after_s=options.seconds("stall_after", given["stall_after"]),
            task_logs=options.log_level("task_logs", given["task_logs"]),
            task_defaults=defaults.read({} if given["task_defaults"] is None else given["task_defaults"]),
            imports=tuple(modules.patterns("imports", given["imports"])),
        )


def _url(url: str | None) -> str:
    if url is None:
        return os.environ.get("ARDIQ_REDIS_URL") or DEFAULT_URL
    if not isinstance(url, str):
        raise TypeError(f"redis_url must be a str, not {type(url).__name__}")
    if not url.strip():
        raise ValueError("redis_url is empty: pass a URL such as 'redis://localhost:6379', or none for the default")
    return url


def _worker_id() -> str:
    host = "".join(letter for letter in socket.gethostname() if letter.isprintable())
    return f"{host or 'worker'}-{new_id()[:6]}"
