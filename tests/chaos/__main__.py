"""Run it: see the package."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ardiq import _core

from . import flows, ledger, limited, plan, records, released, report
from .faults import Injector
from .fleet import Fleet
from .jobs import QUEUE
from .observer import Observer, left
from .site import ROOT, Site, binary, site
from .verdict import Evidence, Verdict, judge

_IDLE_S, _SETTLED_S = 30.0, 5.0
_FAULT_S = 1.0
"""About how long a fault takes, beyond what the script says."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides the script of faults")
    parser.add_argument(
        "--topology", choices=plan.KINDS, action="append", help="repeat for several (default: all, one after the other)"
    )
    parser.add_argument("--tasks", type=int, default=50_000, help="at least so many, for each topology")
    parser.add_argument("--keys", type=int, default=limited.OWNERS, help="tasks that wait in the beginning, a key each")
    parser.add_argument("--faults", type=int, default=50, help="for each topology")
    parser.add_argument("--pace", type=float, default=1.0, help="multiplies how long faults and pauses last")
    parser.add_argument("--skip", action="append", default=[], metavar="FAULT", help="leave a kind of fault out")
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="one worker and one producer are of the version of the library before this one (not on a cluster)",
    )
    parser.add_argument("--write", action="store_true", help="show it in docs/reliability.md, if all is well")
    parser.add_argument("--keep", action="store_true", help="keep the logs and ledgers, and say where")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started is ended
    verdicts: dict[str, Verdict] = {}
    digests: dict[str, str] = {}
    began = time.monotonic()
    try:
        for topology in arguments.topology or plan.KINDS:
            skipped, mixed = tuple(arguments.skip), arguments.mixed
            faults = plan.script(arguments.seed, topology, arguments.faults, skipped, arguments.pace, mixed)
            if mixed and _core.PROTOCOL_VERSION > 1:
                faults.append(plan.LAST)
            digests[topology] = plan.digest(faults)
            print(f"{topology}: {len(faults)} faults, script {digests[topology]}, seed {arguments.seed}", flush=True)
            directory = Path(tempfile.mkdtemp(prefix="ardiq-chaos-"))
            try:
                library = released.before_this(directory) if mixed else None
                counts = arguments.tasks, arguments.keys
                verdicts[topology] = run(topology, faults, counts, arguments.seed, directory, library)
            finally:
                if arguments.keep:
                    print(f"logs and ledgers are in {directory}")
                else:
                    shutil.rmtree(directory)
            for line in report.wrongs(verdicts[topology]):
                print(line, flush=True)
    finally:
        if verdicts:
            print(report.table(verdicts))
    if not all(verdict.good for verdict in verdicts.values()):
        return 1
    if arguments.write:
        print(f"written to {report.write(verdicts, digests, time.monotonic() - began)}")
    return 0


def run(
    topology: str, faults: list[plan.Fault], counts: tuple[int, int], seed: int, directory: Path, library: Path | None
) -> Verdict:
    """One topology: faults while the fleet works, then peace, then the verdict. `counts`: of tasks and of keys."""
    tasks, keys = counts
    if (server := binary(topology)) is not None:
        os.environ["ARDIQ_TEST_SERVER"] = server
    else:
        os.environ.pop("ARDIQ_TEST_SERVER", None)
    ledgers = directory / "ledgers"
    environment = {"CHAOS_LEDGERS": str(ledgers)}
    rate = tasks / sum(_FAULT_S + fault.pause_s + fault.for_s for fault in faults)
    with site(topology, directory) as servers:
        fleet = Fleet(directory, environment, servers.urls, rate, seed, servers.proxy is None, library)
        observer = Observer(servers, max(keys, 2 * limited.MANY_LINES))
        injector = Injector(servers, fleet, directory, observer)
        try:
            with observer:
                fleet.backlog(keys)
                drained_s = work(servers, fleet, injector, faults, tasks + keys, ledgers)
                injector.notice_failover()
            remains = left(servers.primary())
            fleet.stop_working()
            evidence = Evidence(ledgers, servers, injector.events, fleet, injector.before_loss)
            judged = flows.judge(ledgers, evidence, records.left_by_workflows(servers.primary()))
            verdict = judge(evidence, fleet, fsck(servers), observer.findings, remains, judged)
            verdict.drained_s = drained_s
            return verdict
        finally:
            fleet.kill()


def work(servers: Site, fleet: Fleet, injector: Injector, faults: list[plan.Fault], tasks: int, ledgers: Path) -> float:
    """Faults while the fleet works, then peace. How long the rest took then, in seconds."""
    fleet.start()
    while not any(ledger.read(ledgers, "runs")):
        injector.sleep(0.1)
    for number, fault in enumerate(faults, 1):
        injector.sleep(fault.pause_s)
        event = injector.inject(fault)
        print(f"  {number:3} {fault.kind:24} {event.ended - event.began:6.2f} s", flush=True)
    while sum(words[0] in ("acked", "safe") for _, words in ledger.read(ledgers, "sent")) < tasks:
        injector.sleep(1.0)
    fleet.stop_producing()
    return until_idle(servers, injector)


def until_idle(servers: Site, injector: Injector) -> float:
    """Until every task is finished, or nothing moves any more: what is left then is lost. How long it took."""
    began = moved = time.monotonic()
    settled = 0
    while (waiting := records.waiting(servers.primary())) and time.monotonic() < moved + _IDLE_S:
        if (now := records.settled(servers.primary())) != settled:
            settled, moved = now, time.monotonic()
        injector.sleep(0.2)
    if waiting:
        print(f"  not idle: {', '.join(waiting)}")
    drained_s = time.monotonic() - began
    # What is left of limits goes with the next heartbeats.
    while left(servers.primary()) and time.monotonic() < began + drained_s + _SETTLED_S:
        injector.sleep(0.2)
    return drained_s


def fsck(servers: Site) -> str:
    """What `ardiq fsck` finds wrong."""
    command = [sys.executable, "-m", "ardiq", "fsck", servers.url, "--queue", QUEUE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
