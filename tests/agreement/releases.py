"""Released versions of the library, kept byte for byte in lua/releases, with the SHA1 that `ardiq migrate` shows.

`make release-lua` runs this: it adds what lua/ makes today, and the protocol that says how to call it. What was
released is never written again. `make next-version` runs it with `--begin`: from then on lua/ is the next version, and
the package is on its way to the next minor one.
"""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELEASES = ROOT / "lua/releases"
PROTOCOL = ROOT / "lua/protocol.json"
CARGO = ROOT / "native/Cargo.toml"
CHANGELOG = ROOT / "CHANGELOG.md"
SUMS = "SHA1SUMS"
"""As `sha1sum` writes and checks it."""


def release(name: str, payload: str, protocol: str, folder: Path = RELEASES) -> None:
    """Keep a version of the library, and its protocol.

    Raises:
        FileExistsError: it was released, and is another one.
    """
    path = folder / f"{name}.lua"
    if path.exists():
        if path.read_text() != payload:
            raise FileExistsError(f"{name} was released, and lua/ makes another one: {_BEGIN}")
        return
    folder.mkdir(exist_ok=True)
    path.write_text(payload)
    path.with_suffix(".json").write_text(protocol)
    with (folder / SUMS).open("a") as sums:
        for each in (path, path.with_suffix(".json")):
            sums.write(f"{_sha1(each)}  {each.name}\n")


def begin(protocol: str, texts: Iterable[Path], folder: Path = RELEASES) -> str:
    """The protocol of the next version; in `texts`, what names this one names the next.

    Raises:
        FileNotFoundError: this one was not released.
    """
    name, version = (json.loads(protocol)[field] for field in ("library", "version"))
    following = f"ardiq_v{version + 1}"
    if not (folder / f"{name}.lua").exists():
        raise FileNotFoundError(f"{name} was not released: `make release-lua` first")
    for path in texts:
        if name in (text := path.read_text()):
            path.write_text(re.sub(rf"\b{name}(?![0-9])", following, text))
    protocol = protocol.replace(f'"version": {version},', f'"version": {version + 1},', 1)
    return protocol.replace(f'"library": "{name}"', f'"library": "{following}"', 1)


def faults(version: int, payload: str, folder: Path = RELEASES) -> list[str]:
    """What is wrong with the released files of an Ardiq whose lua/ makes this library of this version."""
    sums = (folder / SUMS).read_text().splitlines() if (folder / SUMS).exists() else []
    noted = {name: sha1 for sha1, _, name in (line.partition("  ") for line in sums)}
    found = {path.name: _sha1(path) for path in sorted(folder.glob("ardiq_v*"))}
    wanted = {name for number in range(1, version) for name in _names(number)}
    current = f"ardiq_v{version}.lua"
    is_other = current in found and (folder / current).read_text() != payload
    return [
        *([f"lua/ makes another {current} than was released: {_BEGIN}"] if is_other else []),
        *(f"{name} is not what was released" for name in found if found[name] != noted.get(name)),
        *(f"{name} is missing" for name in sorted((noted.keys() | wanted) - found.keys())),
        *(f"{name} is no version up to {version}" for name in sorted(found.keys() - wanted - {*_names(version)})),
    ]


def renumber(change: Callable[[str], str], cargo: Path = CARGO) -> str:
    """Change the version of the package, which Cargo keeps in two files; the new one."""
    before = tomllib.loads(cargo.read_text())["package"]
    after = change(before["version"])
    for path in (cargo, cargo.with_suffix(".lock")):
        entry = 'name = "{}"\nversion = "{}"\n'
        old, new = entry.format(before["name"], before["version"]), entry.format(before["name"], after)
        path.write_text(path.read_text().replace(old, new, 1))
    return after


def next_minor(version: str) -> str:
    """`2.1.0-dev` after 2.0.0: what is built from now on is not what was released."""
    major, minor, _ = version.split(".")
    return f"{major}.{int(minor) + 1}.0{_DEV}"


_DEV = "-dev"
_BEGIN = "begin the next version with `make next-version` (lua/README.md)"


def _names(version: int) -> tuple[str, str]:
    return f"ardiq_v{version}.lua", f"ardiq_v{version}.json"


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _texts() -> list[Path]:
    """What users read and run: they call the version that they have installed. Decisions say what was decided then."""
    found = [ROOT / "README.md", ROOT / "lua/README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.py")]
    return [path for path in found if "decisions" not in path.parts]


def main() -> None:
    if sys.argv[1:] == ["--begin"]:
        PROTOCOL.write_text(protocol := begin(PROTOCOL.read_text(), _texts()))
        package = renumber(next_minor)
        section = f"## {package.removesuffix(_DEV)}\n\nNot released yet.\n\n"
        CHANGELOG.write_text(CHANGELOG.read_text().replace("## ", f"{section}## ", 1))
        print(f"lua/ is {json.loads(protocol)['library']} from now on, the package {package}")
        return
    from ardiq import _core

    name = json.loads(_core.PROTOCOL)["library"]
    release(name, _core.composed(), _core.PROTOCOL)
    package = renumber(lambda version: version.removesuffix(_DEV))
    print(f"lua/releases/{name}.lua, SHA1 {_sha1(RELEASES / f'{name}.lua')}, of Ardiq {package}")


if __name__ == "__main__":
    main()
