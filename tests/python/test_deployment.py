"""What the guides give to start from: a project's layout, a logging configuration, files for deploying."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT, examples, files
from projects import Project

from ardiq import Ardiq, Forbidden, _core
from ardiq.cli import build_parser
from ardiq.cli._environment import fill

DOCS = ROOT / "docs"
OPS = ROOT / "ardiq/ops"


def parsed(words: list[str]) -> Any:
    arguments = build_parser().parse_args(words)
    if "options" in arguments:  # those of `ardiq run` have variables
        fill(arguments)
    return arguments


def test_the_layout_works(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARDIQ_REDIS_URL", project.url)
    monkeypatch.setenv("PYTHONPATH", str(project.directory))
    for name, text in files(DOCS / "layout.md").items():
        path = project.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in (path.parent, path.parent.parent):
            if package != project.directory:
                (package / "__init__.py").touch()
        path.write_text(text)
    done = project.python("-c", "import shop.web; print(shop.web.sign_up('Ada'))")
    assert done.returncode == 0, done.stderr
    process = project.start("shop.app:app", "--burst")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert project.of_all("result") == ['"Welcome, Ada"']


def test_the_logging_configuration_works(project: Project) -> None:
    [text] = examples(DOCS / "logging.md", "toml")
    project.write("logging.toml", text)
    project.enqueue("note", '["x"]')
    process = project.start("jobs:app", "--burst", "--log-config", "logging.toml")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert any("ready: worker" in json.loads(line)["message"] for line in errors.splitlines())


def unit() -> dict[str, list[str]]:
    lines = (OPS / "ardiq.service").read_text().splitlines()
    options: dict[str, list[str]] = {}
    for name, _, value in (line.partition("=") for line in lines if "=" in line and not line.startswith("#")):
        options.setdefault(name, []).append(value)
    return options


def test_the_unit_s_commands_exist_and_its_patience_is_longer_than_the_worker_s() -> None:
    options = unit()
    [start], [before], [patience] = options["ExecStart"], options["ExecStartPre"], options["TimeoutStopSec"]
    assert parsed(shlex.split(start)[1:]).drain_timeout + 10 < float(patience)
    parsed(shlex.split(before)[1:])


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (OPS / "ardiq.service").read_text()
    text = text.replace("/srv/shop/.venv/bin/ardiq", "/bin/true").replace("/srv/shop", "/").replace("User=shop\n", "")
    (tmp_path / "ardiq.service").write_text(text)
    command = ["systemd-analyze", "verify", str(tmp_path / "ardiq.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "ardiq.service" in done.stderr) == (0, False), done.stderr


def test_the_image_s_command_and_variables_make_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (OPS / "Dockerfile").read_text()
    entry, command = (json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE))
    variables = dict(word.split("=", 1) for word in re.findall(r"ARDIQ_\w+=\S+", text))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert entry == ["ardiq"]
    arguments = parsed(command)
    assert (arguments.log_format, arguments.drain_timeout, str(arguments.health)) == ("json", 25.0, "0.0.0.0:9100")
    assert variables["ARDIQ_APP"] == "shop.app:app"


def test_the_manifests_are_read_and_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    job, deployment = yaml.safe_load_all((OPS / "kubernetes.yaml").read_text())
    [migrate] = job["spec"]["template"]["spec"]["containers"]
    parsed(migrate["args"])
    pod = deployment["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    for variable in worker["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setenv("ARDIQ_APP", "shop.app:app")
    arguments = parsed(worker["args"])
    assert arguments.drain_timeout + 10 < pod["terminationGracePeriodSeconds"]
    assert [port["containerPort"] for port in worker["ports"]] == [arguments.health.port]
    assert [worker[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")] == ["/live", "/ready"]
    authentication, scaled = yaml.safe_load_all((OPS / "keda.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["spec"]["minReplicaCount"] == 1
    by_list, by_slots = scaled["spec"]["triggers"]
    assert by_list["authenticationRef"]["name"] == authentication["metadata"]["name"]
    for trigger in (by_list, by_slots):
        assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA takes nothing else
    assert int(by_slots["metadata"]["threshold"]) == Ardiq().context.settings.concurrency


def test_the_scaler_reads_the_list_that_tasks_wait_in(project: Project) -> None:
    """It asks by a script for the type of the key, then for its length; as the user of the file."""
    text = (OPS / "keda.yaml").read_text()
    [name] = re.findall(r'listName: "(.*)"', text)
    [user] = re.findall(r"ACL SETUSER (.*)", text)
    project.core.command(["ACL", "SETUSER", *user.split()])
    scaler = _core.Core(f"{project.url}?username=shop-scaler&password=PASSWORD", "ardiq:{default}:")
    script = """
        local key = KEYS[1]
        local kind = redis.call('type', key).ok
        local count = {list = 'llen', none = 'llen', zset = 'zcard', set = 'scard', hash = 'hlen'}
        return redis.call(count[kind], key)
    """
    assert scaler.command(["EVAL", script, "1", name]) == 0
    project.enqueue("note", '["x"]')
    project.enqueue("note", '["y"]')
    assert scaler.command(["EVAL", script, "1", name]) == 2
    with pytest.raises(Forbidden):
        scaler.command(["DEL", name])
    scaler.close()
