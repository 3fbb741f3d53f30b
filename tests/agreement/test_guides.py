"""The pages for engineers: what they name exists, and each is found from its index."""

import re
from pathlib import Path

import pytest

import ardiq
from ardiq import Job

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
PAGES = [*DECISIONS, *(page for page in [ROOT / "docs/internals.md", ROOT / "docs/glossary.md"] if page.exists())]
_PATH = re.compile(r"`((?:ardiq|native|lua|tests|fixtures|docs|bench)/[\w./*-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_that_is_named_exists(page: Path) -> None:
    gone = [path for path in _PATH.findall(page.read_text()) if not any(ROOT.glob(path.rstrip("/")))]
    assert not gone


def test_each_decision_is_in_the_index_and_short() -> None:
    linked = re.findall(r"^\| \[(\d{4})\]\((\S+)\) \|", (ROOT / "docs/decisions/README.md").read_text(), re.MULTILINE)
    assert linked == [(page.name[:4], page.name) for page in DECISIONS]
    for page in DECISIONS:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]}: ")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Evidence"]
        assert len(text.splitlines()) <= 50, page.name


def test_the_diagram_and_the_table_of_states_have_each_of_them() -> None:
    section = (ROOT / "docs/tasks.md").read_text().split("\n## States\n")[1].split("\n## ")[0]
    states = re.findall(r'"(\w+)"', str(Job.status.__doc__))
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == states
    diagram = section.split("```")[1]
    assert [state for state in states if state not in diagram] == ["not_found"]


def test_the_reference_has_all_that_is_public() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs/site/reference").glob("*.rst"))
    classes = set(re.findall(r"^\.\. auto(?:class|exception|function):: (\w+)$", text, re.MULTILINE))
    modules = set(re.findall(r"^\.\. automodule:: ([\w.]+)$", text, re.MULTILINE))
    names = {name for name in ardiq.__all__ if getattr(ardiq, name).__module__ not in modules}
    assert names == classes - {name for name in classes if getattr(ardiq, name).__module__ in modules}
    paths = [*(ROOT / "ardiq").glob("[a-z]*.py"), *(ROOT / "ardiq").glob("[a-z]*/__init__.py")]
    public = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    covered = modules | {getattr(ardiq, name).__module__ for name in classes}
    assert public - covered == {"ardiq.cli"}  # docs/command-line.md
