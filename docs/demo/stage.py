"""What the demonstrations share: a console, a private server, workers, and the `ardiq` command as one would type it."""

import asyncio
import io
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from ardiq import embedded

console = Console(highlight=False)
HERE = Path(__file__).parent


def command(*words: str) -> list[str]:
    """The `ardiq` command, shown as one would type it."""
    console.print(f"[bold]$ ardiq {shlex.join(words)}[/]", soft_wrap=True)
    return [sys.executable, "-m", "ardiq", *words]


async def type_in(*words: str) -> None:
    """Run a command, and show what it prints."""
    done = await asyncio.to_thread(
        subprocess.run, command(*words), cwd=HERE, capture_output=True, text=True, process_group=0, check=False
    )
    console.print((done.stdout + done.stderr).rstrip(), markup=False, soft_wrap=True)


def private_server() -> str:
    """The URL of a server that is there for as long as this process is."""
    console.print("[bold]A private Valkey server, for as long as this runs[/]")
    url = embedded.url_for("embedded://")
    subprocess.run(command("migrate", url), check=True, process_group=0)  # Ctrl-C is for this process alone
    return url


def show_lines(*lines: str) -> None:
    """What to type in another terminal."""
    told = ("\nWhile it runs, another terminal shows the same:\n", *(f"  {line}" for line in lines), "")
    console.print(*told, sep="\n", soft_wrap=True)


@contextmanager
def workers(*words: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Worker processes for the length of the block, as `ardiq run` with these words starts them in a shell."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(
            command("run", *words, "--give-up-after", "10s"),
            cwd=HERE,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            process_group=0,
        )
        try:
            yield running
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C: it ends already
            running.terminate()
            if running.wait() not in (0, -signal.SIGKILL):
                log.seek(0)
                console.print(log.read().decode(errors="replace"), markup=False)


@contextmanager
def dashboard(app: str) -> Iterator[None]:
    """A dashboard for the length of the block, at an address that is shown."""
    running = subprocess.Popen(
        command("web", app, "--bind", "127.0.0.1:0"),
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    try:
        assert running.stdout is not None
        console.print(running.stdout.readline().rstrip() or "It did not start.", markup=False, soft_wrap=True)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C: it ends already
        running.terminate()
        running.communicate()


def present(demonstration: Callable[[], int]) -> NoReturn:
    """Show all of it, into a pipe line by line, and exit with what it returns, or with 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise SystemExit(demonstration())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
