"""`make demo-workflow`: each file is counted once though a worker is killed, and nothing is left behind."""

import tempfile
from pathlib import Path

import pytest
from demonstrations import interrupt, is_gone, start
from projects import eventually


def test_each_file_is_counted_once() -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start("workflow.py", Path(directory))
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        assert "One of the workers is killed" in out
        assert "approve: scheduled" in out
        assert "it has the signal 'approval'" in out
        assert "publish: failed" in out
        assert "announce: skipped" in out
        assert "1 requeued" in out
        assert "were counted, each once." in out
        eventually(lambda: is_gone(Path(directory)))


@pytest.mark.parametrize("after", ["ardiq run", "is killed", "workflow signal", "dlq requeue"])
def test_ctrl_c_leaves_nothing(after: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start("workflow.py", Path(directory))
        out = interrupt(process, after)
        assert process.returncode == 130, out
        assert "Traceback" not in out
        eventually(lambda: is_gone(Path(directory)))
