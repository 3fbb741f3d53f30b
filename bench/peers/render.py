"""Makes the tables of docs/benchmarks.md of the committed results; `make render` puts them there."""

from statistics import median
from typing import Any

from bench.peers.figures import BY_KEY, OURS, ROWS, Results, Row
from bench.peers.libraries import BEFORE

_COLUMNS = {
    "throughput": ("c10", "c100", "io", "cpu"),
    "enqueueing": ("many", "awaited", "blocking"),
    "latency": ("body", "result"),
    "cost": ("server_c10", "server_c100", "worker_c10", "worker_c100", "fresh", "pss"),
}
_NONE = "\N{EN DASH}"
_FORERUNNER = "ardiq12"
_NOTES = {
    "enqueue": "enqueueing",
    "c10": "10 at once",
    "c100": "100 at once",
    "latency": "latency",
    "io": "I/O",
    "cpu": "CPU",
    "kill": "killed worker",
    "restart": "restarted server",
    "start": "a worker's start",
}


def tables(results: Results | None = None) -> dict[str, str]:
    """Every table of these results, by the name between its markers; of the committed ones by default."""
    results = results or Results()
    return {
        "benchmark run": _run(results),
        "benchmark standing": _standing(results),
        "benchmark before": _before(results),
        **{f"benchmark {name}": _figures(results, keys) for name, keys in _COLUMNS.items()},
        "benchmark faults": _faults(results),
        "benchmark libraries": _libraries(results),
    }


def _run(results: Results) -> str:
    machine, rounds = results.machine, len(results.rounds)
    versions = sorted({library["runtime"] for library in results.libraries.values() if "runtime" in library})
    text = (
        f"{machine['date']}, commit `{machine['commit']}`: {machine['cores']} cores ({machine['cpu']}), Linux "
        f"{machine['kernel']}; {machine['server']}; {', '.join(versions)}. Medians of {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}. Before it, other work took "
        f"{percent(machine['busy_before'])} of the CPU."
    )
    if machine["busy_before"] < 0.1 and not machine["preliminary"]:
        return text
    return (
        "> **Preliminary.** These figures were taken while the machine was busy with other work. They show that the\n"
        f"> benchmark runs; do not compare with them.\n\n{text}"
    )


def _standing(results: Results) -> str:
    rows, groups = [], {"first": [], "behind": [], "level": []}
    for row in ROWS:
        ours, other = results.value(row, OURS), results.best_other(row)
        if ours is None or other is None:
            continue
        theirs, ratios = results.value(row, other), results.ratios(row, other)
        rows.append((row.title, row.unit, number(ours), f"{results.title(other)} {number(theirs)}", _ratio(ratios)))
        groups[_place(row, ratios)].append(row.title)
    lines = [table(("row", "unit", "Ardiq", "the best other", "Ardiq ÷ the best other"), *rows), ""]
    lines.append(f"Ardiq is ahead in {len(groups['first'])} of {len(rows)} rows.")
    lines.append(_named("It is behind in", groups["behind"]))
    lines.append(_named("Level, because the rounds disagree:", groups["level"]))
    return "\n".join(line for line in lines if line is not None)


def _before(results: Results) -> str:
    """This Ardiq, an earlier one, and the field: only where an earlier one was measured."""
    if results.before is None:
        return ""
    known = [row for row in ROWS if results.value(row, OURS) is not None]
    header = (
        "row",
        "unit",
        "before",
        "now",
        "now ÷ before",
        "ArdiQ 1.2",
        "the best of the rest",
        "now ÷ the best other",
    )
    rows = []
    for row in known:
        rest, other = results.best_other(row, _FORERUNNER), results.best_other(row)
        values = [number(results.value(row, name)) for name in (BEFORE, OURS)]
        forerunner = number(results.value(row, _FORERUNNER)) if _FORERUNNER in results.libraries else _NONE
        best = f"{results.title(rest)} {number(results.value(row, rest))}" if rest else _NONE
        ratios = [_ratio(results.ratios(row, name)) if name else _NONE for name in (BEFORE, other)]
        rows.append((row.title, row.unit, *values, ratios[0], forerunner, best, ratios[1]))
    return (
        f"## Before and now\n\nBefore: {results.before['title']}, a wheel built as a release is, measured in the same "
        "rounds. The ratios are\nmedians of those of the single rounds, with the lowest and the highest one.\n\n"
        f"{table(header, *rows)}"
    )


