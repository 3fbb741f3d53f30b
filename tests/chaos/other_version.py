"""Another version of the library, and an Ardiq that speaks it: this tree, compiled once more under the next number."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ardiq import _core

ROOT = Path(__file__).parents[2]
_PLACE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "native" / "target")) / "other-version"
_LEFT_OUT = ("target", "__pycache__", "releases")


def environment() -> dict[str, str]:
    """What makes a Python process import it. Compiled where it is out of date: a minute or two the first time."""
    sources = _PLACE / "sources"
    for name in ("lua", "native", "ardiq"):
        _mirror(ROOT / name, sources / name)
    protocol = json.loads((ROOT / "lua" / "protocol.json").read_text())
    _write(sources / "lua" / "releases" / f"{protocol['library']}.lua", _core.library()[0])
    protocol["version"] += 1
    protocol["library"] = f"ardiq_v{protocol['version']}"
    _write(sources / "lua" / "protocol.json", json.dumps(protocol))
    command = ["cargo", "build", "--quiet", "--locked", "--lib", "--features", "python"]
    command += ["--manifest-path", str(sources / "native" / "Cargo.toml")]
    settings = {**os.environ, "CARGO_TARGET_DIR": str(_PLACE / "target"), "PYO3_PYTHON": sys.executable}
    subprocess.run(command, check=True, env=settings)
    shutil.copy2(_PLACE / "target" / "debug" / "lib_core.so", sources / "ardiq" / "_core.abi3.so")
    return {"PYTHONPATH": str(sources)}


def _mirror(source: Path, target: Path) -> None:
    """Copy what differs, so that what is compiled already stays so."""
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if path.is_dir() or path.suffix == ".so" or any(part in _LEFT_OUT for part in relative.parts):
            continue
        if path.name != "protocol.json":
            _write(target / relative, path.read_text())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
