"""The programs of docs/demo, run as a reader does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from documents import ROOT

DEMO = ROOT / "docs/demo"


def start(program: str, temporary: Path, *words: str) -> "subprocess.Popen[str]":
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, program, *words],
        cwd=DEMO,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupt(process: "subprocess.Popen[str]", after: str) -> str:
    """Press Ctrl-C once it has said that; what it says then."""
    assert process.stdout is not None
    for line in process.stdout:
        if after in line:
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    return out


def is_gone(temporary: Path) -> bool:
    """Whether server, workers and pipe are."""
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return not list(temporary.iterdir()) and str(temporary) not in processes
