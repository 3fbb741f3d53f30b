"""`opentelemetry-instrument ardiq run …`: traces without a line of code, in all processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S

from ardiq import Ardiq

PROGRAM = """
import os
from ardiq import Ardiq, current_task

app = Ardiq(os.environ["ARDIQ_REDIS_URL"], os.environ["QUEUE"])

@app.task
async def first():
    await second.enqueue()

@app.task
def second():
    third.enqueue_sync()

@app.task(executor="process")
def third():
    fourth.enqueue_sync()

@app.task
async def fourth():
    app.stop()
"""


def spans(printed: str) -> list[dict[str, Any]]:
    """Those that the console exporter printed, of all processes; each is indented JSON."""
    return [json.loads(text) for text in re.findall(r"^\{$.*?^\}$", printed, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_instrumented_from_outside(app: Ardiq, tmp_path: Path, workers: int) -> None:
    (tmp_path / "jobs.py").write_text(PROGRAM)
    scripts = Path(sys.executable).parent
    app.ref("first").enqueue_sync()
    path = os.pathsep.join([str(scripts), os.environ["PATH"]])
    done = subprocess.run(
        [scripts / "opentelemetry-instrument", "--traces_exporter", "console", "--metrics_exporter", "none",
         "--logs_exporter", "none", "ardiq", "run", "jobs:app", f"--workers={workers}", "--burst"],
        cwd=tmp_path, capture_output=True, text=True, timeout=6 * SOON_S, check=False,
        # Unbuffered, each span is one short write, which another process's cannot come into.
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "ARDIQ_REDIS_URL": app.redis_url,
             "QUEUE": app.queue_name},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    of = {span["name"]: span for span in spans(done.stdout)}
    for before, after in (("first", "second"), ("second", "third"), ("third", "fourth")):
        assert {f"enqueue {after}", f"process {after}"} <= set(of), done.stdout + done.stderr
        sent, ran = of[f"enqueue {after}"], of[f"process {after}"]
        assert sent["parent_id"] == of[f"process {before}"]["context"]["span_id"]
        assert ran["parent_id"] == sent["context"]["span_id"]
    assert len({span["context"]["trace_id"] for span in of.values()}) == 1
