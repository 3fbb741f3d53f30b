"""Draws docs/benchmarks/scale-*.svg of the committed results; needs matplotlib."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ardiq", "font.size": 9, "axes.spines.right": False}
matplotlib.rcParams |= {"axes.spines.top": False}

from pathlib import Path  # noqa: E402 (what draws is chosen before)

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from bench.scale.curves import FAMILIES, Curve, Family  # noqa: E402
from bench.scale.render import number, results  # noqa: E402

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
_OURS, _FLOOR = "#c2410c", "#94a3b8"


def _draw(axes: Axes, family: Family, curve: Curve, points: list[dict[str, float]]) -> None:
    at = [point["at"] for point in points]
    values = [point["value"] for point in points]
    axes.plot(at, values, "o-", color=_OURS, label="Ardiq")
    floors = [point["floor"] for point in points if "floor" in point]
    if len(floors) == len(at):
        axes.plot(at, floors, "s--", color=_FLOOR, label=curve.floor)
        axes.legend(frameon=False)
    for x, value in zip(at, values, strict=True):
        axes.annotate(number(value), (x, value), textcoords="offset points", xytext=(0, 5), ha="center", fontsize=7)
    if family.at[-1] > 10:
        axes.set_xscale("symlog" if family.at[0] == 0 else "log")
    axes.set_ylim(0, 1.2 * max([*values, *floors], default=1.0))
    axes.set_xticks(at, [_short(int(x)) for x in at], minor=False)
    axes.minorticks_off()
    axes.set_title(f"{curve.title}, {curve.unit}", loc="left", fontsize=9)
    axes.set_xlabel(family.over)


def _short(at: int) -> str:
    return f"{at // 1_000_000}M" if at >= 1_000_000 else f"{at // 1_000}k" if at >= 1_000 else str(at)


def main() -> None:
    curves = results()["curves"]
    FOLDER.mkdir(exist_ok=True)
    for family in FAMILIES:
        shown = [curve for curve in family.curves if curves.get(curve.key)]
        if not shown:
            continue
        figure, all_axes = plt.subplots(1, len(shown), figsize=(3.2 * len(shown), 2.8), squeeze=False)
        for axes, curve in zip(all_axes[0], shown, strict=True):
            _draw(axes, family, curve, curves[curve.key])
        figure.tight_layout()
        path = FOLDER / f"scale-{family.key}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main()
