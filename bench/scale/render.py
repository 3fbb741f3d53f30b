"""Makes the tables of docs/benchmarks.md on scale of the committed results; `make render` puts them there."""

import json
from pathlib import Path
from typing import Any

from bench.scale.curves import FAMILIES, Family

RESULTS = Path(__file__).parent / "results.json"
_NONE = "\N{EN DASH}"


def results() -> dict[str, Any]:
    """The committed ones."""
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def tables() -> dict[str, str]:
    """Every table, by the name between its markers."""
    found = results()
    return {
        "scale run": _run(found["machine"]),
        **{f"scale {family.key}": _table(family, found["curves"]) for family in FAMILIES},
    }


def number(value: float) -> str:
    """With three digits that count."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _run(machine: dict[str, Any]) -> str:
    lines = []
    busy = machine["busy_before"]
    if busy > 0.1:
        lines = [
            "> **Preliminary.** These curves were taken while the machine was busy with other work: a point may be",
            "> wrong by a factor of two.",
            "",
        ]
    told = f"{machine['cores']} cores ({machine['cpu']}), {machine['server']}; Python {machine['python']}"
    rounds = "One round" if machine["repeat"] == 1 else f"Medians of {machine['repeat']} rounds"
    lines.append(f"{told}. {rounds}. Before it, other work took {100 * busy:.0f} % of the CPU.")
    return "\n".join(lines)


def _table(family: Family, curves: dict[str, Any]) -> str:
    titles = [f"{curve.title}, {curve.unit}" for curve in family.curves]
    rows = [[family.over, *titles], ["---"] * (1 + len(titles))]
    for at in family.at:
        cells = [_cell(point) for curve in family.curves for point in [_point(curves.get(curve.key, ()), at)]]
        rows.append([f"{at:,}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _point(points: Any, at: int) -> dict[str, float] | None:
    return next((point for point in points if point["at"] == at), None)


def _cell(point: dict[str, float] | None) -> str:
    if point is None:
        return _NONE
    return number(point["value"]) + (f" ({number(point['floor'])})" if "floor" in point else "")
