"""Renders from lua/protocol.json the tables of lua/README.md and docs/storage.md, the head of each function's file, and
the module of typed calls; besides, the tables of docs/configuration.md, and from bench/peers/results.json those of
docs/benchmarks.md.

With `--write` it puts the tables between the markers `<!-- rendered: NAME -->` and `<!-- /rendered -->`, and the heads
in place of the first lines; without, it only says, by its exit code, whether all is up to date.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import options
import typed_calls

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.peers import render as benchmarks  # noqa: E402 (found by the line above)
from bench.scale import render as scale  # noqa: E402

DOCUMENTS = (
    ROOT / "lua/README.md",
    ROOT / "docs/storage.md",
    ROOT / "docs/configuration.md",
    ROOT / "docs/benchmarks.md",
)
CALLS = ROOT / "ardiq/_server/calls.py"
PROTOCOL: dict[str, Any] = json.loads((ROOT / "lua/protocol.json").read_text())
OWNERS = {
    "record": "a time to live once it has finished, unless it is a dead letter; until then it is listed in exactly one "
    "place",
    "members": "its members: it is gone when it is empty, and each member stands for a record, work or a worker",
    "worker": "its worker: it is deleted when the worker leaves or is reaped by another one after its lease",
    "pause": "its pause, when that ends: the tasks return to their lanes",
    "limit": "each limit, or what was put over it, until it is removed",
    "schedule": "each schedule, until it is removed",
    "task": "its task: it ends, unless it may run again",
    "workflow": "its workflow: a time to live once that has ended, and none of its tasks is a dead letter any more",
    "ttl": "a time to live",
    "queue": "the queue: one of each, bounded, forever",
}
"""What takes away the keys of each `owner`, as the protocol names it."""
FOLDERS = {"transition": "transitions", "query": "queries"}


def arrow(function: dict[str, Any]) -> str:
    """`running -> scheduled, queued`, or nothing for a function that moves no task."""
    return f"{', '.join(function['from'])} -> {', '.join(function['to'])}" if function["from"] else ""


def call(name: str, function: dict[str, Any]) -> str:
    """The call as one types it into redis-cli."""
    words = [
        f"FCALL {PROTOCOL['library']}_{name} 1 <base>",
        *(f"<{argument['name']}>" for argument in function["args"]),
    ]
    if tail := function.get("tail"):
        words.append("(" + " ".join(f"<{field['name']}>" for field in tail["record"]) + ")…")
    return " ".join(words)


def head(name: str, function: dict[str, Any]) -> str:
    """The first lines of a function's file: what it does, its arguments, its reply."""
    moves, summary, reply = arrow(function), function["summary"], function["reply"]
    does = f"{moves}. {summary}" if moves else f"{summary[0].lower()}{summary[1:]}"
    arguments = [_typed(function["args"])] if function["args"] else []
    if tail := function.get("tail"):
        arguments.append(f"{tail['name']}: ({_typed(tail['record'])})…")
    more = "?" if reply.get("optional") else "…"
    parts = [*reply.get("header", []), *(f"({', '.join(reply[p])}){more}" for p in ("refusal", "record") if p in reply)]
    return "\n".join(
        [
            f"-- {name}: {does}",
            f"-- args: {'; '.join(arguments) or 'none'}",
            f"-- reply: {', '.join(parts) or reply['about']}",
        ]
    )


def _typed(fields: list[dict[str, Any]]) -> str:
    return ", ".join(field["name"] + ("" if field["type"] == "string" else f" {field['type']}") for field in fields)


def with_head(path: Path) -> str:
    """The text of a function's file with its head brought up to date."""
    lines = path.read_text().splitlines(keepends=True)
    rest = [line for line in lines[1:3] if not line.startswith(("-- args: ", "-- reply: "))] + lines[3:]
    return head(path.stem, PROTOCOL["functions"][path.stem]) + "\n" + "".join(rest)


def _table(*rows: tuple[str, ...]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "| --- " * len(rows[0]) + "|")
    return "\n".join(lines)


def _link(name: str, function: dict[str, Any]) -> str:
    return f"[`{name}`]({FOLDERS[function['kind']]}/{name}.lua)"


def _functions() -> str:
    rows = [
        (
            _link(name, function),
            *(", ".join(function[side]) for side in ("from", "to")),
            function["summary"],
            function["repeat"],
            "yes" if function.get("idempotent", function["kind"] == "query") else "no",
        )
        for name, function in PROTOCOL["functions"].items()
    ]
    return _table(("function", "from", "to", "does", "when repeated", "idempotent"), *rows)


def _calls() -> str:
    parts = []
    for name, function in PROTOCOL["functions"].items():
        fields = [*function["args"], *function.get("tail", {}).get("record", [])]
        reply, callers = function["reply"], " and ".join(f"{caller}s" for caller in function["callers"])
        lines = [f"#### {name}", "", "```", call(name, function), "```"]
        lines += [f"- `{field['name']}` ({field['type']}{_range(field)}): {field['about']}" for field in fields]
        lines.append(f"- replies {reply['about']}" + (f": `{' '.join(reply['record'])}`" if "record" in reply else ""))
        lines.append(f"- for {callers}" if callers != "producers" else "- for everybody")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _range(field: dict[str, Any]) -> str:
    """The bounds of an integer, in words."""
    bounds = [f"{word} {field[bound]}" for word, bound in (("from", "min"), ("to", "max")) if bound in field]
    return " ".join(["", *bounds])


def tables() -> dict[str, str]:
    """Every table by its name."""
    keys = [(f"`{key['pattern']}`", key["type"], key["holds"], key["until"]) for key in PROTOCOL["keys"].values()]
    owners = [
        (", ".join(f"`{key['pattern']}`" for key in PROTOCOL["keys"].values() if key["owner"] == owner), text)
        for owner, text in OWNERS.items()
    ]
    shared = [(f"`{key['pattern']}`", key["type"], key["holds"]) for key in PROTOCOL["shared_keys"].values()]
    errors = [
        (f"`ARDIQ_{code}`", f"`{error['exception']}`", error["when"], error["remedy"])
        for code, error in PROTOCOL["errors"].items()
    ]
    return {
        "states": _table(
            ("state", "means"),
            *((f"`{state}`", means) for state, means in PROTOCOL["states"].items()),
        ),
        "owners": _table(("keys", "taken away by"), *owners),
        "keys": _table(("key", "type", "holds", "kept until"), *keys),
        "shared keys": _table(("key", "type", "holds"), *shared),
        "functions": _functions(),
        "calls": _calls(),
        "errors": _table(("error", "in Python", "when", "remedy"), *errors),
        **{name: _table(*rows) for name, rows in options.tables().items()},
        **benchmarks.tables(),
        **scale.tables(),
    }


def rendered(text: str) -> str:
    """`text` with every table between markers brought up to date."""
    made = tables()
    pattern = re.compile(r"(<!-- rendered: (.+?) -->\n).*?(<!-- /rendered -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", text)


def main() -> int:
    files = [path for folder in FOLDERS.values() for path in (ROOT / "lua" / folder).glob("*.lua")]
    made = {path: rendered(path.read_text()) for path in DOCUMENTS} | {path: with_head(path) for path in files}
    made[CALLS] = typed_calls.rendered(PROTOCOL)
    stale = {path: text for path, text in made.items() if not path.exists() or text != path.read_text()}
    if "--write" in sys.argv[1:]:
        for path, text in stale.items():
            path.write_text(text)
        return 0
    return len(stale)


if __name__ == "__main__":
    raise SystemExit(main())
