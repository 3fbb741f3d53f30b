"""Measure Ardiq beside its floor; print a table, write bench/results.json."""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench import limits, measures, workflows
from bench.measures import Sample, Setting
from bench.programs import ROOT, Programs, build_floor, busy
from bench.server import Server

_MEASURES = [*measures.MEASURES, *limits.MEASURES, *workflows.MEASURES]
_NUMBERS = (1, 2, 4)
RESULTS = ROOT / "bench" / "results.json"


def main() -> None:
    arguments = _arguments()
    known = [name for names, _ in _MEASURES for name in names.split()]
    for name in arguments.only or ():
        if name not in known:
            raise SystemExit(f"no figure {name!r}; there are: {' '.join(known)}")
    wanted = [
        (names, take) for names, take in _MEASURES if not arguments.only or set(names.split()) & set(arguments.only)
    ]
    floor = build_floor()
    with start_server(arguments) as server, ExitStack() as kept:
        tasks = arguments.tasks or (20_000 if arguments.quick else 200_000)
        programs = Programs(server, floor)
        setting = Setting(
            server, programs, tasks, arguments.quick, lambda: start_server(arguments), floor, kept, arguments.before
        )
        about = machine(server, arguments)
        samples: dict[str, list[Sample]] = defaultdict(list)
        try:
            for repetition in range(arguments.repeat):
                for names, take in wanted:
                    _say(f"\r\033[K{repetition + 1}/{arguments.repeat} {names.split()[0]}")
                    for sample in take(setting):
                        samples[sample.name].append(sample)
        finally:
            _say("\r\033[K")
    about["load_after"] = round(os.getloadavg()[0], 2)
    figures = [_figure(samples[name]) for name in known if name in samples and name in (arguments.only or known)]
    _print(about, figures)
    RESULTS.write_text(json.dumps({"machine": about, "figures": figures}, indent=2, ensure_ascii=False) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, for a look")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these figures alone")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="repetitions; medians are shown (default: 3)"
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="tasks to dispatch (default: 200,000; quick: 20,000)")
    parser.add_argument(
        "--server", metavar="PATH", help="redis-server or valkey-server to run, as it comes; default: the embedded one"
    )
    parser.add_argument("--tcp", action="store_true", help="loopback TCP instead of a unix socket")
    parser.add_argument(
        "--before",
        metavar="PYTHON",
        help="an interpreter with the Ardiq that limits_none is beside; default: version 1 of the library",
    )
    return parser.parse_args()


def start_server(arguments: argparse.Namespace) -> Server:
    """The server that the options `--server` and `--tcp` ask for."""
    binary, settings = arguments.server, {"save": ""}
    if binary is None:
        # Asked of another process: this one shares no page of the package with the worker it measures.
        ask = "import json; from ardiq import embedded; print(json.dumps([embedded._binary(), embedded._SETTINGS]))"
        binary, settings = json.loads(subprocess.check_output([sys.executable, "-c", ask], cwd=ROOT))
    return Server(binary, settings, tcp=arguments.tcp)


def _figure(samples: list[Sample]) -> dict[str, Any]:
    """The median; of the ratio, too, because Ardiq and floor of one repetition saw the same machine."""
    floors = [sample.floor for sample in samples if sample.floor is not None]
    ratios = [sample.value / sample.floor for sample in samples if sample.floor]
    return {
        "name": samples[0].name,
        "value": _rounded(median(sample.value for sample in samples)),
        "unit": samples[0].unit,
        "floor": _rounded(median(floors)) if floors else None,
        "ratio": _rounded(median(ratios)) if ratios else None,
    }


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def machine(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ardiq": importlib.metadata.version("ardiq"),
        "server": server.description,
        "busy_before": busy(),
        "load_before": round(os.getloadavg()[0], 2),
        "repeat": arguments.repeat,
        "quick": arguments.quick,
    }


def _print(machine: dict[str, Any], figures: list[dict[str, Any]]) -> None:
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    header = ("figure", "value", "floor", "unit", "ratio")
    rows = [(f["name"], _text(f["value"]), _text(f["floor"]), f["unit"], _text(f["ratio"])) for f in figures]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if at in _NUMBERS else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print(f"\n{RESULTS.relative_to(ROOT)} written")


def _text(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 1_000 else f"{number:.4g}"


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


if __name__ == "__main__":
    main()
