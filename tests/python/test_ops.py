"""`ardiq ops`: what the files name exists: metrics, their labels and states, and the commands to type."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT
from fleet import Fleet, Probe, soon

from ardiq import Ardiq
from ardiq.cli import build_parser, main, ops
from ardiq.embedded import Server

OPS = ROOT / "ardiq/ops"
SOURCE = (ROOT / "native/src/engine/health/text.rs").read_text().split("#[cfg(test)]")[0]
METRICS = dict(reversed(found) for found in re.findall(r'\.(gauge|counter|histogram)\(\s*"(\w+)"', SOURCE))
LABELS = {"queue", "task", "lane", "outcome", "reason", "state", "worker", "version", "le", "instance"}
OUTCOMES = {"complete", "failed", "retry", "snooze", "aborted", "release"}
STATES = {"scheduled", "queued", "limited", "running", "held", "dead", "quarantined", "overdue"}
JOBS = """
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b
"""


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((OPS / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Each query of every file."""
    yield from (rule["expr"] for rule in alerts())
    board = json.loads((OPS / "grafana.json").read_text())
    yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", []))
    yield from (each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query")
    for document in yaml.safe_load_all((OPS / "keda.yaml").read_text()):
        for trigger in document["spec"].get("triggers", []):
            yield from (text for name, text in trigger["metadata"].items() if name == "query")


def series() -> set[str]:
    """The names that metrics have in the exposition."""
    names = {f"ardiq_{name}" for name, kind in METRICS.items() if kind != "histogram"}
    parts = ("bucket", "sum", "count")
    return names | {f"ardiq_{name}_{part}" for name, kind in METRICS.items() if kind == "histogram" for part in parts}


@pytest.mark.parametrize("name", ops._FILES)
def test_a_file_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops", name]) == 0
    assert capsys.readouterr().out == (OPS / ops._FILES[name][0]).read_text()


def test_every_file_is_printed() -> None:
    assert {path.name for path in OPS.iterdir()} == {name for name, _ in ops._FILES.values()}


def test_the_metrics_that_are_named_exist_and_the_others_are_for_looking_up() -> None:
    named = {name for text in expressions() for name in re.findall(r"\bardiq_\w+", text)}
    assert len(named) > 15
    assert named <= series(), named - series()
    assert series() - named <= {
        *(f"ardiq_{name}" for name in ("worker_info", "ready", "loop_stalls_total", "interpreter_held_total")),
        *(f"ardiq_{name}_seconds_{part}" for name in ("run", "wait") for part in ("sum", "count")),
    }


def test_labels_and_their_values_exist() -> None:
    for text in expressions():
        bare = re.sub(r'"[^"]*"', "", text)
        found = {each for part in re.findall(r"(?:\bby|\bon) \(([^)]*)\)", bare) for each in part.split(", ")}
        found |= {label for part in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)(?==|!)", part)}
        assert found <= LABELS, text
        for label, known in (("outcome", OUTCOMES), ("state", STATES)):
            for values in re.findall(rf'\b{label}=~?"([^"]*)"', text):
                assert set(values.split("|")) <= known, text


def test_a_worker_has_the_metrics(tmp_path: Path, server: Server, app: Ardiq) -> None:
    fleet = Fleet(tmp_path, app, server.url, JOBS)
    try:
        fleet.start("--health", "127.0.0.1:0")
        [place] = soon(lambda: re.findall(r"health: http://([^/]+)/live", fleet.log()))
        probe = Probe(place)
        fleet.app.ref("add").enqueue_sync(1, 2)
        soon(lambda: probe.metric("attempts_total", task="add") == 1 and probe.metric("queue_known") == 1)
        told = dict(re.findall(r"^# TYPE ardiq_(\w+) (\w+)$", probe.get("/metrics")[1], re.MULTILINE))
    finally:
        fleet.end()
    assert told.items() <= METRICS.items()
    assert METRICS.keys() - told.keys() <= {"queue_lane_age_seconds", "queue_lane_limited", "outcomes_refused_total"}


def test_the_command_of_an_alert_can_be_typed() -> None:
    labels = {"queue": "default", "task": "add"}
    for rule in alerts():
        command = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], rule["annotations"]["command"])
        program, *words = shlex.split(command)
        assert program == "ardiq"
        build_parser().parse_args(words)
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_promtool_accepts_the_alerts_and_every_query(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    queries = [text.replace("$__rate_interval", "1m") for text in expressions() if not text.startswith("label_values(")]
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(OPS / "alerts.yaml"), str(tmp_path / "queries.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads((OPS / "grafana.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
