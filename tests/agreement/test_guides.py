"""The pages for engineers: what they name exists, and each is found from its index."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import ardiq
from ardiq import Job, cli, errors

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
PROTOCOL = json.loads((ROOT / "lua/protocol.json").read_text())
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


GLOSSARY = (ROOT / "docs/glossary.md").read_text()
KEYS = PROTOCOL["keys"]
RECORD, *_ = re.findall(r"`([^`]+)`", KEYS["task"]["holds"])
OUTCOMES = next(field for field in PROTOCOL["functions"]["step"]["tail"]["record"] if field["name"] == "outcome")
EXCEPTIONS = [
    name
    for name, thing in vars(errors).items()
    if getattr(thing, "__module__", "") == "ardiq.errors" and isinstance(thing, type)
]


def words(section: str, column: int = 1) -> list[str]:
    """What the glossary has in a column of a section, each of them once."""
    rows = re.findall(r"^\| (.*) \|$", GLOSSARY.split(f"\n## {section}\n")[1].split("\n## ")[0], re.MULTILINE)[2:]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", re.split(r" ?\| ", row)[column - 1])]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (words("States"), PROTOCOL["states"]),
        (words("Functions"), PROTOCOL["functions"]),
        (words("Keys"), [key["pattern"] for part in ("keys", "shared_keys") for key in PROTOCOL[part].values()]),
        (words("Fields of a record"), [*RECORD.split(), *re.findall(r"`(\w+:<name>)`", KEYS["task"]["holds"])]),
        (words("Fields of a worker"), re.findall(r"`(\w+)`", KEYS["worker"]["holds"])),
        (words("Errors"), EXCEPTIONS),
        (words("Errors", 2), [f"ARDIQ_{code}" for code in PROTOCOL["errors"]]),
        (words("The command line"), [f"ardiq {verb}" for verb in cli._COMMANDS]),
    ],
    ids=["states", "functions", "keys", "record", "worker", "exceptions", "errors", "commands"],
)
def test_the_glossary_has_these_words_and_no_others(found: list[str], expected: Iterable[str]) -> None:
    assert sorted(found) == sorted(expected)


def test_the_glossary_has_these_words_and_others() -> None:
    outcomes = words("Outcomes and answers")
    assert set(re.findall(r"`(\w+)`", OUTCOMES["about"])) <= set(outcomes)
    named = {word for part in re.findall(r"`([^`]+)`", KEYS["meta"]["holds"]) for word in part.split()}
    assert named - {"queue", "tasks"} == set(words("Fields of `meta`"))
