"""What was released stays as it is: those of lua/releases, and one that is made here."""

from pathlib import Path

import pytest
import releases
import render

from ardiq import _core


def test_released_versions_are_what_was_released() -> None:
    assert releases.faults(render.PROTOCOL["version"], _core.composed()) == []


def test_a_release_is_kept_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "releases"
    payload, sha1 = _core.library()
    releases.release("ardiq_v1", payload, folder)
    releases.release("ardiq_v1", payload, folder)
    assert (folder / "ardiq_v1.lua").read_text() == payload
    assert (folder / "SHA1SUMS").read_text() == f"{sha1}  ardiq_v1.lua\n"
    assert releases.faults(1, payload, folder) == releases.faults(2, "another", folder) == []


def test_sources_that_make_something_else_under_a_released_number_are_refused(tmp_path: Path) -> None:
    payload = _core.composed()
    assert releases.faults(1, payload, tmp_path) == []
    releases.release("ardiq_v1", payload, tmp_path)
    (fault,) = releases.faults(1, payload + "-- more\n", tmp_path)
    assert fault.startswith("lua/ makes another ardiq_v1.lua than was released: begin the next version")


def test_a_version_is_released_once(tmp_path: Path) -> None:
    releases.release("ardiq_v1", "one", tmp_path)
    with pytest.raises(FileExistsError, match="begin the next"):
        releases.release("ardiq_v1", "another", tmp_path)
    releases.release("ardiq_v2", "another", tmp_path)
    assert releases.faults(3, "", tmp_path) == []


def test_what_is_wrong_with_released_files_is_said(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        releases.release(f"ardiq_v{number}", f"library {number}", tmp_path)
    (tmp_path / "ardiq_v1.lua").write_text("edited")
    (tmp_path / "ardiq_v2.lua").unlink()
    assert releases.faults(2, "library 2", tmp_path) == [
        "ardiq_v1.lua is not what was released",
        "ardiq_v2.lua is missing",
        "ardiq_v3.lua is no version up to 2",
    ]
    assert releases.faults(5, "", tmp_path)[1:] == ["ardiq_v2.lua is missing", "ardiq_v4.lua is missing"]
