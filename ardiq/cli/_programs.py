"""The programs of `ardiq dev`: each under a keeper, its lines shown under its name, started again after a change."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ._keeper import NOW, STOP

_KEEPER = Path(__file__).with_name("_keeper.py")
_CHUNK = 1 << 16
_COLOURS = {"ardiq": 36, "worker": 35, "web": 32, "command": 34}
_WIDTH = max(map(len, _COLOURS))


class Screen:
    """Lines of several programs on one standard output, whole and in the order in which they come.

    Attributes:
        on_gone: called when nobody reads them any more, as at the end of `ardiq dev … | head`.
        is_gone: whether that is so.
    """

    def __init__(self) -> None:
        self._out = sys.stdout.buffer
        self.has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.on_gone: Callable[[], None] = lambda: None
        self.is_gone = False

    def line(self, name: str, text: bytes | str) -> None:
        if self.is_gone:
            return
        text = text.encode(errors="replace") if isinstance(text, str) else text
        title = f"{name:{_WIDTH}} |"
        title = f"\x1b[{_COLOURS[name]}m{title}\x1b[0m" if self.has_colours else title
        try:
            self._out.write(title.encode() + b" " + text.rstrip(b"\r\n") + b"\n")
            self._out.flush()
        except OSError:  # a pipe without a reader, or a terminal that was closed
            self.is_gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())  # what is left cannot be written, either
            self.on_gone()

    def say(self, text: str) -> None:
        """A line of `ardiq dev` itself."""
        self.line("ardiq", text)


class Program:
    """One program: it runs until it ends or is told to stop, and may be run again. It has the open `sockets`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        screen: Screen,
        patience_s: float,
        sockets: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._sockets = sockets
        numbers = ",".join(map(str, sockets))
        self._command = [sys.executable, "-I", "-S", str(_KEEPER), str(patience_s), numbers, *command]
        self._environment = environment
        self._screen = screen
        self._keeper: asyncio.subprocess.Process | None = None
        self._word = b""

    async def run(self) -> int:
        """Its exit code, once it and all that it started have ended."""
        self._word = b""
        keeper = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            pass_fds=self._sockets,
            start_new_session=True,  # Ctrl-C in the terminal reaches `ardiq dev` alone
        )
        self._keeper = keeper
        if self._word:  # it was told meanwhile
            self._tell(self._word)
        try:
            await self._show(keeper)
            return await keeper.wait()
        finally:
            self._keeper = None

    def stop(self) -> None:
        """Let it end, within its patience."""
        if not self._word:
            self._tell(STOP)

    def kill(self) -> None:
        """End it now."""
        self._tell(NOW)

    def _tell(self, word: bytes) -> None:
        self._word = word
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.write(word)

    async def _show(self, keeper: asyncio.subprocess.Process) -> None:
        assert keeper.stdout is not None
        rest = b""
        while chunk := await keeper.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._screen.line(self.name, line)
            if len(rest) > _CHUNK:
                self._screen.line(self.name, rest)
                rest = b""
        if rest:
            self._screen.line(self.name, rest)


class Kept:
    """A program that is started again: after a change, and, where it failed, at the next one.

    Args:
        program: what is run.
        restarts: whether a change ends it while it runs.
        stopping: set when everything ends.
        say: shows a line of `ardiq dev`.
    """

    def __init__(
        self, program: Program, *, restarts: bool, stopping: asyncio.Event, say: Callable[[str], None]
    ) -> None:
        self.program = program
        self._restarts = restarts
        self._stopping = stopping
        self._say = say
        self._changed = asyncio.Event()
        self._is_running = False

    def change(self) -> None:
        """Something that it may have imported is another now."""
        if self._restarts or not self._is_running:
            self._changed.set()
            self.program.stop()

    def stop(self) -> None:
        """Everything ends: neither start it nor wait for a change."""
        self._changed.set()
        self.program.stop()

    async def keep(self) -> None:
        while not self._stopping.is_set():
            self._changed.clear()
            self._is_running = True
            code = await self.program.run()
            self._is_running = False
            if self._stopping.is_set():
                return
            if self._changed.is_set():
                continue
            name = self.program.name
            if code == 0 and not self._restarts:
                self._say(f"{name} has ended")
                return
            self._say(f"{name} ended with exit code {code}: it starts again at the next change of a file")
            await self._changed.wait()
