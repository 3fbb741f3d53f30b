"""The workers that `make bench-scale` plays by the protocol alone run what is enqueued, handed over or fetched."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from ardiq import Ardiq

ROOT = Path(__file__).parents[2]


async def test_played_workers_complete_each_task_once(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(queue_name="bench")

    @app.task
    async def noop() -> None: ...

    first = await noop.enqueue()  # which also loads the library
    words = [sys.executable, "-m", "bench.scale.fleet", app.redis_url, "3", "beats"]
    fleet = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert fleet.stdout is not None
    try:
        assert await fleet.stdout.readline() == b"joined\n"
        assert await first.result(timeout=30)
        alone = [await (await noop.enqueue()).result(timeout=30) for _ in range(5)]
        together = await app.enqueue_many(noop.prepare() for _ in range(50))
        results = alone + [await job.result(timeout=30) for job in together]
        assert all(result and result.success for result in results)
        assert fleet.returncode is None
    finally:
        fleet.kill()
        await fleet.wait()
