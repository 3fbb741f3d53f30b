"""Pictures of workflows, as text."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .._values.encodings import to_json

if TYPE_CHECKING:
    from .following import WorkflowNode

_COLORS = {"complete": "#2e7d32", "running": "#1565c0", "skipped": "#9e9e9e"}
_FAILED = "#c62828"
_WAITS = "#616161"


def draw(workflow_id: str, nodes: "Sequence[WorkflowNode]", format: str) -> str:
    """The picture of a workflow: "mermaid", "dot" or "json".

    Raises:
        ValueError: another format.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {format!r}")
    found: str = FORMATS[format](workflow_id, nodes)
    return found


def label(node: "WorkflowNode") -> str:
    """What is said of a node: name, what it is, state."""
    what = f"{node.done} of {node.total} done" if node.is_map else ""
    failed = f"{node.failed} failed" if node.is_map and node.failed else ""
    return ", ".join(part for part in (f"{node.name}: {node.state}", what, failed) if part)


def _mermaid(_: str, nodes: "Sequence[WorkflowNode]") -> str:
    number = {node.name: f"n{at}" for at, node in enumerate(nodes)}
    lines = ["flowchart TD"]
    for node in nodes:
        text = label(node).replace('"', "#quot;")
        lines.append(f'    {number[node.name]}[["{text}"]]' if node.is_map else f'    {number[node.name]}["{text}"]')
    for name, other, policy in _edges(nodes):
        arrow = "-->" if policy == "fail" else f"-. {policy} .->"
        lines.append(f"    {number[other]} {arrow} {number[name]}")
    for node in nodes:
        lines.append(f"    style {number[node.name]} stroke:{_color(node)}")
    return "\n".join(lines) + "\n"


def _dot(workflow_id: str, nodes: "Sequence[WorkflowNode]") -> str:
    lines = [f"digraph {_quoted(workflow_id)} {{", "    node [shape=box];"]
    for node in nodes:
        shape = ", peripheries=2" if node.is_map else ""
        lines.append(f'    {_quoted(node.name)} [label={_quoted(label(node))}, color="{_color(node)}"{shape}];')
    for name, other, policy in _edges(nodes):
        how = "" if policy == "fail" else f" [label={_quoted(policy)}, style=dashed]"
        lines.append(f"    {_quoted(other)} -> {_quoted(name)}{how};")
    return "\n".join([*lines, "}"]) + "\n"


def _json(workflow_id: str, nodes: "Sequence[WorkflowNode]") -> str:
    return to_json({"id": workflow_id, "nodes": [node._asdict() for node in nodes]}).decode()


def _edges(nodes: "Sequence[WorkflowNode]") -> Iterable[tuple[str, str, str]]:
    known = {node.name for node in nodes}
    return [(node.name, other, policy) for node in nodes for other, policy in node.after.items() if other in known]


def _color(node: "WorkflowNode") -> str:
    is_bad = node.state in ("failed", "aborted", "expired", "discarded")
    return _FAILED if is_bad else _COLORS.get(node.state, _WAITS)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


FORMATS: dict[str, Any] = {"mermaid": _mermaid, "dot": _dot, "json": _json}
