"""Draws docs/benchmarks/*.svg of the committed results: `.venv/peers/plots/bin/python -m bench.peers.plots`."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ardiq", "font.size": 9, "axes.spines.right": False}
matplotlib.rcParams |= {"axes.spines.top": False}

import matplotlib.pyplot as plt  # noqa: E402 (what draws is chosen before)
from matplotlib.axes import Axes  # noqa: E402

from bench.peers.figures import BY_KEY, OURS, Results, Row  # noqa: E402
from bench.peers.render import number  # noqa: E402

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
_DRAWN = {
    "throughput": ("c10", "c100"),
    "enqueueing": ("many", "awaited", "blocking"),
    "latency": ("body", "result"),
    "cost": ("server_c10", "worker_c10", "fresh"),
    "shares": ("io", "cpu"),
}
_LINEAR = {"fresh", "io", "cpu"}


def _bars(axes: Axes, results: Results, row: Row) -> None:
    values = {name: results.value(row, name) for name in results.libraries}
    known = {name: value for name, value in values.items() if value is not None}
    names = sorted(known, key=lambda name: known[name], reverse=not row.more_is_better)
    colours = ["#c2410c" if name == OURS else "#94a3b8" for name in names]
    axes.barh([results.title(name) for name in names], [known[name] for name in names], color=colours)
    if row.key not in _LINEAR:
        axes.set_xscale("log")
    for at, name in enumerate(names):
        axes.text(known[name], at, f" {number(known[name])}", va="center")
    axes.margins(x=0.25)
    better = "more" if row.more_is_better else "less"
    scale = "" if row.key in _LINEAR else ", logarithmic"
    axes.set_title(f"{row.title}\n{row.unit}{scale}; {better} is better", loc="left", fontsize=9)
    axes.tick_params(left=False)


def main() -> None:
    results = Results()
    FOLDER.mkdir(exist_ok=True)
    for name, keys in _DRAWN.items():
        rows = [BY_KEY[key] for key in keys if any(results.value(BY_KEY[key], lib) for lib in results.libraries)]
        if not rows:
            continue
        height = 0.8 + 0.26 * len(results.libraries)
        figure, axes = plt.subplots(1, len(rows), figsize=(4.2 * len(rows), height), squeeze=False)
        for place, row in zip(axes[0], rows, strict=True):
            _bars(place, results, row)
        figure.tight_layout()
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        text = (FOLDER / f"{name}.svg").read_text()
        (FOLDER / f"{name}.svg").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


if __name__ == "__main__":
    main()
