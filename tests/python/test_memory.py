"""What the kernel tells of memory: whether it killed a process for it, by either version of control groups."""

import signal
from pathlib import Path

import pytest

from ardiq._execution import processes as _processes
from ardiq._execution.memory import oom_kills
from ardiq._execution.processes import exit_reason


@pytest.mark.parametrize(
    ("groups", "file", "text", "expected"),
    [
        ("0::/pod/web\n", "pod/web/memory.events", "low 0\nmax 7\noom 2\noom_kill 1\n", 1),
        ("0::/\n", "memory.events", "oom_kill 0\noom_group_kill 0\n", 0),
        ("0::/not/mounted/here\n", "memory.events", "oom_kill 3\n", 3),
        ("5:cpu:/\n4:memory:/web\n0::/\n", "memory/web/memory.oom_control", "under_oom 0\noom_kill 2\n", 2),
        ("4:hugetlb,memory:/web\n", "memory/memory.oom_control", "oom_kill 2\n", 2),
        ("0::/\n", "memory.events", "oom 5\n", None),
        ("5:cpu:/\n", "memory.events", "oom_kill 5\n", None),
        ("", "memory.events", "oom_kill 5\n", None),
    ],
)
def test_the_counter_is_found(tmp_path: Path, groups: str, file: str, text: str, expected: int | None) -> None:
    (tmp_path / "groups").write_text(groups)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert oom_kills(tmp_path / "groups", tmp_path) == expected
    assert oom_kills(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (0, 1, "killed by SIGKILL, out of memory"),
        (1, 1, "killed by SIGKILL"),
        (None, 1, "killed by SIGKILL, perhaps out of memory"),
        (0, None, "killed by SIGKILL, perhaps out of memory"),
    ],
)
def test_why_it_was_killed(monkeypatch: pytest.MonkeyPatch, before: int | None, now: int | None, says: str) -> None:
    monkeypatch.setattr(_processes, "oom_kills", lambda: now)
    assert exit_reason(-signal.SIGKILL, before) == says
    assert exit_reason(-signal.SIGSEGV, before) == "killed by SIGSEGV"
    assert exit_reason(3, before) == "exit code 3"
