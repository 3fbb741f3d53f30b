"""The site that `make docs` builds: the pages of this repository as they are, and a reference made from docstrings."""

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ardiq import _core

ROOT = Path(__file__).parents[2]
REFERENCE = ("app", "tasks", "running", "operating", "errors", "testing", "integrations")

project = "Ardiq"
version = release = _core.VERSION
html_title = f"Ardiq {version}"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Seen from the root, so that a link from one page to another is the same here and on GitHub.
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "docs/site/reference/*.rst", "lua/README.md", "bench/README.md"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]
# Docstrings are Markdown: one backtick is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True


def navigation(name: str) -> dict[str, list[str]]:
    """Pages below a page, by caption. Nobody keeps a list of them beside the indexes that readers see on GitHub."""
    if name == "docs/decisions/README":
        return {"Decisions": linked(name)}
    if name != root_doc:
        return {}
    return {
        "Guides": ["docs/README", *linked("docs/README")],
        "Reference": [f"docs/site/reference/{page}" for page in REFERENCE],
        "Inside": ["docs/internals", "lua/README", "docs/decisions/README", "CONTRIBUTING", "bench/README"],
        "More": ["CHANGELOG", "SECURITY"],
    }


def linked(index: str) -> list[str]:
    rows = re.findall(r"^\| \[[^]]*\]\((\S+?)\.md\) \|", (ROOT / f"{index}.md").read_text(), re.MULTILINE)
    return [f"{Path(index).parent}/{page}" for page in rows]


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    for caption, pages in navigation(name).items():
        lines = "\n".join(f"/{page}" for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def read_fences(app: Sphinx, kind: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Code is fenced in Markdown, which docstrings are, and indented in reStructuredText, which autodoc reads."""
    inside = False
    for number, line in enumerate(lines):
        text = line.lstrip()
        if text.startswith("```"):
            indent = line.removesuffix(text)
            lines[number] = "" if inside else f"{indent}.. code-block:: {text[3:] or 'text'}\n"
            inside = not inside
        elif inside:
            lines[number] = f"    {line}"
    lines[:] = "\n".join(lines).split("\n")


def skip_plain_fields(app: Sphinx, kind: str, name: str, thing: object, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple say nothing of their own; the docstring of their class does."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", read_fences, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_plain_fields)
    app.connect("build-finished", add_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
