"""An index of the standard library, as a workflow: every file is read, the files of each package are summed up, and one
report is made of all packages. One task waits for a person, another one fails until somebody puts something right.

`make demo-workflow` runs it and watches: workflow.py.
"""

import ast
import os
import sysconfig
from pathlib import Path

from ardiq import Ardiq, Flow, Node, Results, Signal, wait_for

app = Ardiq("embedded://", queue_name="library", concurrency=8, idle_timeout_ms=2_000)
approval = Signal("approval", bool)
LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "collections", "concurrent", "ctypes", "email", "html", "http", "importlib", "json", "unittest")


@app.task
def read(path: str) -> dict[str, int]:
    """What one file has."""
    text = Path(path).read_text()
    tree = ast.parse(text)
    return {
        "lines": text.count("\n"),
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree)),
        "classes": sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
    }


@app.task
def sum_up(package: str, files: Results[dict[str, int]]) -> dict[str, int | str]:
    """What a package has: the results of its files, read page by page."""
    total: dict[str, int | str] = {"package": package, "files": 0, "lines": 0, "functions": 0, "classes": 0}
    for one in files:
        for name, value in {"files": 1, **one}.items():
            total[name] = int(total[name]) + value
    return total


@app.task
def write_index(packages: list[dict[str, int | str]]) -> str:
    """The index, the package with the most lines first."""
    rows = sorted(packages, key=lambda each: -int(each["lines"]))
    return "\n".join(f"{each['package']:<12} {each['files']:>4} files {each['lines']:>8,} lines" for each in rows)


@app.task
async def approve(index: str) -> str:
    """A person reads it, who may take days: no worker is held meanwhile."""
    if not await wait_for(approval):
        raise ValueError("it was not approved")
    return index


@app.task(max_retries=0)
def publish(index: str) -> int:
    """Put it into the shelf. While there is none this fails, and can be run again."""
    Path(os.environ["DEMO_SHELF"], "index.txt").write_text(index + "\n")
    return len(index)


@app.task
def announce(size: int) -> str:
    """What comes after."""
    return f"an index of {size:,} bytes is on the shelf"


@app.task
def apologize() -> None:
    """Only if it could not be published."""


@app.workflow
def library(flow: Flow) -> Node[str]:
    """The graph."""
    summaries = []
    for package in PACKAGES:
        paths = sorted(str(path) for path in LIBRARY.joinpath(package).rglob("*.py"))
        files = flow.map(read, paths, name=f"read_{package}", max_concurrent=50)
        summaries.append(flow.add(sum_up.prepare(package, files.result), name=package))
    index = flow.add(write_index.prepare([each.result for each in summaries]))
    approved = flow.add(approve.prepare(index.result))
    published = flow.add(publish.prepare(approved.result))
    flow.add(apologize.prepare()).after(published, on_failure="only")
    return flow.add(announce.prepare(published.result))
