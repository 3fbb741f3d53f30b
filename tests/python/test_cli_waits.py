"""`ardiq workflow signal`, and what `ardiq task show` tells of steps and waits."""

import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from helpers import eventually, field, working

from ardiq import Ardiq, Signal, sleep, step, wait_for

MODULE = f"{__name__}:cli_app"
Run = Callable[..., tuple[int, str]]
approval = Signal("approval", bool)


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app()

    @app.task
    async def order(cents: int) -> str:
        await step("charge", lambda: {"cents": cents})
        await sleep("a moment", 0.01)
        await step("large", lambda: "x" * 600_000)
        await step("larger", lambda: "x" * 600_000)
        answer = await wait_for(approval, timeout=timedelta(days=3))
        await sleep("long", timedelta(days=2))
        return str(answer)

    monkeypatch.setattr(sys.modules[__name__], "cli_app", app, raising=False)
    return app


async def test_a_task_that_waits_is_shown_and_given_what_it_waits_for(app: Ardiq, ardiq: Run) -> None:
    job = await app.send("order", 1999)
    async with working(app):
        await eventually(lambda: field(app, job.id, "waits_for") == "wait_for:approval")
        code, text = ardiq("task", "show", MODULE, job.id)
        assert code == 0
        assert "scheduled, in the wait 'wait_for:approval', for 2 d 23 h more at most" in text
        assert re.search(r"charge +\{\"cents\": ?1999\}", text)
        assert re.search(r"a moment +the time was up", text)
        assert re.search(r"wait_for:approval +waits for approval until 20\d\d-", text)
        shown = json.loads(ardiq("task", "show", MODULE, job.id, "--json")[1])
        steps = {each.pop("name"): each for each in shown["steps"]}
        assert list(steps) == ["a moment", "charge", "large", "larger", "wait_for:approval"]
        assert steps["charge"] == {"kind": "step", "value": {"cents": 1999}}
        assert steps["a moment"] == {"kind": "timeout"}
        assert {"kind": "step"} in (steps["large"], steps["larger"])
        assert steps["wait_for:approval"] == {"kind": "until", "signals": ["approval"], "until_at": shown["due_at"]}
        assert shown["waits_for"] == "wait_for:approval"

        assert ardiq("workflow", "signal", MODULE, job.id, "aproval", "true") == (
            0, f"{job.id}: it has the signal 'aproval', and waits for 'approval'\n"
        )  # fmt: skip
        assert ardiq("workflow", "signal", MODULE, job.id, "approval", "true") == (
            0, f"{job.id}: it has the signal 'approval'\n"
        )  # fmt: skip
        await eventually(lambda: field(app, job.id, "waits_for") == "long")
        _, text = ardiq("task", "show", MODULE, job.id)
        assert re.search(r"wait_for:approval +approval: true", text)
        assert "in the wait 'long', for 1 d 23 h more at most" in text
        assert await job.abort()


async def test_signals_that_cannot_be_given(app: Ardiq, ardiq: Run) -> None:
    job = await app.send("order", 1999)
    assert ardiq("workflow", "signal", MODULE, job.id, "approval", "yes")[0] == 2
    assert "the value is not JSON" in ardiq("workflow", "signal", MODULE, job.id, "approval", "yes")[1]
    assert "no space, comma" in ardiq("workflow", "signal", MODULE, job.id, "a b", "1")[1]
    assert await job.abort()
    code, text = ardiq("workflow", "signal", MODULE, job.id, "approval", "true")
    assert (code, text) == (1, f"task '{job.id}' has ended, so it takes no signal any more\n")
    assert "there is no task 'nowhere'" in ardiq("workflow", "signal", MODULE, "nowhere", "approval", "true")[1]