def _ratio(ratios: list[float]) -> str:
    if not ratios:
        return _NONE
    span = f" ({number(min(ratios))} to {number(max(ratios))})" if len(ratios) > 1 else ""
    return f"{number(median(ratios))}{span}"


def _place(row: Row, ratios: list[float]) -> str:
    better = [ratio > 1 if row.more_is_better else ratio < 1 for ratio in ratios]
    return "first" if all(better) else "level" if any(better) else "behind"


def _named(start: str, titles: list[str]) -> str | None:
    return f"{start} {'; '.join(titles)}." if titles else None


def _figures(results: Results, keys: tuple[str, ...]) -> str:
    """Sorted by the first column, the best first; below it why a cell is empty."""
    rows = [BY_KEY[key] for key in keys]
    sign = -1 if rows[0].more_is_better else 1

    def order(name: str) -> tuple[bool, float]:
        value = results.value(rows[0], name)
        return value is None, sign * (value or 0)

    body = []
    for name in sorted(results.libraries, key=order):
        cells = [_cell(results, row, name) for row in rows]
        if any(cell != _NONE for cell in cells):
            body.append((f"**{results.title(name)}**" if name == OURS else results.title(name), *cells))
    return table(("", *(f"{row.title}, {row.unit}" for row in rows)), *body)


def _cell(results: Results, row: Row, name: str) -> str:
    """The median, with the lowest and the highest round where they are further apart than a tenth."""
    known = [value for value in results.values(row, name) if value is not None]
    if not known:
        return _NONE
    value = median(known)
    wide = max(known) - min(known) > 0.1 * value
    return number(value) + (f" ({number(min(known))} to {number(max(known))})" if wide else "")


def _faults(results: Results) -> str:
    header = (
        *("", "worker killed: tasks under way", "not finished in 150 s", "finished twice", "all done after, s"),
        *("server restarted: the worker", "not finished in 60 s", "finished twice", "all done after, s"),
    )
    rows = []
    for name in results.libraries:
        cells = [results.title(name)]
        for scenario in ("kill", "restart"):
            taken = results.raw.get(scenario, {}).get(name)
            if taken is None or "failed" in taken:
                cells += [_NONE] * 4
                continue
            first = number(taken["in_flight"]) if scenario == "kill" else "stays" if taken["survived"] else "ends"
            cells += [first, str(taken["lost"]), str(taken["twice"]), number(taken.get("all_after_s"))]
        if any(cell != _NONE for cell in cells[1:]):
            rows.append(tuple(cells))
    return table(header, *rows) if rows else "Not measured in this run."


def _libraries(results: Results) -> str:
    rows = []
    for library in results.libraries.values():
        versions = ", ".join(f"{package} {version}" for package, version in library.get("versions", {}).items())
        notes = [f"{_NOTES[scenario]}: {text}" for scenario, text in library.get("notes", {}).items()]
        title = f"[{library['title']}]({library['site']})"
        rows.append((title, versions or f"not measured: {library['failed']}", "; ".join(notes)))
    missing = [
        f"- {results.title(name)}, {row.title}: {results.reason(row, name)}."
        for name in results.libraries
        for row in ROWS
        if "failed" not in results.libraries[name] and results.value(row, name) is None
    ]
    irregular = [
        f"- {results.title(name)}, {_NOTES[scenario]}: {lost} lost, {twice} ran twice."
        for name, scenario, lost, twice in results.irregular()
    ]
    parts = [table(("library", "versions", "how it was used, where that is not obvious"), *rows)]
    if missing:
        parts.append("Cells that are empty, and why:\n\n" + "\n".join(missing))
    parts.append(
        "In runs without faults these tasks did not run exactly once:\n\n" + "\n".join(irregular)
        if irregular
        else "In the runs without faults every task of every library ran exactly once."
    )
    return "\n\n".join(parts)


def table(*rows: tuple[str, ...]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "| --- " + "| --- " * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share, in words."""
    return f"{100 * share:.0f} %"


def number(value: Any) -> str:
    """Three digits that count, and no more."""
    if value is None:
        return _NONE
    if value >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
