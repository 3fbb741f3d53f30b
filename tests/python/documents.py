"""What the guides tell a reader to type."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "lua/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.(?:py|toml))\n")


def examples(document: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(document.read_text()) if kind == language]


def files(document: Path) -> dict[str, str]:
    """The examples that are files of one project: the first line is a comment with the name."""
    texts = [text for _, text in _FENCE.findall(document.read_text())]
    return {name[1]: text for text in texts if (name := _FILE.match(text))}


def by_name(language: str) -> dict[str, str]:
    """All examples of a language that are no files of a project, by document and number."""
    return {
        f"{document.relative_to(ROOT)}-{number}": text
        for document in DOCUMENTS
        for number, text in enumerate(examples(document, language), 1)
        if text not in files(document).values()
    }
