"""Tasks of an app with a `signing_key`, and what somebody does to them who has no key."""

import asyncio
from collections.abc import Callable
from typing import Any

from helpers import SOON_S, eventually, result_of, working

from ardiq import Ardiq, Batch, Flow, Job, Map, Node, Results
from ardiq._values.signing import bare

KEY, NEW_KEY = "first-secret-of-32-bytes-or-more", b"second secret of bytes"


class Signed:
    """An app with a key, its tasks, and what those that take results were called with."""

    def __init__(self, app: Ardiq) -> None:
        self.app = app
        self.seen: list[Any] = []
        seen = self.seen
        self.goes_on = asyncio.Event()

        @app.task
        async def give(value: int) -> int:
            return value

        @app.task
        async def text(size: int) -> str:
            return "x" * size

        @app.task(max_retries=5)
        async def add(values: list[int]) -> int:
            seen.append(values)
            return sum(values)

        @app.task(max_retries=5)
        def double(value: int) -> int:
            seen.append(value)
            return 2 * value

        @app.task(max_retries=5)
        async def length(word: str) -> int:
            seen.append(len(word))
            return len(word)

        @app.task(max_retries=5)
        async def total(pages: Results[int]) -> int:
            found = [value async for value in pages]
            seen.append(found)
            return sum(found)

        @app.task(max_retries=5)
        def total_sync(pages: Results[int]) -> int:
            found = list(pages)
            seen.append(found)
            return sum(found)

        @app.task(batch=Batch(5, wait=0), max_retries=5)
        async def square(items: list[int]) -> list[int]:
            seen.extend(items)
            return [item * item for item in items]

        self.give, self.text, self.add, self.double, self.length = give, text, add, double, length
        self.total, self.total_sync, self.square = total, total_sync, square

        @app.task
        async def gate() -> None:
            await self.goes_on.wait()

        self.gate = gate

    def key(self, name: str) -> str:
        return f"{self.app.context.server.base}{name}"

    def command(self, name: str, key: str, *words: str | bytes) -> Any:
        """As redis-cli sends it."""
        return self.app.context.server.core.command([name, self.key(key), *words])

    async def run_with(self, flow: Flow, output: Node[Any], spoil: Callable[[], object], ended: list[str]) -> Job:
        """Run it; once all these have ended, and before what follows may begin, somebody spoils something."""
        gate = flow.add(self.gate.prepare(), name="gate")
        output.after(gate)
        job = await self.app.start(flow, output=output)
        async with working(self.app):
            for name in ended:
                await eventually(
                    lambda name=name: self.command("HGET", f"task:{job.id}~{name}", "state") == b"complete"
                )
            spoil()
            self.goes_on.set()
            await result_of(job)
        return job

    async def assert_refused(self, job: Job, name: str, why: str) -> None:
        """That node failed at once, uncalled."""
        result = await self.app.result(f"{job.id}~{name}", timeout=SOON_S)
        assert result is not None
        assert (result.success, result.tries) == (False, 1)
        assert result.value.startswith("BadSignature(")
        assert why in result.value
        assert self.seen == []


def of(flow: Flow, tasks: Signed, how: str) -> Node[Any]:
    """A node that takes results, in one of the ways there are."""
    if how == "one":
        return flow.add(tasks.double.prepare(flow.add(tasks.give.prepare(7), name="a").result), name="b")
    if how == "keyword":
        return flow.add(tasks.double.prepare(value=flow.add(tasks.give.prepare(7), name="a").result), name="b")
    if how == "list":
        nodes = [flow.add(tasks.give.prepare(number), name="az"[number]) for number in range(2)]
        return flow.add(tasks.add.prepare([node.result for node in nodes]), name="b")
    if how == "large":
        return flow.add(tasks.length.prepare(flow.add(tasks.text.prepare(100_000), name="a").result), name="b")
    if how == "batch":
        return flow.add(tasks.square.prepare(flow.add(tasks.give.prepare(7), name="a").result), name="b")
    rows: Map[int] = flow.map(tasks.give, range(7), name="a", chunk=3 if how == "chunks" else 1)
    if how in ("pages", "pages_sync"):
        return flow.add((tasks.total if how == "pages" else tasks.total_sync).prepare(rows.result), name="b")
    return flow.add(tasks.add.prepare(rows.results), name="b")


WAYS = {
    "one": (14, 7), "keyword": (14, 7), "list": (1, [0, 1]), "large": (100_000, 100_000), "batch": (49, 7),
    "map": (21, list(range(7))), "chunks": (21, list(range(7))), "pages": (21, list(range(7))),
    "pages_sync": (21, list(range(7))),
}  # fmt: skip


def spoiled(tasks: Signed, how: str, field: str) -> Callable[[], object]:
    """What somebody writes who has no key: another result, or one of another task's."""

    def spoil() -> None:
        is_map = how in ("map", "chunks", "pages", "pages_sync")
        key, name = ("results:w~a", "0") if is_map else ("task:w~a", "result")
        text = tasks.command("HGET", key, name)
        codec, _, value = text.partition(b" ") if is_map else (tasks.command("HGET", key, "result_codec"), b"", text)
        if field == "value":
            forged = value.replace(b"x" if how == "large" else b"0" if is_map else b"7", b"8")
            forged = forged if forged != value else b"8"
        else:
            forged = value
            codec = {"no signature": bare(codec.decode()).encode(), "another": codec[:-22] + 22 * b"A"}[field]
        if is_map:
            tasks.command("HSET", key, name, codec + b" " + forged)
        else:
            tasks.command("HSET", key, "result", forged, "result_codec", codec)

    return spoil
