"""What happens to tasks when something breaks. Waiting costs nothing, so all libraries wait at the same time."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.peers.libraries import Library
from bench.peers.processes import Failed, Program, last_line
from bench.peers.stage import PATIENCE_S, Figures, Stage

TASKS = 200
CONCURRENCY = 10
_BROKEN_AFTER = 60
"""So many tasks have begun when it breaks."""
KILL_WAIT_S = 150.0
RESTART_WAIT_S = 60.0
DOWN_S = 1.0

ServerProgram = tuple[str, dict[str, str]]


@dataclass
class _Case:
    """One library, broken at `broken_ns`, that is given time to finish."""

    stage: Stage
    worker: Program
    broken_ns: int
    ran: set[int] = field(default_factory=set)
    ended: str = ""
    """What the worker said when it ended by itself."""

    def done(self) -> bool:
        """Whether every task has come to its end. A worker that ended by itself is started again, once."""
        if not self.worker.alive() and not self.ended:
            self.ended = last_line(self.worker.log())
            self.worker = self.stage.worker("nap", CONCURRENCY)
        return len(self.stage.stamps.read()[1]) >= TASKS

    def outcome(self) -> Figures:
        """What became of the tasks."""
        began, ends = self.stage.stamps.read()
        missing = [number for number in range(TASKS) if number not in ends]
        figures: Figures = {
            "in_flight": len(self.ran),
            "lost": len(missing),
            "twice": sum(len(times) > 1 for times in ends.values()),
            "begun_twice": sum(len(times) > 1 for times in began.values()),
            "survived": not self.ended,
        }
        if self.ended:
            figures["worker_said"] = self.ended
        if not missing:
            figures["all_after_s"] = (max(map(max, ends.values())) - self.broken_ns) / 1e9
        return figures


def kill(libraries: Iterable[Library], server: ServerProgram) -> Iterator[tuple[Library, Figures]]:
    """A worker is killed with all its processes; another one is started at once."""

    def broken(stage: Stage, worker: Program) -> _Case:
        worker.kill()
        at = time.monotonic_ns()
        began, ended = stage.stamps.read()
        return _Case(stage, stage.worker("nap", CONCURRENCY), at, set(began) - set(ended))

    return _all(libraries, server, broken, KILL_WAIT_S)


def restart(libraries: Iterable[Library], server: ServerProgram) -> Iterator[tuple[Library, Figures]]:
    """The server, which keeps an append-only file, is stopped as an operator does and is back a second later."""

    def broken(stage: Stage, worker: Program) -> _Case:
        stage.server.restart(DOWN_S)
        return _Case(stage, worker, time.monotonic_ns())

    binary, settings = server
    return _all(libraries, (binary, {**settings, "appendonly": "yes"}), broken, RESTART_WAIT_S)


SCENARIOS = {"kill": kill, "restart": restart}


def _all(
    libraries: Iterable[Library], server: ServerProgram, broken: Callable[[Stage, Program], _Case], wait_s: float
) -> Iterator[tuple[Library, Figures]]:
    with ExitStack() as stack:
        waiting: dict[Library, _Case] = {}
        for library in libraries:
            try:
                stage = stack.enter_context(Stage(library, server))
                waiting[library] = broken(stage, _at_work(stage))
            except (Failed, OSError) as failure:
                yield library, {"failed": str(failure)}
            yield from _finished(waiting, wait_s)
        while waiting:
            time.sleep(0.1)
            yield from _finished(waiting, wait_s)


def _at_work(stage: Stage) -> Program:
    """A worker in the middle of a queue."""
    producer = stage.producer()
    producer.ask({"do": "many", "body": "nap", "first": 0, "count": TASKS}, PATIENCE_S)
    producer.kill()
    worker = stage.worker("nap", CONCURRENCY)
    stage.until(worker, lambda: len(stage.stamps.read()[0]) >= _BROKEN_AFTER)
    return worker


def _finished(waiting: dict[Library, _Case], wait_s: float) -> Iterator[tuple[Library, Figures]]:
    for library, case in list(waiting.items()):
        over = time.monotonic_ns() - case.broken_ns > wait_s * 1e9
        if not case.done() and not over:
            continue
        # A repetition of the last tasks may be under way.
        time.sleep(0.5)
        yield library, case.outcome()
        case.worker.kill()
        del waiting[library]
