"""What each file of `native/src` may know: those above it in the map of lib.rs; few know Python, keys or functions."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import render

SOURCES = render.ROOT / "native/src"
# Each may name itself and those before it.
ROOMS = ["wire", "lua", "call", "engine", "python"]

# The keys that Rust may name, and why: of all others Lua and `protocol.json` alone know.
KEYS = {
    ("call/schema.rs", "schema"): "which libraries are loaded is no matter of a queue, and is read before any function",
    ("call/migrate.rs", "lock"): "one migration at a time, whichever library there is",
    ("call/migrate/nodes.rs", "meta"): "finds the queues that had a worker, whichever library they are of",
    ("call/migrate/nodes.rs", "lanes"): "finds the queues that had a task, whichever library they are of",
    ("call/migrate/nodes.rs", "queues"): "finds the queues that were made known",
    ("call/migrate/nodes.rs", "workers"): "sees who is alive of a version about to go, whose functions it cannot call",
    ("call/migrate/nodes.rs", "worker"): "sees of which version that is",
    ("call/dispatch/replication.rs", "replicated"): "`WAIT` needs a write of its own on the connection",
    ("engine/registry.rs", "queues"): "the list of queues is global, which no function may touch",
    ("engine/mailbox/reader.rs", "mailbox"): "no function may block",
    ("engine/mailbox/reader.rs", "wake"): "a list of its own beside its mailbox, by which it ends its block",
}

# The functions that it may name, and why.
FUNCTIONS = {
    ("engine/worker/session.rs", "join"): "a worker's life, off the GIL",
    ("engine/worker/steps.rs", "step"): "a worker's life, off the GIL",
    ("engine/worker/steps.rs", "leave"): "a worker's life, off the GIL",
    ("engine/worker/heartbeat.rs", "heartbeat"): "a worker's life, off the GIL",
    ("engine/claims.rs", "step"): "where the fields of its reply are",
    ("engine/outcomes.rs", "step"): "where the fields of its records are",
    ("engine/health/queue.rs", "overview"): "metrics are told while Python is stuck, too",
}


def files() -> Iterator[tuple[Path, str]]:
    """Each source file by its path in `native/src`, with its text but for comments."""
    for path in sorted(SOURCES.rglob("*.rs")):
        yield path.relative_to(SOURCES), re.sub(r"(?m)^\s*//.*|\s//\s.*", "", path.read_text())


def code() -> Iterator[tuple[str, str]]:
    """The same without tests."""
    for path, source in files():
        if path.name != "tests.rs":
            yield path.as_posix(), source.partition("#[cfg(test)]\nmod tests")[0]


def module(path: Path) -> list[str]:
    return list(path.with_suffix("").parts)


def mapped() -> list[str]:
    """The rows of the map, in order: `wire`, `wire::error` …"""
    return re.findall(r"^//! \| \W*((?:\w|::)+)", (SOURCES / "lib.rs").read_text(), re.MULTILINE)[1:]


def named(path: Path, source: str) -> Iterator[list[str]]:
    """What a file names of the crate, as modules from the root."""
    for start, rest in re.findall(r"\b(crate|super(?:::super)*)::((?:\w+::)*(?:\w+|\*|\{[^;]*?\}))", source):
        up = start.count("super")
        of, _, last = f"::{rest}".rpartition("::") if "{" not in rest else f"::{rest}".partition("::{")
        for name in re.findall(r"[\w*]+", last):
            yield [*(module(path)[:-up] if up else []), *of.split("::")[1:], name]


def test_the_map_has_each_file_once_below_its_room() -> None:
    rows = mapped()
    assert [row for row in rows if "::" not in row] == ROOMS
    assert sorted(rows) == sorted(
        "::".join(module(path)) for path, _ in files() if len(path.parts) < 3 and path.stem != "lib"
    )
    assert [row.partition("::")[0] for row in rows] == sorted((row.partition("::")[0] for row in rows), key=ROOMS.index)


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path)) for path, _ in files() if path.stem != "lib"])
def test_a_file_names_only_those_above_it(path: Path) -> None:
    rows, own = mapped(), "::".join(module(path)[:2])
    source = (SOURCES / path).read_text()
    assert "#[path" not in source
    for target in named(path, source):
        row = "::".join(target[:2])
        # What begins with the room itself is in it, or in `mod tests`.
        assert row in rows or target[0] == own.partition("::")[0], f"{'::'.join(target)} is in no room"
        if row in rows and own in rows:
            assert rows.index(row) <= rows.index(own), f"{row} is below {own}"


def test_only_the_python_room_knows_python() -> None:
    for path, source in files():
        if path.parts[0] not in {"lib.rs", "python.rs", "python"}:
            assert "pyo3" not in source, path
            assert 'feature = "python"' not in source, path


def test_rust_names_only_the_keys_it_must() -> None:
    kinds = {*render.PROTOCOL["keys"], *render.PROTOCOL["shared_keys"]}
    found = set()
    for path, source in code():
        for kind in re.findall(r"(?<!fn )\b(?:shared_)?key\(\s*([^\s,()]+),", source):
            assert re.fullmatch(r'"\w+"', kind), (
                f"{path}: {kind} is not seen by this check; write the key where it is asked for"
            )
            found.add((path, kind.strip('"')))
        for text in re.findall(r'"((?:[^"\\\n]|\\.)*)"', source):
            # Put together by hand, as in "{base}task:{id}".
            if ":" in text and " " not in text:
                found |= {(path, word) for word in re.split(r"\W|\{\w*\}", text) if word in kinds}
    assert found == set(KEYS)


def test_rust_names_only_the_functions_it_must() -> None:
    found = set()
    for path, source in code():
        names = re.findall(r'\b(?:call|request|function|reply)\(\s*"(\w+)"', source)
        found |= {(path, name) for name in names}
    assert found == set(FUNCTIONS)


def test_what_a_loop_may_drive_takes_its_time_from_one_place() -> None:
    # Those who run on the I/O thread only.
    threaded = ("engine/worker", "engine/health", "engine/stalls.rs", "engine/runtime.rs")
    limits = re.compile(r"tokio::time::(?:\{[^}]*\b)?(?:sleep|timeout|interval)")
    found = [path for path, source in code() if limits.search(source) and not path.startswith(threaded)]
    assert found == ["call/migrate/lock.rs", "wire/clock.rs"], "the migration blocks"
