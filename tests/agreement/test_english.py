"""Plain English in what people read: phrases that read as translated, each with what to write instead."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTEAD = {
    r"tells? of\b": "says, reports, lists",
    r"in earnest\b": "in production",
    r"sure of (its|their|a) shares?": "guaranteed its share",
    r"up to but without": "before",
    r"for ever\b": "forever",
    r"anew\b": "again",
    r"at hand\b": "available",
    r"for want of\b": "because there is no",
    r"there and then\b": "immediately",
    r"so (many|much) (a|at most|later|of the)\b": "at most this many, after this delay",
    r"whatever (its|the) case\b": "in upper or lower case",
    r"(makes?|made) no sense\b": "is invalid",
    r"(?<!there )(is|are) no (time|number|URL|text|task|module|node|name|host)\b": "is not a",
    r"who(ever)? (waits?|asks?)\b": "callers that wait",
    r"has not turned|turns again": "has not run, runs again",
    r"pass(es|ed)? over\b|pass by\b": "skip",
    r"(blocking|_sync) twins?\b": "blocking calls",
    r"(lies?|lay|lain) (at|in|on|with|among|where|ready)\b": "is in, is with, was ready",
    r"(goes?|does not go) with (a|the|ids|--)": "is for, cannot be combined with",
    r"(a|\d+) letters long\b": "characters",
    r"lets? itself be\b": "say what it does",
    r"nobody can be asked": "there is no terminal to ask on",
    r"(is|are) handed\b(?! back)": "gets, is given",
    r"in vain\b": "without result",
    r"unheard|unrun\b": "discarded, without running",
    r"said nothing\b": "printed nothing",
    r"(has|have) a \w+ of (its|their) own, which": "say it in one clause",
    r"(are|is) worked with\b": "works",
    r"(promises|takes) no more than\b": "promises, accepts at most",
    r"there is none(;|$)": "say what exists, or nothing",
    r"at the (least|most) and at the": "at least, at most",
}
DOCUMENTS = [
    *(
        ROOT / name
        for name in (
            "README.md",
            "CONTRIBUTING.md",
            "CHANGELOG.md",
            "SECURITY.md",
            "fixtures/README.md",
            "lua/README.md",
        )
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = sorted((ROOT / "ardiq").rglob("*.py"))


def found(text: str) -> list[str]:
    """The phrases in a text that read as translated, with what to write instead."""
    text = " ".join(text.split())
    return [
        f"{match[0]!r}: {instead}"
        for phrase, instead in INSTEAD.items()
        for match in re.finditer(rf"\b(?:{phrase})", text, re.IGNORECASE)
    ]


def prose(document: Path) -> str:
    """A document without its examples and rendered tables."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!-- rendered.*?/rendered -->", "", text, flags=re.DOTALL)


def texts(source: Path) -> Iterator[str]:
    """What people see of a module: messages and help, and docstrings where the module is public."""
    tree = ast.parse(source.read_text())
    hidden = set()
    if source.parent.name != "ardiq":
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            for statement in body if isinstance(body, list) else ():
                if isinstance(statement, ast.Expr):
                    hidden.add(id(statement.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.value


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_guide_is_plain(document: Path) -> None:
    assert found(prose(document)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_and_docstrings_are_plain(source: Path) -> None:
    assert [each for text in texts(source) for each in found(text)] == []


def test_the_core_speaks_plainly() -> None:
    """Messages of the compiled core: its string literals, without comments."""
    for source in sorted((ROOT / "native/src").rglob("*.rs")):
        code = re.sub(r"^\s*//.*$", "", source.read_text().split("#[cfg(test)]")[0], flags=re.MULTILINE)
        for literal in re.findall(r'"(?:[^"\\\n]|\\.|\\\n)*"', code):
            assert found(literal.replace("\\\n", "")) == [], source


def test_a_phrase_is_found_across_lines() -> None:
    assert found("It tells\n    of each one.") == ["'tells of': says, reports, lists"]
    assert found("It reports each one, and is handed back.") == []
