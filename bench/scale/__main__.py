"""Measure how Ardiq grows on one server; write bench/scale/results.json, of which docs/benchmarks.md is rendered."""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.__main__ import machine, start_server
from bench.programs import Programs, stop_in_order
from bench.scale.curves import FAMILIES, Family, Point, Setting

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    known = [family.key for family in FAMILIES]
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points, for a look; writes no results")
    parser.add_argument(
        "--only", nargs="+", choices=known, metavar="NAME", help=f"of {', '.join(known)}; replaces these"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="medians are kept (default: 3)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        metavar="N",
        help="begin no round that would not end in these (default: 10)",
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="tasks that workers empty (default: 100,000)")
    parser.add_argument("--server", metavar="PATH", help="redis-server or valkey-server; default: the embedded one")
    parser.add_argument("--tcp", action="store_true", help="loopback TCP instead of a unix socket")
    arguments = parser.parse_args()
    arguments.repeat = rounds = 1 if arguments.quick else arguments.rounds
    stop_in_order()
    families = [family for family in FAMILIES if not arguments.only or family.key in arguments.only]
    found: dict[tuple[str, int], list[Point]] = defaultdict(list)
    began = time.monotonic()
    with start_server(arguments) as server:
        tasks = arguments.tasks or (10_000 if arguments.quick else 100_000)
        setting = Setting(server, Programs(server), tasks, 2.0 if arguments.quick else 5.0)
        about = machine(server, arguments)
        setting.fill(1)  # loads the library
        longest_s = 0.0
        for turn in range(rounds):
            started = time.monotonic()
            if started - began + longest_s > 60 * arguments.minutes:
                print(f"{turn} of {rounds} rounds: another would not end in {arguments.minutes:g} min", file=sys.stderr)
                break
            for family in families:
                for at in family.quick if arguments.quick else family.at:
                    print(f"{turn + 1}/{rounds} {family.key} {at:,}", file=sys.stderr)
                    for point in _taken(family, setting, at):
                        found[point.curve, at].append(point)
            longest_s = max(longest_s, time.monotonic() - started)
            about["repeat"] = turn + 1
    curves = {
        curve.key: [
            {"at": at, "value": _median([each.value for each in points]), **_beside(points)}
            for at in family.at + family.quick
            if (points := found.pop((curve.key, at), None))
        ]
        for family in families
        for curve in family.curves
    }
    for family in families:
        for curve in family.curves:
            _print(f"{family.over}: {curve.title}, {curve.unit}", curves[curve.key])
    print(f"{time.monotonic() - began:.0f} s")
    if not arguments.quick:
        kept = json.loads(RESULTS.read_text())["curves"] if arguments.only else {}
        text = json.dumps({"machine": about, "curves": kept | curves}, indent=1, ensure_ascii=False)
        RESULTS.write_text(text + "\n")


def _taken(family: Family, setting: Setting, at: int) -> list[Point]:
    """The points, or none, if they could not be taken: the other ones are worth having."""
    try:
        return list(family.take(setting, at))
    except (SystemExit, RuntimeError, OSError, subprocess.SubprocessError) as failure:
        if isinstance(failure, SystemExit) and isinstance(failure.code, int):  # interrupted
            raise
        print(f"no point: {failure}", file=sys.stderr)
        return []


def _beside(points: list[Point]) -> dict[str, float]:
    floors = [each.floor for each in points if each.floor is not None]
    return {"floor": _median(floors)} if floors else {}


def _median(values: list[float]) -> float:
    return float(f"{median(values):.4g}")


def _print(title: str, points: list[dict[str, float]]) -> None:
    print(title)
    for point in points:
        floor = f"   floor {point['floor']:12,.4g}" if "floor" in point else ""
        print(f"{point['at']:12,} {point['value']:12,.4g}{floor}")


if __name__ == "__main__":
    main()
