"""Limits as an app declares them, looks at them and changes them at run time."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .._server import calls
from .._server.replies import Ask, Call, R, at_once
from .._values import options as _options
from .._values.encodings import to_json
from ..batches import is_batch
from ..inspection import LimitInfo
from ..limits import MOST, Adaptive, Cost, Key, Limit, Rate, Weight, check_key, check_name, definition_of, recovery_ms
from .facade import Facade

if TYPE_CHECKING:
    from .queue import QueueContext


class Limiting(Facade):
    """What an app declares; a part of `Ardiq`."""

    def limit(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: Rate | None = None,
        key: Key | None = None,
        cost: Cost = 1,
        weight: Weight = 1,
        ordered: bool = False,
        max_waiting: int | None = None,
        adaptive: Adaptive = False,
    ) -> Limit:
        """Declare a limit that several tasks share: `@app.task(limits=[partner])`.

        Args:
            name: of the limit.
            concurrency: how many attempts run at once, over all workers.
            rate: how many start in a time, over all workers.
            key: where the key of a call comes from, if each has a limit of its own.
            cost: how many starts of the rate a call takes.
            weight: the share of a key among the keys that wait in a lane.
            ordered: whether a task that is to run again keeps its place, and those behind it wait.
            max_waiting: how many tasks may wait in a line of it.
            adaptive: whether `RateLimited` halves what it lets start, for a time; or for how long.

        Returns:
            The `Limit`, whose class explains each of these. `dataclasses.replace(limit, key=…)` gives the same limit
            with another key, cost or weight.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option has an invalid value, or the name is that of another limit.

        Example:
            ```python
            partner = app.limit("partner", rate=Rate(100, per=60, burst=20), concurrency=5)
            ```
        """
        limit = Limit(
            check_name(name),
            concurrency=concurrency,
            rate=rate,
            key=key,
            cost=cost,
            weight=weight,
            ordered=ordered,
            max_waiting=max_waiting,
            adaptive=adaptive,
        )
        self.context.registry.declare(limit)
        return limit


class Limits(dict[str, int]):
    """The limits of a queue: `app.limits`.

    Code declares limits; what is put here at run time counts instead, from the next call on, until it is removed. A
    limit is named as in code, and one key of it as `customer(42)`.

    As the option `limits` it is also a dict: of lanes, and how many of its tasks one worker runs at once.
    """

    def __init__(self, queue: "QueueContext") -> None:
        of_lanes = queue.settings.limits or {}
        super().__init__({lane: of_lanes[lane] for lane in queue.settings.priorities if lane in of_lanes})
        self._queue = queue

    def list_sync(self) -> list[LimitInfo]:
        """`list` for code without an event loop; blocks this thread until the server has answered."""
        return self._blocking(_listed)

    def buckets_sync(self, limit: Limit | str | None = None) -> list[LimitInfo]:
        """`buckets` for code without an event loop; blocks this thread until the server has answered."""
        return self._blocking(lambda ask: _buckets(ask, limit))

    async def buckets(self, limit: Limit | str | None = None) -> list[LimitInfo]:
        """The limits, and of those with keys each key, of which attempts run or for which tasks wait; those for which
        most wait first.

        Args:
            limit: only this one and its keys.
        """
        return await _buckets(self._ask, limit)

    async def show(self, limit: Limit | str) -> LimitInfo | None:
        """One limit, or one key of it; None if there is no such limit."""
        return await _shown(self._ask, limit)

    def show_sync(self, limit: Limit | str) -> LimitInfo | None:
        """`show` for code without an event loop; blocks this thread until the server has answered."""
        return self._blocking(lambda ask: _shown(ask, limit))

    async def put(
        self,
        limit: Limit | str,
        *,
        concurrency: int | None = None,
        rate: Rate | None = None,
        max_waiting: int | None = None,
        adaptive: Adaptive | None = None,
    ) -> None:
        """Change a limit, or one key of it, for all workers at once. It replaces what was put before.

        Tasks that run go on. What waits and may start now is started at once.

        Args:
            limit: a limit, its name, or the name of one of its keys, such as `customer(42)`.
            concurrency: how many attempts run at once; 0: none is started; None: as declared.
            rate: how many start in a time; None: as declared.
            max_waiting: how many tasks may wait in a line of it; None: as declared.
            adaptive: whether, or in how long, it recovers from `RateLimited`, as in `Limit`; None: as declared.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option has an invalid value, or neither of them is given.

        Example:
            ```python
            await app.limits.put("customer(42)", concurrency=10)
            ```
        """
        await self._ask(_putting(limit, concurrency, rate, max_waiting, adaptive))

    def put_sync(
        self,
        limit: Limit | str,
        *,
        concurrency: int | None = None,
        rate: Rate | None = None,
        max_waiting: int | None = None,
        adaptive: Adaptive | None = None,
    ) -> None:
        """`put` for code without an event loop; blocks this thread until the server has answered."""
        call = _putting(limit, concurrency, rate, max_waiting, adaptive)
        self._blocking(lambda ask: _asked(ask, call))

    async def remove(self, limit: Limit | str) -> bool:
        """Remove what was put for a limit, or for one key of it, so that the declared one counts again. If nothing was,
        the limit itself: its tasks are unlimited until a worker or a producer declares it again.

        Returns:
            False if there is no such limit.
        """
        return await self._ask(_removing(limit)) == "removed"

    def remove_sync(self, limit: Limit | str) -> bool:
        """`remove` for code without an event loop; blocks this thread until the server has answered."""
        call = _removing(limit)
        return self._blocking(lambda ask: _asked(ask, call)) == "removed"

    async def list(self) -> list[LimitInfo]:
        """All limits by name, each before those of its keys for which something else was put."""
        return await _listed(self._ask)

    async def _ask(self, call: Call[R]) -> R:
        return await self._queue.channel().ask(call)

    def _blocking(self, work: Callable[[Ask], Coroutine[Any, Any, R]]) -> R:
        return at_once(self._queue.server.core, work)


async def _asked(ask: Ask, call: Call[R]) -> R:
    return await ask(call)


def _named(limit: Any) -> tuple[str, str]:
    """Name and key of what is meant by a limit, its name, or `customer(42)`; without a key, that is empty."""
    text = limit.name if isinstance(limit, Limit) else limit
    if not isinstance(text, str):
        raise TypeError(f"give a limit, or a name such as 'customer' or 'customer(42)', not {limit!r}")
    name, has_key, key = text.partition("(")
    check_name(name)
    if not has_key:
        return name, ""
    if not key.endswith(")"):
        raise ValueError(f"{text!r} is no limit and key, such as 'customer(42)': it does not end with ')'")
    return name, check_key(f"limit {name!r}", key[:-1])


def _putting(
    limit: Limit | str,
    concurrency: int | None,
    rate: Rate | None,
    max_waiting: int | None,
    adaptive: Adaptive | None,
) -> Call[str]:
    name, key = _named(limit)
    what = f"limit {name!r}"
    if concurrency is not None:
        _options.integer(f"the concurrency of {what}", concurrency, least=0, most=MOST)
    if rate is not None and not isinstance(rate, Rate):
        raise TypeError(f"the rate of {what} must be a Rate, such as Rate(100, per=60), not {rate!r}")
    if max_waiting is not None:
        _options.integer(f"max_waiting of {what}", max_waiting, least=1, most=MOST)
    recovers_ms = None if adaptive is None else recovery_ms(what, adaptive)
    definition = definition_of(concurrency, rate, max_waiting, recovers_ms)
    if not definition:
        raise ValueError(f"give a concurrency, a rate, max_waiting or adaptive for {what}")
    return calls.limit_put(name=name, key=key, definition=to_json(definition))


def _removing(limit: Limit | str) -> Call[str]:
    name, key = _named(limit)
    return calls.limit_remove(name=name, key=key)


async def _listed(ask: Ask) -> list[LimitInfo]:
    rows, cursor = dict[str, calls.LimitRow](), "0"
    while True:
        page = await ask(calls.limits(cursor=cursor, limit=calls.LIMITS_LIMIT_MOST))
        rows |= {row.bucket: row for row in page.rows}
        cursor = page.cursor
        if cursor == "0":
            found = [info_of(row) for row in rows.values() if not is_batch(row.bucket)]
            return sorted(found, key=lambda limit: (limit.name, limit.key or ""))


async def _buckets(ask: Ask, limit: Limit | str | None) -> list[LimitInfo]:
    name = "" if limit is None else _named(limit)[0]
    rows, cursor = dict[str, calls.LimitRow](), "0"
    while True:
        page = await ask(calls.buckets(name=name, cursor=cursor, limit=calls.BUCKETS_LIMIT_MOST))
        rows |= {row.bucket: row for row in page.rows}
        cursor = page.cursor
        if cursor == "0":
            found = [info_of(row) for row in rows.values() if not is_batch(row.bucket)]
            return sorted(found, key=lambda limit: (-limit.waiting, -limit.running, limit.name, limit.key or ""))


async def _shown(ask: Ask, limit: Limit | str) -> LimitInfo | None:
    name, key = _named(limit)
    row = await ask(calls.limit(name=name, key=key))
    return None if row is None else info_of(row)


def info_of(row: calls.LimitRow) -> LimitInfo:
    from urllib.parse import unquote  # not for a worker

    name, has_key, key = row.bucket.partition("(")
    return LimitInfo(
        name,
        unquote(key.removesuffix(")")) if has_key else None,
        *_defined(row.definition),
        row.is_put,
        row.running,
        row.waiting,
        row.is_exact,
        row.is_declared,
        row.opens_at or None,
        _whole(row.definition, "max_waiting"),
        _whole(row.definition, "recovery_ms"),
        float(row.share),
    )


def _defined(definition: dict[str, Any]) -> tuple[int | None, Rate | None]:
    """Concurrency and rate; None where somebody wrote something else by hand."""
    try:
        rate = Rate(definition["rate"], per=definition["per_ms"] / 1000, burst=definition.get("burst", 1))
    except (KeyError, TypeError, ValueError):
        rate = None
    concurrency = definition.get("concurrency")
    return concurrency if isinstance(concurrency, int) else None, rate


def _whole(definition: dict[str, Any], name: str) -> int | None:
    value = definition.get(name)
    return value if isinstance(value, int) and value > 0 else None
