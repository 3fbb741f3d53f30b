"""Queues that `make bench` plays by the protocol alone, to see what limits cost: nothing is left out or done twice."""

import json
import os
from collections.abc import Iterator

import pytest

from ardiq import _core
from ardiq.embedded import Server
from ardiq.errors import ArdiqError
from bench.played import Queue, limits, load_earlier


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server of its own: a library of another name would be in the way of others."""
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield server.url


def counted(url: str, queue: str) -> dict[str, int]:
    core = _core.Core(url, f"ardiq:{{{queue}}}:")
    flat = [word.decode() for word in core.command(["HGETALL", f"ardiq:{{{queue}}}:stats"])]
    core.close()
    return {name: int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


@pytest.mark.parametrize("options", ["", limits(("limit", None)), limits(("limit", "a"))])
def test_each_task_is_run_once(url: str, options: str) -> None:
    name = f"played{len(options)}"
    queue = Queue(url, name)
    queue.declare("limit", concurrency=1_000)
    assert queue.enqueue([options] * 700) == 700
    assert queue.work(300) == 300
    assert queue.work(400) == 400
    assert queue.step() == 0
    queue.close()
    counts = counted(url, name)
    assert (counts["enqueued"], counts["completed"]) == (700, 700)


def test_limits_are_options_of_a_task() -> None:
    assert json.loads(limits(("gate", None), ("host", "a"))) == {
        "limits": [{"name": "gate"}, {"name": "host", "key": "a"}]
    }


def test_an_earlier_library_runs_beside_this_one(url: str) -> None:
    try:
        load_earlier(url, None)
    except ArdiqError:
        pytest.skip("this server has no functions")
    queue = Queue(url, "earlier", earlier=True)
    queue.enqueue([""] * 100)
    assert queue.work(100) == 100
    queue.close()
    assert counted(url, "earlier")["enqueued"] == 100


def test_an_earlier_library_leaves_the_calls_of_a_map_to_this_one(url: str) -> None:
    try:
        load_earlier(url, None)
    except ArdiqError:
        pytest.skip("this server has no functions")
    with Queue(url, "shared", joins=False) as queue, Queue(url, "shared", earlier=True) as earlier:
        queue.create_map("chord", 3)
        assert earlier.step() == 0
    assert counted(url, "shared")["held"] == 3
