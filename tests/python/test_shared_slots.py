"""Seeded runs of one worker on several queues: whatever comes, no slot is taken twice, and none is forgotten."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import eventually, is_sound

from ardiq import Ardiq, Retry, Snooze, current_task


class Run:
    """Tasks of all kinds on random queues, with random shares and options."""

    def __init__(self, make_app: Callable[..., Ardiq], seed: int) -> None:
        self.rng = rng = random.Random(seed)
        # A wake-up that was lost would not be made up for within the test.
        options: dict[str, Any] = {"poll_block_ms": 600_000, "prefetch": rng.choice([None, None, 0, 3])}
        count = rng.choice([1, 2, 3, 3])
        self.app = make_app(concurrency=count + rng.choice([0, 0, 1, 5]), **options)
        self.queues = [f"{self.app.queue_name}-{number}" for number in range(count)]
        self.shares = {queue: rng.choice([1, 2, 5, 20]) for queue in self.queues}
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.expected: set[str] = set()
        self.ended: set[str] = set()
        self.again: set[str] = set()
        self.in_loop = self.app.task(name="in_loop", max_retries=2)(self._in_loop)
        self.in_thread = self.app.task(name="in_thread", max_retries=2)(self._in_thread)
        self.too_long = self.app.task(name="too_long", max_retries=0, timeout=0.01)(self._too_long)

    def calls(self, count: int) -> dict[str, list[Any]]:
        rng, calls = self.rng, {queue: list[Any]() for queue in self.queues}
        for number in range(count):
            queue, key = rng.choice(self.queues), f"task-{number}"
            task = rng.choices([self.in_loop, self.in_thread, self.too_long], [20, 20, 1])[0]
            delay_ms = rng.choice([0] * 9 + [50])
            fate = rng.choices(["ends", "retry", "snooze", "fails", "follow"], [20, 1, 1, 1, 2])[0]
            call = task.options(queue=queue, delay_ms=delay_ms).prepare(key, rng.choice([0, 0, 0.001, 0.01]), fate)
            self.expected.add(key)
            calls[queue].append(call)
        return calls

    async def feed(self, queue: str, calls: list[Any]) -> None:
        """In bursts of random sizes, with pauses between them."""
        while calls:
            size = self.rng.choice([1, 3, 30, 200])
            await self.app.queue(queue).enqueue_many(calls[:size])
            del calls[:size]
            await asyncio.sleep(self.rng.choice([0, 0.01, 0.05]))

    def _begin(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)

    def _end(self, key: str, fate: str) -> None:
        with self.lock:
            self.running -= 1
            first = key not in self.again
            self.again.add(key)
            if first and fate == "retry":
                raise Retry(delay_ms=5)
            if first and fate == "snooze":
                raise Snooze(0.01)
            self.ended.add(key)
        if fate == "fails" and (task := current_task()) is not None and task.tries == 1:
            raise ValueError(key)

    async def _in_loop(self, key: str, seconds: float, fate: str) -> None:
        self._begin()
        await asyncio.sleep(seconds)
        if fate == "follow":
            self.expected.add(f"after {key}")
            queue, task = self.rng.choice(self.queues), self.rng.choice([self.in_loop, self.in_thread])
            await task.options(queue=queue).enqueue(f"after {key}", seconds, "ends")
        self._end(key, fate)

    def _in_thread(self, key: str, seconds: float, fate: str) -> None:
        self._begin()
        time.sleep(seconds)
        self._end(key, fate)

    def _too_long(self, key: str, _: float, __: str) -> None:
        self._begin()
        time.sleep(0.05)
        self._end(key, "ends")


@pytest.mark.parametrize("seed", range(8))
async def test_slots_are_neither_taken_twice_nor_forgotten(make_app: Callable[..., Ardiq], seed: int) -> None:
    case = Run(make_app, seed)
    calls = case.calls(150)
    work = asyncio.create_task(case.app.run(case.shares))
    async with asyncio.TaskGroup() as feeds:
        for queue in case.queues:
            feeds.create_task(case.feed(queue, calls[queue]))
    await eventually(lambda: case.ended >= case.expected)
    case.app.stop()
    await work
    assert case.most <= case.app.concurrency
    assert case.running == 0
    assert all(is_sound(case.app.queue(queue)) for queue in case.queues)
