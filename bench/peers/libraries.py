"""What is measured: the libraries, and how many tasks each gets, so that each run takes a few seconds."""

import os
from dataclasses import dataclass, replace
from typing import Self

from bench.programs import ROOT

HOME = ROOT / ".venv" / "peers"
HERE = ROOT / "bench" / "peers"


@dataclass(frozen=True)
class Library:
    """tasks: that do nothing; singles: enqueued one by one; burns: of 5 ms CPU; naps: of 100 ms at 500 at once."""

    name: str
    title: str
    tasks: int
    singles: int = 1_000
    burns: int = 400
    naps: int = 5_000
    site: str = ""
    node: bool = False
    driver: str = ""
    """Whose driver runs it, where it has none of its own."""

    def smaller(self) -> Self:
        """With a tenth of the tasks."""
        counts = {name: max(50, getattr(self, name) // 10) for name in ("tasks", "singles", "burns", "naps")}
        return replace(self, **counts)

    @property
    def interpreter(self) -> str:
        """What its driver runs on."""
        return "node" if self.node else str(HOME / self.name / "bin" / "python")

    def command(self, *words: str) -> list[str]:
        """Its driver's command."""
        drivers = HERE / "drivers"
        if self.node:
            return [self.interpreter, str(drivers / f"with_{self.name}.mjs"), *words]
        return [self.interpreter, str(drivers / "drive.py"), f"with_{self.driver or self.name}", *words]

    def environment(self) -> dict[str, str]:
        """Nothing of ours on its path: another version of Ardiq must not import this one."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ARDIQ"))}
        path = {"PATH": f"{HOME / self.name / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(HOME / self.name)}
        return {**inherited, **path, "PYTHONPATH": str(HERE / "drivers"), "PEERS_MODULES": str(HOME / self.name)}


LIBRARIES = [
    Library("ardiq", "Ardiq", tasks=50_000, singles=5_000, site="https://pypi.org/project/ardiq"),
    Library(
        "ardiq12", "ArdiQ 1.2", tasks=12_000, singles=3_000, burns=100, site="https://pypi.org/project/ardiq/1.2.0"
    ),
    Library("celery", "Celery", tasks=2_000, site="https://docs.celeryq.dev"),
    Library("arq", "arq", tasks=1_500, site="https://arq-docs.helpmanual.io"),
    Library("taskiq", "Taskiq", tasks=3_000, site="https://taskiq-python.github.io"),
    Library("dramatiq", "Dramatiq", tasks=3_000, site="https://dramatiq.io"),
    Library("rq", "RQ", tasks=150, singles=500, burns=100, site="https://python-rq.org"),
    Library("saq", "SAQ", tasks=2_000, site="https://saq-py.readthedocs.io"),
    Library("huey", "Huey", tasks=3_000, singles=3_000, site="https://huey.readthedocs.io"),
    Library("streaq", "streaQ", tasks=3_000, site="https://streaq.readthedocs.io"),
    Library("docket", "Docket", tasks=1_000, singles=500, site="https://docket.lol"),
    Library("bullmq", "BullMQ", tasks=8_000, singles=2_000, site="https://docs.bullmq.io", node=True),
]
BY_NAME = {library.name: library for library in LIBRARIES}
BEFORE = "ardiq_before"


def before(commit: str) -> Library:
    """An earlier Ardiq, beside which this one is measured."""
    return replace(BY_NAME["ardiq"], name=BEFORE, title=f"Ardiq at {commit}", driver="ardiq")
