"""Children: calls that a running task starts once and waits for, and holds no worker meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from helpers import drain, eventually, field, result_of, working

from ardiq import Ardiq, ChildrenFailed, Job, Retry, children, children_sync


async def test_results_come_in_order_and_no_slot_is_held(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(concurrency=1)
    begun: list[Any] = []

    @app.task
    async def search(text: str) -> str:
        begun.append(text)
        return text.upper()

    @app.task
    def rank(number: int) -> int:
        begun.append(number)
        return number * 2

    @app.task
    async def research() -> list[Any]:
        begun.append("research")
        return [*await children("first", [search.prepare("a"), rank.prepare(3), search.prepare("b")])]

    job = await research.options(task_id="r-1").enqueue()
    async with working(app):
        assert (await result_of(job)).value == ["A", 6, "B"]
    assert begun == ["research", "a", 3, "b", "research"]
    assert await Job(app, "r-1.first~rank").value() == 6
