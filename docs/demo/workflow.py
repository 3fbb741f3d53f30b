"""A workflow at work: an index of the standard library. A worker is killed, a person is asked, a task fails.

Run it with `make demo-workflow`. It takes a few seconds, needs no network, and exits with 1 if a file was not counted
exactly once. What a user of Ardiq writes is in library.py. This starts a private server and two workers, shows the
graph while it runs, kills one of the workers, approves the index, puts right what failed, and runs that again.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the rest is imported
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from library import LIBRARY, PACKAGES, app, library
from rich.live import Live
from rich.table import Table
from stage import console, present, private_server, show_lines, type_in, workers

from ardiq import TaskError, WorkflowJob, WorkflowNode

COLORS = {
    "complete": "green",
    "failed": "bold red",
    "skipped": "yellow",
    "running": "cyan",
    "scheduled": "magenta",
    "blocked": "dim",
}


def row(node: WorkflowNode) -> str:
    """What is shown of one."""
    color = COLORS.get(node.state, "default")
    done = f" {node.done} of {node.total}" if node.is_map else ""
    return f"[{color}]{node.name}: {node.state}{done}[/]"


async def picture(job: WorkflowJob[str]) -> Table:
    """The graph for a terminal: each package with the map that it sums up, then what comes after all."""
    nodes = {node.name: node async for node in job.nodes()}
    drawn = Table.grid(padding=(0, 3, 0, 0))
    for package in PACKAGES:
        drawn.add_row(row(nodes.pop(f"read_{package}")), f"→ {row(nodes.pop(package))}")
    drawn.add_row("", "")
    for node in nodes.values():
        drawn.add_row(row(node), f"after {', '.join(node.after) if len(node.after) < 3 else 'all packages'}")
    return drawn


async def watch(job: WorkflowJob[str], is_over: Callable[[], Awaitable[object]]) -> None:
    """Show it until then: redrawn in place; where there is no terminal, how far it is."""
    last = ""
    with Live(console=console, refresh_per_second=10, auto_refresh=console.is_terminal) as live:
        while not await is_over():
            if console.is_terminal:
                live.update(await picture(job))
            elif (progress := await job.progress()) and (now := progress.message) != last:
                console.print(last := now)
            await asyncio.sleep(0.1)
        live.update(await picture(job), refresh=True)
    console.print()


async def is_waiting(job: WorkflowJob[str]) -> bool:
    """Whether the person is asked."""
    return await job.node("approve").status() == "scheduled"


async def demonstrate() -> bool:
    """All of it; whether each file was counted once."""
    with tempfile.TemporaryDirectory() as directory:
        shelf = Path(directory) / "shelf"
        worker = partial(workers, "library:app", DEMO_SHELF=str(shelf))
        with worker() as unlucky, worker():
            while await app.inspect.workers_alive() < 2:
                await asyncio.sleep(0.05)
            job = await library.options(id="library").start()
            watching = asyncio.create_task(watch(job, lambda: is_waiting(job)))
            while not (progress := await job.progress()) or progress.done < 20:
                await asyncio.sleep(0.01)
            console.print("One of the workers is killed while it reads: what it held runs elsewhere.")
            unlucky.kill()
            await watching

            console.print("A person is to approve the index. Until then nothing runs, and no worker is held:")
            await type_in("workflow", "signal", "library:app", "library~approve", "approval", "true")
            await watch(job, job.result)

            try:
                await job.value()
            except TaskError as error:
                console.print(str(error), markup=False, soft_wrap=True)
            console.print("There was no shelf. Now there is one, and what failed runs again, with what comes after it:")
            shelf.mkdir()
            await type_in("dlq", "requeue", "library:app", "library~publish")
            await watch(job, job.result)
            value = await job.value(timeout=30)
        index = (shelf / "index.txt").read_text()
    console.print(f"{index}\n[bold]{value}[/]")
    counted = sum(int(line.split()[1]) for line in index.splitlines())
    there = sum(len(list(LIBRARY.joinpath(package).rglob("*.py"))) for package in PACKAGES)
    verdict = f"{counted:,} files of {there:,} were counted, each once."
    console.print(f"[bold {'green' if counted == there else 'red'}]{verdict}[/]")
    return counted == there


def main() -> int:
    """The whole demonstration."""
    argparse.ArgumentParser(description="A workflow at work.").parse_args()
    url = private_server()
    show_lines(
        f"ardiq workflow show {url} library --queue library",
        f"redis-cli -s {url.partition('://')[2]} SMEMBERS 'ardiq:{{library}}:open:library'",
    )
    return 0 if asyncio.run(demonstrate()) else 1


if __name__ == "__main__":
    present(main)
