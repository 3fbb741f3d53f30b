"""The benchmark of the field: each library has what it is run by, and nothing is left of one that is gone."""

import json
import re
from pathlib import Path

import pytest
import render

from bench import limits, workflows
from bench.peers.libraries import BEFORE, HERE, LIBRARIES, Library, before

NAMED = pytest.mark.parametrize("library", [pytest.param(library, id=library.name) for library in LIBRARIES])
# What the drivers share; what the benchmark itself needs.
SHARED_DRIVERS = {"bare.py", "bodies.py", "drive.py"}
OWN_REQUIREMENTS = {"plots.txt", "server.txt"}


def requirements(library: Library) -> Path:
    return HERE / "requirements" / f"{library.name}.{'json' if library.node else 'txt'}"


@NAMED
def test_it_has_a_driver(library: Library) -> None:
    driver = HERE / "drivers" / f"with_{library.name}.{'mjs' if library.node else 'py'}"
    assert driver.is_file()


@NAMED
def test_what_it_needs_is_pinned(library: Library) -> None:
    text = requirements(library).read_text()
    if library.node:
        assert all(re.fullmatch(r"[0-9.]+", version) for version in json.loads(text)["dependencies"].values())
    else:
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_no_file_is_left_of_another_library() -> None:
    drivers = {f"with_{library.name}.{'mjs' if library.node else 'py'}" for library in LIBRARIES}
    files = {path.name for path in (HERE / "drivers").iterdir() if path.is_file()}
    assert files == drivers | SHARED_DRIVERS
    assert {path.name for path in (HERE / "requirements").iterdir()} == {
        *(requirements(library).name for library in LIBRARIES),
        *OWN_REQUIREMENTS,
    }


def test_an_earlier_ardiq_runs_by_the_driver_of_this_one() -> None:
    earlier = before("0123abc")
    assert earlier.name == BEFORE
    assert "with_ardiq" in earlier.command("describe")
    assert f"/{BEFORE}/" in earlier.interpreter


def test_the_report_names_every_library() -> None:
    text = (render.ROOT / "docs/benchmarks.md").read_text()
    for library in LIBRARIES:
        assert f"[{library.title}](" in text, "run: make bench-peers, all libraries"


def test_each_figure_of_limits_and_workflows_is_explained() -> None:
    text = (render.ROOT / "bench/README.md").read_text()
    for names, _ in [*limits.MEASURES, *workflows.MEASURES]:
        for name in names.split():
            assert f"`{name}`" in text or name.startswith("enqueue_limits_"), name
