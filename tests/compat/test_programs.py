"""The same program on both: the same observations, except those in `deliberate.py`, which says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deliberate import DELIBERATE, OPEN

HERE = Path(__file__).parent / "programs"
PROGRAMS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "observed")


@pytest.mark.parametrize("program", PROGRAMS)
def test_same(program: str, both: Callable[..., tuple[Any, Any]]) -> None:
    known = {**DELIBERATE.get(program, {}), **OPEN.get(program, {})}
    differ = _differences(program, both)
    if any(name not in known for name in differ):  # 1.2 gives up on a server that answers late, on a busy machine
        differ = _differences(program, both)
    told = [
        f"{name}\n    1.2:  {json.dumps(was)}\n    here: {json.dumps(now)}"
        for name, (was, now) in differ.items()
        if name not in known
    ]
    assert not told, "differs from ArdiQ 1.2:\n" + "\n".join(told)
    assert [name for name in known if name not in differ] == [], "no longer differs: take it out of deliberate.py"


def _differences(program: str, both: Callable[..., tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """What the two saw, where it is not the same."""
    old, new = both(str(HERE / f"{program}.py"))
    return {
        name: (old.get(name, "not seen"), new.get(name, "not seen"))
        for name in [*old, *(name for name in new if name not in old)]
        if old.get(name, "not seen") != new.get(name, "not seen")
    }
