"""What was released stays as it is: those of lua/releases, and one that is made here."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import releases
import render

from ardiq import _core

VERSION, LIBRARY = render.PROTOCOL["version"], render.PROTOCOL["library"]


def test_released_versions_are_what_was_released() -> None:
    assert releases.faults(VERSION, _core.composed()) == []


def test_no_commit_ever_changed_a_released_file() -> None:
    """The sums could be changed along with them."""
    if not (releases.ROOT / ".git").exists():
        pytest.skip("no repository")
    command = ["git", "log", "--diff-filter=a", "--format=%h %s", "--name-status", "--", "lua/releases/ardiq_v*"]
    changed = subprocess.run(command, cwd=releases.ROOT, capture_output=True, text=True, check=True).stdout
    assert changed == ""


def test_a_release_is_kept_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "releases"
    releases.release("ardiq_v1", "payload", "{}", folder)
    releases.release("ardiq_v1", "payload", "{ }", folder)
    assert (folder / "ardiq_v1.lua").read_text() == "payload"
    assert (folder / "ardiq_v1.json").read_text() == "{}"
    assert (folder / "SHA1SUMS").read_text() == (
        "f07e5a815613c5abeddc4b682247a4c42d8a95df  ardiq_v1.lua\n"
        "bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f  ardiq_v1.json\n"
    )
    assert releases.faults(1, "payload", folder) == releases.faults(2, "another", folder) == []


def test_sources_that_make_something_else_under_a_released_number_are_refused(tmp_path: Path) -> None:
    payload = _core.composed()
    assert releases.faults(1, payload, tmp_path) == []
    releases.release("ardiq_v1", payload, "{}", tmp_path)
    (fault,) = releases.faults(1, payload + "-- more\n", tmp_path)
    assert fault.startswith("lua/ makes another ardiq_v1.lua than was released: begin the next version")


def test_a_version_is_released_once(tmp_path: Path) -> None:
    releases.release("ardiq_v1", "one", "{}", tmp_path)
    with pytest.raises(FileExistsError, match="begin the next"):
        releases.release("ardiq_v1", "another", "{}", tmp_path)
    releases.release("ardiq_v2", "another", "{}", tmp_path)
    assert releases.faults(3, "", tmp_path) == []


def test_what_is_wrong_with_released_files_is_said(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        releases.release(f"ardiq_v{number}", f"library {number}", "{}", tmp_path)
    (tmp_path / "ardiq_v1.lua").write_text("edited")
    (tmp_path / "ardiq_v1.json").write_text("{ }")
    (tmp_path / "ardiq_v2.lua").unlink()
    assert releases.faults(2, "library 2", tmp_path) == [
        "ardiq_v1.json is not what was released",
        "ardiq_v1.lua is not what was released",
        "ardiq_v2.lua is missing",
        "ardiq_v3.json is no version up to 2",
        "ardiq_v3.lua is no version up to 2",
    ]
    assert releases.faults(5, "", tmp_path)[2:] == [
        "ardiq_v2.lua is missing",
        "ardiq_v4.json is missing",
        "ardiq_v4.lua is missing",
    ]


def test_the_next_version_begins_once_this_one_is_released(tmp_path: Path) -> None:
    """With the true protocol, so that a change of its layout does not hide the number."""
    guide = tmp_path / "guide.md"
    guide.write_text(f"`{LIBRARY}_counts` of {LIBRARY}, not of {LIBRARY}0")
    text = releases.PROTOCOL.read_text()
    with pytest.raises(FileNotFoundError, match="release-lua"):
        releases.begin(text, [guide], tmp_path)
    releases.release(LIBRARY, "payload", text, tmp_path)
    following = json.loads(releases.begin(text, [guide], tmp_path))
    assert following == {**json.loads(text), "version": VERSION + 1, "library": f"ardiq_v{VERSION + 1}"}
    assert guide.read_text() == f"`ardiq_v{VERSION + 1}_counts` of ardiq_v{VERSION + 1}, not of {LIBRARY}0"


def test_the_package_is_not_called_as_the_one_that_was_released(tmp_path: Path) -> None:
    cargo, lock = tmp_path / "Cargo.toml", tmp_path / "Cargo.lock"
    cargo.write_text(releases.CARGO.read_text())
    lock.write_text(releases.CARGO.with_suffix(".lock").read_text())
    released = releases.renumber(lambda version: version.removesuffix("-dev"), cargo)
    assert re.fullmatch(r"\d+\.\d+\.\d+", released)
    assert releases.renumber(releases.next_minor, cargo) == releases.next_minor(released)
    package = tomllib.loads(cargo.read_text())["package"]
    (locked,) = (each for each in tomllib.loads(lock.read_text())["package"] if each["name"] == package["name"])
    assert locked["version"] == package["version"] == releases.next_minor(released)
    assert releases.next_minor("2.9.3") == "2.10.0-dev"
