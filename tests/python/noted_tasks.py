"""Tasks of workflows, which note what they are called with."""

import dataclasses
from datetime import date
from typing import Any

from helpers import result_of, working

from ardiq import Ardiq, WorkflowJob


@dataclasses.dataclass
class Point:
    x: int
    on: date


class Tasks:
    """Tasks of an app, and what they were called with."""

    def __init__(self, app: Ardiq) -> None:
        self.seen: list[Any] = []
        self.broken: set[Any] = set()
        seen, broken = self.seen, self.broken

        @app.task(max_retries=0)
        async def give(value: int) -> int:
            seen.append(value)
            if value in broken:
                raise ValueError(value)
            return value

        @app.task(max_retries=0)
        def double(value: int, plus: int = 0) -> int:
            seen.append(("double", value))
            return 2 * value + plus

        @app.task(max_retries=0)
        async def total(values: list[int], plus: int = 0) -> int:
            seen.append(("total", values))
            return sum(values) + plus

        @app.task(max_retries=0)
        async def note(*values: Any) -> None:
            seen.append(values)

        @app.task(max_retries=0)
        async def point(x: int) -> Point:
            return Point(x, date(2026, 11, 30))

        @app.task(max_retries=0)
        async def x_of(point: Point, other: Point | None = None) -> int:
            seen.append((point, other))
            return point.x

        self.give, self.double, self.total, self.note, self.point, self.x_of = give, double, total, note, point, x_of


async def ended(app: Ardiq, job: WorkflowJob[Any]) -> None:
    """Run until the workflow has ended."""
    async with working(app):
        await result_of(job)
