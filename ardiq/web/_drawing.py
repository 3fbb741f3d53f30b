"""Pictures as the attributes of SVG elements, computed here: pages need neither styles nor scripts for them."""

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 800.0
_LABEL = 90.0
_ROW = 28
_LEAST = 2.0  # so that a short attempt can be seen
_NODE_WIDTH, _NODE_HEIGHT, _GAP_X, _GAP_Y = 170, 44, 50, 16
_MOST_DRAWN = 200


def bars(minutes: Sequence[Mapping[str, Any]], names: Sequence[str], height: float) -> list[dict[str, Any]]:
    """Stacked bars of what was counted in each minute, the newest first in `minutes` and last in the picture."""
    highest = max((sum(minute[name] for name in names) for minute in minutes), default=0)
    if not highest:
        return []
    width, drawn = _WIDTH / len(minutes), []
    for at, minute in enumerate(reversed(minutes)):
        base = height
        for name in names:
            size = height * minute[name] / highest
            base -= size
            if size:
                drawn.append({"x": _n(at * width), "y": _n(base), "w": _n(width * 0.8), "h": _n(size), "kind": name})
    return drawn


def sparkline(numbers: Sequence[int], width: float = 120, height: float = 26) -> str:
    """The path of a line through numbers, the oldest first."""
    if len(numbers) < 2:
        return ""
    highest = max(numbers) or 1
    step = width / (len(numbers) - 1)
    points = [
        f"{_n(at * step)} {_n(height - 2 - (height - 4) * number / highest)}" for at, number in enumerate(numbers)
    ]
    return f"M{'L'.join(points)}"


def timeline(enqueued_at: int, attempts: Sequence[Mapping[str, Any]], until: int) -> dict[str, Any] | None:
    """Attempts with what they waited for before: rows of bars from when the task was enqueued; None of no attempts."""
    spans, since = [], enqueued_at
    for attempt in attempts:
        ended = attempt["ended_at"] or until
        started = attempt["started_at"] or ended
        spans.append((attempt, min(since, started), started, max(started, ended)))
        since = ended
    if not spans:
        return None
    first, last = min(span[1] for span in spans), max(span[3] for span in spans)
    scale = (_WIDTH - _LABEL - 10) / max(1, last - first)

    def at(moment: int) -> float:
        return _LABEL + (moment - first) * scale

    rows = []
    for number, (attempt, waits, starts, ends) in enumerate(spans):
        rows.append({
            "y": number * _ROW + 12,
            "label": f"attempt {attempt['try']}",
            "wait": (_n(at(waits)), _n(max(0.0, at(starts) - at(waits)))),
            "run": (_n(at(starts)), _n(max(_LEAST, at(ends) - at(starts)))),
            "state": attempt["state"],
            "waited_ms": max(0, starts - waits),
            "run_ms": max(0, ends - starts),
        })  # fmt: skip
    moments = [first + (last - first) * part // 4 for part in range(5)]
    ticks = [{"x": _n(at(each)), "at": each, "after_ms": each - first} for each in moments]
    return {"rows": rows, "height": len(rows) * _ROW + 30, "ticks": ticks}


def graph(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A workflow in layers: each node right of those that it is after; at most two hundred nodes."""
    depth, rows, places = dict[str, int](), dict[int, int](), dict[str, tuple[int, int]]()
    drawn = nodes[:_MOST_DRAWN]
    for node in drawn:
        depth[node["name"]] = 1 + max((depth[name] for name in node["after"] if name in depth), default=-1)
        column = depth[node["name"]]
        row = rows[column] = rows.get(column, -1) + 1
        places[node["name"]] = (column * (_NODE_WIDTH + _GAP_X), row * (_NODE_HEIGHT + _GAP_Y))
    boxes: list[dict[str, Any]] = [{"x": x, "y": y, "node": node} for node in drawn for x, y in [places[node["name"]]]]
    edges = []
    for node in drawn:
        x, y = places[node["name"]]
        for name, policy in node["after"].items():
            if name in places:
                left, top = places[name][0] + _NODE_WIDTH, places[name][1] + _NODE_HEIGHT // 2
                turn, low = x - _GAP_X, y + _NODE_HEIGHT // 2  # straight as long as nodes may be in the way
                middle = x - _GAP_X // 2
                path = f"M{left} {top}H{turn}C{middle} {top} {middle} {low} {x} {low}"
                edges.append({"d": path, "policy": policy})
    return {
        "boxes": boxes,
        "edges": edges,
        "width": max((box["x"] for box in boxes), default=0) + _NODE_WIDTH,
        "height": max((box["y"] for box in boxes), default=0) + _NODE_HEIGHT,
        "left_out": len(nodes) - len(drawn),
    }


def _n(number: float) -> str:
    return f"{number:.1f}"
