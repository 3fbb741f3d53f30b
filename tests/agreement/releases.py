"""Released versions of the library, kept byte for byte in lua/releases, with the SHA1 that `ardiq migrate` shows.

`make release-lua` runs this: it adds what lua/ makes today. What was released is never written again.
"""

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELEASES = ROOT / "lua/releases"
SUMS = "SHA1SUMS"
"""As `sha1sum` writes and checks it."""


def release(name: str, payload: str, folder: Path = RELEASES) -> None:
    """Keep a version of the library.

    Raises:
        FileExistsError: it was released, and is another one.
    """
    path = folder / f"{name}.lua"
    if path.exists():
        if path.read_text() != payload:
            raise FileExistsError(f"{name} was released, and lua/ makes another one: begin the next (lua/README.md)")
        return
    folder.mkdir(exist_ok=True)
    path.write_text(payload)
    with (folder / SUMS).open("a") as sums:
        sums.write(f"{_sha1(path)}  {path.name}\n")


def faults(version: int, payload: str, folder: Path = RELEASES) -> list[str]:
    """What is wrong with the released files of an Ardiq whose lua/ makes this library of this version."""
    sums = (folder / SUMS).read_text().splitlines() if (folder / SUMS).exists() else []
    noted = {name: sha1 for sha1, _, name in (line.partition("  ") for line in sums)}
    found = {path.name: _sha1(path) for path in folder.glob("*.lua")}
    wanted = {f"ardiq_v{number}.lua" for number in range(1, version)}
    current = f"ardiq_v{version}.lua"
    is_other = current in found and (folder / current).read_text() != payload
    return [
        *(
            [f"lua/ makes another {current} than was released: begin the next version (lua/README.md)"]
            if is_other
            else []
        ),
        *(f"{name} is not what was released" for name in found if found[name] != noted.get(name)),
        *(f"{name} is missing" for name in sorted((noted.keys() | wanted) - found.keys())),
        *(f"{name} is no version up to {version}" for name in sorted(found.keys() - wanted - {current})),
    ]


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def main() -> None:
    from ardiq import _core

    name = json.loads(_core.PROTOCOL)["library"]
    release(name, _core.composed())
    print(f"lua/releases/{name}.lua, SHA1 {_sha1(RELEASES / f'{name}.lua')}")


if __name__ == "__main__":
    main()
