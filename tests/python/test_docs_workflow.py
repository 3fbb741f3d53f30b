"""`make demo-workflow`: each file is counted once though a worker is killed, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from documents import ROOT
from projects import eventually
from test_docs_limits import is_gone


def start(temporary: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "workflow.py"],
        cwd=ROOT / "docs/demo",
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_each_file_is_counted_once() -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start(Path(directory))
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        assert "One of the workers is killed" in out
        assert "publish: failed" in out
        assert "announce: skipped" in out
        assert "1 requeued" in out
        assert "were counted, each once." in out
        eventually(lambda: is_gone(Path(directory)))


@pytest.mark.parametrize("after", ["ardiq run", "is killed", "dlq requeue"])
def test_ctrl_c_leaves_nothing(after: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = start(Path(directory))
        assert process.stdout is not None
        for line in process.stdout:
            if after in line:
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130, out
        assert "Traceback" not in out
        eventually(lambda: is_gone(Path(directory)))
