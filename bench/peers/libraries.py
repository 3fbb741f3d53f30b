"""What is measured: the libraries, and how many tasks each gets, so that each run takes a few seconds."""

import os
from dataclasses import dataclass

from bench.programs import ROOT

HOME = ROOT / ".venv" / "peers"
HERE = ROOT / "bench" / "peers"


@dataclass(frozen=True)
class Library:
    """tasks: that do nothing; singles: enqueued one by one; cores: `burn` tasks; naps: of 100 ms at 500 at once."""

    name: str
    title: str
    tasks: int
    singles: int = 1_000
    burns: int = 400
    naps: int = 5_000
    site: str = ""
    node: bool = False

    @property
    def interpreter(self) -> str:
        """What its driver runs on."""
        return "node" if self.node else str(HOME / self.name / "bin" / "python")

    def command(self, *words: str) -> list[str]:
        """Its driver's command."""
        drivers = HERE / "drivers"
        if self.node:
            return [self.interpreter, str(drivers / f"with_{self.name}.mjs"), *words]
        return [self.interpreter, str(drivers / "drive.py"), f"with_{self.name}", *words]

    def environment(self) -> dict[str, str]:
        """Nothing of ours on its path: another version of Ardiq must not import this one."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ARDIQ"))}
        path = {"PATH": f"{HOME / self.name / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(HOME / self.name)}
        return {**inherited, **path, "PYTHONPATH": str(HERE / "drivers"), "PEERS_MODULES": str(HOME / self.name)}


LIBRARIES = [
    Library("ardiq", "Ardiq", tasks=50_000, singles=5_000, site="https://pypi.org/project/ardiq"),
    Library("arq", "arq", tasks=2_000, singles=1_000, site="https://arq-docs.helpmanual.io"),
    Library("rq", "RQ", tasks=400, singles=500, burns=200, site="https://python-rq.org"),
]
BY_NAME = {library.name: library for library in LIBRARIES}
