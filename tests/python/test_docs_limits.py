"""`make demo-limits`: it shows that limits hold, says so if one does not, and leaves nothing behind."""

import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demonstrations import DEMO, interrupt, is_gone, start
from projects import eventually

SECOND = 1000


@pytest.fixture
def demonstration(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(DEMO))
    yield importlib.import_module("limits")
    for name in ("limits", "polite", "sites"):
        sys.modules.pop(name, None)


def test_all_limits_hold() -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start("limits.py", Path(directory), "--seconds", "4", "--tasks", "1000")
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        assert "No limit was exceeded by any of " in out
        assert "host(news.example)  4 at once, 15 per 1 s (put)" in out
        assert "Tenant tiny waited " in out
        eventually(lambda: is_gone(Path(directory)))


@pytest.mark.parametrize("after", ["tasks enqueued", "ardiq run", "limits put"])
def test_ctrl_c_leaves_nothing(after: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start("limits.py", Path(directory), "--seconds", "4", "--tasks", "100")
        out = interrupt(process, after)
        assert process.returncode == 130, out
        assert "Traceback" not in out
        eventually(lambda: is_gone(Path(directory)))


def test_it_sees_what_is_too_much(demonstration: Any) -> None:
    bucket = demonstration.Bucket(demonstration.host, "a.example")
    bucket.start(0)
    bucket.start(200)
    assert bucket.exceeded() == ""
    bucket.start(400)
    assert bucket.exceeded() == "3 ran at once"

    bucket = demonstration.Bucket(demonstration.partner)
    for at in (0, 0, 0, 0, 0, 67, SECOND, SECOND):
        bucket.start(at)
        bucket.running -= 1
    assert bucket.exceeded() == ""
    bucket.started += [66, 1001] + 5 * [SECOND]  # in any order
    assert bucket.exceeded().endswith("starts too many")


def test_it_knows_when_a_limit_was_raised(demonstration: Any) -> None:
    bucket = demonstration.Bucket(demonstration.host, "a.example")
    now = 1000 * int(time.time())
    bucket.rates = [(0, demonstration.host.rate), (now, demonstration.Rate(20, per=1))]
    bucket.started = [now - 200, now, now + 50, now + 100]
    assert bucket.exceeded() == ""
    bucket.started = [now - 150, now]
    assert bucket.exceeded() == "0.2 starts too many"
