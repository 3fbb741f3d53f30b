"""The rooms of `native/src`: what each file may know, by the map in lib.rs."""

import re
from collections.abc import Iterator
from pathlib import Path

import render

SOURCES = render.ROOT / "native/src"
# Each may name itself and those before it.
ROOMS = ["wire", "lua", "call", "engine", "python"]


def files() -> Iterator[tuple[Path, str]]:
    """Each source file by its path in `native/src`, with its text but for comments."""
    for path in sorted(SOURCES.rglob("*.rs")):
        yield path.relative_to(SOURCES), re.sub(r"//.*", "", path.read_text())


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".rs")


def test_each_file_is_in_a_room() -> None:
    assert {room(path) for path, _ in files()} == {"lib", *ROOMS}


def test_a_room_names_only_those_below_it() -> None:
    for path, source in files():
        if room(path) == "lib":
            continue
        allowed = ROOMS[: ROOMS.index(room(path)) + 1]
        assert set(re.findall(r"\bcrate::(\w+)", source)) <= set(allowed), path
        # `super` does not lead out of the room either, nor `use crate::{…}` around the check.
        assert max((len(up) // len("super::") for up in re.findall(r"(?:super::)+", source)), default=0) < len(
            path.parts
        )
        assert not re.search(r"\bcrate::\W", source), path


def test_only_the_python_room_knows_python() -> None:
    for path, source in files():
        if room(path) not in {"lib", "python"}:
            assert "pyo3" not in source, path
            assert 'feature = "python"' not in source, path
