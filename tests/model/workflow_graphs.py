"""Graphs at random: the same of the same numbers."""

from __future__ import annotations

from random import Random
from typing import Any

from workflow_machine import INTERVAL_MS
from workflow_tasks import Node

LARGE = 70_000
"""More than a claim brings of a result."""


def graph(size: int, number: int, policies: tuple[str, ...], undo: float = 0) -> list[Node]:
    """`undo`: the part of nodes that have a compensation."""
    chance = Random(number)
    nodes: list[Node] = []
    # Small ones are all edges, mostly.
    is_dense = size in range(3, 6) and chance.random() < 0.7
    most = 3 if is_dense else chance.choice([1, 2, 2, 4, 12])
    for at in range(size):
        forth = [node.name for node in nodes if not node.undoes]
        is_map = chance.random() < (0.1 if is_dense else 0.25)
        names = chance.sample(forth, chance.randint(2 * (is_dense and at > 1), min(most, len(forth))))
        node = Node(f"{'m' if is_map else 'n'}{at}", {name: chance.choice(policies) for name in names})
        node.is_limited = chance.random() < 0.15
        if is_map:
            codecs = [chance.choice(["", "", "x"]) for _ in range(chance.choice([0, 1, 2, 3, 6, 12]))]
            node.items = [f'{codec} [{item}, "{item * "é "}"]' for item, codec in enumerate(codecs)]
            node.window, node.tolerate = chance.choice([0, 1, 2, 3, 20]), chance.choice([0, 0, 1, 3])
            node.keeps_results = chance.random() < 0.8
            if chance.random() < 0.3:
                nodes.append(_filled(chance, node))
        else:
            node.delay_ms = chance.choice([INTERVAL_MS // 2, 5 * INTERVAL_MS // 2]) if chance.random() < 0.05 else 0
            node.expire_ms = 3 * INTERVAL_MS // 2 if chance.random() < 0.05 else 0
            node.codec = chance.choice(["", "", "x"])
            node.inputs = _inputs(chance, node, {node.name: node for node in nodes})
        nodes.append(node)
        if undo and chance.random() < undo:
            back = Node(f"u{at}", {node.name: "undo"}, is_limited=chance.random() < 0.15)
            back.inputs = _inputs(chance, back, {node.name: node for node in nodes})
            nodes.append(back)
    return nodes


def _filled(chance: Random, node: Node) -> Node:
    """Makes it a map whose calls come while its workflow runs, and returns the node that adds them."""
    filler = Node(f"f{node.name}", node.after if chance.random() < 0.7 else {})
    node.after = {filler.name: ""} if filler.after else {**node.after, filler.name: ""}
    node.items, node.filled_by = [], filler.name
    node.tolerate = chance.choice([0, 1, 0.3, 0.5])
    return filler


def _inputs(chance: Random, node: Node, by_name: dict[str, Node]) -> list[tuple[str, Any]]:
    inputs: list[tuple[str, Any]] = []
    plain = [name for name in node.after if by_name[name].items is None]
    for at, name in enumerate(node.after):
        if chance.random() < 0.5:
            inputs.append((chance.choice([str(at), f"p{at}"]), name if name in plain else f"*{name}"))
    if plain and chance.random() < 0.5:
        inputs.append(("all", chance.sample(plain, min(len(plain), chance.randint(1, 4)))))
    return inputs


def some_result(id: str, number: int) -> tuple[str, str]:
    """Its codec, and itself."""
    if number % 50 == 7:
        return "", f'"{id} {LARGE * "x"}"'
    return ["", "", "typed:noop", "x"][number % 4], f'"{id} é {number}"'
