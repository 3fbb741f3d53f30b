"""The processes of a run: `ardiq run` workers and producers, started again when they end, as a process manager does."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import clocks
from .plan import PRODUCERS, WORKERS

ROOT = Path(__file__).parents[2]
_NUMBERS_EACH = 10_000_000
_STUCK_S, _BACKLOG_S = 40.0, 300.0


@dataclass
class Ended:
    """How a process ended."""

    pid: int
    code: int
    at: float
    asked: bool
    """By a fault, or by us."""


class Member:
    """One place in the fleet, and the process that fills it."""

    def __init__(self, name: str, directory: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.environment = environment
        self.arguments: list[str] = []
        self.asked = False
        self.retired = False
        """It is not started again."""
        self.ended: list[Ended] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self.asked = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self.environment},
            )

    def signal(self, number: signal.Signals) -> None:
        """What ends it is noted as asked for."""
        self.asked = self.asked or number in (signal.SIGKILL, signal.SIGTERM)
        os.kill(self.pid, number)

    def look(self) -> bool:
        """Whether it has ended since."""
        if self._process is None or (code := self._process.poll()) is None:
            return False
        self.ended.append(Ended(self.pid, code, time.monotonic(), self.asked))
        self._process = None
        return True

    def wait(self, patience_s: float = _STUCK_S) -> None:
        """Until it has ended; one that does not shows where it hangs."""
        assert self._process is not None
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.asked = False
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Fleet:
    """All workers and producers.

    Args:
        directory: for logs and clocks.
        environment: what all of them get.
        urls: of the server; the members take turns with them.
        rate: tasks a second that the producers enqueue together.
        seed: what the producers do.
        replicated: whether every other producer waits for a replica.
        library: a released one, which one of the workers and one of the producers speak.
    """

    def __init__(
        self,
        directory: Path,
        environment: dict[str, str],
        urls: list[str],
        rate: float,
        seed: int,
        replicated: bool,
        library: Path | None = None,
    ) -> None:
        self._directory, self._library = directory, clocks.preload(directory)
        self.clocks = [clocks.Clock(directory, str(index)) for index in range(WORKERS)]
        self.workers: list[Member] = []
        self.producers: list[Member] = []
        self._rate, self._seed, self._generation = rate / PRODUCERS, seed, 0
        for index in range(WORKERS):
            own = {"CHAOS_URL": urls[index % len(urls)], **self.clocks[index].environment(self._library)}
            self.workers.append(Member(f"worker{index}", directory, {**environment, **own}))
        for index in range(PRODUCERS):
            own = {"CHAOS_URL": urls[index % len(urls)]}
            if replicated and index % 2 == 0:
                own["CHAOS_REPLICATED"] = "1"
            self.producers.append(Member(f"producer{index}", directory, {**environment, **own}))
        for worker in self.workers:
            worker.arguments = ["ardiq", "run", "tests.chaos.flows:app"]
        self._produces = {producer: ["tests.chaos.produce"] for producer in self.producers}
        if library is not None:
            for member in (self.workers[-1], self.producers[-1]):
                member.environment["CHAOS_LIBRARY"] = str(library)
            self.workers[-1].arguments = ["tests.chaos.released", "work"]
            self._produces[self.producers[-1]] = ["tests.chaos.released", "produce"]

    def backlog(self, count: int) -> None:
        """Have so many tasks wait, of a key each, before anybody works."""
        first = Member("backlog", self._directory, self.producers[-1].environment)
        first.arguments = ["tests.chaos.produce", "backlog", str(count)]
        first.start()
        first.wait(_BACKLOG_S)
        first.look()
        assert first.ended[0].code == 0, first.log.read_text()

    def start(self) -> None:
        for worker in self.workers:
            worker.start()
        for producer in self.producers:
            self.produce(producer)

    def produce(self, producer: Member) -> None:
        """Start it with numbers that nobody had before."""
        self._generation += 1
        first = self._generation * _NUMBERS_EACH
        numbers = first, self._rate, self._seed + self._generation
        producer.arguments = [*self._produces[producer], *map(str, numbers)]
        producer.start()

    def tend(self) -> None:
        """Start again what has ended."""
        for member in (*self.workers, *self.producers):
            if member.look() and not member.retired:
                self.start_again(member)

    def start_again(self, member: Member) -> None:
        member.retired = False
        if member in self.producers:
            self.produce(member)
        else:
            member.start()

    def retire(self, *members: Member) -> None:
        """Stop them for good."""
        for member in members:
            member.retired = True
            if member.running:
                member.signal(signal.SIGTERM)
        self._see_off(list(members))

    def versions(self) -> tuple[list[Member], list[Member]]:
        """Who speaks this version, and who the one before, in a fleet of both."""
        return [*self.workers[:-1], *self.producers[:-1]], [self.workers[-1], self.producers[-1]]

    def stop_producing(self) -> None:
        for producer in self.producers:
            if producer.running:
                producer.signal(signal.SIGTERM)
        self._see_off(self.producers)

    def stop_working(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.signal(signal.SIGTERM)
        self._see_off(self.workers)

    def _see_off(self, members: list[Member]) -> None:
        for member in members:
            if member.running:
                member.wait()
                member.look()

    def kill(self) -> None:
        for member in (*self.workers, *self.producers):
            member.kill()
