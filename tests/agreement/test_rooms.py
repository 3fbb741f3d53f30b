"""The rooms of ardiq/: a module imports only rooms below its own, and nobody reads what another one keeps private."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ardiq

PACKAGE = Path(__file__).parents[2] / "ardiq"

# From the lowest. A module of no room is itself one, or stands with one.
ROOMS = (
    {"_core"},
    {
        "_values",
        "models",
        "errors",
        "retries",
        "executors",
        "limits",
        "batches",
        "dependencies",
        "uniqueness",
        "signals",
        "instruments",
    },
    {"_server", "embedded"},
    {"_client", "task", "job", "dead", "schedules", "pauses", "watching", "streaming", "inspection", "workflows"},
    {"_execution", "context", "logs", "waits"},
    {"_serving"},
    {"app"},
    {"", "cli", "django", "otel", "sentry", "sqlalchemy", "testing", "web", "__main__"},
)
RANKS = {name: rank for rank, room in enumerate(ROOMS) for name in room}
# Users get an app, or jobs, from what stands lower, and their editors must know them: for types alone.
SHOWN = {"job": "app", "task": "app", "errors": "job"}
# Of Python itself: of named tuples, of `os` and `sys`, and what it has no public name for.
PYTHONS = {"_asdict", "_replace", "_fields", "_make", "_field_defaults", "_exit", "_current_frames", "_getframe"}
PYTHONS |= {"_AppendAction", "_StoreTrueAction", "_SubParsersAction", "_actions", "_is_coroutine"}

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`_values.codec`, or empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_types(tree: ast.Module) -> set[ast.AST]:
    """What runs for type checkers alone."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for block in blocks for each in block.body for node in ast.walk(each)}


def imported(path: Path, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The modules of this package that it imports, for types alone or late ones too, and the statement."""
    package = list(path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            where = ".".join(part for part in base if part)
            if node.module is None:
                yield from ((node, f"{where}.{each.name}".lstrip(".")) for each in node.names)
            else:
                yield node, where
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from ((node, name.partition(".")[2]) for name in names if name.partition(".")[0] == "ardiq")


def upward(path: Path, tree: ast.Module) -> list[str]:
    own, type_only = RANKS[name_of(path).partition(".")[0]], for_types(tree)
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno} imports {name}"
        for node, name in imported(path, tree)
        if RANKS.get(name.partition(".")[0], own) > own and not (node in type_only and SHOWN.get(name_of(path)) == name)
    ]


def foreign(path: Path, tree: ast.Module) -> list[str]:
    """Accesses to a private name that its own module does not define."""
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            if isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            defined |= {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno} reads {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and node.attr not in defined | PYTHONS
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    assert upward(path, ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_private_to_a_module_stays_there(path: Path) -> None:
    assert foreign(path, ast.parse(path.read_text())) == []


def test_every_module_has_a_room() -> None:
    assert {name_of(path).partition(".")[0] for path in MODULES} <= set(RANKS)


def test_the_map_names_every_module() -> None:
    """The docstring of the package: the rooms in order, and each module in its room."""
    parts = re.split(r"\n\n(?=`)", ardiq.__doc__ or "")[1:]
    rooms = [set(re.findall(r"\w+", part.partition(":")[0])) for part in parts]
    assert all(room <= RANKS.keys() for room in rooms)
    assert [min(RANKS[name] for name in room) for room in rooms] == list(range(len(ROOMS)))
    for part, room in zip(parts, rooms, strict=True):
        first = min(room)
        named = {name for line in re.findall(r"^    ([\w, ]+)", part, re.MULTILINE) for name in line.split(", ")}
        public = ROOMS[RANKS[first]] - room - {"", "__main__"}
        inside = {name_of(path).rpartition(".")[2] for path in MODULES if name_of(path).startswith(f"{first}.")}
        assert named == (public | inside if first.startswith("_") else set()), first


def test_what_is_forbidden_is_found() -> None:
    path = PACKAGE / "_values" / "codec.py"
    above = ast.parse("from ..app import Ardiq\nif TYPE_CHECKING:\n    from .._server import server\nimport ardiq.cli")
    assert len(upward(path, above)) == 3
    shown = ast.parse(
        "from .app import Ardiq\nif TYPE_CHECKING:\n    from .app import Ardiq\n    from .cli import main"
    )
    assert upward(PACKAGE / "job.py", shown) == ["job.py:1 imports app", "job.py:4 imports cli"]
    private = ast.parse(
        "class A:\n    def __init__(self, b):\n        self._own = b._theirs\n    def f(a):\n        a._own"
    )
    assert [each.rpartition(" ")[2] for each in foreign(path, private)] == ["b._theirs"]
